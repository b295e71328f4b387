"""Where files live, and how they are written: the cache, the repository when there is one, atomic writes.

Nothing here depends on the working directory, so notebooks run the same by hand, by papermill and by the
graph.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sinkprune_core.scratch import give_ordinary_modes, scratch_folder

PACKAGE = Path(__file__).resolve().parent


def cache_dir() -> Path:
    """Return the cache directory.

    It is `$SINKPRUNE_CACHE`, else `$XDG_CACHE_HOME/sinkprune`, else `~/.cache/sinkprune`.
    """
    folder = os.environ.get("SINKPRUNE_CACHE")
    if not folder:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(caches) / "sinkprune"
    return Path(folder).expanduser().resolve()


def project_root() -> Path:
    """Return the repository root for an editable install, else the working directory."""
    root = PACKAGE.parent
    is_repository = (root / "pyproject.toml").exists() and (root / "notebooks").is_dir()
    return root if is_repository else Path.cwd()


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and vanishes on any failure.

    Works for a file or for a directory that does not exist yet (the block decides which by what it creates).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path) as scratch:
        partial = scratch / path.name
        yield partial
        give_ordinary_modes(partial)
        os.replace(partial, path)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as readable JSON, atomically. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")

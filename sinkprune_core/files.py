"""Where things live: the user's cache, and the repository when there is one.

Nothing here depends on the working directory, so notebooks run the same by hand, by papermill and by the graph.
"""

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def cache_dir() -> Path:
    """Return the cache directory: `$SINKPRUNE_CACHE`, else `$XDG_CACHE_HOME/sinkprune`, else `~/.cache/sinkprune`."""
    root = os.environ.get("SINKPRUNE_CACHE")
    if not root:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sinkprune"
    return Path(root).expanduser().resolve()


def project_root() -> Path:
    """Return the repository root for an editable install, else the working directory (Colab, plain installs)."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").exists() and (root / "notebooks").is_dir() else Path.cwd()


@contextmanager
def atomic(path: Path | str):
    """Yield a temporary path beside `path` that replaces it on success and vanishes on any failure.

    Works for a file or for a directory that does not exist yet (the block decides which by what it creates).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        partial = Path(scratch) / path.name
        yield partial
        os.replace(partial, path)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as readable JSON, atomically."""
    with atomic(path) as partial:
        partial.write_text(
            json.dumps(value, indent=1, sort_keys=False, allow_nan=False) + "\n", encoding="utf-8"
        )

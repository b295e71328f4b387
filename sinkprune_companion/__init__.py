"""What this paper's notebooks, figures, pages, commands and trainings need; nothing else imports it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"  # claims, published numbers and words that ship
_other_root: ContextVar[Path | None] = ContextVar("other root", default=None)


def project_root() -> Path:
    """Return the repository root for an editable install, else the working directory.

    Inside `project_in` it is the folder that is given there.
    """
    if other := _other_root.get():
        return other

    root = DATA.parents[1]
    is_repository = (root / "pyproject.toml").exists() and (root / "notebooks").is_dir()
    return root if is_repository else Path.cwd()


@contextmanager
def project_in(folder: Path) -> Iterator[None]:
    """Take a folder for the project's root, for instance a copy, until the block ends."""
    token = _other_root.set(folder)
    try:
        yield
    finally:
        _other_root.reset(token)

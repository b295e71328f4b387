"""What this paper's notebooks, figures, pages, commands and trainings need; nothing else imports it."""

from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"  # claims, published numbers and words that ship


def project_root() -> Path:
    """Return the repository root for an editable install, else the working directory."""
    root = DATA.parents[1]
    is_repository = (root / "pyproject.toml").exists() and (root / "notebooks").is_dir()
    return root if is_repository else Path.cwd()

"""What this paper's notebooks, figures, pages, commands and trainings need; the core never imports it."""

from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"  # claims, published numbers, tasks and texts that ship

"""The log of a training run: a JSON object a line, and whole whatever happens while a row is added."""

import json
from pathlib import Path

from sinkprune_core.files import atomic


def rows_of(file: Path) -> list[dict]:
    """Return the rows of a log in their order; raise ValueError for a line that is none."""
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise ValueError(f"{file}, line {number}, is no row of a log: remove that line")
        rows.append(row)
    return rows


def add_row(file: Path, row: dict) -> None:
    """Add a row to a log, which need not exist; raise OSError where the disk is full."""
    former = file.read_text(encoding="utf-8") if file.exists() else ""
    with atomic(file) as partial:
        partial.write_text(f"{former}{json.dumps(row)}\n", encoding="utf-8")

"""The code of a notebook, which alone decides what its run gives: wording around it reschedules nothing."""

import hashlib
from pathlib import Path

import jupytext
from nbformat import NotebookNode

INJECTED = "injected-parameters"  # papermill's tag of the cell that it puts in


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells but the one that papermill injects."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if INJECTED not in cell.metadata.get("tags", [])]


def code_digest(source: Path) -> str:
    """Return a digest of the code cells of a notebook's source: words in other cells do not change it.

    Nor do empty cells, which blank lines before the first cell make.
    """
    cells = [cell.source for cell in code_cells(jupytext.read(source)) if cell.source.strip()]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()

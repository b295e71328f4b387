"""What notebooks say in whole sentences: the answer below the question, and the reading near the end.

Both are pages like the others, `answers/NAME.md.j2` and `readings/NAME.md.j2`, rendered from published
findings. They stand as Markdown cells, tagged `answer` and `reading`, in a notebook and in its source. So
they are read on the web without running anything, and no notebook runs again for a change of wording.
"""

import re
import textwrap
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from sinkprune_companion.ledger.results import Results
from sinkprune_companion.pages.render import render_results
from sinkprune_companion.run.templates import FOLDER

FOLDERS = {"answer": "answers", "reading": "readings"}  # of the templates, by a cell's tag
WIDTH = 98  # of a line in a source, behind its comment sign
NOT_BROKEN = "\ue000%"  # of no text: stands for a space and `%` while lines are broken


def notebook_texts(root: Path, results: Results) -> dict[str, str]:
    """Return the text of every notebook of `root` and of its source, with the sentences that `results` give.

    Raises PresumedVerdictError as `render` does, and ValueError for a notebook that has no cell, or several,
    for a template.
    """
    texts = {}
    for source in sorted((root / "notebooks").glob("*.py")):
        said = sentences(source.stem, results)

        reviewed = with_sentences(jupytext.read(source), said, source.name)
        texts[f"notebooks/{source.name}"] = jupytext.writes(reviewed, "py:percent")

        paired = source.with_suffix(".ipynb")
        shown = with_sentences(nbformat.read(paired, 4), said, paired.name)
        texts[f"notebooks/{paired.name}"] = nbformat.writes(shown) + "\n"
    return texts


def sentences(notebook: str, results: Results) -> dict[str, str]:
    """Return what is written about a notebook, by the tag of the cell that shows it, in Markdown."""
    said = {}
    for tag, folder in FOLDERS.items():
        template = f"{folder}/{notebook}.md.j2"
        if (FOLDER / template).exists():
            said[tag] = wrapped(render_results(template, results).strip())
    return said


def with_sentences(notebook: NotebookNode, said: dict[str, str], name: str) -> NotebookNode:
    """Return a notebook with what is said in the cells of these tags; ValueError where one is not there."""
    for tag, text in said.items():
        cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
        if len(cells) != 1:
            raise ValueError(f"{name} has {len(cells)} cells tagged {tag!r}: give it exactly one")
        cells[0].source = text
    return notebook


def wrapped(text: str) -> str:
    """Return Markdown in lines of at most WIDTH characters: items are indented, tables stay as they are.

    No line begins with `%`, which the site would take for a comment.
    """
    text = text.replace(" %", NOT_BROKEN)
    lines = []

    for line in text.splitlines():
        is_table = line.startswith("|")
        if is_table or not line.strip():
            lines.append(line)
            continue

        marker = re.match(r" *(?:[*-] |\d+\. )?", line)[0]
        lines += textwrap.wrap(
            line,
            WIDTH,
            subsequent_indent=" " * len(marker),
            break_long_words=False,
            break_on_hyphens=False,
        )

    return "\n".join(lines).replace(NOT_BROKEN, " %")

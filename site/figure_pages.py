"""Figures and where they come from: a line below every picture, and a page of all of them.

A picture in a notebook's outputs is a figure of the project when its alternative text is the figure's
caption: the pipeline writes both.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from links import Links, relative

from sinkprune.models.weight_files import read_json
from sinkprune_companion.figures.figures import DARK, NARROW

PICTURE = re.compile(r"^!\[[^\]]*\]\(([^()\s]+)\)$", re.MULTILINE)
PERCENT = re.compile(r"(?<=\d)\s%")  # does not break over lines, and a line that begins with % is a comment
FOLDED = "hide-input"  # tag of a cell whose code stays behind a click
ALL_FOLDED = "hide-cell"  # of one whose output does, too
LONG = 24  # lines of code that are shown
KINDS = {
    "png": "picture",
    "csv": "data (CSV)",
    "json": "provenance (JSON)",
    "pdf": "PDF",
    "html": "interactive",
}


@dataclass(frozen=True)
class Figure:
    """A figure that a cell of a notebook shows."""

    notebook: str  # without extension
    name: str  # of its files, without extension
    caption: str
    cell: int | None  # its place among the notebook's cells, from 0; None where no cell makes it

    @property
    def anchor(self) -> str:
        """The name of the place in the notebook's page where the cell stands."""
        return f"cell-{self.cell:02d}"

    @property
    def picture(self) -> str:
        """The path of its picture in the project."""
        return f"figures/{self.notebook}/{self.name}.png"

    @property
    def place(self) -> str:
        """The address of its cell in the site."""
        return f"notebooks/{self.notebook}.html#{self.anchor}"

    def sources(self, links: Links, page: str) -> str:
        """Return one line of HTML that leads `page` to the figure's files and to its cell."""
        found = []
        for suffix, says in KINDS.items():
            path = f"figures/{self.notebook}/{self.name}.{suffix}"
            if (links.root / path).exists():
                found.append((relative(links.copied(path), page), says))
        if self.cell is not None:
            found.append((relative(self.place, page), "cell"))
        parts = [f'<a href="{html.escape(target)}">{says}</a>' for target, says in found]
        return f'<p class="figure-sources">{self.name}: {" · ".join(parts)}</p>'


def figures_of(notebook: nbformat.NotebookNode, stem: str, root: Path) -> list[Figure]:
    """Return the figures that a notebook's outputs show, in order."""
    named = {}
    for file in sorted((root / "figures" / stem).glob("*.json")):
        about = read_json(file)
        if isinstance(about.get("caption"), str):
            named[about["caption"]] = file.stem
    return [
        Figure(stem, named[caption], caption, place)
        for place, cell in enumerate(notebook.cells)
        for caption in _captions(cell)
        if caption in named
    ]


def _captions(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Yield the alternative texts of the pictures that a cell shows."""
    for output in cell.get("outputs", []):
        about = output.get("metadata", {}).get("image/png", {})
        if "alt" in about:
            yield about["alt"]


def _widths(cell: nbformat.NotebookNode) -> Iterator[int]:
    """Yield how wide the pictures that a cell shows are meant to be, in pixels of a page."""
    for output in cell.get("outputs", []):
        about = output.get("metadata", {}).get("image/png", {})
        if "width" in about:
            yield about["width"]


def is_machinery(cell: nbformat.NotebookNode, shows_figure: bool) -> bool:
    """Return whether the code of a cell is folded: parameters, set-up, long code, and what draws a figure."""
    tags = set(cell.metadata.get("tags", []))
    return (
        bool(tags & {"main-parameters", "parameters", "setup"})
        or shows_figure
        or len(cell.source.splitlines()) > LONG
    )


def all_figures(root: Path) -> dict[str, list[Figure]]:
    """Return the figures of every notebook by its name."""
    files = sorted((root / "notebooks").glob("*.ipynb"))
    return {file.stem: figures_of(nbformat.read(file, 4), file.stem, root) for file in files}


def with_sources(
    notebook: nbformat.NotebookNode, stem: str, figures: dict[str, list[Figure]], links: Links
) -> nbformat.NotebookNode:
    """Return a notebook for the site: links as there, its file below the title, machinery folded, a name for
    every cell that shows a figure, its words for those who do not see it, and below it a line that leads to
    its files.

    `figures` are those of every notebook.
    """
    page = f"notebooks/{stem}.ipynb"
    shown: dict[int, list[Figure]] = {}
    for figure in figures[stem]:
        shown.setdefault(figure.cell, []).append(figure)
    cells = []
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            words = PERCENT.sub("\N{NO-BREAK SPACE}%", links.rewritten(cell.source, page))
            cell.source = below_pictures(words, page, figures, links)
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = links.in_output(output.data["text/markdown"], page)
        if cell.cell_type == "code" and is_machinery(cell, shows_figure=place in shown):
            tags = cell.metadata.get("tags", [])
            cell.metadata["tags"] = [*tags, ALL_FOLDED if "setup" in tags else FOLDED]
        if place in shown:
            cells.append(_html_cell(f'<span id="{shown[place][0].anchor}"></span>', f"{cell.id}-name"))
            image = {"alt": "; ".join(each.caption for each in shown[place])}
            width = max(_widths(cell), default=None)
            cell.metadata["mystnb"] = {"image": image | ({"width": f"{width}px"} if width else {})}
        cells.append(cell)
        if place in shown:
            lines = "\n".join(figure.sources(links, page) for figure in shown[place])
            cells.append(_html_cell(lines, f"{cell.id}-sources"))
    link = f'<a href="{relative(links.copied(page), page)}" download>this notebook</a>, to run it yourself'
    cells.insert(1, _html_cell(f'<p class="figure-sources">{link}</p>', "file"))
    notebook.cells = cells
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}  # knows shell lines
    return notebook


def _html_cell(text: str, identity: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(text, id=identity)


def below_pictures(text: str, page: str, figures: dict[str, list[Figure]], links: Links) -> str:
    """Return Markdown with a line of sources below every picture that is a figure of a notebook."""
    by_file = {(one.notebook, one.name): one for every in figures.values() for one in every}

    def followed(found: re.Match) -> str:
        figure = by_file.get(Path(found[1]).with_suffix("").parts[-2:])
        return found[0] if figure is None else f"{found[0]}\n\n{figure.sources(links, page)}"

    return PICTURE.sub(followed, text)


def gallery(root: Path, figures: dict[str, list[Figure]], links: Links) -> str:
    """Return the page of all figures, notebook by notebook."""
    parts = [
        "# Figures",
        "Every figure with the data behind it, its provenance (parameters, seeds, versions, commit, records) "
        "and the notebook's cell that made it.",
    ]
    parts += ["## Drawn from all findings", *_drawn_from_findings(root, links)]
    for stem, shown in figures.items():
        if not shown:
            continue
        title = nbformat.read(root / "notebooks" / f"{stem}.ipynb", 4).cells[0].source.splitlines()[0]
        parts.append(f"## [{title.removeprefix('# ')}](notebooks/{stem}.ipynb)")
        for figure in shown:
            parts += [
                links.picture(figure.picture, figure.caption, "figures.md"),
                figure.sources(links, "figures.md"),
            ]
    return "\n\n".join(parts) + "\n"


def _drawn_from_findings(root: Path, links: Links) -> Iterator[str]:
    """Yield the pictures that no cell makes, each with its files."""
    for folder in ("headline", "pictures"):
        for file in sorted((root / "figures" / folder).glob("*.png")):
            if not file.stem.endswith((NARROW, DARK)):
                about = read_json(file.with_suffix(".json"))
                picture = Figure(folder, file.stem, about["caption"], cell=None)
                yield links.picture(picture.picture, picture.caption, "figures.md")
                yield picture.sources(links, "figures.md")

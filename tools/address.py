"""Write the address where the repository is published into every file that names it.

`make address URL=https://github.com/OWNER/NAME` writes it: into pyproject.toml, CITATION.cff, the badges of
README and notebooks, the links of the notebooks, which a place that has only one notebook cannot follow as
relative ones, and their set-up cells, which install the package from there on Colab.

`make address URL=` takes all of it back. Until there is an address no badge leads nowhere, and set-up cells
say how to clone: they install no name of a registry, which nobody may own.
"""

import re
import sys
from pathlib import Path

import jupytext
import nbformat

from sinkprune.files import atomic
from sinkprune_companion import project_root
from sinkprune_companion.pages.links import ADDRESS, FIRST, REF, address, with_badges, with_links

CLONE = "# On another machine: clone the repository, and open this notebook in the clone with `make lab`."
INSTALL = '!test -z "$COLAB_RELEASE_TAG" || pip install --quiet "{}"'
SETUP = re.compile(rf'(?m)^(?:{re.escape(CLONE)}|!test .* pip install --quiet "[^"]*")$')


def write(url: str, root: Path) -> list[Path]:
    """Write an address, or take it back (an empty text), everywhere below `root`; return the files changed.

    Raises ValueError for an address that Colab cannot open.
    """
    if url and not ADDRESS.fullmatch(url):
        raise ValueError(f"URL={url} is no address that Colab opens: write https://github.com/OWNER/NAME")
    changed = []
    for file, text in texts(url, root).items():
        if file.read_text(encoding="utf-8") != text:
            changed.append(file)
            with atomic(file) as partial:
                partial.write_text(text, encoding="utf-8")
    return changed


def texts(url: str, root: Path) -> dict[Path, str]:
    """Return the text of every file that names the address."""
    project = root / "pyproject.toml"
    citation = root / "CITATION.cff"
    readme = root / "README.md"
    written = {
        project: _with_line(project, r"\[project\.urls\]", f'Repository = "{url}"' if url else ""),
        citation: _with_line(citation, r"license: .*", f'repository-code: "{url}"' if url else ""),
        readme: with_badges(readme.read_text(encoding="utf-8"), FIRST, url),
    }
    for source in sorted((root / "notebooks").glob("*.py")):
        written |= _notebook_texts(source, url, address(root))
    return written


def _with_line(file: Path, anchor: str, line: str) -> str:
    """Return the text of a file with the line that names the address below the one that fits `anchor`."""
    text = re.sub(r'(?m)^(Repository = |repository-code: )".*"\n', "", file.read_text(encoding="utf-8"))
    return re.sub(rf"(?m)^{anchor}\n", rf"\g<0>{line}\n", text, count=1) if line else text


def _notebook_texts(source: Path, url: str, before: str) -> dict[Path, str]:
    """Return a reviewed source and its notebook with an address in place of the one `before`."""
    paired = source.with_suffix(".ipynb")
    reviewed = jupytext.read(source)
    notebook = nbformat.read(paired, 4)
    for cell in (*reviewed.cells, *notebook.cells):
        cell.source = with_address(cell, source.stem, url, before)
    return {source: jupytext.writes(reviewed, "py:percent"), paired: nbformat.writes(notebook) + "\n"}


def with_address(cell: nbformat.NotebookNode, notebook: str, url: str, before: str) -> str:
    """Return the source of a notebook's cell as an address makes it."""
    if cell.cell_type == "markdown":
        return with_links(with_badges(cell.source, notebook, url), url, before)
    line = INSTALL.format(f"git+{url}@{REF}") if url else CLONE
    return SETUP.sub(lambda _: line, cell.source)


def main(arguments: list[str]) -> int:
    """Write the address that is given and print the files that it changed."""
    try:
        (url,) = arguments
        changed = write(url.removesuffix("/").removesuffix(".git"), project_root())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for file in changed:
        print(file.relative_to(project_root()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

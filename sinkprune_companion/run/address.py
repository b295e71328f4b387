"""Where the repository is published: one address, and everything that it decides.

`make address URL=https://github.com/OWNER/NAME` writes it: into pyproject.toml, the badges of README and of
the notebooks, the links of the notebooks, which a place that has only one notebook cannot follow as relative
ones, and their set-up cells, which install the package from there. `make address URL=` takes all of it back:
until there is an address, no badge leads nowhere.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_core.files import atomic, project_root

if TYPE_CHECKING:
    from nbformat import NotebookNode

ADDRESS = re.compile(r"https://github\.com/([\w-]+/[\w.-]+)")
COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"
BADGES = re.compile(r"\n\[!\[Open in Colab\]\(.*\n\[!\[Open in Binder\]\(.*\n")
FIRST = "00_start_here"


def address(root: Path) -> str:
    """Return the repository's address from pyproject.toml; an empty text before there is one."""
    return _project(root).get("urls", {}).get("Repository", "")


def tag(root: Path) -> str:
    """Return the tag of the version in pyproject.toml, to which badges and links lead."""
    return f"v{_project(root)['version']}"


def _project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def write(url: str, root: Path) -> list[Path]:
    """Write an address, or take it back (an empty text), everywhere below `root`; return the files changed.

    Raises ValueError for an address that Colab cannot open.
    """
    if url and not ADDRESS.fullmatch(url):
        raise ValueError(f"URL={url} is no address that Colab opens: write https://github.com/OWNER/NAME")
    before = {file: file.read_bytes() for file in _files(root)}
    version = tag(root)
    _replace(root / "pyproject.toml", r'(?m)^Repository = ".*"\n', "")
    _replace(root / "CITATION.cff", r'(?m)^repository-code: ".*"\n', "")
    if url:
        _replace(root / "pyproject.toml", r"(?m)^\[project\.urls\]\n", rf'\g<0>Repository = "{url}"\n')
        _replace(root / "CITATION.cff", r"(?m)^license: .*\n", rf'\g<0>repository-code: "{url}"\n')
    readme = root / "README.md"
    _write(readme, with_badges(readme.read_text(encoding="utf-8"), FIRST, url, version))
    for source in sorted((root / "notebooks").glob("*.py")):
        _write_pair(source, url, version)
    return [file for file, content in before.items() if file.read_bytes() != content]


def _files(root: Path) -> list[Path]:
    named = [root / name for name in ("pyproject.toml", "CITATION.cff", "README.md")]
    notebooks = root / "notebooks"
    return [*named, *sorted(notebooks.glob("*.py")), *sorted(notebooks.glob("*.ipynb"))]


def _replace(file: Path, pattern: str, by: str) -> None:
    _write(file, re.sub(pattern, by, file.read_text(encoding="utf-8"), count=1))


def _write(file: Path, text: str) -> None:
    with atomic(file) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_pair(source: Path, url: str, tag: str) -> None:
    """Write an address into a notebook and its reviewed source; outputs and other cells stay as they are."""
    import jupytext
    import nbformat

    reviewed = jupytext.read(source)
    paired = source.with_suffix(".ipynb")
    notebook = nbformat.read(paired, 4)
    for cell in (*reviewed.cells, *notebook.cells):
        cell.source = with_address(cell, source.stem, url, tag)
    with atomic(source) as partial:
        jupytext.write(reviewed, partial, fmt="py:percent")
    with atomic(paired) as partial:
        nbformat.write(notebook, partial)


def with_address(cell: "NotebookNode", notebook: str, url: str, tag: str) -> str:
    """Return the source of a notebook's cell as an address makes it."""
    if cell.cell_type == "markdown":
        return with_links(with_badges(cell.source, notebook, url, tag), url, tag)
    package = f"sinkprune @ git+{url}@{tag}" if url else ""
    return re.sub(r'(?m)^SOURCE = "[^"]*"', f'SOURCE = "{package}"', cell.source)


def with_badges(text: str, notebook: str, url: str, tag: str) -> str:
    """Return a page with the badges that open a notebook below its title, or without any."""
    text = BADGES.sub("", text)
    if not url or not text.startswith("# "):
        return text
    name = ADDRESS.fullmatch(url)[1]
    colab = f"{COLAB}/github/{name}/blob/{tag}/notebooks/{notebook}.ipynb"
    binder = f"{BINDER}/v2/gh/{name}/{tag}?urlpath=lab/tree/notebooks/{notebook}.ipynb"
    badges = (
        f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({colab})\n"
        f"[![Open in Binder]({BINDER}/badge_logo.svg)]({binder})\n"
    )
    title, rest = text.split("\n", 1)
    return f"{title}\n\n{badges}{rest}"


def with_links(text: str, url: str, tag: str) -> str:
    """Return a text of a notebook whose links work in a place that has only this notebook.

    Links out of the folder become absolute, and beside a link to another notebook stands one into Colab.
    """
    text = re.sub(r"\]\(https://github\.com/[\w-]+/[\w.-]+/(?:blob|raw)/v[\d.]+/", "](../", text)
    text = re.sub(rf" \(\[Colab\]\({COLAB}[^)]*\)\)", "", text)
    if not url:
        return text
    text = re.sub(r"(!\[[^\]]*\]\()\.\./", rf"\g<1>{url}/raw/{tag}/", text)
    text = text.replace("](../", f"]({url}/blob/{tag}/")
    place = f"{COLAB}/github/{ADDRESS.fullmatch(url)[1]}/blob/{tag}/notebooks"
    return re.sub(r"\]\((\d\d_\w+\.ipynb)\)", rf"\g<0> ([Colab]({place}/\g<1>))", text)


def main(arguments: list[str]) -> int:
    """Write the address that is given and say which files it changed."""
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

"""Pages of the toolkit and of the core, one per folder, which Sphinx fills from docstrings."""

import ast
from pathlib import Path

FIRST = (
    "The toolkit `sinkprune` and the core `sinkprune_core` that it stands on, folder by folder, from their "
    "docstrings."
)
ORDER = (  # a package stands for its modules that lie in no folder
    "sinkprune",
    "sinkprune/runs",
    "sinkprune/evaluation",
    "sinkprune/evaluation/harness",
    "sinkprune/figures",
    "sinkprune/models",
    "sinkprune_core",
    "sinkprune_core/pruning",
    "sinkprune_core/calibration",
    "sinkprune_core/sinks",
    "sinkprune_core/diffusion",
)


def page_of(folder: str) -> str:
    """Return the name of the page of a folder of a package."""
    return f"api/{folder.replace('/', '-')}"


def first_sentence(file: Path) -> str:
    """Return the first sentence of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".:;") + "."


def pages(root: Path) -> dict[str, str]:
    """Return the sources of the pages by name: an overview, and every folder with its modules."""
    rows = []
    written = {}
    for folder in ORDER:
        within = root / folder
        modules = [file for file in sorted(within.glob("*.py")) if file.stem not in ("__init__", "__main__")]
        page = page_of(folder)
        written[f"{page}.md"] = _folder_page(folder, modules)
        rows.append(f"* [{folder}]({Path(page).name}.md): {first_sentence(within / '__init__.py')}")
    contents = "\n".join(Path(page_of(folder)).name for folder in ORDER)
    toctree = f"```{{toctree}}\n:hidden:\n\n{contents}\n```"
    return {"api/index.md": "\n\n".join(["# Library", FIRST, "\n".join(rows), toctree]) + "\n", **written}


def _folder_page(folder: str, modules: list[Path]) -> str:
    """Return the source of the page of one folder."""
    package = folder.replace("/", ".")
    labels = {file: f"{package}-{file.stem}".replace("_", "-").replace(".", "-") for file in modules}
    rows = [f"* [`{file.stem}`](#{labels[file]}): {first_sentence(file)}" for file in modules]
    parts = [f"# {folder}", "\n".join(rows)]
    for file in modules:
        directive = f".. automodule:: {package}.{file.stem}\n   :members:\n   :member-order: bysource"
        parts.append(f"({labels[file]})=\n## {file.stem}\n\n```{{eval-rst}}\n{directive}\n```")
    return "\n\n".join(parts) + "\n"

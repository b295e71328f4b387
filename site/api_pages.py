"""Pages of the core, one per folder, which Sphinx fills from docstrings."""

import ast
from pathlib import Path

HELPERS = "helpers"  # the modules that lie in no folder
FIRST = (
    "The core, folder by folder, from its docstrings. An import goes down only, in the order of this list."
)
ORDER = (
    "costs",
    "evaluation",
    "pruning",
    "resuming",
    "calibration",
    "sinks",
    "diffusion",
    "models",
    HELPERS,
)


def first_sentence(file: Path) -> str:
    """Return the first sentence of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".:;") + "."


def pages(package: Path) -> dict[str, str]:
    """Return the sources of the pages by name: an overview, and every folder with its modules."""
    rows = []
    written = {}
    for folder in ORDER:
        within = package if folder == HELPERS else package / folder
        modules = [file for file in sorted(within.glob("*.py")) if file.stem not in ("__init__", "__main__")]
        written[f"api/{folder}.md"] = _folder_page(folder, within, modules, package.name)
        says = (
            "Small things that know nothing of the rest."
            if folder == HELPERS
            else first_sentence(within / "__init__.py")
        )
        rows.append(f"* [{folder}]({folder}.md): {says}")
    contents = "\n".join(ORDER)
    toctree = f"```{{toctree}}\n:hidden:\n\n{contents}\n```"
    return {"api/index.md": "\n\n".join(["# Library", FIRST, "\n".join(rows), toctree]) + "\n", **written}


def _folder_page(folder: str, within: Path, modules: list[Path], package: str) -> str:
    """Return the source of the page of one folder."""
    prefix = package if folder == HELPERS else f"{package}.{folder}"
    labels = {file: f"{folder}-{file.stem}".replace("_", "-") for file in modules}
    rows = [f"* [`{file.stem}`](#{labels[file]}): {first_sentence(file)}" for file in modules]
    parts = [f"# {folder}", "\n".join(rows)]
    for file in modules:
        directive = f".. automodule:: {prefix}.{file.stem}\n   :members:\n   :member-order: bysource"
        parts.append(f"({labels[file]})=\n## {file.stem}\n\n```{{eval-rst}}\n{directive}\n```")
    return "\n\n".join(parts) + "\n"

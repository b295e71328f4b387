"""The house stays as it was built: a small core, short modules, folders that say what they hold."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sinkprune_core"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({module.parent for module in MODULES} - {PACKAGE})
CORE = ("sinks", "pruning")


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            lines.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def code_lines(module: Path) -> int:
    """Return how many lines of a module are neither blank, nor comments, nor docstrings."""
    source = module.read_text(encoding="utf-8")
    documented = docstring_lines(ast.parse(source))
    code = 0
    for number, line in enumerate(source.splitlines(), start=1):
        says_something = bool(line.strip()) and not line.lstrip().startswith("#")
        code += says_something and number not in documented
    return code


def test_the_core_is_read_in_an_afternoon():
    assert sum(code_lines(module) for folder in CORE for module in (PACKAGE / folder).glob("*.py")) < 3000


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_a_module_is_read_in_one_sitting(module):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_says_what_lives_there(folder):
    source = (folder / "__init__.py").read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(source))
    assert said, "a docstring: what lives there, what it may import, which file to open first"
    assert "import" in said

"""The house stays as it was built: a small core, short modules, folders that say what they hold."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sinkprune_core"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({module.parent for module in MODULES} - {PACKAGE})
CORE = ("sinks", "pruning")


def lines(module: Path) -> int:
    """Return how many lines a module has, all of them."""
    return len(module.read_text(encoding="utf-8").splitlines())


def test_the_core_is_read_in_an_afternoon():
    assert sum(lines(module) for folder in CORE for module in (PACKAGE / folder).glob("*.py")) < 3000


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_a_module_is_read_in_one_sitting(module):
    assert lines(module) <= 400


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_says_what_lives_there(folder):
    source = (folder / "__init__.py").read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(source))
    assert said, "a docstring: what lives there, what it may import, which file to open first"
    assert "import" in said

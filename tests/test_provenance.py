"""What a number comes from follows from imports, and only what can change it counts."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sinkprune_companion.harness import quality
from sinkprune_core import provenance
from sinkprune_core.files import PACKAGE
from sinkprune_core.provenance import closure_modules, environment, modules_of, source_closure
from sinkprune_core.sinks.detection import sink_sets

PRUNING = ["sinkprune_companion.experiments.variants"]
MASKS = ["sinkprune_companion.experiments.masks"]
HIDING = ["sinkprune_companion.experiments.hiding_scores"]
SUITE = ["sinkprune_companion.experiments.suite_answers"]
MEASURING = {"pruning": PRUNING, "masks": MASKS, "hiding": HIDING, "suite": SUITE}


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package's code and small data that a test may change."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.jsonl")
    return Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=ignored))


def closure(modules: list[str], package: Path) -> str:
    """Return the closure of files as they are now."""
    return closures({"one": modules}, package)["one"]


def closures(measuring: dict[str, list[str]], package: Path) -> dict[str, str]:
    """Return several closures of files as they are now, which are read once."""
    provenance._read.cache_clear()
    provenance._closure.cache_clear()
    return {name: source_closure(modules, package) for name, modules in measuring.items()}


@pytest.mark.parametrize("name", MEASURING)
def test_what_is_measured_does_not_rest_on_what_draws_writes_or_records(name):
    modules = closure_modules(MEASURING[name])
    assert "sinkprune_core.models.language_model" in modules
    measuring = {"variants", "masks", "hiding_scores", "suite_answers", "scoring"}
    companions = {module.split(".")[-1] for module in modules if ".companion." in module}
    assert companions <= measuring
    assert not [module for module in modules if ".cli" in module or ".training." in module]


def test_records_of_pruning_and_of_hiding_do_not_rest_on_each_other():
    assert "sinkprune_core.sinks.hiding" not in closure_modules(PRUNING)
    assert "sinkprune_core.pruning.engine" in closure_modules(PRUNING)
    assert "sinkprune_core.pruning.engine" not in closure_modules(HIDING)
    assert "sinkprune_core.pruning.criteria" in closure_modules(MASKS)
    assert "sinkprune_companion.harness.quality" not in closure_modules(PRUNING)


class Commented(ast.NodeTransformer):
    """Puts a string at the head of every module, class and function, in the place of its docstring."""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            if ast.get_docstring(node) is not None:
                node.body.pop(0)
            node.body.insert(0, ast.Expr(ast.Constant("another docstring")))
        return self.generic_visit(node)


class SumsForProducts(ast.NodeTransformer):
    """Turns the first product into a sum."""

    done = False

    def visit_Mult(self, node: ast.Mult) -> ast.operator:
        if self.done:
            return node
        self.done = True
        return ast.Add()


def rewrite(file: Path, transformer: ast.NodeTransformer | None = None) -> None:
    """Write a file's code without comments and in another layout, changed by `transformer`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if transformer is not None:
        tree = transformer.visit(tree)
    file.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")


@pytest.mark.parametrize("transformer", [None, Commented()], ids=["layout and comments", "docstrings"])
def test_docstrings_comments_and_layout_do_not_count(package, transformer):
    before = closure(PRUNING, package)
    for file in package.rglob("*.py"):
        rewrite(file, transformer)
    assert closure(PRUNING, package) == before


def test_where_the_package_lies_does_not_count(package, tmp_path):
    other = shutil.copytree(package, tmp_path / "other" / PACKAGE.name)
    assert closure(PRUNING, package) == closure(PRUNING, other)


@pytest.mark.parametrize("changed", ["companion/figures.py", "companion/records.py", "data/models.yml"])
def test_figures_records_and_the_table_of_models_do_not_count(package, changed):
    before = closures(MEASURING, package)
    with (package / changed).open("a", encoding="utf-8") as file:
        file.write("\nanother = 1\n" if changed.endswith(".py") else "\nanother: 1\n")
    assert closures(MEASURING, package) == before


def test_a_line_of_arithmetic_counts_for_what_rests_on_it_alone(package):
    before = closures(MEASURING, package)
    arithmetic = SumsForProducts()
    rewrite(package / "pruning" / "criteria.py", arithmetic)
    assert arithmetic.done
    after = closures(MEASURING, package)
    assert {name for name in before if before[name] != after[name]} == {"pruning", "masks"}


def write_modules(folder: Path, **sources: str) -> Path:
    package = folder / "small"
    package.mkdir()
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    return package


def test_imports_are_followed_to_the_end_and_into_functions(tmp_path):
    package = write_modules(
        tmp_path,
        a="def run():\n    from small import b\n    return b.VALUE",
        b="from small.c import VALUE\nimport os",
        c="import small.a\nVALUE = 1",
        d="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from small import c",
    )
    assert closure_modules(["small.a"], package) == ["small.a", "small.b", "small.c"]
    assert closure_modules(["small.d"], package) == ["small.d"]
    before = closure(["small.a"], package)
    (package / "c.py").write_text("import small.a\nVALUE = 2")
    assert closure(["small.a"], package) != before


def test_a_name_that_is_no_module_is_refused():
    with pytest.raises(ValueError, match=r"sinkprune_core\.nothing is no module of the package"):
        source_closure(["sinkprune_core.nothing"])


def helper() -> object:
    return quality.filling


def test_a_function_of_a_notebook_stands_for_what_it_names(tiny_dlm):
    number = 3
    lm = tiny_dlm

    def write() -> object:
        return helper()

    assert modules_of(lambda: number + 1) == set()
    assert modules_of(lambda: sink_sets) == {"sinkprune_core.sinks.detection"}
    assert modules_of(lambda: write()) == {"sinkprune_companion.harness.quality"}
    assert modules_of(lambda: lm) == {"sinkprune_core.models.language_model"}
    assert modules_of(lambda lm=lm: [lm for _ in range(number)]) == {"sinkprune_core.models.language_model"}
    assert modules_of(sink_sets, quality, type(lm)) == {
        "sinkprune_core.sinks.detection",
        "sinkprune_companion.harness.quality",
        "sinkprune_core.models.language_model",
    }


def test_the_environment_names_versions_and_the_commit():
    found = environment()
    assert found["versions"]["torch"] and found["versions"]["python"] == ".".join(
        map(str, sys.version_info[:3])
    )
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=PACKAGE, capture_output=True, text=True, check=False
    )
    if git.returncode == 0:
        assert found["git_commit"].removesuffix("-dirty") == git.stdout.strip()
    else:
        assert found["git_commit"] is None

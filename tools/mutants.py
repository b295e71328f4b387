"""How many small faults in the core the tests notice: mutants drawn by seed, each in a copy of the project.

    python tools/mutants.py --count 300 --seed 0 --out mutants.csv

A mutant is one changed operator, comparison or constant. It is killed where the tests of its folder fail or
run into the time limit; the table names the first test that fails. The draw depends on sources and seed
alone; a stopped run goes on where it was.
"""

import argparse
import ast
import csv
import importlib
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = {  # module or folder -> the tests that stand for it
    "sinkprune_core/sinks": ["tests/sinks"],
    "sinkprune_core/calibration": ["tests/calibration"],
    "sinkprune_core/pruning": ["tests/pruning", "tests/calibration/test_dense_statistics.py"],
    "sinkprune_core/diffusion": ["tests/diffusion"],
    "sinkprune/evaluation/likelihood.py": ["tests/evaluation/test_likelihood.py"],
    "sinkprune/evaluation/intervals.py": [
        "tests/evaluation/test_intervals.py",
        "tests/evaluation/test_statistics.py",
    ],
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
TIMEOUT = 600  # seconds for the tests of one mutant
LIBRARIES = ("torch", "transformers.models.llama.modeling_llama", "pandas", "scipy.stats")  # slow to import
FORK = multiprocessing.get_context("fork")
COLUMNS = ("module", "line", "number", "change", "killed_by")


def sources() -> Iterator[tuple[Path, list[str]]]:
    """Yield the modules that are mutated, each with its tests."""
    for place, tests in TESTS.items():
        target = ROOT / place
        for module in [target] if target.is_file() else sorted(target.glob("*.py")):
            yield module, tests


def sites(tree: ast.Module) -> list[ast.AST]:
    """Return the nodes that can be changed, in order: operators, comparisons, numbers and truth values."""
    nodes = []
    for node in ast.walk(tree):
        is_operator = isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in OPERATORS
        is_comparison = isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS
        is_constant = isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float))
        if is_operator or is_comparison or is_constant:
            nodes.append(node)
    return [node for node in nodes if hasattr(node, "lineno")]


def change(node: ast.AST) -> str:
    """Change a node in place and say how."""
    before = ast.unparse(node)
    if isinstance(node, (ast.BinOp, ast.BoolOp)):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = OPERATORS[type(node.ops[0])]()
    elif isinstance(node.value, bool):
        node.value = not node.value
    else:
        node.value += 1
    return f"{before} -> {ast.unparse(node)}"


def own_first(module: Path, tests: list[str]) -> list[str]:
    """Return the tests with the module's own file in front, where there is one: it fails soonest."""
    own = ROOT / tests[0] / f"test_{module.stem}.py"
    return [own.relative_to(ROOT).as_posix(), *tests] if own.is_file() else tests


def drawn(count: int, seed: int) -> list[tuple[Path, list[str], int]]:
    """Return `count` mutants: the module, its tests and the number of the site in it."""
    all_sites = []
    for module, tests in sources():
        tree = ast.parse(module.read_text(encoding="utf-8"))
        all_sites += [(module, tests, number) for number in range(len(sites(tree)))]
    return random.Random(seed).sample(all_sites, min(count, len(all_sites)))


def killer(copy: Path, module: Path, source: str, tests: list[str]) -> str:
    """Return which test notices a module that was changed to `source`; empty where none does."""
    target = copy / module.relative_to(ROOT)
    original = target.read_text(encoding="utf-8")
    target.write_text(source, encoding="utf-8")

    log = copy.parent / "log"
    process = FORK.Process(target=run_tests, args=(copy, tests, log))
    process.start()
    process.join(TIMEOUT)

    target.write_text(original, encoding="utf-8")

    if process.is_alive():
        process.kill()
        process.join()
        return "the time limit"

    if process.exitcode == 0:
        return ""

    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(encoding="utf-8"), re.MULTILINE)
    return failed[1] if failed else "no test can begin"


def run_tests(copy: Path, tests: list[str], log: Path) -> None:
    """Run tests of the copy up to the first that fails, in a process that begins with LIBRARIES imported."""
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))


def main() -> None:
    """Draw the mutants, run those that are not yet in the table, and print the share that was killed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("mutants.csv"))
    options = parser.parse_args()

    rows = []
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))

    mutants = drawn(options.count, options.seed)
    for library in LIBRARIES:
        importlib.import_module(library)

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "build"))

        for module, tests, number in mutants[len(rows) :]:
            tree = ast.parse(module.read_text(encoding="utf-8"))
            node = sites(tree)[number]
            line = node.lineno
            changed = change(node)

            killed_by = killer(copy, module, ast.unparse(tree), own_first(module, tests))
            name = module.relative_to(ROOT).as_posix()

            rows.append(dict(zip(COLUMNS, (name, line, number, changed, killed_by), strict=True)))
            with options.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)

            print(
                f"{len(rows)}/{len(mutants)} {name}:{line} {changed}: {killed_by or 'SURVIVES'}", flush=True
            )

    killed = sum(bool(row["killed_by"]) for row in rows)
    print(f"{killed} of {len(rows)} mutants killed")


if __name__ == "__main__":
    main()

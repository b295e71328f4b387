"""Where a number comes from: versions, the git commit, and the project's code that computed it."""

import ast
import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from sinkprune_core.files import PACKAGE

PACKAGES = ("sinkprune", "torch", "transformers", "peft", "numpy", "pandas", "scipy")


def package_version(package: str) -> str | None:
    """Return the installed version of a package; None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def environment() -> dict:
    """Return `versions`, `git_commit` (with `-dirty` where the package differs from it) and `platform`."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = package_version(package)
    return {
        "versions": versions,
        "git_commit": _git_commit(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


def _git_commit() -> str | None:
    """Return the commit of the clone that holds the package; None where there is no git or no clone."""
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", "sinkprune_core", "sinkprune_companion")
    except (OSError, subprocess.SubprocessError):
        return None
    if changes:
        return f"{commit}-dirty"
    return commit


def _git(*arguments: str) -> str:
    """Return what a git command prints; raises CalledProcessError where it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()


def modules_of(*values: object) -> set[str]:
    """Return the project's modules that functions, classes or objects belong to.

    A function of a notebook or script belongs to none. It stands for what it names: global and enclosing
    variables, default values, and the same of every other function of the notebook among them.
    """
    waiting = list(values)
    own = {_home(value) for value in values}  # modules whose functions are followed
    followed = set()
    modules = set()
    while waiting:
        value = waiting.pop()
        home = _home(value)
        if home.split(".")[0] == PACKAGE.name:
            modules.add(home)
        elif isinstance(value, FunctionType) and home in own and value not in followed:
            followed.add(value)
            waiting.extend(_named_by(value))
    return modules


def _home(value: object) -> str:
    """Return the module that a value belongs to: itself, where it was defined, or where its class was."""
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, (FunctionType, type)):
        return value.__module__ or ""
    return type(value).__module__


def _named_by(function: FunctionType) -> list[object]:
    """Return the values of what a function names: globals, enclosing variables and defaults."""
    names = _names(function.__code__)
    values = [value for name, value in function.__globals__.items() if name in names]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a variable that has no value yet
            values.append(cell.cell_contents)
    values.extend(function.__defaults__ or ())
    values.extend((function.__kwdefaults__ or {}).values())
    return values


def _names(code: CodeType) -> set[str]:
    """Return the names of globals and attributes in a function's code and in all functions inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def source_closure(modules: Iterable[str], package: Path = PACKAGE) -> str:
    """Return a SHA-256 prefix over the code of project modules and of all that they import from the project.

    Imports are followed to the end, those inside functions too; those for type checkers alone are not: they
    never run. What changes no result does not count: docstrings, comments and layout. `modules` are full
    names such as `sinkprune_core.pruning.engine`, `package` is the package's folder. The syntax tree is that
    of the running Python, so another minor version of Python gives other values.
    """
    return _closure(frozenset(modules), package)


@cache
def _closure(modules: frozenset[str], package: Path) -> str:
    digest = hashlib.sha256()
    for module in closure_modules(modules, package):
        code, _ = _read(module, package)
        digest.update(f"{module}\n{code}\n".encode())
    return digest.hexdigest()[:16]


def closure_modules(modules: Iterable[str], package: Path = PACKAGE) -> list[str]:
    """Return project modules and all that they import from the project, by name, in order.

    Raises ValueError for a name that is no module of the project.
    """
    waiting = list(modules)
    found = set()
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        if _file(module, package) is None:
            raise ValueError(f"{module} is no module of the package in {package}")
        found.add(module)
        _, imports = _read(module, package)
        waiting.extend(imports)
    return sorted(found)


def _file(module: str, package: Path) -> Path | None:
    """Return the file of a module, None where the package has no such module."""
    top, *parts = module.split(".")
    if top != package.name:
        return None
    place = package.joinpath(*parts)
    for file in (place.with_name(place.name + ".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _read(module: str, package: Path) -> tuple[str, frozenset[str]]:
    """Return a SHA-256 of a module's code and the project's modules that it imports."""
    tree = _Stripped().visit(ast.parse(_file(module, package).read_bytes()))
    code = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    imported = (name for name in _imported(tree, module) if name.split(".")[0] == package.name)
    modules = set()
    for name in imported:
        if _file(name, package) is None:  # a name inside a module: `from module import name`
            name = name.rpartition(".")[0]
        modules.add(name)
    return code, frozenset(modules)


class _Stripped(ast.NodeTransformer):
    """Leaves out what never does anything: strings that stand alone, and blocks for type checkers."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.If | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse:
            return None
        return self.generic_visit(node)


def _imported(tree: ast.Module, module: str) -> Iterator[str]:
    """Yield the full names that a module imports; a name from a module as `module.name`."""
    parent = module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            if node.level:
                origin = resolve_name(origin, parent)
            for alias in node.names:
                yield f"{origin}.{alias.name}"

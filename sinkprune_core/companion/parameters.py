"""What every notebook does first: check its parameters, so that a bad one fails before any work.

papermill only warns of a parameter that does not exist and takes any type; `start` refuses both in one sentence.
"""

import ast
import re
import types
import typing
from collections.abc import Callable

import matplotlib
import pandas

from sinkprune_core.companion.records import Run
from sinkprune_core.memory import keep_freed_memory
from sinkprune_core.models.language_model import check_name
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.recipe import preset


class ParameterError(ValueError):
    """A notebook parameter that cannot be used; shown as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this
        return [f"ParameterError: {self}"]


def _check_sparsity(value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{value} must lie in [0, 1): it is the share of weights set to zero, e.g. 0.5")


def _check_positive(value: int) -> None:
    if value < 1:
        raise ValueError(f"{value} must be at least 1")


def _check_margin(value: float) -> None:
    if not value > 0:
        raise ValueError(
            f"{value} must be above 0: it is the smallest difference that would matter, in nats per token, e.g. 0.02"
        )


def _check_pattern(value: str) -> None:
    if n_and_m(value) is None:
        raise ValueError(f"{value!r} must read N:M, N zeros in every M consecutive inputs, e.g. 2:4")


def _check_number(value: int) -> None:
    if value < 0:
        raise ValueError(f"{value} must be 0 or more")


# What a name means is the same in every notebook, and so is what it may be. A list is checked item by item.
CHECKS: dict[str, Callable] = {
    "model": check_name,
    "twin": check_name,
    "sparsity": _check_sparsity,
    "sparsities": _check_sparsity,
    "first_seed": _check_number,
    "margin": _check_margin,
    **dict.fromkeys(["twin_sparsities", "ratios"], _check_sparsity),
    "pattern_draws": _check_positive,
    "patterns": _check_pattern,
    **dict.fromkeys(
        ["recipes", "curve_recipes", "pattern_recipes", "structured_recipes", "baselines"], preset
    ),
    **dict.fromkeys(
        [
            "prompts",
            "sequences",
            "calibration",
            "draws",
            "seeds",
            "noise_levels",
            "steps",
            "length",
            "batch",
            "counts",
            "items",
        ],
        _check_positive,
    ),
}


def declared(cells: list[str]) -> dict[str, object]:
    """Return name -> type of the parameters cell: the last executed cell that holds annotated assignments only."""
    for source in reversed(cells):
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        if body and all(isinstance(node, ast.AnnAssign) for node in body):
            return {
                node.target.id: eval(compile(ast.Expression(node.annotation), "<annotation>", "eval"), {})
                for node in body
            }
    raise ParameterError("no parameters cell was run: run the notebook from its top")


def injected(cells: list[str]) -> list[str]:
    """Return the names that papermill's injected cell assigns."""
    names = []
    for source in cells:
        if source.startswith("# Parameters"):
            names += [node.targets[0].id for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return names


def fits(value: object, annotation: object) -> bool:
    """Return whether `value` has the annotated type; whole numbers pass as floats, booleans never as numbers."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, option) for option in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if annotation in (None, types.NoneType):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def start(notebook: str, namespace: dict) -> Run:
    """Check the parameters in a notebook's namespace (`globals()`) and return its `Run`.

    Raises ParameterError for an unknown name, a wrong type or a value that cannot be used, naming what is allowed.
    """
    cells = namespace.get("In", [])
    annotations = declared(cells)
    for name in injected(cells):
        if name not in annotations:
            raise ParameterError(
                f"parameter {name!r} does not exist in {notebook}; it has: {', '.join(annotations)}"
            )
    parameters = {name: namespace[name] for name in annotations}
    for name, annotation in annotations.items():
        value = parameters[name]
        if not fits(value, annotation):
            shown = (
                getattr(annotation, "__name__", str(annotation))
                if typing.get_origin(annotation) is None
                else str(annotation)
            )
            raise ParameterError(f"{name}={value!r} is a {type(value).__name__}; it must be {shown}")
        if name in CHECKS and value is not None:
            items = value if isinstance(value, list) else [value]
            if isinstance(value, list) and not value:
                raise ParameterError(f"{name} is empty: give at least one value")
            for item in items:
                try:
                    CHECKS[name](item)
                except ValueError as error:
                    raise ParameterError(f"{name}: {error}") from None
    profile = parameters["profile"]
    if not re.fullmatch(r"[\w-]+(@[\w.-]*\w)?", profile):
        raise ParameterError(
            f"profile={profile!r} names a folder below runs/: use letters, digits, - and _, and profile@cell for one cell of a sweep"
        )
    keep_freed_memory()
    matplotlib.rcParams["figure.dpi"] = 110
    pandas.set_option("display.max_colwidth", None)
    return Run(notebook, profile, parameters)

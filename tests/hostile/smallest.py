"""Notebooks on the smallest values that their checks take, on tiny models: each runs to its end."""

import math
from collections.abc import Iterator
from pathlib import Path

from notebook_cells import MODELS, parameter_cells, run_cells

from sinkprune_companion.run import parameters

GROUP = "notebooks on their smallest values"
MOST = 200  # no parameter needs more
NAMED = ("profile", "device", "dtype")  # they stay as they are


def is_taken(notebook: str, name: str, annotation: str, value: object) -> bool:
    """Return whether the check of a notebook takes a value."""
    try:
        parameters.check(notebook, {name: annotation}, {name: value})
    except parameters.ParameterError:
        return False
    return True


def candidates(annotation: str, default: object) -> Iterator[object]:
    """Yield values of a parameter, the smallest first."""
    kind = annotation.partition(" | ")[0]
    if kind == "bool":
        yield False
    elif kind == "int":
        yield from range(MOST)
    elif kind == "float":
        yield from (0.0, math.ulp(0.0), 0.1)
    elif kind.startswith("list"):
        yield []
        first = default[0] if default else None
        for value in candidates(kind.removeprefix("list[").removesuffix("]"), first):
            yield [value]
    yield default


def smallest(notebook: str) -> dict[str, object]:
    """Return the smallest value of every parameter that the check of a notebook takes."""
    source = parameter_cells(notebook)
    annotations, defaults = parameters.declared(source), parameters.defaults(source)
    values = {}
    for name, annotation in annotations.items():
        if name in NAMED or name in MODELS[notebook]:
            continue
        every = candidates(annotation, defaults[name])
        values[name] = next(value for value in every if is_taken(notebook, name, annotation, value))
    return values


def run(notebook: str, models: dict[str, str], here: Path) -> None:
    """Run a notebook on its smallest values."""
    named = {name: models[name] for name in MODELS[notebook]}
    values = smallest(notebook) | named
    run_cells(notebook, **values, profile="smallest")
    assert list((here / "runs" / "smallest").rglob("*.json"))

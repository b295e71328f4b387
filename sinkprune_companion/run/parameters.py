"""What every notebook does first: check its parameters, so that a bad one fails before any work.

papermill only warns of a parameter that does not exist and takes any type; `start` refuses both in one
sentence.
"""

import ast
import re
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import Annotated

import matplotlib
import pandas
from pydantic import Field

from sinkprune_companion import project_root
from sinkprune_companion.harness.suite import groups_of
from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.run.records import Run
from sinkprune_core.files import PACKAGE
from sinkprune_core.models.devices import choose_device, choose_dtype, device_name
from sinkprune_core.models.hub import parse
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.scratch import remove_leftovers
from sinkprune_core.spelling import suggestion
from sinkprune_core.values import (
    AboveZero,
    AtLeastZero,
    Count,
    Flag,
    Number,
    Share,
    Sparsity,
    checked,
    in_short,
)


class ParameterError(ValueError):
    """A notebook parameter that cannot be used; shown as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this
        return [f"ParameterError: {self}"]


def _one_of(module: str, constant: str, *more: str, without: tuple[str, ...] = ()) -> Callable[[str], None]:
    """Return a check that a name is one that a module knows; to import it takes seconds, and happens late."""

    def check_name(name: str) -> None:
        known = [
            *more,
            *(known for known in getattr(import_module(module), constant) if known not in without),
        ]
        if name not in known:
            raise ValueError(f"{name!r} is unknown; choose one of {', '.join(known)}")

    return check_name


def _model_of(kind: str, example: str) -> Callable[[str], None]:
    """Return a check that a name means a model of a kind; it reads no weights."""

    def check_model(name: str) -> None:
        row, _ = parse(name)
        if row is None:
            from sinkprune_core.models.reader import Checkpoint  # seconds of imports

            row = Checkpoint(name)
        if row.kind != kind:
            raise ValueError(f"{name!r} is {row.kind}, and this must be of kind {kind}, e.g. {example}")

    return check_model


def _check_profile(name: str) -> None:
    if not re.fullmatch(r"[\w-]+(@[\w.-]*\w)?", name):
        raise ValueError(
            f"{name!r} names a folder below runs/: use letters, digits, - and _, "
            "and profile@cell for one cell of a sweep"
        )


def _check_n_of_m(pattern: str) -> None:
    if n_and_m(pattern) is None:
        raise ValueError(f"{pattern!r} must read N:M, N zeros in every M consecutive inputs, e.g. 2:4")


def _check_place(place: str) -> None:
    if n_and_m(place) is None and not re.fullmatch(r"\d{1,2}(\.\d+)?", place):
        raise ValueError(f"{place!r} must be a sparsity in percent below 100, e.g. 75, or N:M, e.g. 2:4")


def _check_task(name: str) -> None:
    if name != "paper" and not groups_of(name):
        from sinkprune_companion.harness.benchmarks import manager_of  # the harness, which others do without

        manager_of([name])


def _at_least(least: int) -> object:
    return Annotated[int, Field(ge=least, description=f"a whole number of at least {least}")]


# What a name means is the same in every notebook, and so is what it may be. A list is checked item by item.
KINDS = {
    "int": Count,
    "float": AtLeastZero,
    "bool": Flag,
    "str": Annotated[str, Field(description="a text")],
}
RANGES = {
    "alpha": AboveZero,
    "batch_tokens": _at_least(2),
    "crop_lengths": _at_least(2),  # as the first token is never predicted
    "first_seed": Number,
    "items": _at_least(24),  # two pairs of each group of the suite
    "length": _at_least(8),
    "lengths": _at_least(8),
    "long_sequences": _at_least(2),  # as every interval rests on two or more
    "null_seeds": Number,
    "other_prompts": _at_least(2),
    "prompt_length": _at_least(4),
    "prompts": _at_least(2),
    "ratios": Sparsity,
    "reach_layers": Number,
    "seed": Number,
    "sequences": _at_least(2),
    **dict.fromkeys(("stability_threshold", "other_stability_thresholds"), Share),
}
PRESETS = _one_of("sinkprune_core.pruning.presets", "PRESETS")
SEARCH = "sinkprune_companion.experiments.recipe_search"
CONDITIONS = "sinkprune_companion.experiments.sink_conditions"
WORDS: dict[str, Callable[[str], object]] = {  # checks of the words that are allowed
    "base": _model_of("autoregressive", "smol-ar"),
    "baselines": PRESETS,
    "device": choose_device,
    "dtype": choose_dtype,
    "left_out": _one_of(
        "sinkprune_core.calibration.token_weights", "EXCLUDE", "soft", without=("none", "only")
    ),
    "model": _model_of("diffusion", "smol-dlm"),
    "other_allocations": _one_of("sinkprune_core.pruning.patterns", "ALLOCATIONS", without=("uniform",)),
    "other_noise": _one_of("sinkprune_core.calibration.text", "NOISE", without=("grid",)),
    "parts": _one_of(SEARCH, "PARTS"),
    "patterns": _check_n_of_m,
    "places": _check_place,
    "preset": PRESETS,
    "profile": _check_profile,
    "recipes": PRESETS,
    "samplers": _one_of(CONDITIONS, "SAMPLERS"),
    "searched": _one_of(SEARCH, "NAMES"),
    "at_75": _one_of(SEARCH, "NAMES"),
    "large": _one_of(SEARCH, "NAMES"),
    "other": _one_of(SEARCH, "NAMES"),
    "large_dtype": choose_dtype,
    "structured_recipes": PRESETS,
    "tasks": _check_task,
    "texts": _one_of(CONDITIONS, "TEXTS"),
    "thirds": _one_of("sinkprune_core.sinks.hiding", "THIRDS"),
    "training": _one_of("sinkprune_companion.training.settings", "DTYPES", "auto"),
    "twin": _model_of("autoregressive", "smol-ar"),
}
# How names of lists begin that may be empty.
MAY_BE_EMPTY = ("thirds", "pairs", "patterns", "at_75", "large", "other", "sparsegpt_")
LEAST = {
    "00_start_here": {"sequences": 12},
    "01_sink_variance": {"steps": 4},
    "02_hiding_sinks": {"prompt_length": 20, "written": 16, "lengths": 24, "steps": 4},
    "03_pruning_results": {"sequences": 6},
    "04_matched_compute": {"sequences": 6},
    "05_what_does_the_work": {"sequences": 12, "sparsity": 0.1},
    "07_robustness": {"sequences": 12},
    "08_stable_sinks": {"sequences": 12, "sparsities": 0.1},
    "09_best_recipe": {"sequences": 12},
    "10_native_pair": {"sequences": 12, "steps": 4, "length": 40, "prompt_length": 4},
}  # what a notebook needs more than others, so that every kind of text has two sequences
OTHERS = "with these values instead of the defaults above:"
LINE = 100  # characters of a line of output


def declared(cells: list[str]) -> dict[str, str]:
    """Return name -> annotation of the parameters cell."""
    return {node.target.id: ast.unparse(node.annotation) for node in _assignments(cells)}


def defaults(cells: list[str]) -> dict[str, object]:
    """Return name -> value of the parameters cell."""
    return {node.target.id: ast.literal_eval(node.value) for node in _assignments(cells)}


def _assignments(cells: list[str]) -> list[ast.AnnAssign]:
    """Return the lines of the parameters cell: the last one run that holds annotated assignments only."""
    for source in reversed(cells):
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        if body and all(isinstance(node, ast.AnnAssign) for node in body):
            return body
    raise ParameterError("no parameters cell was run: run the notebook from its top")


def injected(cells: list[str]) -> list[str]:
    """Return the names that papermill's injected cell assigns."""
    names = []
    for source in cells:
        if source.startswith("# Parameters"):
            assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
            names.extend(node.targets[0].id for node in assigned)
    return names


def check(notebook: str, annotations: dict[str, str], values: dict[str, object]) -> None:
    """Raise ParameterError for an unknown name, a wrong type or a value that cannot be used.

    The message is one line: the name, the value, what is allowed. `annotations` are those of the parameters
    cell.
    """
    for name, value in values.items():
        if name not in annotations:
            raise ParameterError(
                f"parameter {name!r} does not exist in {notebook}; it has: {', '.join(annotations)}"
                f"{suggestion(name, annotations)}"
            )
        try:
            _check_value(notebook, name, value, annotations[name])
        except ValueError as error:
            advice = ""
            if isinstance(value, str) and (value == "null" or annotations[name].startswith("list")):
                advice = f"; with papermill write -y '{name}: {value}'"  # its option -p passes texts
            raise ParameterError(f"{error}{advice}") from None


def _check_value(notebook: str, name: str, value: object, annotation: str) -> None:
    """Check a value by its annotation: one of KINDS or a list of one, with or without `| None`."""
    inner, _, none = annotation.partition(" | ")
    kind = inner.removeprefix("list[").removesuffix("]")
    if value is None and none:
        return
    items = [value]
    if inner.startswith("list["):
        if not isinstance(value, list):
            raise ValueError(f"{name}={in_short(value)} is no list: it must be {annotation}")
        if not value and not name.startswith(MAY_BE_EMPTY):
            raise ValueError(f"{name} is empty: give at least one value")
        items = value
    for item in items:
        _check_item(notebook, name, item, kind)


def _check_item(notebook: str, name: str, value: object, kind: str) -> None:
    is_sparsity = name.endswith(("sparsity", "sparsities"))
    checked(name, value, Sparsity if is_sparsity else RANGES.get(name, KINDS[kind]))
    if name in WORDS:
        try:
            WORDS[name](value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    least = LEAST.get(notebook, {}).get(name)
    if least is not None and value < least:
        raise ValueError(f"{name}={value} must be at least {least} in {notebook}")


def start(notebook: str, namespace: dict) -> Run:
    """Check the parameters in a notebook's namespace (`globals()`) and return its `Run`.

    Prints where results go, where and in which dtype they are computed, and the values that papermill put in
    place of the defaults shown.
    Raises ParameterError for an unknown name, a wrong type or a value that cannot be used, naming what is
    allowed.
    """
    cells = namespace.get("In", [])
    annotations = declared(cells)
    parameters = {name: namespace[name] for name in annotations}
    given = {name: namespace[name] for name in injected(cells)}
    check(notebook, annotations, {**parameters, **given})
    keep_freed_memory()
    matplotlib.rcParams["figure.dpi"] = 110
    pandas.set_option("display.max_colwidth", None)
    run = Run(notebook, parameters["profile"], parameters)
    for scratch in run.records.glob("*/.*.*.*"):  # of records that a killed run was writing
        record, _, _ = scratch.name[1:].rsplit(".", 2)
        remove_leftovers(scratch.with_name(record))
    dtype = choose_dtype(parameters.get("dtype", "auto"), run.device)
    print(f"results go to {_place(run)}")
    print(f"computed on {device_name(run.device)} in {str(dtype).removeprefix('torch.')}")
    shown = {name: value for name, value in defaults(cells).items() if name in given and name != "profile"}
    others = {name: given[name] for name, value in shown.items() if given[name] != value}
    if others:
        print(OTHERS)
        for name, value in others.items():
            print(textwrap.fill(f"{name} = {value!r}", LINE, break_on_hyphens=False))
    return run


def _place(run: Run) -> str:
    """Return the folder of a run for people, in a clone relative to it: no output names a home."""
    if project_root() == PACKAGE.parent:
        return run.folder.relative_to(project_root()).as_posix()
    return str(run.folder)

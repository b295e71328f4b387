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
        every = (*more, *getattr(import_module(module), constant))
        known = [choice for choice in every if choice not in without]
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


def _must(words: str, *fits: Callable[[str], object]) -> Callable[[str], None]:
    """Return a check that a text fits one of some forms; `words` say which, behind the text."""

    def check_form(text: str) -> None:
        if not any(is_so(text) for is_so in fits):
            raise ValueError(f"{text!r} {words}")

    return check_form


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
    "items": _at_least(24),  # two pairs of each group of the suite
    "prompt_length": _at_least(4),
    "ratios": Sparsity,
    **dict.fromkeys(("batch_tokens", "crop_lengths"), _at_least(2)),  # as the first token is never predicted
    **dict.fromkeys(("first_seed", "null_seeds", "reach_layers", "seed"), Number),
    **dict.fromkeys(("length", "lengths"), _at_least(8)),
    # as every interval rests on two or more
    **dict.fromkeys(("long_sequences", "other_prompts", "prompts", "sequences"), _at_least(2)),
    **dict.fromkeys(("stability_threshold", "other_stability_thresholds"), Share),
}
PRESETS = "sinkprune_core.pruning.presets"
SEARCH = "sinkprune_companion.experiments.recipe_search"
CONDITIONS = "sinkprune_companion.experiments.sink_conditions"
SEARCHED = ("answering", "at_75", "large", "on_twin", "other", "searched")  # name its recipes
WORDS: dict[str, Callable[[str], object]] = {  # checks of the words that are allowed
    "base": _model_of("autoregressive", "smol-ar"),
    "device": choose_device,
    "left_out": _one_of(
        "sinkprune_core.calibration.token_weights", "EXCLUDE", "soft", without=("none", "only")
    ),
    "model": _model_of("diffusion", "smol-dlm"),
    "other_allocations": _one_of("sinkprune_core.pruning.patterns", "ALLOCATIONS", without=("uniform",)),
    "other_noise": _one_of("sinkprune_core.calibration.text", "NOISE", without=("grid",)),
    "parts": _one_of(SEARCH, "PARTS"),
    "patterns": _must("must read N:M, N zeros in every M consecutive inputs, e.g. 2:4", n_and_m),
    "places": _must(
        "must be a sparsity in percent below 100, e.g. 75, or N:M, e.g. 2:4",
        n_and_m,
        re.compile(r"\d{1,2}(\.\d+)?").fullmatch,
    ),
    "profile": _must(
        "names a folder below runs/: use letters, digits, - and _, and profile@cell for one cell of a sweep",
        re.compile(r"[\w-]+(@[\w.-]*\w)?").fullmatch,
    ),
    "samplers": _one_of(CONDITIONS, "SAMPLERS"),
    "tasks": _check_task,
    "texts": _one_of(CONDITIONS, "TEXTS"),
    "thirds": _one_of("sinkprune_core.sinks.hiding", "THIRDS"),
    "training": _one_of("sinkprune_companion.training.settings", "DTYPES", "auto"),
    "twin": _model_of("autoregressive", "smol-ar"),
    **dict.fromkeys(("dtype", "large_dtype"), choose_dtype),
    **dict.fromkeys(SEARCHED, _one_of(SEARCH, "NAMES")),
    **dict.fromkeys(("baselines", "preset", "recipes", "structured_recipes"), _one_of(PRESETS, "PRESETS")),
}
# How names of lists begin that may be empty.
MAY_BE_EMPTY = ("thirds", "pairs", "patterns", "sinks_", "sparsegpt_", *SEARCHED)
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
    lines = [line for source in cells if source.startswith("# Parameters") for line in ast.parse(source).body]
    return [line.targets[0].id for line in lines if isinstance(line, ast.Assign)]


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
    if value is None and none:
        return
    items = [value]
    if inner.startswith("list["):
        if not isinstance(value, list):
            raise ValueError(f"{name}={in_short(value)} is no list: it must be {annotation}")
        if not value and not name.startswith(MAY_BE_EMPTY):
            raise ValueError(f"{name} is empty: give at least one value")
        items = value
    kind = RANGES.get(name, KINDS[inner.removeprefix("list[").removesuffix("]")])
    if name.endswith(("sparsity", "sparsities")):
        kind = Sparsity
    least = LEAST.get(notebook, {}).get(name)
    for item in items:
        checked(name, item, kind)
        if name in WORDS:
            try:
                WORDS[name](item)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if least is not None and item < least:
            raise ValueError(f"{name}={item} must be at least {least} in {notebook}")


def start(notebook: str, namespace: dict) -> Run:
    """Check the parameters in a notebook's namespace (`globals()`) and return its `Run`.

    Prints where results go, where and in which dtype they are computed, and the values that papermill put in
    place of the defaults shown. Raises ParameterError as `check` does.
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
    place = run.folder
    if project_root() == PACKAGE.parent:  # in a clone: no output names a home
        place = place.relative_to(project_root()).as_posix()
    print(f"results go to {place}")
    print(f"computed on {device_name(run.device)} in {str(dtype).removeprefix('torch.')}")
    shown = defaults(cells)
    others = [name for name in shown if name in given and name != "profile" and given[name] != shown[name]]
    if others:
        print(OTHERS)
    for name in others:
        print(textwrap.fill(f"{name} = {given[name]!r}", 100, break_on_hyphens=False))
    return run

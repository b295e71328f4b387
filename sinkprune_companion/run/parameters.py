"""What every notebook does first: check its parameters, by `data/parameters.yml`, before any work is done."""

import ast
import gc
import re
import textwrap
from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import Annotated

import matplotlib
import pandas
import yaml
from pydantic import Field

from sinkprune.evaluation.suite import groups_of
from sinkprune.files import PACKAGE
from sinkprune.models.devices import choose_device, choose_dtype, device_name
from sinkprune.models.hub import parse
from sinkprune.scratch import remove_leftovers
from sinkprune.spelling import suggestion
from sinkprune_companion import DATA, project_root
from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.run.records import Run
from sinkprune_core import values as kinds
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.values import AtLeastZero, Count, Flag, Sparsity, checked, in_short


class ParameterError(ValueError):
    """A notebook parameter that cannot be used; shown as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this
        return [f"ParameterError: {self}"]


def _check_name(text: str, parameter: str) -> None:
    """Raise ValueError unless a name is allowed; to import those that are takes seconds, and happens late."""
    every = [*RULES["more"].get(parameter, ()), *resolve_name(NAMES[parameter])]
    known = [choice for choice in every if choice not in RULES["without"].get(parameter, ())]
    if text not in known:
        raise ValueError(f"{text!r} is unknown; choose one of {', '.join(known)}")


def _check_model(name: str, kind: str) -> None:
    """Raise ValueError unless a name means a model of a kind; it reads no weights."""
    row, _ = parse(name)
    if row is None:
        from sinkprune.models.reader import Checkpoint  # seconds of imports

        row = Checkpoint(name)
    if row.kind != kind:
        raise ValueError(f"{name!r} is {row.kind}, and this must be of kind {kind}, e.g. {EXAMPLES[kind]}")


def _check_task(name: str) -> None:
    if name != "paper" and not groups_of(name):
        from sinkprune.evaluation.harness.benchmarks import manager_of  # the harness, which others do without

        manager_of([name])


def _check_form(text: str, form: str, says: str) -> None:
    if not re.fullmatch(form, text):
        raise ValueError(f"{text!r} {says}")
    if ":" in text:
        n_and_m(text)  # raises an error of its own


def _at_least(least: int) -> object:
    return Annotated[int, Field(ge=least, description=f"a whole number of at least {least}")]


RULES = yaml.safe_load((DATA / "parameters.yml").read_text(encoding="utf-8"))
EXAMPLES = {"autoregressive": "smol-ar", "diffusion": "smol-dlm"}  # of models, by kind
TEXT = Annotated[str, Field(description="a text")]
KINDS = {"int": Count, "float": AtLeastZero, "bool": Flag, "str": TEXT}  # by annotation
RANGES = {  # by name
    **{name: getattr(kinds, kind) for kind, names in RULES["kinds"].items() for name in names},
    **{name: _at_least(least) for name, least in RULES["least"].items()},
}
NAMES = {name: constant for constant, names in RULES["one_of"].items() for name in names}
WORDS: dict[str, Callable[[str], object]] = {  # checks of the words that are allowed, by name
    **dict.fromkeys(("dtype", "large_dtype"), choose_dtype),
    "device": choose_device,
    "tasks": _check_task,
    **{name: partial(_check_form, form=form, says=says) for name, (form, says) in RULES["forms"].items()},
    **{name: partial(_check_model, kind=kind) for name, kind in RULES["models"].items()},
    **{name: partial(_check_name, parameter=name) for name in NAMES},
}
OTHERS = "with these values instead of the defaults above:"


def declared(cells: list[str]) -> dict[str, str]:
    """Return name -> annotation of the parameters cell."""
    return {line.target.id: ast.unparse(line.annotation) for line in _assignments(cells)}


def defaults(cells: list[str]) -> dict[str, object]:
    """Return name -> value of the parameters cell."""
    return {line.target.id: ast.literal_eval(line.value) for line in _assignments(cells)}


def _assignments(cells: list[str]) -> list[ast.AnnAssign]:
    """Return the lines of the parameters cell: the last one run that holds annotated assignments only."""
    for source in reversed(cells):
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        if body and all(isinstance(line, ast.AnnAssign) for line in body):
            return body
    raise ParameterError("no parameters cell was run: run the notebook from its top")


def check(notebook: str, annotations: dict[str, str], values: dict[str, object]) -> None:
    """Raise ParameterError, in one line with the name, the value and what is allowed, for an unknown name, a
    wrong type or a value that cannot be used. `annotations` are those of the parameters cell.
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
    items = value if inner.startswith("list[") else [value]
    if not isinstance(items, list):
        raise ValueError(f"{name}={in_short(value)} is no list: it must be {annotation}")
    if not items and not name.startswith(tuple(RULES["may_be_empty"])):
        raise ValueError(f"{name} is empty: give at least one value")
    kind = RANGES.get(name, KINDS[inner.removeprefix("list[").removesuffix("]")])
    if name.endswith(("sparsity", "sparsities")):
        kind = Sparsity
    least = RULES["least_in"].get(notebook, {}).get(name)
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
    """Check the parameters in a notebook's namespace (`globals()`), and return its `Run`; print where results
    go, what computes them, and other values than the defaults shown. Raises ParameterError as `check` does.
    """
    cells = namespace.get("In", [])
    annotations = declared(cells)
    parameters = {name: namespace[name] for name in annotations}
    by_papermill = [source for source in cells if source.startswith("# Parameters")]
    injected = [ast.parse(source).body for source in by_papermill]
    names = [line.targets[0].id for body in injected for line in body if isinstance(line, ast.Assign)]
    given = {name: namespace[name] for name in names}
    check(notebook, annotations, {**parameters, **given})
    keep_freed_memory()
    if not gc.get_freeze_count():  # once: what a set-up that runs again would freeze is no module
        gc.freeze()  # or, to end, a kernel looks through all modules for seconds
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
    others = [name for name in shown if name != "profile" and given.get(name, shown[name]) != shown[name]]
    if others:
        print(OTHERS)
        for name in others:
            print(textwrap.fill(f"{name} = {given[name]!r}", 100, break_on_hyphens=False))
    return run

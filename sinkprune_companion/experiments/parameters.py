"""What every notebook does first: check its parameters, by `parameter_models`, before any work is done."""

import ast
import gc
import textwrap
from collections.abc import Mapping

import matplotlib
import pandas
from pydantic import ValidationError

from sinkprune.files import PACKAGE
from sinkprune.models.devices import choose_dtype, device_name
from sinkprune.scratch import remove_leftovers
from sinkprune.spelling import suggestion
from sinkprune_companion import project_root
from sinkprune_companion.experiments.parameter_models import check_together, model_of
from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.run.profiles import PUBLISHED
from sinkprune_companion.run.records import Run
from sinkprune_core.values import in_short


class ParameterError(ValueError):
    """A notebook parameter that cannot be used; shown as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this
        return [f"ParameterError: {self}"]


OWN = "the numbers below are those of this run; the answer above is of the published one"
OTHERS = "with these values instead of the defaults above:"


def declared(cells: list[str]) -> dict[str, str]:
    """Return name -> annotation of the parameters cells."""
    return {line.target.id: ast.unparse(line.annotation) for line in _assignments(cells)}


def defaults(cells: list[str]) -> dict[str, object]:
    """Return name -> value of the parameters cells."""
    return {line.target.id: ast.literal_eval(line.value) for line in _assignments(cells)}


def _assignments(cells: list[str]) -> list[ast.AnnAssign]:
    """Return the lines of the cells that hold annotated assignments only, in the order in which they ran.

    A notebook has two of them: `main-parameters`, which a reader changes, and behind it `parameters`, below
    which papermill puts its values. Of a cell that ran again the last run counts, as in a dictionary.
    """
    lines = []
    for source in cells:
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        if all(isinstance(line, ast.AnnAssign) for line in body):
            lines += body

    if not lines:
        raise ParameterError("no parameters cell was run: run the notebook from its top")

    return lines


def check(notebook: str, annotations: dict[str, str], values: dict[str, object]) -> None:
    """Check all parameters of a notebook, by `parameter_models`, before any work.

    `annotations` are those of the parameters cells. Raises ParameterError, in one line with the name, the
    value and what is allowed, for an unknown name, a wrong type, and a value or a combination of values that
    cannot be used.
    """
    for name in values:
        if name not in annotations:
            raise ParameterError(
                f"parameter {name!r} does not exist in {notebook}; it has: {', '.join(annotations)}"
                f"{suggestion(name, annotations)}"
            )

    try:
        model_of(notebook, annotations).model_validate(values)
        check_together(values)
    except ValidationError as error:
        raise ParameterError(_in_a_line(error.errors(include_url=False)[0])) from None
    except ValueError as error:
        raise ParameterError(str(error)) from None


def _in_a_line(error: Mapping) -> str:
    """Return what pydantic says of a parameter, with a way out."""
    name, value = error["loc"][0], error["input"]
    says = error["msg"].removeprefix("Value error, ")
    line = f"{name}={in_short(value)}: {says}"
    if error["type"] == "list_type" and isinstance(value, str):
        line += f"; with papermill write -y '{name}: {value}'"  # its option -p passes texts
    return line


def start(notebook: str, namespace: dict) -> Run:
    """Check the parameters in a notebook's namespace (`globals()`), and return its `Run`.

    It prints where results go, what computes them, that a run of another profile than the published ones has
    numbers of its own, and values other than the defaults that the notebook shows. Raises ParameterError as
    `check` does.
    """
    cells = namespace.get("In", [])
    annotations = declared(cells)
    parameters = {name: namespace[name] for name in annotations}
    given = {name: namespace[name] for name in _injected_names(cells)}
    check(notebook, annotations, {**parameters, **given})

    _settle_process()
    run = Run(notebook, parameters["profile"], parameters)
    _remove_unfinished_records(run)

    dtype = choose_dtype(parameters.get("dtype", "auto"), run.device)
    place = run.folder
    if project_root() == PACKAGE.parent:  # in a clone: no output names a home
        place = place.relative_to(project_root()).as_posix()

    print(f"results go to {place}")
    print(f"computed on {device_name(run.device)} in {str(dtype).removeprefix('torch.')}")

    if run.profile not in PUBLISHED:
        print(OWN)

    shown = defaults(cells)
    others = [name for name in shown if name != "profile" and given.get(name, shown[name]) != shown[name]]
    if others:
        print(OTHERS)
        for name in others:
            print(textwrap.fill(f"{name} = {given[name]!r}", 100, break_on_hyphens=False))

    return run


def _injected_names(cells: list[str]) -> list[str]:
    """Return the names that papermill's cells assign."""
    injected = [ast.parse(source).body for source in cells if source.startswith("# Parameters")]
    return [line.targets[0].id for body in injected for line in body if isinstance(line, ast.Assign)]


def _settle_process() -> None:
    """Set what a notebook's process needs for its whole life."""
    keep_freed_memory()
    if not gc.get_freeze_count():  # once: what a set-up that runs again would freeze is no module
        gc.freeze()  # or, to end, a kernel looks through all modules for seconds
    matplotlib.rcParams["figure.dpi"] = 110
    pandas.set_option("display.max_colwidth", None)


def _remove_unfinished_records(run: Run) -> None:
    """Remove what a killed run was writing."""
    for scratch in run.records.glob("*/.*.*.*"):
        record, _, _ = scratch.name[1:].rsplit(".", 2)
        remove_leftovers(scratch.with_name(record))

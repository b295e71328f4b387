"""What every notebook does first: check its parameters, so that a bad one fails before any work.

papermill only warns of a parameter that does not exist and takes any type; `start` refuses both in one
sentence.
"""

import ast
import difflib
import pprint
from collections.abc import Callable
from functools import partial
from typing import Annotated

import matplotlib
import pandas
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from sinkprune_companion import project_root
from sinkprune_companion.experiments.sink_conditions import SAMPLERS, TEXTS
from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_companion.run.records import Run
from sinkprune_core.calibration.text import NOISE
from sinkprune_core.calibration.token_weights import EXCLUDE
from sinkprune_core.files import PACKAGE
from sinkprune_core.models.devices import choose_device, choose_dtype, device_name
from sinkprune_core.models.hub import parse
from sinkprune_core.pruning.patterns import ALLOCATIONS, n_and_m
from sinkprune_core.scratch import remove_leftovers
from sinkprune_core.sinks.hiding import THIRDS


class ParameterError(ValueError):
    """A notebook parameter that cannot be used; shown as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this
        return [f"ParameterError: {self}"]


def _model_of(kind: str, example: str) -> Callable[[str], str]:
    """Return a check that a name means a model of a kind; it reads no weights."""

    def checked(name: str) -> str:
        row, _ = parse(name)
        found = _kind_of_folder(name) if row is None else row.kind
        if found != kind:
            raise ValueError(f"{name!r} is {found}, and this must be of kind {kind}, e.g. {example}")
        return name

    return checked


def _kind_of_folder(name: str) -> str:
    from sinkprune_core.models.reader import Checkpoint  # seconds of imports, which a model's name needs not

    return Checkpoint(name).kind


def _known_preset(name: str) -> str:
    from sinkprune_core.pruning.recipe import preset

    preset(name)
    return name


def _device_here(name: str) -> str:
    choose_device(name, repr(name))
    return name


def _known_dtype(name: str) -> str:
    choose_dtype(name)
    return name


def _n_of_m(pattern: str) -> str:
    if n_and_m(pattern) is None:
        raise ValueError(f"{pattern!r} must read N:M, N zeros in every M consecutive inputs, e.g. 2:4")
    return pattern


def _one_of(*names: str) -> object:
    """Return the range of a word that is one of some."""
    return Annotated[str, AfterValidator(partial(_known_word, names=names))]


def _known_word(word: str, names: tuple[str, ...]) -> str:
    if word not in names:
        raise ValueError(f"{word!r} is unknown; choose one of {', '.join(names)}")
    return word


# The description ends the message on a value that does not fit.
Profile = Annotated[
    str,
    Field(
        pattern=r"^[\w-]+(@[\w.-]*\w)?$",
        description="names a folder below runs/: use letters, digits, - and _, "
        "and profile@cell for one cell of a sweep",
    ),
]
Sparsity = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="must lie in [0, 1): it is the share of weights set to zero, e.g. 0.5",
    ),
]
Count = Annotated[int, Field(ge=1, description="must be at least 1")]
Number = Annotated[int, Field(ge=0, description="must be 0 or more")]
Amount = Annotated[float, Field(ge=0, description="must be 0 or more")]
Positive = Annotated[float, Field(gt=0, description="must be above 0")]
Share = Annotated[float, Field(ge=0, le=1, description="must lie in [0, 1]: it is a share of steps")]
Diffusion = Annotated[str, AfterValidator(_model_of("diffusion", "smol-dlm"))]
Autoregressive = Annotated[str, AfterValidator(_model_of("autoregressive", "smol-ar"))]
Preset = Annotated[str, AfterValidator(_known_preset)]
Pattern = Annotated[str, AfterValidator(_n_of_m)]
Device = Annotated[str, AfterValidator(_device_here)]
Dtype = Annotated[str, AfterValidator(_known_dtype)]

# What a name means is the same in every notebook, and so is what it may be. A list is checked item by item.
RANGES = {
    "profile": Profile,
    "device": Device,
    "dtype": Dtype,
    "model": Diffusion,
    "twin": Autoregressive,
    "base": Autoregressive,
    "sparsity": Sparsity,
    "sparsities": Sparsity,
    "other_sparsities": Sparsity,
    "twin_sparsities": Sparsity,
    "answer_sparsities": Sparsity,
    "ratios": Sparsity,
    "alpha": Positive,
    "temperature": Amount,
    "sink_std": Amount,
    "other_sink_std": Amount,
    "stability_threshold": Share,
    "other_stability_thresholds": Share,
    "texts": _one_of(*TEXTS),
    "samplers": _one_of(*SAMPLERS),
    "thirds": _one_of(*THIRDS),
    "left_out": _one_of("soft", *(name for name in EXCLUDE if name not in ("none", "only"))),
    "other_noise": _one_of(*(name for name in NOISE if name != "grid")),
    "other_allocations": _one_of(*(name for name in ALLOCATIONS if name != "uniform")),
    "preset": Preset,
    "restored_sparsities": Sparsity,
    "factorial_sparsities": Sparsity,
    "schedule_sparsities": Sparsity,
    "damping_sparsities": Sparsity,
    "first_seed": Number,
    "reach_layers": Number,
    "patterns": Pattern,
    "recipes": Preset,
    "curve_recipes": Preset,
    "pattern_recipes": Preset,
    "structured_recipes": Preset,
    "baselines": Preset,
    "answer_draws": Count,
    "batch": Count,
    "blimp_pairs": Count,
    "calibration": Count,
    "counts": Count,
    "draws": Count,
    "item_draws": Count,
    "items": Count,
    "length": Count,
    "lengths": Count,
    "limit": Count,
    "long_prompts": Count,
    "long_sequences": Count,
    "noise_levels": Count,
    "other_draws": Count,
    "other_noise_levels": Count,
    "pair_seeds": Count,
    "pattern_draws": Count,
    "prompt_length": Count,
    "prompts": Count,
    "reach_sequences": Count,
    "seeds": Count,
    "sequences": Count,
    "confirmation_calibration": Count,
    "confirmed": Count,
    "damping_sequences": Count,
    "factorial_calibration": Count,
    "largest_from": Count,
    "null_seeds": Number,
    "restored_counts": Count,
    "schedule_calibration": Count,
    "screening_calibration": Count,
    "screening_draws": Count,
    "screening_sequences": Count,
    "trajectories": Count,
    "steps": Count,
    "written": Count,
}
NEEDED = (
    "first_tokens",
    "parts",
    "places",
    "tasks",
)  # lists of any words, or of True and False, that have a value
MAY_BE_EMPTY = ("thirds", "other_")  # what names of lists begin with that may have no value
LEAST = {
    "00_start_here": {"sequences": 12, "items": 24, "length": 8},
    "01_sink_variance": {"prompts": 2, "long_prompts": 2, "prompt_length": 4, "lengths": 8, "steps": 4},
    "02_hiding_sinks": {
        "sequences": 2,
        "long_sequences": 2,
        "prompts": 2,
        "prompt_length": 20,
        "written": 16,
        "lengths": 24,
        "steps": 4,
    },
    "03_pruning_results": {"sequences": 6, "items": 24, "length": 8},
    "04_matched_compute": {"sequences": 6, "length": 8},
    "05_what_does_the_work": {"sequences": 12, "length": 8, "sparsity": 0.1},
    "06_real_models": {"sequences": 2, "length": 8},
    "07_robustness": {"sequences": 12, "lengths": 8},
    "08_stable_sinks": {"sequences": 12, "length": 8, "sparsities": 0.1, "restored_sparsities": 0.1},
    "09_best_recipe": {"sequences": 12, "screening_sequences": 6, "items": 24, "length": 8},
}  # what a notebook needs at least of a parameter: intervals rest on two sequences of a kind or more
OTHERS = "with these values instead of the defaults above:"
LINE = 100  # characters of a line of output
TYPES = {"str": str, "int": int, "float": float, "bool": bool}


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


def _type_of(name: str, annotation: str) -> object:
    """Return the type of a parameter with its range: one of TYPES or a list of them, with or without `|
    None`.
    """
    inner, _, none = annotation.partition(" | ")
    is_list = inner.startswith("list[")
    base = inner.removeprefix("list[").removesuffix("]")
    if base not in TYPES:
        raise ParameterError(
            f"parameter {name!r} is annotated as {annotation}: use one of {', '.join(TYPES)}, a list of one, "
            "or either with `| None`"
        )
    item = RANGES.get(name, TYPES[base])
    kind = item
    if is_list:
        kind = list[item]
    if is_list and (name in RANGES or name in NEEDED) and not name.startswith(MAY_BE_EMPTY):
        kind = Annotated[kind, Field(min_length=1)]
    return kind | None if none else kind


def parameters_model(annotations: dict[str, str]) -> type[BaseModel]:
    """Return the model that checks parameters of these names and annotations.

    It takes no other names, whole numbers for floats but no other type than the annotated one, and finite
    numbers alone.
    """
    fields = {name: (_type_of(name, annotation), ...) for name, annotation in annotations.items()}
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return create_model("Parameters", __config__=config, **fields)


def check(notebook: str, annotations: dict[str, str], values: dict[str, object]) -> None:
    """Raise ParameterError for an unknown name, a wrong type or a value that cannot be used.

    The message is one line: the name, the value, what is allowed. `annotations` are those of the parameters
    cell.
    """
    for name in values:
        if name not in annotations:
            raise ParameterError(_unknown(name, notebook, list(annotations)))
    try:
        parameters_model(annotations).model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
        raise ParameterError(_message(first, name, values[name], annotations[name])) from None
    for name, least in LEAST.get(notebook, {}).items():
        given = values.get(name, least)
        for value in given if isinstance(given, list) else [given]:
            if value < least:
                raise ParameterError(f"{name}: {value} must be at least {least} in {notebook}")


def _unknown(name: str, notebook: str, names: list[str]) -> str:
    message = f"parameter {name!r} does not exist in {notebook}; it has: {', '.join(names)}"
    similar = difflib.get_close_matches(name, names, 1)
    if similar:
        message += f"; did you mean {similar[0]!r}?"
    return message


def _message(error: dict, name: str, value: object, annotation: str) -> str:
    """Return one line on what pydantic says of a parameter."""
    kind = error["type"]
    if kind.endswith("_type"):
        message = f"{name}={value!r} is a {type(value).__name__}; it must be {annotation}"
        return message + _for_papermill(name, value, annotation)
    if kind == "too_short":
        return f"{name} is empty: give at least one value"
    if kind == "value_error":
        return f"{name}: {error['ctx']['error']}"
    if name in RANGES:
        (limits,) = RANGES[name].__metadata__
        return f"{name}: {error['input']!r} {limits.description}"
    if kind == "finite_number":
        return f"{name}: {error['input']!r} must be a finite number"
    return f"{name}={value!r}: {error['msg']}"


def _for_papermill(name: str, value: object, annotation: str) -> str:
    """Return how papermill is given a list or null where its option -p passed the text of one."""
    if not isinstance(value, str):
        return ""
    if annotation.endswith("| None") and value == "null":
        return f"; with papermill write -y '{name}: null'"
    if annotation.startswith("list"):
        items = value if value.startswith("[") else f"[{value}]"
        return f"; with papermill write -y '{name}: {items}'"
    return ""


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
        print(f"{OTHERS}\n{_assigned(others)}")
    return run


def _assigned(values: dict[str, object]) -> str:
    """Return parameters as lines of Python."""
    lines = []
    for name, value in values.items():
        head = f"{name} = "
        text = pprint.pformat(value, width=LINE - len(head), compact=True, sort_dicts=False)
        lines.append(head + text.replace("\n", "\n" + " " * len(head)))
    return "\n".join(lines)


def _place(run: Run) -> str:
    """Return the folder of a run for people, in a clone relative to it: no output names a home."""
    if project_root() == PACKAGE.parent:
        return run.folder.relative_to(project_root()).as_posix()
    return str(run.folder)

"""What parameters of notebooks may be.

A name means the same in every notebook, and a list is checked item by item. A parameter that is not named
here takes what its annotation says.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Annotated, NamedTuple

from pydantic import Field

from sinkprune.models.devices import choose_device, choose_dtype
from sinkprune.models.hub import parse
from sinkprune.models.meta_model import meta_model
from sinkprune.models.reader import Checkpoint
from sinkprune_companion import project_root
from sinkprune_companion.experiments import recipe_search, recovery, sink_conditions
from sinkprune_companion.hiding import THIRDS
from sinkprune_companion.run.profiles import archive_file
from sinkprune_companion.training.settings import DTYPES
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.presets import PRESETS
from sinkprune_core.pruning.structured import unit_counts
from sinkprune_core.values import AtLeastZero, Count, Flag, Number, Share, Sparsity

# kinds of values


def _at_least(least: int) -> object:
    return Annotated[int, Field(ge=least, description=f"a whole number of at least {least}")]


TEXT = Annotated[str, Field(description="a text")]
# No key of K lies further than the root of K - 1 standard deviations above the mean of all.
DEVIATIONS = Annotated[float, Field(ge=0, le=100, description="a number from 0 to 100")]

_AT_LEAST_ONE = Annotated[float, Field(ge=1, description="a number of at least 1")]

BY_ANNOTATION = {"int": Count, "float": AtLeastZero, "bool": Flag, "str": TEXT}

RANGES = {
    "batch_tokens": _at_least(2),  # as the first token is never predicted
    "crop_lengths": _at_least(2),
    "first_seed": Number,
    "items": _at_least(24),  # two pairs of each group of the suite
    "length": _at_least(8),
    "lengths": _at_least(8),
    "long_sequences": _at_least(2),  # as every interval rests on two or more
    "null_seeds": Number,
    "other_prompts": _at_least(2),
    "doses": _AT_LEAST_ONE,
    "native_tokens": Number,  # 0: no pair is trained
    "sparsegpt_doses": _AT_LEAST_ONE,
    "layers": Number,
    "other_lengths": _at_least(8),
    "prompt_length": _at_least(4),
    "prompts": _at_least(2),
    "protocol_answer_draws": Number,  # 0: no model answers
    "protocol_large_tokens": Number,  # 0: not measured
    "recovery_long_tokens": Number,  # 0: not measured
    "protocol_sequences": _at_least(4),  # two of each start
    "ratios": Sparsity,
    "sequences": _at_least(2),
    "sink_std": DEVIATIONS,
    "stability_threshold": Share,
}

OFFICIAL_LEVELS = 10  # noise levels of the official recipes: as many tokens, at least, can be masked

# what a notebook needs more than others: every kind of text has two sequences, and keys are left to hide
LEAST_IN = {
    "00_start_here": {"sequences": 12, "length": OFFICIAL_LEVELS},
    "01_do_sinks_move": {"steps": 4, "lengths": 40},  # a prompt of 32 tokens, and what is written
    "02_are_sinks_needed": {"lengths": 24},
    "03_leaving_sinks_out": {"sequences": 6},
    "05_matched_compute": {"sequences": 6, "length": OFFICIAL_LEVELS},
    "06_gain_at_75": {  # what costs nothing is no measure of anything
        "length": OFFICIAL_LEVELS,
        "sequences": 12,
        "large_sequences": 12,
        "sparsities": 0.1,
        "factorial_sparsities": 0.1,
        "ratios": 0.1,
    },
    "04_why": {"sequences": 4},
    "08_what_results_depend_on": {"sequences": 12, "sparsities": 0.1},
    "07_best_recipe": {"sequences": 12, "length": OFFICIAL_LEVELS},
    "09_from_scratch": {"sequences": 12, "steps": 4, "length": 40, "prompt_length": 4},
}

# how names of lists begin that may be empty
MAY_BE_EMPTY = (
    "at_75",
    "in_steps",
    "other",
    "pairs",
    "parts",
    "patterns",
    "protocol_",
    "recovery_",
    "searched",
    "sparsegpt_",
    "thirds",
    "weight_",
)


def kind_of(name: str, annotation: str) -> object:
    """Return what a parameter of a name may be, by its annotation without `list[…]` where none is named."""
    if name.endswith(("sparsity", "sparsities")):
        return Sparsity
    return RANGES.get(name, BY_ANNOTATION[annotation])


# names that are allowed

# of the places where models are recovered, those with single zeros
ZEROS = [name for name, place in recovery.PLACES.items() if place.pattern != recovery.UNITS]
NAMES: dict[str, Collection[str]] = {
    "at_75": recipe_search.NAMES,
    "baselines": PRESETS,
    "in_steps": [name for name, fields in PRESETS.items() if fields.get("pattern") != "structured"],
    "parts": recipe_search.PARTS,
    "recipes": PRESETS,
    "recovery_of_sparsegpt": ZEROS,
    "recovery_places": ZEROS,
    "recovery_recipes": recovery.RECIPES,
    "samplers": sink_conditions.SAMPLERS,
    "searched": recipe_search.NAMES,
    "structured_recipes": PRESETS,
    "texts": sink_conditions.TEXTS,
    "thirds": THIRDS,
    "training": ("auto", *DTYPES),
}


def check_name(text: str, parameter: str) -> None:
    """Raise ValueError unless a name is allowed."""
    if text not in NAMES[parameter]:
        raise ValueError(f"{text!r} is unknown; choose one of {', '.join(NAMES[parameter])}")


# texts of a form


class Form(NamedTuple):
    """The form of a text."""

    pattern: str  # a regular expression
    says: str  # how an error goes on behind the text


FORMS = {
    "patterns": Form(r"\d+:\d+", "must read N:M, N zeros in every M consecutive inputs, e.g. 2:4"),
    "places": Form(
        r"\d+:\d+|\d{1,2}(\.\d+)?",
        "must be a sparsity in percent below 100, e.g. 75, or N:M, e.g. 2:4",
    ),
    "profile": Form(
        r"[\w-]+(@[\w.-]*\w)?",
        "names a folder below runs/: use letters, digits, - and _, and profile@cell for one cell of a sweep",
    ),
}


def check_form(text: str, form: Form) -> None:
    """Raise ValueError unless a text has a form; N:M must be a pattern, too."""
    if not re.fullmatch(form.pattern, text):
        raise ValueError(f"{text!r} {form.says}")
    if ":" in text:
        n_and_m(text)  # raises an error of its own


# names of models and trainings

MODEL_KINDS = {"base": "autoregressive", "model": "diffusion", "twin": "autoregressive"}
EXAMPLES = {"autoregressive": "smol-ar", "diffusion": "smol-dlm"}


def check_model(name: str, kind: str) -> None:
    """Raise ValueError unless a name means a model of a kind; it reads no weights."""
    row = parse(name).row or Checkpoint(name)
    if row.kind != kind:
        raise ValueError(f"{name!r} is {row.kind}, and this must be of kind {kind}, e.g. {EXAMPLES[kind]}")


def check_pair(name: str) -> None:
    """Raise ValueError unless a name means another training: a folder of the project, or an archive."""
    is_folder = name.strip("./") and (project_root() / name).is_dir()
    if not is_folder and not archive_file(name).is_file():
        raise ValueError(
            f"{name!r} is neither a folder with a model or its adapter nor the NAME of a "
            "figures/records-NAME.tar.xz"
        )


CHECKS: dict[str, Callable[[str], object]] = {
    "device": choose_device,
    "dtype": choose_dtype,
    "large_dtype": choose_dtype,
    "pairs": check_pair,
    **{name: partial(check_form, form=form) for name, form in FORMS.items()},
    **{name: partial(check_model, kind=kind) for name, kind in MODEL_KINDS.items()},
    **{name: partial(check_name, parameter=name) for name in NAMES},
}


# combinations


def check_list(name: str, values: list) -> None:
    """Raise ValueError for an empty list, where it must not be, and for a value that stands in it twice."""
    if not values and not name.startswith(MAY_BE_EMPTY):
        raise ValueError(f"{name} is empty: give at least one value")
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{name} has {value!r} twice: give every value once")


def check_noise_levels(notebook: str, values: Mapping[str, object]) -> None:
    """Raise ValueError for more noise levels than a calibration sequence can be seen at.

    Of a causal model every level is a window of at least one query.
    """
    levels = values.get("noise_levels")
    length = 128 if notebook == "01_do_sinks_move" else values.get("length")
    if levels is None or length is None:
        return

    is_causal = notebook in (
        "01_do_sinks_move",
        "03_leaving_sinks_out",
        "08_what_results_depend_on",
    )  # their twin is

    if is_causal and levels > length:
        raise ValueError(
            f"noise_levels={levels} exceed the {length} tokens of a calibration sequence: use fewer levels"
        )


def check_ratios(notebook: str, values: Mapping[str, object]) -> None:
    """Raise ValueError for a share of the weights that whole units of the model cannot be, by its shape.

    A folder's model is left to pruning itself, which refuses as clearly but later.
    """
    ratios = values.get("ratios")
    if not ratios or "model" not in values:
        return

    row = parse(values["model"]).row
    if row is None:
        return

    lm = meta_model(row)
    for ratio in ratios:
        try:
            unit_counts(lm, ratio)
        except ValueError as error:
            raise ValueError(f"ratios: {error}") from None


COMBINATIONS = (check_noise_levels, check_ratios)

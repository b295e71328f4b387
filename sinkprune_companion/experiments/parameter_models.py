"""What parameters of notebooks may be: types and bounds by name, and a model for each notebook.

A name means the same in every notebook. Numbers, lists and flags that are not named here take what their
annotation says: a count, a number of at least 0, a list with a value or more, each once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, TypeVar, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from sinkprune.models.devices import choose_device, choose_dtype
from sinkprune.models.hub import parse
from sinkprune.models.meta_model import meta_model
from sinkprune.models.reader import Checkpoint
from sinkprune_companion import project_root
from sinkprune_companion.experiments import recipe_search, recovery, sink_conditions
from sinkprune_companion.hiding import Third
from sinkprune_companion.run.profiles import archive_file
from sinkprune_companion.training.settings import DTYPES
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.presets import PRESETS
from sinkprune_core.pruning.structured import unit_counts
from sinkprune_core.values import AtLeastZero, Count, Number, Share, Sparsity

# lists

Item = TypeVar("Item")


def _each_once(values: list) -> list:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{value!r} stands there twice: give every value once")
    return values


Listed = Annotated[list[Item], AfterValidator(_each_once)]  # which may be empty
Some = Annotated[Listed[Item], Field(min_length=1)]


# numbers


def at_least(least: int) -> object:
    """Return the type of a whole number."""
    return Annotated[int, Field(ge=least)]


Two = at_least(2)  # an interval rests on two or more
Tenth = Annotated[Sparsity, Field(ge=0.1)]  # what costs nothing is no measure of anything
OfficialLevels = at_least(10)  # tokens of a sequence that official recipes see at as many noise levels
Dose = Annotated[float, Field(ge=1)]
# no key of K lies further than the root of K - 1 standard deviations above the mean of all
Deviations = Annotated[float, Field(ge=0, le=100)]

# names

Preset = Literal[*PRESETS]
OfWeights = Literal[*(name for name, fields in PRESETS.items() if fields.get("pattern") != "structured")]
Searched = Literal[*recipe_search.NAMES]
Zeros = Literal[*(name for name, place in recovery.PLACES.items() if place.pattern != recovery.UNITS)]


def _text(pattern: str, says: str) -> object:
    """Return the type of a text of a form; what has a colon must be a pattern N:M, too."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(says)
        if ":" in text:
            n_and_m(text)
        return text

    return Annotated[str, AfterValidator(check)]


Pattern = _text(r"\d+:\d+", "must read N:M, N zeros in every M consecutive inputs, e.g. 2:4")
Place = _text(
    r"\d+:\d+|\d{1,2}(\.\d+)?", "must be a sparsity in percent below 100, e.g. 75, or N:M, e.g. 2:4"
)
Profile = _text(
    r"[\w-]+(@[\w.-]*\w)?",
    "names a folder below runs/: use letters, digits, - and _, and profile@cell for one cell of a sweep",
)


def _that_passes(check: Callable[[str], object]) -> object:
    """Return the type of a text on which a check raises no ValueError."""

    def passed(text: str) -> str:
        check(text)
        return text

    return Annotated[str, AfterValidator(passed)]


def _check_kind(name: str, kind: str) -> None:
    """Raise ValueError unless a name means a model of a kind; it reads no weights."""
    row = parse(name).row or Checkpoint(name)
    if row.kind != kind:
        raise ValueError(f"{name!r} is {row.kind}, and this must be of kind {kind}")


def _check_pair(name: str) -> None:
    """Raise ValueError unless a name means another training: a folder of the project, or an archive."""
    is_folder = name.strip("./") and (project_root() / name).is_dir()
    if not is_folder and not archive_file(name).is_file():
        raise ValueError("is neither a folder with a model nor the NAME of a figures/records-NAME.tar.xz")


Diffusion = _that_passes(partial(_check_kind, kind="diffusion"))
Causal = _that_passes(partial(_check_kind, kind="autoregressive"))
Device = _that_passes(choose_device)
Dtype = _that_passes(choose_dtype)
Pair = _that_passes(_check_pair)

# parameters by name


class Parameters:
    """Every name that says more than its annotation; a notebook has some of them."""

    # the machine
    profile: Profile
    device: Device
    dtype: Dtype
    large_dtype: Dtype
    training: Literal["auto", *DTYPES]
    # models
    model: Diffusion
    twin: Causal
    base: Causal
    other_models: Listed[str]
    pairs: Listed[Pair]
    native_tokens: Number  # 0: no pair is trained
    # recipes
    recipes: Some[Preset] | None
    baselines: Some[Preset]
    structured_recipes: Some[Preset]
    in_steps: Listed[OfWeights]
    searched: Listed[Searched]
    at_75: Listed[Searched]
    parts: Listed[Literal[*recipe_search.PARTS]]
    places: Some[Place]
    patterns: Listed[Pattern]
    sparsity: Sparsity
    sparsities: Some[Sparsity]
    written_sparsities: Some[Sparsity]
    factorial_sparsities: Some[Tenth]
    official_sparsities: Some[Sparsity]
    planted_sparsities: Some[Sparsity]
    answer_sparsities: Some[Sparsity]
    twin_sparsities: Some[Sparsity]
    other_sparsities: Listed[Sparsity]
    sparsegpt_sparsities: Listed[Sparsity]
    ratios: Some[Sparsity]
    doses: Some[Dose]
    sparsegpt_doses: Listed[Dose]
    # text
    texts: Some[Literal[*sink_conditions.TEXTS]]
    samplers: Some[Literal[*sink_conditions.SAMPLERS]]
    thirds: Listed[Third]
    length: at_least(8)
    other_lengths: Listed[at_least(8)]
    prompt_length: at_least(4)
    crop_lengths: Some[Two]  # as the first token is never predicted
    batch_tokens: Two
    sequences: Two
    long_sequences: Two
    large_sequences: at_least(12)
    weight_sequences: Listed[Count]
    prompts: Two
    other_prompts: Two
    items: at_least(24)  # two pairs of each group of the suite
    first_seed: Number
    null_seeds: Number
    layers: Some[Number]
    # sinks
    sink_std: Deviations
    stability_threshold: Share
    # the paper's protocol; 0 tokens or draws: not measured
    protocol_sequences: at_least(4)  # two of each start
    protocol_sparsities: Listed[Sparsity]
    protocol_ratios: Listed[Sparsity]
    protocol_large_tokens: Number
    protocol_long: Number
    protocol_answer_draws: Number
    # recovery
    recovery_tokens: Listed[Count]
    recovery_places: Listed[Zeros]
    recovery_of_sparsegpt: Listed[Zeros]
    recovery_recipes: Listed[Literal[*recovery.RECIPES]]
    recovery_long_tokens: Number


# what a notebook needs more than others: text of three kinds and two starts, and keys that are left to hide


class StartHere(Parameters):
    """Notebooks 00 and 07."""

    sequences: at_least(12)
    length: OfficialLevels


class DoSinksMove(Parameters):
    """Notebook 01."""

    steps: at_least(4)
    lengths: Some[at_least(40)]  # a prompt of 32 tokens, and what is written
    noise_levels: Annotated[Count, Field(le=128)]  # windows of a sequence of the causal model


class AreSinksNeeded(Parameters):
    """Notebook 02."""

    lengths: Some[at_least(24)]


class Why(Parameters):
    """Notebook 04."""

    sequences: at_least(4)


class LeavingSinksOut(Parameters):
    """Notebook 03."""

    sequences: at_least(6)


class MatchedCompute(LeavingSinksOut):
    """Notebook 05."""

    length: OfficialLevels


class GainAt75(StartHere):
    """Notebook 06."""

    sparsities: Some[Tenth]
    ratios: Some[Tenth]


class WhatResultsDependOn(Parameters):
    """Notebook 08."""

    sequences: at_least(12)
    sparsities: Some[Tenth]


class FromScratch(Parameters):
    """Notebook 09."""

    sequences: at_least(12)
    steps: at_least(4)
    length: at_least(40)


BY_NOTEBOOK = {
    "00_start_here": StartHere,
    "01_do_sinks_move": DoSinksMove,
    "02_are_sinks_needed": AreSinksNeeded,
    "03_leaving_sinks_out": LeavingSinksOut,
    "04_why": Why,
    "05_matched_compute": MatchedCompute,
    "06_gain_at_75": GainAt75,
    "07_best_recipe": StartHere,
    "08_what_results_depend_on": WhatResultsDependOn,
    "09_from_scratch": FromScratch,
}
BY_ANNOTATION = {"int": Count, "float": AtLeastZero, "bool": bool, "str": str}
BY_ANNOTATION |= {f"list[{name}]": Some[kind] for name, kind in BY_ANNOTATION.items()}
CONFIG = ConfigDict(strict=True, allow_inf_nan=False)


def model_of(notebook: str, annotations: Mapping[str, str]) -> type[BaseModel]:
    """Return the model of a notebook's parameters, by the annotations of its parameters cells."""
    known = get_type_hints(BY_NOTEBOOK.get(notebook, Parameters), include_extras=True)
    types = {name: known.get(name) or BY_ANNOTATION[said] for name, said in annotations.items()}
    return create_model(notebook, __config__=CONFIG, **{name: (kind, None) for name, kind in types.items()})


# values together


def check_together(values: Mapping[str, object]) -> None:
    """Raise ValueError for values that do not go together."""
    levels, length = values.get("noise_levels"), values.get("length")
    if "twin" in values and levels and length and levels > length:  # of a causal model a level is a window
        raise ValueError(f"noise_levels={levels} exceed length={length}: use fewer levels")

    if values.get("ratios") and "model" in values:
        _check_ratios(values["model"], values["ratios"])


def _check_ratios(model: str, ratios: Sequence[float]) -> None:
    """Raise ValueError for a share of the weights that whole units of the model cannot be, by its shape.

    A folder's model is left to pruning itself, which refuses as clearly but later.
    """
    row = parse(model).row
    if row is None:
        return

    lm = meta_model(row)
    for ratio in ratios:
        try:
            unit_counts(lm, ratio)
        except ValueError as error:
            raise ValueError(f"ratios: {error}") from None

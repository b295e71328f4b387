"""Which recipes notebooks 03 and 08 prune by, and on how much text and in how many draws each is measured."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from sinkprune_core import PRESETS, Recipe, preset
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.recipe import compared_preset

SPARSITY = 0.5  # at which verdicts are read
OFFICIAL_LEVELS = preset("paper").noise_levels  # noise levels of the official code
UNSTRUCTURED = "unstructured"
UNMATCHED = "wanda-unmatched"

# presets, by where they are measured; UNMATCHED is Wanda on as many sequences as noised recipes: fewer tokens
HEADLINE = (  # at the sparsity at which verdicts are read, on all calibration draws
    "wanda",
    "wanda-unmatched",
    "noised-dense",
    "paper",
    "paper-sinks-kept",
    "all-sinks",
    "unstable",
    "random",
    "sparsegpt",
    "paper-sparsegpt",
)
CONTROLS = (  # there, on some draws
    "magnitude",
    "dwanda",
    "stable",
    "only-sinks",
    "sparsegpt-unstable",
)
CURVE = (  # at other sparsities and in N:M patterns
    "magnitude",
    "wanda",
    "wanda-unmatched",
    "noised-dense",
    "paper",
    "all-sinks",
    "unstable",
    "sparsegpt",
    "paper-sparsegpt",
)
SPARSEGPT = (  # on as many tokens
    "wanda-unmatched",
    "sparsegpt",
    "paper-sparsegpt",
)
UNITS = (  # whole heads and channels
    "structured-magnitude",
    "structured",
    "flap",
    "structured-sink",
    "structured-sinks-kept",
)
ANSWERING = (  # their models answer two-choice items, besides the dense one
    "wanda",
    "noised-dense",
    "all-sinks",
    "paper",
    "unstable",
    "sparsegpt",
    "paper-sparsegpt",
)


# the columns that name the dense model in tables of scores
DENSE = {"variant": "dense", "pattern": "dense", "sparsity": 0.0, "place": "dense"}


class GridRow(NamedTuple):
    """One variant of a model: how it is pruned, on how many sequences, and in how many calibration draws."""

    variant: str  # its name
    pattern: str  # UNSTRUCTURED, N:M or `structured`
    sparsity: float
    recipe: Recipe
    sequences: int  # of calibration text
    draws: int | None = None  # calibration draws, the first ones; None: all of a run

    @property
    def labels(self) -> dict[str, object]:
        """The columns that name it in tables of scores."""
        place = {"pattern": self.pattern, "sparsity": self.sparsity, "place": self.place}
        return {"variant": self.variant, **place}

    @property
    def place(self) -> str:
        """Where it prunes, in words: `75 %` or `2:4`."""
        return self.recipe.pattern if n_and_m(self.recipe.pattern) else f"{100 * self.sparsity:g} %"

    @property
    def is_calibrated(self) -> bool:
        """Whether pruning looks at calibration text."""
        return self.recipe.rule.calibrated


def row_of(variant: str, recipe: Recipe, sequences: int) -> GridRow:
    """Return the row of a recipe under a name, in all calibration draws of a run."""
    pattern = UNSTRUCTURED
    if recipe.pattern == "structured" or n_and_m(recipe.pattern):
        pattern = recipe.pattern
    return GridRow(variant, pattern, recipe.sparsity, recipe, sequences)


def seen_levels(recipe: Recipe) -> int:
    """Return at how many noise levels a recipe sees every calibration sequence."""
    return recipe.noise_levels if recipe.inputs == "noised" else 1


def width_of(preset_name: str) -> dict[str, int]:
    """Return the field by which a preset for whole units comes as near to its ratio as channels allow."""
    return {"round_to": 1} if PRESETS[preset_name].get("pattern") == "structured" else {}


def grid_rows(
    names: Iterable[str],
    pattern: str,
    sparsity: float,
    draws: int,
    calibration: int,
    noise_levels: int,
    official_levels: int = OFFICIAL_LEVELS,
    chosen: Iterable[str] | None = None,
    **settings: object,
) -> list[GridRow]:
    """Return the rows of presets at one pattern and sparsity; `chosen` names the presets to keep (None: all).

    `settings` are fields of every recipe. All see as many tokens as `calibration` sequences at `noise_levels`
    levels have, rounded down to whole sequences, at least one; the official noise has `official_levels`. But
    SparseGPT on clean text and UNMATCHED, which it is compared with, get `calibration` sequences.
    """
    if n_and_m(pattern):
        settings["pattern"] = pattern

    rows = []
    for name in names:
        preset_name = "wanda" if name == UNMATCHED else name
        if chosen is not None and preset_name not in chosen:
            continue

        recipe = compared_preset(preset_name, sparsity=sparsity, **settings, **width_of(preset_name))
        levels = {"official": official_levels, "grid": noise_levels}.get(recipe.noise, recipe.noise_levels)
        sequences = calibration

        if recipe.inputs == "noised":
            sequences = max(1, calibration * noise_levels // levels)
        elif recipe.criterion != "sparsegpt" and name != UNMATCHED:
            sequences = calibration * noise_levels

        recipe = replace(recipe, noise_levels=levels)
        rows.append(GridRow(name, pattern, sparsity, recipe, sequences, draws))

    return rows

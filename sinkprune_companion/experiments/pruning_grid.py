"""Which recipes notebooks 03 and 07 prune by, and on how much text and in how many draws each is measured."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import yaml

from sinkprune_companion import DATA
from sinkprune_core import Recipe, preset
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.recipe import compared_preset

SPARSITY = 0.5  # at which verdicts are read
OFFICIAL_LEVELS = preset("paper").noise_levels  # noise levels of the official code
UNSTRUCTURED = "unstructured"
UNMATCHED = "wanda-unmatched"
_NAMES = yaml.safe_load((DATA / "grid.yml").read_text(encoding="utf-8"))
HEADLINE, CONTROLS, CURVE = _NAMES["headline"], _NAMES["controls"], _NAMES["curve"]
SPARSEGPT, UNITS, ANSWERING = _NAMES["sparsegpt"], _NAMES["units"], _NAMES["answering"]


class GridRow(NamedTuple):
    """One variant of a model: how it is pruned, on how many sequences, and in how many calibration draws."""

    variant: str  # its name
    pattern: str  # UNSTRUCTURED, N:M or `structured`
    sparsity: float
    recipe: Recipe
    sequences: int  # of calibration text
    draws: int  # calibration draws, the first ones

    @property
    def labels(self) -> dict[str, object]:
        """The columns that name it in tables of scores."""
        return {"variant": self.variant, "pattern": self.pattern, "sparsity": self.sparsity}

    @property
    def is_calibrated(self) -> bool:
        """Whether pruning looks at calibration text."""
        return self.recipe.rule.calibrated


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
        recipe = compared_preset(preset_name, sparsity=sparsity, **settings)
        levels = {"official": official_levels, "grid": noise_levels}.get(recipe.noise, recipe.noise_levels)
        sequences = calibration
        if recipe.inputs == "noised":
            sequences = max(1, calibration * noise_levels // levels)
        elif recipe.criterion != "sparsegpt" and name != UNMATCHED:
            sequences = calibration * noise_levels
        recipe = replace(recipe, noise_levels=levels)
        rows.append(GridRow(name, pattern, sparsity, recipe, sequences, draws))
    return rows

"""Recipes that notebooks 06 and 07 compare, each on as many tokens, and the losses of their models.

Dimensions: N sequences, S steps, T tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product

import pandas as pd
import torch

from sinkprune_companion.experiments.pruning_grid import GridRow, row_of, seen_levels
from sinkprune_companion.experiments.variants import Variant, losses_on, measured
from sinkprune_companion.run.records import Run
from sinkprune_core import LanguageModel, Recipe, preset
from sinkprune_core.calibration.token_weights import EXCLUDE, SinkContext
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.seeds import generator

TEXTS = {  # how calibration text is seen: fields of a recipe
    "clean": {"inputs": "clean"},
    "noised": {"inputs": "noised"},
    "half": {"inputs": "noised", "noise": "half-clean", "noise_levels": 2},  # once clean, once noised
    "half low": {"inputs": "noised", "noise": "half-clean-low", "noise_levels": 2},
    "half high": {"inputs": "noised", "noise": "half-clean-high", "noise_levels": 2},
    "noised twice": {"inputs": "noised", "noise": "stratified", "noise_levels": 2},  # on as many sequences
}
PARTS = ("weights", "other", "large", "twin", "answers")  # of notebook 07, besides the search
CRITERIA = {"wanda": "row", "sparsegpt": "layer"}  # and where each counts its zeros
PLAIN = ("none", "uniform")  # what the name of a recipe does not mention


def _on_as_many(recipes: Mapping[str, Recipe], tokens: int) -> list[GridRow]:
    """Return recipes by name on as many tokens as `tokens` sequences have, in one whole sequence or more."""
    rows = []
    for name, recipe in recipes.items():
        rows.append(row_of(name, recipe, max(1, tokens // seen_levels(recipe))))
    return rows


def official(sparsity: float, tokens: int, noise_levels: int) -> list[GridRow]:
    """Return Wanda on clean text, the official recipe, and that with all tokens counted."""
    recipes = {name: preset(name, sparsity=sparsity) for name in ("wanda", "paper", "paper-sinks-kept")}
    recipes["wanda"] = replace(recipes["wanda"], noise_levels=noise_levels)  # the recipe of `factorial`
    return _on_as_many(recipes, tokens)


def structured(ratio: float, tokens: int) -> list[GridRow]:
    """Return plain and sink-aware structured pruning, and the latter with all tokens counted."""
    names = ("structured", "structured-sink", "structured-sinks-kept")
    return _on_as_many({name: preset(name, sparsity=ratio, round_to=1) for name in names}, tokens)


def factorial(sparsity: float, tokens: int, noise_levels: int) -> list[GridRow]:
    """Return Wanda's combinations of text, propagation, and sinks that are kept or left out."""
    combinations = product(("clean", "noised"), ("sequential", "dense"), ("none", "all"))
    recipes = {}
    for inputs, propagation, exclude in combinations:
        states = {"noise_levels": noise_levels}
        if inputs == "clean" and exclude == "all":  # sinks found at one level a sequence: as many forwards
            states = {"noise": "stratified", "noise_levels": 1}
        switches = {"inputs": inputs, "propagation": propagation, "exclude": exclude}
        recipes[", ".join(switches.values())] = Recipe(sparsity=sparsity, **switches, **states)

    return _on_as_many(recipes, tokens)


def schedules(sparsity: float, tokens: int, noise_levels: int) -> list[GridRow]:
    """Return Wanda, noised and dense, under the even grid, the official schedule and that without t = 1."""
    grid = Recipe(sparsity=sparsity, inputs="noised", propagation="dense", noise_levels=noise_levels)
    official = replace(grid, noise="official", noise_levels=10)
    below_1 = replace(grid, noise="official-below-1", noise_levels=9)
    rows = _on_as_many({"even grid": grid, "official levels": official}, tokens)
    return [*rows, row_of("official levels below t = 1", below_1, rows[-1].sequences)]


def official_elsewhere(context: SinkContext) -> torch.Tensor:
    """Return what the official code leaves out, (N, S, T), with a sequence's tokens in a random order."""
    rng = generator(context.seed, "official weights elsewhere", context.first_sequence)
    order_T = torch.randperm(context.profile_NST.shape[-1], generator=rng)
    return EXCLUDE["official"].function(context)[..., order_T]


def weights(sparsity: float, tokens: int, noise_levels: int) -> list[GridRow]:
    """Return SparseGPT on clean text, with official sink weights, the same elsewhere, and less damping."""
    plain = Recipe(criterion="sparsegpt", sparsity=sparsity, pattern="layer", noise_levels=noise_levels)
    official = preset("paper-sparsegpt", sparsity=sparsity)

    recipes = {
        "sparsegpt, clean": plain,
        "official weights": official,
        "official weights elsewhere": replace(official, exclude=official_elsewhere),
        "less damping": replace(plain, damping=plain.damping / 10),
    }
    return _on_as_many(recipes, tokens)


def candidates(place: str, tokens: int, noise_levels: int) -> list[GridRow]:
    """Return every recipe of the search at a sparsity in percent (`75`) or an N:M pattern (`2:4`)."""
    ratio = n_and_m(place)
    sparsity = ratio[0] / ratio[1] if ratio else float(place) / 100
    allocations = ("uniform",) if ratio else ("uniform", "owl")  # N:M has one sparsity in all layers

    recipes = {}
    for criterion, text, exclude, allocation in product(CRITERIA, TEXTS, ("none", "unstable"), allocations):
        name = ", ".join([criterion, text, *(part for part in (exclude, allocation) if part not in PLAIN)])
        pattern = place if ratio else CRITERIA[criterion]
        common = {"criterion": criterion, "sparsity": sparsity, "pattern": pattern, "exclude": exclude}
        seen = {"noise_levels": noise_levels, **TEXTS[text]}
        recipes[name] = Recipe(**common, **seen, allocation=allocation)

    return _on_as_many(recipes, tokens)


NAMES = tuple(row.variant for row in candidates("50", 1, 1))  # of all recipes of the search


def losses(
    run: Run,
    lm: LanguageModel,
    rows: Sequence[GridRow],
    texts: dict[str, torch.Tensor],
    length: int,
    seeds: Iterable[int],
    then: Callable[[Variant, dict[str, object]], None] | None = None,
) -> pd.DataFrame:
    """Return the losses of the dense model and of one pruned by every row, on every calibration draw.

    All variants of a draw are scored under the same noise, and each draw has noise of its own. `then` is
    called with every variant and its labels as long as the model is pruned.
    """
    score = losses_on(run, texts)

    def measure(variant: Variant, labels: dict[str, object]) -> pd.DataFrame:
        frame = score(variant, labels)
        if then:
            then(variant, labels)
        return frame

    return measured(measure, lm, lm.fingerprint(), rows, length, seeds)

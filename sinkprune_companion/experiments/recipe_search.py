"""Recipes that notebooks 06 and 07 compare, and what each switch of a recipe does to the loss.

Effects are on losses in nats per token, gains below 0. Dimensions: R calibration draws, N sequences.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_companion.experiments.paired_differences import pivot
from sinkprune_companion.experiments.pruning_grid import GridRow, row_of
from sinkprune_companion.experiments.variants import Variant, draw_for
from sinkprune_companion.run.records import Run
from sinkprune_core import LanguageModel, Recipe, preset
from sinkprune_core.calibration.token_weights import EXCLUDE, SinkContext, choice_name
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.seeds import generator

Cell = tuple[bool, ...]  # which switches are on
TEXTS = {  # how calibration text is seen: fields of a recipe
    "clean": {"inputs": "clean"},
    "noised": {"inputs": "noised"},
    "half": {"inputs": "noised", "noise": "half-clean", "noise_levels": 2},  # once clean, once noised
    "half low": {"inputs": "noised", "noise": "half-clean-low", "noise_levels": 2},
    "half high": {"inputs": "noised", "noise": "half-clean-high", "noise_levels": 2},
    "noised twice": {"inputs": "noised", "noise": "stratified", "noise_levels": 2},  # on as many sequences
}
PARTS = ("official", "structured", "factorial", "search", "weights", "other", "large", "twin")
CRITERIA = {"wanda": "row", "sparsegpt": "layer"}  # and where each counts its zeros
PLAIN = ("none", "uniform")  # what the name of a recipe does not mention


class Switch(NamedTuple):
    """A field of a recipe with two values."""

    field: str  # of a recipe
    off: object  # its value when the switch is off
    on: object
    label: str  # what switching it on is called


def name(recipe: Recipe, base: Recipe) -> str:
    """Return what sets a recipe apart from `base`, e.g. `inputs=noised, exclude=all`; else `base`."""
    words = {**vars(recipe), "exclude": choice_name(recipe.exclude)}  # which may be a user's function
    parts = [f"{field}={words[field]}" for field, value in vars(base).items() if vars(recipe)[field] != value]
    return ", ".join(parts) or "base"


def cells(base: Recipe, switches: Sequence[Switch]) -> dict[Cell, Recipe]:
    """Return the recipe of every combination of switches, all else as in `base`; the last changes fastest."""
    settings = product(*(((each.field, each.off), (each.field, each.on)) for each in switches))
    recipes = [replace(base, **dict(values)) for values in settings]
    return dict(zip(product((False, True), repeat=len(switches)), recipes, strict=True))


def path(start: Recipe, end: Recipe, order: Sequence[tuple[str, ...]]) -> list[Recipe]:
    """Return the recipes from `start` to `end`, each with the fields of one more step of `order` changed."""
    recipes = [start]
    for step in order:
        recipes.append(replace(recipes[-1], **{field: getattr(end, field) for field in step}))
    return recipes


def contrast(values: Mapping[Cell, np.ndarray], which: Collection[int]) -> np.ndarray:
    """Return the effect of the switches numbered `which`, (R, N), averaged over all settings of the others.

    One switch: on - off. Two: by how much the effect of one grows when the other is switched on, without the
    factor 1/2 of textbooks, and so on. Raises ValueError unless `values` has every combination of switches.
    """
    width = len(next(iter(values)))
    if missing := set(product((False, True), repeat=width)) - set(values):
        raise ValueError(f"combinations of switches have no values, e.g. {min(missing)}: effects would mix")

    total_RN = np.zeros_like(next(iter(values.values())))
    for cell, values_RN in values.items():
        switched_off = [switch for switch in which if not cell[switch]]
        sign = 1 if len(switched_off) % 2 == 0 else -1
        total_RN = total_RN + sign * values_RN

    return total_RN / 2 ** (width - len(which))


def effects(
    scores: pd.DataFrame, factorial: Mapping[Cell, str], switches: Sequence[Switch]
) -> dict[str, np.ndarray]:
    """Return main effects, then interactions, as label -> (R, N); `factorial` names variants in `scores`."""
    values = {cell: pivot(scores[scores.variant == variant]) for cell, variant in factorial.items()}
    places = range(len(switches))

    found = {}
    for size in range(1, len(switches) + 1):
        for which in combinations(places, size):
            label = " × ".join(switches[each].label for each in which)
            found[label] = contrast(values, which)

    return found


def _on_as_many(recipes: Mapping[str, Recipe], tokens: int) -> list[GridRow]:
    """Return recipes by name on as many tokens as `tokens` sequences have, in one whole sequence or more."""
    rows = []
    for name, recipe in recipes.items():
        states = recipe.noise_levels if recipe.inputs == "noised" else 1
        rows.append(row_of(name, recipe, max(1, tokens // states)))
    return rows


def official(sparsity: float, tokens: int, noise_levels: int) -> list[GridRow]:
    """Return Wanda on clean text, the official recipe, and that with all tokens counted."""
    recipes = {name: preset(name, sparsity=sparsity) for name in ("wanda", "paper", "paper-no-sinks")}
    recipes["wanda"] = replace(recipes["wanda"], noise_levels=noise_levels)  # the recipe of `factorial`
    return _on_as_many(recipes, tokens)


def structured(ratio: float, tokens: int) -> list[GridRow]:
    """Return plain and sink-aware structured pruning, and the latter with all tokens counted."""
    names = ("structured", "structured-sink", "structured-no-sinks")
    return _on_as_many({name: preset(name, sparsity=ratio, round_to=1) for name in names}, tokens)


def factorial(sparsity: float, tokens: int, noise_levels: int, with_sinks: bool = True) -> list[GridRow]:
    """Return Wanda's combinations of text and propagation, and of sinks left out where it is `with_sinks`."""
    recipes = {}
    left_out = ("none", "all") if with_sinks else ("none",)
    for inputs, propagation, exclude in product(("clean", "noised"), ("sequential", "dense"), left_out):
        states = {"noise_levels": noise_levels}
        if inputs == "clean" and exclude == "all":  # sinks found at one level a sequence: as many forwards
            states = {"noise": "stratified", "noise_levels": 1}
        switches = {"inputs": inputs, "propagation": propagation, "exclude": exclude}
        recipes[", ".join(switches.values())] = Recipe(sparsity=sparsity, **switches, **states)

    return _on_as_many(recipes, tokens)


SWITCHED_ON = {"noised": ("inputs", "noised"), "dense": ("propagation", "dense"), "sinks": ("exclude", "all")}


def main_effects(values: Mapping[str, np.ndarray], recipes: Mapping[str, Recipe]) -> dict[str, np.ndarray]:
    """Return what each switch of `factorial` does to losses, mean over the settings of the others, (R, N).

    `values` are losses by the name of a recipe. A switch that none of these recipes has on is left out.
    """

    def is_thrown(field: str, on: str) -> bool:
        return any(getattr(recipes[name], field) == on for name in values)

    thrown = {switch: (field, on) for switch, (field, on) in SWITCHED_ON.items() if is_thrown(field, on)}

    by_cell = {}
    for name, values_RN in values.items():
        cell = tuple(getattr(recipes[name], field) == on for field, on in thrown.values())
        by_cell[cell] = values_RN

    return {switch: contrast(by_cell, [place]) for place, switch in enumerate(thrown)}


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


def variants_on(
    run: Run, lm: LanguageModel, fingerprint: str, rows: Sequence[GridRow], length: int, seed: int
) -> Iterator[tuple[Variant, dict[str, object]]]:
    """Yield the dense model and the variant of every row on one calibration draw, each with its labels."""
    yield Variant(lm, fingerprint), {"variant": "dense", "place": "dense", "seed": seed}
    drawn = draw_for(lm, [(row.recipe, row.sequences) for row in rows], length, seed)
    for row in tqdm(rows, desc="prune and measure", unit="variant", leave=False):
        variant = Variant(lm, fingerprint, row.recipe, *drawn[row.sequences])
        yield variant, {"variant": row.variant, "place": row.place, "seed": seed}

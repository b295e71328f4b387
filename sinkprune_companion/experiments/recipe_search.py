"""Recipes that notebook 09 compares, and how much text each takes.

All see as many calibration tokens as whole sequences allow: a recipe with S states of each sequence takes
1/S of the sequences.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from tqdm.auto import tqdm

from sinkprune_companion.experiments.variants import Variant, draw_for
from sinkprune_companion.ledger.contrasts import contrast
from sinkprune_companion.run.records import Run
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.recipe import Recipe, preset

TEXTS = {  # how calibration text is seen: fields of a recipe
    "clean": {"inputs": "clean"},
    "noised": {"inputs": "noised"},
    "half": {"inputs": "noised", "noise": "half-clean", "noise_levels": 2},  # once clean, once noised
    "noised twice": {"inputs": "noised", "noise": "stratified", "noise_levels": 2},  # on as many sequences
}
PARTS = ("official", "structured", "factorial", "search", "other", "large", "twin")  # of the notebook
CRITERIA = {"wanda": "row", "sparsegpt": "layer"}  # and where each counts its zeros
PLAIN = ("none", "uniform")  # what the name of a recipe does not mention


@dataclass(frozen=True)
class Entry:
    """A recipe under the name that figures use, at one sparsity or pattern, on some calibration text."""

    name: str
    recipe: Recipe
    sequences: int  # of calibration text

    @property
    def place(self) -> str:
        """Where it prunes, in words: `75 %` or `2:4`."""
        return self.recipe.pattern if n_and_m(self.recipe.pattern) else f"{100 * self.recipe.sparsity:g} %"


def _on_as_many(recipes: Mapping[str, Recipe], tokens: int) -> list[Entry]:
    """Return recipes by name on as many tokens as `tokens` sequences have, at least one sequence each."""
    states = [recipe.noise_levels if recipe.inputs == "noised" else 1 for recipe in recipes.values()]
    sequences = [max(1, tokens // count) for count in states]
    return [Entry(*named, count) for named, count in zip(recipes.items(), sequences, strict=True)]


def official(sparsity: float, tokens: int, noise_levels: int) -> list[Entry]:
    """Return Wanda on clean text, the official method, and that with all tokens counted."""
    recipes = {name: preset(name, sparsity=sparsity) for name in ("wanda", "paper", "paper-no-sinks")}
    recipes["wanda"] = replace(recipes["wanda"], noise_levels=noise_levels)  # the recipe of `factorial`
    return _on_as_many(recipes, tokens)


def structured(ratio: float, tokens: int) -> list[Entry]:
    """Return plain and sink-aware structured pruning, and the latter with all tokens counted."""
    names = ("structured", "structured-sink", "structured-no-sinks")
    return _on_as_many({name: preset(name, sparsity=ratio) for name in names}, tokens)


def factorial(sparsity: float, tokens: int, noise_levels: int, with_sinks: bool = True) -> list[Entry]:
    """Return Wanda's combinations of text and propagation, and of sinks left out where it is `with_sinks`.

    Sinks to leave out of clean text are found at one noise level a sequence, drawn anew for each, so that all
    take as many forwards.
    """
    recipes = {}
    left_out = ("none", "all") if with_sinks else ("none",)
    for inputs, propagation, exclude in product(("clean", "noised"), ("sequential", "dense"), left_out):
        states = {"noise_levels": noise_levels}
        if inputs == "clean" and exclude == "all":
            states = {"noise": "stratified", "noise_levels": 1}
        switches = {"inputs": inputs, "propagation": propagation, "exclude": exclude}
        recipes[", ".join(switches.values())] = Recipe(sparsity=sparsity, **switches, **states)
    return _on_as_many(recipes, tokens)


def main_effects(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what each switch of `factorial` does to the loss, mean over the settings of the others, (R, N).

    `values` are losses by the name of the combination. Switches: `noised`, `dense` and, if thrown, `sinks`.
    """
    switches = {"noised": "noised", "dense": "dense", "sinks": "all"}
    settings = {name: name.split(", ") for name in values}
    thrown = {switch: on for switch, on in switches.items() if any(on in each for each in settings.values())}
    cells = {tuple(on in settings[name] for on in thrown.values()): values[name] for name in values}
    return {switch: contrast(cells, [place]) for place, switch in enumerate(thrown)}


def schedules(sparsity: float, tokens: int, noise_levels: int) -> list[Entry]:
    """Return Wanda on noised text with dense propagation under the even grid and the official schedule.

    And under that without its last level, t = 1, on the same sequences: only states of masks alone are gone.
    """
    grid = Recipe(sparsity=sparsity, inputs="noised", propagation="dense", noise_levels=noise_levels)
    official = replace(grid, noise="official", noise_levels=10)
    below_1 = replace(grid, noise="official-below-1", noise_levels=9)
    entries = _on_as_many({"even grid": grid, "official levels": official}, tokens)
    return [*entries, Entry("official levels below t = 1", below_1, entries[-1].sequences)]


def candidates(place: str, tokens: int, noise_levels: int) -> list[Entry]:
    """Return every one-shot recipe of the search at a sparsity in percent (`75`) or an N:M pattern (`2:4`).

    Later blocks are calibrated on what pruned ones make, as both criteria were published. N:M patterns have
    one sparsity in all layers.
    """
    ratio = n_and_m(place)
    sparsity = ratio[0] / ratio[1] if ratio else float(place) / 100
    allocations = ("uniform",) if ratio else ("uniform", "owl")
    recipes = {}
    for criterion, text, exclude, allocation in product(CRITERIA, TEXTS, ("none", "unstable"), allocations):
        name = ", ".join([criterion, text, *(part for part in (exclude, allocation) if part not in PLAIN)])
        pattern = place if ratio else CRITERIA[criterion]
        common = {"criterion": criterion, "sparsity": sparsity, "pattern": pattern, "exclude": exclude}
        seen = {"noise_levels": noise_levels, **TEXTS[text]}
        recipes[name] = Recipe(**common, **seen, allocation=allocation)
    return _on_as_many(recipes, tokens)


NAMES = tuple(entry.name for entry in candidates("50", 1, 1))  # of all recipes of the search


def variants_on(
    run: Run, lm: LanguageModel, fingerprint: str, entries: Sequence[Entry], length: int, seed: int
) -> Iterator[tuple[Variant, dict[str, object]]]:
    """Yield the dense model and every entry on one calibration draw, each with its labels."""
    yield Variant(lm, fingerprint), {"variant": "dense", "place": "dense", "seed": seed}
    drawn = draw_for(lm, [(entry.recipe, entry.sequences) for entry in entries], length, seed)
    for entry in tqdm(entries, desc="prune and measure", unit="variant", leave=False):
        variant = Variant(lm, fingerprint, entry.recipe, *drawn[entry.sequences])
        yield variant, {"variant": entry.name, "place": entry.place, "seed": seed}

"""What one switch of a recipe does by itself and together with others: factorial contrasts, paths, verdicts
in words.

Values are losses in nats per token, so an effect below zero is a gain. Every effect is a difference of scores
on the same sequences, noise and calibration draws, and keeps both dimensions until its interval is made.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations, product

import numpy as np
import pandas as pd

from sinkprune_companion.numbers import signed_interval
from sinkprune_core.calibration.token_weights import choice_name
from sinkprune_core.evaluation.intervals import CONFIDENCE, pivot
from sinkprune_core.evaluation.significance import family
from sinkprune_core.pruning.recipe import Recipe

# what an effect on a loss is
HELPS = "helps"
HURTS = "hurts"
EQUIVALENT = "no difference"
OPEN = "inconclusive"
EFFECTS = (HELPS, HURTS, EQUIVALENT, OPEN)
FIELDS = tuple(field.name for field in fields(Recipe))
Cell = tuple[bool, ...]  # which switches are on


@dataclass(frozen=True)
class Switch:
    """A field of a recipe with two values."""

    field: str  # of a recipe
    off: object  # its value when the switch is off
    on: object
    label: str  # what switching it on is called

    def __post_init__(self):
        if self.field not in FIELDS:
            raise ValueError(
                f"field={self.field!r} is no field of a recipe; choose one of {', '.join(FIELDS)}"
            )
        if self.off == self.on:
            raise ValueError(
                f"switch {self.label!r}: off and on are both {self.on!r}, so there is nothing to compare"
            )


# recipes


def changes(one: Recipe, other: Recipe) -> dict[str, tuple[object, object]]:
    """Return the fields in which two recipes differ, as field -> (its value in `one`, in `other`)."""
    found = {}
    for field in FIELDS:
        values = (getattr(one, field), getattr(other, field))
        if values[0] != values[1]:
            found[field] = values
    return found


def name(recipe: Recipe, base: Recipe) -> str:
    """Return what sets a recipe apart from `base`, e.g. `inputs=noised, exclude=all`.

    Equal names mean equal recipes; that of `base` is `base`.
    """
    parts = []
    for field, (value, _) in changes(recipe, base).items():
        shown = choice_name(value) if field == "exclude" else value  # which may be a user's function
        parts.append(f"{field}={shown}")
    return ", ".join(parts) or "base"


def neighbours(combined: Iterable[Cell]) -> list[tuple[Cell, Cell, int]]:
    """Return every pair (on, off, switch) of combinations that differ in one switch, a number, in order."""
    found = []
    for off, on in combinations(sorted(combined), 2):
        changed = [switch for switch, states in enumerate(zip(off, on, strict=True)) if len(set(states)) > 1]
        if len(changed) == 1:
            found.append((on, off, changed[0]))
    return found


def cells(base: Recipe, switches: Sequence[Switch]) -> dict[Cell, Recipe]:
    """Return the recipe of every combination of switches, all other fields as in `base`.

    The last switch changes fastest. Raises ValueError when two switches set one field.
    """
    if len({switch.field for switch in switches}) < len(switches):
        raise ValueError(
            f"switches {[switch.field for switch in switches]} set a field twice: give every field one switch"
        )
    recipes = {}
    for cell in product((False, True), repeat=len(switches)):
        values = {}
        for switch, is_on in zip(switches, cell, strict=True):
            values[switch.field] = switch.on if is_on else switch.off
        recipes[cell] = replace(base, **values)
    return recipes


def path(start: Recipe, end: Recipe, order: Sequence[str]) -> list[Recipe]:
    """Return the recipes from `start` to `end` that change one field after the other in `order`.

    Their differences add up to the whole. Raises ValueError unless `order` names exactly the fields that
    differ.
    """
    differ = changes(end, start)
    if sorted(order) != sorted(differ):
        raise ValueError(
            f"order={list(order)} must name the fields that differ, each once: {', '.join(differ)}"
        )
    recipes = [start]
    for field in order:
        recipes.append(replace(recipes[-1], **{field: getattr(end, field)}))
    return recipes


# effects


def contrast(values: Mapping[Cell, np.ndarray], which: Collection[int]) -> np.ndarray:
    """Return the effect of the switches numbered `which`, (R, N), averaged over all settings of the others.

    One switch: on - off. Two: by how much the effect of one grows when the other is switched on, and so on: a
    difference of differences, without the factor 1/2 of textbooks, so that every effect is in the units of
    the values. Raises ValueError unless `values` has every combination of switches.
    """
    width = len(next(iter(values)))
    missing = set(product((False, True), repeat=width)) - set(values)
    if missing:
        raise ValueError(
            f"{len(missing)} of {2**width} combinations of switches have no values, e.g. {min(missing)}: "
            "effects would be mixed"
        )
    total = 0
    for cell, value_RN in values.items():
        off = sum(not cell[switch] for switch in which)
        total = total + (-1) ** off * value_RN
    return total / 2 ** (width - len(which))


def effects(
    scores: pd.DataFrame, factorial: Mapping[Cell, str], switches: Sequence[Switch]
) -> dict[str, np.ndarray]:
    """Return main effects, then interactions of two, then of more, as label -> (R, N).

    `scores` has `variant`, `seed`, `sequence` and `value`; `factorial` names the variant of every combination
    of `switches`.
    """
    values = {cell: pivot(scores[scores.variant == variant]) for cell, variant in factorial.items()}
    found = {}
    for size in range(1, len(switches) + 1):
        for which in combinations(range(len(switches)), size):
            label = " × ".join(switches[switch].label for switch in which)
            found[label] = contrast(values, which)
    return found


def differences_of(scores: pd.DataFrame, comparisons: Mapping[str, tuple[str, str]]) -> dict[str, np.ndarray]:
    """Return variant - other of every comparison {label: (variant, other)}, (R, N)."""
    named = {variant for pair in comparisons.values() for variant in pair}
    values = {variant: pivot(scores[scores.variant == variant]) for variant in named}
    return {label: values[variant] - values[other] for label, (variant, other) in comparisons.items()}


# verdicts


def verdict(low: float, high: float, p: float, p_equivalent: float) -> str:
    """Return one of EFFECTS from an interval and the adjusted p-values of a difference and of equivalence.

    Equivalence goes first: a difference may be measurable and still too small to matter. An effect needs
    both, an interval without zero (which knows calibration draws) and an adjusted p-value (which knows how
    many effects were tested).
    """
    if p_equivalent < 1 - CONFIDENCE:
        return EQUIVALENT
    if p < 1 - CONFIDENCE and high < 0:
        return HELPS
    if p < 1 - CONFIDENCE and low > 0:
        return HURTS
    return OPEN


def words(
    label: str, value: float, low: float, high: float, p: float, p_equivalent: float, margin: float | None
) -> str:
    """Return one sentence on an effect in nats per token, computed from its numbers."""
    says = verdict(low, high, p, p_equivalent)
    if says == EQUIVALENT:
        says = f"{_size(low, high)}; equivalent within ±{margin:.2g}"
    elif says == OPEN:
        says = f"{OPEN}: {_why_open(low, high, margin)}"
    return f"{label}: {signed_interval(value, low, high)} nats per token: {says}"


def _size(low: float, high: float) -> str:
    """Return what the interval of an effect that is too small to matter says."""
    if high < 0:
        return "a measurable gain, too small to matter"
    if low > 0:
        return "a measurable loss, too small to matter"
    return "no measurable effect"


def _why_open(low: float, high: float, margin: float | None) -> str:
    """Return why an effect has no other verdict."""
    if low > 0 or high < 0:
        return "the interval leaves zero out, the correction for several comparisons does not"
    if margin is None:
        return "the interval holds zero, and without damage by the baseline nothing says what would matter"
    if max(-low, high) < margin:
        return f"the interval lies within ±{margin:.2g}, the corrected equivalence test does not confirm it"
    return f"the interval holds zero, and more than ±{margin:.2g} is not excluded"


def judge(values: Mapping[str, np.ndarray], margin: float | None, section: str = "") -> pd.DataFrame:
    """Return one row per effect {label: (R, N)} of a family that is read together.

    Columns are those of `significance.family`, and `section`, `margin`, `verdict` and `words`. p-values are
    adjusted over this family (Holm). Without a margin, where the baseline does no damage, no effect is
    equivalent to none, and the column is NaN. Raises ValueError unless `margin` > 0.
    """
    shown = float("nan") if margin is None else margin
    table = family(values, margin).assign(section=section, margin=shown)
    verdicts = []
    sentences = []
    for row in table.itertuples():
        judged = (row.low, row.high, row.p_holm, row.p_equivalent_holm)
        verdicts.append(verdict(*judged))
        sentences.append(words(row.comparison, row.value, *judged, margin))
    return table.assign(verdict=verdicts, words=sentences)

"""What one switch of a recipe does by itself and together with others: factorial contrasts, paths, verdicts.

Values are losses in nats per token, so an effect below zero is a gain. Every effect is a difference of scores
on the same sequences, noise and calibration draws, and keeps both dimensions until its interval is made.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd

from sinkprune_companion.experiments.variant_pairs import pivot
from sinkprune_companion.ledger.verdict_rule import ABOVE, BELOW, holm, verdict
from sinkprune_core.calibration.token_weights import choice_name
from sinkprune_core.evaluation.intervals import Estimate, crossed_interval
from sinkprune_core.pruning.recipe import Recipe

Cell = tuple[bool, ...]  # which switches are on
HELPS = "helps"
HURTS = "hurts"
ON_A_LOSS = {BELOW: HELPS, ABOVE: HURTS}  # where an effect lies -> what its switch does


class Switch(NamedTuple):
    """A field of a recipe with two values."""

    field: str  # of a recipe
    off: object  # its value when the switch is off
    on: object
    label: str  # what switching it on is called


# recipes


def name(recipe: Recipe, base: Recipe) -> str:
    """Return what sets a recipe apart from `base`, e.g. `inputs=noised, exclude=all`; else `base`."""
    words = {**vars(recipe), "exclude": choice_name(recipe.exclude)}  # which may be a user's function
    parts = [f"{field}={words[field]}" for field, value in vars(base).items() if vars(recipe)[field] != value]
    return ", ".join(parts) or "base"


def cells(base: Recipe, switches: Sequence[Switch]) -> dict[Cell, Recipe]:
    """Return the recipe of every combination of switches, all else as in `base`; the last changes fastest."""
    fields = [switch.field for switch in switches]
    settings = product(*((switch.off, switch.on) for switch in switches))
    recipes = [replace(base, **dict(zip(fields, values, strict=True))) for values in settings]
    return dict(zip(product((False, True), repeat=len(switches)), recipes, strict=True))


def path(start: Recipe, end: Recipe, order: Sequence[tuple[str, ...]]) -> list[Recipe]:
    """Return the recipes from `start` to `end`, each with the fields of one more step of `order` changed."""
    recipes = [start]
    for step in order:
        recipes.append(replace(recipes[-1], **{field: getattr(end, field) for field in step}))
    return recipes


# effects


def contrast(values: Mapping[Cell, np.ndarray], which: Collection[int]) -> np.ndarray:
    """Return the effect of the switches numbered `which`, (R, N), averaged over all settings of the others.

    One switch: on - off. Two: by how much the effect of one grows when the other is switched on, without the
    factor 1/2 of textbooks, and so on. Raises ValueError unless `values` has every combination of switches.
    """
    width = len(next(iter(values)))
    missing = set(product((False, True), repeat=width)) - set(values)
    if missing:
        raise ValueError(
            f"{len(missing)} of {2**width} combinations of switches have no values, e.g. {min(missing)}: "
            "effects would be mixed"
        )
    signs = {cell: (-1) ** sum(not cell[switch] for switch in which) for cell in values}
    return sum(signs[cell] * values[cell] for cell in values) / 2 ** (width - len(which))


def effects(
    scores: pd.DataFrame, factorial: Mapping[Cell, str], switches: Sequence[Switch]
) -> dict[str, np.ndarray]:
    """Return main effects, then interactions of two, then of more, as label -> (R, N).

    `factorial` names the variant in `scores` of every combination of `switches`.
    """
    values = {cell: pivot(scores[scores.variant == variant]) for cell, variant in factorial.items()}
    places = range(len(switches))
    chosen = chain.from_iterable(combinations(places, size) for size in range(1, len(switches) + 1))
    return {" × ".join(switches[place].label for place in which): contrast(values, which) for which in chosen}


def differences_of(scores: pd.DataFrame, comparisons: Mapping[str, tuple[str, str]]) -> dict[str, np.ndarray]:
    """Return variant - other of every comparison {label: (variant, other)}, (R, N)."""
    named = {variant for pair in comparisons.values() for variant in pair}
    values = {variant: pivot(scores[scores.variant == variant]) for variant in named}
    return {label: values[variant] - values[other] for label, (variant, other) in comparisons.items()}


# verdicts


def judge(effects: Mapping[str, np.ndarray], margin: float | None, section: str = "") -> pd.DataFrame:
    """Return one row per effect {label: (R, N)} that are read together, with its `crossed_interval`.

    `p_holm` is corrected over this family, `margin` NaN without one, `verdict` HELPS, HURTS or another one of
    the rule. Raises ValueError unless `margin` > 0.
    """
    estimates = {label: crossed_interval(effect).with_margin(margin) for label, effect in effects.items()}
    p = [estimate.p_value() for estimate in estimates.values()]
    return pd.DataFrame(
        {
            "comparison": estimates.keys(),
            **fields_of(estimates, "value", "low", "high"),
            "p": p,
            "p_holm": holm(p),
            **fields_of(estimates, "error_sequences", "error_draws"),
            "section": section,
            "margin": float("nan") if margin is None else margin,
            "verdict": verdicts_on_losses(estimates.values()),
        }
    )


def fields_of(estimates: Mapping[str, Estimate], *names: str) -> dict[str, list]:
    """Return columns of a table that has a row per estimate."""
    return {name: [getattr(estimate, name) for estimate in estimates.values()] for name in names}


def verdicts_on_losses(estimates: Collection[Estimate]) -> list[str]:
    """Return HELPS, HURTS or another verdict for each difference of losses; p is corrected over all (Holm).

    Every estimate has its own margin.
    """
    corrected = holm([estimate.p_value() for estimate in estimates])
    outcomes = [verdict(one, one.margin, p=p) for one, p in zip(estimates, corrected, strict=True)]
    return [ON_A_LOSS.get(outcome, outcome) for outcome in outcomes]

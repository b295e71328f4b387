"""How recipes differ in loss: pairs of them, switches of a factorial design, shares of what pruning costs.

Losses are in nats per token, so a gain is below 0. Dimensions: R calibration draws, N sequences.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion.experiments.kinds_of_text import finding_on
from sinkprune_companion.experiments.paired_differences import on_common_draws
from sinkprune_companion.experiments.pruning_grid import GridRow
from sinkprune_companion.margins import beside_damage
from sinkprune_companion.run.texts import DOMAINS

Cell = tuple[bool, ...]  # which switches are on
SWITCHED_ON = {"noised": ("inputs", "noised"), "dense": ("propagation", "dense"), "sinks": ("exclude", "all")}


class Difference(NamedTuple):
    """One recipe's loss less another's, and what it is measured against, (R, N) each."""

    values_RN: np.ndarray
    # of a recipe above the dense model: that of the second one, where nothing else is said
    cost_RN: np.ndarray

    @property
    def estimate(self) -> Estimate:
        """The mean with its interval, in nats per token; the margin is a share of the cost."""
        return beside_damage(self.values_RN, self.cost_RN)

    def in_percent(self) -> Estimate:
        """Return the estimate in percent of the cost that it is measured against."""
        percent = 100 / self.cost_RN.mean()
        return beside_damage(percent * self.values_RN, percent * self.cost_RN)


def differences(costs: pd.DataFrame, compared: Mapping[str, tuple[str, str]]) -> dict[str, Difference]:
    """Return one - other of all that is compared, at every place where both were measured.

    `costs` are losses above the dense model, with a `variant` and a `place`. A name ends in the place,
    `_50` at 50 % or `_2_4`, and in `_growth` for the difference at 75 % less that at 50 %. Two are paired by
    calibration draw and sequence, on the draws that both have, and a growth on those that all four have.
    Raises ValueError where there is none.
    """
    found = {}
    for name, pair in compared.items():
        for place in costs.place.drop_duplicates():
            values = on_common_draws(costs, *_sides(pair, place))
            if values is not None:
                one_RN, other_RN = values
                found[f"{name}_{ending(place)}"] = Difference(one_RN - other_RN, other_RN)

        values = on_common_draws(costs, *_sides(pair, "75 %"), *_sides(pair, "50 %"))
        if values is not None:
            one_75, other_75, one_50, other_50 = values
            growth_RN = (one_75 - other_75) - (one_50 - other_50)
            found[f"{name}_growth"] = Difference(growth_RN, other_75)

    return found


def _sides(variants: Iterable[str], place: str) -> list[dict[str, object]]:
    """Return the columns with their values of every variant at a place."""
    return [{"variant": variant, "place": place} for variant in variants]


def ending(place: str) -> str:
    """Return how a finding's name ends that was measured at a place: `50` at 50 %, `2_4` at 2:4."""
    return place.removesuffix(" %").replace(":", "_")


def estimates(found: Mapping[str, Difference]) -> dict[str, Estimate]:
    """Return differences as findings, in nats per token."""
    return {name: difference.estimate for name, difference in found.items()}


def by_kind_of_text(found: Mapping[str, Difference], kind_N: np.ndarray) -> dict[str, Estimate]:
    """Return every difference on each kind of text apart, as findings `{finding}_on_{kind}`."""
    return {
        finding_on(name, kind): of_kind(difference, kind_N, kind).estimate
        for name, difference in found.items()
        for kind in DOMAINS
    }


def of_kind(difference: Difference, kind_N: np.ndarray, kind: str) -> Difference:
    """Return a difference on the sequences of one kind of text alone."""
    is_kind_N = kind_N == kind
    return Difference(difference.values_RN[:, is_kind_N], difference.cost_RN[:, is_kind_N])


def later_draws(difference: Difference, first: int) -> Difference:
    """Return a difference without its `first` calibration draws."""
    return Difference(difference.values_RN[first:], difference.cost_RN[first:])


# a factorial design


def contrast(values: Mapping[Cell, np.ndarray], which: Collection[int]) -> np.ndarray:
    """Return the effect of the switches numbered `which`, (R, N), averaged over all settings of the others.

    One switch: on - off. Two: by how much the effect of one grows when the other is switched on, without the
    factor 1/2 of textbooks, and so on. Raises ValueError unless `values` has every combination of switches.
    """
    width = len(next(iter(values)))
    if missing := set(product((False, True), repeat=width)) - set(values):
        raise ValueError(f"combinations of switches have no values, e.g. {min(missing)}: effects would mix")
    signs = {cell: (-1) ** sum(not cell[switch] for switch in which) for cell in values}
    return sum(signs[cell] * values[cell] for cell in values) / 2 ** (width - len(which))


def main_effects(
    costs: pd.DataFrame, rows: Sequence[GridRow], with_sinks: bool = False
) -> dict[str, Difference]:
    """Return what each switch of `recipe_search.factorial` does at every place: `main_noised_75` and so on.

    It is a mean over the settings of the other switches; of text and propagation over those with no sink left
    out, unless it is `with_sinks`. All are measured against what Wanda costs, where every switch is off.
    """
    recipes = {row.variant: row.recipe for row in rows}
    found = {}
    for place, at_place in costs.groupby("place", sort=False):
        variants = sorted(set(at_place.variant))
        cells = [
            tuple(getattr(recipes[variant], field) == on for field, on in SWITCHED_ON.values())
            for variant in variants
        ]
        measured = on_common_draws(at_place, *_sides(variants, place))
        values = dict(zip(cells, measured, strict=True))

        plain = {cell[:2]: values_RN for cell, values_RN in values.items() if not cell[2]}
        wanda_RN = plain[False, False]
        for switch, name in enumerate(SWITCHED_ON):
            averaged = values if with_sinks or name == "sinks" else plain
            effect_RN = contrast(averaged, [switch])
            found[f"main_{name}_{ending(place)}"] = Difference(effect_RN, wanda_RN)

        both = contrast(plain, [0, 1])
        found[f"interaction_{ending(place)}"] = Difference(both, wanda_RN)
    return found

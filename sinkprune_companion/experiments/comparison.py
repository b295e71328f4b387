"""Two models on the same texts and items: paired differences, and a verdict by one rule with a margin.

Everything here is a function of score tables: of `likelihood.score` (a row per sequence) and of
`two_choice.accuracy` (a row per item). Differences are B - A.

Dimensions: N sequences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sinkprune_companion.ledger.verdict_rule import ABOVE, BELOW, UNDECIDED, deciding_factor, verdict
from sinkprune_core.evaluation.intervals import Estimate, interval

BETTER = {ABOVE: "A is better", BELOW: "B is better"}  # where B - A in a loss lies


@dataclass(frozen=True)
class Comparison:
    """One measure of both models, and their paired difference B - A."""

    a: float  # mean of A
    b: float  # mean of B
    difference: Estimate  # B - A with its 95 % interval


def nats_difference(a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    """Compare nats per token, sequence by sequence.

    Takes tables with `sequence` and `value`. Raises ValueError for other sequences, and for fewer than two.
    """
    return _compared(_paired(a, b, ["sequence"], "value"))


def accuracy_difference(a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    """Compare shares of right answers; the units are pairs of items, which share their endings.

    Takes tables of `two_choice.accuracy` of the same items. Raises ValueError for other items, and for fewer
    than two pairs.
    """
    return _compared(_items(a, b).groupby(level=["group", "pair"], sort=False).mean())


def flips(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, int]:
    """Return how many items are right in one model alone (`only_a`, `only_b`), in `both` and in `neither`.

    Takes tables of `two_choice.accuracy` of the same items; raises ValueError for other items.
    """
    counts = (_items(a, b) == 1).value_counts()
    cases = {
        "only_a": (True, False),
        "only_b": (False, True),
        "both": (True, True),
        "neither": (False, False),
    }
    return {name: int(counts.get(case, 0)) for name, case in cases.items()}


def _items(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return the answers of both models by group, pair and the number of an item within its pair."""
    numbered = [frame.assign(item=frame.groupby(["group", "pair"]).cumcount()) for frame in (a, b)]
    return _paired(*numbered, ["group", "pair", "item"], "correct")


def _paired(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Return columns `a` and `b` by the units that both tables have; raise ValueError where these differ."""
    values_a = a.set_index(keys)[column].astype(float)
    values_b = b.set_index(keys)[column].astype(float)
    if not values_a.index.equals(values_b.index):
        raise ValueError(
            f"the two tables have {len(values_a)} and {len(values_b)} rows and not the same "
            f"{', '.join(keys)}: score both models on the same texts and items"
        )
    return pd.DataFrame({"a": values_a, "b": values_b})


def _compared(units: pd.DataFrame) -> Comparison:
    difference_N = (units.b - units.a).to_numpy()
    return Comparison(float(units.a.mean()), float(units.b.mean()), interval(difference_N))


# the verdict


def outcome(difference: Estimate, margin: float) -> str:
    """Return what a difference B - A in nats per token says by `verdict_rule`. Fewer nats are better.

    One of `no difference that matters`, `A is better`, `B is better` and `undecided`, with half the width of
    the interval and the number of sequences that would decide.
    """
    result = verdict(difference, margin)
    if result != UNDECIDED:
        return BETTER.get(result, result)
    count = math.ceil(difference.units * deciding_factor(difference, 0.0, margin))
    return f"undecided (half-width {difference.half_width:.2g}; about {count:,} sequences would decide)"

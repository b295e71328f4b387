"""Two models on the same texts and items: paired differences, and a verdict by one rule with a margin.

Everything here is a function of score tables: of `likelihood.score` (a row per sequence) and of
`two_choice.accuracy` (a row per item). Differences are B - A.

Dimensions: N sequences.
"""

import math
from collections.abc import Sequence

import pandas as pd

from sinkprune_companion.ledger.verdict_rule import ABOVE, BELOW, UNDECIDED, deciding_factor, verdict
from sinkprune_core.evaluation.intervals import Estimate, interval

BETTER = {ABOVE: "A is better", BELOW: "B is better"}  # where B - A in a loss lies


def paired(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Return columns `a` and `b` by the units that both tables have; raise ValueError where these differ."""
    values_a = a.set_index(keys)[column].astype(float)
    values_b = b.set_index(keys)[column].astype(float)
    if not values_a.index.equals(values_b.index):
        raise ValueError(
            f"the two tables have {len(values_a)} and {len(values_b)} rows and not the same "
            f"{', '.join(keys)}: score both models on the same texts and items"
        )
    return pd.DataFrame({"a": values_a, "b": values_b})


def paired_items(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return the answers of both models by group, pair and the number of an item within its pair.

    Takes tables of `two_choice.accuracy`; raises ValueError for other items.
    """
    numbered = [frame.assign(item=frame.groupby(["group", "pair"]).cumcount()) for frame in (a, b)]
    return paired(*numbered, ["group", "pair", "item"], "correct")


def difference(units: pd.DataFrame) -> Estimate:
    """Return B - A with its 95 % interval over units; raise ValueError for fewer than two."""
    return interval((units.b - units.a).to_numpy())


def flips(items: pd.DataFrame) -> dict[str, int]:
    """Return how many of `paired_items` are right in one model alone (`only_a`, `only_b`), in `both` and in
    `neither`.
    """
    a, b = items.a == 1, items.b == 1
    cases = {"only_a": a & ~b, "only_b": b & ~a, "both": a & b, "neither": ~a & ~b}
    return {name: int(of_case.sum()) for name, of_case in cases.items()}


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

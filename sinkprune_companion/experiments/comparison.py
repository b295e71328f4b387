"""Two models on the same texts and items: paired differences, and a verdict by one rule with a margin.

Everything here is a function of score tables: of `score_texts` (a row per sequence) and of
`two_choice.accuracy` (a row per item). Differences are B - A.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from sinkprune_companion.ledger.verdict_rule import ABOVE, BELOW, UNDECIDED, deciding_factor, verdict
from sinkprune_core.evaluation.intervals import Estimate, interval

NATS = "nats per token"
ACCURACY = "accuracy"
MEASURES = {  # what is independent, the columns that name one of these, and the column that is compared
    NATS: ("sequences", ["sequence"], "value"),
    ACCURACY: ("pairs of items", ["group", "pair"], "correct"),
}
BETTER = {ABOVE: "A is better", BELOW: "B is better"}  # where B - A in a loss lies


def comparison(
    a: Mapping[str, pd.DataFrame], b: Mapping[str, pd.DataFrame], margin: float
) -> dict[str, object]:
    """Return the verdict on NATS, the items that flipped where there are some, and every difference with its
    95 % interval.

    Takes the tables of both models by measure. Raises ValueError for other texts or items, and for a single
    sequence or pair.
    """
    result = {}
    differences = []
    for measure, table in a.items():
        units, keys, column = MEASURES[measure]
        rows = paired(table, b[measure], keys, column)
        means = rows.groupby(level=keys, sort=False).mean()
        change = interval(means.b - means.a)
        row = {"measure": measure, "a": float(means.a.mean()), "b": float(means.b.mean())}
        row |= {"b_minus_a": change.value, "low": change.low, "high": change.high}
        differences.append({**row, "number": change.units, "units": units})
        if measure == NATS:
            result["verdict"] = outcome(change, margin)
        else:
            result["flips"] = flips(rows)
    return {**result, "differences": differences}


def paired(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Return `column` of both tables as `a` and `b`, by `keys` and the number of a row where they repeat.

    Raises ValueError where these differ.
    """
    values = []
    for table in (a, b):
        numbered = table.assign(row=table.groupby(keys).cumcount())
        values.append(numbered.set_index([*keys, "row"])[column].astype(float))
    if not values[0].index.equals(values[1].index):
        raise ValueError(
            f"the two tables have {len(a)} and {len(b)} rows and not the same {', '.join(keys)}: "
            "score both models on the same texts and items"
        )
    return pd.DataFrame({"a": values[0], "b": values[1]})


def flips(items: pd.DataFrame) -> dict[str, int]:
    """Return how many `paired` answers are right in one model alone (`only_a`, `only_b`), in `both` and in
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

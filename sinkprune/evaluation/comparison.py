"""Two models in pairs on the same texts and items: tables `a` and `b` of scores, differences b - a."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from sinkprune.evaluation import suite
from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune.evaluation.verdict_rule import ABOVE, BELOW, UNDECIDED, deciding_factor, verdict

NATS = "nats per token"
ACCURACY = "accuracy"
MEASURES = {  # what is independent, the columns that name one of these, and the column that is compared
    NATS: ("sequences", ["sequence"], "value"),
    ACCURACY: ("templates of items", ["group", "template", "pair"], "correct"),
}
BETTER = {ABOVE: "A is better", BELOW: "B is better"}  # where B - A in a loss lies


def comparison(
    a: Mapping[str, pd.DataFrame], b: Mapping[str, pd.DataFrame], margin: float
) -> dict[str, object]:
    """Return what the `scores` of two models say: the verdict on NATS, the items that flipped where there are
    some, and every difference with its 95 % interval.

    Raises ValueError for other texts or items, and for a single sequence or template.
    """
    result = {}
    differences = []
    for measure, table in a.items():
        units, keys, column = MEASURES[measure]
        rows = paired(table, b[measure], keys, column)
        changes = rows.b - rows.a
        if measure == ACCURACY:
            changes = suite.by_template(changes.reset_index(name="change"), "change")

        change = interval(changes)
        row = {"measure": measure, "a": float(rows.a.mean()), "b": float(rows.b.mean())}
        low, high = change.low, change.high
        if measure == ACCURACY:  # a difference of two shares
            low, high = max(low, -1.0), min(high, 1.0)

        row |= {"b_minus_a": change.value, "low": low, "high": high}
        differences.append({**row, "number": change.units, "units": units})

        if measure == NATS:
            result["verdict"] = outcome(change, margin)
        else:
            right_a, right_b = rows.a == 1, rows.b == 1
            kinds = {
                "only_a": right_a & ~right_b,
                "only_b": right_b & ~right_a,
                "both": right_a & right_b,
                "neither": ~right_a & ~right_b,
            }
            result["flips"] = {name: int(which.sum()) for name, which in kinds.items()}

    return {**result, "differences": differences}


def paired(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Return `column` of both tables as `a` and `b`, by `keys` and the number of a row where they repeat.

    Raises ValueError where these differ.
    """
    rows = [table.assign(row=table.groupby(keys).cumcount()).set_index([*keys, "row"]) for table in (a, b)]
    if not rows[0].index.equals(rows[1].index):
        raise ValueError(
            f"the two tables have {len(a)} and {len(b)} rows and not the same {', '.join(keys)}: "
            "score both models on the same texts and items"
        )

    return pd.DataFrame({"a": rows[0][column], "b": rows[1][column]}, dtype=float)


def outcome(difference: Estimate, margin: float) -> str:
    """Return what a difference in nats per token says by `verdict_rule`, of `undecided` with half the width
    of the interval and the number of sequences that would decide.
    """
    result = verdict(difference, margin)
    if result != UNDECIDED:
        return BETTER.get(result, result)
    count = math.ceil(difference.units * deciding_factor(difference, 0.0, margin))
    return f"undecided (half-width {difference.half_width:.2g}; about {count:,} sequences would decide)"

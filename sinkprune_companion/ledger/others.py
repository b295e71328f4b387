"""What others measured at 8B with the official code, in `data/published.yml`, and findings made of it."""

from functools import cache

from scipy import stats

from sinkprune.evaluation.intervals import CONFIDENCE, Estimate
from sinkprune_companion.ledger.margins import published_numbers, with_share_of_damage

REACH = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
UNPAIRED = "from both standard errors, as if on different items: wider than a paired interval"


@cache
def runs() -> tuple[dict, ...]:
    """Return every run by others; each row has the `baseline` that it is compared with, None if plain."""
    made = []
    for run in published_numbers()["others"]:
        plain = {(row["sparsity"], f"sink-aware {row['method']}"): row for row in run["rows"]}
        rows = [{**row, "baseline": plain.get((row["sparsity"], row["method"]))} for row in run["rows"]]
        dense = {**run["dense"], "method": "dense", "sparsity": 0.0, "baseline": None}
        made.append({**run, "rows": rows, "dense": dense})

    return tuple(made)


def interval(row: dict) -> tuple[float, float]:
    """Return the 95 % interval of the normal mean that a row reports."""
    return row["accuracy"] - REACH * row["error"], row["accuracy"] + REACH * row["error"]


def difference(run: dict, row: dict) -> Estimate:
    """Return a row's accuracy less its baseline's, with the margin that the baseline's damage gives."""
    baseline = row["baseline"]
    return with_share_of_damage(_less(run, row, baseline), _less(run, run["dense"], baseline))


def _less(run: dict, row: dict, other: dict) -> Estimate:
    value = row["accuracy"] - other["accuracy"]
    reach = REACH * (row["error"] ** 2 + other["error"] ** 2) ** 0.5
    return Estimate(value, value - reach, value + reach, run["items"], UNPAIRED)


def findings() -> dict[str, Estimate]:
    """Return the findings of all runs by others, by `others/<run>_<method>_<percent>`, as the ledger does."""
    compared = [(run, row) for run in runs() for row in run["rows"] if row["baseline"]]
    name = "others/{}_{}_{:.0f}".format
    return {
        name(run["id"], row["baseline"]["method"].lower(), 100 * row["sparsity"]): difference(run, row)
        for run, row in compared
    }

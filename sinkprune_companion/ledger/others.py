"""What others measured at 8B with the official code, in `data/published.yml`, and findings made of it."""

from dataclasses import replace
from functools import cache

from scipy import stats

from sinkprune.evaluation.intervals import CONFIDENCE, Estimate
from sinkprune_companion.margins import damage_margin, published_numbers, share_that_matters

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
    """Return a row's accuracy less its baseline's, with the margin that the baseline's damage gives.

    Items count as drawn anew for every model, the dense one too, as no answers by item are read here.
    """
    baseline, dense = row["baseline"], run["dense"]
    estimate = _combined(run, {"row": (row, 1), "baseline": (baseline, -1)})

    cost = _combined(run, {"dense": (dense, 1), "baseline": (baseline, -1)})
    margin = damage_margin(cost)
    if margin is None:
        return estimate

    share = share_that_matters()
    ends = [
        _combined(
            run, {"row": (row, 1), "baseline": (baseline, -1 - sign * share), "dense": (dense, sign * share)}
        )
        for sign in (1, -1)
    ]
    above, below = ends
    is_within = below.value < 0 < above.value
    p_matters = max(below.p_value(), above.p_value()) if is_within else 1.0
    return replace(estimate, margin=margin, p_matters=p_matters)


def _combined(run: dict, terms: dict[str, tuple[dict, float]]) -> Estimate:
    """Return a sum of accuracies, each with its factor, as if all were measured on different items."""
    value = sum(factor * row["accuracy"] for row, factor in terms.values())
    error = sum((factor * row["error"]) ** 2 for row, factor in terms.values()) ** 0.5
    return Estimate(value, value - REACH * error, value + REACH * error, run["items"], UNPAIRED)


def cards() -> dict:
    """Return what model cards say of LLaDA-8B pruned by SparseGPT: `address`, `items` and `rows`."""
    return published_numbers()["cards"]


def findings() -> dict[str, Estimate]:
    """Return the findings of all runs by others, by `others/<run>_<method>_<percent>`, as the ledger does."""
    compared = [(run, row) for run in runs() for row in run["rows"] if row["baseline"]]
    name = "others/{}_{}_{:.0f}".format
    return {
        name(run["id"], row["baseline"]["method"].lower(), 100 * row["sparsity"]): difference(run, row)
        for run, row in compared
    }


# the paper's own table

EVEN = 0.5  # share of right answers, of a benchmark that is in the average and not printed: the widest error


def gain_of_paper(table: str, method: str, baseline: str) -> Estimate:
    """Return the published gain of a method in accuracy, with the interval that its numbers of items give.

    In the unit of the table, a mean over its benchmarks. Items count as drawn anew for each model, since no
    answers by item are published: a paired interval would be narrower. Of the eight benchmarks in the average
    of LLaDA-8B two are not printed, and count as right in half of all cases.
    """
    published = published_numbers()
    items_of = published["items"]
    (found,) = [one for one in published["tables"] if one["id"] == table]
    rows = {row["method"]: dict(zip(found["tasks"], row["values"], strict=True)) for row in found["rows"]}
    scale = 100.0 if "percent" in found["unit"] else 1.0

    has_average = "average" in found["tasks"]
    tasks = published["averaged"] if has_average else found["tasks"]
    variance = 0.0
    for task in tasks:
        for name in (method, baseline):
            share = rows[name].get(task, EVEN * scale) / scale
            variance += share * (1 - share) / items_of[task]

    error = scale * variance**0.5 / len(tasks)
    if has_average:
        value = rows[method]["average"] - rows[baseline]["average"]
    else:
        value = sum(rows[method][task] - rows[baseline][task] for task in tasks) / len(tasks)

    items = sum(items_of[task] for task in tasks)
    return Estimate(value, value - REACH * error, value + REACH * error, items, UNPAIRED)

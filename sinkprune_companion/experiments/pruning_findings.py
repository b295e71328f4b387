"""What the scores and answers of notebook 03 come to: differences of variants with the margin of each."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from sinkprune.evaluation.intervals import Estimate, crossed_interval, interval
from sinkprune_companion.experiments.comparisons import COMPARISONS, Compared
from sinkprune_companion.experiments.paired_differences import compare_all, on_common_draws, pivot
from sinkprune_companion.experiments.pruning_grid import SPARSITY, UNSTRUCTURED
from sinkprune_companion.margins import beside_damage
from sinkprune_core.pruning.patterns import n_and_m

Place = tuple[str, float]  # pattern and sparsity
DENSE = ("dense", 0.0)
BOUNDS = ("value", "low", "high")
DIGITS = 9  # of a difference in points: what is behind them is rounding


def at(place: Place, variant: str) -> dict[str, object]:
    """Return the columns with their values that name a variant at a place; `dense` has one place."""
    pattern, sparsity = DENSE if variant == "dense" else place
    return {"variant": variant, "pattern": pattern, "sparsity": sparsity}


def sides(place: Place, compared: Compared) -> list[dict[str, object]]:
    """Return the columns with their values of variant, other and dense model."""
    return [at(place, variant) for variant in (compared.variant, compared.other, "dense")]


def suffix(place: Place) -> str:
    """Return how findings at a place end: none at SPARSITY, else the percentage or the pattern."""
    pattern, sparsity = place
    if n_and_m(pattern):
        return f"_{pattern.replace(':', '_')}"
    return "" if place == (UNSTRUCTURED, SPARSITY) else f"_{100 * sparsity:.0f}"


def heading(place: Place) -> str:
    """Return what figures and tables call a place."""
    pattern, sparsity = place
    return pattern if n_and_m(pattern) else f"{pattern}, {sparsity:.0%}"


def costs(scores: pd.DataFrame) -> dict[tuple[Place, str], Estimate]:
    """Return what every variant costs above the dense model, by its place and name."""
    measured = scores[["pattern", "sparsity", "variant"]].drop_duplicates().itertuples(index=False, name=None)
    pruned = [((pattern, sparsity), variant) for pattern, sparsity, variant in measured if variant != "dense"]
    return compare_all(
        scores, {(place, variant): (at(place, variant), at(place, "dense")) for place, variant in pruned}
    )


def excess(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the NELBO of every variant, its `recipe`, above that of the dense model, a row each."""
    rows = []
    for (place, variant), cost in costs(scores).items():
        bounds = [cost.value, cost.low, cost.high]
        shown = f"{cost.value:.3g} [{cost.low:.3g}, {cost.high:.3g}]"
        rows.append([*place, heading(place), variant, *bounds, shown])

    return pd.DataFrame(rows, columns=["pattern", "sparsity", "panel", "recipe", *BOUNDS, "shown"])


def places(scores: pd.DataFrame) -> list[Place]:
    """Return every pattern and sparsity at which something was measured, in order, without the dense one."""
    measured = scores[["pattern", "sparsity"]].drop_duplicates().itertuples(index=False, name=None)
    return [place for place in measured if place != DENSE]


def differences(
    scores: pd.DataFrame, place: Place, comparisons: Mapping[str, Compared] = COMPARISONS
) -> dict[str, Estimate]:
    """Return the differences at a place with their margins, by comparison; without what was not measured."""
    return compare_all(scores, {name: sides(place, compared) for name, compared in comparisons.items()})


def likelihood_findings(
    scores: pd.DataFrame, comparisons: Mapping[str, Compared] = COMPARISONS
) -> dict[str, Estimate]:
    """Return every difference of losses as a finding, at all places."""
    return {
        name + suffix(place): estimate
        for place in places(scores)
        for name, estimate in differences(scores, place, comparisons).items()
    }


def answer_findings(
    by_template: pd.DataFrame, sparsities: Sequence[float], what: str, comparisons: Mapping[str, Compared]
) -> dict[str, Estimate]:
    """Return differences of points or of margins as findings `{what}_{comparison}_{percent}_{benchmark}`.

    Above zero the first variant is better. The damage that sets a margin is what the second one loses.
    """
    findings = {}
    for sparsity in sparsities:
        for benchmark, part in by_template.groupby("benchmark", sort=False):
            for name, compared in comparisons.items():
                values = on_common_draws(part, *sides((UNSTRUCTURED, sparsity), compared))
                if values is None:
                    continue

                variant_RN, other_RN, dense_RN = values
                estimate = beside_damage(variant_RN - other_RN, dense_RN - other_RN)
                # right answers are counts: an interval that ends at -1e-16 ends at zero
                bounds = {bound: round(getattr(estimate, bound), DIGITS) + 0.0 for bound in BOUNDS}
                finding = f"{what}_{name}_{100 * sparsity:.0f}_{benchmark}"
                findings[finding] = replace(estimate, **bounds)

    return findings


def shares_right(by_template: pd.DataFrame) -> pd.DataFrame:
    """Return right answers in percent with intervals: a row per variant, a column per benchmark and place."""
    rows = defaultdict(dict)
    columns = ["variant", "benchmark", "sparsity"]
    for (variant, benchmark, sparsity), part in by_template.groupby(columns, sort=False):
        share = crossed_interval(pivot(part))
        column = (benchmark, "dense" if variant == "dense" else f"{sparsity:.0%}")
        rows[variant][column] = f"{share.value:.1f} [{share.low:.1f}, {share.high:.1f}]"

    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def mask_findings(masks: pd.DataFrame) -> dict[str, Estimate]:
    """Return the mean shares of `mask_differences` over linear maps as findings, `masks_{other}`."""
    by_mask = masks.pivot(index=["layer", "linear"], columns="other", values="differ")
    names = {other: re.sub("[- ]", "_", other) for other in masks.other.unique()}
    return {f"masks_{name}": interval(by_mask[other]) for other, name in names.items()}

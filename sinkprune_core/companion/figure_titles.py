"""Titles of figures: what each shows, in a sentence computed from its data."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sinkprune_core.companion.phrases import joined, number
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.sinks.detection import STABILITY_THRESHOLD

FAR_ABOVE = ("magnitude", "structured-magnitude", "only-sinks")  # of the rest, and not drawn with it


def sinks_in_words(panels: Sequence[dict]) -> str:
    """Return how many positions are a sink at some step and how many at nearly every step, by model.

    Panels are those of `trajectories.plot_sink_positions`.
    """
    parts = []
    for panel in panels:
        sinks_SK = np.asarray(panel["sinks_SK"])
        seen_K = np.asarray(panel["visible_SK"]).sum(0)
        ever = int(sinks_SK.any(0).sum())
        stable = int((sinks_SK.sum(0) >= STABILITY_THRESHOLD * np.maximum(seen_K, 1)).sum())
        kind = panel["title"].partition(" (")[0]
        parts.append(
            f"{kind}: {ever} positions are a sink at some step, {stable} in at least "
            f"{100 * STABILITY_THRESHOLD:.0f} % of them"
        )
    return "; ".join(parts)


def cost_in_words(excess: pd.DataFrame) -> str:
    """Return what pruning costs at every sparsity, over the recipes that are drawn.

    `excess` is a table of `pruning_findings.excess`. Recipes cost the same where what is
    between them is less than the mean half-width of their intervals.
    """
    drawn = excess[~excess.recipe.isin(FAR_ABOVE)]
    if drawn.empty:
        return "No method was measured that is drawn"
    parts = []
    for sparsity, part in drawn.groupby("sparsity"):
        low, high = part.value.min(), part.value.max()
        width = (part.high - part.low).mean() / 2
        if len(part) == 1 or high - low < width:
            parts.append(f"at {sparsity:.0%} every other method costs about {number(part.value.mean())}")
            continue
        best, worst = part.loc[part.value.idxmin()], part.loc[part.value.idxmax()]
        parts.append(
            f"at {sparsity:.0%} methods cost {number(best.value)} ({best.recipe}) to "
            f"{number(worst.value)} ({worst.recipe})"
        )
    far = excess[excess.recipe.isin(FAR_ABOVE)]
    if len(far):
        lowest = far[far.sparsity == far.sparsity.min()]
        named = [f"{row.recipe} {number(row.value)}" for row in lowest.itertuples()]
        parts.append(f"not drawn at {far.sparsity.min():.0%}: {joined(named)}")
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]} nats per token"


def best_in_words(excess: pd.DataFrame) -> str:
    """Return which recipe costs least in every panel of a table of `pruning_findings.excess`, or that
    recipes are not told apart.
    """
    parts = []
    for panel, part in excess.groupby("panel", sort=False):
        best = part.loc[part.value.idxmin()]
        others = part[part.recipe != best.recipe]
        clear = len(others) and best.high < others.low.min()
        parts.append(f"{panel}: {best.recipe} costs least" + ("" if clear else ", not clearly"))
    return "; ".join(parts)


def signs_in_words(estimates: Mapping[str, Estimate]) -> str:
    """Return how many differences are clearly below zero, clearly above, and neither."""
    below = sum(found.high < 0 for found in estimates.values())
    above = sum(found.low > 0 for found in estimates.values())
    unclear = len(estimates) - below - above
    return f"Clearly below zero: {below} of {len(estimates)} differences; above: {above}; neither: {unclear}"


def steps_in_words(estimates: Mapping[str, Estimate], groups: Mapping[str, str]) -> str:
    """Return who wins in every group of differences, pruned − what it is compared with."""
    parts = []
    for group in dict.fromkeys(groups.values()):
        members = [estimates[label] for label, of in groups.items() if of == group]
        wins = sum(found.high < 0 for found in members)
        losses = sum(found.low > 0 for found in members)
        parts.append(f"at {group} pruning wins {wins} and loses {losses} of {len(members)}")
    said = "; ".join(parts)
    return said[:1].upper() + said[1:]

"""Titles of figures: what each shows, in a sentence computed from its data."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sinkprune_companion.ledger.contrasts import EFFECTS
from sinkprune_companion.pages.phrases import (
    above_and_below,
    by_sign,
    capital,
    joined,
    number,
    share,
)
from sinkprune_core.evaluation.intervals import Estimate, interval
from sinkprune_core.sinks.detection import STABILITY_THRESHOLD

FAR_ABOVE = ("magnitude", "structured-magnitude", "only-sinks")  # of the rest, and not drawn with it
SHORT = {"diffusion": "DLM", "autoregressive": "AR model"}  # what titles call a kind of model
ROUNDING = 1e-9  # relative; two costs that differ by less are equal


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


def moves_in_words(differences: Mapping[str, Estimate | None]) -> str:
    """Return in how many conditions the sinks of the DLM clearly move more than the AR model's, and less.

    `differences` are DLM - AR by condition; None was not measured, and counts as unclear.
    """
    known = [found for found in differences.values() if found is not None]
    more = sum(found.low > 0 for found in known)
    less = sum(found.high < 0 for found in known)
    also = f", less in {less}" if less else ""
    return f"The DLM's sinks move more in {more} of {len(differences)} conditions{also}, literal reading"


def near(excess: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table of `pruning_findings.excess` that are drawn: those not `FAR_ABOVE`."""
    return excess[~excess.recipe.isin(FAR_ABOVE)]


def cost_in_words(excess: pd.DataFrame) -> str:
    """Return what pruning costs at every sparsity, over the recipes that are drawn.

    `excess` is a table of `pruning_findings.excess`. Recipes cost the same where what is
    between them is less than the mean half-width of their intervals.
    """
    drawn = near(excess)
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
    recipes are not told apart; and what those cost that are not drawn.
    """
    parts = []
    for panel, part in excess.groupby("panel", sort=False):
        best = part.loc[part.value.idxmin()]
        others = part[part.recipe != best.recipe]
        clear = len(others) and best.high < others.low.min()
        said = f"{panel}: {best.recipe} costs least" + ("" if clear else ", not clearly")
        far = part[part.recipe.isin(FAR_ABOVE)]
        if len(far):
            said += f" (not drawn: {joined(f'{row.recipe} {number(row.value)}' for row in far.itertuples())})"
        parts.append(said)
    return "; ".join(parts)


def signs_in_words(estimates: Mapping[str, Estimate]) -> str:
    """Return how many differences are clearly below zero, clearly above, and neither."""
    above, below = above_and_below(estimates.values())
    unclear = len(estimates) - below - above
    return f"Clearly below zero: {below} of {len(estimates)} differences; above: {above}; neither: {unclear}"


def steps_in_words(estimates: Mapping[str, Estimate], groups: Mapping[str, str]) -> str:
    """Return who wins in every group of differences, pruned − what it is compared with."""
    parts = []
    for group in dict.fromkeys(groups.values()):
        members = [estimates[label] for label, of in groups.items() if of == group]
        losses, wins = above_and_below(members)
        parts.append(f"at {group} pruning wins {wins} and loses {losses} of {len(members)}")
    said = "; ".join(parts)
    return said[:1].upper() + said[1:]


def filling_in_words(filled: pd.DataFrame) -> str:
    """Return which kind of model fills more masked tokens right at the smallest and at the largest share of
    masks, of what `quality.filling` returns.
    """
    parts = []
    for level in (filled.share.min(), filled.share.max()):
        part = filled[filled.share == level]
        by_kind = part.pivot(index="sequence", columns="kind", values="correct")
        lead = interval(by_kind.diffusion - by_kind.autoregressive)
        compared = by_sign(lead, "more than", "fewer than", "not clearly more or fewer than")
        dlm, ar = by_kind.diffusion.mean(), by_kind.autoregressive.mean()
        parts.append(
            f"with {level:.0%} masked the DLM fills {dlm:.0%} right, {compared} the AR model's {ar:.0%}"
        )
    return capital("; ".join(parts))


def accuracy_in_words(accuracy: pd.DataFrame, chance: float = 0.5) -> str:
    """Return the share of right answers of each model over all items, and in how many groups of items it is
    clearly better than chance. `accuracy` is what `figures.plot_accuracy` takes, with the group `all`.
    """
    parts = []
    for model, part in accuracy.groupby("model", sort=False):
        groups = part[part.group != "all"]
        whole = part[part.group == "all"].value.iloc[0]
        above = int((groups.low > chance).sum())
        parts.append(
            f"{model}: {whole:.0%} of all items right, above chance in {above} of {len(groups)} groups"
        )
    return "; ".join(parts)


def layers_in_words(layers: pd.DataFrame) -> str:
    """Return in how many layers sinks change more in the diffusion model, of `sink_measures.by_layer`."""
    means = layers.groupby(["layer", "kind"])[["overlap", "stable_share"]].mean().unstack()
    count = len(means)
    overlap = int((means.overlap.diffusion < means.overlap.autoregressive).sum())
    stable = int((means.stable_share.diffusion < means.stable_share.autoregressive).sum())
    return (
        f"In {overlap} of {count} layers consecutive sink sets overlap less in the DLM than in the AR model; "
        f"in {stable} of {count} fewer of its sinks are stable"
    )


def heads_in_words(maps: Mapping[str, np.ndarray]) -> str:
    """Return how many times the mean attention the strongest key gets in the median head, by model."""
    parts = [f"{number(float(np.median(map_LH)))} times in the {kind} model" for kind, map_LH in maps.items()]
    return f"In the median head the strongest key gets, of the mean attention, {joined(parts)}"


def hiding_in_words(costs: pd.DataFrame) -> str:
    """Return what hiding the strongest and as many random keys costs each model, at the largest number."""
    most = costs["count"].max()
    parts = []
    for model, part in costs[costs["count"] == most].groupby("model", sort=False):
        value = part.set_index("label").value
        parts.append(f"{model} {number(value.strongest)} (random ones: {number(value.random)})")
    return f"Hiding the {most} strongest keys costs {joined(parts)} nats per token"


def places_in_words(positions: pd.DataFrame, place: str, other: str) -> str:
    """Return in how many cases hiding position 0 costs more than hiding another position.

    `positions` has a row per sequence with `kind`, `what` and a column per hidden position; a case is a model
    in a condition.
    """
    found = [interval(part[place] - part[other]) for _, part in positions.groupby(["kind", "what"])]
    more, less = above_and_below(found)
    return (
        f"Hiding position 0 costs clearly more than hiding a random other one in {more} of {len(found)} "
        f"cases, clearly less in {less}"
    )


def keys_in_words(hidden: pd.DataFrame, rows: str) -> str:
    """Return in how many rows hiding the strongest keys costs each kind of model more than random ones.

    `hidden` has a row per sequence with `kind`, the column `rows`, `strongest` and `random`.
    """
    parts = []
    for kind, of_kind in hidden.groupby("kind", sort=False):
        found = [interval(part.strongest - part.random) for _, part in of_kind.groupby(rows, sort=False)]
        more, less = above_and_below(found)
        parts.append(f"the {SHORT[kind]} in {more} of {len(found)} cases (clearly less in {less})")
    return f"The strongest keys cost clearly more than random ones: {joined(parts)}"


def front_in_words(front: pd.DataFrame, cost: str, words: str) -> str:
    """Return below how many pruned points the dense model lies in steps that cost no more, by their means.

    `front` has `variant`, `excess` and the column `cost`, which `words` names.
    """
    dense = front[front.variant == "dense"]
    pruned = front[front.variant != "dense"]
    if pruned.empty:
        return "Only the dense model was measured"
    beaten = 0
    for row in pruned.itertuples():
        affordable = dense[dense[cost] <= getattr(row, cost) * (1 + ROUNDING)]
        beaten += bool((affordable.excess < row.excess).any())
    points = f"{beaten} of {len(pruned)} pruned points"
    return f"At no more {words} the dense model in fewer steps lies below {points}"


def kinds_in_words(differences: Mapping[str, Estimate | None]) -> str:
    """Return which statistics are clearly higher in the DLM than in the AR model, and which clearly lower."""
    measured = {name: found for name, found in differences.items() if found is not None}
    higher = [name for name, found in measured.items() if found.low > 0]
    lower = [name for name, found in measured.items() if found.high < 0]
    return (
        f"Clearly higher in the DLM than in the AR model: {joined(higher) or 'nothing'}; clearly lower: "
        f"{joined(lower) or 'nothing'}"
    )


def training_in_words(log: pd.DataFrame, losses: Sequence[str]) -> str:
    """Return by how much held-out losses fell between the first and the last row of a training log."""
    fell = [float(log[loss].dropna().iloc[0] - log[loss].dropna().iloc[-1]) for loss in losses]
    if not fell:
        return "The log has no held-out loss"
    return (
        f"Held-out NELBO fell by {number(min(fell))} to {number(max(fell))} nats per token in this training"
    )


def masks_in_words(masks: pd.DataFrame) -> str:
    """Return the mean share of kept weights that differ between the two masks of every pair, in words."""
    (one,) = masks.one.unique()
    means = masks.groupby("other", sort=False).differ.mean()
    parts = [f"{other} {share(mean)}" for other, mean in means.items()]
    return f"Kept weights that differ from those of {one}: {joined(parts)}"


def verdicts_in_words(table: pd.DataFrame) -> str:
    """Return how many effects have which verdict, of a table of `contrasts.judge`."""
    counts = [f"{verdict} {int((table.verdict == verdict).sum())}" for verdict in EFFECTS]
    return f"Of {len(table)} effects: {', '.join(counts)}"


def reach_in_words(found: Mapping[str, Estimate]) -> str:
    """Return what leaving all sinks out changes beside other choices, of `reach_findings`."""
    if not found:
        return "There are no sinks to leave out"
    named = {
        "reach_sinks": "leaving all sinks out",
        "reach_random": "as many random tokens",
        "reach_largest": "as many tokens that change most",
        "reach_other_text": "other text",
    }
    parts = [f"{words} {share(found[name].value)}" for name, words in named.items()]
    return f"Kept weights that change: {', '.join(parts)}"

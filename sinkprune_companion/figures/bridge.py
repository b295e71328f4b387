"""The picture of what the official recipe adds to Wanda: what each of its parts changes, and their sum."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import signed
from sinkprune.evaluation.verdict_rule import HELPS, HURTS, NO_DIFFERENCE, UNDECIDED
from sinkprune.figures.style import canvas, titled
from sinkprune_companion.figures.forests import Judge, handles_of, marks_of
from sinkprune_companion.figures.looks import GREY, METHODS, VERDICTS
from sinkprune_companion.ledger.margins import check_found, known_damage

CAPTION = (
    "From Wanda to the official recipe at 50 and 75 %: what each part of the recipe changes in the loss, and "
    "all of them together, in percent of what Wanda costs, with 95 % intervals"
)
NOTEBOOK = "06"  # the number of the one whose findings these are
STEPS = {  # findings without their sparsity, and what they add to the recipe before them
    "noised_dense_minus_wanda": "noised text and dense propagation",
    "official_levels_minus_grid": "+ the official noise levels",
    "paper_sinks_kept_minus_official_levels": "+ the sum of norms",
    "paper_minus_paper_sinks_kept": "+ the official sink weights",
}
WHOLE = "paper_minus_wanda"
END = "= the official recipe"
SPARSITIES = (50, 75)  # percent
WIDE = (7.0, 2.3)  # inches
NARROW = (3.6, 5.6)
HEIGHT = 0.56  # of a bar, in rows


# the data


def bridge_table(
    estimates: Mapping[str, Estimate],
    judged: Judge,
    sparsities: Sequence[float] = SPARSITIES,
    costs: Mapping[float, float] | None = None,
) -> pd.DataFrame:
    """Return a row per sparsity, in percent, and step: what it changes, in nats, and its verdict.

    The last row of a sparsity is the whole difference, official recipe − Wanda, which the steps add up to.
    `costs` are what Wanda costs at the sparsities, in nats, and stand in the column `cost`; None: what the
    margins of the whole differences are a share of. Verdicts are those that `judged` gives. Raises errors
    that name the findings: KeyError where some are missing, ValueError where one that a cost rests on has no
    margin.
    """
    needed = {f"{NOTEBOOK}/{name}_{sparsity:g}" for name in (*STEPS, WHOLE) for sparsity in sparsities}
    check_found(needed, estimates, "the bridge")

    if costs is None:
        costs = {
            sparsity: known_damage(f"{NOTEBOOK}/{WHOLE}_{sparsity:g}", estimates) for sparsity in sparsities
        }

    rows = []
    found = []
    for sparsity in sparsities:
        for name, words in {**STEPS, WHOLE: END}.items():
            finding = f"{NOTEBOOK}/{name}_{sparsity:g}"
            estimate = estimates[finding]
            rows.append(
                {
                    "sparsity": sparsity,
                    "step": words,
                    "finding": finding,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "margin": estimate.margin,
                    "cost": costs[sparsity],
                    "draws": estimate.draws,
                }
            )
            found.append(estimate)
    return pd.DataFrame(rows).assign(verdict=judged(found))


# the picture


def plot_bridge(table: pd.DataFrame, is_narrow: bool = False) -> Figure:
    """Draw `bridge_table`, a panel per sparsity; `is_narrow` is for a phone, one panel below the other."""
    panels = table.sparsity.nunique()
    shape = (panels, 1) if is_narrow else (1, panels)
    figure, axes = canvas(*shape, NARROW if is_narrow else WIDE, sharex=True)

    for axis, (sparsity, part) in zip(axes.flat, table.groupby("sparsity", sort=False), strict=True):
        _draw_panel(axis, part, is_narrow)
        axis.set_title(f"{sparsity:g} % of the weights zero", fontsize=9)

    _share_limits(axes.flat[0], table, is_narrow)
    words = [
        "change of the loss (% of what Wanda costs): ← better",
        "line: 95 % interval; band: too small to matter",
        "number: the same change in nats per token",
    ]
    wide_words = f"{words[0]}\n{words[1]}; {words[2]}"
    figure.supxlabel("\n".join(words) if is_narrow else wide_words, fontsize=8)

    if not is_narrow:
        axes[0, 0].set_yticks(range(len(STEPS) + 1), [*STEPS.values(), END])
        for axis in axes[0, 1:]:
            axis.set_yticks([])

    return titled(figure, _title(table), handles_of(marks_of(table.verdict), ls="none", ms=6))


def _draw_panel(axis: Axes, part: pd.DataFrame, is_narrow: bool) -> None:
    """Draw the steps of one sparsity as bars from zero, each with its own interval, margin and verdict."""
    percent = 100 / part.cost.iloc[0]
    axis.axvline(0, color=METHODS["wanda"].color, lw=1.2)

    for place, row in enumerate(part.itertuples(index=False)):
        is_whole = row.step == END
        colour = METHODS["paper"].color if is_whole else METHODS["noised-dense"].color
        if not pd.isna(row.margin):  # there is none where what a recipe costs is not told from nothing
            margin = percent * row.margin
            axis.barh(place, 2 * margin, 1.0, -margin, color=GREY, alpha=0.18, lw=0)

        opacity = 0.9 if is_whole else 0.55
        axis.barh(place, percent * row.value, HEIGHT, color=colour, alpha=opacity, lw=0)
        mark = VERDICTS[row.verdict]
        axis.plot([percent * row.low, percent * row.high], [place, place], color=mark["color"], lw=1.3)
        axis.plot(percent * row.value, place, ls="none", ms=5.5, **mark)

        if is_narrow:
            _name(axis, f"{row.step}: {signed(row.value)}", place)
        else:
            beside = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "center", "fontsize": 8}
            axis.text(0.995, place, signed(row.value), **beside)

    if is_narrow:
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)

    axis.set_ylim(len(part) - 0.5, -0.9 if is_narrow else -0.6)
    axis.locator_params(axis="x", nbins=6)
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)


def _share_limits(axis: Axes, table: pd.DataFrame, is_narrow: bool) -> None:
    """Let all panels reach as far as any row does; wide ones have room for numbers at the right."""
    percent = 100 / table.cost
    margins = percent * table.margin.astype(float).fillna(0.0)
    ends = np.concatenate([percent * table.low, percent * table.high, -margins, margins])
    reach = np.ptp(ends)
    axis.set_xlim(ends.min() - 0.05 * reach, ends.max() + (0.05 if is_narrow else 0.3) * reach)


def _name(axis: Axes, words: str, place: int) -> None:
    """Write the name of a row above it."""
    axis.text(0.0, place - 0.48, words, transform=axis.get_yaxis_transform(), va="center", fontsize=9)


def _title(table: pd.DataFrame) -> str:
    """Return the title: what the picture says, as long as its verdicts say so."""
    by_step = table.set_index(["sparsity", "step"]).verdict.to_dict()
    noised, levels, norms, sinks = STEPS.values()
    expected = {(75, noised): HELPS, (75, levels): HURTS, (75, norms): HELPS, (75, sinks): NO_DIFFERENCE}
    is_so = all(by_step.get(place) == verdict for place, verdict in expected.items())
    others_at_50 = {by_step.get((50, step)) for step in (noised, levels, norms, END)}

    if is_so and others_at_50 == {UNDECIDED} and by_step.get((50, sinks)) == NO_DIFFERENCE:
        return (
            "At 75 % noised text with dense propagation helps. The official noise levels hurt, and adding up "
            "norms takes a part of that back. The sink weights do not matter. At 50 % the sink weights alone "
            "are decided: they do not matter there either"
        )

    return "From Wanda to the official recipe: what each part changes"

"""The picture of the way from Wanda to the official recipe: one part after the other, what each adds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import signed
from sinkprune.evaluation.verdict_rule import HELPS, NO_DIFFERENCE
from sinkprune.figures.style import canvas, titled
from sinkprune_companion.figures.forests import Judge
from sinkprune_companion.figures.looks import GREY, INK, METHODS, VERDICTS

CAPTION = (
    "From Wanda to the official recipe at 50 and 75 %: what each part of the recipe changes in the loss, "
    "with 95 % intervals"
)
NOTEBOOK = "06"  # the number of the one whose findings these are
STEPS = {  # findings without their sparsity, and what they add to the recipe before them
    "noised_dense_minus_wanda": "+ noised text and dense propagation",
    "official_levels_minus_grid": "+ the official noise levels",
    "paper_sinks_kept_minus_official_levels": "+ the sum of norms",
    "paper_minus_paper_sinks_kept": "+ official sink weights",
}
WHOLE = "paper_minus_wanda"
START = "Wanda"
END = "= the official recipe"
SPARSITIES = (50, 75)  # percent
WIDE = (7.0, 2.6)  # inches
NARROW = (3.6, 6.0)
HEIGHT = 0.56  # of a bar, in rows


# the data


def bridge_table(
    estimates: Mapping[str, Estimate], judged: Judge, sparsities: Sequence[float] = SPARSITIES
) -> pd.DataFrame:
    """Return a row per sparsity, in percent, and step: where it begins (`start`), what it adds, its verdict.

    The last row of a sparsity is the whole difference, official recipe − Wanda, which the steps add up to.
    Verdicts are those that `judged` gives. Raises KeyError, which names them, where findings are
    missing.
    """
    needed = {f"{NOTEBOOK}/{name}_{sparsity:g}" for name in (*STEPS, WHOLE) for sparsity in sparsities}
    missing = sorted(needed - estimates.keys())
    if missing:
        raise KeyError(f"the bridge needs findings that are not published: {', '.join(missing)}")

    rows = []
    found = []
    for sparsity in sparsities:
        start = 0.0
        for name, words in {**STEPS, WHOLE: END}.items():
            finding = f"{NOTEBOOK}/{name}_{sparsity:g}"
            estimate = estimates[finding]
            rows.append(
                {
                    "sparsity": sparsity,
                    "step": words,
                    "finding": finding,
                    "start": 0.0 if name == WHOLE else start,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "margin": estimate.margin,
                    "draws": estimate.draws,
                }
            )
            found.append(estimate)
            start += estimate.value
    return pd.DataFrame(rows).assign(verdict=judged(found))


# the picture


def plot_bridge(table: pd.DataFrame, is_narrow: bool = False) -> Figure:
    """Draw `bridge_table`, a panel per sparsity; `is_narrow` is for a phone, one panel below the other."""
    panels = table.sparsity.nunique()
    shape = (panels, 1) if is_narrow else (1, panels)
    figure, axes = canvas(*shape, NARROW if is_narrow else WIDE)

    for axis, (sparsity, part) in zip(axes.flat, table.groupby("sparsity", sort=False), strict=True):
        _draw_panel(axis, part, is_narrow)
        axis.set_title(f"{sparsity:g} % of the weights zero", fontsize=9)

    words = [
        "loss above Wanda's (nats per token)",
        "line: 95 % of that step alone",
        "band: too close to Wanda to matter",
    ]
    figure.supxlabel(("\n" if is_narrow else "; ").join(words), fontsize=9 if is_narrow else 8)

    if not is_narrow:
        axes[0, 0].set_yticks(range(len(STEPS) + 2), [START, *STEPS.values(), END])
        for axis in axes[0, 1:]:
            axis.set_yticks([])

    return titled(figure, _title(table), _handles(table))


def _draw_panel(axis: Axes, part: pd.DataFrame, is_narrow: bool) -> None:
    """Draw the steps of one sparsity as floating bars, each from where the one above it ends."""
    margin = part.margin.iloc[-1]
    if pd.isna(margin):  # what Wanda costs is not told from nothing
        margin = 0.0
    axis.axvspan(-margin, margin, color=GREY, alpha=0.18, lw=0)
    axis.axvline(0, color=INK, lw=0.8)
    axis.plot(0, 0, ls="none", marker=METHODS["wanda"].marker, color=METHODS["wanda"].color, ms=7)

    ends = part.start + part.value
    for place, row in enumerate(part.itertuples(index=False), 1):
        is_whole = row.step == END
        end = row.start + row.value
        colour = METHODS["paper"].color if is_whole else METHODS["noised-dense"].color
        axis.barh(place, row.value, HEIGHT, row.start, color=colour, alpha=0.9 if is_whole else 0.55, lw=0)
        axis.plot([row.start + row.low, row.start + row.high], [place, place], color=INK, lw=1.3)
        axis.plot(end, place, ls="none", ms=6, **VERDICTS[row.verdict])
        before = row.start
        axis.plot([before, before], [place - 1 + HEIGHT / 2, place - HEIGHT / 2], color=GREY, lw=0.7)
        if is_narrow:
            _name(axis, f"{row.step}: {signed(row.value)}", place)
    if is_narrow:
        _name(axis, START, 0)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)

    reached = np.concatenate([part.start + part.low, part.start + part.high, ends, [-margin, margin]])
    room = 0.06 * np.ptp(reached)
    axis.set(xlim=(reached.min() - room, reached.max() + room), ylim=(len(part) + 0.5, -0.9))
    axis.locator_params(axis="x", nbins=5)
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)


def _name(axis: Axes, words: str, place: int) -> None:
    """Write the name of a row above it."""
    axis.text(0.0, place - 0.48, words, transform=axis.get_yaxis_transform(), va="center", fontsize=9)


def _title(table: pd.DataFrame) -> str:
    """Return the title: what the picture says, as long as its verdicts say so."""
    at_75 = table[table.sparsity == 75].set_index("step").verdict
    sinks = table[table.step == STEPS["paper_minus_paper_sinks_kept"]].verdict
    gains = at_75.get(STEPS["noised_dense_minus_wanda"]) == HELPS

    if gains and (sinks == NO_DIFFERENCE).all():
        return (
            "At 75 % the gain is that of noised text and dense propagation; leaving sinks out changes "
            "nothing that matters"
        )

    return "From Wanda to the official recipe, one part after the other"


def _handles(table: pd.DataFrame) -> list[Line2D]:
    """Return the entries of the legend: verdicts that occur."""
    occur = set(table.verdict)
    marks = {verdict: mark for verdict, mark in VERDICTS.items() if verdict in occur}
    return [Line2D([], [], ls="none", ms=6, label=verdict, **mark) for verdict, mark in marks.items()]

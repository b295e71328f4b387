"""Figures that set the two kinds of model side by side, row by row: readings of a step, or conditions.

A figure takes a table and knows nothing of its origin. Bars are 95 % intervals.
"""

import textwrap
from collections.abc import Collection
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkprune_companion.figures.style import KIND, bars, canvas, reaches_far, spread_out, titled_legend
from sinkprune_core.evaluation.intervals import Estimate, interval


class Metric(NamedTuple):
    """How a column of a table is drawn."""

    label: str  # of its panel, with units
    linear: float | None = None  # the axis is logarithmic beyond this, where values reach far; None: linear


def plot_by_row(
    frame: pd.DataFrame,
    row: str,
    metrics: dict[str, Metric],
    title: str,
    unit: str = "prompts",
    sharex: bool = False,
) -> Figure:
    """Draw one panel per metric, one row per value of the column `row`, and both kinds of model in each.

    `frame` has a line per unit (a prompt or sequence) with `kind`, `row` and a column per metric. NaN is left
    out; a kind without two values in a row is not drawn there. `sharex` gives all panels one axis.
    """
    rows = frame[row].drop_duplicates().tolist()
    size = (2.6 + 2.3 * len(metrics), 1.3 + 0.4 * len(rows))
    figure, axes = canvas(1, len(metrics), size, sharey=True, sharex=sharex)
    for axis, (column, metric) in zip(axes[0], metrics.items(), strict=True):
        for place, name in enumerate(rows):
            _draw_row(axis, place, frame[frame[row] == name], column)
        if metric.linear is not None and reaches_far(frame[column].dropna(), metric.linear):
            axis.set_xscale("symlog", linthresh=metric.linear)
            if frame[column].min() >= 0:
                axis.set_xlim(left=0)
        axis.set_title(metric.label, fontsize=8.5)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(range(len(rows)), [textwrap.fill(name, 34) for name in rows], fontsize=8)
        axis.tick_params(axis="x", labelsize=7.5)
    handles = [
        Line2D([], [], color=kind.colour, marker=kind.marker, label=kind.name) for kind in KIND.values()
    ]
    titled_legend(figure, handles, title=title)
    figure.supxlabel(f"points: mean over {unit}; bars: 95 % interval", fontsize=8)
    return figure


def _draw_row(axis: Axes, place: int, part: pd.DataFrame, column: str) -> None:
    """Draw the mean and interval of one column for each kind, one above the other."""
    for number, (kind, (colour, marker, _)) in enumerate(KIND.items()):
        values = part.loc[part.kind == kind, column].dropna()
        if len(values) < 2:
            continue
        found = interval(values)
        below, above = bars(found.value, found.low, found.high)
        axis.errorbar(
            found.value,
            place + spread_out(number, len(KIND), 0.26),
            xerr=[[below], [above]],
            color=colour,
            marker=marker,
            ms=5,
            capsize=2.5,
        )


def who_moves_more(differences: dict[str, Estimate | None], settling: Collection[str]) -> str:
    """Return one or two sentences on differences of temporal variance, diffusion − autoregressive, by
    reading.

    `settling` names the readings in which a causal step keeps what all older queries gave, undivided. The
    second sentence, which gives them as the reason, comes where they are just the readings in which the
    diffusion model moves more.
    """
    measured = {name: found for name, found in differences.items() if found is not None}
    more = [name for name, found in measured.items() if found.low > 0]
    less = [name for name, found in measured.items() if found.high < 0]
    unclear = len(differences) - len(more) - len(less)
    counts = f"diffusion {len(more)}, autoregressive {len(less)}, unclear {unclear}"
    said = f"Whose sinks move more depends on the reading ({counts} of {len(differences)})."
    if len(more) == len(differences):
        said = f"The diffusion model's sinks move more in all {len(more)} readings."
    elif len(less) == len(differences):
        said = f"The autoregressive model's sinks move more in all {len(less)} readings."
    elif not more and not less:
        said = f"In none of {len(differences)} readings is it clear whose sinks move more."
    if more and set(more) == set(settling) and len(more) < len(differences):
        said += (
            " The diffusion model's do just where a causal step keeps what all older queries gave, undivided:"
            " such a sum can only settle."
        )
    return said

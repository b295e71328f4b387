"""Figures with a row per effect, method or condition; bars are 95 % intervals.

A figure takes a table and knows nothing of its origin.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkprune_companion.figures.figures import intervals
from sinkprune_companion.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SERIES,
    bars,
    canvas,
    linear_part,
    series,
    spread_out,
    titled,
    titled_legend,
)
from sinkprune_companion.ledger.contrasts import HELPS, HURTS
from sinkprune_companion.ledger.verdict_rule import NO_DIFFERENCE, TOO_FEW_DRAWS, UNDECIDED
from sinkprune_companion.numbers import signed_interval
from sinkprune_core.evaluation.intervals import Estimate

EFFECT_MARKS = {
    HELPS: (BLUE, "<"),
    HURTS: (RED, ">"),
    NO_DIFFERENCE: (GREEN, "D"),
    UNDECIDED: (ORANGE, "o"),
    TOO_FEW_DRAWS: (GREY, "v"),
}
OPEN = (UNDECIDED, TOO_FEW_DRAWS)  # verdicts whose marks are not filled
MONOSPACED = "DejaVu Sans Mono"
ARROW_LEFT = 4  # matplotlib's numbers of markers
ARROW_RIGHT = 5
REACH = 4  # times the median of how far intervals reach: what goes further is cut


def plot_forest(
    estimates: dict[str, Estimate],
    xlabel: str,
    groups: dict[str, str] | None = None,
    title: str = "",
) -> Figure:
    """Draw differences as `plot_effects` does, one row each; `groups` maps labels to their section.

    Marks have the colour of their section, and are filled where the interval leaves zero out.
    """
    table = forest_table(estimates).reindex(columns=["comparison", "value", "low", "high"])
    sections = [groups[label] if groups else "" for label in estimates]
    return plot_effects(table.assign(section=sections), xlabel, title)


def plot_effects(table: pd.DataFrame, xlabel: str, title: str = "") -> Figure:
    """Draw effects as `contrasts.judge` returns them: a row each below its section, all below a `title`.

    Where the table has a `verdict`, that is the mark, and the margin is a band. An interval that goes beyond
    REACH times the median of what intervals reach ends in an arrow; its numbers stand at the right like all
    others.
    """
    has_verdicts = "verdict" in table
    margin = table.margin.max() if has_verdicts and table.margin.notna().any() else 0.0
    ends = table[["low", "high"]].abs().max(axis=1)
    reach = 1.08 * max(min(ends.max(), REACH * ends.median()), margin) if ends.any() else 1.0
    sections = table.section.drop_duplicates().tolist()
    figure, axes = canvas(size=(8.6, 1.3 + 0.26 * (len(table) + len(sections))))
    axis = axes[0, 0]
    if margin:
        axis.axvspan(-margin, margin, color=GREEN, alpha=0.1, lw=0)
    axis.axvline(0, color=BLACK, lw=0.9)
    labels = []
    headings = []
    for place, (section, part) in enumerate(table.groupby("section", sort=False)):
        if section:
            headings.append(len(labels))
            labels.append(section)
        for effect in part.itertuples():
            colour, marker = SERIES[1 + place % (len(SERIES) - 1)][:2]
            is_filled = effect.low > 0 or effect.high < 0
            if has_verdicts:
                colour, marker = EFFECT_MARKS[effect.verdict]
                is_filled = effect.verdict not in OPEN
            _draw_effect(axis, len(labels), effect, reach, (colour, marker, is_filled))
            labels.append(effect.comparison)
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    for row in headings:
        axis.get_yticklabels()[row].set_fontweight("bold")
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set(xlim=(-reach, reach), ylim=(len(labels) - 0.5, -0.7))
    _explain(figure, axis, f"{xlabel}\n← better; bars: 95 % interval", title, margin, has_verdicts)
    return figure


def _explain(figure: Figure, axis: Axes, words: str, title: str, margin: float, has_verdicts: bool) -> None:
    """Say below the axis and above it how a figure of effects is read."""
    if margin:
        words += f"; band: ± {margin:.2g}, too small to matter"
    if not has_verdicts:
        axis.set_xlabel(f"{words}; open: zero inside it; arrows: goes on", fontsize=8)
        titled(figure, title)
        return
    axis.set_xlabel(f"{words}; arrows: goes on", fontsize=8)
    handles = []
    for verdict, (colour, marker) in EFFECT_MARKS.items():
        inside = "white" if verdict in OPEN else colour
        handles.append(Line2D([], [], color=colour, marker=marker, mfc=inside, label=verdict))
    titled_legend(figure, handles, title=title)


def _draw_effect(axis: Axes, row: int, effect: object, reach: float, look: tuple[str, str, bool]) -> None:
    """Draw one row of `plot_effects`: interval, arrows where it goes beyond `reach`, mark and numbers."""
    colour, marker, is_filled = look
    low, value, high = np.clip([effect.low, effect.value, effect.high], -reach, reach)
    axis.plot([low, high], [row, row], color=colour, lw=1.5)
    if effect.low < -reach:
        axis.plot(-reach, row, marker=ARROW_LEFT, color=colour, ms=7, clip_on=False)
    if effect.high > reach:
        axis.plot(reach, row, marker=ARROW_RIGHT, color=colour, ms=7, clip_on=False)
    if abs(effect.value) <= reach:
        inside = colour if is_filled else "white"
        axis.plot(value, row, marker, color=colour, ms=6, mfc=inside, gid="effect")
    axis.text(
        1.025,
        row,
        signed_interval(effect.value, effect.low, effect.high),
        transform=axis.get_yaxis_transform(),
        va="center",
        fontsize=7.5,
        family=MONOSPACED,
    )


def plot_rows(
    frame: pd.DataFrame,
    panel: str,
    row: str,
    xlabel: str,
    title: str = "",
    hue: str | None = None,
    sharex: bool = True,
) -> Figure:
    """Draw `value` with 95 % intervals (`low`, `high`): a panel per value of one column, a row per value of
    another, below a `title` in words.

    Rows have one mark per value of `hue` (None: one, drawn by the row), as in `style`. A row that a panel
    lacks stays empty, and so does the one panel of a table without rows, which a cell of a sweep may have.
    """
    panels = frame[panel].drop_duplicates().tolist() or ["nothing measured"]
    rows = frame[row].drop_duplicates().tolist()
    names = frame[hue].drop_duplicates().tolist() if hue else []
    size = (1.6 + 2.2 * len(panels), 1.2 + (0.4 if hue else 0.28) * len(rows))
    figure, axes = canvas(1, len(panels), size, sharex=sharex, sharey=True)
    for axis, head in zip(axes[0], panels, strict=True):
        part = frame[frame[panel] == head]
        for mark in part.to_dict("records"):
            place = rows.index(mark[row])
            number = names.index(mark[hue]) if hue else place
            colour, marker, _ = series(mark[hue or row], number)
            moved = spread_out(number, len(names), 0.26) if hue else 0.0
            below, above = bars(mark["value"], mark["low"], mark["high"])
            style = {"color": colour, "marker": marker, "ms": 5, "capsize": 2.5}
            axis.errorbar(mark["value"], place + moved, xerr=[[below], [above]], **style)
        linear = linear_part((frame if sharex else part).value)
        if hue and linear:
            axis.set_xscale("symlog", linthresh=linear)
        else:
            axis.locator_params(axis="x", nbins=4)
        axis.set(ylim=(max(1, len(rows)) - 0.5, -0.5))
        axis.set_title(head, fontsize=8.5)
        axis.set_yticks(range(len(rows)), [textwrap.fill(str(name), 34) for name in rows], fontsize=8)
    figure.supxlabel(f"{xlabel}\nbars: 95 % interval", fontsize=8)
    looks = [(series(name, number), name) for number, name in enumerate(names)]
    if looks:
        handles = [Line2D([], [], color=look.colour, marker=look.marker, label=name) for look, name in looks]
        titled_legend(figure, handles, title=title)
    else:
        titled(figure, title)
    return figure


def plot_by_row(
    frame: pd.DataFrame, row: str, metrics: dict[str, str], title: str, sharex: bool = False
) -> Figure:
    """Draw one panel per metric, one row per value of the column `row`, and both kinds of model in each.

    `frame` has a line per unit (a prompt or sequence) with `kind`, `row` and a column per metric; `metrics`
    maps columns to axis labels with units. `sharex` gives all panels one axis.
    """
    parts = []
    for column, label in metrics.items():
        parts.append(intervals(frame, [row, "kind"], column).assign(metric=label))
    means = pd.concat(parts, ignore_index=True)
    return plot_rows(means, "metric", row, "points: means", title, hue="kind", sharex=sharex)


def forest_table(estimates: dict[str, Estimate]) -> pd.DataFrame:
    """Return the data of a forest plot, a row per estimate.

    Columns: `comparison`, `value`, `low`, `high`, `sequences`, `interval` (how it was made).
    """
    rows = []
    for label, estimate in estimates.items():
        row = {
            "comparison": label,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "sequences": estimate.units,
            "interval": estimate.method,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def listed(estimates: dict[str, Estimate | None], **columns: object) -> pd.DataFrame:
    """Return findings to read, a row each: the name in words, the mean with its interval, and further
    `columns`.

    Names wrap where they are printed, intervals do not. `columns` have a value per finding.
    """
    numbers = [str(estimate).replace(", ", ",\N{NO-BREAK SPACE}") for estimate in estimates.values()]
    return pd.DataFrame(
        {"mean [95 % interval]": numbers, **columns},
        index=pd.Index([name.replace("_", " ") for name in estimates], name="finding"),
    )

"""Figures with a row per effect, method or condition; bars are 95 % intervals.

A figure takes a table and knows nothing of its origin.
"""

import textwrap
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
    bars,
    canvas,
    linear_part,
    series,
    spread_out,
    titled,
    titled_legend,
)
from sinkprune_companion.ledger.contrasts import HELPS, HURTS, fields_of, verdicts_on_losses
from sinkprune_companion.ledger.verdict_rule import NO_DIFFERENCE, TOO_FEW_DRAWS, UNDECIDED
from sinkprune_companion.numbers import signed_interval
from sinkprune_core.evaluation.intervals import Estimate


class Look(NamedTuple):
    """How one row is drawn."""

    colour: str
    marker: str
    inside: str  # colour inside the mark


EFFECT_MARKS = {
    HELPS: Look(BLUE, "<", BLUE),
    HURTS: Look(RED, ">", RED),
    NO_DIFFERENCE: Look(GREEN, "D", GREEN),
    UNDECIDED: Look(ORANGE, "o", "white"),
    TOO_FEW_DRAWS: Look(GREY, "v", "white"),
}
MONOSPACED = "DejaVu Sans Mono"
ARROW_LEFT = 4  # matplotlib's numbers of markers
ARROW_RIGHT = 5
REACH = 3  # times the interval that reaches second furthest: what goes further is cut


def plot_forest(
    estimates: dict[str, Estimate],
    xlabel: str,
    groups: dict[str, str] | None = None,
    title: str = "",
) -> Figure:
    """Draw differences as `plot_effects` does, one row each; `groups` maps labels to their section.

    Without verdicts, see `forest_table`, a mark is filled where the interval leaves zero out.
    """
    sections = [groups[label] if groups else "" for label in estimates]
    return plot_effects(forest_table(estimates).assign(section=sections), xlabel, title)


def plot_effects(table: pd.DataFrame, xlabel: str, title: str = "") -> Figure:
    """Draw effects as `contrasts.judge` returns them: a row each below its section, all below a `title`.

    Where the table has a `verdict`, that is the mark, and every row has its margin as a band. The first row,
    the headline, is never cut. An interval that goes beyond REACH times the second furthest ends in an arrow;
    its numbers stand at the right like all others.
    """
    has_verdicts = "verdict" in table
    margins = sorted(set(table.margin.dropna())) if has_verdicts else []
    looks = []
    for effect in table.itertuples():
        is_filled = effect.low > 0 or effect.high < 0
        if has_verdicts:
            looks.append(EFFECT_MARKS[effect.verdict])
        else:
            looks.append(Look(BLUE, "o", BLUE if is_filled else "white"))
    figure, axis = _rows_canvas(table)
    reach = _reach(table, max(margins, default=0.0))
    axis.set_xlim(-reach, reach)
    axis.locator_params(axis="x", nbins=6)
    _draw_table(axis, table if has_verdicts else table.assign(margin=float("nan")), looks)
    words = f"{xlabel}\n← better; bars: 95 % interval"
    if margins:
        sizes = " to ".join(dict.fromkeys(f"{margin:.2g}" for margin in (margins[0], margins[-1])))
        words += f"; band: ± {sizes}, too small to matter"
    axis.set_xlabel(words if has_verdicts else f"{words}; open: zero inside it", fontsize=8.5)
    present = [verdict for verdict in EFFECT_MARKS if has_verdicts and (table.verdict == verdict).any()]
    _title(figure, {verdict: EFFECT_MARKS[verdict] for verdict in present}, title)
    return figure


def plot_costs(table: pd.DataFrame, xlabel: str, title: str = "") -> Figure:
    """Draw costs in the way of `plot_effects`: rows that follow each other may share the name `comparison`.

    The mark is that of the row's `kind`, as in `style`.
    """
    named = table.comparison.where(table.comparison != table.comparison.shift(), "")
    table = table.assign(section="", margin=float("nan"))
    looks = [_look_of_kind(kind) for kind in table.kind]
    figure, axis = _rows_canvas(table)
    axis.set_xlim(min(0.0, 1.05 * table.low.min()), 1.05 * table.high.max())
    _draw_table(axis, table.assign(comparison=named), looks)
    axis.set_xlabel(f"{xlabel}\nbars: 95 % interval", fontsize=8.5)
    _title(figure, {kind: _look_of_kind(kind) for kind in table.kind.unique()}, title)
    return figure


def _look_of_kind(kind: str) -> Look:
    colour, marker, _ = series(kind, 0)
    return Look(colour, marker, colour)


def _rows_canvas(table: pd.DataFrame) -> tuple[Figure, Axes]:
    """Return an empty figure with a row per effect and one per heading, and its axis with a line at zero."""
    headings = sum(section != "" for section in table.section.unique())
    figure, axes = canvas(size=(8.2, 1.3 + 0.27 * (len(table) + headings)))
    axes[0, 0].axvline(0, color=BLACK, lw=0.9)
    return figure, axes[0, 0]


def _draw_table(axis: Axes, table: pd.DataFrame, looks: list[Look]) -> None:
    """Draw the rows of a table below the headings of their sections."""
    draw_rows(axis, table.assign(look=looks), partial(_draw_effect, axis), size=9)


def draw_rows(axis: Axes, table: pd.DataFrame, draw: Callable[[int, Any], None], size: float) -> None:
    """Draw a row of every entry of a table, by `draw(place, entry)`, below the headings of their sections."""
    labels = []
    headings = []
    for section, part in table.groupby("section", sort=False):
        if section:
            headings.append(len(labels))
            labels.append(section)
        for entry in part.itertuples():
            draw(len(labels), entry)
            labels.append(entry.comparison)
    axis.set_yticks(range(len(labels)), labels, fontsize=size)
    for row in headings:
        axis.get_yticklabels()[row].set_fontweight("bold")
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set_ylim(len(labels) - 0.5, -0.7)


def _title(figure: Figure, legend: dict[str, Look], title: str) -> None:
    """Put title and legend above all rows."""
    if not legend:
        titled(figure, title)
        return
    titled_legend(figure, handles_of(legend), title=title)


def handles_of(legend: dict[str, Look]) -> list[Line2D]:
    """Return the entries of a legend."""
    handles = []
    for label, look in legend.items():
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, mfc=look.inside, label=label))
    return handles


def _reach(table: pd.DataFrame, margin: float) -> float:
    """Return how far the axis goes to both sides of zero."""
    ends = table[["low", "high"]].abs().max(axis=1)
    if not ends.any():
        return 1.0
    furthest, second = ends.nlargest(2).iloc[[0, -1]]
    return 1.08 * max(min(furthest, REACH * second), ends.iloc[0], margin)


def _draw_effect(axis: Axes, row: int, effect: object) -> None:
    """Draw one row: margin, interval, arrows where it goes beyond the axis, mark and numbers."""
    left, right = axis.get_xlim()
    look = effect.look
    if effect.margin > 0:  # there may be none
        axis.barh(row, 2 * effect.margin, 1.0, -effect.margin, color=GREEN, alpha=0.1, lw=0)
    low, value, high = np.clip([effect.low, effect.value, effect.high], left, right)
    axis.plot([low, high], [row, row], color=look.colour, lw=1.5)
    if effect.low < left:
        axis.plot(left, row, marker=ARROW_LEFT, color=look.colour, ms=7, clip_on=False)
    if effect.high > right:
        axis.plot(right, row, marker=ARROW_RIGHT, color=look.colour, ms=7, clip_on=False)
    if left <= effect.value <= right:
        axis.plot(value, row, look.marker, color=look.colour, ms=6, mfc=look.inside)
    axis.text(
        1.025,
        row,
        signed_interval(effect.value, effect.low, effect.high),
        transform=axis.get_yaxis_transform(),
        va="center",
        fontsize=8,
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
            axis.set_xticks([tick for tick in axis.get_xticks() if not 0 < abs(tick) < 8 * linear])
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


def plot_by_row(frame: pd.DataFrame, row: str, metrics: dict[str, str], title: str) -> Figure:
    """Draw one panel per metric, one row per value of the column `row`, and both kinds of model in each.

    `frame` has a line per unit (a prompt or sequence) with `kind`, `row` and a column per metric; `metrics`
    maps columns to axis labels with units.
    """
    parts = []
    for column, label in metrics.items():
        parts.append(intervals(frame, [row, "kind"], column).assign(metric=label))
    means = pd.concat(parts, ignore_index=True)
    return plot_rows(means, "metric", row, "points: means", title, hue="kind", sharex=False)


def plot_units(frame: pd.DataFrame, row: str, xlabel: str, title: str) -> Figure:
    """Draw `value` of every unit as a point, a row per value of a column, and beneath the points their mean
    with its 95 % interval.
    """
    names = frame[row].drop_duplicates().tolist()
    means = intervals(frame, [row], "value").set_index(row)
    figure, axes = canvas(size=(7.6, 1.3 + 0.42 * len(names)))
    axis = axes[0, 0]
    axis.axvline(0, color=BLACK, lw=0.9)
    for place, name in enumerate(names):
        values = frame.value[frame[row] == name]
        heights = place + np.linspace(-0.3, 0.05, len(values))
        axis.plot(values, heights, "o", color=BLUE, ms=3.2, alpha=0.45, mew=0)
        if name in means.index:
            mean = means.loc[name]
            axis.plot([mean.low, mean.high], [place + 0.25] * 2, color=RED, lw=1.6)
            axis.plot(mean.value, place + 0.25, "D", color=RED, ms=5)
    linear = linear_part(frame.value)
    if linear:
        axis.set_xscale("symlog", linthresh=10.0 ** np.ceil(np.log10(linear)), linscale=0.7)
    axis.set_yticks(range(len(names)), names, fontsize=8.5)
    axis.set_ylim(len(names) - 0.5, -0.6)
    axis.set_xlabel(f"{xlabel}\npoints: units; diamonds: means with 95 % intervals", fontsize=8.5)
    titled(figure, title)
    return figure


def forest_table(estimates: dict[str, Estimate]) -> pd.DataFrame:
    """Return the data of a forest plot, a row per estimate.

    Columns: `comparison`, `value`, `low`, `high`, `sequences`, `interval` (how it was made); and where every
    estimate has a margin, `margin` and the `verdict` of its row, with p corrected for all rows (Holm).
    """
    table = pd.DataFrame({"comparison": estimates.keys(), **fields_of(estimates, "value", "low", "high")})
    table = table.assign(
        sequences=[estimate.units for estimate in estimates.values()],
        interval=[estimate.method for estimate in estimates.values()],
    )
    margins = [estimate.margin for estimate in estimates.values()]
    if not estimates or None in margins:
        return table
    return table.assign(margin=margins, verdict=verdicts_on_losses(estimates.values()))


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

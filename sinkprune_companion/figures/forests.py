"""Figures with a row per effect, method or condition; bars are 95 % intervals.

A figure takes a table and knows nothing of its origin.
"""

import textwrap
from collections.abc import Callable
from functools import partial
from typing import Any

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
    MONOSPACED,
    ORANGE,
    RED,
    bars,
    canvas,
    linear_part,
    series,
    spread_out,
    titled,
)
from sinkprune_companion.ledger.contrasts import HELPS, HURTS, fields_of, verdicts_on_losses
from sinkprune_companion.ledger.verdict_rule import NO_DIFFERENCE, TOO_FEW_DRAWS, UNDECIDED
from sinkprune_companion.numbers import signed_interval
from sinkprune_core.evaluation.intervals import Estimate

Mark = dict[str, str]  # how a row is marked, in matplotlib's words
EFFECT_MARKS: dict[str, Mark] = {
    HELPS: {"color": BLUE, "marker": "<"},
    HURTS: {"color": RED, "marker": ">"},
    NO_DIFFERENCE: {"color": GREEN, "marker": "D"},
    UNDECIDED: {"color": ORANGE, "marker": "o", "mfc": "white"},
    TOO_FEW_DRAWS: {"color": GREY, "marker": "v", "mfc": "white"},
}
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
    words = f"{xlabel}\n← better; bars: 95 % interval"
    marks = {}
    if "verdict" in table:
        looks = [EFFECT_MARKS[verdict] for verdict in table.verdict]
        marks = marks_of(table.verdict)
        margins = table.margin.dropna()
        if len(margins):
            sizes = dict.fromkeys(f"{margin:.2g}" for margin in (margins.min(), margins.max()))
            words += f"; band: ± {' to '.join(sizes)}, too small to matter"
    else:
        table = table.assign(margin=float("nan"))
        leaves_zero_out = (table.low > 0) | (table.high < 0)
        inside = np.where(leaves_zero_out, BLUE, "white")
        looks = [{"color": BLUE, "marker": "o", "mfc": colour} for colour in inside]
        words += "; open: zero inside it"
    reach = _reach(table)
    figure = _plot_table(table, looks, (-reach, reach), words, title, marks)
    figure.axes[0].locator_params(axis="x", nbins=6)
    return figure


def plot_costs(table: pd.DataFrame, xlabel: str, title: str = "") -> Figure:
    """Draw costs in the way of `plot_effects`: rows that follow each other may share the name `comparison`.

    The mark is that of the row's `kind`, as in `style`.
    """
    named = table.comparison.where(table.comparison != table.comparison.shift(), "")
    marks = {kind: mark_of(kind, 0) for kind in table.kind.unique()}
    looks = [marks[kind] for kind in table.kind]
    ends = min(0.0, 1.05 * table.low.min()), 1.05 * table.high.max()
    table = table.assign(section="", margin=float("nan"), comparison=named)
    return _plot_table(table, looks, ends, f"{xlabel}\nbars: 95 % interval", title, marks)


def mark_of(name: str, place: int) -> Mark:
    """Return how the rows of a series are marked, which stands at a `place` among all."""
    look = series(name, place)
    return {"color": look["color"], "marker": look["marker"]}


def marks_of(verdicts: pd.Series) -> dict[str, Mark]:
    """Return the marks of all verdicts that occur."""
    return {verdict: mark for verdict, mark in EFFECT_MARKS.items() if verdict in set(verdicts)}


def handles_of(marks: dict[str, Mark]) -> list[Line2D]:
    """Return the entries of a legend."""
    return [Line2D([], [], **mark, label=label) for label, mark in marks.items()]


def _plot_table(
    table: pd.DataFrame,
    looks: list[Mark],
    ends: tuple[float, float],
    xlabel: str,
    title: str,
    marks: dict[str, Mark],
) -> Figure:
    """Draw a row per effect on an axis with these `ends`, above them the title and a legend of `marks`."""
    headings = sum(section != "" for section in table.section.unique())
    figure, axes = canvas(size=(8.2, 1.3 + 0.27 * (len(table) + headings)))
    axis = axes[0, 0]
    axis.axvline(0, color=BLACK, lw=0.9)
    axis.set_xlim(*ends)
    draw_rows(axis, table.assign(look=looks), partial(_draw_effect, axis), size=9)
    axis.set_xlabel(xlabel, fontsize=8.5)
    titled(figure, title, handles_of(marks))
    return figure


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


def _reach(table: pd.DataFrame) -> float:
    """Return how far the axis goes to both sides of zero."""
    ends = table[["low", "high"]].abs().max(axis=1)
    if not ends.any():
        return 1.0
    furthest, second = ends.nlargest(2).iloc[[0, -1]]
    return 1.08 * np.nanmax([min(furthest, REACH * second), ends.iloc[0], table.margin.max()])


def _draw_effect(axis: Axes, row: int, effect: object) -> None:
    """Draw one row: margin, interval, arrows where it goes beyond the axis, mark and numbers."""
    left, right = axis.get_xlim()
    colour = effect.look["color"]
    if effect.margin > 0:  # there may be none
        axis.barh(row, 2 * effect.margin, 1.0, -effect.margin, color=GREEN, alpha=0.1, lw=0)
    low, high = np.clip([effect.low, effect.high], left, right)
    axis.plot([low, high], [row, row], color=colour, lw=1.5)
    if effect.low < left:
        axis.plot(left, row, marker=ARROW_LEFT, color=colour, ms=7, clip_on=False)
    if effect.high > right:
        axis.plot(right, row, marker=ARROW_RIGHT, color=colour, ms=7, clip_on=False)
    if left <= effect.value <= right:
        axis.plot(effect.value, row, ls="none", ms=6, **effect.look)
    numbers = signed_interval(effect.value, effect.low, effect.high)
    beside = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 8, "family": MONOSPACED}
    axis.text(1.025, row, numbers, **beside)


def plot_rows(
    frame: pd.DataFrame, panel: str, row: str, xlabel: str, title: str, hue: str, sharex: bool = True
) -> Figure:
    """Draw `value` with 95 % intervals (`low`, `high`): a panel per value of one column, a row per value of
    another, below a `title` in words.

    Rows have one mark per value of `hue`, as in `style`. A row that a panel lacks stays empty, and so does
    the one panel of a table without rows, which a cell of a sweep may have.
    """
    panels = frame[panel].drop_duplicates().tolist() or ["nothing measured"]
    rows = frame[row].drop_duplicates().tolist()
    names = frame[hue].drop_duplicates().tolist()
    marks = {name: mark_of(name, number) for number, name in enumerate(names)}
    size = (1.6 + 2.2 * len(panels), 1.2 + 0.4 * len(rows))
    figure, axes = canvas(1, len(panels), size, sharex=sharex, sharey=True)
    for axis, head in zip(axes[0], panels, strict=True):
        part = frame[frame[panel] == head]
        for entry in part.to_dict("records"):
            value, name = entry["value"], entry[hue]
            place = rows.index(entry[row]) + spread_out(names.index(name), len(names), 0.26)
            ends = [[end] for end in bars(value, entry["low"], entry["high"])]
            axis.errorbar(value, place, xerr=ends, **marks[name], ms=5, capsize=2.5)
        linear = linear_part((frame if sharex else part).value)
        if linear:
            axis.set_xscale("symlog", linthresh=linear)
            axis.set_xticks([tick for tick in axis.get_xticks() if not 0 < abs(tick) < 8 * linear])
        else:
            axis.locator_params(axis="x", nbins=4)
        axis.set(ylim=(max(1, len(rows)) - 0.5, -0.5))
        axis.set_title(head, fontsize=8.5)
        axis.set_yticks(range(len(rows)), [textwrap.fill(str(name), 34) for name in rows], fontsize=8)
    figure.supxlabel(f"{xlabel}\nbars: 95 % interval", fontsize=8)
    titled(figure, title, handles_of(marks))
    return figure


def plot_by_row(frame: pd.DataFrame, row: str, metrics: dict[str, str], title: str) -> Figure:
    """Draw one panel per metric, one row per value of the column `row`, and both kinds of model in each.

    `frame` has a line per unit (a prompt or sequence) with `kind`, `row` and a column per metric; `metrics`
    maps columns to axis labels with units.
    """
    parts = [
        intervals(frame, [row, "kind"], column).assign(metric=label) for column, label in metrics.items()
    ]
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
    columns = fields_of(estimates, "value", "low", "high", "units", "method", "margin")
    table = pd.DataFrame({"comparison": estimates.keys(), **columns})
    table = table.rename(columns={"units": "sequences", "method": "interval"})
    if not estimates or None in columns["margin"]:
        return table.drop(columns="margin")
    return table.assign(verdict=verdicts_on_losses(estimates.values()))


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

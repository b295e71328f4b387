"""Figures with a row per effect, method or condition; bars are 95 % intervals."""

import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import signed_interval
from sinkprune.evaluation.verdict_rule import TOO_FEW_DRAWS, fields_of, verdicts_on_losses
from sinkprune.figures.style import MONOSPACED, WIDTH, canvas, titled
from sinkprune_companion.figures import figures
from sinkprune_companion.figures.figures import bars, intervals
from sinkprune_companion.figures.looks import BLACK, GREY, INK, KINDS, VERDICTS, series

TICKS = (1, 2, 4, 5, 10)  # how far apart, but for a power of ten: few and short, so that none touch
CAP = 0.24  # rows that the ends of an interval reach up and down: above a mark that hides a short interval
LETTERS = 34  # of a row's name on one line
ONE_PANEL = 6.0  # inches across, of a figure that has one panel of rows
LEGENDS = {**KINDS, TOO_FEW_DRAWS: "too few calibration draws for a verdict"}  # where a label needs words

Marks = dict[str, dict[str, str]]  # how rows are marked, in matplotlib's words, by what a legend calls them
Judge = Callable[[Collection[Estimate]], list[str]]  # verdicts on differences of losses


def plot_forest(estimates: dict[str, Estimate], xlabel: str, title: str = "") -> Figure:
    """Draw differences as `plot_effects` does, one row each, without sections."""
    return plot_effects(forest_table(estimates).assign(section=""), xlabel, title)


def plot_effects(table: pd.DataFrame, xlabel: str, title: str = "") -> Figure:
    """Draw effects as `verdict_rule.judge` returns them, all on one scale: a row each below its section.

    Where the table has a `verdict`, that is the mark, and every row has its margin as a band; else a mark is
    filled where the interval leaves zero out.
    """
    words = f"{xlabel}\nbars: 95 % interval"

    if "verdict" in table:
        marks = marks_of(table.verdict)
        table = table.assign(mark=table.verdict.map(marks))
        margins = table.margin.dropna()
        if len(margins):
            sizes = dict.fromkeys(f"{margin:.2g}" for margin in (margins.min(), margins.max()))
            by_row = ", by row" if len(sizes) > 1 else ""
            words += f"; band: ± {' to '.join(sizes)}{by_row}, too small to matter"

    else:
        marks = {}
        inside = np.where((table.low > 0) | (table.high < 0), INK, "white")
        looks = [{"color": INK, "marker": "o", "mfc": colour} for colour in inside]
        table = table.assign(mark=looks, margin=float("nan"))
        words += "; open: zero inside it"

    figure = _plot_table(table, words, title, marks)
    figure.axes[0].locator_params(axis="x", nbins=4, steps=TICKS, min_n_ticks=3)
    return figure


def plot_costs(table: pd.DataFrame, xlabel: str, title: str = "") -> Figure:
    """Draw costs, each with the mark of its `kind`; rows that follow each other may share a `comparison`,
    whose name stands beside the middle of them.
    """
    groups = (table.comparison != table.comparison.shift()).cumsum()
    names = table.comparison.groupby(groups).first().tolist()
    middles = pd.Series(range(len(table))).groupby(groups.to_numpy()).mean().tolist()

    marks = {kind: _mark_of(kind, 0) for kind in table.kind.unique()}
    drawn = table.assign(section="", margin=float("nan"), comparison="", mark=table.kind.map(marks))

    figure = _plot_table(drawn, f"{xlabel}\nbars: 95 % interval", title, marks)
    figure.axes[0].set_yticks(middles, [_broken(name) for name in names], fontsize=8.5)
    return figure


def _broken(name: object) -> str:
    """Return the name of a row on as many lines as it needs."""
    return textwrap.fill(str(name), LETTERS, break_on_hyphens=False)


def _mark_of(name: str, place: int) -> dict[str, str]:
    """Return how the rows of a series are marked, in matplotlib's words."""
    return {field: series(name, place)[field] for field in ("color", "marker")}


def marks_of(verdicts: pd.Series, marks: Marks = VERDICTS) -> Marks:
    """Return the marks of all verdicts that occur."""
    return {verdict: mark for verdict, mark in marks.items() if verdict in set(verdicts)}


def handles_of(marks: Marks, **look: object) -> list[Line2D]:
    """Return the entries of a legend, in which all marks have one `look` besides."""
    return [Line2D([], [], **look, **mark, label=LEGENDS.get(label, label)) for label, mark in marks.items()]


def _plot_table(table: pd.DataFrame, xlabel: str, title: str, marks: Marks) -> Figure:
    """Draw rows with margin, interval, `mark` and numbers, and a legend of `marks`."""
    table = table.assign(comparison=table.comparison.map(_broken))
    lines = len(table) + sum(section != "" for section in table.section.unique())
    lines += 0.5 * table.comparison.str.count("\n").sum()
    figure, [[axis]] = canvas(size=(WIDTH, 1.2 + 0.27 * lines))
    beside = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 7.5, "family": MONOSPACED}

    for place, row in placed(axis, table):
        colour = row.mark["color"]
        if row.margin > 0:  # there may be none
            axis.barh(place, 2 * row.margin, 1.0, -row.margin, color=GREY, alpha=0.2, lw=0)
            sides = [-row.margin, row.margin]
            axis.vlines(sides, place - 0.5, place + 0.5, color=GREY, lw=0.5)  # of a thin band, too

        axis.plot([row.low, row.high], [place, place], color=colour, lw=1.5)
        axis.vlines([row.low, row.high], place - CAP, place + CAP, color=colour, lw=1)
        axis.plot(row.value, place, ls="none", ms=5, **row.mark)
        axis.text(1.025, place, signed_interval(row.value, row.low, row.high), **beside)

    axis.axvline(0, color=BLACK, lw=0.9)
    axis.set_xlabel(xlabel, fontsize=8.5)
    return titled(figure, title, handles_of(marks))


def placed(axis: Axes, table: pd.DataFrame) -> list[tuple[int, Any]]:
    """Name the rows of an axis after those of a table, below headings of their sections; return both."""
    labels, headings, rows = [], [], []

    for section, part in table.groupby("section", sort=False):
        if section:
            headings.append(len(labels))
            labels.append(section)
        for row in part.itertuples():
            rows.append((len(labels), row))
            labels.append(row.comparison)

    name_rows(axis, labels, above=0.7)
    for place in headings:
        axis.get_yticklabels()[place].set_fontweight("bold")
    return rows


def name_rows(axis: Axes, names: Sequence[str], above: float) -> None:
    """Name the rows of an axis from its top, below so much room, without ticks and lines of a grid."""
    axis.set_yticks(range(len(names)), names, fontsize=8.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set_ylim(len(names) - 0.5, -above)


def plot_rows(
    frame: pd.DataFrame,
    panel: str,
    row: str,
    xlabel: str,
    title: str,
    hue: str,
    sharex: bool = True,
) -> Figure:
    """Draw `value` with 95 % intervals (`low`, `high`): a panel per value of one column, a row per value of
    another, a mark per value of `hue`. A table without rows, which a cell of a sweep may have, gives a panel.
    """
    panels = frame[panel].drop_duplicates().tolist() or ["nothing measured"]
    rows = frame[row].drop_duplicates().tolist()
    marks = {name: _mark_of(name, place) for place, name in enumerate(frame[hue].drop_duplicates())}

    lines = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / lines)
    size = (WIDTH if columns > 1 else ONE_PANEL, (1.1 + 0.4 * len(rows)) * lines)
    figure, axes = canvas(lines, columns, size, sharex=sharex, sharey=True)

    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()

    for axis, head in zip(axes.flat, panels, strict=False):
        part = frame[frame[panel] == head]
        for order, (of, mark) in enumerate(marks.items()):
            drawn = part[part[hue] == of]
            places = drawn[row].map(rows.index) + 0.26 * (order - (len(marks) - 1) / 2)
            ends = bars(drawn.value, drawn.low, drawn.high)
            axis.errorbar(drawn.value, places, xerr=ends, ls="none", **mark, ms=5, capsize=2.5)

        linear = figures.linear_part((frame if sharex else part).value)
        if linear:
            axis.set_xscale("symlog", linthresh=linear)
            axis.set_xlabel("logarithmic far from 0", fontsize=7.5)
            axis.set_xticks([tick for tick in axis.get_xticks() if not 0 < abs(tick) < 8 * linear])
        else:
            axis.locator_params(axis="x", nbins=4)

        axis.set(ylim=(max(1, len(rows)) - 0.5, -0.5))
        axis.set_title(head, fontsize=8.5)
        axis.set_yticks(
            range(len(rows)),
            [textwrap.fill(str(name), 28, break_on_hyphens=False) for name in rows],
            fontsize=8,
        )

    words = [xlabel] if xlabel else []
    words.append("bars: 95 % interval; without a bar it is narrower than the mark")
    figure.supxlabel("\n".join(words), fontsize=8)
    return titled(figure, title, handles_of(marks))


def plot_lanes(
    frame: pd.DataFrame,
    row: str,
    lane: str,
    margins: dict[tuple[str, str], float | None],
    xlabel: str,
    title: str,
) -> Figure:
    """Draw `value` of every unit as a dot: a row per value of one column, beneath each other in it a lane per
    value of another. `margins` are by row and lane, each a band behind its lane.
    """
    rows = frame[row].drop_duplicates().tolist()
    marks = {name: _mark_of(name, place) for place, name in enumerate(frame[lane].drop_duplicates())}
    figure, [[axis]] = canvas(size=(WIDTH, 1.1 + 0.2 * len(rows) * (len(marks) + 0.6)))
    axis.axvline(0, color=BLACK, lw=0.9)

    for place, name in enumerate(rows):
        for order, (of, mark) in enumerate(marks.items()):
            values = frame.value[(frame[row] == name) & (frame[lane] == of)]
            height = place + 0.8 * ((order + 0.5) / len(marks) - 0.5)
            margin = margins.get((name, of)) or 0.0  # there may be none
            axis.barh(height, 2 * margin, 0.8 / len(marks), -margin, color=GREY, alpha=0.2, lw=0)
            axis.plot(
                values, [height] * len(values), ls="none", ms=5, alpha=0.7, mew=0.5, mec="white", **mark
            )

    ends = [*frame.value, *(side * margin for margin in margins.values() if margin for side in (-1, 1))]
    room = 0.04 * (max(ends) - min(ends))
    axis.set_xlim(min(ends) - room, max(ends) + room)  # a band is not cut at the edge

    name_rows(axis, [_broken(name) for name in rows], above=0.5)
    axis.set_xlabel(f"{xlabel}\ndots: calibration draws; band: too small to matter", fontsize=8.5)
    return titled(figure, title, handles_of(marks, ls="none"))


def plot_by_row(frame: pd.DataFrame, row: str, metrics: dict[str, str], title: str) -> Figure:
    """Draw the means of `metrics`, columns with their labels: a panel per metric, a row per value of `row`, a
    mark per `kind` of model. `frame` has a line per unit (a prompt or sequence).
    """
    parts = {label: intervals(frame, [row, "kind"], column) for column, label in metrics.items()}
    means = pd.concat(parts, names=["metric"]).reset_index("metric")
    return plot_rows(means, "metric", row, "points: means", title, hue="kind", sharex=False)


def plot_units(frame: pd.DataFrame, row: str, xlabel: str, title: str) -> Figure:
    """Draw `value` of every unit, a row per value of a column, and beneath its points their mean."""
    names = frame[row].drop_duplicates().tolist()
    figure, [[axis]] = canvas(size=(WIDTH, 1.3 + 0.42 * len(names)))

    axis.axvline(0, color=BLACK, lw=0.9)
    points = {"color": GREY, "ms": 3.2, "alpha": 0.6, "mew": 0}

    for place, name in enumerate(names):
        values = frame.value[frame[row] == name]
        axis.plot(values, place + np.linspace(-0.3, 0.05, len(values)), "o", **points)

    for mean in intervals(frame, [row], "value").itertuples(index=False):
        place = names.index(mean[0]) + 0.25
        axis.plot([mean.low, mean.high], [place, place], color=BLACK, lw=1.6)
        axis.plot(mean.value, place, "D", color=BLACK, ms=5)

    if linear := figures.linear_part(frame.value):
        end = 10.0 ** np.ceil(np.log10(linear))
        axis.set_xscale("symlog", linthresh=end, linscale=0.7)
        axis.axvspan(-end, end, color=GREY, alpha=0.1, lw=0)
        xlabel += f"\nshaded: linear, up to ± {end:,.0f}; logarithmic beyond"

    axis.set_yticks(range(len(names)), names, fontsize=8.5)
    axis.set_ylim(len(names) - 0.5, -0.6)
    axis.set_xlabel(f"{xlabel}\npoints: prompts; diamonds: means with 95 % intervals", fontsize=8.5)
    return titled(figure, title)


def forest_table(estimates: dict[str, Estimate], judged: Judge = verdicts_on_losses) -> pd.DataFrame:
    """Return the data of a forest plot, a row per estimate; `interval` says how it was made.

    Where every estimate has a margin it has a `verdict` too, by `judged`: what the ledger says of it
    (`Results.on_losses`), or with p corrected for all rows (Holm).
    """
    columns = fields_of(estimates, "value", "low", "high", "units", "method", "margin")
    table = pd.DataFrame({"comparison": estimates.keys(), **columns})
    table = table.rename(columns={"units": "sequences", "method": "interval"})
    if not estimates or None in columns["margin"]:
        return table.drop(columns="margin")
    return table.assign(verdict=judged(estimates.values()))


def listed(estimates: dict[str, Estimate | None], **columns: object) -> pd.DataFrame:
    """Return findings to read: name in words, mean with its interval, which does not wrap, and `columns`."""
    numbers = [str(estimate).replace(", ", ",\N{NO-BREAK SPACE}") for estimate in estimates.values()]
    names = pd.Index([name.replace("_", " ") for name in estimates], name="finding")
    return pd.DataFrame({"mean [95 % interval]": numbers, **columns}, index=names)

"""Figures with a row per effect, method or claim; bars are 95 % intervals.

A figure takes a table and knows nothing of its origin.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkprune_companion.figures.palette import series
from sinkprune_companion.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SERIES,
    Series,
    bars,
    canvas,
    titled,
    titled_legend,
)
from sinkprune_companion.ledger.contrasts import HELPS, HURTS
from sinkprune_companion.ledger.verdict_rule import (
    CONTRADICTED,
    NO_DIFFERENCE,
    NOT_RUN,
    REPRODUCED,
    TOO_FEW_DRAWS,
    UNDECIDED,
)
from sinkprune_companion.numbers import SPACE, p_text, signed_interval
from sinkprune_core.evaluation.intervals import Estimate

VERDICT_MARKS = {
    REPRODUCED: (GREEN, "o"),
    CONTRADICTED: (RED, "X"),
    NO_DIFFERENCE: (BLUE, "D"),
    UNDECIDED: (ORANGE, "s"),
    TOO_FEW_DRAWS: (GREY, "v"),
    NOT_RUN: ("#BBBBBB", "_"),
}
EFFECT_MARKS = {
    HELPS: (BLUE, "<"),
    HURTS: (RED, ">"),
    NO_DIFFERENCE: (GREEN, "D"),
    UNDECIDED: (ORANGE, "o"),
    TOO_FEW_DRAWS: (GREY, "v"),
}
OPEN = (UNDECIDED, TOO_FEW_DRAWS)  # verdicts whose marks are not filled
VERDICT_HEADS = {"control": "control", "question": "our question", "others": "by others"}
MONOSPACED = "DejaVu Sans Mono"
ARROW_LEFT = 4  # matplotlib's numbers of markers
ARROW_RIGHT = 5
REACH = 3  # times the median of how far intervals reach: what goes further is cut in a forest


def plot_forest(
    estimates: dict[str, Estimate],
    xlabel: str,
    groups: dict[str, str] | None = None,
    better: str = "← better",
    title: str = "",
) -> Figure:
    """Draw differences with 95 % intervals against a zero line, one row each; filled where the interval
    leaves zero out.

    `groups` maps labels to the name of their group; each has its own colour and marker. `title` says in words
    what the figure shows. An interval that reaches further than `REACH` times the median of all ends in an
    arrow, with its numbers, so that it does not flatten the rest.
    """
    figure, axes = canvas(size=(6.8, 0.9 + 0.3 * len(estimates)))
    axis = axes[0, 0]
    names = list(dict.fromkeys((groups or {}).values()))
    ends = [max(abs(found.low), abs(found.high)) for found in estimates.values()]
    reach = REACH * float(np.median(ends)) if any(ends) else np.inf
    for row, (label, found) in enumerate(estimates.items()):
        place = names.index(groups[label]) if groups else 0
        if max(abs(found.low), abs(found.high)) > reach:
            _draw_far_difference(axis, row, found, SERIES[1 + place], reach)
        else:
            _draw_difference(axis, row, found, SERIES[1 + place])
    axis.axvline(0, color=BLACK, lw=0.9)
    axis.set_yticks(range(len(estimates)), list(estimates), fontsize=8)
    axis.set_ylim(len(estimates) - 0.5, -0.5)
    explained = f"{better}; bars: 95 % interval, open markers: zero inside it"
    if max(ends, default=0) > reach:
        explained += "; arrows: goes on"
    figure.supxlabel(f"{xlabel}\n{explained}", fontsize=9)  # the axis may be narrower than the words
    if len(names) > 1:
        handles = []
        for name, (colour, marker, _) in zip(names, SERIES[1:], strict=False):
            handles.append(Line2D([], [], color=colour, marker=marker, label=name))
        titled_legend(figure, handles, title=title)
    elif title:
        titled(figure, title)
    return figure


def plot_forest_panels(
    estimates: dict[str, Estimate], xlabel: str, groups: dict[str, str], title: str
) -> Figure:
    """Draw a forest with a panel per group, one below the other, each with an axis of its own.

    Groups of large differences do not flatten those of small ones.
    """
    names = list(dict.fromkeys(groups.values()))
    counts = [sum(group == name for group in groups.values()) for name in names]
    figure, axes = canvas(
        len(names), 1, (6.8, 0.7 + 0.27 * len(groups) + 0.55 * len(names)), height_ratios=counts
    )
    for place, (axis, name) in enumerate(zip(axes[:, 0], names, strict=True)):
        labels = [label for label, group in groups.items() if group == name]
        for row, label in enumerate(labels):
            _draw_difference(axis, row, estimates[label], SERIES[1 + place])
        axis.axvline(0, color=BLACK, lw=0.9)
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.set_title(name, fontsize=8.5)
        axis.locator_params(axis="x", nbins=6)
    explained = "← better; bars: 95 % interval, open markers: zero inside it; axes differ"
    figure.supxlabel(f"{xlabel}\n{explained}", fontsize=9)
    titled(figure, title)
    return figure


def _draw_difference(axis: Axes, row: int, found: Estimate, drawn: Series) -> None:
    """Draw one row of a forest: interval and mean, filled where the interval leaves zero out."""
    clear = found.low > 0 or found.high < 0
    axis.plot([found.low, found.high], [row, row], color=drawn.colour, lw=1.5)
    axis.plot(
        found.value, row, drawn.marker, color=drawn.colour, ms=6, mfc=drawn.colour if clear else "white"
    )


def _draw_far_difference(axis: Axes, row: int, found: Estimate, drawn: Series, reach: float) -> None:
    """Draw one row of a forest that goes beyond ± `reach`: cut there, with an arrow and its numbers."""
    low, value, high = np.clip([found.low, found.value, found.high], -reach, reach)
    clear = found.low > 0 or found.high < 0
    axis.plot([low, high], [row, row], color=drawn.colour, lw=1.5)
    if found.low < -reach:
        axis.plot(-reach, row, marker=ARROW_LEFT, color=drawn.colour, ms=7)
    if found.high > reach:
        axis.plot(reach, row, marker=ARROW_RIGHT, color=drawn.colour, ms=7)
    if abs(found.value) < reach:
        axis.plot(value, row, drawn.marker, color=drawn.colour, ms=6, mfc=drawn.colour if clear else "white")
    side = "right" if found.value > 0 else "left"
    place = 0.96 * reach if side == "right" else -0.96 * reach
    says = signed_interval(found.value, found.low, found.high)
    axis.text(place, row - 0.3, says, fontsize=7, ha=side, va="center", color=drawn.colour)


def plot_effects(table: pd.DataFrame, xlabel: str, title: str = "", reach: float | None = None) -> Figure:
    """Draw effects as `contrasts.judge` returns them: a row each below its section, the mark by verdict, all
    below a `title` in words.

    The margin, where there is one, is a band. The axis ends at `reach` (default: four times the median of
    what intervals reach, or less where all fit); an interval that goes beyond ends in an arrow, and its
    numbers stand at the right like all others.
    """
    ends = table[["low", "high"]].abs().max(axis=1)
    has_margin = table.margin.notna().any()
    margin = table.margin.max() if has_margin else 0.0
    reach = reach or 1.08 * max(min(ends.max(), 4 * ends.median()), margin)
    figure, axes = canvas(size=(8.6, 1.3 + 0.26 * (len(table) + table.section.nunique())))
    axis = axes[0, 0]
    axis.axvspan(-margin, margin, color=GREEN, alpha=0.1, lw=0)
    axis.axvline(0, color=BLACK, lw=0.9)
    labels = []
    headings = []
    for section, part in table.groupby("section", sort=False):
        headings.append(len(labels))
        labels.append(section)
        for effect in part.itertuples():
            _draw_effect(axis, len(labels), effect, reach)
            labels.append(effect.comparison)
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    for row, tick in enumerate(axis.get_yticklabels()):
        tick.set_fontweight("bold" if row in headings else "normal")
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set(xlim=(-reach, reach), ylim=(len(labels) - 0.5, -0.7))
    band = f"band: ± {margin:.2g}, too small to matter; " if has_margin else ""
    explained = f"← better; bars: 95 % interval; {band}arrows: goes on"
    axis.set_xlabel(f"{xlabel}\n{explained}", fontsize=8)
    handles = []
    for verdict, (colour, marker) in EFFECT_MARKS.items():
        inside = "white" if verdict in OPEN else colour
        handles.append(Line2D([], [], color=colour, marker=marker, mfc=inside, label=verdict))
    titled_legend(figure, handles, title=title)
    return figure


def _draw_effect(axis: Axes, row: int, effect: object, reach: float) -> None:
    """Draw one row of `plot_effects`: interval, arrows where it goes beyond `reach`, mark and numbers."""
    colour, marker = EFFECT_MARKS[effect.verdict]
    low, value, high = np.clip([effect.low, effect.value, effect.high], -reach, reach)
    axis.plot([low, high], [row, row], color=colour, lw=1.5)
    if effect.low < -reach:
        axis.plot(-reach, row, marker=ARROW_LEFT, color=colour, ms=7, clip_on=False)
    if effect.high > reach:
        axis.plot(reach, row, marker=ARROW_RIGHT, color=colour, ms=7, clip_on=False)
    if abs(effect.value) <= reach:
        inside = "white" if effect.verdict in OPEN else colour
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


def plot_methods(frame: pd.DataFrame, panel: str, row: str, xlabel: str, title: str = "") -> Figure:
    """Draw `value` with 95 % intervals (`low`, `high`): a panel per value of one column, a row per value of
    the other, below a `title` in words.

    A row that a panel lacks stays empty, and so does the one panel of a table without rows, which a cell of a
    sweep may have. A method is drawn as in `palette`.
    """
    panels = frame[panel].drop_duplicates().tolist() or ["nothing measured"]
    rows = frame[row].drop_duplicates().tolist()
    size = (1.6 + 2.0 * len(panels), 1.2 + 0.28 * len(rows))
    figure, axes = canvas(1, len(panels), size, sharex=True, sharey=True)
    for axis, name in zip(axes[0], panels, strict=True):
        for found in frame[frame[panel] == name].itertuples():
            place = rows.index(getattr(found, row))
            colour, marker, _ = series(getattr(found, row), place)
            below, above = bars(found.value, found.low, found.high)
            axis.errorbar(
                found.value,
                place,
                xerr=[[below], [above]],
                color=colour,
                marker=marker,
                ms=5,
                capsize=2.5,
            )
        axis.set(title=name, ylim=(max(1, len(rows)) - 0.5, -0.5))
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
    figure.supxlabel(f"{xlabel}\n← better; bars: 95 % interval", fontsize=9)
    if title:
        titled(figure, title)
    return figure


def plot_verdicts(table: pd.DataFrame) -> Figure:
    """Draw the claims table: a row per claim with its verdict as colour and marker, and its number.

    Beside the number stand the smallest difference that matters and the p-value, corrected over the family.
    """
    figure, axes = canvas(size=(12.4, 0.8 + 0.29 * len(table)))
    axis = axes[0, 0]
    columns = {6.5: "here [95 % interval]", 9.5: "±", 10.3: "p", 11.1: "verdict"}
    for place, head in columns.items():
        axis.text(place, -1, head, va="center", fontsize=8, fontweight="bold")
    for row, claim in enumerate(table.itertuples()):
        colour, marker = VERDICT_MARKS[claim.verdict]
        inside = "white" if claim.verdict in OPEN else colour
        axis.plot(0, row, marker, color=colour, mfc=inside, ms=8, mew=2)
        says = claim.claim if claim.kind == "claim" else f"{VERDICT_HEADS[claim.kind]}: {claim.claim}"
        axis.text(0.2, row, textwrap.fill(says.replace(" %", f"{SPACE}%"), 92), va="center", fontsize=8)
        margin = "–" if pd.isna(claim.margin) else f"{claim.margin:.2g}"
        cells = [f"{claim.here} {claim.interval}", margin, p_text(claim.p_holm), claim.verdict]
        for place, cell in zip(columns, cells, strict=True):
            axis.text(place, row, cell, va="center", fontsize=7.5)
    axis.set(xlim=(-0.2, 13.6), ylim=(len(table) - 0.5, -1.6))
    axis.axis("off")
    return figure


# tables of estimates


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

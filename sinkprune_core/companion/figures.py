"""One function per figure; every function takes a table and knows nothing of its origin. Style and saver are `drawing`'s.

Interval bars are 95 % bootstrap intervals wherever a figure shows them, and say so.
"""

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, NullFormatter

from sinkprune_core.companion.claims import DIRECTION, NOT_RUN, REFUTED, REPRODUCED
from sinkprune_core.companion.contrasts import EQUIVALENT, HELPS, HURTS, OPEN, number
from sinkprune_core.companion.style import BLACK, BLUE, GREEN, KIND, ORANGE, RED, SERIES, canvas, legend_above
from sinkprune_core.companion.style import (
    save_figure as save_figure,  # notebooks take figures and their saver from one place
)
from sinkprune_core.evaluation.intervals import Estimate, interval

VERDICT_COLOURS = {REPRODUCED: GREEN, DIRECTION: ORANGE, REFUTED: RED, NOT_RUN: "#BBBBBB"}
VERDICT_MARKS = {REPRODUCED: "o", DIRECTION: "D", REFUTED: "X", NOT_RUN: "_"}
EFFECT_MARKS = {HELPS: (BLUE, "<"), HURTS: (RED, ">"), EQUIVALENT: (GREEN, "D"), OPEN: ("#7F7F7F", "o")}


def plot_variability(frame: pd.DataFrame, metrics: dict[str, str]) -> Figure:
    """Draw one panel per metric: every prompt as a point, mean and 95 % bootstrap interval per kind of model.

    `frame` has `kind`, `model` and a column per metric; `metrics` maps columns to axis labels with units.
    """
    columns = 2
    rows = -(-len(metrics) // columns)
    figure, axes = canvas(rows, columns, (6.8, 2.0 * rows))
    kinds = [kind for kind in KIND if kind in set(frame.kind)]
    for axis, (metric, label) in zip(axes.flat, metrics.items(), strict=False):
        for place, kind in enumerate(kinds):
            colour, marker, _ = KIND[kind]
            values = frame.loc[frame.kind == kind, metric].dropna().to_numpy()
            spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(len(values))
            axis.plot(place + spread, values, marker, color=colour, alpha=0.3, ms=3, mew=0)
            if len(values) > 1:
                found = interval(values)
                axis.errorbar(
                    place + 0.28,
                    found.value,
                    [[found.value - found.low], [found.high - found.value]],
                    color=colour,
                    marker=marker,
                    ms=6,
                    capsize=3,
                )
        axis.set_xticks(range(len(kinds)), [KIND[kind][2] for kind in kinds])
        axis.set(xlim=(-0.5, len(kinds) - 0.3), title=label)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.axis("off")
    figure.supxlabel(
        "small points: prompts; large points with bars: mean and 95 % bootstrap interval over prompts",
        fontsize=8,
    )
    return figure


def plot_curves(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str,
    labels: dict[str, str],
    interval_columns: tuple[str, str] | None = None,
    logx: bool = False,
    reference: dict[str, float] | None = None,
    dodge: float = 0.0,
) -> Figure:
    """Draw y against x, one line with its own colour, marker and dash per value of `hue`; bars are 95 % intervals.

    `dodge` moves what stands at the same x apart, around it, so that bars stay readable; the axis then names these x alone.
    """
    figure, axes = canvas(size=(6.4, 3.8))
    axis = axes[0, 0]
    at = frame.groupby(x)[hue].unique()
    for place, ((name, part), (colour, marker, dash)) in enumerate(
        zip(frame.groupby(hue, sort=False), SERIES * 3, strict=False)
    ):
        part = part.sort_values(x)
        errors = (
            None
            if interval_columns is None
            else [part[y] - part[interval_columns[0]], part[interval_columns[1]] - part[y]]
        )
        moved = [
            value + dodge * (list(at[value]).index(name) - (len(at[value]) - 1) / 2) for value in part[x]
        ]
        axis.errorbar(
            moved,
            part[y],
            errors,
            color=colour,
            marker=marker,
            mfc=colour if place < len(SERIES) else "white",
            ls=dash,
            ms=4.5,
            lw=1.3,
            capsize=2,
            label=name,
        )
    for (name, value), dash in zip((reference or {}).items(), ["--", ":", "-."], strict=False):
        axis.axhline(value, color="#555555", lw=1, ls=dash, label=name)
    if logx:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    elif frame[x].max() >= 1e5:
        axis.xaxis.set_major_formatter(EngFormatter())
    if dodge:
        axis.set_xticks(at.index)
    axis.set(xlabel=labels[x], ylabel=labels[y])
    legend_above(figure, *axis.get_legend_handles_labels())
    return figure


def plot_forest(
    estimates: dict[str, Estimate],
    xlabel: str,
    groups: dict[str, str] | None = None,
    better: str = "← better",
) -> Figure:
    """Draw differences with 95 % intervals against a zero line, one row each; filled where the interval leaves zero out."""
    figure, axes = canvas(size=(6.8, 0.9 + 0.3 * len(estimates)))
    axis = axes[0, 0]
    names = sorted(set((groups or {}).values()), key=list((groups or {}).values()).index)
    for row, (label, found) in enumerate(estimates.items()):
        colour, marker, _ = SERIES[1 + names.index(groups[label])] if groups else SERIES[1]
        clear = found.low > 0 or found.high < 0
        axis.plot([found.low, found.high], [row, row], color=colour, lw=1.5)
        axis.plot(found.value, row, marker, color=colour, ms=6, mfc=colour if clear else "white")
    axis.axvline(0, color=BLACK, lw=0.9)
    axis.set_yticks(range(len(estimates)), list(estimates), fontsize=8)
    axis.set_ylim(len(estimates) - 0.5, -0.5)
    figure.supxlabel(
        f"{xlabel}\n{better}; bars: 95 % bootstrap interval, open markers: zero inside it", fontsize=9
    )  # the axis may be narrower than the words
    if len(names) > 1:
        handles = [
            Line2D([], [], color=SERIES[1 + place][0], marker=SERIES[1 + place][1], label=name)
            for place, name in enumerate(names)
        ]
        legend_above(figure, handles)
    return figure


def plot_effects(table: pd.DataFrame, xlabel: str, reach: float | None = None) -> Figure:
    """Draw effects as `contrasts.judge` returns them: a row each below its section, the mark by verdict, the margin as a band.

    The axis ends at `reach` (default: four times the median of what intervals reach, or less where all fit); an interval
    that goes beyond ends in an arrow, and its numbers stand at the right like all others.
    """
    ends = table[["low", "high"]].abs().max(axis=1)
    reach = reach or 1.08 * max(min(ends.max(), 4 * ends.median()), table.margin.max())
    labels: list[tuple[str, bool]] = []
    figure, axes = canvas(size=(8.6, 1.3 + 0.26 * (len(table) + table.section.nunique())))
    axis = axes[0, 0]
    axis.axvspan(-table.margin.max(), table.margin.max(), color=GREEN, alpha=0.1, lw=0)
    axis.axvline(0, color=BLACK, lw=0.9)
    for section, part in table.groupby("section", sort=False):
        labels.append((section, True))
        for row in part.itertuples():
            colour, marker = EFFECT_MARKS[row.verdict]
            low, value, high = np.clip([row.low, row.value, row.high], -reach, reach)
            axis.plot([low, high], [len(labels)] * 2, color=colour, lw=1.5)
            for edge, beyond, arrow in ((-reach, row.low < -reach, 4), (reach, row.high > reach, 5)):
                if beyond:
                    axis.plot(edge, len(labels), marker=arrow, color=colour, ms=7, clip_on=False)
            if abs(row.value) <= reach:
                axis.plot(
                    value,
                    len(labels),
                    marker,
                    color=colour,
                    ms=6,
                    mfc="white" if row.verdict == OPEN else colour,
                    gid="effect",
                )
            axis.text(
                1.025,
                len(labels),
                f"{number(row.value)} [{number(row.low)}, {number(row.high)}]",
                transform=axis.get_yaxis_transform(),
                va="center",
                fontsize=7.5,
                family="DejaVu Sans Mono",
            )
            labels.append((row.comparison, False))
    axis.set_yticks(range(len(labels)), [label for label, _ in labels], fontsize=8)
    for tick, (_, heading) in zip(axis.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if heading else "normal")
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set(xlim=(-reach, reach), ylim=(len(labels) - 0.5, -0.7))
    axis.set_xlabel(
        f"{xlabel}\n← better; bars: 95 % bootstrap interval; band: ± {table.margin.max():g}, too small to matter; arrows: goes on",
        fontsize=8,
    )
    handles = [
        Line2D([], [], color=colour, marker=marker, mfc="white" if each == OPEN else colour, label=each)
        for each, (colour, marker) in EFFECT_MARKS.items()
    ]
    figure.legend(handles=handles, fontsize=7.5, loc="outside upper right", ncols=len(handles))
    return figure


def plot_hiding(frame: pd.DataFrame, ylabel: str) -> Figure:
    """Draw what hiding keys costs against how many are hidden, one panel per model, one line per choice of keys; bars are 95 % intervals.

    `frame` has `model`, `kind`, `label` (which keys), `count`, `value`, `low` and `high`. Panels share the vertical axis,
    linear up to 0.1 around zero and logarithmic beyond.
    """
    models = list(dict.fromkeys(frame.model))
    figure, axes = canvas(1, len(models), (0.6 + 3.1 * len(models), 3.7), sharey=True)
    styles = dict(zip(dict.fromkeys(frame.label), SERIES[1:], strict=False))
    counts = sorted(set(frame["count"]))
    for axis, model in zip(axes[0], models, strict=True):
        part = frame[frame.model == model]
        for place, (label, (colour, marker, dash)) in enumerate(styles.items()):
            line = part[part.label == label].sort_values("count")
            x = [counts.index(count) + 0.09 * (place - (len(styles) - 1) / 2) for count in line["count"]]
            axis.errorbar(
                x,
                line.value,
                [line.value - line.low, line.high - line.value],
                color=colour,
                marker=marker,
                ls=dash,
                ms=5,
                lw=1.3,
                capsize=2,
                label=label,
            )
        axis.axhline(0, color=BLACK, lw=0.9)
        axis.set_yscale("symlog", linthresh=0.1, linscale=0.7)
        axis.set_xticks(range(len(counts)), counts)
        axis.set(title=f"{model} ({KIND[part.kind.iloc[0]][2]})", xlabel="keys hidden")
    axes[0, 0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[0, 0].set_ylabel(ylabel)
    legend_above(
        figure,
        *axes[0, 0].get_legend_handles_labels(),
        title="hidden keys",
        title_fontsize=8,
        alignment="left",
    )
    return figure


def plot_accuracy(frame: pd.DataFrame, chance: float = 0.5) -> Figure:
    """Draw the share of right answers per group of tasks, a point with its 95 % interval per model, beside the line of chance.

    `frame` has `model`, `kind`, `group`, `value`, `low` and `high`.
    """
    groups, models = list(dict.fromkeys(frame.group)), list(dict.fromkeys(frame.model))
    figure, axes = canvas(size=(6.4, 3.0))
    axis = axes[0, 0]
    for place, model in enumerate(models):
        part = frame[frame.model == model].set_index("group").loc[groups]
        colour, marker, kind = KIND[part.kind.iloc[0]]
        x = np.arange(len(groups)) + 0.18 * (place - (len(models) - 1) / 2)
        axis.errorbar(
            x,
            100 * part.value,
            100 * np.array([part.value - part.low, part.high - part.value]),
            color=colour,
            marker=marker,
            ls="none",
            ms=5,
            capsize=2,
            label=f"{model} ({kind})",
        )
    axis.axhline(100 * chance, color=BLACK, lw=0.9, ls="--", label="chance")
    axis.set_xticks(range(len(groups)), groups)
    axis.set(xlabel="group of items", ylabel="right answers (%)", ylim=(0, 102))
    legend_above(figure, *axis.get_legend_handles_labels())
    return figure


def plot_filling(frame: pd.DataFrame) -> Figure:
    """Draw what `quality.filling` returns against the share of masked tokens: nats per masked token, and how many are right; 95 % intervals over sequences."""
    figure, axes = canvas(1, 2, (6.8, 3.1))
    models = frame.model.drop_duplicates().tolist()
    for axis, (column, scale, label) in zip(
        axes[0],
        [("value", 1, "nats per masked token"), ("correct", 100, "masked tokens filled right (%)")],
        strict=True,
    ):
        for place, model in enumerate(models):
            part = frame[frame.model == model]
            colour, marker, kind = KIND[part.kind.iloc[0]]
            found = {share: interval(scale * values) for share, values in part.groupby("share")[column]}
            x = [100 * share + 1.6 * (place - (len(models) - 1) / 2) for share in found]
            errors = [
                [each.value - each.low for each in found.values()],
                [each.high - each.value for each in found.values()],
            ]
            axis.errorbar(
                x,
                [each.value for each in found.values()],
                errors,
                color=colour,
                marker=marker,
                ls="-" if kind == "diffusion" else "--",
                ms=5,
                capsize=2,
                label=f"{model} ({kind})",
            )
        axis.set_xticks([100 * share for share in sorted(set(frame.share))])
        axis.set(xlabel="masked tokens (%)", ylabel=label, xlim=(0, 100))
        axis.set_ylim(bottom=0)
    legend_above(figure, *axes[0, 1].get_legend_handles_labels())
    return figure


def plot_methods(frame: pd.DataFrame, panel: str, row: str, xlabel: str) -> Figure:
    """Draw `value` with 95 % intervals (`low`, `high`): a panel per value of one column, a row per value of the other.

    A row that a panel lacks stays empty, and so does the one panel of a table without rows, which a cell of a sweep may
    have. Every row has its own colour and marker in all panels.
    """
    panels, rows = (
        frame[panel].drop_duplicates().tolist() or ["nothing measured"],
        frame[row].drop_duplicates().tolist(),
    )
    figure, axes = canvas(
        1, len(panels), (1.6 + 2.0 * len(panels), 1.2 + 0.28 * len(rows)), sharex=True, sharey=True
    )
    for axis, name in zip(axes[0], panels, strict=True):
        for found in frame[frame[panel] == name].itertuples():
            place = rows.index(getattr(found, row))
            colour, marker, _ = SERIES[place % len(SERIES)]
            axis.errorbar(
                found.value,
                place,
                xerr=[[found.value - found.low], [found.high - found.value]],
                color=colour,
                marker=marker,
                mfc=colour if place < len(SERIES) else "white",
                ms=5,
                capsize=2.5,
            )
        axis.set(title=name, ylim=(max(1, len(rows)) - 0.5, -0.5))
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
    figure.supxlabel(f"{xlabel}\n← better; bars: 95 % bootstrap interval", fontsize=9)
    return figure


def plot_mask_differences(frame: pd.DataFrame) -> Figure:
    """Draw the table of `experiments.mask_differences`: one heat map per pair of methods, layers across, linears down."""
    pairs = frame[["one", "other"]].drop_duplicates().itertuples(index=False)
    parts = [
        (
            f"{one} / {other}",
            frame[(frame.one == one) & (frame.other == other)].pivot(
                index="linear", columns="layer", values="differ"
            ),
        )
        for one, other in pairs
    ]
    order, columns = frame.linear.drop_duplicates().tolist(), min(2, len(parts))
    figure, axes = canvas(
        -(-len(parts) // columns),
        columns,
        (3.6 * columns + 0.8, 1.9 * -(-len(parts) // columns) + 0.4),
        sharex=True,
        sharey=True,
    )
    for axis, (title, table) in zip(axes.flat, parts, strict=False):
        image = axis.imshow(
            table.loc[order],
            aspect="auto",
            cmap="cividis",
            vmin=0,
            vmax=frame.differ.max(),
            interpolation="nearest",
        )
        axis.set_yticks(range(len(order)), [name.split(".")[-1] for name in order], fontsize=8)
        axis.set_title(f"{title}: {table.to_numpy().mean():.1%} on average", fontsize=9)
        axis.grid(False)
    for axis in list(axes.flat)[len(parts) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("layer (0 is the first)")
    figure.colorbar(image, ax=axes, pad=0.01, label="share of kept weights that differ")
    return figure


def plot_layers(frame: pd.DataFrame, metrics: dict[str, str]) -> Figure:
    """Draw a metric against depth, one line per kind of model, with a band for the 95 % interval over prompts."""
    figure, axes = canvas(1, len(metrics), (2.6 * len(metrics), 2.9))
    for axis, (metric, label) in zip(axes[0], metrics.items(), strict=True):
        for kind, part in frame.groupby("kind"):
            colour, marker, name = KIND[kind]
            sns.lineplot(
                part,
                x="layer",
                y=metric,
                ax=axis,
                color=colour,
                marker=marker,
                ls="-" if kind == "diffusion" else "--",
                label=name,
                errorbar=("ci", 95),
                seed=0,
                n_boot=500,
            )
        axis.set(xlabel="layer (0 is the first)", ylabel=label)
        axis.get_legend().remove()
    legend_above(figure, *axes[0, 0].get_legend_handles_labels())
    figure.supxlabel("lines: means; bands: 95 % bootstrap intervals over prompts", fontsize=8)
    return figure


def plot_training(log: pd.DataFrame, metrics: dict[str, dict[str, str]]) -> Figure:
    """Draw a training log against training tokens: `metrics` maps the label of each panel to its columns and their names.

    Columns that the log lacks, or has in later rows only, are drawn as far as they go; panels without any value say so.
    """
    figure, axes = canvas(1, len(metrics), (2.9 * len(metrics), 3.0))
    for axis, (label, columns) in zip(axes[0], metrics.items(), strict=True):
        known = log.reindex(columns=["tokens", *columns]).astype(float)
        for (column, name), (colour, marker, dash) in zip(columns.items(), SERIES, strict=False):
            part = known[["tokens", column]].dropna()
            if len(part):
                axis.plot(
                    part.tokens / 1e6,
                    part[column],
                    color=colour,
                    marker=marker,
                    ls=dash,
                    ms=4,
                    lw=1.3,
                    label=name,
                )
        axis.set(xlabel="training tokens (millions)", ylabel=label)
        if axis.lines:
            axis.legend(
                fontsize=7.5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3
            )  # above the axes: lines may lie anywhere
        else:
            axis.text(
                0.5,
                0.5,
                "the log of this adapter\nhas no such column",
                transform=axis.transAxes,
                ha="center",
                va="center",
                fontsize=8,
            )
    return figure


def plot_verdicts(table: pd.DataFrame) -> Figure:
    """Draw the claims table: a row per claim with its verdict as colour and marker, and the measured number."""
    figure, axes = canvas(size=(9.8, 0.5 + 0.29 * len(table)))
    axis = axes[0, 0]
    for row, claim in enumerate(table.itertuples()):
        axis.plot(0, row, VERDICT_MARKS[claim.verdict], color=VERDICT_COLOURS[claim.verdict], ms=9, mew=2)
        prefix = "" if claim.kind == "claim" else "control: "
        axis.text(0.2, row, textwrap.fill(prefix + claim.claim, 92), va="center", fontsize=8)
        axis.text(
            6.4, row, f"{claim.here} {claim.interval}", va="center", fontsize=8, family="DejaVu Sans Mono"
        )
        axis.text(9.0, row, claim.verdict, va="center", fontsize=8, color="#333333")
    axis.set(xlim=(-0.2, 10.6), ylim=(len(table) - 0.5, -0.5))
    axis.axis("off")
    return figure

"""Figures of sinks and masks: statistics per prompt, condition and layer; maps of layers by heads or linears.

A figure takes a table and knows nothing of its origin. Dimensions: L layer, H head.
"""

import textwrap
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from sinkprune_companion.figures.style import (
    BLACK,
    BLUE,
    KIND,
    RED,
    SERIES,
    bars,
    canvas,
    reaches_far,
    spread_out,
    titled,
    titled_legend,
)
from sinkprune_companion.numbers import percent
from sinkprune_core.evaluation.intervals import interval


def plot_variability(frame: pd.DataFrame, metrics: dict[str, str], title: str = "") -> Figure:
    """Draw one panel per metric: every prompt as a point, mean and 95 % interval per kind of model.

    `frame` has `kind`, `model` and a column per metric; `metrics` maps columns to axis labels with units;
    `title` says in words what the figure shows.
    """
    columns = 2
    rows = -(-len(metrics) // columns)
    figure, axes = canvas(rows, columns, (6.8, 2.0 * rows))
    kinds = [kind for kind in KIND if kind in set(frame.kind)]
    for axis, (metric, label) in zip(axes.flat, metrics.items(), strict=False):
        for place, kind in enumerate(kinds):
            _draw_prompts(axis, place, kind, frame.loc[frame.kind == kind, metric].dropna().to_numpy())
        axis.set_xticks(range(len(kinds)), [KIND[kind].name for kind in kinds])
        axis.set(xlim=(-0.5, len(kinds) - 0.3), title=label)
    for axis in axes.flat[len(metrics) :]:
        axis.axis("off")
    figure.supxlabel(
        "small points: prompts; large points with bars: mean and 95 % interval over prompts",
        fontsize=8,
    )
    if title:
        titled(figure, title)
    return figure


def _draw_prompts(axis: Axes, place: int, kind: str, values: np.ndarray) -> None:
    """Draw a value per prompt around `place`, and their mean with its interval at its right."""
    colour, marker, _ = KIND[kind]
    spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(len(values))
    axis.plot(place + spread, values, marker, color=colour, alpha=0.3, ms=3, mew=0)
    if len(values) > 1:
        estimate = interval(values)
        below, above = bars(estimate.value, estimate.low, estimate.high)
        style = {"color": colour, "marker": marker, "ms": 6, "capsize": 3}
        axis.errorbar(place + 0.28, estimate.value, [[below], [above]], **style)


def plot_layers(frame: pd.DataFrame, metrics: dict[str, str], title: str = "") -> Figure:
    """Draw a metric against depth, one line per kind of model, with a band for the 95 % interval over
    prompts, below a `title` in words.
    """
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
    titled_legend(figure, *axes[0, 0].get_legend_handles_labels(), title=title)
    figure.supxlabel("lines: means; bands: 95 % intervals over prompts", fontsize=8)
    return figure


def plot_heads(maps: dict[str, np.ndarray], label: str, title: str = "") -> Figure:
    """Draw one map of layers (down) by heads (across) per model, on one logarithmic colour scale.

    `maps` has float (L, H) by the title of its panel; `title` says in words what the figure shows.
    """
    figure, axes = canvas(1, len(maps), (3.4 * len(maps), 4.6))
    values = np.concatenate([map_LH.ravel() for map_LH in maps.values()])
    scale = LogNorm(max(values.min(), 1e-3), values.max())
    for axis, (name, map_LH) in zip(axes[0], maps.items(), strict=True):
        image = axis.imshow(map_LH, aspect="auto", cmap="cividis", norm=scale, interpolation="nearest")
        axis.set(title=name, xlabel="head")
        axis.grid(False)
    axes[0, 0].set_ylabel("layer (0 is the first)")
    ticks = {"ticks": LogLocator(subs=(1, 2, 5)), "format": FormatStrFormatter("%g")}
    figure.colorbar(image, ax=axes[0, -1], pad=0.03, label=label, **ticks).minorticks_off()
    if title:
        titled(figure, title)
    return figure


def plot_mask_differences(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw the table of `masks.mask_differences`: a map per pair of methods, layers across, linears down,
    below a `title` in words.
    """
    pairs = list(frame[["one", "other"]].drop_duplicates().itertuples(index=False))
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    size = (3.6 * columns + 0.8, 1.9 * rows + 0.4)
    figure, axes = canvas(rows, columns, size, sharex=True, sharey=True)
    order = frame.linear.drop_duplicates().tolist()
    scale = {"vmin": 0, "vmax": frame.differ.max()}
    for axis, (one, other) in zip(axes.flat, pairs, strict=False):
        part = frame[(frame.one == one) & (frame.other == other)]
        table = part.pivot(index="linear", columns="layer", values="differ")
        image = axis.imshow(table.loc[order], aspect="auto", cmap="cividis", interpolation="nearest", **scale)
        axis.set_yticks(range(len(order)), [name.split(".")[-1] for name in order], fontsize=8)
        axis.set_title(f"{one} / {other}: {percent(table.to_numpy().mean())} on average", fontsize=9)
        axis.grid(False)
    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("layer (0 is the first)")
    figure.colorbar(image, ax=axes, pad=0.01, label="share of kept weights that differ")
    if title:
        titled(figure, title)
    return figure


def plot_kept_weights(kept_OI: np.ndarray, other_OI: np.ndarray, title: str, shown: int = 96) -> Figure:
    """Draw which weights two masks keep in the first `shown` rows and columns of one linear map.

    Dark: kept by both; light: pruned by both; red: kept by one alone.
    """
    kept, other = kept_OI[: shown // 2, :shown], other_OI[: shown // 2, :shown]
    state = np.where(kept == other, np.where(kept, 0, 1), 2)
    figure, axes = canvas(size=(6.8, 3.6))
    axis = axes[0, 0]
    axis.imshow(state, cmap=ListedColormap([BLUE, "#E8EEF3", RED]), vmin=0, vmax=2, interpolation="nearest")
    axis.set(xlabel="input feature", ylabel="output feature")
    axis.grid(False)
    named = {BLUE: "kept by both", "#E8EEF3": "pruned by both", RED: "kept by one alone"}
    titled_legend(figure, [Patch(color=colour, label=name) for colour, name in named.items()], title=title)
    return figure


def plot_token_reach(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw the share of kept weights that change against the share of calibration tokens left out.

    `frame` is what `token_reach` returns, with `text` (how the calibration text begins), a panel each. Lines
    are means over linears; dashed: other calibration text of the same size. `title` says in words what the
    figure shows.
    """
    texts = list(dict.fromkeys(frame.text))
    figure, axes = canvas(1, len(texts), (0.9 + 3.2 * len(texts), 3.6), sharey=True)
    mean = frame.groupby(["text", "choice", "tokens", "share"], sort=False).changed.mean().reset_index()
    for axis, text in zip(axes[0], texts, strict=True):
        part = mean[mean.text == text]
        for place, (choice, line) in enumerate(part[part.share < 1].groupby("choice", sort=False)):
            colour, marker, dash = SERIES[1 + place]
            line = line[line.changed > 0].sort_values("share")
            linestyle = dash if len(line) > 1 else "none"
            axis.plot(100 * line.share, 100 * line.changed, marker, color=colour, ls=linestyle, label=choice)
        for line in part[part.share == 1].itertuples():
            axis.axhline(100 * line.changed, color=BLACK, lw=1, ls="--", label=line.choice)
        axis.set(xscale="log", yscale="log", title=text, xlabel="calibration tokens left out (%)")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[0, 0].set_ylabel("kept weights that change (%)")
    titled_legend(figure, *axes[0, 0].get_legend_handles_labels(), title=title)
    return figure


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

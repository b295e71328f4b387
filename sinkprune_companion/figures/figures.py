"""Figures of measurements, one function each, and how every figure is kept.

A figure takes a table and knows nothing of its origin. Bars are 95 % intervals wherever a figure
shows them, and the figure says so.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, NullFormatter

from sinkprune_companion.figures.palette import series
from sinkprune_companion.figures.style import (
    BLACK,
    BLUE,
    KIND,
    RED,
    SERIES,
    Series,
    canvas,
    draw_intervals,
    reaches_far,
    spread_out,
    titled,
    titled_legend,
)
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation.intervals import interval
from sinkprune_core.files import atomic, write_json

DATE = "SOURCE_DATE_EPOCH"  # seconds since 1970; zip files cannot be older than 1980
STARTS = (("o", "-"), ("^", ":"))  # markers and lines of texts of one kind that start differently


def save_figure(run: Run, figure: Figure, name: str, data: pd.DataFrame, caption: str) -> Figure:
    """Write PNG, PDF, the data (CSV) and provenance (JSON) to the run's `figures/<notebook>/`; return the
    closed figure.

    Files are the same to the byte for the same data, so that a diff shows a change of the result. The
    provenance is that of the records that the run had read by then. A notebook keeps the caption as the
    alternative text of the picture.
    """
    folder = run.folder / "figures" / run.notebook
    with atomic(folder / f"{name}.png") as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})
        partial.write_bytes(with_palette(partial.read_bytes()))
    figure.set_layout_engine(None)  # the layout is found once, for the first file
    with atomic(folder / f"{name}.pdf") as partial:
        undated = {"CreationDate": None, "Producer": None, "Creator": None}
        with _date_of_fonts():
            figure.savefig(partial, format="pdf", metadata=undated)
    with atomic(folder / f"{name}.csv") as partial:
        data.to_csv(partial, index=False, float_format="%.8g")
    write_json(folder / f"{name}.json", json.loads(json.dumps({"caption": caption, **run.provenance})))
    plt.close(figure)

    def alternative_text(**_: object) -> tuple[dict, dict]:
        return {}, {"image/png": {"alt": caption}}  # IPython adds the picture itself

    figure._repr_mimebundle_ = alternative_text
    return figure


@contextmanager
def _date_of_fonts() -> Iterator[None]:
    """Give fonts inside a PDF a fixed date; the variable for it is as before when the block ends."""
    before = os.environ.get(DATE)
    os.environ.setdefault(DATE, "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATE]


def with_palette(png: bytes) -> bytes:
    """Return a PNG with at most 256 colours, without dithering, where that makes it smaller.

    It takes a third of the bytes for most figures.
    """
    from PIL import Image

    packed = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(packed, format="PNG", optimize=True)
    return min(png, packed.getvalue(), key=len)


def plot_curves(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str,
    labels: dict[str, str],
    interval_columns: tuple[str, str] | None = None,
    logx: bool = False,
    dodge: float = 0.0,
    title: str = "",
) -> Figure:
    """Draw y against x, one line per value of `hue`; bars are 95 % intervals. A method is drawn as in
    `palette`.

    `labels` names columns `x` and `y`, `interval_columns` are those of the interval's ends, `title` says in
    words what the figure shows. `dodge` moves what stands at the same x apart, around it, so that bars stay
    readable; the axis then names these x alone, and a line has a gap where its method was not measured.
    """
    figure, axes = canvas(size=(6.4, 3.8))
    axis = axes[0, 0]
    names_at = frame.groupby(x)[hue].unique()
    for place, (name, part) in enumerate(frame.groupby(hue, sort=False)):
        part = part.sort_values(x)
        if dodge:
            part = part.set_index(x).reindex(names_at.index).reset_index()
        low, high = interval_columns or (y, y)
        moved = []
        for value in part[x]:
            names = list(names_at[value])
            apart = spread_out(names.index(name), len(names), dodge) if name in names else float("nan")
            moved.append(value + apart)
        ends = (part[low], part[high])
        capsize = 2 if interval_columns else 0
        draw_intervals(axis, moved, part[y], *ends, series(name, place), label=name, ms=4.5, capsize=capsize)
    _scale_x(axis, logx, largest=frame[x].max())
    if dodge:
        axis.set_xticks(names_at.index)
    axis.set(xlabel=labels[x], ylabel=labels[y])
    titled_legend(figure, *axis.get_legend_handles_labels(), title=title)
    return figure


def plot_nelbo(frame: pd.DataFrame, title: str) -> Figure:
    """Draw the loss at masked tokens against the share that is masked: its mean over shares is the NELBO.

    `frame` is what `likelihood.nelbo` returns. Points are single masks, the line is a mean over tenths.
    """
    figure, axes = canvas(size=(6.4, 3.0))
    axis = axes[0, 0]
    axis.plot(100 * frame.noise, frame.value, "o", color=BLUE, ms=3, alpha=0.35, mew=0, label="one mask")
    tenths = frame.groupby((10 * frame.noise).clip(upper=9.99).astype(int)).agg(
        {"noise": "mean", "value": "mean"}
    )
    axis.plot(100 * tenths.noise, tenths.value, color=BLUE, lw=1.6, label="mean over a tenth")
    mean = frame.value.mean()
    axis.axhline(mean, color=RED, lw=1.4, ls="--", label=f"NELBO: {mean:.2f} nats per token")
    axis.set(xlabel="masked tokens (%)", ylabel="nats per masked token", xlim=(0, 100))
    titled_legend(figure, *axis.get_legend_handles_labels(), title=title)
    return figure


def plot_learning(curve: pd.DataFrame, reference: dict[str, float]) -> tuple[Figure, str]:
    """Draw a DLM's held-out NELBO against training tokens, a colour per kind of text; return the figure
    and its title.

    `curve` has `tokens`, `text` (its kind, then how it starts, after a comma) and `nelbo`. `reference` maps
    kinds of text to the AR model's negative log-likelihood, dashed in the colour of its kind.
    """
    figure, axes = canvas(size=(6.4, 3.2))
    axis = axes[0, 0]
    gaps = []
    kinds = list(dict.fromkeys(text.split(",")[0] for text in curve.text))
    for kind, drawn in zip(kinds, SERIES[1:], strict=False):
        exact = reference.get(kind)
        of_kind = curve[curve.text.str.split(",").str[0] == kind]
        for (text, part), (marker, dash) in zip(of_kind.groupby("text", sort=False), STARTS, strict=False):
            part = part.sort_values("tokens")
            style = {"color": drawn.colour, "ms": 3.5, "lw": 1.3}
            axis.plot(part.tokens, part.nelbo, marker, ls=dash, label=f"DLM, {text}", **style)
            if exact is not None:
                gaps.append(part.nelbo.iloc[-1] - exact)
        if exact is not None:
            axis.axhline(exact, color=drawn.colour, lw=1.2, ls="--", label=f"AR, {kind}")
    _scale_x(axis, False, largest=curve.tokens.max())
    axis.set(xlabel="training tokens", ylabel="held-out nats per token")
    title = f"The adapter saw {curve.tokens.max() / 1e6:.1f} million tokens of this training"
    if gaps:
        title += (
            f"; the DLM's bound ends {min(gaps):.1f} to {max(gaps):.1f} nats above the AR model's likelihood"
        )
    titled_legend(figure, *axis.get_legend_handles_labels(), title=title)
    return figure, title


def _scale_x(axis: Axes, logarithmic: bool, largest: float) -> None:
    """Set the scale of the horizontal axis, with numbers as people write them."""
    if logarithmic:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    elif largest >= 1e5:
        axis.xaxis.set_major_formatter(EngFormatter())


def plot_hiding(frame: pd.DataFrame, ylabel: str, title: str = "") -> Figure:
    """Draw what hiding keys costs against how many are hidden, below a `title` in words; bars are 95 %
    intervals.

    One panel per model, one line per choice of keys. `frame` has `model`, `kind`, `label` (which keys),
    `count`, `value`, `low` and `high`. Panels share the vertical axis; where something is `style.FAR` times
    0.1, it is linear up to 0.1 around zero and logarithmic beyond.
    """
    models = list(dict.fromkeys(frame.model))
    figure, axes = canvas(1, len(models), (0.6 + 3.1 * len(models), 3.7), sharey=True)
    labels = list(dict.fromkeys(frame.label))
    counts = sorted(set(frame["count"]))
    for axis, model in zip(axes[0], models, strict=True):
        part = frame[frame.model == model]
        for place, label in enumerate(labels):
            line = part[part.label == label].sort_values("count")
            moved = spread_out(place, len(labels), 0.09)
            where = [counts.index(count) + moved for count in line["count"]]
            draw_intervals(axis, where, line.value, line.low, line.high, SERIES[1 + place], label=label)
        axis.axhline(0, color=BLACK, lw=0.9)
        if reaches_far(frame[["low", "high"]], 0.1):
            axis.set_yscale("symlog", linthresh=0.1, linscale=0.7)
        axis.set_xticks(range(len(counts)), counts)
        axis.set(title=f"{model} ({KIND[part.kind.iloc[0]].name})", xlabel="keys hidden")
    axes[0, 0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[0, 0].set_ylabel(ylabel)
    handles, names = axes[0, 0].get_legend_handles_labels()
    titled_legend(figure, handles, [f"{name} hidden" for name in names], title=title)
    return figure


def plot_accuracy(frame: pd.DataFrame, chance: float = 0.5, title: str = "") -> Figure:
    """Draw the share of right answers per group of tasks, a point with its 95 % interval per model, below a
    `title` in words.

    `frame` has `model`, `kind`, `group`, `value`, `low` and `high`; a dashed line stands at `chance`.
    """
    groups = list(dict.fromkeys(frame.group))
    models = list(dict.fromkeys(frame.model))
    figure, axes = canvas(size=(6.4, 3.0))
    axis = axes[0, 0]
    for place, model in enumerate(models):
        part = frame[frame.model == model].set_index("group").loc[groups]
        colour, marker, kind = KIND[part.kind.iloc[0]]
        where = np.arange(len(groups)) + spread_out(place, len(models), 0.18)
        percent = 100 * part[["value", "low", "high"]]
        look = Series(colour, marker, "none")
        draw_intervals(axis, where, percent.value, percent.low, percent.high, look, label=f"{model} ({kind})")
    axis.axhline(100 * chance, color=BLACK, lw=0.9, ls="--", label="chance")
    axis.set_xticks(range(len(groups)), groups)
    axis.set(xlabel="group of items", ylabel="right answers (%)", ylim=(0, 102))
    titled_legend(figure, *axis.get_legend_handles_labels(), title=title)
    return figure


def plot_filling(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw what `quality.filling` returns against the share of masked tokens, below a `title` in words; bars
    are 95 % intervals over sequences.

    Left nats per masked token, right how many tokens are right.
    """
    figure, axes = canvas(1, 2, (6.8, 3.1))
    nats, right = axes[0]
    _draw_filling(nats, frame, "value", 1, "nats per masked token")
    _draw_filling(right, frame, "correct", 100, "masked tokens filled right (%)")
    titled_legend(figure, *right.get_legend_handles_labels(), title=title)
    return figure


def _draw_filling(axis: Axes, frame: pd.DataFrame, column: str, scale: float, label: str) -> None:
    """Draw one column of `plot_filling`, a line per model."""
    models = frame.model.drop_duplicates().tolist()
    for place, model in enumerate(models):
        part = frame[frame.model == model]
        colour, marker, kind = KIND[part.kind.iloc[0]]
        estimates = {share: interval(scale * values) for share, values in part.groupby("share")[column]}
        moved = spread_out(place, len(models), 1.6)
        where = [100 * share + moved for share in estimates]
        ends = pd.DataFrame([(one.value, one.low, one.high) for one in estimates.values()])
        look = Series(colour, marker, "-" if kind == "diffusion" else "--")
        draw_intervals(axis, where, ends[0], ends[1], ends[2], look, label=f"{model} ({kind})")
    axis.set_xticks([100 * share for share in sorted(set(frame.share))])
    axis.set(xlabel="masked tokens (%)", ylabel=label, xlim=(0, 100))
    axis.set_ylim(bottom=0)


def plot_training(log: pd.DataFrame, metrics: dict[str, dict[str, str]], title: str = "") -> Figure:
    """Draw a training log against training tokens, one panel per entry of `metrics`, below a `title` in
    words.

    It maps the label of each panel to its columns and their names. Columns that the log lacks, or has in
    later rows only, are drawn as far as they go; panels without any value say so.
    """
    figure, axes = canvas(1, len(metrics), (2.9 * len(metrics), 3.0))
    for axis, (label, columns) in zip(axes[0], metrics.items(), strict=True):
        known = log.reindex(columns=["tokens", *columns]).astype(float)
        for (column, name), (colour, marker, dash) in zip(columns.items(), SERIES, strict=False):
            part = known[["tokens", column]].dropna()
            if part.empty:
                continue
            style = {"color": colour, "marker": marker, "ls": dash}
            axis.plot(part.tokens / 1e6, part[column], **style, ms=4, lw=1.3, label=name)
        axis.set(xlabel="training tokens (millions)", ylabel=label)
        if axis.lines:  # the legend stands above the axes: lines may lie anywhere
            axis.legend(fontsize=7.5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3)
        else:
            missing = "the log of this adapter\nhas no such column"
            centred = {"ha": "center", "va": "center"}
            axis.text(0.5, 0.5, missing, transform=axis.transAxes, fontsize=8, **centred)
    if title:
        titled(figure, title)
    return figure

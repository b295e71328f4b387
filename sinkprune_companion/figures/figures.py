"""Figures of measurements, one function each, and how every figure is kept.

A figure takes a table and knows nothing of its origin. Bars are 95 % intervals wherever a figure
shows them, and the figure says so.
"""

import io
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, NullFormatter

from sinkprune_companion.figures.style import (
    BLUE,
    RED,
    bars,
    canvas,
    linear_part,
    series,
    spread_out,
    titled_legend,
)
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation.intervals import interval
from sinkprune_core.files import atomic, file_digest, write_json
from sinkprune_core.models.weight_files import read_json

DATE = "SOURCE_DATE_EPOCH"  # seconds since 1970; zip files cannot be older than 1980


def save_figure(run: Run, figure: Figure, name: str, data: pd.DataFrame, caption: str) -> Figure:
    """Write PNG, PDF, the data (CSV) and provenance (JSON) to the run's `figures/<notebook>/`; return the
    figure.

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
        with mock.patch.dict(os.environ, {DATE: os.environ.get(DATE, "0")}):  # of fonts inside the file
            figure.savefig(partial, format="pdf", metadata=undated)
    save_table(run, name, data, caption, (".png", ".pdf"))

    def alternative_text(**_: object) -> tuple[dict, dict]:
        return {}, {"image/png": {"alt": caption}}  # IPython adds the picture itself

    figure._repr_mimebundle_ = alternative_text
    return figure


def save_table(run: Run, name: str, data: pd.DataFrame, caption: str, drawn: tuple[str, ...] = ()) -> None:
    """Write a table (CSV) and its provenance (JSON) to the run's `figures/<notebook>/`.

    `drawn` are the endings of its pictures, which are there already.
    """
    folder = run.folder / "figures" / run.notebook
    with atomic(folder / f"{name}.csv") as partial:
        data.to_csv(partial, index=False, float_format="%.8g")
    save_provenance(run, name, caption, [folder / f"{name}{ending}" for ending in (".csv", *drawn)])


def save_provenance(run: Run, name: str, caption: str, files: list[Path]) -> None:
    """Write where a figure comes from, and the digests of its files, beside them as `<name>.json`."""
    about = {"caption": caption, **run.provenance, "files": {file.name: file_digest(file) for file in files}}
    write_json(run.folder / "figures" / run.notebook / f"{name}.json", about)


def add_file(run: Run, name: str, file: Path) -> None:
    """Add the digest of a further file to those of a figure that is saved already."""
    about = run.folder / "figures" / run.notebook / f"{name}.json"
    content = read_json(about)
    content["files"][file.name] = file_digest(file)
    write_json(about, content)


def with_palette(png: bytes) -> bytes:
    """Return a PNG with at most 256 colours, without dithering, where that makes it smaller.

    It takes a third of the bytes for most figures.
    """
    from PIL import Image

    packed = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(packed, format="PNG", optimize=True)
    return min(png, packed.getvalue(), key=len)


def intervals(frame: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """Return the mean of a column with its 95 % interval (`value`, `low`, `high`), a row per group of `by`.

    NaN is left out, and so are groups without two values.
    """
    rows = []
    for names, part in frame.groupby(by, sort=False):
        values = part[column].dropna()
        if len(values) > 1:
            mean = interval(values)
            row = dict(zip(by, names, strict=True))
            rows.append({**row, "value": mean.value, "low": mean.low, "high": mean.high})
    return pd.DataFrame(rows, columns=[*by, "value", "low", "high"])


def plot_curves(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str,
    labels: dict[str, str],
    interval_columns: tuple[str, str] | None = None,
    logx: bool = False,
    logy: bool = False,
    dodge: float = 0.0,
    title: str = "",
    panel: str | None = None,
    sharey: bool = True,
) -> Figure:
    """Draw y against x, one line per value of `hue`; bars are 95 % intervals. A method is drawn as in
    `style`.

    `labels` names columns `x` and `y`, `interval_columns` are those of the interval's ends, `title` says in
    words what the figure shows, `panel` is a column whose values have a panel each. `dodge` moves what stands
    at the same x apart, around it, so that bars stay readable; the axis then names these x alone, and a line
    has a gap where its method was not measured.
    """
    names = frame[hue].drop_duplicates().tolist()
    panels = frame[panel].drop_duplicates().tolist() if panel else [""]
    size = (6.4, 3.8) if len(panels) == 1 else (0.9 + 2.9 * len(panels), 3.6)
    figure, axes = canvas(1, len(panels), size, sharey=sharey)
    for axis, head in zip(axes[0], panels, strict=True):
        drawn = frame[frame[panel] == head] if panel else frame
        names_at = drawn.groupby(x)[hue].unique()
        for name, line in drawn.groupby(hue, sort=False):
            line = line.sort_values(x)
            if dodge:
                line = line.set_index(x).reindex(names_at.index).reset_index()
            low, high = interval_columns or (y, y)
            look = series(name, names.index(name))
            axis.errorbar(
                _moved_apart(line[x], name, names_at, dodge),
                line[y],
                bars(line[y], line[low], line[high]),
                color=look.colour,
                marker=look.marker,
                ls=look.dash,
                label=name,
                ms=4.5,
                lw=1.3,
                capsize=2 if interval_columns else 0,
            )
        _scale_x(axis, logx, frame[x])
        if dodge:
            axis.set_xticks(names_at.index)
        axis.set(xlabel=labels[x], title=head)
    _scale_y(axes[0], frame[y], logy, sharey)
    axes[0, 0].set_ylabel(labels[y])
    titled_legend(figure, *axes[0, 0].get_legend_handles_labels(), title=title)
    return figure


def _moved_apart(values: pd.Series, name: object, names_at: pd.Series, dodge: float) -> list[float]:
    """Return where the points of one line stand: lines that share an x stand around it."""
    moved = []
    for value in values:
        names = list(names_at[value])
        place = spread_out(names.index(name), len(names), dodge) if name in names else float("nan")
        moved.append(value + place)
    return moved


def _scale_y(axes: np.ndarray, values: pd.Series, logarithmic: bool, shared: bool) -> None:
    """Set the scale of the vertical axes: logarithmic beyond `linear_part` where values reach far."""
    linear = linear_part(values) if shared else None
    for axis in axes:
        if logarithmic:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(_log_locator(values))
            axis.yaxis.set_minor_formatter(NullFormatter())
        elif linear:
            axis.set_yscale("symlog", linthresh=linear)
        if logarithmic or linear:
            axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))


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


def _scale_x(axis: Axes, logarithmic: bool, values: pd.Series) -> None:
    """Set the scale of the horizontal axis, with numbers as people write them."""
    if logarithmic:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(_log_locator(values))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    elif values.max() >= 1e5:
        axis.xaxis.set_major_formatter(EngFormatter())


def _log_locator(values: pd.Series) -> LogLocator:
    """Return where a logarithmic axis has its numbers: 1, 2 and 5, or decades alone where it reaches far."""
    reaches_far = values.max() > 100 * values.min()
    return LogLocator(subs=(1,) if reaches_far else (1, 2, 5))

"""How every figure looks and is kept, and figures of measurements, one function each.

A figure takes a table and knows nothing of its origin. Bars are 95 % intervals wherever a figure
shows them, and the figure says so.
"""

import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from PIL import Image

from sinkprune.evaluation.intervals import interval
from sinkprune.figures.style import WIDTH, canvas, titled
from sinkprune.files import atomic, file_digest, write_json
from sinkprune.models.weight_files import read_json
from sinkprune_companion.figures.looks import BLACK, BLUE, CALLED, GREY, series
from sinkprune_companion.run.records import Run

DOTS_PER_INCH = 220  # twice what a screen shows of a picture as wide as a page
SHOWN_PER_INCH = 96  # pixels of a page
NARROW, DARK = "_narrow", "_dark"  # at the end of the name of a picture for phones, and for dark pages
NIGHT, MOON = np.array([0.05, 0.07, 0.09]), np.array([0.90, 0.93, 0.95])  # white and black of a dark page
TINT = 0.2  # how far apart red, green and blue are in what is no grey
GLOW = 0.35  # of white that is mixed into a hue on a dark page
COLOURED = ("color", "facecolor", "edgecolor", "markerfacecolor", "markerfacecoloralt", "markeredgecolor")
STAR = 8.0  # points, of a marker that looks smaller than others
DECADES_ALONE = 300  # times the least value: from there on a logarithmic axis is numbered at decades alone
NEARLY = 0.05  # share of a place from which marks stand too close for numbers on one side of them
FAR = 30  # times the median of values: what reaches further needs a logarithmic axis


# how it looks


def linear_part(values: pd.Series) -> float | None:
    """Return up to which size an axis is linear, the median of `values`; None where it is so altogether."""
    sizes = values.abs().dropna()
    middle = float(sizes.median())
    return middle if sizes.max() > FAR * middle > 0 else None


def bars(value, low, high) -> list:
    """Return how far an interval reaches below and above a value, as error bars want it."""
    return [value - low, high - value]


# how it is kept


def save_figure(run: Run, figure: Figure, name: str, data: pd.DataFrame, caption: str) -> Figure:
    """Write PNG, PDF, data (CSV) and provenance (JSON) to the run's `figures/<notebook>/`.

    The same data give the same bytes. Returns the figure, which a notebook shows as wide as it was drawn,
    with the caption as its alternative text.
    """
    png = _png(figure)
    figure.set_layout_engine(None)  # the layout is found once, for the first file

    pdf = io.BytesIO()
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    with mock.patch.dict(os.environ, {"SOURCE_DATE_EPOCH": "0", **os.environ}):  # of fonts inside the file
        figure.savefig(pdf, format="pdf", metadata=undated)

    pictures = {".png": png, ".pdf": pdf.getvalue()}
    save_files(run, name, {".csv": _csv(data), **pictures}, caption)

    about = {"alt": caption, "width": round(SHOWN_PER_INCH * figure.get_figwidth())}
    figure._repr_mimebundle_ = lambda **_: ({}, {"image/png": about})  # IPython adds the picture itself

    return figure


def _png(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    figure.savefig(png, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return with_palette(png.getvalue())


def save_every_shape(
    root: Path,
    folder: str,
    name: str,
    draw: Callable[[bool], Figure],
    data: pd.DataFrame,
    caption: str,
    drawn_from: Sequence[str] = (),
) -> list[Path]:
    """Write a picture of published findings to `root/figures/<folder>`: wide, and as PNG alone for a phone
    (NARROW) and for a dark page (DARK).

    `draw` draws it, narrow where it is told so. Data name their findings in a column; `drawn_from` are other
    files that it shows, as paths from `root`. Returns the files.
    """
    provenance: dict[str, object] = {"drawn_from": list(drawn_from)}
    if "finding" in data:
        provenance["findings"] = data.finding.dropna().drop_duplicates().tolist()
    run = SimpleNamespace(folder=root, provenance=provenance, notebook=folder)  # what `save_figure` asks for

    wide, narrow = draw(False), draw(True)
    save_figure(run, wide, name, data, caption)
    others = {f"{NARROW}.png": _png(narrow), f"{DARK}.png": _png(darkened(wide))}
    others[f"{NARROW}{DARK}.png"] = _png(darkened(narrow))
    save_files(run, name, others)
    return sorted((root / "figures" / folder).glob(f"{name}*"))


def darkened(figure: Figure) -> Figure:
    """Turn the greys of a figure around for a dark page, and make its hues lighter; maps stay."""
    figure.draw_without_rendering()  # ticks are made by now
    artists = set(
        figure.findobj(lambda artist: not hasattr(artist, "patch"))
    )  # axes have their patch's colour
    artists |= {artist.get_bbox_patch() for artist in artists if isinstance(artist, Text)} - {None}

    for artist in artists:
        getters = {name: getattr(artist, f"get_{name}", None) for name in COLOURED}
        colours = {name: to_rgba_array(get()) for name, get in getters.items() if get is not None}
        for name, rgba in colours.items():
            if len(rgba):  # there may be none
                at_night = _at_night(rgba)
                getattr(artist, f"set_{name}")(at_night if len(rgba) > 1 else at_night[0])

    return figure


def _at_night(rgba: np.ndarray) -> np.ndarray:
    """Return colours (N, 4) as they are on a dark page."""
    rgb = rgba[:, :3]
    grey = rgb.mean(1, keepdims=True)
    turned = grey * NIGHT + (1 - grey) * MOON
    is_grey = np.ptp(rgb, axis=1, keepdims=True) < TINT
    return np.hstack([np.where(is_grey, turned, rgb + GLOW * (1 - rgb)), rgba[:, 3:]])


def save_table(run: Run, name: str, data: pd.DataFrame, caption: str, folder: Path | None = None) -> None:
    """Write a table (CSV) and its provenance (JSON) to the run's `figures/<notebook>/`, or to `folder`."""
    save_files(run, name, {".csv": _csv(data)}, caption, folder)


def _csv(data: pd.DataFrame) -> bytes:
    return data.to_csv(index=False, float_format="%.8g").encode()


def save_files(
    run: Run,
    name: str,
    contents: dict[str, bytes],
    caption: str | None = None,
    folder: Path | None = None,
) -> None:
    """Write files, by the ending behind `name`, to the run's `figures/<notebook>/`, or to `folder`.

    Beside them stands, as `<name>.json`, their caption, the provenance of the records that the run has read
    by now, and digests. Without a caption they join the files of a figure that is saved already.
    """
    folder = folder or run.folder / "figures" / run.notebook
    origin = folder / f"{name}.json"
    about = read_json(origin) if caption is None else {"caption": caption, **run.provenance, "files": {}}

    for ending, content in contents.items():
        file = folder / f"{name}{ending}"
        with atomic(file) as partial:
            partial.write_bytes(content)
        about["files"][file.name] = file_digest(file)

    write_json(origin, about)


def with_palette(png: bytes) -> bytes:
    """Return a PNG with at most 256 colours, where that makes it smaller: to a third for most figures."""
    packed = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(packed, format="PNG", optimize=True)
    return min(png, packed.getvalue(), key=len)


# what it shows


def intervals(frame: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """Return the mean of a column with its 95 % interval (`value`, `low`, `high`), a row per group of `by`.
    NaN is left out, and so are groups without two values.
    """
    groups = frame.groupby(by, sort=False)[column]
    means = {names: interval(part) for names, part in groups if part.count() > 1}
    rows = [[*names, mean.value, mean.low, mean.high] for names, mean in means.items()]
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
    dodge: bool = False,
    title: str = "",
    panel: str | None = None,
    sharey: bool = True,
    point: str | None = None,
) -> Figure:
    """Draw y against x, one line per value of `hue`, below a `title`; bars are 95 % intervals.

    `labels` names columns `x` and `y`, `interval_columns` are those of the interval's ends, `panel` is a
    column whose values have a panel each, and `point` one whose values are written beside the marks: below
    them where a mark of another line stands higher at nearly the same x, and once where several at one x have
    the same. With `dodge` what was measured at one x stands side by side, in a strip around it, and without
    lines.
    """
    lines = frame[hue].drop_duplicates().tolist()
    panels = dict(list(frame.groupby(panel, sort=False))) if panel else {"": frame}
    figure, axes = canvas(1, len(panels), (WIDTH, 3.6 if len(panels) < 3 else 2.9), sharey=sharey)
    linear = linear_part(frame[y]) if sharey else None
    low, high = interval_columns or (y, y)

    for axis, (head, drawn) in zip(axes[0], panels.items(), strict=True):
        places = sorted(drawn[x].unique())
        moved = _side_by_side(axis, drawn[x]) if dodge else drawn[x]

        for name, line in drawn.assign(moved=moved).groupby(hue, sort=False):
            line = line.sort_values(x)
            ends = bars(line[y], line[low], line[high]) if interval_columns else None
            look = series(name, lines.index(name)) | {"capsize": 2 if interval_columns else 0}
            look |= {"linestyle": "none"} if dodge else {}
            size = STAR if look["marker"] == "*" else 4.5
            called = CALLED.get(name, name)
            axis.errorbar(line.moved, line[y], ends, label=called, ms=size, lw=1.3, **look)

            for place, height, words in zip(line.moved, line[y], line[point] if point else [], strict=False):
                higher = drawn[drawn[y] > height]
                if ((higher[x] == place) & (higher[point] == words)).any():
                    continue

                several = (drawn[x] == place) & (drawn[point] == words)
                is_under = bool(np.isclose(higher[x], place, rtol=NEARLY).any())
                beside = {
                    "xytext": (-5, -9) if is_under else (5, 3),
                    "ha": "right" if is_under else "left",
                    "textcoords": "offset points",
                    "fontsize": 7.5,
                }
                color = look["color"] if several.sum() == 1 else BLACK
                axis.annotate(str(words), (place, height), color=color, **beside)

        if logx:
            axis.set_xscale("log")
            _number_logarithmic(axis.xaxis, frame[x])

        if dodge:
            axis.set_xticks(places)

        if logy:
            axis.set_yscale("log")
            _number_logarithmic(axis.yaxis, frame[y])
        elif linear:
            axis.set_yscale("symlog", linthresh=linear)
            axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))

        axis.set(xlabel=labels[x], title=head)

    axes[0, 0].set_ylabel(labels[y])

    return titled(figure, title, handles_in(axes[0]))


def handles_in(axes: Iterable[Axes]) -> list[Artist]:
    """Return what a legend of several panels shows: one of what has the same label in more than one."""
    by_label = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        by_label |= dict(zip(labels, handles, strict=True))
    return list(by_label.values())


def _side_by_side(axis: Axes, places: pd.Series) -> pd.Series:
    """Return where marks go that share a place, side by side around it, and shade a strip behind them."""
    gaps = np.diff(sorted(places.unique()))
    most = places.value_counts().max()
    step = (gaps.min() if len(gaps) else 1.0) / (most + 1)
    for place in places.unique():
        half = step * most / 2
        axis.axvspan(place - half, place + half, color=GREY, alpha=0.12, lw=0)
    return places + step * (places.groupby(places).cumcount() - (places.map(places.value_counts()) - 1) / 2)


def _number_logarithmic(axis: Axis, values: pd.Series) -> None:
    """Give a logarithmic axis plain numbers: at 1, 2 and 5, at more where it reaches less than a decade, at
    decades alone where it reaches far (DECADES_ALONE).
    """
    reach = values.max() / values.min()
    between = (1,) if reach > DECADES_ALONE else (1, 2, 5) if reach > 10 else (1, 1.5, 2, 3, 5, 7)
    axis.set_major_locator(LogLocator(subs=between))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def plot_nelbo(frame: pd.DataFrame, title: str) -> Figure:
    """Draw what `likelihood.nelbo` returns: losses at masked tokens against the share that is masked."""
    figure, [[axis]] = canvas(size=(WIDTH, 3.0))
    axis.plot(100 * frame.noise, frame.value, "o", color=BLUE, ms=3, alpha=0.35, mew=0, label="one mask")

    tenth = (10 * frame.noise).clip(upper=9.99).astype(int)
    tenths = frame.groupby(tenth)[["noise", "value"]].mean()
    axis.plot(100 * tenths.noise, tenths.value, color=BLUE, lw=1.6, label="mean over a tenth")

    mean = frame.value.mean()
    axis.axhline(mean, color=BLACK, lw=1.4, ls="--", label=f"NELBO: {mean:.2f} nats per token")

    axis.set(xlabel="masked tokens (%)", ylabel="nats per masked token", xlim=(0, 100))
    return titled(figure, title, axis.get_legend_handles_labels()[0])

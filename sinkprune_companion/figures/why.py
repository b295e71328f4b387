"""Pictures of why leaving sinks out changes little: where energy lies, what is foreseen, what is planted."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter
from matplotlib.transforms import ScaledTranslation, Transform

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.verdict_rule import fields_of
from sinkprune.figures.energy import READS
from sinkprune.figures.style import WIDTH, canvas, titled
from sinkprune_companion.experiments.why import (
    AS_IT_IS,
    ELSEWHERE,
    PLANTED,
    largest_ratio,
)
from sinkprune_companion.figures.figures import bars, handles_in
from sinkprune_companion.figures.looks import BLACK, BROWN, GREY, OLIVE, ORANGE, SKY, SLATE

SHAPES = {"q_proj": "o", "o_proj": "s", "gate_proj": "^", "down_proj": "D"}
HUES = {"q_proj": SLATE, "o_proj": OLIVE, "gate_proj": GREY, "down_proj": BROWN}


def plot_channels(channels: pd.DataFrame, places: Sequence[tuple[int, str]], title: str) -> Figure:
    """Draw every input channel of some linears: its norm across, up the share of energy that sinks hold.

    The dashed line is a half.
    """
    figure, axes = canvas(1, len(places), (WIDTH, 3.0), sharex=True, sharey=True)

    for axis, (layer, linear) in zip(axes[0], places, strict=True):
        part = channels[(channels.layer == layer) & (channels.linear == linear)]
        kind = linear.rpartition(".")[2]
        how = {"ms": 2, "mew": 0, "alpha": 0.45, "color": HUES.get(kind, BLACK)}  # most lie on each other
        axis.plot(part.norm, 100 * part.share, "o", **how)

        axis.axhline(50, color=BLACK, lw=0.8, ls="--")
        axis.set_xscale("log")
        axis.set_title(f"{kind}, layer {layer}")

    axes[0, 0].set_ylabel("sinks' share of its energy (%)")
    across = "norm of the channel: root of the sum of squares over all calibration tokens (no unit)"
    figure.supxlabel(across, fontsize=9)
    return titled(figure, title)


def plot_window(window: pd.DataFrame, title: str) -> Figure:
    """Draw a window of a score matrix, a table of `why.score_window`, below the norms of its channels.

    A kept weight is the darker the further its score is above the threshold of its row; pruned ones are
    white. Those that leaving sinks out exchanges have a coloured frame.
    """
    figure, axes = canvas(2, 1, (WIDTH, 4.2), sharex=True, height_ratios=[1, 1.6])
    (above,), (below,) = axes

    channels = window.drop_duplicates("place").sort_values("place")
    above.plot(channels.place, channels.norm, ".", ms=4, color=BROWN, label="norm with the sinks")
    above.plot(channels.place, channels.norm_without, ".", ms=4, color=SKY, label="norm without the sinks")
    above.set_yscale("log")
    above.set_ylabel("norm of\nthe channel")

    ratio = window.pivot(index="row", columns="place", values="over_threshold")
    darkness = np.log10(ratio.where(ratio >= 1))
    how = {"cmap": "Greys", "vmin": -0.3, "vmax": 1, "aspect": "auto", "interpolation": "nearest"}
    image = below.imshow(darkness, **how)

    rows = {row: place for place, row in enumerate(ratio.index)}
    lost = window[window.kept & ~window.kept_without]
    won = window[~window.kept & window.kept_without]
    frame = {"ls": "", "ms": 4, "mew": 1.1, "mfc": "none"}  # the cell shows through
    below.plot(lost.place, lost.row.map(rows), "s", mec=ORANGE, label="kept only with the sinks", **frame)
    below.plot(won.place, won.row.map(rows), "s", mec=SKY, label="kept only without the sinks", **frame)

    below.grid(visible=False)
    across = "input channels by norm: the largest ones, all of them, then some spread over the others"
    below.set(xlabel=across, ylabel="outputs", yticks=[])

    bar = figure.colorbar(image, ax=below, ticks=[0, 0.5, 1], pad=0.01)
    bar.ax.set_ylim(0, 1)  # below the threshold all is white
    bar.ax.set_yticklabels(["1", "3", "≥ 10"], fontsize=8)
    bar.set_label("score / threshold of its row, with\nthe sinks (pruned: white)", fontsize=8)

    return titled(figure, title, handles_in([above, below]))


def plot_foreseen(table: pd.DataFrame, title: str) -> Figure:
    """Draw the exact change of every map's mask against the predicted one, a panel per sparsity."""
    sparsities = sorted(table.sparsity.unique())
    figure, axes = canvas(1, len(sparsities), (WIDTH, 3.0), sharex=True, sharey=True)

    for axis, sparsity in zip(axes[0], sparsities, strict=True):
        part = table[table.sparsity == sparsity]
        ends = [100 * part.predicted.min(), 100 * part.predicted.max()]
        axis.plot(ends, ends, color=BLACK, lw=0.8)

        for kind, shape in SHAPES.items():
            of_kind = part[part.kind == kind]
            how = {"color": HUES[kind], "ms": 3.5, "mew": 0, "alpha": 0.7}
            axis.plot(100 * of_kind.predicted, 100 * of_kind.exact, shape, **how)

        apart = f"{sparsity:.0%} zeros, at most {largest_ratio(part):.1f} times apart"
        axis.set(xscale="log", yscale="log", xlabel="predicted (% of kept weights)", title=apart)
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter(FormatStrFormatter("%g"))

    axes[0, 0].set_ylabel("exact (% of kept weights)")
    handles = [
        Line2D([], [], color=HUES[kind], marker=shape, ls="", ms=4, label=READS[kind])
        for kind, shape in SHAPES.items()
    ]
    return titled(figure, title, handles)


class Look(NamedTuple):
    """How the line of a finding is drawn, and what a legend calls it."""

    label: str
    color: str
    marker: str
    linestyle: str = "-"
    is_filled: bool = True


ALL_LEFT_OUT = Look("all sinks left out", SKY, "^")
OFFICIAL_WEIGHTS = Look("official token weights", ORANGE, "D", "--", is_filled=False)
RANDOM_PLANTED = Look("random tokens planted and left out", GREY, "X", ":")
LOOKS = {  # by the name of a finding without its dose and sparsity
    "planted_gain": ALL_LEFT_OUT,
    "planted_official_gain": OFFICIAL_WEIGHTS,
    "planted_random_gain": RANDOM_PLANTED,
    "planted_sparsegpt_gain": ALL_LEFT_OUT,
    "planted_sparsegpt_official_gain": OFFICIAL_WEIGHTS,
    "planted_sparsegpt_random_gain": RANDOM_PLANTED,
}
BESIDE = 4  # points between marks of one dose: they would hide each other

Lines = Mapping[str, Mapping[float, Estimate]]  # estimates by dose, by the finding of a line, a name in LOOKS


def plot_doses(panels: Mapping[str, Lines], title: str) -> Figure:
    """Draw what leaving tokens out changes in the loss against the planted dose, a line per kind of token.

    `panels` has the lines of each panel by the panel's title. The band is what does not matter, the margin of
    the first line of a panel at every dose.
    """
    figure, axes = canvas(1, len(panels), (WIDTH, 3.2), sharex=True, sharey=True)
    doses = sorted({dose for lines in panels.values() for by_dose in lines.values() for dose in by_dose})

    for axis, (name, lines) in zip(axes[0], panels.items(), strict=True):
        axis.set_xscale("log")
        for place, (finding, by_dose) in enumerate(lines.items()):
            beside = BESIDE * (place - (len(lines) - 1) / 2) / 72
            moved = axis.transData + ScaledTranslation(beside, 0, figure.dpi_scale_trans)
            _draw_line(axis, LOOKS[finding], by_dose, moved)

        _draw_band(axis, next(iter(lines.values())))
        axis.axhline(0, color=BLACK, lw=0.8)
        axis.set_title(name)

        axis.set_xticks(doses, minor=False)
        axis.set_xticks([], minor=True)
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.margins(x=0.08)

    axes[0, 0].set_ylabel("loss, left out − kept (nats per token)\n← better")
    figure.supxlabel("inputs at the planted tokens, times as large", fontsize=10)

    return titled(figure, title, handles_in(axes[0]))


def _draw_line(axis: Axes, look: Look, by_dose: Mapping[float, Estimate], moved: Transform) -> None:
    """Draw estimates with their intervals by dose, in coordinates that are `moved`."""
    table = pd.DataFrame(fields_of(by_dose, "value", "low", "high"), index=list(by_dose))
    ends = bars(table.value, table.low, table.high)

    mark = {
        "color": look.color,
        "marker": look.marker,
        "ls": look.linestyle,
        "ms": 4,
        "lw": 1.3,
        "capsize": 2,
    }
    if not look.is_filled:
        mark["mfc"] = "white"
    axis.errorbar(table.index, table.value, ends, label=look.label, transform=moved, **mark)
    axis.update_datalim([(dose, end) for dose in by_dose for end in (table.low.min(), table.high.max())])


def _draw_band(axis: Axes, by_dose: Mapping[float, Estimate]) -> None:
    """Draw the margins of a line as a band; a line without margins has none."""
    margins = {dose: estimate.margin for dose, estimate in by_dose.items() if estimate.margin}
    if not margins:
        return

    limit = np.array(list(margins.values()))
    axis.fill_between(list(margins), -limit, limit, color=GREY, alpha=0.2, lw=0, label="does not matter")


ROOM = 2.6  # how many times as far as data go the names of rows begin, on the left
WHEN = {  # how cases of a kind look, and what a legend calls them
    PLANTED: ("planted in the statistics: inputs at the sinks made so many times as large", BROWN, "o"),
    AS_IT_IS: ("the model as it is", BLACK, "D"),
    ELSEWHERE: ("other models, whose loss is of other calibration text (notebooks 08 and 09)", SKY, "D"),
}


def plot_when(table: pd.DataFrame, title: str) -> Figure:
    """Draw what leaving sinks out changes in the loss against how much of the masks it exchanges.

    `table` is that of `why.foresight`. Where nothing is planted in several models, a panel at the top has a
    row for each of them. Beneath is a panel per sparsity: a pale block is what does not matter in a case, a
    grey stroke what another draw of calibration text exchanges there.
    """
    sparsities = sorted(table.zeros.unique())
    unplanted = {sparsity: _unplanted(table[table.zeros == sparsity]) for sparsity in sparsities}
    several = [sparsity for sparsity, cases in unplanted.items() if len(cases) > 1]

    heights = [0.4 + 0.26 * len(unplanted[sparsity]) for sparsity in several]
    heights += [3.2, *[2.3] * (len(sparsities) - 1)]
    figure, axes = canvas(len(heights), 1, (WIDTH, sum(heights)), height_ratios=heights)

    by_name, by_weights = axes[: len(several), 0], axes[len(several) :, 0]
    for axis, sparsity in zip(by_name, several, strict=True):
        _name_cases(axis, unplanted[sparsity])
        axis.set_title(f"{sparsity:.0%} zeros, nothing planted (in brackets: exchanged weights)")

    for axis, sparsity in zip(by_weights, sparsities, strict=True):
        axis.sharex(by_weights[0])
        at_sparsity = table[table.zeros == sparsity]
        is_above = sparsity in several
        _draw_panel(axis, at_sparsity.drop(_unplanted(at_sparsity).index) if is_above else at_sparsity)
        axis.set_title(f"{sparsity:.0%} zeros, planted effects" if is_above else f"{sparsity:.0%} zeros")
    by_weights[-1].set_xlabel("kept weights that leaving sinks out exchanges (%)")

    return titled(figure, title, handles_in([*by_weights, *by_name]))


def _unplanted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the cases in which nothing is planted."""
    return table[table.kind.isin([AS_IT_IS, ELSEWHERE])]


def _draw_panel(axis: Axes, table: pd.DataFrame) -> None:
    """Draw all cases at one sparsity."""
    for kind in WHEN:
        part = table[table.kind == kind]
        if len(part):
            _draw_cases(axis, part, kind)

    _name_points(axis, table)

    strokes = {"color": GREY, "marker": "|", "ls": "", "ms": 9, "mew": 1.5}
    axis.plot(100 * table.other_text, table.value, label="what other text exchanges in this case", **strokes)
    ends = (100 * table.other_text, 100 * table.exchanged)
    axis.hlines(table.value, *ends, color=GREY, lw=0.6, alpha=0.6)

    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_ylabel("loss, left out − kept\n(nats per token)\n← better")

    blocks = {"color": GREY, "alpha": 0.3, "lw": 9, "zorder": 1}
    axis.vlines(100 * table.exchanged, -table.margin, table.margin, label="does not matter", **blocks)
    axis.axhline(0, color=BLACK, lw=0.8)
    axis.margins(x=0.16)  # room for the names


def _name_points(axis: Axes, table: pd.DataFrame) -> None:
    """Write the name of every case beside its point."""
    ground = {"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.8}  # no line crosses the words
    words = {"textcoords": "offset points", "fontsize": 8, "va": "center", "bbox": ground}

    for row in table.itertuples():
        place = (100 * row.exchanged, row.value)
        side = -1 if row.other_text > row.exchanged else 1  # away from the stroke
        aligned = "right" if side < 0 else "left"
        axis.annotate(row.case, place, xytext=(7 * side, 0), ha=aligned, **words)


def _draw_cases(axis: Axes, cases: pd.DataFrame, kind: str) -> None:
    """Draw the cases of a kind with their intervals."""
    label, colour, shape = WHEN[kind]
    ends = bars(cases.value, cases.low, cases.high)
    look = {"color": colour, "marker": shape, "ls": "", "ms": 4.5, "lw": 1.2, "capsize": 2, "zorder": 3}
    axis.errorbar(100 * cases.exchanged, cases.value, ends, label=label, **look)


def _name_cases(axis: Axes, cases: pd.DataFrame) -> None:
    """Draw a row per case, by name and what it exchanges: its interval on the band that does not matter."""
    cases = cases.sort_values("exchanged", ascending=False).reset_index(drop=True)

    for place, row in enumerate(cases.itertuples()):
        label, colour, shape = WHEN[row.kind]
        axis.barh(place, 2 * row.margin, left=-row.margin, height=0.7, color=GREY, alpha=0.2, lw=0)
        ends = [[row.value - row.low], [row.high - row.value]]
        look = {"color": colour, "marker": shape, "ls": "", "ms": 4, "lw": 1.2, "capsize": 2}
        axis.errorbar(row.value, place, xerr=ends, label=label, **look)

    axis.axvline(0, color=BLACK, lw=0.8)
    furthest = max(cases.high.max(), -cases.low.min(), cases.margin.max())
    left = -ROOM * furthest
    for place, row in enumerate(cases.itertuples()):
        axis.text(left, place, f" {row.case} ({100 * row.exchanged:.2f} %)", va="center", fontsize=8)

    axis.set_xlim(left, 1.1 * furthest)
    axis.set_xticks([tick for tick in axis.get_xticks() if -furthest <= tick <= furthest])
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.set_xlabel("loss, left out − kept (nats per token); ← better")

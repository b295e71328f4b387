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
from sinkprune.evaluation.numbers import percent
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
from sinkprune_companion.figures.forests import plot_effects
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


SECTIONS = {  # what a heading says of the cases of a kind
    PLANTED: "planted: larger inputs at the sinks",
    AS_IT_IS: "nothing planted",
    ELSEWHERE: "nothing planted, other text",
}


def plot_when(table: pd.DataFrame, title: str) -> Figure:
    """Draw what leaving sinks out changes in the loss at 50 %, case by case, beside what it exchanges.

    `table` is that of `why.foresight`; the share of the kept weights stands in brackets.
    """
    cases = table[table.zeros == 0.5].sort_values("exchanged", kind="stable")
    names = [f"{case.case} ({percent(case.exchanged)})" for case in cases.itertuples()]
    drawn = cases.assign(comparison=names, verdict=cases.measured, section=cases.kind.map(SECTIONS))
    drawn = drawn.sort_values("kind", key=lambda kinds: kinds.map(list(SECTIONS).index), kind="stable")

    xlabel = "loss, sinks left out − kept (nats per token): ← better; in brackets: weights exchanged"
    return plot_effects(drawn, xlabel, title)

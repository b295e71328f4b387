"""Pictures of why leaving sinks out changes little: where energy lies, what is foreseen, what is planted."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter

from sinkprune.evaluation.intervals import Estimate
from sinkprune.figures.energy import READS
from sinkprune.figures.style import WIDTH, canvas, titled
from sinkprune_companion.figures.looks import BLACK, BROWN, GREY, OLIVE, SKY, SLATE

SHAPES = {"q_proj": "o", "o_proj": "s", "gate_proj": "^", "down_proj": "D"}
HUES = {"q_proj": SLATE, "o_proj": OLIVE, "gate_proj": GREY, "down_proj": BROWN}


def plot_channels(channels: pd.DataFrame, places: Sequence[tuple[int, str]], title: str) -> Figure:
    """Draw every input channel of some linears: its norm across, up the share of energy that sinks hold."""
    figure, axes = canvas(1, len(places), (WIDTH, 2.6), sharex=True, sharey=True)

    for axis, (layer, linear) in zip(axes[0], places, strict=True):
        part = channels[(channels.layer == layer) & (channels.linear == linear)]
        kind = linear.rpartition(".")[2]
        axis.plot(part.norm, 100 * part.share, "o", ms=2.5, mew=0, alpha=0.5, color=HUES.get(kind, BLACK))
        axis.set_xscale("log")
        axis.set(xlabel="norm of the channel", title=f"{kind}, layer {layer}")

    axes[0, 0].set_ylabel("sinks' share of its energy (%)")
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

        axis.set(
            xscale="log", yscale="log", xlabel="predicted (% of kept weights)", title=f"{sparsity:.0%} zeros"
        )
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter(FormatStrFormatter("%g"))

    axes[0, 0].set_ylabel("exact (% of kept weights)")
    handles = [
        Line2D([], [], color=HUES[kind], marker=shape, ls="", ms=4, label=READS[kind])
        for kind, shape in SHAPES.items()
    ]
    return titled(figure, title, handles)


def plot_doses(
    gains: Mapping[str, Mapping[float, Estimate]],
    title: str,
    axis_name: str = "inputs at these tokens, times",
) -> Figure:
    """Draw what leaving tokens out changes in the loss against the planted dose, a line per kind of token.

    `gains` has the estimates by dose, by the name of a line. The band is what does not matter: the margin at
    every dose.
    """
    looks = {"color": [SKY, BLACK, GREY, BROWN], "marker": ["o", "D", "X", "s"]}
    figure, [[axis]] = canvas(size=(WIDTH, 3.2))

    for place, (name, by_dose) in enumerate(gains.items()):
        doses = np.array(list(by_dose))
        value, low, high = (
            np.array([getattr(e, end) for e in by_dose.values()]) for end in ("value", "low", "high")
        )
        moved = doses * 1.06 ** (place - (len(gains) - 1) / 2)

        look = {kind: every[place % len(every)] for kind, every in looks.items()}
        axis.errorbar(moved, value, [value - low, high - value], label=name, ms=5, lw=1.3, capsize=2, **look)

    first = next(iter(gains.values()))
    margins = {dose: estimate.margin for dose, estimate in first.items() if estimate.margin}
    if margins:
        limit = np.array(list(margins.values()))
        axis.fill_between(list(margins), -limit, limit, color=GREY, alpha=0.2, lw=0, label="does not matter")

    axis.axhline(0, color=BLACK, lw=0.8)
    axis.set_xscale("log")

    axis.set_xticks(list(first), minor=False)
    axis.set_xticks([], minor=True)
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))

    axis.set(xlabel=axis_name, ylabel="loss, left out − kept (nats)")
    return titled(figure, title, axis.get_legend_handles_labels()[0])


def plot_when(table: pd.DataFrame, title: str) -> Figure:
    """Draw what leaving sinks out changes in the loss against how much of the masks it exchanges.

    `table` is that of `why.foresight`. The band is what does not matter, the dotted line what another draw
    of calibration text exchanges.
    """
    looks = {"planted": {"color": BROWN, "marker": "o"}, "as it is": {"color": SKY, "marker": "D"}}
    figure, [[axis]] = canvas(size=(WIDTH, 3.4))

    for kind, part in table.groupby("kind", sort=False):
        bars = [part.value - part.low, part.high - part.value]
        shares = 100 * part.exchanged
        label = {"planted": "inputs at the sinks made so many times as large"}.get(kind, "models as they are")
        axis.errorbar(shares, part.value, bars, ls="", ms=5, lw=1.2, capsize=2, label=label, **looks[kind])

    for row in table[table.kind == "planted"].itertuples():
        place = (100 * row.exchanged, row.value)
        axis.annotate(row.case, place, xytext=(6, 4), textcoords="offset points", fontsize=8)

    other_text = 100 * table.other_text.mean()
    axis.axvline(other_text, color=GREY, ls=":")
    axis.annotate(
        "other text", (other_text, 0.02), xycoords=("data", "axes fraction"), ha="right", fontsize=8
    )

    ordered = table.sort_values("exchanged")
    axis.fill_between(100 * ordered.exchanged, -ordered.margin, ordered.margin, color=GREY, alpha=0.2, lw=0)
    axis.axhline(0, color=BLACK, lw=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set(
        xlabel="kept weights that leaving sinks out exchanges (%)",
        ylabel="loss, left out − kept (nats per token)\n← better",
    )
    return titled(figure, title, axis.get_legend_handles_labels()[0])

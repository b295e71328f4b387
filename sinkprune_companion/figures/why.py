"""Pictures of why leaving sinks out changes little: where energy lies, what is foreseen, what is planted."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter

from sinkprune.evaluation.intervals import Estimate
from sinkprune.figures.energy import READS
from sinkprune.figures.style import WIDTH, canvas, titled
from sinkprune_companion.experiments.why import AS_IT_IS, ELSEWHERE, IN_MODEL, PLANTED
from sinkprune_companion.figures.looks import BLACK, BROWN, GREEN, GREY, OLIVE, ORANGE, SKY, SLATE

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


def plot_window(window: pd.DataFrame, title: str) -> Figure:
    """Draw a window of a score matrix, a table of `why.score_window`, below the norms of its channels.

    A kept weight is the darker the further its score is above the threshold of its row; pruned ones are
    white. Those that leaving sinks out exchanges are marked.
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
    mark = {"ls": "", "ms": 3.5, "mew": 0.4, "mec": BLACK}
    below.plot(lost.place, lost.row.map(rows), "v", color=ORANGE, label="kept only with the sinks", **mark)
    below.plot(won.place, won.row.map(rows), "^", color=SKY, label="kept only without the sinks", **mark)

    below.grid(visible=False)
    below.set(xlabel="input channels, the largest norm first", ylabel="outputs", yticks=[])
    bar = figure.colorbar(image, ax=below, ticks=[0, 0.5, 1], pad=0.01)
    bar.ax.set_yticklabels(["at the\nthreshold", "3 times", "10 times"], fontsize=8)

    handles = [*above.get_legend_handles_labels()[0], *below.get_legend_handles_labels()[0]]
    return titled(figure, title, handles)


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
    axis_name: str = "inputs at the planted tokens, times as large",
) -> Figure:
    """Draw what leaving tokens out changes in the loss against the planted dose, a line per kind of token.

    `gains` has the estimates by dose, by the name of a line. The band is what does not matter: the margin at
    every dose.
    """
    looks = {"color": [SKY, BLACK, GREY, GREEN], "marker": ["o", "D", "X", "s"]}
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

    axis.set(xlabel=axis_name, ylabel="loss, left out − kept (nats per token)")
    return titled(figure, title, axis.get_legend_handles_labels()[0])


WHEN = {  # how cases of a kind look, and what a legend calls them
    PLANTED: ("in the statistics alone, inputs at the sinks made so many times as large", BROWN, "o"),
    IN_MODEL: ("in the model, a vector so many usual inputs long added to them", ORANGE, "s"),
    AS_IT_IS: ("the model as it is", BLACK, "D"),
    ELSEWHERE: ("other models, whose loss is of other calibration text (notebook 08)", SKY, "D"),
}


def plot_when(table: pd.DataFrame, title: str) -> Figure:
    """Draw what leaving sinks out changes in the loss against how much of the masks it exchanges.

    `table` is that of `why.foresight`; a panel per sparsity. The band is what does not matter, a grey stroke
    what another draw of calibration text exchanges in a case. Where nothing is planted in several models they
    are named in a picture within the panel.
    """
    sparsities = sorted(table.zeros.unique())
    heights = [4.0, *[2.4] * (len(sparsities) - 1)]
    size = (WIDTH, sum(heights))
    figure, axes = canvas(len(sparsities), 1, size, sharex=True, height_ratios=heights)

    for axis, sparsity in zip(axes[:, 0], sparsities, strict=True):
        _draw_panel(axis, table[table.zeros == sparsity])
        if len(sparsities) > 1:
            axis.set_title(f"{sparsity:.0%} zeros")

    axes[-1, 0].set_xlabel("kept weights that leaving sinks out exchanges (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    return titled(figure, title, list(by_label.values()))


def _draw_panel(axis: Axes, table: pd.DataFrame) -> None:
    """Draw all cases at one sparsity."""
    for kind in WHEN:
        part = table[table.kind == kind]
        if len(part):
            _draw_cases(axis, part, kind)

    unplanted = table[table.kind.isin([AS_IT_IS, ELSEWHERE])]
    named = table if len(unplanted) == 1 else table.drop(unplanted.index)
    for row in named.itertuples():
        place = (100 * row.exchanged, row.value)
        axis.annotate(row.case, place, xytext=(6, 4), textcoords="offset points", fontsize=8)

    strokes = {"color": GREY, "marker": "|", "ls": "", "ms": 9, "mew": 1.5}
    axis.plot(100 * table.other_text, table.value, label="what other text exchanges there", **strokes)

    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_ylabel("loss, left out − kept\n(nats per token)\n← better")

    ordered = table.sort_values("exchanged")
    limits = (-ordered.margin, ordered.margin)
    axis.fill_between(100 * ordered.exchanged, *limits, color=GREY, alpha=0.2, lw=0)
    axis.axhline(0, color=BLACK, lw=0.8)

    if len(unplanted) > 1:
        _name_cases(axis.inset_axes((0.27, 0.52, 0.25, 0.4)), unplanted)


def _draw_cases(axis: Axes, cases: pd.DataFrame, kind: str) -> None:
    """Draw the cases of a kind with their intervals."""
    label, colour, shape = WHEN[kind]
    ends = [cases.value - cases.low, cases.high - cases.value]
    look = {"color": colour, "marker": shape, "ls": "", "ms": 5, "lw": 1.2, "capsize": 2}
    axis.errorbar(100 * cases.exchanged, cases.value, ends, label=label, **look)


def _name_cases(axis: Axes, cases: pd.DataFrame) -> None:
    """Draw a line per case, by name and what it exchanges: its interval on the band that does not matter."""
    cases = cases.sort_values("exchanged", ascending=False).reset_index(drop=True)

    for place, row in enumerate(cases.itertuples()):
        _, colour, shape = WHEN[row.kind]
        axis.barh(place, 2 * row.margin, left=-row.margin, height=0.7, color=GREY, alpha=0.2, lw=0)
        ends = [[row.value - row.low], [row.high - row.value]]
        axis.errorbar(row.value, place, xerr=ends, color=colour, marker=shape, ms=4, lw=1.2, capsize=2)

    axis.axvline(0, color=BLACK, lw=0.8)
    axis.set_yticks(
        range(len(cases)), [f"{row.case} ({100 * row.exchanged:.2f} %)" for row in cases.itertuples()]
    )
    axis.tick_params(labelsize=7)
    axis.set_title("the cases with nothing planted", fontsize=8)

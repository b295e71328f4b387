"""The picture of how many kept weights a choice of tokens exchanges, linear map by linear map."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, NullFormatter

from sinkprune.evaluation.numbers import percent
from sinkprune.figures.style import WIDTH, canvas, titled
from sinkprune_companion.experiments.token_reach import LARGEST, OTHER_TEXT, PLAIN_START, RANDOM, SINKS
from sinkprune_companion.figures.figures import save_figure
from sinkprune_companion.figures.forests import name_rows
from sinkprune_companion.figures.looks import BLACK, GREY, ORANGE, SKY
from sinkprune_companion.run.records import Run

ROWS = {  # choices of `token_reach`, from what exchanges most to what exchanges least
    OTHER_TEXT: "another draw of the text",
    LARGEST: "as many tokens as sinks,\nchosen by a greedy search",
    SINKS["all"]: "all sinks",
    SINKS["unstable"]: "the unstable sinks alone",
    RANDOM: "as many random tokens as sinks",
}
# the ring around the map in which sinks exchange most
RING = {"ls": "none", "marker": "o", "ms": 9, "mfc": "none", "mec": ORANGE, "mew": 1.5}


def reach_rows(reached: pd.DataFrame) -> pd.DataFrame:
    """Return what the picture shows: of every choice in ROWS, by the text's start, one row per linear map.

    Random tokens and those of the search are as many as there are sinks. `is_most` marks the map in which all
    sinks exchange most.
    """
    parts = []
    for _, part in reached.groupby("text", sort=False):
        sinks = part[part.choice == SINKS["all"]]
        is_as_many = ~part.choice.isin([RANDOM, LARGEST]) | part.tokens.isin(sinks.tokens)
        chosen = part[part.choice.isin(ROWS) & is_as_many]

        most = sinks.loc[sinks.changed.idxmax()]
        is_most = (chosen.layer == most.layer) & (chosen.linear == most.linear)
        parts.append(chosen.assign(is_most=is_most))

    return pd.concat(parts, ignore_index=True)


def plot_reach(rows: pd.DataFrame, title: str) -> Figure:
    """Draw `reach_rows`, a panel per start of the text: a dot for every map, and a line at their median."""
    starts = rows.text.drop_duplicates().tolist()
    size = (WIDTH, 0.9 + 0.45 * len(ROWS))
    figure, axes = canvas(1, len(starts), size, sharex=True, sharey=True)

    for axis, start in zip(axes[0], starts, strict=True):
        _draw_start(axis, rows[rows.text == start])
        axis.set_title(start, fontsize=8.5)

    axes[0, 0].set_xscale("log")
    axes[0, 0].xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[0, 0].xaxis.set_minor_formatter(NullFormatter())
    name_rows(axes[0, 0], list(ROWS.values()), above=0.6)
    for axis in axes[0, 1:]:
        axis.tick_params(axis="y", length=0)
        axis.grid(False, axis="y")

    figure.supxlabel("kept weights that are exchanged (%), logarithmic", fontsize=8.5)
    return titled(figure, title, _handles(rows))


def _draw_start(axis: Axes, rows: pd.DataFrame) -> None:
    """Draw the maps of one start of the text: choices below each other, maps in the same order in each."""
    for place, choice in enumerate(ROWS):
        row = rows[rows.choice == choice].sort_values(["layer", "linear"], kind="stable")
        if row.empty:
            continue

        exchanged = 100 * row.changed
        heights = place + np.linspace(-0.27, 0.27, len(row))
        colour = SKY if choice in SINKS.values() else GREY
        axis.plot(exchanged, heights, "o", ms=3.6, mew=0, alpha=0.8, color=colour)

        median = exchanged.median()
        axis.plot([median, median], [place - 0.4, place + 0.4], color=BLACK, lw=1.8)

        is_most = row.is_most.to_numpy()
        axis.plot(exchanged[is_most], heights[is_most], **RING)


def _handles(rows: pd.DataFrame) -> list[Line2D]:
    """Return the entries of the legend."""
    ringed = rows[rows.is_most][["layer", "linear"]].drop_duplicates()
    names = [f"{_short(each.linear)} of block {each.layer}" for each in ringed.itertuples()]

    return [
        Line2D([], [], ls="none", marker="o", ms=3.6, color=GREY, label="one linear map"),
        Line2D([], [], ls="none", marker="|", ms=10, mew=1.8, color=BLACK, label="median of the maps"),
        Line2D([], [], **RING, label=f"{' or '.join(names)}: there sinks exchange most"),
    ]


def _short(linear: str) -> str:
    return linear.rpartition(".")[2]


def _title(rows: pd.DataFrame, sparsity: float) -> str:
    """Return what the picture says of texts without a special first token."""
    plain = rows[rows.text == PLAIN_START]
    medians = plain.groupby("choice").changed.median()
    sinks, random, other = (percent(medians[choice]) for choice in (SINKS["all"], RANDOM, OTHER_TEXT))
    most = plain[plain.is_most & (plain.choice == SINKS["all"])].iloc[0]
    maps = (plain.choice == OTHER_TEXT).sum()

    return (
        f"At {100 * sparsity:g} %, in the median of {maps} linear maps, leaving sinks out exchanges {sinks} "
        f"of the kept weights, as many random tokens {random}, and another draw of the text {other}. In "
        f"one map, {_short(most.linear)} of block {most.layer}, sinks exchange {percent(most.changed)}"
    )


def save_reach(run: Run, reached: pd.DataFrame, sparsity: float) -> Figure:
    """Save and return the picture of `token_reach.reach_on_both_starts`, with all of that as its data."""
    rows = reach_rows(reached)
    has_sinks = (reached[reached.choice == SINKS["all"]].tokens > 0).all()
    title = _title(rows, sparsity) if has_sinks else "Kept weights that other calibration text exchanges"
    return save_figure(run, plot_reach(rows, title), "reach", reached, title)

"""The picture of README's first screen: a sink, the mask without it, and what changes the loss.

Dimensions: Q query position, K key position.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import number, percent
from sinkprune.evaluation.verdict_rule import HELPS, HURTS, NO_DIFFERENCE, TOO_FEW_DRAWS, UNDECIDED, fields_of
from sinkprune.figures.style import canvas
from sinkprune_companion.figures.forests import CAP, Judge
from sinkprune_companion.figures.looks import BLACK, GREY, INK, VERDICTS
from sinkprune_companion.margins import check_found

CAPTION = (
    "An attention map with a sink; how many kept weights change where sinks are left out, and with another "
    "sample of the calibration text; how much each change of the recipe changes the loss"
)
MAP = "figures/00_start_here/attention_maps.csv"  # the map of the first panel, from the repository's root
MAP_PANEL = "DLM"  # how the name of its panel begins

LOSS = "loss"
MASK = "kept weights that change"
LEFT_OUT = "sinks left out"
OTHER_TEXT = "other text"


class Row(NamedTuple):
    """A finding that the picture shows: in which part, and under which name."""

    section: str
    comparison: str
    finding: str


ROWS = (  # of the loss they are differences under the paper's protocol
    Row(LOSS, "unstable sinks left out", "03/unstable_minus_none_wikitext"),
    Row(LOSS, "all sinks left out", "03/all_sinks_minus_none_wikitext"),
    Row(LOSS, "official recipe, not Wanda", "03/paper_minus_wanda_wikitext"),
    Row(LOSS, "masked text, unpruned inputs", "03/noised_dense_minus_wanda_wikitext"),
    Row(LOSS, "SparseGPT, not Wanda", "03/sparsegpt_minus_wanda_wikitext"),
    Row(LOSS, "recommended, not SparseGPT", "03/recommended_minus_sparsegpt_wikitext"),
    Row(MASK, LEFT_OUT, "04/exact_50"),
    Row(MASK, OTHER_TEXT, "04/other_text_50"),
)
ABOUT_SINKS = {"unstable sinks left out", "all sinks left out"}
SAID = {  # of a difference, by its verdict
    HELPS: "lowers the loss by {}",
    HURTS: "raises the loss by {}",
    NO_DIFFERENCE: "no difference that matters",
    UNDECIDED: "undecided",
    TOO_FEW_DRAWS: "too few calibration draws",
}

WIDE = (7.0, 3.4)  # inches
NARROW = (3.6, 7.2)
DARK = "#444444"
PALE = "#C9D3E0"
ON_MAP = "#FFF3B0"  # words on a map, which is dark on every page
THOUSAND = 1000
GRID = (25, 40)  # rows and columns of a thousand kept weights
TITLE_SIZE = 9.0
SIZE = 8.5
SMALL = 8.0


# the data


def headline_table(estimates: Mapping[str, Estimate], judged: Judge) -> pd.DataFrame:
    """Return what the picture shows of `estimates`, a row for each of ROWS.

    Of the loss: a difference of two recipes (`value`, `low`, `high`, `draws`, `margin`) in nats per token,
    and its `verdict`, as `judged` gives it. Of the mask: a share of the kept weights. Raises KeyError where
    findings are missing.
    """
    check_found([row.finding for row in ROWS], estimates, "README's picture")

    frame = pd.DataFrame(ROWS)
    shown = [estimates[row.finding] for row in ROWS]
    frame = frame.assign(**fields_of(dict(enumerate(shown)), "value", "low", "high", "draws", "margin"))

    is_loss = frame.section == LOSS
    verdicts = judged([estimates[finding] for finding in frame.finding[is_loss]])
    frame["verdict"] = pd.Series(verdicts, frame.index[is_loss])
    return frame


def attention_map(root: Path) -> np.ndarray:
    """Return the published attention map of one head of the DLM (Q, K), whose rows add up to 1."""
    frame = pd.read_csv(root / MAP)
    panel = next(name for name in frame.panel.unique() if name.startswith(MAP_PANEL))
    return frame[frame.panel == panel].pivot(index="query", columns="key", values="attention").to_numpy()


# the picture


def plot_headline(frame: pd.DataFrame, map_QK: np.ndarray, is_narrow: bool = False) -> Figure:
    """Draw `headline_table` beside an attention map; `is_narrow` is for a phone, one part below the other."""
    figure, _ = canvas(size=NARROW if is_narrow else WIDE)
    figure.clear()
    if is_narrow:
        sink, masks, losses = figure.subfigures(3, 1, height_ratios=(2.4, 1.5, 2.9))
        left_out, other_text = masks.subplots(1, 2)
    else:
        sink, masks, losses = figure.subfigures(1, 3, width_ratios=(1.85, 1.5, 3.65))
        left_out, other_text = masks.subplots(2, 1)

    share = frame[frame.section == MASK].set_index("comparison").value
    _draw_sink(sink.subplots(), map_QK)
    _draw_thousand(left_out, share[LEFT_OUT], "All sinks left out")
    _draw_thousand(other_text, share[OTHER_TEXT], "Another text sample")
    _draw_losses(losses.subplots(), frame[frame.section == LOSS])

    title = textwrap.fill(_conclusion(frame), 42 if is_narrow else 90)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def _conclusion(frame: pd.DataFrame) -> str:
    """Return the title: what the picture says, as long as its verdicts say so."""
    of_sinks = frame[frame.comparison.isin(ABOUT_SINKS)]
    share = frame[frame.section == MASK].set_index("comparison").value

    if set(of_sinks.verdict) == {NO_DIFFERENCE} and share[LEFT_OUT] < share[OTHER_TEXT]:
        return "With half of the weights zero, leaving sinks out hardly changes the loss"
    return "A sink, the mask without it, and what changes the loss"


def _draw_sink(axis: Axes, map_QK: np.ndarray) -> None:
    """Draw an attention map and name its strongest key."""
    mass_K = map_QK.mean(0)
    sink = int(mass_K.argmax())
    axis.imshow(map_QK, cmap="cividis", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")

    axis.set_title(
        f"In a head that we chose,\none token, the sink, gets\n{percent(mass_K[sink])} of the attention",
        fontsize=TITLE_SIZE,
    )

    side = 1 if sink < len(mass_K) / 2 else -1
    place = (sink + side * 0.32 * len(mass_K), 0.8 * len(mass_K))
    words = {"color": ON_MAP, "fontsize": 10, "fontweight": "bold", "ha": "center", "va": "center"}
    arrow = {"arrowstyle": "->", "color": ON_MAP, "lw": 1.4}
    axis.annotate("sink", (sink + side, place[1]), place, arrowprops=arrow, **words)

    axis.set(xticks=[], yticks=[])
    axis.set_xlabel("token that is looked at", fontsize=SMALL)
    axis.set_ylabel("token that looks", fontsize=SMALL)
    axis.grid(False)


def _draw_thousand(axis: Axes, share: float, change: str) -> None:
    """Draw a thousand kept weights as squares, as many of them coloured as a change exchanges for others.

    Which ones are coloured means nothing: they are chosen by a seed.
    """
    count = round(THOUSAND * share)
    rows, columns = GRID
    axis.set(facecolor=PALE, aspect="equal", xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axis.set(xticks=np.arange(columns) - 0.5, yticks=np.arange(rows) - 0.5, xticklabels=[], yticklabels=[])
    axis.tick_params(length=0)
    axis.grid(color="white", lw=0.4, alpha=1)

    chosen = np.random.default_rng(0).choice(THOUSAND, count, replace=False)
    axis.plot(chosen % columns, chosen // columns, "s", color=INK, ms=3.2, mew=0)

    axis.set_title(f"{change}:\n{count} of {THOUSAND:,} kept\nweights exchanged", fontsize=TITLE_SIZE)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _draw_losses(axis: Axes, frame: pd.DataFrame) -> None:
    """Draw a row per change of the recipe: its interval, marked by its verdict, on what is negligible."""
    says = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "center", "fontsize": SMALL}

    for place, row in enumerate(frame.itertuples(index=False)):
        axis.barh(place, 2 * row.margin, 0.9, -row.margin, color=GREY, alpha=0.2, lw=0)
        axis.plot([row.low, row.high], [place, place], color=INK, lw=1.5)
        axis.vlines([row.low, row.high], place - CAP, place + CAP, color=INK, lw=1)  # above a mark
        axis.plot(row.value, place, ls="none", ms=4.5, **VERDICTS[row.verdict])
        words = SAID[row.verdict].format(number(abs(row.value)))
        axis.text(-0.03, place + 0.36, words, color=DARK, **says)

    axis.axvline(0, color=BLACK, lw=0.9)
    axis.set_yticks(range(len(frame)), frame.comparison, fontsize=SIZE)
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set_ylim(len(frame) - 0.3, -0.5)
    axis.locator_params(axis="x", nbins=4)
    axis.set_title("What changes the loss, with half\nof the weights zero", fontsize=TITLE_SIZE, loc="right")
    words = "loss, in nats per token: ← better\nlines: 95 % intervals; grey: too small to matter"
    axis.set_xlabel(words, fontsize=SMALL, x=1.0, ha="right")

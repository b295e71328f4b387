"""The picture of README's first screen: a sink, the mask without it, and what pruned models cost.

Dimensions: Q query position, K key position.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import number, percent
from sinkprune.evaluation.verdict_rule import HELPS, HURTS, NO_DIFFERENCE, UNDECIDED
from sinkprune.figures.style import canvas
from sinkprune_companion.figures.forests import Judge
from sinkprune_companion.figures.looks import GREY, INK, METHODS
from sinkprune_companion.margins import check_found, known_damage, share_that_matters

CAPTION = (
    "An attention map with a sink; how many kept weights change where sinks are left out, and with another "
    "sample of the calibration text; what pruned models cost"
)
MAP = "figures/00_start_here/attention_maps.csv"  # the map of the first panel, from the repository's root
MAP_PANEL = "DLM"  # how the name of its panel begins

COST = "cost"
MASK = "kept weights that change"


class CostRow(NamedTuple):
    """A recipe whose cost is drawn, and the difference that says how it compares with another one."""

    recipe: str  # as METHODS names it
    label: str
    cost: str  # the finding whose margin is a share of a cost
    is_first: bool  # whether the recipe is the first of that finding's two; its cost is the second's and more
    difference: str | None = None  # the finding that compares it
    beside: str = ""  # with which recipe
    sign: int = 1  # -1 where that finding is the other recipe − this one


LEFT_OUT = "sinks left out"
OTHER_TEXT = "other text"

# findings of the paper's protocol: what recipes cost, and, by label, how many kept weights change
OFFICIAL = "03/paper_minus_wanda_wikitext"
SINKS = "03/paper_minus_paper_sinks_kept_wikitext"
SPARSEGPT = "03/sparsegpt_minus_wanda_wikitext"
RECOMMENDED = "03/recommended_minus_sparsegpt_wikitext"
COSTS = (
    CostRow("wanda", "Wanda", OFFICIAL, False),
    CostRow("paper", "official recipe", OFFICIAL, True, OFFICIAL, "Wanda"),
    CostRow("paper-sinks-kept", "official, sinks kept", SINKS, False, SINKS, "official", -1),
    CostRow("sparsegpt", "SparseGPT", RECOMMENDED, False, SPARSEGPT, "Wanda"),
    CostRow("recommended", "recommended", RECOMMENDED, True, RECOMMENDED, "SparseGPT"),
)
MASKS = {LEFT_OUT: "04/exact_50", OTHER_TEXT: "04/other_text_50"}

# a verdict is a shape and a word
MARKS = {
    HELPS: ("<", "less than {}"),
    HURTS: (">", "more than {}"),
    NO_DIFFERENCE: ("D", "too close to {} to matter"),
    UNDECIDED: ("o", "undecided against {}"),
}
FEW_DRAWS = ("v", "too few draws against {}")
BASELINE = ("s", "")

WIDE = (7.0, 3.3)  # inches
NARROW = (3.6, 7.2)
DARK = "#444444"
PALE = "#C9D3E0"
THOUSAND = 1000
GRID = (25, 40)  # rows and columns of a thousand kept weights
TITLE_SIZE = 9.0
SIZE = 8.5
SMALL = 8.0


# the data


def headline_table(estimates: Mapping[str, Estimate], judged: Judge) -> pd.DataFrame:
    """Return what the picture shows of `estimates`, a row per recipe and per change of the mask.

    Of a recipe: its `cost` in nats per token, the `finding` that compares it with another recipe, that
    difference (`value`, `low`, `high`, `draws`, `margin`, its sign as the finding has it) and its `verdict`,
    for the recipe, as `judged` gives it. Wanda is compared with none. Of a change: the share of kept
    weights (`value`, `low`, `high`). Raises KeyError where findings are missing, and ValueError where one
    that a cost rests on has no margin.
    """
    needed = (OFFICIAL, SINKS, SPARSEGPT, RECOMMENDED, *MASKS.values())
    check_found(needed, estimates, "README's picture")

    rows = []
    for row in COSTS:
        cost = known_damage(row.cost, estimates)
        if row.is_first:
            cost += estimates[row.cost].value
        named = {"section": COST, "recipe": row.recipe, "comparison": row.label, "beside": row.beside}
        compared = {} if row.difference is None else _fields(row.difference, estimates)
        rows.append({**named, "sign": row.sign, "cost": cost, **compared})

    for label, finding in MASKS.items():
        rows.append({"section": MASK, "comparison": label, **_fields(finding, estimates)})

    frame = pd.DataFrame(rows)
    is_compared = (frame.section == COST) & frame.finding.notna()
    differences = [
        _turned(estimates[row.finding], row.sign) for row in frame[is_compared].itertuples(index=False)
    ]
    verdicts = judged(differences)
    frame["verdict"] = pd.Series(verdicts, frame.index[is_compared])
    return frame


def _fields(finding: str, estimates: Mapping[str, Estimate]) -> dict[str, object]:
    """Return a finding's name and numbers as fields of a row."""
    names = ("value", "low", "high", "draws", "margin")
    return {"finding": finding, **{name: getattr(estimates[finding], name) for name in names}}


def _turned(estimate: Estimate, sign: float) -> Estimate:
    """Return a difference, or for a sign of -1 that of the second recipe less the first."""
    if sign > 0:
        return estimate
    return replace(estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low)


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
        sink, masks, costs = figure.subfigures(3, 1, height_ratios=(2.4, 1.5, 2.9))
        left_out, other_text = masks.subplots(1, 2)
    else:
        sink, masks, costs = figure.subfigures(1, 3, width_ratios=(2.0, 1.5, 3.5))
        left_out, other_text = masks.subplots(2, 1)

    share = frame[frame.section == MASK].set_index("comparison").value
    _draw_sink(sink.subplots(), map_QK)
    _draw_thousand(left_out, share[LEFT_OUT], "All sinks left out")
    _draw_thousand(other_text, share[OTHER_TEXT], "Another text sample")
    _draw_costs(costs.subplots(), frame[frame.section == COST])

    title = textwrap.fill(_conclusion(frame), 42 if is_narrow else 90)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def _conclusion(frame: pd.DataFrame) -> str:
    """Return the title: what the picture says, as long as its verdicts say so."""
    verdict = frame.set_index("recipe").verdict["paper-sinks-kept"]
    share = frame[frame.section == MASK].set_index("comparison").value

    if verdict == NO_DIFFERENCE and share[LEFT_OUT] < share[OTHER_TEXT]:
        return "With half of the weights zero, leaving sinks out hardly changes the loss"
    return "A sink, the mask without it, and what pruned models cost"


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
    arrow = {"arrowstyle": "->", "color": "white", "lw": 1.4}
    place = (sink + side * 0.32 * len(mass_K), 0.8 * len(mass_K))

    axis.annotate(
        "sink",
        xy=(sink + side, place[1]),
        xytext=place,
        color="white",
        fontsize=10,
        fontweight="bold",
        ha="center",
        va="center",
        arrowprops=arrow,
    )

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
    axis.imshow(np.zeros(GRID), cmap=ListedColormap([PALE]), aspect="equal")
    axis.set_xticks(np.arange(columns) - 0.5, minor=True)
    axis.set_yticks(np.arange(rows) - 0.5, minor=True)
    axis.grid(True, which="minor", color="white", lw=0.4, alpha=1)

    chosen = np.random.default_rng(0).choice(THOUSAND, count, replace=False)
    axis.plot(chosen % columns, chosen // columns, "s", color=INK, ms=3.2, mew=0)

    axis.set(xticks=[], yticks=[])
    axis.tick_params(which="both", length=0)
    axis.set_title(f"{change}:\n{count} of {THOUSAND:,} kept\nweights exchanged", fontsize=TITLE_SIZE)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _draw_costs(axis: Axes, frame: pd.DataFrame) -> None:
    """Draw a row per recipe: its cost, marked by its verdict, beside a band of what is negligible."""
    reference = frame.iloc[0]
    margin = share_that_matters() * reference.cost
    axis.axvspan(reference.cost - margin, reference.cost + margin, color=GREY, alpha=0.15, lw=0)
    reach = frame.cost.max()
    for place, row in enumerate(frame.itertuples(index=False)):
        colour = METHODS[row.recipe].color
        marker, words = BASELINE if not row.beside else MARKS.get(row.verdict, FEW_DRAWS)
        ends = [row.cost, row.cost]
        if row.beside:
            ends = sorted(row.cost + row.sign * (end - row.value) for end in (row.low, row.high))
            axis.plot(ends, [place, place], color=colour, lw=1.6)
            reach = max(reach, ends[1])

        fill = "white" if row.verdict == UNDECIDED else colour
        axis.plot(row.cost, place, ls="none", marker=marker, ms=7, color=colour, mfc=fill)
        beside_mark = {"textcoords": "offset points", "ha": "right", "va": "center", "fontsize": SIZE}
        axis.annotate(number(row.cost), (ends[0], place), (-6, 0), **beside_mark)
        below_name = {
            "transform": axis.get_yaxis_transform(),
            "ha": "right",
            "va": "center",
            "fontsize": SMALL,
        }
        axis.text(-0.03, place + 0.36, words.format(row.beside), color=DARK, **below_name)

    axis.set_yticks(range(len(frame)), frame.comparison, fontsize=SIZE)
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set(ylim=(len(frame) - 0.4, -0.5), xlim=(0, 1.06 * reach))
    axis.set_title("Loss added by setting half\nof the weights to zero", fontsize=TITLE_SIZE, loc="right")
    words = (
        "nats per token; line: 95 % interval of the difference\n"
        "from the recipe named; grey: too close to Wanda to matter"
    )
    axis.set_xlabel(words, fontsize=SMALL, x=1.0, ha="right")

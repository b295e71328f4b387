"""The picture of the paper's claims: how far each number lies from its bar, in units of what matters."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETLEFT, CARETRIGHT

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.numbers import number
from sinkprune.figures.style import canvas, titled
from sinkprune_companion.figures.forests import handles_of, marks_of
from sinkprune_companion.figures.looks import GREY, INK, ON_CLAIMS
from sinkprune_companion.ledger.claims import CLAIM, CONDITION, Claim, controls_of

CAPTION = (
    "The paper's claims: the distance of each number from its bar, in units of the smallest difference that "
    "matters, with its verdict; ° marks a question that was chosen or worded when its number had been seen. "
    "A small mark is the claim under another condition, with the verdict there; controls are in the data"
)
TITLE = "Each claim of the paper, and its answer under every condition that was measured"
GROUPS = {  # ids of the claims and their words in the picture
    "Do sinks move?": {
        "sinks-move": "sinks move more in a DLM than in an AR model",
        "sinks-transient": "sinks of a DLM are often transient",
        "ar-anchors": "sinks of an AR model stay",
        "ar-prefix": "sinks of an AR model are its first tokens",
        "dlm-spread": "attention is spread more evenly in a DLM",
    },
    "Are they needed?": {
        "sinks-less-essential": "a DLM needs its sinks less than an AR model",
        "sinks-fade": "sinks matter early and fade later",
        "ar-keeps-sinks": "keeping sinks helps to prune an AR model",
        "dlm-keeps-sinks": "keeping sinks harms when a DLM is pruned",
    },
    "Does sink-aware pruning help?": {
        "code-leaves-out-unstable": "the code tells unstable sinks from stable ones",
        "control-weights-alone": "leaving unstable sinks out helps by itself",
        "paper-beats-wanda": "the official recipe outperforms Wanda",
        "matches-wanda": "it matches or outperforms Wanda",
        "matches-sparsegpt": "it matches or outperforms SparseGPT",
        "higher-sparsity": "the gain over Wanda grows with sparsity",
        "structured-50": "it helps to prune whole units",
        "quality-efficiency": "it beats the dense model in fewer steps",
        "llada-average": "the same on LLaDA-8B",
    },
}
REACH = 5.0  # margins: what lies further is cut
ROOM = 1.9  # margins beside it, for the numbers of what is cut
WIDE = 7.0  # inches
NARROW = 3.6
ROW = 0.27
TWO_LINES = 0.42  # of a row whose words stand above it


# the data


def strip_table(
    ledger: Sequence[Claim], estimates: Mapping[str, Estimate], verdicts: Mapping[str, str]
) -> pd.DataFrame:
    """Return a row per claim of the paper, and per condition and control of it, beneath its claim.

    Claims come in the order of GROUPS. `estimates` are by finding, `verdicts` by the claim's id. `value`,
    `low` and `high` count margins from the bar, above zero on the side that the row claims; they are NaN for
    what has no number. `is_exploratory` is true for a question that was chosen or worded when its number had
    been seen.
    """
    by_id = {claim.id: claim for claim in ledger}
    rows = []

    for group, words in GROUPS.items():
        for name, says in words.items():
            claim = by_id[name]
            for row in (claim, *controls_of(claim, ledger)):
                about = {"group": group, "words": says, **_about(row), "verdict": verdicts[row.id]}
                estimate = estimates.get(row.finding or "")
                if estimate is not None:
                    about |= {"finding": row.finding, **_in_margins(estimate, row)}
                rows.append(about)

    return pd.DataFrame(rows)


def _about(claim: Claim) -> dict[str, object]:
    """Return what the table says of a claim, a condition or a control, whatever was measured."""
    return {
        "id": claim.id,
        "kind": claim.kind,
        "claim": claim.says,
        "is_exploratory": claim.seen_first,
    }


def _in_margins(estimate: Estimate, claim: Claim) -> dict[str, float]:
    """Return an estimate's distance from the bar of a claim, in margins, above zero on the claim's side."""
    margin = claim.margin_of(estimate) or estimate.margin
    if margin is None:
        return {}

    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = ((end - claim.against) / margin for end in ends)
    if claim.side == "below":
        value, low, high = -value, -high, -low
    return {"value": value, "low": low, "high": high}


# the picture


def plot_strip(table: pd.DataFrame, is_narrow: bool = False) -> Figure:
    """Draw `strip_table`: a row per claim, its conditions as small marks; `is_narrow` is for a phone."""
    claims = table[table.kind == CLAIM]
    conditions = table[table.kind == CONDITION]
    places = _places(claims)
    row_height = TWO_LINES if is_narrow else ROW
    size = (NARROW if is_narrow else WIDE, 0.8 + row_height * (max(places.values()) + 1))
    figure, [[axis]] = canvas(size=size)

    shift, height = (0.22, 0.5) if is_narrow else (0.0, 1.0)  # down, from the words above
    for row in claims.itertuples(index=False):
        place = places[row.id] + shift
        for condition in conditions[conditions.words == row.words].dropna(subset="value").itertuples():
            _draw_condition(axis, condition, place)
        _draw_row(axis, row, place, height)

    _name_rows(axis, claims, places, is_narrow)
    axis.set(xlim=(-REACH - ROOM, REACH + ROOM), ylim=(max(places.values()) + 0.7, -0.7))
    axis.set_xticks([-4, -2, 0, 2, 4])
    axis.tick_params(axis="y", length=0)
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    direction = "← against the paper · in its favour →"
    scale = "number − bar, in margins"
    band = "band: too small to matter"
    axis.set_xlabel("\n".join([direction, scale, band]) if is_narrow else f"{direction}\n({scale}; {band})")
    return titled(figure, TITLE, _handles(table[table.kind.isin([CLAIM, CONDITION])]))


def _places(claims: pd.DataFrame) -> dict[str, int]:
    """Return the row of every claim by its id, and that of every group's heading by its name."""
    places: dict[str, int] = {}
    for row in claims.itertuples(index=False):
        if row.group not in places:
            places[row.group] = len(places)
        places[row.id] = len(places)
    return places


def _draw_condition(axis: Axes, row: object, place: float) -> None:
    """Draw a small mark for a claim under another condition, at the end of the axis where it lies beyond."""
    at = float(np.clip(row.value, -REACH, REACH))
    axis.plot(at, place, ls="none", ms=4.5, alpha=0.6, **ON_CLAIMS[row.verdict])


def _draw_row(axis: Axes, row: object, place: float, height: float) -> None:
    """Draw the interval of a claim and its mark on a band, with the number where it lies beyond the axis."""
    if np.isnan(row.value):
        axis.text(0, place, row.verdict, **_small("center"))
        return

    axis.barh(place, 2, height, -1, color=GREY, alpha=0.18, lw=0)
    axis.vlines(0, place - height / 2, place + height / 2, color=INK, lw=0.8)
    ends = np.clip([row.low, row.high], -REACH, REACH)
    axis.plot(ends, [place, place], color=INK, lw=1.5, solid_capstyle="butt")
    if row.low < -REACH:
        axis.plot(-REACH - 0.6, place, marker=CARETLEFT, color=INK, ms=6, clip_on=False)
    if row.high > REACH:
        axis.plot(REACH + 0.6, place, marker=CARETRIGHT, color=INK, ms=6, clip_on=False)
    if abs(row.value) <= REACH:
        axis.plot(row.value, place, ls="none", ms=7, **ON_CLAIMS[row.verdict])
        return

    side = np.sign(row.value)
    axis.plot(side * REACH, place, ls="none", ms=7, **ON_CLAIMS[row.verdict])
    beyond = side * (REACH + 0.9)
    axis.text(beyond, place, number(row.value), **_small("left" if side > 0 else "right"))


def _small(side: str) -> dict[str, object]:
    """Return how words within the picture are set, in matplotlib's words."""
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    return {"ha": side, "va": "center", "fontsize": 8.5, "color": INK, "bbox": behind}


def _name_rows(axis: Axes, claims: pd.DataFrame, places: Mapping[str, int], is_narrow: bool) -> None:
    """Name the rows and their groups: left of the axis, or above every row where `is_narrow`."""
    axis.set_yticks([])
    for row in claims.drop_duplicates("group").itertuples(index=False):
        _name(axis, row.group, places[row.group], is_narrow, weight="bold")
    for row in claims.itertuples(index=False):
        words = f"{row.words}°" if row.is_exploratory else row.words
        _name(axis, words, places[row.id] - (0.22 if is_narrow else 0), is_narrow)


def _name(axis: Axes, words: str, place: float, is_narrow: bool, weight: str = "normal") -> None:
    """Write the name of a row."""
    x, side = (0.0, "left") if is_narrow else (-0.02, "right")
    how = {"transform": axis.get_yaxis_transform(), "ha": side, "va": "center", "fontsize": 9}
    axis.text(x, place, words, weight=weight, **how)


def _handles(rows: pd.DataFrame) -> list[Line2D]:
    """Return the entries of the legend: the verdicts that have marks, and what a small mark is."""
    marked = rows[rows.verdict.isin(ON_CLAIMS) & rows.value.notna()]
    handles = handles_of(marks_of(marked.verdict, ON_CLAIMS), ls="none", ms=7)
    small = Line2D([], [], ls="none", marker="o", ms=4, color=GREY, label="small: under another condition")
    return [*handles, small]

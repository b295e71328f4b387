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
from sinkprune.evaluation.verdict_rule import (
    CONTRADICTED,
    NO_DIFFERENCE,
    NOT_RUN,
    REPRODUCED,
    TOO_FEW_DRAWS,
    UNDECIDED,
)
from sinkprune.figures.style import canvas, titled
from sinkprune_companion.figures.forests import handles_of, marks_of
from sinkprune_companion.figures.looks import GREY, INK, ON_CLAIMS
from sinkprune_companion.ledger.claims import Claim, controls_of

CAPTION = (
    "The paper's thirteen claims: the distance of each number from its bar, in units of the smallest "
    "difference that matters, with its verdict; ° marks a question that was chosen or worded when its number "
    "had been seen. A grey stroke is the claim under another condition or in "
    "another training, or a control that would speak for it; controls that would speak against it are in the "
    "data alone"
)
GROUPS = {  # ids of the claims and their words in the picture
    "Do sinks move?": {
        "sinks-move": "sinks move more in a DLM than in an AR model",
        "sinks-transient": "most sinks of a DLM are transient",
        "ar-anchors": "sinks of an AR model stay",
        "dlm-spread": "attention is spread more evenly in a DLM",
        "code-leaves-out-unstable": "most of what the code leaves out is unstable",
    },
    "Are they needed?": {
        "sinks-less-essential": "a DLM loses less without sinks in its middle layers",
        "ar-keeps-sinks": "keeping sinks helps to prune an AR model",
    },
    "Does sink-aware pruning help?": {
        "paper-beats-wanda": "the official recipe beats Wanda",
        "control-weights-alone": "leaving unstable sinks out helps by itself",
        "paper-beats-sparsegpt": "the official sink weights help SparseGPT",
        "higher-sparsity": "the gain over Wanda grows with sparsity",
        "structured-50": "the sink-aware recipe helps to prune whole units",
        "llada-average": "sink-aware beats plain pruning on LLaDA-8B",
    },
}
CONDITIONS = {  # in which a claim was measured that has no controls in the ledger, as its finding names them
    "dlm-spread": (
        "first_token",
        "tokens_512",
        "tokens_1024",
        "dream",
        "samples",
        "documentation",
        "from_nothing",
    ),
}
STROKE = "stroke"  # the kind of a row that is no row of the ledger
COUNTED = {  # how the title counts verdicts
    REPRODUCED: "are reproduced",
    CONTRADICTED: "contradicted",
    NO_DIFFERENCE: "without a difference that matters",
    UNDECIDED: "undecided",
    TOO_FEW_DRAWS: "with too few draws",
    NOT_RUN: "not run",
}
REACH = 5.0  # margins: what lies further is cut
ROOM = 1.9  # margins beside it, for the numbers of what is cut
WIDE = 7.0  # inches
NARROW = 3.6
ROW = 0.27
TWO_LINES = 0.42  # of a row whose words stand above it


# the data


def strip_table(
    ledger: Sequence[Claim],
    estimates: Mapping[str, Estimate],
    verdicts: Mapping[str, str],
    trainings: Mapping[str, Mapping[str, Estimate]],
) -> pd.DataFrame:
    """Return a row per claim of the paper, per control and per other measurement of it, beneath its claim.

    Claims come in the order of GROUPS. `estimates` are by finding, `trainings` those of other trainings by
    their names, and `verdicts` are by the claim's id. `value`, `low` and `high` count margins from the bar,
    above zero on the side that the row claims; they are NaN for what was not run. `is_drawn` is false for a
    control that would speak against its claim, and `is_exploratory` true for a question that was chosen or
    worded when its number had been seen. Raises KeyError for a condition of CONDITIONS that has no finding.
    """
    by_id = {claim.id: claim for claim in ledger}
    rows = []

    for group, words in GROUPS.items():
        for name, says in words.items():
            claim = by_id[name]
            place = {"group": group, "words": says}

            for row in (claim, *controls_of(claim, ledger)):
                about = {**place, **_about(row, row.kind), "verdict": verdicts[row.id]}
                estimate = estimates.get(row.finding or "")
                if estimate is not None:
                    about |= {"finding": row.finding, **_in_margins(estimate, row)}
                rows.append(about)

            for condition in CONDITIONS.get(name, ()):
                finding = f"{claim.finding}_{condition}"
                measured = {"finding": finding, **_in_margins(estimates[finding], claim)}
                rows.append({**place, **_about(claim, STROKE), **measured})

            for training, found in trainings.items():
                if claim.finding in found:
                    measured = {"finding": claim.finding, **_in_margins(found[claim.finding], claim)}
                    rows.append({**place, **_about(claim, STROKE), **measured, "training": training})

    return pd.DataFrame(rows)


def _about(claim: Claim, kind: str) -> dict[str, object]:
    """Return what the table says of a claim or control, whatever was measured."""
    return {
        "id": claim.id,
        "kind": kind,
        "claim": claim.says,
        "is_drawn": claim.speaks_for_paper,
        "is_exploratory": claim.seen_first,
    }


def _in_margins(estimate: Estimate, claim: Claim) -> dict[str, float]:
    """Return an estimate's distance from the bar of a claim, in margins, above zero on the claim's side."""
    margin = claim.margin_of(estimate)
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = ((end - claim.against) / margin for end in ends)
    if claim.side == "below":
        value, low, high = -value, -high, -low
    return {"value": value, "low": low, "high": high}


# the picture


def plot_strip(table: pd.DataFrame, is_narrow: bool = False) -> Figure:
    """Draw `strip_table`: a row per claim, with what is beneath it as strokes; `is_narrow` is for a phone."""
    claims = table[table.kind == "claim"]
    places = _places(claims)
    row_height = TWO_LINES if is_narrow else ROW
    size = (NARROW if is_narrow else WIDE, 0.8 + row_height * (max(places.values()) + 1))
    figure, [[axis]] = canvas(size=size)

    axis.axvspan(-1, 1, color=GREY, alpha=0.18, lw=0)
    axis.axvline(0, color=INK, lw=0.8)
    shift = 0.22 if is_narrow else 0.0  # down, from the words above
    for row in claims.itertuples(index=False):
        place = places[row.id] + shift
        is_stroke = (table.words == row.words) & (table.kind != "claim") & table.is_drawn
        strokes = table[is_stroke].value.dropna()
        axis.plot(strokes.clip(-REACH, REACH), [place] * len(strokes), "|", color=GREY, alpha=0.55, ms=9)
        _draw_row(axis, row, place)

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
    return titled(figure, _title(claims), _handles(claims))


def _places(claims: pd.DataFrame) -> dict[str, int]:
    """Return the row of every claim by its id, and that of every group's heading by its name."""
    places: dict[str, int] = {}
    for row in claims.itertuples(index=False):
        if row.group not in places:
            places[row.group] = len(places)
        places[row.id] = len(places)
    return places


def _draw_row(axis: Axes, row: object, place: float) -> None:
    """Draw the interval of a claim and its mark, with the number where it lies beyond the axis."""
    if np.isnan(row.value):
        axis.text(0, place, row.verdict, **_small("center"))
        return

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


def _title(claims: pd.DataFrame) -> str:
    """Return the title: how many claims have which verdict."""
    counts = claims.verdict.value_counts()
    parts = [f"{counts[verdict]} {says}" for verdict, says in COUNTED.items() if verdict in counts]
    return f"Of {len(claims)} claims of the paper, {', '.join(parts[:-1])} and {parts[-1]}"


def _handles(claims: pd.DataFrame) -> list[Line2D]:
    """Return the entries of the legend: verdicts that occur, and strokes."""
    handles = handles_of(marks_of(claims.verdict, ON_CLAIMS), ls="none", ms=7)
    stroke = Line2D(
        [], [], ls="none", marker="|", ms=9, color=GREY, alpha=0.55, label="under another condition"
    )
    return [*handles, stroke]

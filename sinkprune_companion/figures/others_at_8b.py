"""The picture of what others measured at 8B of sink-aware methods, beside the paper's numbers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkprune.figures.style import canvas, titled
from sinkprune_companion.figures.forests import name_rows
from sinkprune_companion.figures.looks import GREY, INK, METHODS
from sinkprune_companion.ledger import others

CAPTION = (
    "LLaDA-8B on WinoGrande: accuracy of the sink-aware method less that of the plain one, as others "
    "measured it, with 95 % intervals, and as the paper prints it"
)
RECIPES = {"Wanda": "wanda", "SparseGPT": "sparsegpt"}  # as METHODS names them
WIDE = (7.0, 2.6)  # inches
NARROW = (3.6, 3.9)


# the data


def others_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return a row per difference that others measured, in points of accuracy, with interval and `margin`.

    `paper` is the paper's difference and `is_second_hand` whether that is as the source quotes it, unchecked.
    """
    rows = []

    for run in runs:
        for row in run["rows"]:
            baseline = row["baseline"]
            if baseline is None:
                continue

            found = others.difference(run, row)
            rows.append(
                {
                    "run": run["id"],
                    "method": baseline["method"],
                    "sparsity": row["sparsity"],
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                    "margin": found.margin,
                    "paper": row["paper"] - baseline["paper"],
                    "is_second_hand": bool(row.get("second_hand")),
                }
            )

    return pd.DataFrame(rows).sort_values(["method", "sparsity"], ascending=[False, True], ignore_index=True)


# the picture


def plot_others(table: pd.DataFrame, is_narrow: bool = False) -> Figure:
    """Draw `others_table`: a row per method and sparsity; `is_narrow` is for a phone, names above rows."""
    figure, [[axis]] = canvas(size=NARROW if is_narrow else WIDE)
    axis.axvline(0, color=INK, lw=0.8)
    names = [f"{row.method}, {row.sparsity:.0%}".replace("%", " %") for row in table.itertuples()]
    for place, row in enumerate(table.itertuples(index=False)):
        _draw_row(axis, row, place)

    name_rows(axis, [""] * len(table) if is_narrow else names, above=0.7, size=9)
    axis.spines["left"].set_visible(not is_narrow)
    if is_narrow:
        for place, name in enumerate(names):
            axis.text(0.01, place - 0.42, name, transform=axis.get_yaxis_transform(), va="center", fontsize=9)
    words = [
        "sink-aware − plain (points of accuracy): better →",
        "line: 95 %, not paired; band: too small to matter",
    ]
    axis.set_xlabel("\n".join(words), fontsize=8 if is_narrow else 9)
    return titled(figure, _title(table), _handles())


def _draw_row(axis: Axes, row: object, place: int) -> None:
    """Draw the interval that others found, and the paper's number beneath it."""
    look = METHODS[RECIPES[row.method]]
    if not np.isnan(row.margin):
        axis.barh(place, 2 * row.margin, 0.9, -row.margin, color=GREY, alpha=0.22, lw=0)
    axis.plot([row.low, row.high], [place, place], color=look.color, lw=1.6)
    axis.plot(row.value, place, ls="none", marker=look.marker, color=look.color, ms=6)
    fill = "white" if row.is_second_hand else INK
    axis.plot(row.paper, place + 0.24, ls="none", marker="*", color=INK, mfc=fill, ms=8)


def _title(table: pd.DataFrame) -> str:
    """Return the title: what others' intervals say."""
    has_zero = (table.low < 0) & (table.high > 0)
    has_paper = (table.low < table.paper) & (table.paper < table.high)
    if (has_zero & has_paper).all():
        return (
            "At 8B, on WinoGrande, what others measured is too imprecise to confirm or refute the paper: "
            "every interval holds zero and the paper's number"
        )
    return "At 8B, on WinoGrande: what others measured, and the paper"


def _handles() -> list[Line2D]:
    """Return the entries of the legend."""
    marks = [
        Line2D(
            [], [], color=METHODS[name].color, marker=METHODS[name].marker, ms=6, label=f"{method}, by others"
        )
        for method, name in RECIPES.items()
    ]

    star = {"ls": "none", "marker": "*", "color": INK, "ms": 8}
    return [
        *marks,
        Line2D([], [], label="the paper", **star),
        Line2D([], [], label="the paper, second hand", mfc="white", **star),
    ]

"""How every figure looks: one style, one palette, one place for legends.

Colours are Okabe and Ito's, safe for colour-blind readers, and every series has a marker or line style of its
own.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure

ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
RED = "#D55E00"
PINK = "#CC79A7"
BLACK = "#000000"
GREY = "#7F7F7F"
MONOSPACED = "DejaVu Sans Mono"
SERIES = [  # colour, marker and line
    (BLACK, "o", "-"),
    (BLUE, "s", "--"),
    (ORANGE, "D", "-."),
    (GREEN, "^", ":"),
    (RED, "v", (0, (5, 1))),
    (PINK, "P", (0, (3, 1, 1, 1))),
    (SKY, "X", (0, (1, 1))),
    (GREY, "*", (0, (8, 2))),
    (YELLOW, "h", (0, (2, 3))),
]
LONG = (0, (5, 1))
DOTTED = (0, (1, 1))
METHODS = {
    "diffusion": (BLUE, "o", "-"),
    "autoregressive": (RED, "s", "--"),
    "dense": (BLACK, "o", "-"),
    "magnitude": (GREY, "X", ":"),
    "wanda": (BLUE, "s", "-"),
    "wanda-unmatched": (BLUE, "v", ":"),
    "dwanda": (SKY, "P", "--"),
    "noised-dense": (SKY, "X", "-."),
    "paper": (RED, "D", "-"),
    "paper-no-sinks": (RED, "h", ":"),
    "all-sinks": (ORANGE, "^", "--"),
    "unstable": (ORANGE, "o", "-"),
    "stable": (YELLOW, "^", "-."),
    "random": (GREY, "*", "--"),
    "only-sinks": (GREY, "v", "-."),
    "sparsegpt": (GREEN, "s", "-"),
    "paper-sparsegpt": (GREEN, "D", "--"),
    "sparsegpt-unstable": (GREEN, "^", ":"),
    "sparsegpt-noised": (GREEN, "o", "-."),
    "SparseGPT, half noised": (SKY, "D", "--"),
    "recommended": (BLACK, "*", ":"),
    "structured": (PINK, "s", "-"),
    "structured-sink": (PINK, "D", "--"),
    "structured-no-sinks": (PINK, "h", ":"),
    "structured-magnitude": (PINK, "X", LONG),
    "flap": (PINK, "P", DOTTED),
}
STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "sinkprune",
}
HANDLE_INCHES = 0.5  # what a legend's entry takes beside its letters
LETTER_INCHES = 0.055
LEGEND_ROW_INCHES = 0.17
TITLE_LETTERS_PER_INCH = 12.5
TITLE_LINE_INCHES = 0.18
FAR = 30  # times the median of values: what reaches further needs a logarithmic axis


def series(name: str, place: int) -> dict[str, str | tuple]:
    """Return how a series is drawn: a method as everywhere, anything else by its place in the figure.

    In matplotlib's words: `color`, `marker` and `linestyle`.
    """
    look = METHODS.get(name, SERIES[place % len(SERIES)])
    return dict(zip(("color", "marker", "linestyle"), look, strict=True))


def canvas(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.6), **kwargs
) -> tuple[Figure, np.ndarray]:
    """Return an empty figure in the project's style, `size` in inches, and its axes (rows, columns).

    The style stays set: titles, legends and ticks that come later, and the picture in a notebook, are made
    with it too. The figure is closed from the start: it is drawn and saved as others are, and no process
    gathers open ones.
    """
    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **kwargs)
    plt.close(figure)
    return figure, axes


def titled(figure: Figure, title: str, handles: Sequence[Artist] = ()) -> None:
    """Put the figure's conclusion in words above all axes, broken to its width, and a legend beneath it.

    Both make the figure higher. Beside the axes a legend would take a third of a narrow picture. It has as
    few rows as the width allows, and columns of one height as far as they go.
    """
    letters = int(TITLE_LETTERS_PER_INCH * figure.get_figwidth())
    broken = textwrap.fill(title, letters, break_on_hyphens=False)
    height = figure.get_figheight() + TITLE_LINE_INCHES * len(broken.splitlines())
    if handles:
        widest = HANDLE_INCHES + LETTER_INCHES * max(len(handle.get_label()) for handle in handles)
        fit = max(1, int(figure.get_figwidth() / widest))
        rows = math.ceil(len(handles) / fit)
        columns = math.ceil(len(handles) / rows)
        height += LEGEND_ROW_INCHES * rows
        head = {"title": broken, "title_fontsize": 9.5, "alignment": "left"}
        figure.legend(handles=handles, fontsize=7.5, loc="outside upper left", ncols=columns, **head)
    elif title:
        figure.suptitle(broken, x=0.01, ha="left", fontsize=9.5)
    figure.set_figheight(height)


def linear_part(values: pd.Series) -> float | None:
    """Return the median size of values where the largest is FAR times that; None where an axis can be linear.

    Beyond it an axis is logarithmic.
    """
    sizes = values.abs().dropna()
    middle = float(sizes.median())
    return middle if sizes.max() > FAR * middle > 0 else None


def bars(value, low, high) -> list:
    """Return how far an interval reaches below and above a value, as error bars want it."""
    return [value - low, high - value]


def spaced(places: Iterable[int], least: float) -> list[int]:
    """Return places in their order, without those that are nearer than `least` to one before."""
    kept: list[int] = []
    for place in places:
        if all(abs(place - other) >= least for other in kept):
            kept.append(place)
    return kept


def spread_out(place: int | pd.Series, count: int | pd.Series, step: float) -> float | pd.Series:
    """Return how far series `place` of `count` is moved so that all stand `step` apart around one x."""
    return step * (place - (count - 1) / 2)

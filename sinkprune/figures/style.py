"""How every picture looks: its fonts and lines, its title, and how labels keep apart."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {  # matplotlib's settings
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
MONOSPACED = "DejaVu Sans Mono"
WIDTH = 7.0  # inches, as wide as a page shows a picture
HANDLE_INCHES = 0.5  # what a legend's entry takes beside its letters
LETTER_INCHES = 0.06  # a letter of it
LEGEND_ROW_INCHES = 0.17
TITLE_LETTERS_PER_INCH = 12.5
TITLE_LINE_INCHES = 0.18


def canvas(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (WIDTH, 3.6), **kwargs
) -> tuple[Figure, np.ndarray]:
    """Return an empty figure in the project's style, `size` in inches, and its axes (rows, columns)."""
    plt.rcParams.update(STYLE)  # for good: some is drawn later
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **kwargs)
    plt.close(figure)  # no process gathers open ones
    return figure, axes


def titled(figure: Figure, title: str, handles: Sequence[Artist] = ()) -> Figure:
    """Return a figure, made higher, with words above all axes, broken to its width, and a legend beneath."""
    letters = int(TITLE_LETTERS_PER_INCH * figure.get_figwidth())
    broken = textwrap.fill(title, letters, break_on_hyphens=False)
    height = figure.get_figheight() + TITLE_LINE_INCHES * len(broken.splitlines())

    if handles:
        widest = HANDLE_INCHES + LETTER_INCHES * max(len(str(handle.get_label())) for handle in handles)
        fit = max(1, int(figure.get_figwidth() / widest))
        rows = math.ceil(len(handles) / fit)
        columns = math.ceil(len(handles) / rows)
        height += LEGEND_ROW_INCHES * rows
        head = {"title": broken, "title_fontsize": 9.5, "alignment": "left"}
        figure.legend(handles=handles, fontsize=8, loc="outside upper left", ncols=columns, **head)
    elif title:
        figure.suptitle(broken, x=0.01, ha="left", fontsize=9.5)

    figure.set_figheight(height)
    return figure


def spaced(places: Iterable[int], least: float) -> list[int]:
    """Return places in their order, without those that are nearer than `least` to one before."""
    kept: list[int] = []
    for place in places:
        if all(abs(place - other) >= least for other in kept):
            kept.append(place)
    return kept

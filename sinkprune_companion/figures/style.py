"""How every figure looks: one style, one palette, one place for legends, all from `data/looks.yml`."""

import math
import textwrap
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from sinkprune_companion import DATA

LOOKS = yaml.safe_load((DATA / "looks.yml").read_text(encoding="utf-8"))
BLACK = LOOKS["colours"]["black"]
BLUE = LOOKS["colours"]["blue"]
GREEN = LOOKS["colours"]["green"]
GREY = LOOKS["colours"]["grey"]
RED = LOOKS["colours"]["red"]
MONOSPACED = "DejaVu Sans Mono"
HANDLE_INCHES = 0.5  # what a legend's entry takes beside its letters
LETTER_INCHES = 0.055
LEGEND_ROW_INCHES = 0.17
TITLE_LETTERS_PER_INCH = 12.5
TITLE_LINE_INCHES = 0.18
FAR = 30  # times the median of values: what reaches further needs a logarithmic axis


def series(name: str, place: int) -> dict[str, str | tuple]:
    """Return `color`, `marker` and `linestyle` of a series: of a method as everywhere, else by its place."""
    others = LOOKS["others"]
    colour, marker, line = LOOKS["methods"].get(name, others[place % len(others)])
    dashes = line if isinstance(line, str) else (0, tuple(line))
    return {"color": colour, "marker": marker, "linestyle": dashes}


def canvas(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.6), **kwargs
) -> tuple[Figure, np.ndarray]:
    """Return an empty figure in the project's style, `size` in inches, and its axes (rows, columns).

    The style stays set, for what is drawn later. The figure is closed: no process gathers open ones.
    """
    plt.rcParams.update(LOOKS["style"])
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **kwargs)
    plt.close(figure)
    return figure, axes


def titled(figure: Figure, title: str, handles: Sequence[Artist] = ()) -> None:
    """Put the figure's conclusion in words above all axes, broken to its width, and beneath it a legend in as
    few rows as the width allows; both make the figure higher.
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
    """Return up to which size an axis is linear, the median of `values`; None where it is so altogether."""
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

"""How figures look: a hue belongs to a model or a method, in every figure; a verdict is a mark and a fill."""

from typing import NamedTuple

# Okabe and Ito's colours, safe for colour-blind readers, and grey
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
RED = "#D55E00"
PINK = "#CC79A7"
BLACK = "#000000"
GREY = "#7F7F7F"


class Look(NamedTuple):
    """How a series is drawn, in matplotlib's words."""

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[int, ...]]  # or an offset and the lengths of dashes and gaps


METHODS = {
    "diffusion": Look(BLUE, "o", "-"),
    "autoregressive": Look(RED, "s", "--"),
    "dense": Look(BLACK, "o", "-"),
    "magnitude": Look(GREY, "X", ":"),
    "wanda": Look(BLUE, "s", "-"),
    "wanda-unmatched": Look(BLUE, "v", ":"),
    "dwanda": Look(SKY, "P", "--"),
    "noised-dense": Look(SKY, "X", "-."),
    "paper": Look(RED, "D", "-"),
    "paper-no-sinks": Look(RED, "h", ":"),
    "all-sinks": Look(ORANGE, "^", "--"),
    "unstable": Look(ORANGE, "o", "-"),
    "stable": Look(YELLOW, "^", "-."),
    "random": Look(GREY, "*", "--"),
    "only-sinks": Look(GREY, "v", "-."),
    "sparsegpt": Look(GREEN, "s", "-"),
    "paper-sparsegpt": Look(GREEN, "D", "--"),
    "sparsegpt-unstable": Look(GREEN, "^", ":"),
    "sparsegpt-noised": Look(GREEN, "o", "-."),
    "sparsegpt, half noised": Look(SKY, "D", "--"),
    "recommended": Look(BLACK, "*", ":"),
    "structured": Look(PINK, "s", "-"),
    "structured-sink": Look(PINK, "D", "--"),
    "structured-no-sinks": Look(PINK, "h", ":"),
    "structured-magnitude": Look(PINK, "X", (0, (5, 1))),
    "flap": Look(SKY, "h", (0, (1, 1))),
    "unstable sinks": Look(ORANGE, "o", "-"),
    "all sinks": Look(ORANGE, "^", "--"),
    "random tokens": Look(GREY, "*", "--"),
    "largest change": Look(BLACK, "D", "-."),
}

# any other series, by its place in the figure
OTHERS = (
    Look(BLACK, "o", "-"),
    Look(BLUE, "s", "--"),
    Look(ORANGE, "D", "-."),
    Look(GREEN, "^", ":"),
    Look(RED, "v", (0, (5, 1))),
    Look(PINK, "P", (0, (3, 1, 1, 1))),
    Look(SKY, "X", (0, (1, 1))),
    Look(GREY, "*", (0, (8, 2))),
    Look(YELLOW, "h", (0, (2, 3))),
)

# the mark of a row, by its verdict
VERDICTS = {
    "helps": {"color": BLUE, "marker": "<"},
    "hurts": {"color": RED, "marker": ">"},
    "no difference that matters": {"color": GREEN, "marker": "D"},
    "undecided": {"color": ORANGE, "marker": "o", "mfc": "white"},
    "too few draws": {"color": GREY, "marker": "v", "mfc": "white"},
}


def series(name: str, place: int) -> dict[str, object]:
    """Return `color`, `marker` and `linestyle` of a series: of a method as everywhere, else by its place."""
    return METHODS.get(name, OTHERS[place % len(OTHERS)])._asdict()

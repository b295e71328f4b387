"""Which colour, marker and line a method or a model has, in every figure of the companion.

Colours are those of `style`. Methods of one family share a colour and differ in marker and line.
"""

from sinkprune_companion.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    KIND,
    ORANGE,
    PINK,
    RED,
    SERIES,
    SKY,
    YELLOW,
    Series,
)

LONG = (0, (5, 1))
DOTTED = (0, (1, 1))
METHODS = {
    "diffusion": Series(*KIND["diffusion"][:2], "-"),
    "autoregressive": Series(*KIND["autoregressive"][:2], "--"),
    "dense": Series(BLACK, "o", "-"),
    "magnitude": Series(GREY, "X", ":"),
    "wanda": Series(BLUE, "s", "-"),
    "wanda-unmatched": Series(BLUE, "v", ":"),
    "dwanda": Series(SKY, "P", "--"),
    "noised-dense": Series(SKY, "X", "-."),
    "paper": Series(RED, "D", "-"),
    "paper-no-sinks": Series(RED, "h", ":"),
    "all-sinks": Series(ORANGE, "^", "--"),
    "unstable": Series(ORANGE, "o", "-"),
    "stable": Series(YELLOW, "^", "-."),
    "random": Series(GREY, "*", "--"),
    "only-sinks": Series(GREY, "v", "-."),
    "sparsegpt": Series(GREEN, "s", "-"),
    "paper-sparsegpt": Series(GREEN, "D", "--"),
    "sparsegpt-unstable": Series(GREEN, "^", ":"),
    "structured": Series(PINK, "s", "-"),
    "structured-sink": Series(PINK, "D", "--"),
    "structured-no-sinks": Series(PINK, "h", ":"),
    "structured-magnitude": Series(PINK, "X", LONG),
    "flap": Series(PINK, "P", DOTTED),
}


def series(name: str, place: int) -> Series:
    """Return how a series is drawn: a method as everywhere, anything else by its place in the figure."""
    return METHODS.get(name, SERIES[place % len(SERIES)])

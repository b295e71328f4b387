"""How figures look: a hue belongs to a model or a method, in every figure; a verdict is a mark and a fill."""

from typing import NamedTuple

from sinkprune.evaluation.verdict_rule import (
    CONTRADICTED,
    DEPENDS,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    REPRODUCED,
    TOO_FEW_DRAWS,
    UNDECIDED,
)
from sinkprune_companion.experiments.sink_measures import KINDS

# Okabe and Ito's colours, safe for colour-blind readers, grey, and hues between them
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
RED = "#D55E00"
PINK = "#CC79A7"
BLACK = "#000000"
GREY = "#7F7F7F"
PURPLE = "#6F4CA5"
LILAC = "#A98FD0"
FOREST = "#00543C"
WINE = "#8C2D6A"
BROWN = "#8C5A2B"
OLIVE = "#8A8A2B"
SLATE = "#5B6C8F"
INK = "#333333"  # of verdicts, which have no hue


class Look(NamedTuple):
    """How a series is drawn, in matplotlib's words."""

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[int, ...]]  # or an offset and the lengths of dashes and gaps


# two models; Wanda purple, the paper's method orange, tokens left out sky, SparseGPT green, whole units pink
METHODS = {
    "diffusion": Look(BLUE, "o", "-"),
    "autoregressive": Look(RED, "s", "--"),
    "dense": Look(BLACK, "P", (0, (3, 1, 1, 1))),
    "magnitude": Look(GREY, "X", ":"),
    "wanda": Look(PURPLE, "s", "-"),
    "wanda-unmatched": Look(PURPLE, "v", ":"),
    "dwanda": Look(LILAC, "P", "--"),
    "noised-dense": Look(LILAC, "X", "-."),
    "paper": Look(ORANGE, "D", "-"),
    "paper-sinks-kept": Look(ORANGE, "h", ":"),
    "all-sinks": Look(SKY, "^", "--"),
    "unstable": Look(SKY, "o", "-"),
    "stable": Look(SKY, "p", "-."),
    "random": Look(GREY, "*", "--"),
    "only-sinks": Look(GREY, "v", "-."),
    "sparsegpt": Look(GREEN, "s", "-"),
    "paper-sparsegpt": Look(GREEN, "D", "--"),
    "sparsegpt-unstable": Look(GREEN, "^", ":"),
    "sparsegpt-noised": Look(GREEN, "o", "-."),
    "sparsegpt, half noised": Look(FOREST, "D", "--"),
    "recommended": Look(FOREST, "*", ":"),
    "structured": Look(PINK, "s", "-"),
    "structured-sink": Look(PINK, "D", "--"),
    "structured-sinks-kept": Look(PINK, "h", ":"),
    "structured-magnitude": Look(PINK, "X", (0, (5, 1))),
    "flap": Look(WINE, "h", (0, (1, 1))),
    "unstable sinks": Look(SKY, "o", "-"),
    "all sinks": Look(SKY, "^", "--"),
    "random tokens": Look(GREY, "*", "--"),
    "largest change": Look(BLACK, "D", "-."),
}

# what a legend calls a kind of model, or a method whose name is that of a preset or of a table's column
CALLED = {
    **KINDS,
    "wanda": "Wanda",
    "paper": "official recipe",
    "paper-sinks-kept": "official recipe, sinks kept",
    "noised-dense": "masked text, unpruned inputs",
    "all-sinks": "all sinks left out",
    "unstable": "unstable sinks left out",
    "sparsegpt": "SparseGPT",
    "paper-sparsegpt": "SparseGPT, official sink weights",
    "sparsegpt-noised": "SparseGPT, masked text",
    "sparsegpt, half noised": "SparseGPT, text half masked",
    "structured": "whole units removed",
    "structured-sink": "whole units, sink-aware",
    "flap": "whole units, FLAP",
    "other text": "another draw of the text",
    "largest change": "chosen by a greedy search",
}

# any other series, by its place in the figure, in hues that no model and no method has
OTHERS = (
    Look(BLACK, "o", "-"),
    Look(BROWN, "s", "--"),
    Look(SLATE, "D", "-."),
    Look(OLIVE, "^", ":"),
    Look(GREY, "v", (0, (5, 1))),
    Look(BLACK, "P", (0, (3, 1, 1, 1))),
    Look(BROWN, "X", (0, (1, 1))),
    Look(SLATE, "*", (0, (8, 2))),
    Look(OLIVE, "h", (0, (2, 3))),
)

# the mark of a difference of losses, by its verdict: a shape and a fill
VERDICTS = {
    HELPS: {"color": INK, "marker": "<"},
    HURTS: {"color": INK, "marker": ">"},
    NO_DIFFERENCE: {"color": INK, "marker": "D"},
    UNDECIDED: {"color": INK, "marker": "o", "mfc": "white"},
    TOO_FEW_DRAWS: {"color": GREY, "marker": "v", "mfc": "white"},
}

# the mark of a claim, by its verdict
ON_CLAIMS = {
    REPRODUCED: {"color": INK, "marker": "s"},
    CONTRADICTED: {"color": INK, "marker": "X"},
    DEPENDS: {"color": INK, "marker": "o", "fillstyle": "left", "markerfacecoloralt": "white"},
    **{verdict: VERDICTS[verdict] for verdict in (NO_DIFFERENCE, UNDECIDED, TOO_FEW_DRAWS)},
}


def series(name: str, place: int) -> dict[str, object]:
    """Return `color`, `marker` and `linestyle` of a series: of a method as everywhere, else by its place."""
    return METHODS.get(name, OTHERS[place % len(OTHERS)])._asdict()

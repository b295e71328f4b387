"""Maps: a head's attention, query by key; how much two masks differ, layer by layer, and where.

Dimensions: Q query position, K key position, O output feature, I input feature.
"""

import math

import numpy as np
import pandas as pd
import seaborn
from matplotlib.colors import ListedColormap, LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sinkprune.evaluation.numbers import percent
from sinkprune.figures.style import MONOSPACED, WIDTH, canvas, spaced, titled
from sinkprune.figures.trajectories import UNSEEN
from sinkprune_companion.figures.looks import BLACK, CALLED, GREY, RED

NAMED = 3  # keys that are named along the axis, at most
APART = 4  # keys from one that is named to the next, at least
MARKS_ABOVE = -1.6  # where masked keys are marked above a map, in queries
LEAST = 0.01  # percent: the lower end of the colour scale of differences
TILE = (32, 64)  # rows and columns of a linear map that are drawn
KEPT = "#A9B8CC"
PRUNED = "#EEF1F4"


def plot_attention_maps(panels: list[dict], title: str = "") -> Figure:
    """Draw the attention of one head in every panel: queries down, keys across, below a `title`.

    A panel has `title`, `map_QK` (rows add up to 1), `sees_QK`, `labels` and `masked_K`, whose keys have a
    mark above the map, and its `layer` and `head`. Keys that get more than an even share are named; those
    that a query may not see are light grey.
    """
    figure, axes = canvas(1, len(panels), (WIDTH, 2.8 if len(panels) > 2 else 3.8))

    for axis, panel in zip(axes[0], panels, strict=True):
        map_QK = panel["map_QK"]
        shown_QK = np.where(panel["sees_QK"], map_QK, np.nan)
        axis.set_facecolor(UNSEEN)
        image = axis.imshow(shown_QK, cmap="cividis", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")

        mass_K = map_QK.sum(0)
        strongest = [int(key) for key in np.argsort(-mass_K, kind="stable") if mass_K[key] > 1]
        named = spaced(strongest, APART)[:NAMED]
        names = [f"{key}: {panel['labels'][key]}" for key in named]

        axis.set_xticks(named, names, rotation=30, ha="right", fontsize=8, family=MONOSPACED)
        axis.set_title(panel["title"], pad=9)
        axis.grid(False)

        masked = np.flatnonzero(panel["masked_K"])
        above = {"color": GREY, "ms": 1.8, "mew": 0, "clip_on": False, "scalex": False, "scaley": False}
        (marks,) = axis.plot(masked, np.full(len(masked), MARKS_ABOVE), "s", **above)
        marks.set_in_layout(False)

    where = "layer {layer}, head {head} (both from 0)".format(**panels[0])
    says = f"key (grey marks above: masked tokens); {where}"
    unseen = "light grey: keys that a query may not see"
    figure.supxlabel(f"{says}\n{unseen}", fontsize=9)
    axes[0, 0].set_ylabel("query")
    figure.colorbar(
        image, ax=axes, pad=0.02, shrink=0.75, label="share of the query's\nattention (root scale)"
    )
    return titled(figure, title)


def maps_table(panels: list[dict]) -> pd.DataFrame:
    """Return the data of `plot_attention_maps`: panel, query, key and attention."""
    maps = [pd.DataFrame(panel["map_QK"]).stack() for panel in panels]
    table = pd.concat(maps, keys=[panel["title"] for panel in panels], names=["panel", "query", "key"])
    return table.rename("attention").reset_index()


def plot_mask_differences(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw the table of `masks.mask_differences`: a map per pair, layers across, linears down.

    A map is named after the second recipe of its pair.
    """
    pairs = frame.groupby(["one", "other"], sort=False)
    columns = min(2, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    size = (WIDTH, 1.8 * rows + 0.4)
    figure, axes = canvas(rows, columns, size, sharex=True, sharey=True)

    order = frame.linear.drop_duplicates().tolist()
    scale = LogNorm(LEAST, max(100 * frame.differ.max(), 10 * LEAST), clip=True)

    for axis, ((_, other), part) in zip(axes.flat, pairs, strict=False):
        table = part.pivot(index="linear", columns="layer", values="differ")
        percentages = 100 * table.loc[order].rename(lambda name: name.split(".")[-1])
        seaborn.heatmap(percentages, norm=scale, cmap="cividis", cbar=False, xticklabels=5, ax=axis)

        axis.set(xlabel="", ylabel="")
        mean = percent(table.to_numpy().mean())
        axis.set_title(f"{CALLED.get(other, other)}: mean {mean}", fontsize=9)
        axis.grid(False)

    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("layer (0 is the first)")

    drawn = axes[0, 0].collections[0]
    figure.colorbar(drawn, ax=axes, pad=0.01, format="%g", label="kept weights that differ (%)")
    return titled(figure, title)


def plot_kept_weights(
    kept_OI: np.ndarray, other_OI: np.ndarray, title: str, alone: tuple[str, str]
) -> Figure:
    """Draw which weights two masks keep in the tile of one linear map where they differ most.

    `alone` says of each mask what its weights are called that the other prunes. The legend has what occurs.
    """
    height, width = np.minimum(TILE, kept_OI.shape)
    down, across = kept_OI.shape[0] // height, kept_OI.shape[1] // width
    differ_OI = (kept_OI != other_OI)[: down * height, : across * width]
    tiles = differ_OI.reshape(down, height, across, width).sum((1, 3))
    top, left = np.unravel_index(tiles.argmax(), tiles.shape) * np.array([height, width])

    kept, other = (mask[top : top + height, left : left + width] for mask in (kept_OI, other_OI))
    state = np.select([kept & other, ~kept & ~other, kept], [0, 1, 2], 3)  # the place among the colours

    figure, [[axis]] = canvas(size=(WIDTH, 3.6))
    place = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    named = {KEPT: "kept by both", PRUNED: "pruned by both", BLACK: alone[0], RED: alone[1]}
    colours = ListedColormap(list(named))

    axis.imshow(state, cmap=colours, vmin=0, vmax=3, interpolation="nearest", extent=place)
    axis.set(xlabel="input feature", ylabel="output feature")
    axis.grid(False)
    occurs = set(np.unique(state).tolist())
    handles = [
        Patch(color=colour, label=name)
        for place, (colour, name) in enumerate(named.items())
        if place in occurs
    ]
    return titled(figure, title, handles)

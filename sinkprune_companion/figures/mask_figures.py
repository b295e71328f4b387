"""Figures of masks: how much two of them differ, layer by layer, and where, weight by weight."""

import math

import numpy as np
import pandas as pd
import seaborn
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sinkprune_companion.figures.style import BLUE, RED, canvas, titled
from sinkprune_companion.numbers import percent

LEAST = 0.01  # percent: the lower end of the colour scale
TILE = (32, 64)  # rows and columns of a linear map that are drawn


def plot_mask_differences(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw the table of `masks.mask_differences`: a map per pair of methods, layers across, linears down."""
    pairs = frame.groupby(["one", "other"], sort=False)
    columns = min(2, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    size = (3.6 * columns + 0.8, 1.9 * rows + 0.4)
    figure, axes = canvas(rows, columns, size, sharex=True, sharey=True)
    order = frame.linear.drop_duplicates().tolist()
    scale = LogNorm(LEAST, max(100 * frame.differ.max(), 10 * LEAST), clip=True)
    for axis, ((one, other), part) in zip(axes.flat, pairs, strict=False):
        table = part.pivot(index="linear", columns="layer", values="differ")
        percentages = 100 * table.loc[order].rename(lambda name: name.split(".")[-1])
        seaborn.heatmap(percentages, norm=scale, cmap="cividis", cbar=False, xticklabels=5, ax=axis)
        axis.set(xlabel="", ylabel="")
        axis.set_title(f"{one}, {other}: mean {percent(table.to_numpy().mean())}", fontsize=9)
        axis.grid(False)
    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("layer (0 is the first)")
    drawn = axes[0, 0].collections[0]
    figure.colorbar(drawn, ax=axes, pad=0.01, format="%g", label="kept weights that differ (%)")
    titled(figure, title)
    return figure


def plot_kept_weights(kept_OI: np.ndarray, other_OI: np.ndarray, title: str) -> Figure:
    """Draw which weights two masks keep in the tile of one linear map where they differ most."""
    height, width = np.minimum(TILE, kept_OI.shape)
    down, across = kept_OI.shape[0] // height, kept_OI.shape[1] // width
    differ_OI = (kept_OI != other_OI)[: down * height, : across * width]
    tiles = differ_OI.reshape(down, height, across, width).sum((1, 3))
    top, left = np.unravel_index(tiles.argmax(), tiles.shape) * np.array([height, width])
    kept, other = (mask[top : top + height, left : left + width] for mask in (kept_OI, other_OI))
    state = np.where(kept == other, ~kept, 2)  # the place among the colours
    figure, axes = canvas(size=(6.8, 3.6))
    axis = axes[0, 0]
    place = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    named = {BLUE: "kept by both", "#E8EEF3": "pruned by both", RED: "kept by one alone"}
    colours = ListedColormap(list(named))
    axis.imshow(state, cmap=colours, vmin=0, vmax=2, interpolation="nearest", extent=place)
    axis.set(xlabel="input feature", ylabel="output feature")
    axis.grid(False)
    titled(figure, title, [Patch(color=colour, label=name) for colour, name in named.items()])
    return figure

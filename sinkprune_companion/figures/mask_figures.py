"""Figures of masks: how much two of them differ, layer by layer, and where, weight by weight."""

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sinkprune_companion.figures.style import BLUE, RED, canvas, titled, titled_legend
from sinkprune_companion.numbers import percent


def plot_mask_differences(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw the table of `masks.mask_differences`: a map per pair of methods, layers across, linears down,
    below a `title` in words.
    """
    pairs = list(frame[["one", "other"]].drop_duplicates().itertuples(index=False))
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    size = (3.6 * columns + 0.8, 1.9 * rows + 0.4)
    figure, axes = canvas(rows, columns, size, sharex=True, sharey=True)
    order = frame.linear.drop_duplicates().tolist()
    scale = {"vmin": 0, "vmax": frame.differ.max()}
    for axis, (one, other) in zip(axes.flat, pairs, strict=False):
        part = frame[(frame.one == one) & (frame.other == other)]
        table = part.pivot(index="linear", columns="layer", values="differ")
        image = axis.imshow(table.loc[order], aspect="auto", cmap="cividis", interpolation="nearest", **scale)
        axis.set_yticks(range(len(order)), [name.split(".")[-1] for name in order], fontsize=8)
        axis.set_title(f"{one} / {other}: {percent(table.to_numpy().mean())} on average", fontsize=9)
        axis.grid(False)
    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("layer (0 is the first)")
    figure.colorbar(image, ax=axes, pad=0.01, label="share of kept weights that differ")
    if title:
        titled(figure, title)
    return figure


def plot_kept_weights(kept_OI: np.ndarray, other_OI: np.ndarray, title: str, shown: int = 96) -> Figure:
    """Draw which weights two masks keep in the first `shown` rows and columns of one linear map.

    Dark: kept by both; light: pruned by both; red: kept by one alone.
    """
    kept, other = kept_OI[: shown // 2, :shown], other_OI[: shown // 2, :shown]
    state = np.where(kept == other, np.where(kept, 0, 1), 2)
    figure, axes = canvas(size=(6.8, 3.6))
    axis = axes[0, 0]
    axis.imshow(state, cmap=ListedColormap([BLUE, "#E8EEF3", RED]), vmin=0, vmax=2, interpolation="nearest")
    axis.set(xlabel="input feature", ylabel="output feature")
    axis.grid(False)
    named = {BLUE: "kept by both", "#E8EEF3": "pruned by both", RED: "kept by one alone"}
    titled_legend(figure, [Patch(color=colour, label=name) for colour, name in named.items()], title=title)
    return figure

"""Attention maps of single heads, query by key.

Dimensions: Q query position, K key position.
"""

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from sinkprune_companion.figures.style import MONOSPACED, canvas, spaced, titled

NAMED = 3  # keys that are named along the axis, at most
APART = 4  # keys from one that is named to the next, at least


def plot_attention_maps(panels: list[dict], title: str = "") -> Figure:
    """Draw the attention of one head in every panel: queries down, keys across, below a `title`.

    A panel has `title`, `map_QK` (rows add up to 1) and `labels` (K). Keys that get more than twice an even
    share are named.
    """
    figure, axes = canvas(1, len(panels), (3.1 * len(panels) + 0.6, 3.8))
    for axis, panel in zip(axes[0], panels, strict=True):
        map_QK = panel["map_QK"]
        image = axis.imshow(map_QK, cmap="cividis", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
        mass_K = map_QK.sum(0)
        strongest = [int(key) for key in np.argsort(-mass_K, kind="stable") if mass_K[key] > 2]
        named = spaced(strongest, APART)[:NAMED]
        names = [f"{key}: {panel['labels'][key]}" for key in named]
        axis.set_xticks(named, names, rotation=30, ha="right", fontsize=8, family=MONOSPACED)
        axis.set_title(panel["title"])
        axis.grid(False)
    figure.supxlabel("key", fontsize=10)
    axes[0, 0].set_ylabel("query")
    figure.colorbar(image, ax=axes, pad=0.02, shrink=0.75, label="share of the query's attention")
    titled(figure, title)
    return figure


def maps_table(panels: list[dict]) -> pd.DataFrame:
    """Return the data of `plot_attention_maps`: panel, query, key and attention."""
    maps = [pd.DataFrame(panel["map_QK"]).stack() for panel in panels]
    table = pd.concat(maps, keys=[panel["title"] for panel in panels], names=["panel", "query", "key"])
    return table.rename("attention").reset_index()

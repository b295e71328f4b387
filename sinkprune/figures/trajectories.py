"""Pictures of a trajectory: where attention goes, token by token and step by step.

Dimensions: S step, K key position.
"""

import math
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from sinkprune.figures.style import MONOSPACED, WIDTH, canvas, spaced, titled
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.sinks.readings import LITERAL, READINGS, Reading
from sinkprune_core.sinks.trace import Trace

SIGNS = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "$": r"\$"})
LABEL_LETTERS = 13  # of a token's name
APART = 1 / 34  # of the axis: the least from one token that is named to the next
RING = "#CC0022"  # shows on blue and on yellow
RING_POINTS = 6.0  # across, at most
PANEL_POINTS = 140  # that the rows of a panel have together
ROW_SHARE = 0.8  # of its row that a ring takes where rows are many
UNSEEN = "#DDDDDD"  # where there is no attention to show
LEAST = 0.3  # ends of the colour scale; 1 is the mean of all keys
MOST = 30.0


def token_labels(tokenizer, ids: Iterable) -> list[str]:
    """Return short printable names of tokens: visible spaces, line ends and special tokens."""
    texts = [tokenizer.decode([int(token)]).translate(SIGNS) for token in ids]
    return [text[:LABEL_LETTERS] or "∅" for text in texts]


def panel(
    lm: LanguageModel,
    trace: Trace,
    prompt: int,
    title: str,
    reading: Reading = READINGS[LITERAL],
    sink_std: float = 2.0,
) -> dict:
    """Return the panel of one prompt of a trace for `plot_sink_positions`."""
    mass_BSK, visible_SK = reading.mass_BSK(trace), reading.visible(trace)
    ids_SK = trace.ids_BSK[prompt]
    tokens = ids_SK.unique().tolist()
    names = dict(zip(tokens, token_labels(lm.tokenizer, tokens), strict=True)) | {lm.mask_token_id: ""}

    return {
        "title": title,
        "profile_SK": mass_BSK[prompt].numpy(),
        "visible_SK": visible_SK.numpy(),
        "sinks_SK": reading.sinks(mass_BSK, visible_SK, sink_std)[prompt].numpy(),
        "labels": token_labels(lm.tokenizer, trace.final_BK[prompt]),
        "states_SK": [[names[token] for token in state] for state in ids_SK.tolist()],
        "prompt_length": trace.prompt_length,
    }


def attention_image(axis: Axes, attention: np.ndarray, **options: Any) -> AxesImage:
    """Draw attention on the colour scale of all trajectories, NaN in grey."""
    axis.set_facecolor(UNSEEN)
    colours = plt.get_cmap("cividis", 12)
    return axis.imshow(attention, aspect="auto", cmap=colours, norm=LogNorm(LEAST, MOST), **options)


def plot_sink_positions(panels: list[dict], title: str = "", columns: int = 1) -> Figure:
    """Draw attention per key position (across) and step (down), one panel per model, below a `title`, in
    `columns` columns.

    A panel has `title`, `profile_SK` (mass; 1 is the mean of all keys), `visible_SK`, `sinks_SK`, `labels`
    (K), `prompt_length` (0: none), and `rows` where they are no steps. Keys that do not count are grey.
    """
    rows = math.ceil(len(panels) / columns)
    figure, axes = canvas(rows, columns, (WIDTH, 2.9 * rows))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()

    images = []
    for axis, panel in zip(axes.flat, panels, strict=False):
        profile_SK = np.where(panel["visible_SK"], panel["profile_SK"], np.nan)
        images.append(attention_image(axis, profile_SK, interpolation="nearest"))
        step, position = np.nonzero(panel["sinks_SK"])
        ring = min(RING_POINTS, ROW_SHARE * PANEL_POINTS / len(profile_SK))  # rings of two rows keep apart
        axis.plot(position, step, "o", mfc="none", mec="white", ms=ring, mew=0.43 * ring)
        axis.plot(position, step, "o", mfc="none", mec=RING, ms=ring, mew=0.23 * ring)
        if panel["prompt_length"]:
            axis.axvline(panel["prompt_length"] - 0.5, color="white", lw=1.2, ls="--")

        attention_K = np.nan_to_num(profile_SK).mean(0)
        strongest = np.lexsort((-attention_K, -panel["sinks_SK"].sum(0)))  # sinks come first
        named = sorted(spaced(strongest.tolist(), APART * columns * len(strongest)))
        labels = [panel["labels"][key] for key in named]
        tilted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(named, labels, **tilted, fontsize=7, family=MONOSPACED)
        axis.tick_params(axis="x", length=2, pad=1)
        axis.set_title(panel["title"], fontsize=10 if columns == 1 else 8.5)
        axis.set_ylabel(panel.get("rows", "step of the trajectory"))
        axis.grid(False)

    figure.colorbar(
        images[-1], ax=axes, pad=0.01, format="%g", label="attention received (1 = mean of all keys)"
    )
    dashed = "dashed: end of the prompt; " if any(panel["prompt_length"] for panel in panels) else ""
    figure.supxlabel(
        "key position; named: tokens of the finished text with most attention (· space, ⏎ line end)\n"
        f"{dashed}red rings: sinks",
        fontsize=9,
    )

    return titled(figure, title)


def positions_table(panels: list[dict]) -> pd.DataFrame:
    """Return the data of `plot_sink_positions`: panel, step, position, token, attention and sink."""
    parts = []
    for panel in panels:
        step, position = np.nonzero(panel["visible_SK"])
        part = pd.DataFrame({"panel": panel["title"], "step": step, "position": position})
        part["token"] = np.asarray(panel["labels"], dtype=object)[position]
        part["attention"] = panel["profile_SK"][step, position]
        part["sink"] = panel["sinks_SK"][step, position]
        parts.append(part)

    return pd.concat(parts, ignore_index=True)

"""Pictures of a trajectory: where attention goes, token by token and step by step.

Dimensions: S step, K key position.
"""

import math
import textwrap
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
from sinkprune_core.sinks.trace import Trace

SPACE = "␣"  # no sign that a text may have, as a dot is
LINE_END = "⏎"
SIGNS = str.maketrans({" ": SPACE, "\n": LINE_END, "\t": "⇥", "$": r"\$"})
SPOKEN = {SPACE: "space", LINE_END: "line end"}  # signs that a picture explains where it shows them
LABEL_LETTERS = 13  # of a token's name
FOOT_LETTERS = 90  # of a line below all panels
APART = 1 / 36  # of the axis: the least from one token that is named to the next
RING = "#CC0022"  # shows on blue and on yellow
RING_POINTS = 6.0  # across, at most
PANEL_POINTS = 140  # that the rows of a panel have together
ROW_SHARE = 0.8  # of its row that a ring takes where rows are many
UNSEEN = "#DDDDDD"  # where there is no attention to show
LEAST = 0.3  # ends of the colour scale; 1 is the mean of all keys
MOST = 30.0
TICKS = (0.3, 1, 3, 10, 30)  # of the colour scale


def token_labels(tokenizer, ids: Iterable) -> list[str]:
    """Return short printable names of tokens: visible spaces, line ends and special tokens."""
    texts = [tokenizer.decode([int(token)]).translate(SIGNS) for token in ids]
    return [text[:LABEL_LETTERS] or "∅" for text in texts]


def panel(
    lm: LanguageModel,
    trace: Trace,
    prompt: int,
    title: str,
    sink_std: float = 2.0,
) -> dict:
    """Return the panel of one prompt of a trace for `plot_sink_positions`."""
    ids_SK = trace.ids_BSK[prompt]
    tokens = ids_SK.unique().tolist()
    names = dict(zip(tokens, token_labels(lm.tokenizer, tokens), strict=True)) | {lm.mask_token_id: ""}

    return {
        "title": title,
        "profile_SK": trace.mass_BSK[prompt].numpy(),
        "visible_SK": trace.visible_SK.numpy(),
        "sinks_SK": trace.sinks(sink_std)[prompt].numpy(),
        "labels": token_labels(lm.tokenizer, trace.final_BK[prompt]),
        "states_SK": [[names[token] for token in state] for state in ids_SK.tolist()],
        "prompt_length": trace.prompt_length,
    }


def attention_image(axis: Axes, attention: np.ndarray, **options: Any) -> AxesImage:
    """Draw attention on the colour scale of all trajectories, NaN in grey."""
    axis.set_facecolor(UNSEEN)
    colours = plt.get_cmap("cividis", 12)
    return axis.imshow(attention, aspect="auto", cmap=colours, norm=LogNorm(LEAST, MOST), **options)


def keys_to_name(panel: dict, least: float) -> list[int]:
    """Return the positions that a panel names, none nearer than `least` to another: those of `named`, or else
    those that are ever a sink; of two that are too near the one that is a sink more often, or named first.
    """
    if "named" in panel:
        return sorted(spaced(panel["named"], least))

    occurrences_K = panel["sinks_SK"].sum(0)
    by_occurrence = np.argsort(-occurrences_K, kind="stable").tolist()
    sinks = [key for key in by_occurrence if occurrences_K[key] > 0]
    return sorted(spaced(sinks, least))


def plot_sink_positions(
    panels: list[dict], title: str = "", columns: int = 1, named: str = "tokens that are ever a sink"
) -> Figure:
    """Draw attention per key position (across) and step (down), one panel per model, below a `title`, in
    `columns` columns.

    A panel has `title`, `profile_SK` (mass; 1 is the mean of all keys), `visible_SK`, `sinks_SK`, `labels`
    (K) and `prompt_length` (0: none). It may have `rows`, what its rows are where they are no steps, and
    `row_names`; `rings`, False where sinks have none; and `named`, the keys to name in place of the sinks,
    which the words `named` describe. Keys that do not count are grey.
    """
    rows = math.ceil(len(panels) / columns)
    figure, axes = canvas(rows, columns, (WIDTH, 2.9 * rows))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()

    images, shown = [], []
    for axis, panel in zip(axes.flat, panels, strict=False):
        profile_SK = np.where(panel["visible_SK"], panel["profile_SK"], np.nan)
        images.append(attention_image(axis, profile_SK, interpolation="nearest"))
        step, position = np.nonzero(panel["sinks_SK"] & panel.get("rings", True))
        ring = min(RING_POINTS, ROW_SHARE * PANEL_POINTS / len(profile_SK))  # rings of two rows keep apart
        axis.plot(position, step, "o", mfc="none", mec="white", ms=ring, mew=0.43 * ring)
        axis.plot(position, step, "o", mfc="none", mec=RING, ms=ring, mew=0.23 * ring)
        if panel["prompt_length"]:
            axis.axvline(panel["prompt_length"] - 0.5, color="white", lw=1.2, ls="--")

        keys = keys_to_name(panel, APART * columns * profile_SK.shape[1])
        labels = [f"{key}: {panel['labels'][key]}" for key in keys]
        shown += labels
        tilted = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(keys, labels, **tilted, fontsize=7.5, family=MONOSPACED)
        axis.tick_params(axis="x", length=2, pad=1)
        if "row_names" in panel:
            axis.set_yticks(range(len(panel["row_names"])), panel["row_names"])
        axis.set_title(panel["title"], fontsize=10 if columns == 1 else 8.5)
        axis.set_ylabel(panel.get("rows", "step (0 is the first)"))
        axis.grid(False)

    words = "attention received (1 = mean of all keys)"
    scale = figure.colorbar(images[-1], ax=axes, pad=0.01, ticks=TICKS, format="%g", label=words)
    scale.minorticks_off()

    says = [f"key; named below, where there is room: {named}"]
    says += [f"{sign} {word}" for sign, word in SPOKEN.items() if any(sign in label for label in shown)]
    marks = ["dashed: end of the prompt"] if any(panel["prompt_length"] for panel in panels) else []
    marks += ["red rings: sinks"] if any(panel.get("rings", True) for panel in panels) else []
    lines = textwrap.wrap("; ".join(says), FOOT_LETTERS, break_on_hyphens=False)
    lines += ["; ".join(marks)] if marks else []
    figure.supxlabel("\n".join(lines), fontsize=9)

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

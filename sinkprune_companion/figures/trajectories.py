"""Pictures of a trajectory: where attention goes, token by token and step by step, still and moving.

Dimensions: S step, K key position.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from sinkprune_companion.figures.figures import add_file
from sinkprune_companion.figures.style import RED, canvas, spaced, titled
from sinkprune_companion.run.records import Run
from sinkprune_core.files import atomic
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.sinks.readings import LITERAL, READINGS, Reading
from sinkprune_core.sinks.trace import Trace

LABEL_LETTERS = 13  # of a token's name
CELL_LETTERS = 8  # of a token in `plot_writing`
RING = "#CC0022"  # shows on blue and on yellow
UNSEEN = "#DDDDDD"  # where there is no attention to show
LEAST = 0.3  # ends of the colour scale; 1 is the mean of all keys
MOST = 30.0
COLOURS = 64  # of an animation


def token_labels(tokenizer, ids: Sequence[int]) -> list[str]:
    """Return short printable names of tokens: visible spaces, line ends and special tokens."""
    labels = []
    for token in ids:
        text = tokenizer.decode([int(token)])
        for invisible, sign in ((" ", "·"), ("\n", "⏎"), ("\t", "⇥"), ("$", r"\$")):
            text = text.replace(invisible, sign)
        labels.append(text[:LABEL_LETTERS] or "∅")
    return labels


def strongest_apart(panel: dict, apart: float = 1 / 45) -> list[int]:
    """Return which keys of a panel to name: those that are sinks most often, then those with most attention.

    No two are nearer than `apart` of the axis.
    """
    attention_K = np.where(panel["visible_SK"], panel["profile_SK"], 0).mean(0)
    often_K = panel["sinks_SK"].sum(0)
    strongest = np.lexsort((-attention_K, -often_K)).tolist()
    return sorted(spaced(strongest, apart * len(attention_K)))


def panel(
    lm: LanguageModel,
    trace: Trace,
    prompt: int,
    title: str,
    reading: Reading = READINGS[LITERAL],
    sink_std: float = 2.0,
) -> dict:
    """Return the panel of one prompt of a trace for `plot_sink_positions` and `plot_writing`."""
    mass_BSK = reading.mass_BSK(trace)
    visible_SK = reading.visible(trace)
    states_SK = []
    for state in trace.ids_BSK[prompt].tolist():
        labels = token_labels(lm.tokenizer, state)
        named = zip(state, labels, strict=True)
        states_SK.append(["" if token == lm.mask_token_id else label for token, label in named])
    return {
        "title": title,
        "profile_SK": mass_BSK[prompt].numpy(),
        "visible_SK": visible_SK.numpy(),
        "sinks_SK": reading.sinks(mass_BSK, visible_SK, sink_std)[prompt].numpy(),
        "labels": token_labels(lm.tokenizer, trace.final_BK[prompt]),
        "states_SK": states_SK,
        "prompt_length": trace.prompt_length,
    }


def _attention_image(axis: Axes, attention: np.ndarray, **options: str):
    """Draw attention on the colour scale of all trajectories, NaN in grey."""
    axis.set_facecolor(UNSEEN)
    colours = plt.get_cmap("cividis", 12)
    return axis.imshow(attention, aspect="auto", cmap=colours, norm=LogNorm(LEAST, MOST), **options)


def plot_sink_positions(panels: list[dict], title: str = "") -> Figure:
    """Draw attention per key position (across) and step (down), one panel per model, below a `title`.

    A panel has `title`, `profile_SK` (mass; 1 is the mean of all keys), `visible_SK`, `sinks_SK`, `labels`
    (K), `prompt_length` (0: none), and `rows` where they are no steps. The strongest tokens are named along
    the axis. Sinks are ringed; keys that do not count in a step are grey.
    """
    figure, axes = canvas(len(panels), 1, (9.2, 3.3 * len(panels)))
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        profile_SK = np.where(panel["visible_SK"], panel["profile_SK"], np.nan)
        image = _attention_image(axis, profile_SK, interpolation="nearest")
        step, position = np.nonzero(panel["sinks_SK"])
        axis.plot(position, step, "o", mfc="none", mec="white", ms=6, mew=2.6)
        axis.plot(position, step, "o", mfc="none", mec=RING, ms=6, mew=1.4)
        if panel["prompt_length"]:
            axis.axvline(panel["prompt_length"] - 0.5, color="white", lw=1.2, ls="--")
        named = strongest_apart(panel)
        axis.set_xticks(
            named,
            [panel["labels"][key] for key in named],
            rotation=45,
            ha="right",
            rotation_mode="anchor",
            fontsize=7,
            family="DejaVu Sans Mono",
        )
        axis.tick_params(axis="x", length=2, pad=1)
        axis.set(title=panel["title"], ylabel=panel.get("rows", "step of the trajectory"))
        axis.grid(False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, label="attention received (1 = mean of all keys)")
    bar.ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    dashed = "dashed: end of the prompt; " if any(panel["prompt_length"] for panel in panels) else ""
    axes[-1, 0].set_xlabel(
        "key position; named: tokens of the finished text with most attention (· space, ⏎ line end)\n"
        f"{dashed}red rings: sinks"
    )
    if title:
        titled(figure, title)
    return figure


def positions_table(panels: list[dict]) -> pd.DataFrame:
    """Return the data of `plot_sink_positions`: panel, step, position, token, attention and sink."""
    parts = []
    for panel in panels:
        step, position = np.nonzero(panel["visible_SK"])
        labels = np.asarray(panel["labels"], dtype=object)
        columns = {
            "panel": panel["title"],
            "step": step,
            "position": position,
            "token": labels[position],
            "attention": panel["profile_SK"][step, position],
            "sink": panel["sinks_SK"][step, position],
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def plot_writing(panels: list[dict], step: int, columns: int = 16) -> Figure:
    """Draw one step of writing, one panel per model: the text so far, every token coloured by its attention.

    Panels are those of `plot_sink_positions` with `states_SK` besides: what stands at every position at every
    step (S lists of K names, "" for a mask). Sinks have a red frame; tokens that do not exist yet are grey.
    """
    longest = max(len(panel["labels"]) for panel in panels)
    rows = -(-longest // columns)
    figure, axes = canvas(len(panels), 1, (8.6, (0.3 + 0.24 * rows) * len(panels)))
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        profile_K = np.asarray(panel["profile_SK"][step])
        visible_K = np.asarray(panel["visible_SK"][step])
        cells = np.full(rows * columns, np.nan)
        cells[: len(profile_K)] = np.where(visible_K, profile_K, np.nan)
        image = _attention_image(axis, cells.reshape(rows, columns))
        _draw_tokens(axis, panel, step, columns)
        axis.set_xticks(np.arange(columns + 1) - 0.5, [])
        axis.set_yticks(np.arange(rows + 1) - 0.5, [])
        axis.tick_params(length=0)
        axis.grid(color="white", alpha=1, lw=0.6)
        axis.set_title(f"{panel['title']}, step {step + 1} of {len(panel['states_SK'])}", fontsize=9)
    figure.colorbar(image, ax=axes, pad=0.02, label="attention (1 = mean of all keys)")
    return figure


def _draw_tokens(axis: Axes, panel: dict, step: int, columns: int) -> None:
    """Write the tokens of one step into the cells of a panel, and frame the sinks."""
    for position, token in enumerate(panel["states_SK"][step]):
        row, column = divmod(position, columns)
        if panel["visible_SK"][step][position]:
            axis.text(
                column,
                row,
                _cell_label(token),
                ha="center",
                va="center",
                fontsize=6.3,
                family="DejaVu Sans Mono",
                color="white" if panel["profile_SK"][step][position] < 3 else "black",
            )
        if panel["sinks_SK"][step][position]:
            corner = (column - 0.46, row - 0.44)
            axis.add_patch(plt.Rectangle(corner, 0.92, 0.88, fill=False, ec=RED, lw=1.8))


def _cell_label(token: str) -> str:
    """Return a token's name as it fits into a cell; a word that is cut ends in dots."""
    word = token.removeprefix("<|").removesuffix("|>").strip("·") or token
    if len(word) <= CELL_LETTERS:
        return word
    return word[: CELL_LETTERS - 1] + "…"


def save_animation(run: Run, frames: Iterable[Figure], name: str, seconds: float = 0.4) -> Path:
    """Write figures as a GIF that plays for ever and rests on its last frame; return its path.

    It lies beside the figure `name`, whose data it shows, and is the same to the byte for the same data. All
    frames take the colours of the last, which keeps the file small.
    """
    from PIL import Image

    pictures = []
    for frame in frames:
        buffer = io.BytesIO()
        frame.savefig(buffer, format="png", dpi=110)
        pictures.append(Image.open(buffer).convert("RGB"))
    palette = pictures[-1].quantize(COLOURS, dither=Image.Dither.NONE)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    milliseconds = [round(1000 * seconds)] * len(pictures)
    milliseconds[-1] *= 4
    file = run.folder / "figures" / run.notebook / f"{name}.gif"
    with atomic(file) as partial:
        pictures[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=milliseconds,
            loop=0,
        )
    add_file(run, name, file)
    return file

"""Pictures of a trajectory: where attention goes, token by token and step by step, still and moving.

Dimensions: S step, K key position.
"""

import io
import math
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image

from sinkprune_companion.figures.figures import MONOSPACED, RED, canvas, save_files, spaced, titled
from sinkprune_companion.run.records import Run
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.sinks.readings import LITERAL, READINGS, Reading
from sinkprune_core.sinks.trace import Trace

SIGNS = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "$": r"\$"})
LABEL_LETTERS = 13  # of a token's name
APART = 1 / 45  # of the axis: the least from one token that is named to the next
CELL_LETTERS = 8  # of a token in `plot_writing`
COLUMNS = 16  # of tokens in `plot_writing`
RING = "#CC0022"  # shows on blue and on yellow
UNSEEN = "#DDDDDD"  # where there is no attention to show
LEAST = 0.3  # ends of the colour scale; 1 is the mean of all keys
MOST = 30.0
COLOURS = 64  # of an animation
MILLISECONDS = 400  # that a frame of it is shown


def token_labels(tokenizer, ids: Sequence[int]) -> list[str]:
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
    """Return the panel of one prompt of a trace for `plot_sink_positions` and `plot_writing`."""
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


def _attention_image(axis: Axes, attention: np.ndarray, **options: str):
    """Draw attention on the colour scale of all trajectories, NaN in grey."""
    axis.set_facecolor(UNSEEN)
    colours = plt.get_cmap("cividis", 12)
    return axis.imshow(attention, aspect="auto", cmap=colours, norm=LogNorm(LEAST, MOST), **options)


def plot_sink_positions(panels: list[dict], title: str = "") -> Figure:
    """Draw attention per key position (across) and step (down), one panel per model, below a `title`.

    A panel has `title`, `profile_SK` (mass; 1 is the mean of all keys), `visible_SK`, `sinks_SK`, `labels`
    (K), `prompt_length` (0: none), and `rows` where they are no steps. Keys that do not count are grey.
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
        attention_K = np.nan_to_num(profile_SK).mean(0)
        strongest = np.lexsort((-attention_K, -panel["sinks_SK"].sum(0)))  # sinks come first
        named = sorted(spaced(strongest.tolist(), APART * len(strongest)))
        labels = [panel["labels"][key] for key in named]
        tilted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(named, labels, **tilted, fontsize=7, family=MONOSPACED)
        axis.tick_params(axis="x", length=2, pad=1)
        axis.set(title=panel["title"], ylabel=panel.get("rows", "step of the trajectory"))
        axis.grid(False)
    figure.colorbar(image, ax=axes, pad=0.01, format="%g", label="attention received (1 = mean of all keys)")
    dashed = "dashed: end of the prompt; " if any(panel["prompt_length"] for panel in panels) else ""
    axes[-1, 0].set_xlabel(
        "key position; named: tokens of the finished text with most attention (· space, ⏎ line end)\n"
        f"{dashed}red rings: sinks"
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


def plot_writing(panels: list[dict], step: int) -> Figure:
    """Draw one step of writing, one panel per model: the text so far, every token coloured by its attention.

    Panels are those of `plot_sink_positions` with `states_SK` besides: what stands at every position at every
    step (S lists of K names, "" for a mask). Sinks have a red frame.
    """
    longest = max(len(panel["labels"]) for panel in panels)
    rows = math.ceil(longest / COLUMNS)
    centred = {"ha": "center", "va": "center", "fontsize": 6.3, "family": MONOSPACED}
    figure, axes = canvas(len(panels), 1, (8.6, (0.3 + 0.24 * rows) * len(panels)))
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        profile_K = np.where(panel["visible_SK"][step], panel["profile_SK"][step], np.nan)
        cells = np.pad(profile_K, (0, rows * COLUMNS - len(profile_K)), constant_values=np.nan)
        image = _attention_image(axis, cells.reshape(rows, COLUMNS))
        for position, token in enumerate(panel["states_SK"][step]):
            row, column = divmod(position, COLUMNS)
            if panel["visible_SK"][step][position]:
                colour = "white" if profile_K[position] < 3 else "black"
                word = token.removeprefix("<|").removesuffix("|>").strip("·") or token
                label = word if len(word) <= CELL_LETTERS else word[: CELL_LETTERS - 1] + "…"
                axis.text(column, row, label, color=colour, **centred)
            if panel["sinks_SK"][step][position]:
                corner = (column - 0.46, row - 0.44)
                axis.add_patch(plt.Rectangle(corner, 0.92, 0.88, fill=False, ec=RED, lw=1.8))
        axis.set_xticks(np.arange(COLUMNS + 1) - 0.5, [])
        axis.set_yticks(np.arange(rows + 1) - 0.5, [])
        axis.tick_params(length=0)
        axis.grid(color="white", alpha=1, lw=0.6)
        axis.set_title(f"{panel['title']}, step {step + 1} of {len(panel['states_SK'])}", fontsize=9)
    figure.colorbar(image, ax=axes, pad=0.02, label="attention (1 = mean of all keys)")
    return figure


def save_animation(run: Run, frames: Iterable[Figure], name: str) -> None:
    """Write figures as a GIF that plays for ever and rests on its last frame, beside the figure `name`."""
    pictures = []
    for frame in frames:
        buffer = io.BytesIO()
        frame.savefig(buffer, format="png", dpi=110)
        pictures.append(Image.open(buffer).convert("RGB"))
    palette = pictures[-1].quantize(COLOURS, dither=Image.Dither.NONE)  # one for all keeps the file small
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [MILLISECONDS] * len(others) + [4 * MILLISECONDS]
    film = io.BytesIO()
    first.save(film, format="GIF", save_all=True, append_images=others, duration=times, loop=0)
    save_files(run, name, {".gif": film.getvalue()})

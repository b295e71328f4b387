"""Pictures of a text that is being written: each token coloured by its attention, still and moving.

Dimensions: S step, K key position.
"""

import io
import math
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from sinkprune.figures.style import MONOSPACED, WIDTH, canvas, titled
from sinkprune.figures.trajectories import RING, SPACE, TICKS, attention_image
from sinkprune_companion.figures.figures import save_files
from sinkprune_companion.run.records import Run

CELL_LETTERS = 7  # of a token in `plot_writing`
COLUMNS = 16  # of tokens in `plot_writing`
COLOURS = 64  # of an animation
MILLISECONDS = 400  # that a frame of it is shown


def _sinks_named(panel: dict, step: int) -> str:
    """Return the tokens that are sinks at a step, and the model of the panel."""
    tokens = [panel["states_SK"][step][position] for position in np.flatnonzero(panel["sinks_SK"][step])]
    named = ", ".join(f"“{token.strip(SPACE) or token}”" for token in dict.fromkeys(tokens) if token)
    return f"{named or 'none'} in the {panel['title'].partition(' (')[0]}"


def plot_writing(panels: list[dict], step: int) -> Figure:
    """Draw one step of writing, one panel per model: the text so far, every token coloured by its attention.

    Panels are those of `plot_sink_positions` with `states_SK` besides: what stands at every position at every
    step (S lists of K names, "" for a mask). Sinks have a red frame.
    """
    longest = max(len(panel["labels"]) for panel in panels)
    rows = math.ceil(longest / COLUMNS)
    centred = {"ha": "center", "va": "center", "fontsize": 6, "family": MONOSPACED}
    figure, axes = canvas(len(panels), 1, (WIDTH, (0.3 + 0.22 * rows) * len(panels)))

    for axis, panel in zip(axes[:, 0], panels, strict=True):
        profile_K = np.where(panel["visible_SK"][step], panel["profile_SK"][step], np.nan)
        cells = np.pad(profile_K, (0, rows * COLUMNS - len(profile_K)), constant_values=np.nan)
        image = attention_image(axis, cells.reshape(rows, COLUMNS))

        for position, token in enumerate(panel["states_SK"][step]):
            row, column = divmod(position, COLUMNS)
            if panel["visible_SK"][step][position]:
                colour = "white" if profile_K[position] < 3 else "black"
                word = token.removeprefix("<|").removesuffix("|>").strip(SPACE) or token
                label = word if len(word) <= CELL_LETTERS else word[: CELL_LETTERS - 1] + "…"
                axis.text(column, row, label, color=colour, **centred)
            if panel["sinks_SK"][step][position]:
                corner = (column - 0.46, row - 0.44)
                axis.add_patch(plt.Rectangle(corner, 0.92, 0.88, fill=False, ec=RING, lw=1.8))

        axis.set_xticks(np.arange(COLUMNS + 1) - 0.5, [])
        axis.set_yticks(np.arange(rows + 1) - 0.5, [])
        axis.tick_params(length=0)
        axis.grid(color="white", alpha=1, lw=0.6)
        axis.set_title(panel["title"], fontsize=9)

    words = "attention (1 = mean of all keys)"
    scale = figure.colorbar(image, ax=axes, pad=0.02, ticks=TICKS, format="%g", label=words)
    scale.minorticks_off()

    sinks = "; ".join(_sinks_named(panel, step) for panel in panels)
    steps = len(panels[0]["states_SK"])
    return titled(figure, f"Step {step + 1} of {steps}: sinks (framed in red) are {sinks}")


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

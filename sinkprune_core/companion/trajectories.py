"""Pictures of a trajectory: where attention goes, token by token and step by step, still and moving.

Dimensions: S step, K key position, L layer, H head.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sinkprune_core.companion.records import Run
from sinkprune_core.companion.style import BLUE, GREEN, ORANGE, RED, canvas
from sinkprune_core.files import atomic


def token_labels(tokenizer, ids: Sequence[int]) -> list[str]:
    """Return short printable names of tokens: visible spaces, line ends and special tokens."""
    labels = []
    for token in ids:
        text = tokenizer.decode([int(token)])
        labels.append(
            {"": "∅"}.get(
                text, text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥").replace("$", r"\$")
            )[:13]
        )
    return labels


def strongest_apart(panel: dict, apart: float = 1 / 45) -> list[int]:
    """Return which keys of a panel to name: those that are sinks most often, then those with most attention, no two nearer than `apart` of the axis."""
    seen_K = np.where(panel["visible_SK"], panel["profile_SK"], 0).mean(0)
    named: list[int] = []
    for key in np.lexsort((-seen_K, -panel["sinks_SK"].sum(0))):
        if all(abs(key - other) >= apart * len(seen_K) for other in named):
            named.append(int(key))
    return sorted(named)


def plot_sink_positions(panels: list[dict], vmax: float = 30.0) -> Figure:
    """Draw attention per key position (across) and step (down), one panel per model; the strongest tokens are named along the axis.

    A panel has `title`, `profile_SK` in even shares (1 is even), `visible_SK`, `sinks_SK`, `labels` (K), `prompt_length`.
    Sinks are ringed; keys that some query of a step cannot see are grey.
    """
    figure, axes = canvas(len(panels), 1, (9.2, 3.3 * len(panels)))
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        profile = np.where(panel["visible_SK"], panel["profile_SK"], np.nan)
        axis.set_facecolor("#DDDDDD")
        norm = plt.matplotlib.colors.LogNorm(0.3, vmax)
        image = axis.imshow(
            profile, aspect="auto", cmap=plt.get_cmap("cividis", 12), norm=norm, interpolation="nearest"
        )
        step, position = np.nonzero(panel["sinks_SK"])
        axis.plot(position, step, "o", mfc="none", mec="white", ms=4.4, mew=1.6)
        axis.plot(position, step, "o", mfc="none", mec=RED, ms=4.4, mew=0.9)
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
        axis.set(title=panel["title"], ylabel="step of the trajectory")
        axis.grid(False)
    figure.colorbar(image, ax=axes, pad=0.01, label="attention received (1 = even share)")
    axes[-1, 0].set_xlabel(
        "key position; named: tokens of the finished text with most attention (· space, ⏎ line end)\ndashed: end of the prompt; red rings: sinks"
    )
    return figure


def positions_table(panels: list[dict]) -> pd.DataFrame:
    """Return the data of `plot_sink_positions` in long form: panel, step, position, token, attention, sink."""
    parts = []
    for panel in panels:
        step, position = np.nonzero(panel["visible_SK"])
        labels = np.asarray(panel["labels"], dtype=object)
        parts.append(
            pd.DataFrame(
                {
                    "panel": panel["title"],
                    "step": step,
                    "position": position,
                    "token": labels[position],
                    "attention": panel["profile_SK"][step, position],
                    "sink": panel["sinks_SK"][step, position],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def plot_writing(panels: list[dict], step: int, columns: int = 16, vmax: float = 30.0) -> Figure:
    """Draw one step of writing, one panel per model below the other: the text so far, every token coloured by the attention it receives.

    Panels are those of `plot_sink_positions` with `states_SK` besides: what stands at every position at every step (S lists
    of K names, "" for a mask). Sinks have a red frame; tokens that do not exist yet are grey.
    """
    rows = -(-max(len(panel["labels"]) for panel in panels) // columns)
    figure, axes = canvas(len(panels), 1, (8.6, (0.3 + 0.24 * rows) * len(panels)))
    norm = plt.matplotlib.colors.LogNorm(0.3, vmax)
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        profile_K, visible_K, sinks_K = (
            np.asarray(panel[name][step]) for name in ("profile_SK", "visible_SK", "sinks_SK")
        )
        grid = np.full(rows * columns, np.nan)
        grid[: len(profile_K)] = np.where(visible_K, profile_K, np.nan)
        axis.set_facecolor("#DDDDDD")
        image = axis.imshow(
            grid.reshape(rows, columns), aspect="auto", cmap=plt.get_cmap("cividis", 12), norm=norm
        )
        for position, token in enumerate(panel["states_SK"][step]):
            row, column = divmod(position, columns)
            if visible_K[position]:
                word = token.removeprefix("<|").removesuffix("|>").strip("·") or token
                word = word if len(word) <= 8 else word[:7] + "…"
                axis.text(
                    column,
                    row,
                    word,
                    ha="center",
                    va="center",
                    fontsize=6.3,
                    family="DejaVu Sans Mono",
                    color="white" if profile_K[position] < 3 else "black",
                )
            if sinks_K[position]:
                axis.add_patch(
                    plt.Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, ec=RED, lw=1.8)
                )
        axis.set_xticks(np.arange(columns + 1) - 0.5, [])
        axis.set_yticks(np.arange(rows + 1) - 0.5, [])
        axis.tick_params(length=0)
        axis.grid(color="white", alpha=1, lw=0.6)
        axis.set_title(f"{panel['title']}, step {step + 1} of {len(panel['states_SK'])}", fontsize=9)
    figure.colorbar(image, ax=axes, pad=0.02, label="attention (1 = even share)")
    return figure


def step_slider(panels: list[dict]) -> object:
    """Return a widget that shows `plot_writing` of the step its slider stands at (ipywidgets; it needs a running kernel)."""
    from ipywidgets import IntSlider, interactive

    def show(step: int) -> Figure:
        figure = plot_writing(panels, step - 1)
        plt.close(
            figure
        )  # or the inline backend would show it a second time, beside what `auto_display` shows
        return figure

    steps = len(panels[0]["states_SK"])
    return interactive(
        show,
        {"auto_display": True},
        step=IntSlider(steps, 1, steps, description="step", continuous_update=False),
    )


def save_animation(
    run: Run, frames: Iterable[Figure], name: str, seconds: float = 0.4, colours: int = 36
) -> Path:
    """Write figures as a GIF that plays for ever and rests on its last frame, beside the figure `name`, whose data it shows; return its path.

    Every frame takes the palette of the last one and the accents of the project's colours, without dithering, and repeats no pixel of the frame before, so that the
    file is small; it is the same to the byte for the same data.
    """
    from PIL import Image

    images, places = [], None
    for frame in frames:
        buffer = io.BytesIO()
        if places is not None:  # the layout of the first frame serves all of them
            frame.set_layout_engine(None)
            for axis, place in zip(frame.axes, places, strict=True):
                axis.set_position(place)
        frame.savefig(buffer, format="png", dpi=110)
        places = places or [axis.get_position() for axis in frame.axes]
        plt.close(frame)
        images.append(Image.open(buffer).convert("RGB"))
    palette = Image.new("P", (1, 1))
    accents = [
        int(colour[place : place + 2], 16) for colour in (RED, BLUE, GREEN, ORANGE) for place in (1, 3, 5)
    ]  # rare in area, so listed by name
    palette.putpalette(
        images[-1].quantize(colours - 4, dither=Image.Dither.NONE).getpalette()[: 3 * (colours - 4)] + accents
    )
    values = [np.asarray(image.quantize(palette=palette, dither=Image.Dither.NONE)) for image in images]
    indexed = [
        Image.fromarray(value)
        for value in (
            values[0],
            *(
                np.where(after == before, colours, after)
                for before, after in zip(values, values[1:], strict=False)
            ),
        )
    ]
    for image in indexed:
        image.putpalette([*palette.getpalette()[: 3 * colours], 0, 0, 0])
    duration = [round(1000 * seconds)] * (len(indexed) - 1) + [round(4000 * seconds)]
    file = run.folder / "figures" / run.notebook / f"{name}.gif"
    with atomic(file) as partial:
        indexed[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=duration,
            loop=0,
            optimize=False,
            transparency=colours,
            disposal=1,
        )
    return file


def plot_heads(maps: dict[str, np.ndarray], label: str) -> Figure:
    """Draw one map of layers (down) by heads (across) per model, `maps[title]` float (L, H), on one logarithmic colour scale."""
    figure, axes = canvas(1, len(maps), (3.4 * len(maps), 4.6))
    values = np.concatenate([map_LH.ravel() for map_LH in maps.values()])
    norm = plt.matplotlib.colors.LogNorm(max(values.min(), 1e-3), values.max())
    for axis, (title, map_LH) in zip(axes[0], maps.items(), strict=True):
        image = axis.imshow(map_LH, aspect="auto", cmap="cividis", norm=norm, interpolation="nearest")
        axis.set(title=title, xlabel="head")
        axis.grid(False)
    axes[0, 0].set_ylabel("layer (0 is the first)")
    figure.colorbar(image, ax=axes[0, -1], pad=0.03, label=label)
    return figure

"""How every figure looks and how it is kept: one style, one palette, one saver.

Colours are Okabe and Ito's, safe for colour-blind readers, and every series has a marker or line style of its own.
"""

import io
import json
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sinkprune_core.companion.records import Run
from sinkprune_core.files import atomic, write_json

ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK, BLACK = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#000000",
)
SERIES = list(
    zip(
        [BLACK, BLUE, ORANGE, GREEN, RED, PINK, SKY, "#7F7F7F", YELLOW],
        "osD^vPX*h",
        ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (2, 3))],
        strict=True,
    )
)
KIND = {"diffusion": (BLUE, "o", "diffusion"), "autoregressive": (RED, "s", "autoregressive")}
STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "sinkprune",
}


def canvas(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.6), **kwargs
) -> tuple[Figure, np.ndarray]:
    """Return an empty figure in the project's style, `size` in inches, and its axes (rows, columns).

    The style stays set: titles, legends and ticks that come later, and the picture in a notebook, are made with it too.
    """
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **kwargs)


def legend_above(figure: Figure, handles: list, labels: list[str] | None = None, **kwargs) -> None:
    """Put one legend above all axes, and make the figure higher by as much: beside them it would take a third of a narrow picture.

    It has as few rows as the width allows, and columns of one height as far as they go.
    """
    labels = labels or [handle.get_label() for handle in handles]
    rows = -(
        -len(labels) // max(1, int(figure.get_figwidth() / (0.5 + 0.055 * max(map(len, labels)))))
    )  # inches: the handle, a letter
    figure.set_figheight(figure.get_figheight() + 0.17 * rows)
    figure.legend(
        handles, labels, fontsize=7.5, loc="outside upper left", ncols=-(-len(labels) // rows), **kwargs
    )


def save_figure(run: Run, figure: Figure, name: str, data: pd.DataFrame, caption: str) -> Figure:
    """Write PNG, PDF, the data (CSV) and provenance (JSON) to the run's `figures/<notebook>/`; return the closed figure.

    Files are the same to the byte for the same data, so that a diff shows a change of the result. A notebook keeps the
    caption as the alternative text of the picture.
    """
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    folder = run.folder / "figures" / run.notebook
    for suffix, options in (
        ("png", {"dpi": 110, "metadata": {"Software": None}}),
        ("pdf", {"metadata": {"CreationDate": None, "Producer": None, "Creator": None}}),
    ):
        with atomic(folder / f"{name}.{suffix}") as partial:
            figure.savefig(partial, format=suffix, **options)
            if suffix == "png":
                partial.write_bytes(with_palette(partial.read_bytes()))
        figure.set_layout_engine(None)  # the layout is found once, for the first file
    with atomic(folder / f"{name}.csv") as partial:
        data.to_csv(partial, index=False, float_format="%.8g")
    write_json(folder / f"{name}.json", json.loads(json.dumps({"caption": caption, **run.provenance})))
    plt.close(figure)
    figure._repr_mimebundle_ = lambda **_: (
        {},
        {"image/png": {"alt": caption}},
    )  # IPython adds the picture itself
    return figure


def with_palette(png: bytes) -> bytes:
    """Return a PNG with at most 256 colours, without dithering, where that makes it smaller: a third of the bytes of most figures."""
    from PIL import Image

    packed = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        packed, format="PNG", optimize=True
    )
    return min(png, packed.getvalue(), key=len)

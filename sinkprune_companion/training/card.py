"""The model card of a trained model: what it was trained on, how that went, and how good it is.

It is a function of files, the training settings, the log and what `tools/model_card.py` measured, so that
none can be edited without the others. Its words are in `pages/card.md.j2`.
"""

from collections.abc import Mapping
from pathlib import Path

from sinkprune_companion import corpus
from sinkprune_companion.pages.render import render
from sinkprune_companion.training import settings as rules
from sinkprune_companion.training.base import EMBEDDED_BASE, SHAPE
from sinkprune_companion.training.losses import MEASURES
from sinkprune_core.files import atomic, file_digest
from sinkprune_core.models import embedded
from sinkprune_core.models.weight_files import read_json

MEASURED = "measures.json"
SOURCES = {
    "samples": "samples of the base",
    "documentation": "documentation",
    "text": "held-out text",
    "natural": "WikiText-2",
}  # of held-out text in a training log
LOG_ROWS = 15  # about so many rows of a log stand on the card


def write_card(folder: Path) -> Path:
    """Write README.md in `folder` from its settings, its log and its `measures.json`, if any; return it.

    Raises ValueError where the measures belong to another adapter.
    """
    file = folder / MEASURED
    measures = read_json(file) if file.is_file() else None
    if measures is not None and measures["adapter"] != adapter_digest(folder):
        raise ValueError(
            f"{file} was measured on another adapter than the one beside it: "
            f"run `python tools/model_card.py --folder {folder}`"
        )
    card = folder / "README.md"
    with atomic(card) as partial:
        partial.write_text(card_text(folder, measures), encoding="utf-8")
    return card


def adapter_digest(folder: Path) -> str:
    """Return the SHA-256 of an exported adapter."""
    return file_digest(folder / "adapter_model.safetensors")


def card_text(folder: Path, measures: Mapping | None) -> str:
    """Return the model card of a folder with training settings and log; None for what was not measured."""
    settings = rules.settings_of(folder / rules.SETTINGS)
    log = rules.rows_of(folder / rules.EXPORTED_LOG)
    last = log[-1]
    measure = MEASURES[settings["kind"]]
    titles = {f"train_{measure}": "training"}
    for source, title in SOURCES.items():
        for kind in ("crops", "beginnings"):
            titles[f"{measure}_{source}_{kind}"] = f"{title}, {kind}"
    columns = {column: title for column, title in titles.items() if column in last}
    return render(
        "card.md.j2",
        settings=settings,
        measures=measures,
        log=[*log[: -1 : max(1, len(log) // LOG_ROWS)], last],
        last=last,
        columns=columns,
        is_embedded=settings["base"] == EMBEDDED_BASE,
        has_own_text=any("_text_" in column for column in columns),
        base_name=Path(settings["base"]).name,
        shape=SHAPE,
        rules=rules,
        wheel=embedded.BASE,
        mask_token=embedded.MASK_TOKEN,
        mask_token_id=embedded.MASK_TOKEN_ID,
        held_out_samples=corpus.HELD_OUT_SAMPLES,
        held_out_share=corpus.HELD_OUT_SHARE,
    )

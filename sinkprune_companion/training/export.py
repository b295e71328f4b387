"""What is kept of a training run: the adapter of the embedded base, or a whole model, and a model card.

A card is a function of the training settings, the log and what `tools/model_card.py` measured.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sinkprune import corpus
from sinkprune.files import atomic, check_new_folder, file_digest, write_json
from sinkprune.models import embedded
from sinkprune.models.adapters import CONFIG, WEIGHTS
from sinkprune.models.saving import save
from sinkprune.models.weight_files import read_json
from sinkprune_companion.run.templates import render
from sinkprune_companion.training import settings as rules
from sinkprune_companion.training.base import EMBEDDED_BASE, FACTS, SHAPE, open_base
from sinkprune_companion.training.crops import VOCABULARY
from sinkprune_companion.training.lora import MEASURES, checkpoint_of, trainable, trained_in
from sinkprune_companion.training.settings import EXPORTED_LOG, SETTINGS, Training, rows_of, settings_of

MEASURED = "measures.json"
LOG_ROWS = 15  # about so many rows of a log stand on the card


def export(run: Path, folder: Path) -> Path:
    """Write what a run leaves, its settings, log and model card (without measures) to `folder`; return it.

    In bfloat16 that is the adapter of the embedded base, what `load("smol-dlm")` merges, or a whole model, of
    another base with the adapter merged in, which `load(folder)` reads. `run` is what `train` returned.
    Raises ValueError where the log has no row, FileExistsError for a `folder` that a whole model would
    replace, and what `open_base` and `checkpoint_of` raise.
    """
    settings = settings_of(run / SETTINGS)
    base = open_base(settings["base"], settings["mask_token"], kind=settings["kind"])
    checkpoint = checkpoint_of(run, base)
    rows = [_exported(row, settings["kind"]) for row in checkpoint.progress.log]
    if not rows:
        raise ValueError(f"the run in {run} has no row of its log yet: train it further")

    is_adapter = base.name == EMBEDDED_BASE and not settings["from_scratch"]
    if not is_adapter:
        check_new_folder(folder)
    if base.name != EMBEDDED_BASE and Path(base.name).is_dir():
        settings["base"] = base.stem  # where a folder lies is nobody's business

    if settings["from_scratch"]:
        base = base.from_scratch(run / VOCABULARY)
    config = replace(Training(**settings_of(run / SETTINGS)), dtype="float32")
    model, _ = trainable(config, base)
    checkpoint.restore(trained_in(model))

    with atomic(folder) as partial:
        if is_adapter:
            model.save_pretrained(partial)
            trained = load_file(partial / WEIGHTS)
            rounded = {name: value.to(torch.bfloat16).contiguous() for name, value in trained.items()}
            save_file(rounded, partial / WEIGHTS, metadata={"format": "pt"})
            stated = read_json(partial / CONFIG) | {"base_model_name_or_path": base.origin}
            stated["target_modules"].sort()  # a set: its order changes from run to run
            write_json(partial / CONFIG, stated)
        else:  # base and adapter are added in float32 and rounded once
            whole = model if settings["from_scratch"] else model.merge_and_unload()
            for parameter in whole.parameters():
                parameter.data = parameter.data.to(torch.bfloat16)
            whole.config.dtype = torch.bfloat16

            about = {"trained_tokens": rows[-1]["tokens"]}
            if not settings["from_scratch"]:
                about["base"] = settings["base"]
            save(base.member(whole, settings["kind"]), partial, **about)

        write_json(partial / SETTINGS, settings)
        lines = [json.dumps(row) + "\n" for row in rows]
        (partial / EXPORTED_LOG).write_text("".join(lines), encoding="utf-8")
        write_card(partial)

    return folder


def _exported(row: Mapping, kind: str) -> dict:
    """Return a row of the log, in which the loss has the name of what it estimates."""
    return {f"train_{MEASURES[kind]}" if name == "loss" else name: value for name, value in row.items()}


# the card


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
    return file_digest(folder / WEIGHTS)


def card_text(folder: Path, measures: Mapping | None) -> str:
    """Return the model card of a folder with training settings and log; None for what was not measured."""
    settings = settings_of(folder / SETTINGS)
    log = rows_of(folder / EXPORTED_LOG)
    last = log[-1]
    measure = MEASURES[settings["kind"]]
    titles = {f"train_{measure}": "training"}

    for source, title in FACTS["held_out"].items():
        titles |= {f"{measure}_{source}_{kind}": f"{title}, {kind}" for kind in ("crops", "beginnings")}

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

"""What is kept of a training run: the adapter of the embedded base, or a whole model, and a model card."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from sinkprune_companion.training.base import open_base
from sinkprune_companion.training.card import write_card
from sinkprune_companion.training.checkpoint import step_of
from sinkprune_companion.training.crops import VOCABULARY
from sinkprune_companion.training.settings import EXPORTED_LOG, LOG, SETTINGS, rows_of, settings_of
from sinkprune_core.files import atomic, write_json
from sinkprune_core.models.adapters import CONFIG, WEIGHTS, merge_adapter
from sinkprune_core.models.weight_files import read_json


def export(checkpoint: Path, folder: Path) -> Path:
    """Write what a run leaves, its settings, log and model card (without measures) to `folder`; return it.

    Of the embedded base that is the adapter in bfloat16, what `load("smol-dlm")` merges; of another base the
    whole model in bfloat16 with the adapter merged in, and from scratch the model itself: `load(folder)`
    reads both. `checkpoint` is what `train` returned. Raises ValueError where the log has no row up to it.
    """
    run = checkpoint.parent
    settings = settings_of(run / SETTINGS)
    step = step_of(checkpoint)
    by_step = {row["step"]: row for row in rows_of(run / LOG)}  # of a step that was logged again the last row
    rows = [row for row in by_step.values() if row["step"] <= step]
    if not rows:
        raise ValueError(f"{LOG} in {run} has no row up to step {step}, the checkpoint's")
    base = open_base(settings["base"], settings["mask_token"])
    is_adapter = base.is_embedded and not settings["from_scratch"]
    if not is_adapter and folder.exists():
        raise FileExistsError(f"output folder {folder} exists: choose another name or remove it first")
    if not base.is_embedded and Path(base.name).is_dir():
        settings["base"] = base.stem  # where a folder lies is nobody's business
    with atomic(folder) as partial:
        if is_adapter:
            partial.mkdir()
            _write_adapter(checkpoint, partial, base.origin)
        elif settings["from_scratch"]:
            model = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
            lm = base.from_scratch(run / VOCABULARY).member(model, settings["kind"])
            lm.save(partial, trained_tokens=rows[-1]["tokens"])
        else:  # base and adapter are added in float32 and rounded once
            model = merge_adapter(base.checkpoint.load(torch.float32), checkpoint, torch.bfloat16)
            lm = base.member(model, settings["kind"])
            lm.save(partial, trained_tokens=rows[-1]["tokens"], base=settings["base"])
        write_json(partial / SETTINGS, settings)
        lines = [json.dumps(row) + "\n" for row in rows]
        (partial / EXPORTED_LOG).write_text("".join(lines), encoding="utf-8")
        write_card(partial)
    return folder


def _write_adapter(checkpoint: Path, folder: Path, origin: str) -> None:
    trained = load_file(checkpoint / WEIGHTS)
    rounded = {name: value.to(torch.bfloat16).contiguous() for name, value in trained.items()}
    save_file(rounded, folder / WEIGHTS, metadata={"format": "pt"})
    config = read_json(checkpoint / CONFIG)
    config["target_modules"] = sorted(config["target_modules"])  # a set: its order changes from run to run
    config["base_model_name_or_path"] = origin
    write_json(folder / CONFIG, config)

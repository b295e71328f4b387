"""What is kept of a training run: the adapter of the embedded base, or a whole model, and a model card."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from sinkprune_companion.training.base import Base, open_base
from sinkprune_companion.training.card import write_card
from sinkprune_companion.training.checkpoint import check_whole, step_of
from sinkprune_companion.training.crops import VOCABULARY
from sinkprune_companion.training.log import rows_of
from sinkprune_companion.training.settings import EXPORTED_LOG, LOG, SETTINGS, settings_of
from sinkprune_core.files import atomic, write_json
from sinkprune_core.models.adapters import merge_adapter
from sinkprune_core.models.language_model import LanguageModel


def export(checkpoint: Path, folder: Path) -> Path:
    """Write what a run leaves, its settings, log and model card (without measures) to `folder`; return it.

    Of the embedded base that is the adapter in bfloat16, what `load("smol-dlm")` merges; of another base the
    whole model in bfloat16 with the adapter merged in, and from scratch the model itself: `load(folder)`
    reads both. `checkpoint` is what `train` returned. Raises ValueError where the log has no row up to it.
    """
    run = checkpoint.parent
    settings = settings_of(run / SETTINGS)
    rows = _rows_up_to(run, step_of(checkpoint))
    check_whole(checkpoint)
    base = open_base(settings["base"], settings["mask_token"])
    if settings["from_scratch"]:
        base = base.from_scratch(run / VOCABULARY)
    is_adapter = base.is_embedded and not settings["from_scratch"]
    if not is_adapter and folder.exists():
        raise FileExistsError(f"output folder {folder} exists: choose another name or remove it first")
    origin = base.name
    if not base.is_embedded and Path(base.name).is_dir():
        origin = base.stem  # where a folder lies is nobody's business
    with atomic(folder) as partial:
        if is_adapter:
            partial.mkdir()
            _write_adapter(checkpoint, partial, base.origin)
        else:
            lm = _trained_model(base, settings["kind"], checkpoint)
            card = {"trained_tokens": rows[-1]["tokens"]}
            if not settings["from_scratch"]:
                card["base"] = origin
            lm.save(partial, **card)
        write_json(partial / SETTINGS, settings | {"base": origin})
        lines = [json.dumps(row) + "\n" for row in rows]
        (partial / EXPORTED_LOG).write_text("".join(lines), encoding="utf-8")
        write_card(partial)
    return folder


def _rows_up_to(run: Path, step: int) -> list[dict]:
    """Return the rows of a run's log up to a step; of a step that was logged again, the last row."""
    by_step = {row["step"]: row for row in rows_of(run / LOG)}
    rows = [row for row in by_step.values() if row["step"] <= step]
    if not rows:
        raise ValueError(f"{LOG} in {run} has no row up to step {step}, the checkpoint's")
    return rows


def _write_adapter(checkpoint: Path, folder: Path, origin: str) -> None:
    trained = load_file(checkpoint / "adapter_model.safetensors")
    halved = {name: value.to(torch.bfloat16).contiguous() for name, value in trained.items()}
    save_file(halved, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])  # a set: its order changes from run to run
    config["base_model_name_or_path"] = origin
    write_json(folder / "adapter_config.json", config)


def _trained_model(base: Base, kind: str, checkpoint: Path) -> LanguageModel:
    """Return the trained model in bfloat16; base and adapter are added in float32 and rounded once."""
    if base.vocabulary is not None:
        model = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
        return base.member(model, base.tokenizer(), kind)
    model, tokenizer = base.load(torch.float32)
    return base.member(merge_adapter(model, checkpoint, torch.bfloat16), tokenizer, kind)

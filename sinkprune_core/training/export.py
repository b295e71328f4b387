"""What is kept of a training run: the adapter of the embedded base, or a whole model made from another, and a model card."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sinkprune_core.files import atomic, write_json
from sinkprune_core.models.embedded import merge_adapter
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.training.base import Base, open_base
from sinkprune_core.training.card import write_card
from sinkprune_core.training.lora import settings_of

LOG = "training_log.jsonl"


def export(checkpoint: Path, folder: Path) -> Path:
    """Write what a finished run leaves, its settings, its log and its model card (without measures) to `folder`; return it.

    Of the embedded base that is the adapter in bfloat16, what `load("smol-dlm")` merges; of another base the whole model in
    bfloat16 with the adapter merged in, which `load(folder)` reads. `checkpoint` is what `train` returned. Raises
    FileNotFoundError where it is no part of a training run, ValueError where the log has no row up to it, and
    FileExistsError where a model would overwrite a folder.
    """
    run = checkpoint.parent
    missing = [name for name in ("training.json", "log.jsonl") if not (run / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{run} has no {' and no '.join(missing)}: export needs the folder of a training run"
        )
    settings = settings_of(run / "training.json")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = list({row["step"]: row for row in rows}.values())  # a resumed run may log a step again
    with safe_open(checkpoint / "optimizer.safetensors", "pt") as handle:
        step = int(handle.metadata()["step"])
    rows = [row for row in rows if row["step"] <= step]
    if not rows:
        raise ValueError(f"log.jsonl in {run} has no row up to step {step}, the checkpoint's")
    base = open_base(settings["base"], settings["mask_token"])
    origin = (
        base.stem if not base.is_embedded and Path(base.name).is_dir() else base.name
    )  # where a folder lies is nobody's business
    if not base.is_embedded and folder.exists():
        raise FileExistsError(f"output folder {folder} exists: choose another name or remove it first")
    with atomic(folder) as partial:
        if base.is_embedded:
            partial.mkdir()
            _write_adapter(checkpoint, partial, base.origin)
        else:
            _merged(base, settings["kind"], checkpoint).save(
                partial, base=origin, trained_tokens=rows[-1]["tokens"]
            )
        write_json(partial / "training.json", settings | {"base": origin})
        (partial / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        write_card(partial)
    return folder


def _write_adapter(checkpoint: Path, folder: Path, origin: str) -> None:
    tensors = load_file(checkpoint / "adapter_model.safetensors")
    save_file(
        {key: value.to(torch.bfloat16).contiguous() for key, value in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    adapter = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    adapter["target_modules"] = sorted(
        adapter["target_modules"]
    )  # a set: its order would change from run to run
    adapter["base_model_name_or_path"] = origin
    write_json(folder / "adapter_config.json", adapter)


def _merged(base: Base, kind: str, checkpoint: Path) -> LanguageModel:
    """Return the trained model as one: the sum of base and adapter is formed in float32 and rounded once."""
    model, tokenizer = base.load(torch.float32)
    return base.member(merge_adapter(model, checkpoint, torch.bfloat16), tokenizer, kind)

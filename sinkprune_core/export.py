"""What is committed of a training run: the adapter, its settings, its log, and the model card of `card`."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from . import embedded
from .card import write_card
from .paths import atomic, write_json


def export(checkpoint: Path, folder: Path) -> Path:
    """Write what is committed and what `load("smol-dlm")` merges: the adapter in bfloat16, its log and its model card, without measures; return `folder`.

    `checkpoint` is what `train` returned. Raises FileNotFoundError where it is no part of a training run, and ValueError
    where the log has no row up to it.
    """
    run = checkpoint.parent
    missing = [name for name in ("training.json", "log.jsonl") if not (run / name).exists()]
    if missing:
        raise FileNotFoundError(f"{run} has no {' and no '.join(missing)}: export needs the folder of a training run")
    settings = json.loads((run / "training.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = list({row["step"]: row for row in rows}.values())  # a resumed run may log a step again
    with safe_open(checkpoint / "optimizer.safetensors", "pt") as handle:
        step = int(handle.metadata()["step"])
    rows = [row for row in rows if row["step"] <= step]
    if not rows:
        raise ValueError(f"log.jsonl in {run} has no row up to step {step}, the checkpoint's")
    with atomic(folder) as partial:
        partial.mkdir()
        tensors = load_file(checkpoint / "adapter_model.safetensors")
        save_file({key: value.to(torch.bfloat16).contiguous() for key, value in tensors.items()}, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        adapter = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
        adapter["target_modules"] = sorted(adapter["target_modules"])  # a set: its order would change from run to run
        adapter["base_model_name_or_path"] = f"{embedded.BASE.package}=={embedded.BASE.version}"
        write_json(partial / "adapter_config.json", adapter)
        write_json(partial / "training.json", settings)
        (partial / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        write_card(partial)
    return folder


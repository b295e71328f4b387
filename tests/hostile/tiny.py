"""Tiny models and adapters to be spoiled."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from random_models.cases import CASES
from random_models.writing import write

from sinkprune_core.models.loading import load


def native_model(folder: Path, kind: str = "diffusion") -> Path:
    """Return the folder of a tiny saved Llama, written once."""
    if not folder.exists():
        name = "illada" if kind == "diffusion" else "llama"
        write(CASES[name], folder.with_name(f"{folder.name}-public"))
        load(folder.with_name(f"{folder.name}-public")).save(folder)
    return folder


def adapter_of(base: Path, folder: Path) -> Path:
    """Return the folder of an adapter of a tiny model, both of whose factors are random."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load(base).model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    model.save_pretrained(folder)
    return folder

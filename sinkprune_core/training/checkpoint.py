"""Checkpoints of a training run: adapter, AdamW's state and the step, replaced so that a kill leaves a whole
one.
"""

import shutil
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file

OPTIMIZER = "optimizer.safetensors"


def newest_checkpoint(folder: Path) -> Path:
    """Return the folder of a run's checkpoint, which need not exist yet.

    A kill between the two renames of `save_checkpoint` leaves only complete copies beside it: the newest
    takes its place.
    """
    checkpoint = folder / "checkpoint"
    for copy in (folder / "checkpoint.new", folder / "checkpoint.old"):
        if not checkpoint.exists() and (copy / OPTIMIZER).exists():
            copy.rename(checkpoint)
    return checkpoint


def save_checkpoint(model: PeftModel, optimizer: torch.optim.Optimizer, folder: Path, step: int) -> None:
    """Replace the checkpoint in `folder`: the adapter, AdamW's moments and counts, and the step, as
    safetensors.
    """
    fresh = folder.with_name("checkpoint.new")
    old = folder.with_name("checkpoint.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    state = {}
    for index, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            state[f"{key}.{index}"] = value
    model.save_pretrained(fresh)
    save_file(state, fresh / OPTIMIZER, metadata={"step": str(step)})
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def restore_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Path) -> int:
    """Load the optimizer's state if the checkpoint has it; return the step to go on from, 0 without one."""
    file = checkpoint / OPTIMIZER
    if not file.exists():
        return 0
    state = optimizer.state_dict()
    with safe_open(file, "pt") as handle:
        for name in handle.keys():  # noqa: SIM118 - the handle of a file cannot be iterated over
            key, index = name.split(".")
            state["state"].setdefault(int(index), {})[key] = handle.get_tensor(name)
    optimizer.load_state_dict(state)
    return step_of(checkpoint)


def step_of(checkpoint: Path) -> int:
    """Return the number of steps after which a checkpoint was saved."""
    with safe_open(checkpoint / OPTIMIZER, "pt") as handle:
        return int(handle.metadata()["step"])

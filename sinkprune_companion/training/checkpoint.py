"""Checkpoints of a training run: what is trained, AdamW's state and the step. A kill leaves a whole one."""

import shutil
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from sinkprune_core.files import atomic, damaged_files, flush_one, write_digests
from sinkprune_core.models.weight_files import refused
from sinkprune_core.scratch import remove_leftovers

NEW = "checkpoint.new"  # beside a checkpoint: the one that takes its place, whole from the first moment on
OPTIMIZER = "optimizer.safetensors"
START_ANEW = "remove the checkpoint to start anew, or put the file back"


def newest_checkpoint(folder: Path) -> Path:
    """Return the folder of a run's checkpoint, which need not exist yet; the run's lock is held."""
    remove_leftovers(folder / NEW)
    checkpoint = folder / "checkpoint"
    _put_in_place(checkpoint)  # where a kill came before
    return checkpoint


def save_checkpoint(
    model: PeftModel | PreTrainedModel, optimizer: torch.optim.Optimizer, checkpoint: Path, step: int
) -> None:
    """Replace a checkpoint, as safetensors: AdamW's moments and counts, the step, and the adapter or, of a
    model from scratch, all weights.
    """
    state = {
        f"{key}.{index}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for key, value in moments.items()
    }
    with atomic(checkpoint.with_name(NEW)) as partial:
        model.save_pretrained(partial)
        save_file(state, partial / OPTIMIZER, metadata={"step": str(step)})
        write_digests(partial)
    _put_in_place(checkpoint)


def _put_in_place(checkpoint: Path) -> None:
    """Let the new checkpoint, if there is one, take the place of the former, which goes."""
    new = checkpoint.with_name(NEW)
    if new.exists():
        shutil.rmtree(checkpoint, ignore_errors=True)
        new.rename(checkpoint)
        flush_one(checkpoint.parent)


def restore_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Path) -> int:
    """Load the optimizer's state from a checkpoint; return the step to go on from.

    Raises what `step_of` raises, and ValueError for the state of another optimizer: without its moments a run
    would be another.
    """
    step = step_of(checkpoint)
    file = checkpoint / OPTIMIZER
    state = optimizer.state_dict()
    with refused(f"{file} is not the state of this optimizer", START_ANEW), safe_open(file, "pt") as handle:
        for name in handle.keys():  # noqa: SIM118 - the handle of a file cannot be iterated over
            key, index = name.split(".")
            state["state"].setdefault(int(index), {})[key] = handle.get_tensor(name)
    optimizer.load_state_dict(state)
    return step


def step_of(checkpoint: Path) -> int:
    """Return the number of steps after which a checkpoint was saved.

    Raises ValueError for a checkpoint without the optimizer's state, or whose files are not what was saved.
    """
    file = checkpoint / OPTIMIZER
    if not file.is_file():
        raise ValueError(f"{checkpoint} has no {OPTIMIZER}, without which no run goes on: {START_ANEW}")
    damaged = damaged_files(checkpoint)
    if damaged:
        raise ValueError(f"{', '.join(damaged)} in {checkpoint} is not what was saved: {START_ANEW}")
    with refused(f"{file} does not say its step", START_ANEW), safe_open(file, "pt") as handle:
        return int(handle.metadata()["step"])

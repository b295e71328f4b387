"""What pruning would take where the weights, or the GPU, are not on this machine: from shapes alone."""

from dataclasses import replace

import torch

from sinkprune.cli.commands.prune import Prune
from sinkprune.cli.common import STREAM_ABOVE, default_length, where
from sinkprune.cli.help_pages import say
from sinkprune.models.devices import choose_dtype
from sinkprune.models.gpus import Gpu, planned_gpu
from sinkprune.models.hub import (
    Requirements,
    available_memory,
    download_in_words,
    requirements_of_plan,
    weights_are_here,
)
from sinkprune.models.meta_model import MetaModel, shapes_of
from sinkprune.runs.pruning_cost import PruningCost, pruning_cost, weight_bytes
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.pruning.recipe import Recipe


def plan_unfetched(options: Prune, recipe: Recipe, sequences: int) -> bool:
    """Say what a model without weights here, or a GPU that is not here, would take.

    Returns whether it is such a case. Raises ValueError for a model that has no shape.
    """
    gpu = planned_gpu(options.device)
    needed = requirements_of_plan(options.model, _dtype(options, gpu), _device(options))
    download = 0 if needed is None else needed.download
    if weights_are_here(options.model, needed) and gpu is None:
        return False

    dtype = choose_dtype(_dtype(options, gpu), _device(options))
    lm = shapes_of(options.model, dtype)
    memory = gpu.memory if gpu else available_memory(options.device)
    is_large = weight_bytes(lm) > STREAM_ABOVE * memory
    lm = replace(lm, will_be_streamed=options.stream or is_large)

    cost = _cost(lm, recipe, options, sequences, gpu)
    place = where(dtype, gpu.words if gpu else options.device)

    streamed = ", streamed from disk" if lm.is_streamed else ""
    planned = f"{download_in_words(download)}{cost}"
    what = f"{lm.name} ({lm.kind}, {place}){streamed}"
    say(f"{what}, {recipe.name}, sparsity {recipe.sparsity}: {planned}")
    for lack in _lacks(cost, needed, gpu, lm.is_streamed):
        say(lack)

    return True


def _dtype(options: Prune, gpu: Gpu | None) -> str:
    """Return the dtype of the run, where a GPU that is not here says what `auto` is."""
    if gpu is None or options.dtype != "auto":
        return options.dtype
    return "bfloat16" if gpu.has_bfloat16 else "float16"


def _device(options: Prune) -> str:
    """Return a device of this machine."""
    return "cpu" if planned_gpu(options.device) else options.device


def _cost(lm: MetaModel, recipe: Recipe, options: Prune, sequences: int, gpu: Gpu | None) -> PruningCost:
    """Return what the run takes on this machine, or on a GPU that is not here."""
    length = options.length or default_length(options, lm.model.config.max_position_embeddings)
    ids_NT = torch.zeros(sequences, length, dtype=torch.long)
    calibration = Calibration(ids_NT, batch=options.batch)
    out, work = options.target, options.work_folder
    if gpu is None:
        return pruning_cost(lm, recipe, calibration, out, work, device=options.device)

    width = lm.model.dtype.itemsize
    speed = gpu.speed(width)
    cost = pruning_cost(lm, recipe, calibration, out, work, speed, device="cpu", gpu_memory=gpu.memory)
    return replace(cost, pace=gpu.pace(width))


def _lacks(cost: PruningCost, needed: Requirements | None, gpu: Gpu | None, is_streamed: bool) -> list[str]:
    """Return sentences on what is missing: of disk here, and of memory where the run is to be."""
    of_disk, of_weights = (), ()
    if needed is not None:
        of_disk = needed.missing_disk
        of_weights = of_disk if is_streamed else needed.missing

    if gpu is None:
        return [f"this machine lacks {lack}" for lack in (*of_weights, *cost.missing)]

    sentences = [f"this machine lacks {lack}" for lack in (*of_disk, *cost.missing_disk)]
    if cost.memory > gpu.memory:
        sentences.append(
            f"{gpu.name} has {gpu.memory / 1e9:.0f} GB of memory, which is too little: "
            "use fewer or shorter sequences, a smaller batch, or --stream"
        )

    return sentences

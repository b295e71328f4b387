"""What pruning would take where the weights, or the GPU, are not on this machine: from shapes alone."""

from dataclasses import replace
from pathlib import Path

import torch

from sinkprune.cli.commands.prune import Prune
from sinkprune.cli.common import STREAM_ABOVE, default_length, where
from sinkprune.cli.gpus import REACHED, Gpu, planned_gpu
from sinkprune.cli.help_pages import say
from sinkprune.models.catalog import EMBEDDED
from sinkprune.models.devices import choose_dtype
from sinkprune.models.formats import detect
from sinkprune.models.hub import Requirements, available_memory, folder_of, parse, requirements
from sinkprune.models.meta_model import MetaModel, meta_model, without_weights
from sinkprune.models.weight_files import WeightFiles, read_json, refused
from sinkprune.runs.pruning_cost import PruningCost, pruning_cost
from sinkprune_core.calibration.dense_statistics import WAITING_SHARE
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.pruning.recipe import Recipe

HERE = "at this machine's speed now"  # how a `PruningCost` says whose speed it counts with


def plan_unfetched(options: Prune, recipe: Recipe, sequences: int) -> bool:
    """Say what a model without weights here, or a GPU that is not here, would take.

    Returns whether it is such a case. Raises ValueError for a model that has no shape.
    """
    gpu = planned_gpu(options.device)
    needed = _needed(options, gpu)
    download = 0 if needed is None else needed.download
    is_here = options.model in EMBEDDED or (needed is not None and not download)
    if is_here and gpu is None:
        return False

    dtype = choose_dtype(_dtype(options, gpu), _device(options))
    lm = shapes_of(options.model, dtype)
    size = sum(parameter.numel() for parameter in lm.model.parameters()) * dtype.itemsize
    memory = gpu.memory if gpu else available_memory(options.device)
    lm = replace(lm, is_streamed=options.stream or size > STREAM_ABOVE * memory)

    cost = _cost(lm, recipe, options, sequences, gpu)
    words = str(cost)
    place = where(dtype, options.device)

    if gpu:
        place = where(dtype, f"{gpu.name}, which is not here")
        speed = gpu.speed(dtype.itemsize) / 1e12
        words = words.replace(HERE, f"at {speed:.0f} TFLOP/s, {REACHED:.0%} of the peak of {gpu.name}")

    streamed = ", streamed from disk" if lm.is_streamed else ""
    fetched = ""
    if download:
        fetched = f"{download / 1e9:.1f} GB to download, since it is not on this machine; then "

    say(f"{lm.name} ({place}){streamed}, {recipe.name}, sparsity {recipe.sparsity}: {fetched}{words}")
    for lack in _lacks(cost, needed, gpu, lm.is_streamed):
        say(lack)

    return True


def _needed(options: Prune, gpu: Gpu | None) -> Requirements | None:
    """Return what loading the model takes; None for a folder with a configuration and no weights."""
    folder = Path(options.model)
    if (folder / "config.json").is_file() and not any(folder.glob("*.safetensors")):
        return None
    return requirements(options.model, _dtype(options, gpu), _device(options))


def _dtype(options: Prune, gpu: Gpu | None) -> str:
    """Return the dtype of the run: `auto` is bfloat16 on every GPU that can be planned for."""
    return "bfloat16" if gpu is not None and options.dtype == "auto" else options.dtype


def _device(options: Prune) -> str:
    """Return a device of this machine."""
    return "cpu" if planned_gpu(options.device) else options.device


def shapes_of(name: str, dtype: torch.dtype) -> MetaModel:
    """Return a model without weights: of a row of the table, or of a folder's configuration alone.

    Raises FormatError for a configuration from which no shape follows.
    """
    row, _ = parse(name)
    if row is not None:
        return meta_model(row, dtype)

    folder = folder_of(name)
    raw = read_json(folder / "config.json")
    shapes = WeightFiles(folder).shapes if any(folder.glob("*.safetensors")) else {}
    published = detect(raw, shapes)
    kind = published.kind or ("diffusion" if raw.get("is_causal") is False else "autoregressive")

    with refused(f"{folder / 'config.json'} does not say a shape", "take the published file"):
        model = without_weights(published.config(raw, shapes), dtype, causal=kind == "autoregressive")

    mask_token_id = 0 if kind == "diffusion" else None  # any token will do for a plan
    return MetaModel(model, None, folder.resolve().name, kind, mask_token_id, kind == "autoregressive")


def _cost(lm: MetaModel, recipe: Recipe, options: Prune, sequences: int, gpu: Gpu | None) -> PruningCost:
    """Return what the run takes on this machine, or on a GPU that is not here."""
    length = options.length or default_length(options, lm.model.config.max_position_embeddings)
    ids_NT = torch.zeros(sequences, length, dtype=torch.long)
    calibration = Calibration(ids_NT, batch=options.batch)
    out, work = options.target, options.work_folder
    if gpu is None:
        return pruning_cost(lm, recipe, calibration, out, work, device=options.device)

    budget = int(WAITING_SHARE * gpu.memory)
    speed = gpu.speed(lm.model.dtype.itemsize)
    return pruning_cost(lm, recipe, calibration, out, work, speed=speed, device="cpu", memory_budget=budget)


def _lacks(cost: PruningCost, needed: Requirements | None, gpu: Gpu | None, is_streamed: bool) -> list[str]:
    """Return sentences on what is missing: of disk here, and of memory where the run is to be."""
    of_weights = () if needed is None else needed.missing
    if is_streamed:
        of_weights = [lack for lack in of_weights if "of disk" in lack]

    lacks = [*of_weights, *cost.missing]
    if gpu is None:
        return [f"this machine lacks {lack}" for lack in lacks]

    sentences = [f"this machine lacks {lack}" for lack in lacks if "of disk" in lack]
    if cost.memory > gpu.memory:
        sentences.append(
            f"{gpu.name} has {gpu.memory / 1e9:.0f} GB of memory, which is too little: "
            "use fewer or shorter sequences, a smaller batch, or --stream"
        )

    return sentences

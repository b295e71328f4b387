"""Sparse and in eight bits: the linears of a pruned model in int8, its zeros kept, by torchao."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, TorchAoConfig

from sinkprune.files import atomic, check_new_folder, existing, free_disk_at, write_json
from sinkprune.models.gpt2 import is_transposed
from sinkprune.models.hub import available_memory
from sinkprune.models.loading import load, open_checkpoint
from sinkprune.models.reader import CARD
from sinkprune.models.weight_files import read_json
from sinkprune.recovery.model_card import tokenizer_with_mask
from sinkprune.runs.pruning_cost import PROCESS_BYTES, parameters_of, weight_bytes
from sinkprune_core.language_model import LanguageModel, set_direction

OF_WEIGHT = 1  # bytes of a linear's weight
OF_ROW = 5  # bytes beside a row of them: its scale in float32, and a zero point in int8
OF_OTHERS = 2  # bytes of every other parameter, in bfloat16


@dataclass(frozen=True)
class Int8Cost:
    """What writing a model in int8 is expected to take, once it is pruned and out of memory."""

    memory: int  # bytes of main memory at the peak, wherever the model was pruned
    disk: int  # bytes of the folder
    missing_memory: tuple[str, ...]  # what this machine lacks of main memory, in sentences
    missing_disk: tuple[str, ...]  # and of disk

    @property
    def missing(self) -> tuple[str, ...]:
        """What this machine lacks, in sentences."""
        return self.missing_memory + self.missing_disk

    def __str__(self) -> str:
        return (
            f"int8 after it: peak main memory about {self.memory / 1e9:.1f} GB, "
            f"its folder {self.disk / 1e9:.1f} GB"
        )


def int8_cost(lm: LanguageModel, pruned: Path, out: Path, removed: int = 0) -> Int8Cost:
    """Return what `save_int8` will take for the model that `lm` becomes; of `lm` the shapes are enough.

    `removed` are bytes on the disk of `out` that lie there now, and no longer when int8 is written. A model
    that a structured recipe makes smaller takes less. Raises ValueError for a model that has no int8 version.
    """
    _check_linears(lm.model.config, [name for name, _ in lm.model.named_parameters()])

    disk = int8_bytes(lm)
    in_bfloat16 = 2 * parameters_of(lm.model)  # whose zeros are compared; what is read from files gives way
    memory = PROCESS_BYTES + in_bfloat16 + disk

    missing_memory, missing_disk = (), ()
    own = psutil.Process().memory_info().rss  # the libraries, which count, and a model that is gone by then
    free_memory = available_memory("cpu") + own
    if memory > free_memory:
        missing_memory = (
            f"{memory / 1e9:.1f} GB of main memory for int8, and {free_memory / 1e9:.1f} GB are available: "
            "write it with `sinkprune ship` on a larger machine",
        )

    is_beside = existing(pruned).stat().st_dev == existing(out).stat().st_dev
    needed = disk + weight_bytes(lm) if is_beside else disk
    free = free_disk_at(out) + removed
    if needed > free:
        both = " and the pruned model" if is_beside else ""
        missing_disk = (
            f"{needed / 1e9:.1f} GB of disk at {out} for int8{both}, which has {free / 1e9:.1f} GB free: "
            "make room or choose another place",
        )

    return Int8Cost(memory, disk, missing_memory, missing_disk)


def int8_bytes(lm: LanguageModel) -> int:
    """Return the bytes of all tensors that `save_int8` writes for a model of these shapes."""
    rows = sum(linear.weight.shape[0] for linear in lm.all_linears().values())
    others = parameters_of(lm.model) - lm.prunable_weights
    return OF_WEIGHT * lm.prunable_weights + OF_ROW * rows + OF_OTHERS * others


def save_int8(pruned: str | os.PathLike, out: str | os.PathLike) -> float:
    """Write a pruned folder with the weights of its linears in int8; return the share of zeros in them.

    Every row has a scale of its own and zero stays zero, which is checked. The folder is for stock
    transformers (`AutoModelForCausalLM.from_pretrained`, with torchao installed), which reads the
    direction of attention from it; `load` takes no quantised weights. Raises FileExistsError for an `out`
    that is there, RuntimeError without torchao, and ValueError for what is no folder, for a model that has no
    int8 version (before a weight is read), and where a zero would be lost.
    """
    config = int8_config()
    out = Path(out)
    check_new_folder(out)

    folder = _plain_folder(pruned)
    checkpoint = open_checkpoint(folder)
    _check_linears(checkpoint.config, checkpoint.names())

    lm = load(folder, torch.bfloat16)

    with atomic(out) as partial:
        narrow = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, quantization_config=config
        )
        set_direction(narrow, causal=not lm.is_diffusion)
        share = _check_zeros(lm, narrow)
        narrow.save_pretrained(partial)
        tokenizer = tokenizer_with_mask(lm)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)

        card = read_json(folder / CARD)
        card.pop("sha256", None)
        write_json(partial / CARD, {**card, "int8": "torchao, weights of the linears, a scale per row"})

    return share


def int8_config() -> TorchAoConfig:
    """Return how the weights of linears become int8; raise RuntimeError without torchao."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RuntimeError("int8 needs torchao: install it, with pip install 'sinkprune[int8]'") from error

    return TorchAoConfig(Int8WeightOnlyConfig())


def _plain_folder(pruned: str | os.PathLike) -> Path:
    """Return a folder that stock transformers reads; raise ValueError for a name."""
    folder = Path(pruned)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: save the model first, then give its folder")
    return folder


def _check_linears(config: PretrainedConfig, names: Iterable[str]) -> None:
    """Raise ValueError for a model whose files hold weights the other way round, untouched by torchao."""
    if any(is_transposed(config, name) for name in names):
        raise ValueError(
            f"{config.model_type} has no int8 version: torchao takes plain linears, in place of which stock "
            "transformers has layers of another class there (Conv1D); leave int8 out"
        )


def _check_zeros(lm, narrow) -> float:
    """Return the share of zeros in the linears; raise ValueError where one would be lost."""
    quantised = dict(narrow.named_modules())
    zeros = 0
    for (layer, name), linear in lm.all_linears().items():
        is_zero = linear.weight == 0
        value = quantised[f"{lm.blocks_name}.{layer}.{name}"].weight.dequantize()
        if bool((value[is_zero] != 0).any()):
            raise ValueError(f"{name} of block {layer} would lose zeros in int8: nothing was written")
        zeros += int(is_zero.sum())

    return zeros / lm.prunable_weights

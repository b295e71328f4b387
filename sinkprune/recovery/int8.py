"""Sparse and in eight bits: the linears of a pruned model in int8, its zeros kept, by torchao."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PretrainedConfig, TorchAoConfig

from sinkprune.files import atomic, check_new_folder, existing, free_disk_at, write_json
from sinkprune.models.gpt2 import is_transposed
from sinkprune.models.hub import available_memory
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.reader import CARD
from sinkprune.models.streaming import METADATA, OF_BLOCK, StreamedModel, stream
from sinkprune.models.weight_files import INDEX, read_json
from sinkprune.recovery.model_card import state_mask, tokenizer_with_mask, write_readme
from sinkprune.runs.pruning_cost import PROCESS_BYTES, parameters_of, weight_bytes
from sinkprune_core.language_model import LanguageModel

OF_WEIGHT = 1  # bytes of a linear's weight
OF_ROW = 5  # bytes beside a row of them: its scale in float32, and a zero point in int8
OF_OTHERS = 2  # bytes of every other parameter, in bfloat16
OF_BLOCK_IN_MEMORY = 2 + 2  # bytes of its weights in bfloat16, and in int8 as torchao has them and as written
REST = "model-rest.safetensors"  # what lies outside the blocks


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
    block = max(parameters_of(block) for block in lm.blocks)  # one is in memory at a time
    others = parameters_of(lm.model) - parameters_of(lm.blocks)
    memory = PROCESS_BYTES + OF_BLOCK_IN_MEMORY * block + OF_OTHERS * others

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
    """Write a pruned folder with its linears in int8, model card included; return the share of zeros in them.

    Every row has a scale of its own and zero stays zero, which is checked. Blocks are read, made int8 and
    written one at a time, each to a file of its own. The folder is for stock transformers
    (`AutoModelForCausalLM.from_pretrained`, with torchao installed), which reads the direction of attention
    from it; `load` takes no quantised weights. Raises FileExistsError for an `out` that is there,
    RuntimeError without torchao, and ValueError for what is no folder, for a model that has no int8 version
    (before a weight is read), and where a zero would be lost.
    """
    config = int8_config()
    out = Path(out)
    check_new_folder(out)

    folder = _plain_folder(pruned)
    checkpoint = open_checkpoint(folder)
    _check_linears(checkpoint.config, checkpoint.names())

    lm = stream(checkpoint, checkpoint.name, torch.bfloat16)
    lm.model.config.quantization_config = config

    with atomic(out) as partial:
        partial.mkdir()
        share = _write_weights(lm, config, partial)
        checkpoint.files.check_unchanged()

        lm.write_configuration(partial)
        if lm.is_diffusion:
            state_mask(lm, partial)
        tokenizer = tokenizer_with_mask(lm)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)

        own = {
            "name": lm.name,
            "kind": lm.kind,
            "mask_token_id": lm.mask_token_id,
            "logits_shifted": lm.logits_shifted,
        }
        card = read_json(folder / CARD)
        card.pop("sha256", None)
        int8 = {"int8": "torchao, weights of the linears, a scale per row"}
        write_json(partial / CARD, {**own, **card, **int8})
        write_readme(partial, out.name)

    return share


def _write_weights(lm: StreamedModel, config: TorchAoConfig, folder: Path) -> float:
    """Write a file for every block and one for the rest; return the share of zeros in the linears.

    Every file names all parameters in its metadata, since transformers joins the metadata of all files.
    """
    names = [name for name, _ in lm.model.named_parameters()]
    metadata = {**METADATA, "tensor_names": json.dumps(names)}
    shard_of, zeros = {}, 0

    def write(tensors: dict[str, torch.Tensor], shard: str) -> None:
        flat, about = _flattened(tensors)
        save_file(flat, folder / shard, metadata={**about, **metadata})
        shard_of.update(dict.fromkeys(flat, shard))

    for layer in range(len(lm.blocks)):
        with lm.resident(layer) as block:
            linears = lm.linears(block)
            zeros += sum(int((linear.weight == 0).sum()) for linear in linears.values())
            narrow = {f"{name}.weight": _narrow(linear, config) for name, linear in linears.items()}
            for name, weight in narrow.items():
                _check_zeros(block.get_parameter(name), weight, f"{name} of block {layer}")

            prefix = lm.prefix(layer)
            values = {name: value.detach() for name, value in block.named_parameters()} | narrow
            write(
                {prefix + name: value for name, value in values.items()}, f"{OF_BLOCK}{layer:05d}.safetensors"
            )

    in_blocks = f"{lm.blocks_name}."
    rest = {name: value for name, value in lm.model.named_parameters() if not name.startswith(in_blocks)}
    write({name: lm.value_of(name, value).contiguous() for name, value in rest.items()}, REST)

    size = sum((folder / shard).stat().st_size for shard in set(shard_of.values()))
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": shard_of})
    return zeros / lm.prunable_weights


def _narrow(linear: nn.Linear, config: TorchAoConfig) -> torch.Tensor:
    """Return the weight of a linear as torchao's int8; the linear stays as it is."""
    from torchao.quantization import quantize_  # pyright: ignore[reportMissingImports]

    copy = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    copy.weight = nn.Parameter(linear.weight.detach(), requires_grad=False)
    quantize_(copy, config.get_apply_tensor_subclass())
    return copy.weight.detach()


def _flattened(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return plain tensors, and the metadata from which transformers makes int8 ones of them again."""
    from torchao.prototype.safetensors.safetensors_support import (  # pyright: ignore[reportMissingImports]
        flatten_tensor_state_dict,
    )

    return flatten_tensor_state_dict(tensors)


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


def _check_zeros(weight: torch.Tensor, narrow: torch.Tensor, name: str) -> None:
    """Raise ValueError where a zero of a weight is none in int8."""
    if bool((narrow.dequantize()[weight == 0] != 0).any()):
        raise ValueError(f"{name} would lose zeros in int8: nothing was written")

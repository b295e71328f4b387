"""Sparse and in eight bits: the linears of a pruned model in int8, its zeros kept, by torchao."""

import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, TorchAoConfig

from sinkprune.files import atomic, write_json
from sinkprune.models.loading import load
from sinkprune.models.reader import CARD
from sinkprune.models.weight_files import read_json
from sinkprune.recovery.model_card import tokenizer_with_mask
from sinkprune_core.language_model import set_direction


def save_int8(pruned: str | os.PathLike, out: str | os.PathLike) -> float:
    """Write a pruned folder with the weights of its linears in int8; return the share of zeros in them.

    Every row has a scale of its own and zero stays zero, which is checked. The folder is for stock
    transformers (`AutoModelForCausalLM.from_pretrained`, with torchao installed), which reads the
    direction of attention from it; `load` takes no quantised weights. Raises FileExistsError for an `out`
    that is there, RuntimeError without torchao, and ValueError where a zero would be lost.
    """
    config = int8_config()
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"output folder {out} exists: choose another name or remove it first")

    lm = load(pruned, torch.bfloat16)

    with atomic(out) as partial:
        narrow = AutoModelForCausalLM.from_pretrained(
            _plain_folder(pruned), dtype=torch.bfloat16, quantization_config=config
        )
        set_direction(narrow, causal=not lm.is_diffusion)
        share = _check_zeros(lm, narrow)
        narrow.save_pretrained(partial)
        tokenizer = tokenizer_with_mask(lm)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)

        card = read_json(Path(pruned) / CARD)
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

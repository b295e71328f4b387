"""LoRA adapters, of this project's training and of PEFT: opened around their base, and merged into it.

Only plain LoRA is covered, and an adapter has exactly the tensors that its configuration and its base ask
for: PEFT itself takes what is missing for zero, with a warning.

Dimensions: O output features, I input features, R rank of the adapter.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import nn
from transformers import PreTrainedModel

from sinkprune.models.formats import Names, renamed
from sinkprune.models.weight_files import (
    STORED_DTYPES,
    FormatError,
    WeightFiles,
    check_files,
    read_checked,
    read_json,
    refused,
)
from sinkprune_core.values import in_short

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of PEFT, before the names of the base
WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "inference_mode",
    "init_lora_weights",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
)  # on what a finished adapter computes
NOTHING = (None, False, "none", {}, [])  # how a variant of LoRA is said to be off


class AdapterFile(WeightFiles):
    """An adapter's tensors, which may be in 8 bits: their factor lies in `lora_alpha`."""

    covered = STORED_DTYPES | {"F8_E4M3": torch.float8_e4m3fn}


class PlainLora(BaseModel, strict=True, extra="allow"):
    """What the configuration of an adapter has to state."""

    r: PositiveInt
    lora_alpha: float = Field(ge=1e-6, le=1e9)
    lora_dropout: float | None = Field(None, ge=0, le=1)
    target_modules: list[str] = Field(min_length=1)


def adapter_config(folder: Path):
    """Return the configuration of an adapter, a LoraConfig.

    Raises FileNotFoundError if there is no adapter, FormatError for one that is not plain LoRA.
    """
    from peft import LoraConfig

    if folder.is_dir():
        check_files(folder)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}: give the folder of an adapter in safetensors")

    plain = read_checked(PlainLora, folder / CONFIG)
    for name, value in (plain.model_extra or {}).items():
        is_plain = value == "LORA" if name == "peft_type" else value in NOTHING
        if name not in WITHOUT_EFFECT and not is_plain:
            raise FormatError(f"{folder / CONFIG} has {name}={in_short(value)}: only plain LoRA is covered")

    return LoraConfig(
        r=plain.r,
        lora_alpha=cast(int, plain.lora_alpha),  # PEFT takes any number
        lora_dropout=plain.lora_dropout or 0.0,
        target_modules=plain.target_modules,
        task_type="CAUSAL_LM",
    )


def open_adapter(model: PreTrainedModel, folder: Path, trainable: bool = False, names: Names = ()):
    """Return `model` with the adapter of a folder around it, a PeftModel.

    `names` are those of the format in which the base is published: an adapter that was trained on the class
    that is published with it is read by them. Raises FileNotFoundError if there is no adapter, FormatError
    for one with missing or extra tensors, with other shapes, or of another kind than plain LoRA.
    """
    from peft import PeftModel

    config = adapter_config(folder)
    shapes = AdapterFile(folder, WEIGHTS).shapes
    stored = {_native(name, names): shape for name, shape in shapes.items()}
    is_published = stored.keys() != shapes.keys()
    if is_published:
        config.target_modules = _native_targets(cast(list[str], config.target_modules), names, model)
    expected = _expected(model, cast(list[str], config.target_modules), config.r)

    problems = [
        *(f"{name} is missing" for name in expected.keys() - stored.keys()),
        *(f"{name} belongs to nothing" for name in stored.keys() - expected.keys()),
        *(
            f"{name} has shape {stored[name]} instead of {expected[name]}"
            for name in expected.keys() & stored.keys()
            if stored[name] != expected[name]
        ),
    ]
    if problems:
        raise FormatError(
            f"{folder / WEIGHTS} does not fit {CONFIG} and the base: {', '.join(sorted(problems)[:3])}"
            f"{f' and {len(problems) - 3} more' if len(problems) > 3 else ''}"
        )

    with refused(f"the adapter in {folder} cannot be read", "train it again"):
        return PeftModel.from_pretrained(
            model,
            folder,
            config=config,
            is_trainable=trainable,
            key_mapping=_patterns(names) if is_published else {},
        )


def _native(name: str, names: Names) -> str:
    """Return what a stored tensor of an adapter is called on the native class of its base."""
    return PREFIX + renamed(name.removeprefix(PREFIX), names)


def _native_targets(targets: Collection[str], names: Names, model: PreTrainedModel) -> list[str]:
    """Return the linears of the native class that targets of the published class are."""
    found = set()
    for target in targets:
        natives = {_leaf(native) for published, native in names if _leaf(published) == target}
        found |= natives or {target}

    if model.config.tie_word_embeddings:  # the published class has no head of its own then
        found.discard("lm_head")

    return sorted(found)


def _leaf(beginning: str) -> str:
    """Return the last part of a name's beginning, which ends with a dot."""
    return beginning.rstrip(".").rpartition(".")[2]


def _patterns(names: Names) -> dict[str, str]:
    """Return `names` as regular expressions and what replaces them, as PEFT takes them."""
    return {
        "^" + re.escape(published).replace(r"\#", r"(\d+)"): native.replace("#", r"\1")
        for published, native in names
    }


def _expected(model: PreTrainedModel, targets: Collection[str], rank: int) -> dict[str, tuple[int, int]]:
    """Return the shapes of an adapter's tensors, (R, I) and (O, R), by their stored names."""
    shapes = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in targets and isinstance(module, nn.Linear):
            shapes[f"{PREFIX}{name}.lora_A.weight"] = (rank, module.in_features)
            shapes[f"{PREFIX}{name}.lora_B.weight"] = (module.out_features, rank)

    return shapes


def is_adapter(folder: Path | str) -> bool:
    """Return whether a folder holds an adapter and no model of its own."""
    folder = Path(folder)
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """Return the name of the model that an adapter was trained on, as `load` takes it.

    A relative path is looked for here and beside the adapter. Raises FormatError where none is named.
    """
    named = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip():
        raise FormatError(
            f"{folder / CONFIG} does not say which model the adapter belongs to: write its folder or hub id "
            "into base_model_name_or_path"
        )

    for place in (Path(named), folder.parent / named, folder.parent / Path(named).name):
        if place.is_dir() and place.resolve() != folder.resolve():
            return os.fspath(place)

    return named


def merge_adapter(
    model: PreTrainedModel,
    folder: Path,
    dtype: torch.dtype,
    holds_zeros: bool = False,
    names: Names = (),
) -> PreTrainedModel:
    """Return `model` with a LoRA adapter folded into its weights, then its parameters in `dtype`.

    The sum is formed in float32, one linear at a time, so the base may be in bfloat16, which holds it
    exactly. With `holds_zeros` weights that are zero stay zero. `names` are as in `open_adapter`. Only
    parameters are converted: rotary frequencies are buffers and stay float32. Raises what `open_adapter`
    raises, and FormatError for weights that are not finite afterwards.
    """
    from peft.tuners.lora import LoraLayer

    opened = cast(Any, open_adapter(model, folder, names=names))
    layers = {name: module for name, module in opened.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        weight = cast(nn.Linear, layer.get_base_layer()).weight
        weight.data = weight.data.float()
        zeros = weight.data == 0
        cast(Any, layer).merge()
        if holds_zeros:
            weight.data.masked_fill_(zeros, 0)
        if not bool(torch.isfinite(weight.data).all()):
            raise FormatError(f"{name} is not finite with the adapter in {folder}: train it again")

        weight.data = weight.data.to(dtype)

    model = opened.unload()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)

    model.config.dtype = dtype
    return model

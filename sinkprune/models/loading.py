"""From a name to a model: what `load` takes, and the same step by step for work that goes block by block."""

import os
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from sinkprune.memory import release_freed_memory
from sinkprune.models import embedded
from sinkprune.models.adapters import adapter_config, is_adapter, merge_adapter
from sinkprune.models.catalog import EMBEDDED, KnownModel
from sinkprune.models.devices import choose_device, choose_dtype, move
from sinkprune.models.embedded import FetchError
from sinkprune.models.hub import adapter_base, available_memory, fetch, folder_of, parse, save_whole
from sinkprune.models.placement import DeviceMap, device_of, dispatch, place
from sinkprune.models.reader import LARGE, Checkpoint
from sinkprune.models.weight_files import FormatError
from sinkprune_core.language_model import LanguageModel, check_finite
from sinkprune_core.wrapping import check_computation

PRUNED_SHARE = 0.01  # zeros in the linears of the blocks from which a model counts as pruned


def load(
    name: str | os.PathLike,
    dtype: str | torch.dtype = "float32",
    device: str = "cpu",
    device_map: DeviceMap | None = None,
    trainable: bool = False,
) -> LanguageModel:
    """Load a model by its name or from a folder.

    A name is that of an embedded model (`"smol-dlm"`), a hub id, or a hub id with `@revision`. A folder is in
    a public format (formats.py), in transformers' own, or written by `saving.save`. The files' configuration
    decides the format.

    `dtype`: float32, bfloat16, float16, or `auto`, what the device is best at. `device`: cpu, cuda, cuda:1,
    mps, or `auto`, a GPU where there is one. `device_map` spreads the model over several devices instead of
    one (`auto`, or part -> device, see `placement.place`); every weight is read straight to its place.
    `trainable`: whether parameters take gradients; without, a loop that trains them moves nothing.

    Raises ValueError for an unknown name, dtype or device, for weights that do not fit and for one that is
    not finite, RuntimeError for a device without the memory that it takes (before a weight is read), and
    `embedded.FetchError` when files cannot be fetched.

    The folder of a PEFT adapter (plain LoRA) is loaded as its base with the adapter merged. Into a pruned
    base it is merged where that is not zero, with a warning: so `zeros_held` trains it.
    """
    if device_map is not None and device not in ("cpu", "auto"):
        raise ValueError(f"device={device!r} does not go with device_map, which names devices: leave it out")
    if device_map is not None and torch.cuda.is_available():
        device = "cuda"  # what `auto` is about

    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    row = parse(name).row

    base = adapter_base(name)
    if base is not None:
        if device_map is not None:
            raise ValueError(f"device_map does not go with an adapter: {save_whole(name)}")
        lm = _load_adapted(os.fspath(name), base, dtype, device)
        lm.model.requires_grad_(trainable)
        return lm

    release_freed_memory()  # what earlier work freed in parts too small for a model

    checkpoint = None
    if row is not None and row.id in embedded.ADAPTERS:
        lm = with_adapter(row, embedded.ADAPTERS[row.id], dtype)
    else:
        checkpoint = open_checkpoint(name)
        lm = language_model(checkpoint, checkpoint.skeleton())  # errors that need no weights come first
        if device_map is None:  # or `place` checks every device
            _check_memory(checkpoint, dtype, device)

    places = {"": torch.device(device)}
    if device_map is not None:
        places = place(lm.model, lm.blocks_name, device_map, dtype)

    if checkpoint is not None:
        device_by_name = partial(device_of, devices=places)
        checkpoint.fill(lm.model, "", dtype, device_by_name, progress=checkpoint.bytes > LARGE)

    cast(Any, lm.model).name_or_path = os.fspath(name)  # what PEFT calls the base of an adapter
    lm.model.requires_grad_(False)
    check_finite(lm, lm.model.named_parameters())  # attention may swallow what is not
    dispatch(lm.model, places)
    check_computation(lm)

    lm.model.requires_grad_(trainable)
    release_freed_memory()  # what conversion and merging needed
    return lm


def _load_adapted(name: str, base_name: str, dtype: torch.dtype, device: str) -> LanguageModel:
    """Return the base of an adapter with the adapter merged; the zeros of a pruned base stay.

    The base is read in the dtype in which it is stored, so that it takes no more memory than it must.
    """
    folder = folder_of(name)
    adapter_config(folder)  # raises for one that is not plain LoRA, before a base is loaded
    names, stored = (), torch.float32
    try:
        row = parse(base_name).row
        if row is None or row.id not in EMBEDDED:
            checkpoint = open_checkpoint(base_name)
            names, stored = checkpoint.format.names, checkpoint.exact_dtype
        base = load(base_name, stored)
    except (ValueError, FetchError) as error:
        raise FormatError(f"{name} is an adapter of {base_name!r}, which cannot be loaded: {error}") from None

    share = base.count_zeros() / base.prunable_weights
    is_pruned = share >= PRUNED_SHARE
    if is_pruned:
        warnings.warn(
            f"{name} is merged where {base_name} is not zero, so that {share:.1%} zeros stay: that is the "
            "model that was trained if `zeros_held` was around its training; otherwise merge it with PEFT, "
            "which makes the model dense",
            stacklevel=3,
        )

    model = merge_adapter(base.model, folder, dtype, holds_zeros=is_pruned, names=names)
    move(model, device)
    model.requires_grad_(False)
    return replace(base, model=model, name=Path(name).name)


def _check_memory(checkpoint: Checkpoint, dtype: torch.dtype, device: str) -> None:
    """Raise RuntimeError where the weights of a model do not fit the free memory of a device."""
    needed = checkpoint.parameters * dtype.itemsize
    free = available_memory(device)
    if needed > free:
        raise RuntimeError(
            f"{checkpoint.name} cannot be loaded here: its weights take {needed / 1e9:.1f} GB in "
            f"{str(dtype).removeprefix('torch.')}, and {device} has {free / 1e9:.1f} GB available: "
            "take a smaller dtype or model, or a larger machine"
        )


def open_checkpoint(name: str | os.PathLike) -> Checkpoint:
    """Return the weights behind a name without reading them: for work that goes block by block.

    A hub id is downloaded first. Raises ValueError for an unknown name, and for a base with an
    adapter, which exists only once that is merged: load and save it, then give the folder.
    """
    known = parse(name)
    row = known.row
    if row is None:
        folder = folder_of(name)
        if is_adapter(folder):
            raise FormatError(f"{os.fspath(name)} is an adapter, not a whole model: {save_whole(name)}")
        return Checkpoint(folder, name=None if known.folder else os.fspath(name).partition("@")[0])

    if row.id in embedded.ADAPTERS:
        raise ValueError(
            f"{row.id} is a base with an adapter, not a folder: "
            f"save it with save(load({row.id!r}), folder) and give that folder"
        )

    if row.id in EMBEDDED:
        return _embedded_base(row)
    return Checkpoint(fetch(row.id, known.revision), row=row)


def without_weights(name: str | os.PathLike) -> tuple[LanguageModel, Checkpoint]:
    """Return a model whose parameters are on the meta device, and where its weights lie.

    They are downloaded if need be. An adapter has the shape and the tokens of its base, and its weights lie
    there.
    """
    base = adapter_base(name)
    if base is not None:
        lm, checkpoint = without_weights(base)
        return lm.named(Path(name).name), checkpoint

    row = parse(name).row
    checkpoint = open_checkpoint(name) if row is None or row.id not in EMBEDDED else _embedded_base(row)
    return language_model(checkpoint, checkpoint.skeleton()), checkpoint


def _embedded_base(row: KnownModel) -> Checkpoint:
    """Return the base of the embedded models, read in the direction of one of them."""
    return Checkpoint(embedded.base_folder(), causal=row.kind == "autoregressive", row=row)


def language_model(checkpoint: Checkpoint, model: PreTrainedModel) -> LanguageModel:
    """Return `model`, loaded or a skeleton, with what the checkpoint says of its logits and its mask token.

    Raises FormatError where mask tokens differ, none is named, or nothing says whether logits are shifted.
    """
    tokenizer = checkpoint.tokenizer()
    return LanguageModel(
        model,
        tokenizer,
        checkpoint.name,
        checkpoint.kind,
        checkpoint.mask_token_id(tokenizer),
        checkpoint.logits_shifted,
    )


def with_adapter(row: KnownModel, adapter: Path, dtype: torch.dtype) -> LanguageModel:
    """Return the embedded base with an adapter of a row's kind merged into it, its parameters in `dtype`."""
    base = _embedded_base(row)
    return language_model(base, merge_adapter(base.load(torch.bfloat16), adapter, dtype))  # as it is stored

"""Masks alone: which weights are zero, a bit each, to be put on the dense model again.

That gives back a model whose other weights pruning left as they were (magnitude, Wanda), not one that was
updated (SparseGPT) or recovered. Dimensions: W weights of one linear.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
from pydantic import Field, InstanceOf
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from sinkprune.files import atomic
from sinkprune.models.saving import check_json
from sinkprune.models.weight_files import refused
from sinkprune_core.language_model import LanguageModel, zero_out
from sinkprune_core.model_checks import check_structure
from sinkprune_core.values import Place, checked, checked_arguments

Card = Annotated[Mapping[str, object], Field(description="values of JSON by their names")]
FORMAT = "sinkprune masks 2"


@checked_arguments
def save_masks(
    lm: InstanceOf[LanguageModel],
    file: Place,
    dense: LanguageModel | None = None,
    card: Card | None = None,
) -> Path:
    """Write where the linears of the blocks are zero to a safetensors file, a bit per weight; return it.

    Packed rows are compressed no further: a file has an eighth of a byte per weight. It knows the model by
    its other parameters (embeddings, head and norms), and by the weights that stayed, so that `apply_masks`
    can refuse another one. With `dense` it is checked that the pruned model is the dense one with zeros.
    `card` is what the pruned model's says of its recipe, which `masks_about` gives back. Raises ValueError
    where it is not the dense one with zeros, for a `dense` of other parameters, shapes, dtype or embeddings,
    for a model without zeros, and for one whose weights are not in memory.
    """
    check_json(card or {})
    if Path(file).is_dir():
        raise IsADirectoryError(f"file {file} is a folder: name a file in it")

    given = [lm]
    if dense is not None:
        given.append(checked("dense", dense, InstanceOf[LanguageModel]))
    for each in given:
        check_structure(each.model)
        each.check_loaded()

    of_dense = {}
    if dense is not None:
        _check_same_form(lm, dense)
        of_dense = _weights(dense)

    packed = {}
    zeros = 0
    for name, weight in _weights(lm).items():
        is_zero = weight == 0
        zeros += int(is_zero.sum())
        packed[name] = _pack(is_zero)
        if dense is None:
            continue

        expected = of_dense[name].to(weight.device).masked_fill(is_zero, 0)
        if not torch.equal(expected, weight):
            raise ValueError(
                f"{name} of {lm.name} is not that of {dense.name} with zeros: weights were updated after "
                "pruning, or by it, so masks alone cannot bring it back; ship the whole folder"
            )

    if not zeros:
        raise ValueError(f"{lm.name} has no zeros in its linears: there is no mask to save")

    about = {
        "format": FORMAT,
        "model": lm.name,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "fingerprint": _fingerprint(lm, packed),
        "zeros": zeros,
        "card": dict(card or {}),
    }
    with atomic(file) as partial:
        save_file(packed, partial, metadata={"sinkprune": json.dumps(about)})

    return Path(file)


def masks_about(file: Path | str) -> dict:
    """Return what a file of masks says: the name and `dtype` of the pruned model, its `zeros` and its `card`.

    Raises FileNotFoundError where there is no file, and ValueError for one that is no mask.
    """
    return _read(Path(file))[0]


def _read(file: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return what a file of masks says, and its bits by linear; raise as `masks_about` does."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such mask")

    with refused(f"{file} is no mask", "write one with save_masks"), safe_open(file, "pt") as handle:
        about = json.loads((handle.metadata() or {})["sinkprune"])
        packed = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - of a file
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}")

    return about, packed


@checked_arguments
@torch.no_grad()
def apply_masks(lm: InstanceOf[LanguageModel], file: Place) -> int:
    """Set the weights of a dense model that a mask marks to zero, in place; return how many are zero.

    Raises FileNotFoundError where there is no file, and ValueError, before anything is changed, for a file
    that is no mask, for a mask of another model, and for a model that is not covered, or cannot be changed.
    """
    check_structure(lm.model)
    lm.check_loaded()

    about, packed = _read(Path(file))

    weights = _weights(lm)
    sizes = {name: -(-weight.numel() // 8) for name, weight in weights.items()}
    if sizes != {name: bits.numel() for name, bits in packed.items()}:
        raise ValueError(f"the mask in {file} belongs to {about['model']}, and {lm.name} has other linears")
    if _fingerprint(lm, packed) != about["fingerprint"]:
        raise ValueError(
            f"the mask in {file} belongs to {about['model']}, and the weights of {lm.name} are others: "
            "give the dense model that it was pruned from, in the same dtype"
        )

    zeros = 0
    for name, weight in weights.items():
        is_zero = _unpack(packed[name], weight)
        zero_out(weight, is_zero)
        zeros += int(is_zero.sum())

    return zeros


def _weights(lm: LanguageModel) -> dict[str, torch.Tensor]:
    """Return the weights of the linears in the blocks, by name."""
    return {f"{layer}.{name}": linear.weight.detach() for (layer, name), linear in lm.all_linears().items()}


def _check_same_form(lm: LanguageModel, dense: LanguageModel) -> None:
    """Raise ValueError for a dense model that `lm` was not pruned from, as far as its form tells."""
    here, there = _forms(lm), _forms(dense)
    names = [name for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name)]
    differing = ""
    if names:
        form, other = here.get(names[0], "missing"), there.get(names[0], "missing")
        differing = f"{names[0]} is {other} there and {form} in {lm.name}"
    if not differing and not _has_same_embedding(lm, dense):
        differing = "its tokens have other embeddings"
    if differing:
        raise ValueError(
            f"dense={dense.name} is not what {lm.name} was pruned from, {differing}: "
            "give the dense model that it was pruned from, in the same dtype"
        )


def _forms(lm: LanguageModel) -> dict[str, str]:
    """Return the dtype and the shape of every parameter, in words."""
    parameters = lm.model.named_parameters()
    return {
        name: f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}" for name, value in parameters
    }


def _has_same_embedding(lm: LanguageModel, dense: LanguageModel) -> bool:
    """Return whether tokens are embedded alike, which neither pruning nor a recovery changes."""
    mine_VD, theirs_VD = (
        cast(nn.Embedding, each.model.get_input_embeddings()).weight for each in (lm, dense)
    )
    return torch.equal(theirs_VD.to(mine_VD.device), mine_VD)


def _pack(is_zero: torch.Tensor) -> torch.Tensor:
    """Return bits, uint8, of a bool tensor in row-major order."""
    return torch.from_numpy(np.packbits(is_zero.cpu().numpy().reshape(-1)))


def _unpack(bits: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the bool tensor, of the shape and on the device of a weight, that was packed."""
    flat_W = np.unpackbits(bits.numpy(), count=weight.numel()).astype(bool)
    return torch.from_numpy(flat_W).view(weight.shape).to(weight.device)


def _fingerprint(lm: LanguageModel, packed: dict[str, torch.Tensor]) -> str:
    """Return a digest of all parameters, with the zeros of a mask in the linears: equal for the dense model
    and the one that a mask was taken from.
    """
    digest = hashlib.sha256()
    names = {f"{lm.blocks_name}.{layer}.{name}.weight": f"{layer}.{name}" for layer, name in lm.all_linears()}

    for native, value in sorted(lm.model.named_parameters()):
        value = value.detach()
        if native in names:
            value = value.masked_fill(_unpack(packed[names[native]], value), 0)
        digest.update(f"{native} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().view(torch.uint8).numpy().data)

    return digest.hexdigest()

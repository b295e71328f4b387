"""From a model whose units are masked to a smaller native model without them."""

import copy
import dataclasses
from collections.abc import Container, Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import InstanceOf

from sinkprune.models.devices import move
from sinkprune_core.language_model import LanguageModel, set_direction
from sinkprune_core.pruning.structured import Kept, owned_by, removable, resized
from sinkprune_core.values import checked_arguments, in_short


@checked_arguments
@torch.no_grad()
def shrink(lm: InstanceOf[LanguageModel], kept: Sequence[Kept]) -> LanguageModel:
    """Return a smaller native model of the `kept` units, one entry per block.

    Its outputs equal those of the masked model. It shares no memory with `lm`, and `save` writes what stock
    transformers reads. A bias that `structured.mask` added switches the class's own biases on, with zeros
    wherever there were none. Raises ValueError unless every block keeps the same number of units, at least
    one of each kind, in ascending order; TypeError for what is no list of units.
    """
    _check_kept(lm, kept)
    counts = {kind: len(kept[0][kind]) for kind in removable(lm)}
    config = resized(lm.model.config, counts)

    new_biases = _new_biases(lm)
    for field in new_biases.values():
        config.update({field: True})

    cut: dict[str, torch.Tensor] = {}
    for layer, kept_of_block in enumerate(kept):
        cut |= _cut_block(lm, layer, kept_of_block, new_biases)

    rest = {name: tensor.clone() for name, tensor in lm.model.state_dict().items() if name not in cut}
    state = rest | cut
    model = type(lm.model).from_pretrained(None, config=config, state_dict=state, dtype=lm.model.dtype)
    model.generation_config = copy.deepcopy(lm.model.generation_config)
    cast(Any, model).name_or_path = lm.model.name_or_path  # what it was loaded from, for the model card
    set_direction(model, causal=not lm.is_diffusion)

    model.requires_grad_(False)
    move(model, lm.device)
    return dataclasses.replace(lm, model=model)


def _new_biases(lm: LanguageModel) -> dict[str, str]:
    """Return the kinds of unit whose reading linear has a bias that the config does not know of.

    Each stands with the config's field that gives it one.
    """
    field_of_kind = {}
    for kind, units in removable(lm).items():
        if units.bias is None or getattr(lm.model.config, units.bias):
            continue
        if any(lm.linears(block)[units.columns].bias is not None for block in lm.blocks):
            field_of_kind[kind] = units.bias

    return field_of_kind


def _cut_block(
    lm: LanguageModel, layer: int, kept: Kept, new_biases: Container[str]
) -> dict[str, torch.Tensor]:
    """Return the parameters of one block's linears without the units that leave, by name."""
    linears = lm.linears(lm.blocks[layer])
    cut: dict[str, torch.Tensor] = {}
    for kind, units in removable(lm).items():
        count = units.count(lm.model.config)
        for name in units.linears:
            linear = linears[name]
            reads = name == units.columns
            outputs, inputs = linear.weight.shape
            stays = owned_by(kept[kind], count, inputs if reads else outputs)
            index = stays.nonzero().flatten().to(linear.weight.device)
            prefix = f"{lm.blocks_name}.{layer}.{name}"
            cut[f"{prefix}.weight"] = linear.weight.index_select(1 if reads else 0, index)
            bias_O = linear.bias
            if bias_O is None and kind in new_biases:
                bias_O = linear.weight.new_zeros(outputs)

            if bias_O is not None:
                cut[f"{prefix}.bias"] = bias_O.clone() if reads else bias_O[index]

    return cut


def _check_kept(lm: LanguageModel, kept: Sequence[Kept]) -> None:
    if not isinstance(kept, Sequence) or not all(isinstance(entry, Mapping) for entry in kept):
        raise TypeError(f"kept={in_short(kept)} must be a list with the units of every block, by kind")
    if len(kept) != len(lm.blocks):
        raise ValueError(
            f"kept has {len(kept)} entries for the {len(lm.blocks)} blocks of {lm.name}: give one per block"
        )

    for layer, kept_of_block in enumerate(kept):
        for kind, units in removable(lm).items():
            places = torch.as_tensor(kept_of_block.get(kind, [])).tolist()
            count = units.count(lm.model.config)

            ascending = places == sorted(set(places))
            if not places or not ascending or not 0 <= places[0] <= places[-1] < count:
                raise ValueError(
                    f"kept[{layer}][{kind!r}] must be at least one unit of 0 … {count - 1}, "
                    "each once, ascending"
                )

            if len(places) != len(kept[0][kind]):
                raise ValueError(
                    f"kept[{layer}][{kind!r}] holds {len(places)} units, block 0 keeps {len(kept[0][kind])}: "
                    "a config has one number for all blocks"
                )

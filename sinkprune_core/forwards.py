"""What a forward takes and what it returns, checked for every caller.

Dimensions: B batch, T position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from sinkprune_core.values import in_short

if TYPE_CHECKING:
    from sinkprune_core.language_model import LanguageModel

RATES_OF_DROPOUT = ("dropout", "pdrop", "layerdrop")  # how fields of configurations end that hold one


def check_ids(lm: LanguageModel, ids_BT: torch.Tensor, training: bool = False) -> None:
    """Raise an error unless ids are int64 of the vocabulary; how long rows may be says `check_positions`.

    Raises TypeError for what is no tensor, ValueError for other ids, and for a model whose dropout is on,
    unless it is `training`.
    """
    if not isinstance(ids_BT, torch.Tensor):
        raise TypeError(f"token ids are {in_short(ids_BT)}: {lm.name} takes a tensor of int64")
    if ids_BT.dtype != torch.int64 or ids_BT.is_nested or ids_BT.layout != torch.strided:
        raise ValueError(f"token ids are {ids_BT.dtype} ({ids_BT.layout}): {lm.name} takes a tensor of int64")

    if not training:
        check_mode(lm.model, lm.name)
    check_direction(lm)
    if ids_BT.is_meta:
        check_loaded(lm)
        raise ValueError(f"token ids have no numbers, only a shape: {lm.name} takes ids that are somewhere")
    if ids_BT.numel():
        vocabulary = lm.vocabulary
        least, most = (int(extreme) for extreme in ids_BT.aminmax())
        if least < 0 or most >= vocabulary:
            raise ValueError(
                f"token id {least if least < 0 else most} is outside the vocabulary of {lm.name}, "
                f"0 … {vocabulary - 1}: take ids of its own tokenizer"
            )


def check_rows(lm: LanguageModel, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None) -> None:
    """Raise ValueError unless ids are rows of at least a token, and for a mask of another shape."""
    if not isinstance(ids_BT, torch.Tensor) or ids_BT.is_nested:
        return  # which `check_ids` refuses
    shape = tuple(ids_BT.shape)
    if len(shape) != 2 or not ids_BT.numel():
        raise ValueError(
            f"ids_BT has shape {shape}: {lm.name} takes (sequences, tokens), at least one of each"
        )
    if attention_mask_BT is not None and tuple(attention_mask_BT.shape) != shape:
        raise ValueError(
            f"attention_mask_BT has shape {tuple(attention_mask_BT.shape)}, and ids_BT has {shape}: "
            "give one number for every token"
        )


def check_direction(lm: LanguageModel) -> None:
    """Raise ValueError for a model whose attention was turned in the other direction since it was wrapped."""
    is_causal = getattr(lm.model.config, "is_causal", None)
    must_be_causal = not lm.is_diffusion
    if is_causal is not None and is_causal != must_be_causal:
        other = "causal" if is_causal else "bidirectional"
        raise ValueError(
            f"{lm.name} is {lm.kind}, and its attention was made {other} since: wrap a copy of the model "
            "for the other direction (copy.deepcopy)"
        )


def check_mode(model: PreTrainedModel, name: str) -> None:
    """Raise ValueError for a model whose dropout is on, if only in a part of it: forwards differ."""
    training = [module for module in model.modules() if module.training]
    if not training:
        return

    fields = model.config.to_dict().items()
    rates = [value for field, value in fields if field.endswith(RATES_OF_DROPOUT)]
    rates += [module.p for module in training if isinstance(module, nn.Dropout)]
    if any(isinstance(rate, float) and rate > 0 for rate in rates):
        raise ValueError(
            f"{name} is in training mode, where dropout is random: call model.eval(), unless you train it on "
            "`training_loss`"
        )


def check_loaded(lm: LanguageModel) -> None:
    """Raise ValueError for a model of which a part has a shape and no numbers: a forward would read what
    happens to lie in memory.
    """
    for name, parameter in lm.model.named_parameters():
        check_numbers(lm, name, parameter)


def check_numbers(lm: LanguageModel, name: str, value: torch.Tensor) -> None:
    """Raise ValueError for a part of a model that has a shape and no numbers."""
    if value.is_meta:
        raise ValueError(f"{name} of {lm.name} has no numbers, only a shape: load the model first")


def check_positions(lm: LanguageModel, tokens: int) -> None:
    """Raise ValueError when a sequence of `tokens` tokens has more of them than the model has positions."""
    limit = getattr(lm.model.config, "max_position_embeddings", None)
    if limit is not None and tokens > limit:
        raise ValueError(
            f"a sequence of {tokens} tokens exceeds the {limit} positions of {lm.name}: "
            "shorten the prompt or what is to be written or scored"
        )


def is_finite(value: torch.Tensor) -> bool:
    """Return whether all numbers of a tensor are finite, in one pass over it and without a copy."""
    if not value.numel():
        return True
    extremes = torch.stack(value.detach().aminmax())  # either is NaN where any number is
    return bool(torch.isfinite(extremes).all())


def check_output(lm: LanguageModel, value: torch.Tensor) -> torch.Tensor:
    """Return what a model has computed; raise ValueError where a number of it is not finite."""
    if not is_finite(value):
        raise ValueError(
            f"what {lm.name} computes in {lm.model.dtype} is not finite: "
            "its weights are damaged, or take a wider dtype"
        )

    return value

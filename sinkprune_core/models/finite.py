"""Weights that are no numbers are found before anything is made of them."""

import torch

from sinkprune_core.models.language_model import LanguageModel


def check_finite(lm: LanguageModel, blocks: bool = True) -> None:
    """Raise ValueError, naming the first parameter of a model that holds a number that is not finite.

    Without `blocks` only the others are read: embeddings, final norm, head. Blocks that are not in memory are
    passed over: pruning checks each when it comes to it.
    """
    prefix = f"{lm.blocks_name}."
    for name, parameter in lm.model.named_parameters():
        is_in_block = name.startswith(prefix)
        if is_in_block and (parameter.is_meta or not blocks):
            continue
        value = parameter.detach()
        if value.is_meta and lm.is_streamed:
            value = lm.checkpoint.tensor(name).to(lm.dtype)
        if value.is_meta:
            continue
        extremes = torch.stack(value.aminmax())  # either is NaN where any number is
        if not bool(torch.isfinite(extremes).all()):
            raise ValueError(
                f"{name} of {lm.name} holds numbers that are not finite: its weights are damaged, or too "
                f"large for {parameter.dtype}; take the published files, or a wider dtype"
            )

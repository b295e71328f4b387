"""Weights that are no numbers are found before anything is made of them."""

import torch

from sinkprune_core.models.language_model import LanguageModel


def check_finite(lm: LanguageModel, blocks: bool = True) -> None:
    """Raise ValueError, naming the first parameter of a model that holds a number that is not finite.

    Without `blocks` only the others are read: embeddings, final norm, head. A parameter that is not in memory
    (of a streamed model, or spread over devices) is passed over.
    """
    prefix = f"{lm.blocks_name}."
    for name, parameter in lm.model.named_parameters():
        if parameter.is_meta or (name.startswith(prefix) and not blocks):
            continue
        extremes = torch.stack(parameter.detach().aminmax())  # either is NaN where any number is
        if not bool(torch.isfinite(extremes).all()):
            raise ValueError(
                f"{name} of {lm.name} holds numbers that are not finite: its weights are damaged, or too "
                f"large for {parameter.dtype}; take the published files, or a wider dtype"
            )

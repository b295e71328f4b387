"""A model without weights: its shapes are enough to say what a run would take, before a byte is fetched."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from sinkprune.models.catalog import KnownModel
from sinkprune.models.configurations import of_shape
from sinkprune.models.devices import choose_dtype, move
from sinkprune.models.reader import native_class
from sinkprune.models.streaming import StreamedModel
from sinkprune_core.language_model import LanguageModel, set_direction

CONTEXT = 2048  # tokens, where a row of the table does not say


@dataclass(frozen=True, eq=False)
class MetaModel(LanguageModel):
    """A language model with shapes and dtypes but without weights and tokenizer (torch's meta device)."""

    is_streamed: bool = False  # whether the run that is planned reads its blocks from disk one by one


def is_streamed(lm: LanguageModel) -> bool:
    """Return whether blocks come from disk one at a time, or would in the run that is planned."""
    if isinstance(lm, MetaModel):
        return lm.is_streamed
    return isinstance(lm, StreamedModel)


def without_weights(config: PreTrainedConfig, dtype: torch.dtype, causal: bool) -> PreTrainedModel:
    """Return a model of a configuration whose weights have shapes and no numbers."""
    with torch.device("meta"):
        model = native_class(config)(config)
        move(model, dtype)

    set_direction(model.eval(), causal)
    model.tie_weights()
    return model


def meta_model(row: KnownModel, dtype: str | torch.dtype = "bfloat16") -> MetaModel:
    """Return a model of the published shape of a row of the table; nothing is downloaded."""
    config = of_shape(row.native, row.shape, row.context or CONTEXT)
    model = without_weights(config, choose_dtype(dtype), causal=row.kind == "autoregressive")
    mask_token_id = None
    if row.kind == "diffusion":
        mask_token_id = row.mask_token_id or 0  # any token will do for a plan

    return MetaModel(model, None, row.id, row.kind, mask_token_id, row.logits_shifted)

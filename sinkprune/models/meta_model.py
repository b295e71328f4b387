"""A model without weights: its shapes are enough to say what a run would take, before a byte is fetched."""

import os
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from sinkprune.models.catalog import KnownModel
from sinkprune.models.configurations import of_shape
from sinkprune.models.devices import choose_dtype, move
from sinkprune.models.formats import detect
from sinkprune.models.hub import folder_of, parse
from sinkprune.models.reader import native_class
from sinkprune.models.streaming import StreamedModel
from sinkprune.models.weight_files import WeightFiles, read_json, refused
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


def shapes_of(name: str | os.PathLike, dtype: torch.dtype) -> MetaModel:
    """Return a model without weights: of a row of the table, or of a folder's configuration alone.

    Raises FormatError for a configuration from which no shape follows.
    """
    row, _ = parse(name)
    if row is not None:
        return meta_model(row, dtype)

    folder = folder_of(name)
    raw = read_json(folder / "config.json")
    shapes = WeightFiles(folder).shapes if any(folder.glob("*.safetensors")) else {}
    published = detect(raw, shapes)
    kind = published.kind or ("diffusion" if raw.get("is_causal") is False else "autoregressive")

    with refused(f"{folder / 'config.json'} does not say a shape", "take the published file"):
        model = without_weights(published.config(raw, shapes), dtype, causal=kind == "autoregressive")

    mask_token_id = 0 if kind == "diffusion" else None  # any token will do for a plan
    return MetaModel(model, None, folder.resolve().name, kind, mask_token_id, kind == "autoregressive")

"""A model without weights: its shapes are enough to say what a run would take, before a byte is fetched."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from sinkprune.models.card import read_card
from sinkprune.models.catalog import KnownModel
from sinkprune.models.configurations import of_shape
from sinkprune.models.devices import choose_dtype, move
from sinkprune.models.formats import detect
from sinkprune.models.hub import adapter_base, folder_of, parse, shapes_of_files
from sinkprune.models.reader import native_class
from sinkprune.models.weight_files import read_json, refused
from sinkprune_core.language_model import LanguageModel, set_direction

CONTEXT = 1 << 20  # tokens, where a row of the table does not say: more than any run asks for


@dataclass(frozen=True, eq=False)
class MetaModel(LanguageModel):
    """A language model with shapes and dtypes but without weights and tokenizer (torch's meta device)."""

    will_be_streamed: bool = False  # in the run that is planned

    @property
    def is_streamed(self) -> bool:
        """Whether the run that is planned reads blocks from disk one at a time."""
        return self.will_be_streamed


def _of_config(config: PreTrainedConfig, dtype: torch.dtype, causal: bool) -> PreTrainedModel:
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
    model = _of_config(config, choose_dtype(dtype), causal=row.kind == "autoregressive")
    mask_token_id = None
    if row.kind == "diffusion":
        mask_token_id = row.mask_token_id or 0  # any token will do for a plan

    return MetaModel(model, None, row.id, row.kind, mask_token_id, row.logits_shifted)


def shapes_of(name: str | os.PathLike, dtype: torch.dtype) -> MetaModel:
    """Return a model without weights: of a row of the table, or of a configuration alone.

    Of a hub id the configuration is fetched, and no weights; an adapter has the shapes of its base. Raises
    FormatError for a configuration from which no shape follows.
    """
    base = adapter_base(name)
    if base is not None:
        return shapes_of(base, dtype).named(Path(name).name)
    known = parse(name)
    if known.row is not None:
        return meta_model(known.row, dtype)

    folder = folder_of(name, weights=False)
    raw = read_json(folder / "config.json")
    shapes = shapes_of_files(name)
    published = detect(raw, shapes)
    of_config = "diffusion" if raw.get("is_causal") is False else "autoregressive"
    kind = read_card(folder).get("kind") or published.kind or of_config

    with refused(f"{folder / 'config.json'} does not say a shape", "take the published file"):
        model = _of_config(published.config(raw, shapes), dtype, causal=kind == "autoregressive")

    called = folder.resolve().name if known.folder else os.fspath(name).partition("@")[0]
    mask_token_id = 0 if kind == "diffusion" else None  # any token will do for a plan
    return MetaModel(model, None, called, kind, mask_token_id, kind == "autoregressive")

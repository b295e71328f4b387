"""What a training run begins with: the embedded base, or any Llama, Qwen2 or Qwen3 causal language model.

A base of your own brings its weights, its tokenizer and a token that can stand for a mask.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sinkprune_core.models import embedded
from sinkprune_core.models.language_model import Checkpoint, LanguageModel, open_checkpoint, set_direction

EMBEDDED_BASE = "smol-ar"
TYPES = ("llama", "qwen2", "qwen3")  # configurations whose linears the adapter knows by name
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RESERVED = re.compile(r"reserved|unused", re.IGNORECASE)


@dataclass(frozen=True)
class Base:
    """An autoregressive model before training: where it comes from, what its trained members are called, its mask token."""

    name: str
    stem: str
    origin: str  # what an adapter says it belongs to
    checkpoint: Checkpoint
    mask_token_id: int

    @property
    def is_embedded(self) -> bool:
        return self.name == EMBEDDED_BASE

    def member(self, model: PreTrainedModel, tokenizer, kind: str) -> LanguageModel:
        """Return `model`, this base with an adapter of a kind, as a language model: direction set, logits shifted."""
        diffusion = kind == "diffusion"
        name = f"{self.stem}-dlm" if diffusion else f"{self.stem}-ar-adapted"
        return LanguageModel(
            set_direction(model, causal=not diffusion),
            tokenizer,
            name,
            kind,
            self.mask_token_id if diffusion else None,
            logits_shifted=True,
        )

    def load(self, dtype: torch.dtype) -> tuple[PreTrainedModel, object]:
        """Return the weights and the tokenizer."""
        return self.checkpoint.load(dtype), self.checkpoint.tokenizer()


def open_base(name: str, mask_token: str | None = None, length: int | None = None) -> Base:
    """Return the base behind a name, reading no weights: `smol-ar`, a hub id of the table of models, or a folder.

    `mask_token` names a token of the vocabulary or its number; by default `mask_token_of` finds one that no text
    produces. Raises ValueError for a model of another type, one that is a diffusion model already, one whose context is
    shorter than `length`, and where no token can stand for a mask.
    """
    if name == EMBEDDED_BASE:
        checkpoint, stem, origin = (
            Checkpoint(embedded.base_folder(), causal=True),
            "smol",
            f"{embedded.BASE.package}=={embedded.BASE.version}",
        )
        return Base(name, stem, origin, checkpoint, embedded.MASK_TOKEN_ID)
    checkpoint = open_checkpoint(name)
    config = checkpoint.config
    if config.model_type not in TYPES:
        raise ValueError(
            f"base {name} is of type {config.model_type!r}: the adapter knows the linears of {', '.join(TYPES)}; give one of these"
        )
    if checkpoint.kind != "autoregressive":
        raise ValueError(
            f"base {name} is a diffusion model already: training begins with a causal language model, give the one it came from"
        )
    if length is not None and length > config.max_position_embeddings:
        raise ValueError(
            f"length={length} exceeds the {config.max_position_embeddings} positions of base {name}: use shorter sequences"
        )
    return Base(
        name,
        Path(name).name,
        name,
        checkpoint,
        mask_token_of(checkpoint.tokenizer(), config.vocab_size, mask_token),
    )


def mask_token_of(tokenizer, vocabulary: int, asked: str | None = None) -> int:
    """Return the number of the token that is to stand for a mask: the one asked for, else one that no text produces.

    That is the tokenizer's own mask token, a row of the embedding that belongs to no token, or a token whose name says
    that it is reserved or unused, in this order. Raises ValueError where there is none, or what was asked for is none.
    """
    known = tokenizer.get_vocab()
    if asked is not None:
        chosen = known.get(asked, int(asked) if asked.isdecimal() else None)
        if chosen is None or chosen >= vocabulary:
            raise ValueError(
                f"mask_token={asked!r} is neither a token of the vocabulary nor a number below {vocabulary}: name one that no text contains"
            )
        return chosen
    if tokenizer.mask_token_id is not None:
        return tokenizer.mask_token_id
    if (beyond := max(known.values()) + 1) < vocabulary:
        return beyond
    reserved = sorted(index for token, index in known.items() if RESERVED.search(token))
    if not reserved:
        raise ValueError(
            f"no token of the {vocabulary} is a mask, reserved or unused: name one that no text contains with --mask-token"
        )
    return reserved[0]

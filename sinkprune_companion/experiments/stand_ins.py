"""Tiny random models in the public formats: what takes a model's place where no weights are wanted.

A stand-in has the class, direction, shift, kinds of parameters and layout of files of a row of the table of
models, and spells any text in bytes. Dimensions: O output features, I input features.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from sinkprune.files import atomic
from sinkprune.models.catalog import EMBEDDED, KnownModel
from sinkprune.models.configurations import of_shape
from sinkprune.models.formats import FORMATS, renamed
from sinkprune.models.hub import parse
from sinkprune.models.weight_files import DTYPES
from sinkprune_core.model_checks import blocks_of

VOCABULARY = 288  # 256 bytes, special tokens, and some entries that no text has
POSITIONS = 1024
THETA = 500_000.0  # base of the rotary frequencies
MASK = 5
END = "<|endoftext|>"
# the order in which a block's parameters take from the stream of random numbers
FIRST = ("layernorm", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")
MODEL_TYPES = {"dream": "Dream", "a2d": "a2d-{}"}  # {}: that of the native class


class PublicFields(NamedTuple):
    """What the configuration of a family states, in its own names of fields."""

    native: dict[str, str]  # fields with the value of a field of transformers' class
    stated: dict[str, object]  # fields with a value of their own


_LLADA_NATIVE = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "mlp_hidden_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_sequence_length": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "weight_tying": "tie_word_embeddings",
}
_LLADA_STATED = {
    "rope": True,
    "rope_theta": THETA,
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "include_bias": False,
    "mask_token_id": MASK,
}
PUBLIC = {  # by family; others state what transformers does
    "llada": PublicFields(_LLADA_NATIVE, {"model_type": "llada", **_LLADA_STATED}),
    "mmada": PublicFields(_LLADA_NATIVE, {"model_type": "mmada", **_LLADA_STATED}),
}


def stand_in(name: str, folder: Path, seed: int = 0) -> Path | str:
    """Return a stand-in below `folder` for a hub id of the table of models; an embedded model is its own.

    Raises ValueError for another hub id, and for a folder, whose weights are not random.
    """
    row = known_row(name)
    if row.id in EMBEDDED:
        return name

    place = folder / f"tiny-random-{row.id.replace('/', '--')}{f'-{seed}' if seed else ''}"
    if place.exists():
        return place

    model = _random_model(row, seed)
    tensors = {name: parameter.data for name, parameter in model.named_parameters()}
    names = tuple((new, old) for old, new in FORMATS[row.family].names if row.family != "native")

    stored = {renamed(name, names): tensor.contiguous() for name, tensor in tensors.items()}
    with atomic(place) as partial:
        partial.mkdir()
        save_file(stored, partial / "model.safetensors", metadata={"format": "pt"})
        (partial / "config.json").write_text(json.dumps(_stated(row, model.config)))
        _tokenizer(row).save_pretrained(partial)

    return place


def known_row(name: str) -> KnownModel:
    """Return the row of a model that random weights can stand in for; raise ValueError for another model."""
    row = parse(name).row
    if row is None:
        raise ValueError(
            f"model={name!r} with real=False: random weights can stand in for the models of docs/models.md "
            "only; set real=True, which takes the weights of this folder or hub id"
        )
    return row


def _random_model(row: KnownModel, seed: int) -> PreTrainedModel:
    """Return a tiny model of a row's class, with gains near 1 and weights that make attention sharp."""
    sizes = {"width": 32, "mlp": 48, "layers": 3, "heads": 4, "head_width": 8}
    sizes["groups"] = 4 if row.shape.groups == row.shape.heads else 2
    sizes["vocabulary"] = VOCABULARY
    shape = replace(row.shape, **sizes)  # what decides which parameters there are stays
    settings = {"bos_token_id": 0, "eos_token_id": 0}
    if not shape.learned_positions:
        rotary = {"rope_type": "default", "rope_theta": THETA}
        settings |= {"rope_parameters": rotary, "rms_norm_eps": 1e-5}

    config = of_shape(row.native, shape, POSITIONS, **settings)
    model = getattr(transformers, row.native)(config).to(DTYPES[row.stored]).requires_grad_(False)
    rng = torch.Generator().manual_seed(seed)

    def order(named: tuple[str, nn.Parameter]) -> int:
        return next((i for i, part in enumerate(FIRST) if f"{part}.weight" in named[0]), len(FIRST))

    def draw(module: nn.Module, weight_scale: float = 0.35) -> None:
        for name, parameter in sorted(module.named_parameters(), key=order):
            mean = 0.0
            scale = weight_scale
            if parameter.dim() <= 1:
                scale = 0.1
                if name.endswith("weight"):  # a norm's gain
                    mean = 1.0
                    scale = 0.2
            parameter.copy_(mean + scale * torch.randn(parameter.shape, generator=rng))

    for block in blocks_of(model):
        draw(block)

    for part in model.base_model.children():
        if part is not blocks_of(model):
            draw(part, 0.02)  # embeddings small enough for the norms' epsilon to count

    if not shape.tied:
        draw(model.get_output_embeddings())

    return model


def _stated(row: KnownModel, config) -> dict:
    """Return what a row's family states of a model, in its field names."""
    if row.family in PUBLIC:
        fields = PUBLIC[row.family]
        return {name: getattr(config, native) for name, native in fields.native.items()} | fields.stated

    public = config.to_dict() | {"dtype": row.stored}
    public["model_type"] = MODEL_TYPES.get(row.family, "{}").format(config.model_type)
    if row.kind == "diffusion":
        public["mask_token_id"] = MASK

    return public


def _tokenizer(row: KnownModel) -> PreTrainedTokenizerFast:
    """Return a tokenizer of one byte per token, the mask at its place where the vocabulary spells it."""
    special = {0: END} | ({MASK: row.mask_token} if row.mask_token else {})
    spellings = sorted(pre_tokenizers.ByteLevel.alphabet())

    for place, token in special.items():
        spellings.insert(place, token)

    inner = Tokenizer(models.BPE({token: place for place, token in enumerate(spellings)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(special.values()))

    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=END)

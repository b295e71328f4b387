"""Native configurations from public ones: one function per format, from `config.json` to transformers' class.

Sources: the published configurations and modeling files of LLaDA, MMaDA, Dream, dllm's A2D models and
DiffuGPT. A value that the native class cannot express is an error, and so is one that is
not stated although it decides what the model computes.

transformers checks the types of fields, whether heads divide the width and what rotary frequencies need; what
it takes as it comes is checked here (`check_fields`).

Every function of a format takes `raw`, the content of the folder's configuration file, and `shapes`, those of
the stored tensors, and raises FormatError.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import transformers
from transformers import CONFIG_MAPPING, GPT2Config, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from sinkprune.models.catalog import REFUSALS, ModelShape
from sinkprune.models.weight_files import FormatError
from sinkprune_core.values import in_short

Config = TypeVar("Config", bound=PretrainedConfig)
Shapes = Mapping[str, tuple[int, ...]]  # of the stored tensors, by their stored names

TRANSFORMER_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)
NATIVE_NEEDED = {
    **dict.fromkeys(
        ("llama", "qwen2", "qwen3"),
        tuple(name for name in TRANSFORMER_FIELDS if name != "num_key_value_heads"),  # Llama 1 has none
    ),
    "gpt2": ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "layer_norm_epsilon"),
}  # by model type: what every file states, and a wrong default would change in silence
FULL_ATTENTION = {"use_sliding_window": (False, None), "use_mrope": (False, None)}
FOREIGN_FIELDS = ("model_type", "architectures", "auto_map", "transformers_version", "is_causal")
A2D_CONFIGS = {"a2d-qwen3": Qwen3Config, "a2d-qwen2": Qwen2Config, "a2d-llama": LlamaConfig}

LLADA_OFF = (
    "alibi",
    "scale_logits",
    "input_emb_norm",
    "attention_layer_norm",
    "bias_for_layer_norm",
    "include_qkv_bias",
    "residual_dropout",
    "embedding_dropout",
    "clip_qkv",
)  # what Llama does not have
LLADA_ALLOWED = {
    **dict.fromkeys(LLADA_OFF, (False, None)),
    "include_bias": (False,),
    "rope": (True,),
    "block_type": ("llama",),
    "block_group_size": (1, None),
    "activation_type": ("silu",),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True, None),
}

BLOCK_OF = re.compile(r"(?:^|\.)(?:layers?|blocks|h)\.(\d+)\.")  # the number of a block, in a stored name
LAYERS = ("num_hidden_layers", "n_layers", "n_layer")  # what formats call the number of blocks
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("rms_norm_eps", "layer_norm_epsilon", "norm_eps"), (1e-20, 0.1)),
    **dict.fromkeys(("n_head", "n_heads", "num_attention_heads"), (1, 65536)),
    **dict.fromkeys(("max_position_embeddings", "max_sequence_length", "n_positions"), (1, 1e9)),
    "rope_theta": (1, 1e12),
    **dict.fromkeys(
        ("factor", "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow"),
        (1e-6, 1e9),
    ),  # of rotary frequencies
}  # of numbers that decide what a model computes, whatever they are


def check_fields(raw: dict, file: Path, shapes: Shapes) -> None:
    """Raise FormatError for a field of a configuration file that cannot be meant and would be taken.

    A number outside its range gives other numbers in silence, and a model of more blocks than are stored, or
    of none, is begun. Null counts as not stated.
    """
    ropes = [raw[name] for name in ("rope_scaling", "rope_parameters") if isinstance(raw.get(name), dict)]
    for name, value in [entry for fields in (raw, *ropes) for entry in fields.items()]:
        if name not in RANGES or value is None:
            continue

        low, high = RANGES[name]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and low <= value <= high):
            raise FormatError(
                f"{file} has {name}={in_short(value)}: it must be a number from {low:g} to {high:g}"
            )

    blocks = {int(match[1]) for match in map(BLOCK_OF.search, shapes) if match}
    if shapes and not blocks:
        raise FormatError(
            f"the weights beside {file} have no blocks called layers.N, layer.N or h.N: "
            f"model_type={raw.get('model_type')!r} is not covered, or they are not those of a whole model"
        )

    for name in LAYERS:
        if isinstance(raw.get(name), int) and not 1 <= raw[name] <= len(blocks):
            raise FormatError(
                f"{file} has {name}={raw[name]}, and the weights beside it are those of {len(blocks)} blocks"
                ": take the configuration of these weights"
            )


def _check(
    cls: type[PretrainedConfig], raw: dict, needed: tuple[str, ...], allowed: Mapping[str, tuple]
) -> None:
    """Raise FormatError for fields that are not stated, or stated with a value that `cls` cannot express."""
    absent = [name for name in needed if raw.get(name) is None]
    if absent:
        raise FormatError(
            f"config.json does not state {', '.join(absent)}, which decides what the model computes: "
            "take the published file"
        )
    wrong = [f"{name}={raw.get(name)!r}" for name, values in allowed.items() if raw.get(name) not in values]
    if wrong:
        native = cls.__name__.removesuffix("Config")
        raise FormatError(f"config.json has {', '.join(wrong)}: transformers' {native} cannot express that")


def _same_names(
    cls: type[Config],
    raw: dict,
    needed: tuple[str, ...],
    allowed: Mapping[str, tuple] | None = None,
    **changes: Any,
) -> Config:
    """Return a native configuration from a public one that uses the same field names."""
    _check(cls, raw, needed, allowed or {})
    fields = {name: value for name, value in raw.items() if name not in FOREIGN_FIELDS}
    return cast(Config, cls.from_dict(fields | changes))


def _rotary_field(raw: dict) -> str:
    """Return the field that states the rotary frequencies."""
    return "rope_parameters" if raw.get("rope_parameters") else "rope_theta"


def llada(raw: dict, shapes: Shapes) -> LlamaConfig:
    """LLaDA and MMaDA."""
    _check(LlamaConfig, raw, ("vocab_size", "rms_norm_eps", "rope_theta", "weight_tying"), LLADA_ALLOWED)
    mask: dict[str, Any] = {"mask_token_id": raw.get("mask_token_id")}  # a field that Llama has not

    return LlamaConfig(
        vocab_size=_llada_vocabulary(raw, shapes),
        hidden_size=raw["d_model"],
        intermediate_size=raw.get("mlp_hidden_size") or raw["mlp_ratio"] * raw["d_model"],
        num_hidden_layers=raw["n_layers"],
        num_attention_heads=raw["n_heads"],
        num_key_value_heads=raw.get("n_kv_heads")
        or (1 if raw.get("multi_query_attention") else raw["n_heads"]),
        max_position_embeddings=raw["max_sequence_length"],
        rms_norm_eps=raw["rms_norm_eps"],  # RMSNorm reads this one, not layer_norm_eps
        rope_parameters={"rope_type": "default", "rope_theta": float(raw["rope_theta"])},
        hidden_act="silu",
        attention_dropout=raw.get("attention_dropout") or 0.0,
        tie_word_embeddings=raw["weight_tying"],
        bos_token_id=raw.get("bos_token_id"),
        eos_token_id=raw.get("eos_token_id"),
        pad_token_id=None,  # LLaDA pads with its end token, whose embedding is an ordinary one
        **mask,
    )


def _llada_vocabulary(raw: dict, shapes: Shapes) -> int:
    """Return the stated vocabulary that the embedding has: MMaDA's configuration states several."""
    fields = ("embedding_size", "vocab_size", "new_vocab_size")
    sizes = [raw[name] for name in fields if raw.get(name)]
    embedding = shapes.get("model.transformer.wte.weight", (0,))[0]
    return embedding if embedding in sizes else sizes[0]


def dream(raw: dict, shapes: Shapes) -> Qwen2Config:
    """Dream and what was trained from it. A block size marks a descendant that is not covered."""
    if raw.get("block_size"):
        because = REFUSALS["block_causal"].because
        raise FormatError(f"config.json has block_size={raw['block_size']}: {because}")
    return _same_names(Qwen2Config, raw, (*TRANSFORMER_FIELDS, _rotary_field(raw)), FULL_ATTENTION)


def a2d(raw: dict, shapes: Shapes) -> PretrainedConfig:
    """The models of dllm: those of an autoregressive base, under a model type of their own."""
    needed = (*TRANSFORMER_FIELDS, _rotary_field(raw), "tie_word_embeddings")
    return _same_names(A2D_CONFIGS[raw["model_type"]], raw, needed, FULL_ATTENTION)


def diffugpt(raw: dict, shapes: Shapes) -> GPT2Config:
    """GPT-2's own field names; some have a mask token appended to the vocabulary."""
    needed = ("n_embd", "n_layer", "n_head", "n_positions", "layer_norm_epsilon", "activation_function")
    vocabulary = shapes.get("embed_tokens.weight", (raw.get("vocab_size"),))[0]
    return _same_names(GPT2Config, raw, needed, vocab_size=vocabulary)


def native(raw: dict, shapes: Shapes) -> PretrainedConfig:
    """A configuration of transformers, as it is."""
    cls = CONFIG_MAPPING[raw["model_type"]]
    _check(cls, raw, NATIVE_NEEDED.get(raw["model_type"], ()), {})
    return cls.from_dict(raw)


def of_shape(native: str, shape: ModelShape, positions: int) -> PretrainedConfig:
    """Return the configuration of a native class in a shape; all else keeps its default."""
    config_class = getattr(transformers, native).config_class
    if config_class is GPT2Config:
        return GPT2Config(
            vocab_size=shape.vocabulary,
            n_embd=shape.width,
            n_inner=shape.mlp,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_positions=positions,
        )

    return config_class(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        head_dim=shape.head_width,
        max_position_embeddings=positions,
        tie_word_embeddings=shape.tied,
    )

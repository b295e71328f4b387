"""What a field of a configuration may be, checked before anything is made of it.

transformers takes most values as they come: "no" counts as true, a rotary type it does not know ends in a
KeyError deep in a model, and a list of 2,147,483,648 blocks is begun. Here a value that cannot be meant is an
error that names the file, the field, its value and what is allowed.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers.activations import ACT2FN

from sinkprune_core.models.weight_files import FormatError, shown

LARGEST = 2**31 - 1  # of the whole numbers of a shape: a larger one overflows where sizes are multiplied
BLOCK_OF = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d+)\.")  # the number of a block, in a stored name
LAYERS = ("num_hidden_layers", "n_layers", "n_layer")  # what formats call the number of blocks


@dataclass(frozen=True)
class Allowed:
    """The values that a field may have, besides null."""

    holds: Callable[[object], bool]
    words: str  # goes on after "must be"


def _whole(least: int, most: int = LARGEST) -> Allowed:
    def holds(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return Allowed(holds, f"a whole number from {least} to {most}")


def _number(least: float, most: float) -> Allowed:
    def holds(value: object) -> bool:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and least <= value <= most

    return Allowed(holds, f"a number from {least:g} to {most:g}")


def _ids(value: object) -> bool:
    if isinstance(value, list):
        return all(TOKEN.holds(each) for each in value)
    return TOKEN.holds(value)


COUNT = _whole(1)
TOKEN = _whole(-1)  # some files say "none" by -1
SHARE = _number(0, 1)
EPSILON = _number(1e-20, 0.1)
THETA = _number(1, 1e12)
FACTOR = _number(1e-6, 1e9)
FLAG = Allowed(lambda value: isinstance(value, bool), "true or false")
WORD = Allowed(lambda value: isinstance(value, str), "a word")
WORDS = Allowed(
    lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value), "a list of words"
)
NUMBERS = Allowed(
    lambda value: isinstance(value, list) and bool(value) and all(FACTOR.holds(each) for each in value),
    "a list of numbers above 0",
)
MAPPING = Allowed(lambda value: isinstance(value, dict), "an object")
ACTIVATION = Allowed(
    lambda value: isinstance(value, str) and value in ACT2FN, "an activation function of transformers"
)

FIELDS: dict[str, Allowed] = {
    **dict.fromkeys(
        (
            *LAYERS,
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
            "d_model",
            "n_heads",
            "n_kv_heads",
            "mlp_hidden_size",
            "mlp_ratio",
            "embedding_size",
            "new_vocab_size",
            "llm_vocab_size",
            "max_sequence_length",
            "n_embd",
            "n_head",
            "n_positions",
            "n_ctx",
            "n_inner",
            "n_query_groups",
            "block_size",
            "block_group_size",
        ),
        COUNT,
    ),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_epsilon", "norm_eps", "layer_norm_eps"), EPSILON),
    **dict.fromkeys(("rope_theta", "rotary_emb_base"), THETA),
    **dict.fromkeys(
        ("attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "rotary_percentage"), SHARE
    ),
    **dict.fromkeys(
        (
            "tie_word_embeddings",
            "weight_tying",
            "is_causal",
            "attention_bias",
            "mlp_bias",
            "multi_query_attention",
            "use_sliding_window",
            "use_mrope",
            "use_cache",
            "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx",
            "reorder_and_upcast_attn",
            "add_cross_attention",
        ),
        FLAG,
    ),
    **dict.fromkeys(("mask_token_id", "bos_token_id", "pad_token_id"), TOKEN),
    "eos_token_id": Allowed(_ids, f"{TOKEN.words}, or a list of such"),
    **dict.fromkeys(("hidden_act", "activation_function"), ACTIVATION),
    **dict.fromkeys(("model_type", "torch_dtype", "dtype", "transformers_version"), WORD),
    **dict.fromkeys(("architectures", "layer_types"), WORDS),
    **dict.fromkeys(("rope_scaling", "rope_parameters", "auto_map"), MAPPING),
    "sliding_window": COUNT,
    "max_window_layers": _whole(0),
}

ROPE_NEEDED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "proportional": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}  # by the type of rotary frequencies
ROPE_FIELDS: dict[str, Allowed] = {
    **dict.fromkeys(
        (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
        ),
        FACTOR,
    ),
    **dict.fromkeys(("short_factor", "long_factor"), NUMBERS),
    "rope_theta": THETA,
    "partial_rotary_factor": SHARE,
    "original_max_position_embeddings": COUNT,
    "truncate": FLAG,
}


def check_fields(raw: Mapping[str, object], file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise FormatError for a field of `raw`, the content of `file`, that cannot be meant.

    Null counts as not stated. `shapes` are those of the stored tensors, which say how many blocks there are.
    """
    check_values(raw, FIELDS, str(file))
    _check_layers(raw, file, shapes)
    _check_heads(raw, file)
    for name in ("rope_scaling", "rope_parameters"):
        if raw.get(name) is not None:
            _check_rope(raw, name, file)
    if "rope_parameters" in raw and raw["rope_parameters"] is None and raw.get("rope_theta") is None:
        raise FormatError(f"{file} has rope_parameters=None and no rope_theta: take the published file")


def check_values(values: Mapping[str, object], fields: Mapping[str, Allowed], where: str) -> None:
    """Raise FormatError for a value that its field must not have; `where` says what file it is in."""
    for name, value in values.items():
        allowed = fields.get(name)
        if allowed is not None and value is not None and not allowed.holds(value):
            raise FormatError(f"{where} has {name}={shown(value)}: it must be {allowed.words}")


def _check_layers(raw: Mapping[str, object], file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise FormatError where more blocks are stated than are stored."""
    numbers = [int(found[1]) for found in map(BLOCK_OF.search, shapes) if found]
    stored = max(numbers, default=-1) + 1
    for name in LAYERS:
        if raw.get(name) is not None and raw[name] > stored:
            raise FormatError(
                f"{file} has {name}={raw[name]}, and the weights beside it are those of {stored} blocks: "
                "take the configuration of these weights"
            )


def _check_heads(raw: Mapping[str, object], file: Path) -> None:
    """Raise FormatError for heads that do not share the width, or groups that do not share the heads."""
    for width, heads, groups in (
        ("hidden_size", "num_attention_heads", "num_key_value_heads"),
        ("d_model", "n_heads", "n_kv_heads"),
        ("n_embd", "n_head", "n_query_groups"),
    ):
        if raw.get(heads) is None:
            continue
        if raw.get("head_dim") is None and raw.get(width) is not None and raw[width] % raw[heads]:
            raise FormatError(f"{file} has {heads}={raw[heads]}: it must divide {width}={raw[width]}")
        if raw.get(groups) is not None and raw[heads] % raw[groups]:
            raise FormatError(f"{file} has {groups}={raw[groups]}: it must divide {heads}={raw[heads]}")


def _check_rope(raw: Mapping[str, object], name: str, file: Path) -> None:
    """Raise FormatError for rotary frequencies of a type that is not known, or without what it needs."""
    rope = raw[name]
    if any(isinstance(value, dict) for value in rope.values()):  # by type of layer: transformers checks it
        return
    where = f"{file}, {name},"
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in ROPE_NEEDED:
        raise FormatError(f"{where} has rope_type={shown(kind)}: it must be one of {', '.join(ROPE_NEEDED)}")
    needed = ROPE_NEEDED[kind]
    if name == "rope_parameters" and raw.get("rope_theta") is None:
        needed = ("rope_theta", *needed)
    absent = [each for each in needed if rope.get(each) is None]
    if absent:
        raise FormatError(f"{where} of type {kind} does not state {', '.join(absent)}")
    check_values(rope, ROPE_FIELDS, where)

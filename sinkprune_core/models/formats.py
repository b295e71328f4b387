"""Public formats of checkpoints, read as native transformers classes: one configuration and one key map per family.

Sources: the published configurations and modeling files of LLaDA, MMaDA, iLLaDA, Dream, dllm's A2D models, DiffuGPT,
DiffuLLaMA and SMDM. A value that the native class cannot express is an error, and so is one that is not stated although
it decides what the model computes.

Dimensions: V vocabulary, D hidden width, F width of the MLP, H query heads, G key-value heads.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from transformers import CONFIG_MAPPING, GPT2Config, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from sinkprune_core.models.catalog import ADAPTIVE_NORM, BLOCK_CAUSAL, MIXTURE, NO_MASK

Shapes = Mapping[str, tuple[int, ...]]  # of the stored tensors, by their stored names


class FormatError(ValueError):
    """A folder of weights that no native class here can hold as it is."""


@dataclass(frozen=True)
class Source:
    """Where a native parameter lies: a stored tensor, which part of its rows is meant, and how many rows of zeros follow.

    `part` is (groups, pieces, first, last): the rows are `groups` groups of `pieces` equal pieces each, and every group
    gives its pieces [first, last).
    """

    stored: str
    part: tuple[int, int, int, int] | None = None
    padding: int = 0

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the native shape, from the shape of the stored tensor."""
        rows, *rest = stored
        if self.part is not None:
            groups, pieces, first, last = self.part
            rows = rows // (groups * pieces) * groups * (last - first)
        return (rows + self.padding, *rest)

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the native tensor, from the stored one."""
        if self.part is not None:
            groups, pieces, first, last = self.part
            tensor = tensor.unflatten(0, (groups, pieces, -1))[:, first:last].flatten(0, 2).contiguous()
        return (
            torch.nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, self.padding))
            if self.padding
            else tensor
        )


# configurations


def _check(
    cls: type[PretrainedConfig], raw: dict, needed: tuple[str, ...], allowed: Mapping[str, tuple]
) -> None:
    """Raise FormatError for fields that are not stated, or stated with a value that `cls` cannot express."""
    if absent := [name for name in needed if raw.get(name) is None]:
        raise FormatError(
            f"config.json does not state {', '.join(absent)}, which decides what the model computes: take the published file"
        )
    if wrong := [
        f"{name}={raw[name]!r}" for name, values in allowed.items() if name in raw and raw[name] not in values
    ]:
        raise FormatError(
            f"config.json has {', '.join(wrong)}: transformers' {cls.__name__.removesuffix('Config')} cannot express that"
        )


def _same_names(
    cls: type[PretrainedConfig],
    raw: dict,
    needed: tuple[str, ...],
    allowed: Mapping[str, tuple] | None = None,
    **changes,
) -> PretrainedConfig:
    """Return a native configuration from a public one that uses the same field names."""
    _check(cls, raw, needed, allowed or {})
    foreign = ("model_type", "architectures", "auto_map", "transformers_version", "is_causal")
    return cls.from_dict({key: value for key, value in raw.items() if key not in foreign} | changes)


TRANSFORMER = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)
FULL_ATTENTION = {"use_sliding_window": (False, None), "use_mrope": (False, None)}


def _rotary(raw: dict) -> str:
    return "rope_parameters" if raw.get("rope_parameters") else "rope_theta"


def _llada(raw: dict, shapes: Shapes) -> LlamaConfig:
    needed = (
        "d_model",
        "n_layers",
        "n_heads",
        "max_sequence_length",
        "rms_norm_eps",
        "rope_theta",
        "rope",
        "vocab_size",
        "weight_tying",
        "block_type",
        "activation_type",
        "layer_norm_type",
        "include_bias",
    )
    needed += () if raw.get("mlp_ratio") else ("mlp_hidden_size",)
    off = (
        "alibi",
        "scale_logits",
        "input_emb_norm",
        "attention_layer_norm",
        "bias_for_layer_norm",
        "include_bias",
        "include_qkv_bias",
        "residual_dropout",
        "embedding_dropout",
        "clip_qkv",
    )
    fixed = {
        "rope": (True,),
        "block_type": ("llama",),
        "block_group_size": (1, None),
        "activation_type": ("silu",),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True, None),
    }
    _check(LlamaConfig, raw, needed, dict.fromkeys(off, (False, None)) | fixed)
    embedding = shapes.get("model.transformer.wte.weight", (None,))[0]
    sizes = [
        raw[name] for name in ("embedding_size", "vocab_size", "new_vocab_size") if raw.get(name)
    ]  # MMaDA's grew
    return LlamaConfig(
        vocab_size=embedding if embedding in sizes else sizes[0],
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
        mask_token_id=raw.get("mask_token_id"),
    )


def _illada(raw: dict, shapes: Shapes) -> LlamaConfig:
    return _same_names(LlamaConfig, raw, (*TRANSFORMER, _rotary(raw), "tie_word_embeddings"), FULL_ATTENTION)


def _dream(raw: dict, shapes: Shapes) -> Qwen2Config:
    if raw.get("block_size"):
        raise FormatError(f"config.json has block_size={raw['block_size']}: {BLOCK_CAUSAL}")
    return _same_names(Qwen2Config, raw, (*TRANSFORMER, _rotary(raw)), FULL_ATTENTION)


A2D = {"a2d-qwen3": Qwen3Config, "a2d-qwen2": Qwen2Config, "a2d-llama": LlamaConfig}


def _a2d(raw: dict, shapes: Shapes) -> PretrainedConfig:
    if raw.get("model_type") not in A2D:
        raise FormatError(
            f"config.json has model_type={raw.get('model_type')!r}: of the A2D models, {', '.join(A2D)} are covered"
        )
    return _same_names(
        A2D[raw["model_type"]], raw, (*TRANSFORMER, _rotary(raw), "tie_word_embeddings"), FULL_ATTENTION
    )


def _diffugpt(raw: dict, shapes: Shapes) -> GPT2Config:
    vocabulary = shapes.get("embed_tokens.weight", (raw.get("vocab_size"),))[
        0
    ]  # some have a mask token appended
    return _same_names(
        GPT2Config,
        raw,
        ("n_embd", "n_layer", "n_head", "n_positions", "layer_norm_epsilon", "activation_function"),
        vocab_size=vocabulary,
    )


def _diffullama(raw: dict, shapes: Shapes) -> LlamaConfig:
    return _same_names(
        LlamaConfig, raw, TRANSFORMER
    )  # like Llama 2's, it may leave rope_theta to the default of 10,000


SMDM_HEADS = {
    256: 4,
    384: 6,
    512: 8,
    576: 9,
    640: 10,
    768: 12,
    896: 14,
    1024: 16,
    1280: 10,
    1408: 11,
    1536: 12,
    1792: 14,
}  # by width, from the repository's list


def _smdm(raw: dict, shapes: Shapes) -> LlamaConfig:
    """SMDM publishes weights alone: shapes, the repository's list of sizes, or a `lit_config.json` beside them say the rest.

    Its mask has an embedding and no output; the native class needs one, whose row of zeros gives the mask a logit of 0.
    """
    fixed = {
        "bias": (False,),
        "rotary_percentage": (1.0,),
        "parallel_residual": (False,),
        "shared_attention_norm": (False,),
        "condense_ratio": (1,),
        "_mlp_class": ("LLaMAMLP",),
        "_norm_class": ("RMSNorm", "FusedRMSNorm"),
    }
    _check(LlamaConfig, raw, (), fixed)
    if absent := {"transformer.wte.weight", "transformer.h.0.mlp.swiglu.w1.weight"} - shapes.keys():
        raise FormatError(
            f"the weights lack {', '.join(sorted(absent))}, without which the shape of an SMDM model is not known"
        )
    vocabulary, width = shapes["transformer.wte.weight"]
    layers = 1 + max(
        int(match[1]) for name in shapes if (match := re.match(r"transformer\.h\.(\d+)\.", name))
    )
    heads = raw.get("n_head") or (8 if (width, layers) == (640, 16) else SMDM_HEADS.get(width))
    if heads is None:
        raise FormatError(
            f"SMDM has no model of width {width}, so its number of heads is not known: put a lit_config.json with n_head and n_query_groups beside the weights"
        )
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=shapes["transformer.h.0.mlp.swiglu.w1.weight"][0],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=raw.get("n_query_groups") or heads,
        max_position_embeddings=raw.get("block_size") or 2048,
        rms_norm_eps=raw.get("norm_eps") or 1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )


def _native(raw: dict, shapes: Shapes) -> PretrainedConfig:
    return CONFIG_MAPPING[raw["model_type"]].from_dict(raw)


# names: (pattern at the beginning of a stored name, what replaces it); the first that fits counts

LLADA_KEYS = (
    (r"model\.transformer\.wte\.", "model.embed_tokens."),
    (r"model\.transformer\.blocks\.(\d+)\.attn_norm\.", r"model.layers.\1.input_layernorm."),
    (r"model\.transformer\.blocks\.(\d+)\.([qkv])_proj\.", r"model.layers.\1.self_attn.\2_proj."),
    (r"model\.transformer\.blocks\.(\d+)\.attn_out\.", r"model.layers.\1.self_attn.o_proj."),
    (r"model\.transformer\.blocks\.(\d+)\.ff_norm\.", r"model.layers.\1.post_attention_layernorm."),
    (
        r"model\.transformer\.blocks\.(\d+)\.ff_proj\.",
        r"model.layers.\1.mlp.gate_proj.",
    ),  # the one that goes through SiLU
    (r"model\.transformer\.blocks\.(\d+)\.up_proj\.", r"model.layers.\1.mlp.up_proj."),
    (r"model\.transformer\.blocks\.(\d+)\.ff_out\.", r"model.layers.\1.mlp.down_proj."),
    (r"model\.transformer\.ln_f\.", "model.norm."),
    (r"model\.transformer\.ff_out\.", "lm_head."),
)
SMDM_KEYS = (
    (r"transformer\.wte\.", "model.embed_tokens."),
    (r"transformer\.h\.(\d+)\.norm_1\.", r"model.layers.\1.input_layernorm."),
    (r"transformer\.h\.(\d+)\.attn\.attn\.", r"model.layers.\1.self_attn.qkv_proj."),  # fused, see `sources`
    (r"transformer\.h\.(\d+)\.attn\.proj\.", r"model.layers.\1.self_attn.o_proj."),
    (r"transformer\.h\.(\d+)\.norm_2\.", r"model.layers.\1.post_attention_layernorm."),
    (r"transformer\.h\.(\d+)\.mlp\.swiglu\.w1\.", r"model.layers.\1.mlp.gate_proj."),
    (r"transformer\.h\.(\d+)\.mlp\.swiglu\.w2\.", r"model.layers.\1.mlp.up_proj."),
    (r"transformer\.h\.(\d+)\.mlp\.swiglu\.w3\.", r"model.layers.\1.mlp.down_proj."),
    (r"transformer\.ln_f\.", "model.norm."),
)
DIFFUGPT_KEYS = ((r"denoise_model\.", "transformer."), (r"embed_tokens\.", "transformer.wte."))
DIFFULLAMA_KEYS = ((r"denoise_model\.", "model."), (r"embed_tokens\.", "model.embed_tokens."))
NATIVE_KEYS = (
    (r"(?=(h\.\d+|wte|wpe|ln_f)\.)", "transformer."),
)  # GPT-2 on the hub is stored without its head
RECOMPUTED = re.compile(
    r".*\.rotary_emb\.inv_freq|.*\bh\.\d+\.attn\.(bias|masked_bias)"
)  # buffers that old files hold


@dataclass(frozen=True)
class Family:
    """A public format. `kind`, `logits_shifted`: None where the folder itself says."""

    name: str
    kind: str | None
    logits_shifted: bool | None
    config: Callable[[dict, Shapes], PretrainedConfig]
    keys: tuple[tuple[str, str], ...] = ()
    mask_tokens: tuple[
        str, ...
    ] = ()  # what it may be called, where neither configuration nor tokenizer declares it


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("llada", "diffusion", False, _llada, LLADA_KEYS, ("<|mdm_mask|>",)),
        Family("mmada", "diffusion", False, _llada, LLADA_KEYS, ("<|mdm_mask|>",)),
        Family("illada", "diffusion", False, _illada, (), ("<[MASK]>",)),
        Family("dream", "diffusion", True, _dream, (), ("<|mask|>", "<|MASK|>")),
        Family("a2d", "diffusion", False, _a2d, (), ("<|mask|>", "<|MASK|>")),
        Family("diffugpt", "diffusion", True, _diffugpt, DIFFUGPT_KEYS),
        Family("diffullama", "diffusion", True, _diffullama, DIFFULLAMA_KEYS),
        Family("smdm", "diffusion", False, _smdm, SMDM_KEYS),
        Family("smdm-ar", "autoregressive", True, _smdm, SMDM_KEYS),
        Family("native", None, None, _native, NATIVE_KEYS),
    )
}
UNCOVERED = {
    "sdar": BLOCK_CAUSAL,
    "sdar_moe": BLOCK_CAUSAL,
    "fast_dllm_qwen": BLOCK_CAUSAL,
    "diffusion_gemma": NO_MASK,
    "mdlm": ADAPTIVE_NORM,
}
UNCOVERED |= dict.fromkeys(("lladamoe", "llada_moe", "llada2_moe"), MIXTURE)


def detect(raw: dict, shapes: Shapes, expected: str | None = None) -> Family:
    """Return the family of a folder from its configuration and stored names; raise FormatError where none is covered.

    `expected` counts where the model type says nothing: iLLaDA's, with the usual field names, is not documented.
    """
    model_type = str(raw.get("model_type", ""))
    if model_type.lower() in UNCOVERED:
        raise FormatError(f"model_type={model_type!r} is not covered: {UNCOVERED[model_type.lower()]}")
    if any(".attn.attn." in name for name in shapes):
        rows = [shapes.get(name, (0,))[0] for name in ("transformer.wte.weight", "lm_head.weight")]
        return FAMILIES["smdm" if rows[0] > rows[1] else "smdm-ar"]
    if any(name.startswith("denoise_model.") for name in shapes):
        return FAMILIES[
            "diffugpt" if any(name.startswith("denoise_model.h.") for name in shapes) else "diffullama"
        ]
    if model_type in ("llada", "illada", "Dream") and any(
        raw.get(name) for name in ("num_experts", "n_routed_experts")
    ):
        raise FormatError(f"model_type={model_type!r} with experts is not covered: {MIXTURE}")
    if model_type in ("llada", "mmada", "illada"):
        return FAMILIES[model_type if model_type != "llada" or "d_model" in raw else "illada"]
    if model_type.lower() == "dream" or model_type in A2D:
        return FAMILIES["a2d" if model_type in A2D else "dream"]
    if expected == "illada" and "hidden_size" in raw:
        return FAMILIES[expected]
    if model_type in CONFIG_MAPPING:
        return FAMILIES["native"]
    raise FormatError(
        f"model_type={raw.get('model_type')!r} is not covered; covered are llada, mmada, illada, Dream, {', '.join(A2D)}, DiffuGPT, DiffuLLaMA, SMDM and the model types of transformers"
    )


def sources(family: Family, shapes: Shapes, config: PretrainedConfig) -> dict[str, Source]:
    """Return where every native parameter lies. A stored name that no pattern fits stays as it is, to be reported."""
    found: dict[str, Source] = {}
    for stored, shape in shapes.items():
        if RECOMPUTED.fullmatch(stored):
            continue
        native = next(
            (
                re.sub(f"^{pattern}", template, stored)
                for pattern, template in family.keys
                if re.match(pattern, stored)
            ),
            stored,
        )
        if ".qkv_proj." in native:
            groups, each = (
                config.num_key_value_heads,
                config.num_attention_heads // config.num_key_value_heads,
            )
            pieces = {"q": (0, each), "k": (each, each + 1), "v": (each + 1, each + 2)}
            parts = {
                native.replace("qkv", letter): Source(stored, (groups, each + 2, *piece))
                for letter, piece in pieces.items()
            }
        else:
            parts = {native: Source(stored)}
        if family.name == "smdm" and native == "lm_head.weight":
            parts = {
                native: Source(stored, padding=1 if shape[0] + 1 == config.vocab_size else 0)
            }  # the mask is never predicted
        if double := found.keys() & parts.keys():
            raise FormatError(
                f"{', '.join(sorted(double))} is stored twice, as {found[min(double)].stored} and as {stored}"
            )
        found |= parts
    return found

"""The public formats, written: how each family lays out the parts of a model, under its names and fields.

A layout is a function of a tiny model's parts (parts.py) and shape. It returns the tensors by their
stored names and the content of `config.json`.
"""

from collections.abc import Callable

import torch
from random_models.parts import TinyShape

Tensors = dict[str, torch.Tensor]
Layout = Callable[[dict, TinyShape], tuple[Tensors, dict]]

OFF = (
    "alibi",
    "attention_layer_norm",
    "bias_for_layer_norm",
    "include_bias",
    "include_qkv_bias",
    "input_emb_norm",
    "scale_logits",
    "weight_tying",
)
LLADA_CONFIG = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_llada.LLaDAModelLM"},
    **dict.fromkeys(OFF, False),
    **dict.fromkeys(("attention_dropout", "embedding_dropout", "residual_dropout"), 0.0),
    "activation_type": "silu",
    "block_group_size": 1,
    "block_type": "llama",
    "eos_token_id": 0,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mlp_ratio": 4,
    "multi_query_attention": None,
    "pad_token_id": 0,
    "rope": True,
    "rope_full_precision": True,
}  # what LLaDA states besides its shape, and means something
LLADA_BLOCK = {
    "norm_1": "attn_norm",
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "o": "attn_out",
    "norm_2": "ff_norm",
    "gate": "ff_proj",
    "up": "up_proj",
    "down": "ff_out",
}  # part -> stored name
TRANSFORMER_BLOCK = {
    "norm_1": "input_layernorm",
    "norm_2": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
}


def llada(parts: dict, shape: TinyShape) -> tuple[Tensors, dict]:
    """LLaDA."""
    config = LLADA_CONFIG | {
        "d_model": shape.width,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "n_kv_heads": shape.groups,
        "mlp_hidden_size": shape.mlp,
        "embedding_size": shape.vocabulary,
        "vocab_size": shape.vocabulary,
        "max_sequence_length": shape.positions,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "mask_token_id": 5,
    }

    stored = {
        "model.transformer.wte.weight": parts["embedding"],
        "model.transformer.ln_f.weight": parts["norm"],
        "model.transformer.ff_out.weight": parts["head"],
    }

    for index, layer in enumerate(parts["layers"]):
        for part, name in LLADA_BLOCK.items():
            stored[f"model.transformer.blocks.{index}.{name}.weight"] = layer[part]

    return stored, config


def mmada(parts: dict, shape: TinyShape) -> tuple[Tensors, dict]:
    """As LLaDA, with image codes after the text: the published vocabulary has 8192 of 134656."""
    stored, config = llada(parts, shape)
    text = round(shape.vocabulary * 126464 / 134656)

    return stored, config | {
        "architectures": ["MMadaModelLM"],
        "model_type": "mmada",
        "embedding_size": text,
        "llm_vocab_size": text,
        "new_vocab_size": shape.vocabulary,
        "codebook_size": 8192,
        "num_vq_tokens": 1024,
        "w_clip_vit": False,
    }


def transformer(parts: dict, shape: TinyShape) -> tuple[Tensors, dict]:
    """Llama's and Qwen's own names, which several families share."""
    config = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.groups,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "tie_word_embeddings": shape.tied,
        "hidden_act": "silu",
        "transformers_version": "4.46.2",
    }

    stored = {"model.embed_tokens.weight": parts["embedding"], "model.norm.weight": parts["norm"]}
    if not shape.tied:
        stored["lm_head.weight"] = parts["head"]

    for index, layer in enumerate(parts["layers"]):
        for part, name in TRANSFORMER_BLOCK.items():
            if part in layer:
                stored[f"model.layers.{index}.{name}.weight"] = layer[part]
        for part in "qkv":
            if f"{part}_bias" in layer:
                name = f"model.layers.{index}.self_attn.{part}_proj.bias"
                stored[name] = layer[f"{part}_bias"]

    return stored, config


def native(model_type: str, **fields: object) -> Layout:
    """Return the layout of a family with the names of transformers, and `fields` in its configuration."""

    def write(parts: dict, shape: TinyShape) -> tuple[Tensors, dict]:
        stored, config = transformer(parts, shape)
        return stored, config | {"model_type": model_type, "head_dim": shape.head_width} | fields

    return write


FULL = {"use_sliding_window": False, "rope_scaling": None, "max_window_layers": 28}
dream = native(
    "Dream",
    architectures=["DreamModel"],
    auto_map={"AutoModel": "modeling_dream.DreamModel"},
    mask_token_id=266,
    use_mrope=False,
    sliding_window=None,
    **FULL,
)
a2d_qwen3 = native("a2d-qwen3", architectures=["A2DQwen3LMHeadModel"], attention_bias=False, **FULL)
# published with an output head of its own and a configuration that says it is tied
a2d_qwen2 = native(
    "a2d-qwen2", architectures=["A2DQwen2LMHeadModel"], tie_word_embeddings=True, use_sliding_window=False
)


def gpt2(parts: dict, shape: TinyShape) -> tuple[Tensors, dict]:
    """As on the hub: no head, no prefix, the causal mask among the weights; Conv1D stores (input, output)."""
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": shape.vocabulary,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_positions": shape.positions,
        "n_ctx": shape.positions,
        "n_inner": shape.mlp,
        "layer_norm_epsilon": shape.epsilon,
        "activation_function": "gelu_new",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }

    stored = {
        "wte.weight": parts["embedding"],
        "wpe.weight": parts["positions"],
        "ln_f.weight": parts["norm"],
        "ln_f.bias": parts["norm_bias"],
    }

    for index, layer in enumerate(parts["layers"]):
        for name, tensor in _gpt2_block(layer).items():
            stored[f"h.{index}.{name}"] = tensor
        stored[f"h.{index}.attn.bias"] = torch.ones(1, 1, shape.positions, shape.positions).tril()
    return stored, config


def _gpt2_block(layer: Tensors) -> Tensors:
    stored = {
        "attn.c_attn.weight": torch.cat([layer[name] for name in "qkv"]).T,
        "attn.c_attn.bias": torch.cat([layer[f"{name}_bias"] for name in "qkv"]),
    }

    for part, name in {"o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}.items():
        stored |= {f"{name}.weight": layer[part].T, f"{name}.bias": layer[f"{part}_bias"]}

    for norm in "12":
        stored |= {f"ln_{norm}.weight": layer[f"norm_{norm}"], f"ln_{norm}.bias": layer[f"norm_{norm}_bias"]}

    return stored


def diffugpt(parts: dict, shape: TinyShape) -> tuple[Tensors, dict]:
    """GPT-2 inside another module, without the causal mask."""
    plain, config = gpt2(parts, shape)
    embedding = plain.pop("wte.weight")
    stored = {f"denoise_model.{name}": plain[name] for name in plain if not name.endswith(".attn.bias")}
    return stored | {"embed_tokens.weight": embedding}, config

"""Which architectures of transformers go through, asked of tiny random models of two blocks.

Run it as `python tools/architectures.py`. It writes docs/architectures.json, from which
`python -m sinkprune_companion.pages` makes a table of docs/models.md; a test holds the two in step.
"""

import re
from dataclasses import dataclass, field

import torch
import transformers
from transformers import PreTrainedModel

from sinkprune.files import write_json
from sinkprune.models.gpt2 import GPT2LMHeadModel
from sinkprune_companion import project_root
from sinkprune_core import attention_mass, wrap

FILE = "docs/architectures.json"
VOCABULARY, MASK = 72, 4
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}  # in the words of most configurations
WINDOWS = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 64}


@dataclass(frozen=True)
class Architecture:
    """A class of transformers, and what its configuration says beside SIZES."""

    model: str
    fields: dict = field(default_factory=dict)
    without: tuple[str, ...] = ()  # of SIZES, what its configuration does not take
    config: str = ""  # where the class's own name does not tell


ARCHITECTURES = {
    "Llama": Architecture("LlamaForCausalLM"),
    "Mistral, a window in every layer": Architecture("MistralForCausalLM", {"sliding_window": 4}),
    "Qwen2": Architecture("Qwen2ForCausalLM"),
    "Qwen2, a window in some layers": Architecture(
        "Qwen2ForCausalLM", {"use_sliding_window": True, **WINDOWS}
    ),
    "Qwen3": Architecture("Qwen3ForCausalLM"),
    "Gemma": Architecture("GemmaForCausalLM"),
    "Gemma 2": Architecture("Gemma2ForCausalLM", {**WINDOWS, "attn_logit_softcapping": 2.0}),
    "Gemma 3": Architecture("Gemma3ForCausalLM", WINDOWS, config="Gemma3TextConfig"),
    "Phi": Architecture("PhiForCausalLM", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "Phi-3": Architecture("Phi3ForCausalLM"),
    "GPT-NeoX": Architecture("GPTNeoXForCausalLM"),
    "GPT-J": Architecture("GPTJForCausalLM", {**GPT2, "rotary_dim": 4}),
    "OLMo 2": Architecture("Olmo2ForCausalLM"),
    "OLMo 3": Architecture("Olmo3ForCausalLM", WINDOWS),
    "SmolLM3": Architecture("SmolLM3ForCausalLM", {"no_rope_layers": [1, 0]}),
    "Cohere": Architecture("CohereForCausalLM", {"logit_scale": 0.25}),
    "Cohere 2": Architecture("Cohere2ForCausalLM", WINDOWS),
    "Starcoder 2": Architecture("Starcoder2ForCausalLM", {"sliding_window": None}),
    "StableLM": Architecture("StableLmForCausalLM"),
    "GLM": Architecture("GlmForCausalLM"),
    "Granite": Architecture("GraniteForCausalLM", {"logits_scaling": 4.0, "embedding_multiplier": 2.0}),
    "OPT": Architecture("OPTForCausalLM", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Falcon": Architecture("FalconForCausalLM", without=("head_dim",)),
    "BLOOM": Architecture("BloomForCausalLM", {"n_layer": 2, "n_head": 4}),
    "MPT": Architecture("MptForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2}),
    "GPT-Neo": Architecture(
        "GPTNeoForCausalLM",
        {"num_layers": 2, "num_heads": 4, "window_size": 4, "attention_types": [[["global", "local"], 1]]},
    ),
    "GPT-2, in memory": Architecture("GPT2LMHeadModel", GPT2),
    "GPT-2, read by `load`": Architecture("GPT2LMHeadModel", GPT2),
    "ModernBERT": Architecture(
        "ModernBertForMaskedLM", {"local_attention": 8, "layer_types": WINDOWS["layer_types"]}
    ),
    "BERT": Architecture("BertForMaskedLM"),
    "RoBERTa": Architecture("RobertaForMaskedLM"),
    "DistilBERT": Architecture(
        "DistilBertForMaskedLM", {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}
    ),
    "ELECTRA": Architecture("ElectraForMaskedLM", {"embedding_size": 16}),
    "ALBERT": Architecture("AlbertForMaskedLM", {"embedding_size": 16}),
    "Mixtral": Architecture("MixtralForCausalLM", {"num_local_experts": 2}),
    "Qwen3-MoE": Architecture("Qwen3MoeForCausalLM", EXPERTS),
    "gpt-oss": Architecture(
        "GptOssForCausalLM", {"num_local_experts": 2, "num_experts_per_tok": 1, **WINDOWS}
    ),
    "Qwen3-Next": Architecture(
        "Qwen3NextForCausalLM",
        {
            **EXPERTS,
            "layer_types": ["linear_attention", "full_attention"],
            **dict.fromkeys(("linear_num_value_heads", "linear_num_key_heads"), 2),
            **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
        },
    ),
    "Mamba": Architecture("MambaForCausalLM", {"state_size": 4}),
    "BART": Architecture(
        "BartForConditionalGeneration",
        {
            "d_model": 32,
            **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
            **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
        },
    ),
}
DIRECTIONS = {
    "autoregressive": {},
    "diffusion": {"mask_token_id": MASK, "logits_shifted": False},
}  # what `wrap` is told


def tiny(name: str, seed: int = 0) -> PreTrainedModel:
    """Return a model of an architecture with random weights, gains and biases, float32."""
    architecture = ARCHITECTURES[name]
    model_class = getattr(transformers, architecture.model)
    if name == "GPT-2, read by `load`":
        model_class = GPT2LMHeadModel

    prefix = re.sub(r"(For[A-Z]|LMHead).*", "", architecture.model)
    config_class = getattr(transformers, architecture.config or f"{prefix}Config")
    sizes = {size: value for size, value in SIZES.items() if size not in architecture.without}
    config = config_class(**{**sizes, **architecture.fields})
    config._attn_implementation = "sdpa" if model_class._supports_sdpa else "eager"

    torch.manual_seed(seed)
    model = model_class(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # 1 and 0 would hide what is left out
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


def row_of(name: str) -> dict:
    """Return what an architecture shows; anything but a refusal of ours is raised.

    That is its `class`, as which `kinds` `wrap` takes it, whether its attention can be followed (`sinks`), as
    sink-aware recipes need, and in which words it is `refused`, by kind or for its sinks.
    """
    kinds, refused = [], {}
    for kind, told in DIRECTIONS.items():
        try:
            wrap(tiny(name), **told)
            kinds.append(kind)
        except ValueError as error:
            refused[kind] = str(error)

    try:
        attention_mass(tiny(name), torch.arange(20)[None] + 20)
        sinks = True
    except (ValueError, RuntimeError) as error:  # RuntimeError: layers that run twice
        sinks = False
        refused["sinks"] = str(error)

    return {"class": ARCHITECTURES[name].model, "kinds": kinds, "sinks": sinks, "refused": refused}


if __name__ == "__main__":
    write_json(project_root() / FILE, {name: row_of(name) for name in ARCHITECTURES})

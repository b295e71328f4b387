"""Tiny random checkpoints in the public formats: what shows, in seconds and without a network, that a family works here.

A model is drawn as parts (embedding, projections, gains) that know no format. Writers lay them out as each family
publishes them: its configuration fields, its names, fused and padded where it fuses and pads. The weights are random, so
no number of such a model says anything about the real one.

Dimensions: V vocabulary, D hidden width, F width of the MLP, H query heads, G key-value heads, E head width.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sinkprune_core.files import atomic
from sinkprune_core.models.catalog import EMBEDDED, KnownModel
from sinkprune_core.models.hub import parse


@dataclass(frozen=True)
class Shape:
    """What a tiny model is, in the papers' terms."""

    vocabulary: int = 72
    width: int = 32
    mlp: int = 45
    layers: int = 3
    heads: int = 4
    groups: int = 2
    head_width: int = 8
    theta: float = 10_000.0
    epsilon: float = 1e-5
    tied: bool = False
    qkv_bias: bool = False
    head_norm: bool = False
    gpt2: bool = False
    stored: torch.dtype = torch.float32
    head_rows: int | None = None  # of the output head, where it has fewer than the embedding
    positions: int = 64


def draw(shape: Shape, seed: int = 0) -> dict:
    """Return the parts of a random model, float32 values that `shape.stored` can hold."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*size: int, scale: float = 0.35, offset: float = 0.0) -> torch.Tensor:
        return (offset + scale * torch.randn(size, generator=rng)).to(shape.stored).float()

    def gain() -> torch.Tensor:
        return normal(shape.width, scale=0.2, offset=1.0)

    D, F, E = shape.width, shape.mlp, shape.head_width
    layers = []
    for _ in range(shape.layers):
        layer = {
            "norm_1": gain(),
            "norm_2": gain(),
            "q": normal(shape.heads * E, D),
            "k": normal(shape.groups * E, D),
            "v": normal(shape.groups * E, D),
            "o": normal(D, shape.heads * E),
            "up": normal(F, D),
            "down": normal(D, F),
        }
        if shape.gpt2:
            sizes = {
                "norm_1_bias": D,
                "norm_2_bias": D,
                "q_bias": D,
                "k_bias": D,
                "v_bias": D,
                "o_bias": D,
                "up_bias": F,
                "down_bias": D,
            }
            layer |= {name: normal(size, scale=0.1) for name, size in sizes.items()}
        else:
            layer["gate"] = normal(F, D)
        if shape.qkv_bias:
            layer |= {
                "q_bias": normal(shape.heads * E),
                "k_bias": normal(shape.groups * E),
                "v_bias": normal(shape.groups * E),
            }
        if shape.head_norm:
            layer |= {"q_norm": normal(E, scale=0.2, offset=1.0), "k_norm": normal(E, scale=0.2, offset=1.0)}
        layers.append(layer)
    parts = {
        "embedding": normal(shape.vocabulary, D, scale=0.02),
        "norm": gain(),
        "layers": layers,
    }  # small enough for epsilon to count
    if shape.gpt2:
        parts |= {"positions": normal(shape.positions, D, scale=0.02), "norm_bias": normal(D, scale=0.1)}
    parts["head"] = parts["embedding"] if shape.tied else normal(shape.head_rows or shape.vocabulary, D)
    return parts


# the public formats

LLADA = {
    "activation_type": "silu", "alibi": False, "alibi_bias_max": 8.0, "architectures": ["LLaDAModelLM"], "attention_dropout": 0.0, "attention_layer_norm": False, "attention_layer_norm_with_affine": True,
    "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig", "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM", "AutoModel": "modeling_llada.LLaDAModelLM"},
    "bias_for_layer_norm": False, "block_group_size": 1, "block_type": "llama", "embedding_dropout": 0.0, "eos_token_id": 0, "flash_attention": False, "include_bias": False, "include_qkv_bias": False,
    "init_cutoff_factor": None, "init_device": "meta", "init_fn": "mitchell", "init_std": 0.02, "input_emb_norm": False, "layer_norm_type": "rms", "layer_norm_with_affine": True, "mlp_ratio": 4, "model_type": "llada",
    "multi_query_attention": None, "pad_token_id": 0, "precision": "amp_bf16", "residual_dropout": 0.0, "rope": True, "rope_full_precision": True, "scale_logits": False, "transformers_version": "4.46.3",
    "use_cache": False, "weight_tying": False,
}  # fmt: skip


def llada(parts: dict, shape: Shape) -> tuple[dict, dict]:
    sizes = {
        "d_model": shape.width,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "n_kv_heads": shape.groups,
        "mlp_hidden_size": shape.mlp,
        "embedding_size": shape.vocabulary,
        "vocab_size": shape.vocabulary,
    }
    config = (
        LLADA
        | sizes
        | {
            "max_sequence_length": shape.positions,
            "rms_norm_eps": shape.epsilon,
            "rope_theta": shape.theta,
            "mask_token_id": 5,
        }
    )
    names = {
        "norm_1": "attn_norm",
        "q": "q_proj",
        "k": "k_proj",
        "v": "v_proj",
        "o": "attn_out",
        "norm_2": "ff_norm",
        "gate": "ff_proj",
        "up": "up_proj",
        "down": "ff_out",
    }
    stored = {
        "model.transformer.wte.weight": parts["embedding"],
        "model.transformer.ln_f.weight": parts["norm"],
        "model.transformer.ff_out.weight": parts["head"],
    }
    stored |= {
        f"model.transformer.blocks.{index}.{public}.weight": layer[name]
        for index, layer in enumerate(parts["layers"])
        for name, public in names.items()
    }
    return stored, config


def mmada(parts: dict, shape: Shape) -> tuple[dict, dict]:
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


def transformer(parts: dict, shape: Shape) -> tuple[dict, dict]:
    """Llama's and Qwen's own names, which several families share."""
    sizes = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.groups,
    }
    config = sizes | {
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "tie_word_embeddings": shape.tied,
        "hidden_act": "silu",
        "transformers_version": "4.46.2",
    }
    names = {
        "norm_1": "input_layernorm",
        "norm_2": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
        "q_norm": "self_attn.q_norm",
        "k_norm": "self_attn.k_norm",
    }
    names |= {name: f"self_attn.{name}_proj" for name in "qkvo"}
    stored = {"model.embed_tokens.weight": parts["embedding"], "model.norm.weight": parts["norm"]} | (
        {} if shape.tied else {"lm_head.weight": parts["head"]}
    )
    for index, layer in enumerate(parts["layers"]):
        stored |= {
            f"model.layers.{index}.{public}.weight": layer[name]
            for name, public in names.items()
            if name in layer
        }
        stored |= {
            f"model.layers.{index}.self_attn.{name}_proj.bias": layer[f"{name}_bias"]
            for name in "qkv"
            if f"{name}_bias" in layer
        }
    return stored, config


def illada(parts: dict, shape: Shape) -> tuple[dict, dict]:
    stored, config = transformer(parts, shape)
    return stored, config | {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "attention_bias": False,
    }


def dream(parts: dict, shape: Shape) -> tuple[dict, dict]:
    stored, config = transformer(parts, shape)
    remote = {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"}
    return stored, config | {
        "model_type": "Dream",
        "architectures": ["DreamModel"],
        "auto_map": remote,
        "mask_token_id": 266,
        "rope_scaling": None,
        "use_mrope": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": 28,
    }


def a2d_qwen3(parts: dict, shape: Shape) -> tuple[dict, dict]:
    stored, config = transformer(parts, shape)
    return stored, config | {
        "model_type": "a2d-qwen3",
        "architectures": ["A2DQwen3LMHeadModel"],
        "head_dim": shape.head_width,
        "rope_scaling": None,
        "use_sliding_window": False,
        "attention_bias": False,
        "max_window_layers": 28,
    }


def a2d_qwen2(parts: dict, shape: Shape) -> tuple[dict, dict]:
    """Published with an output head of its own and a configuration that says it is tied."""
    stored, config = transformer(parts, shape)
    return stored, config | {
        "model_type": "a2d-qwen2",
        "architectures": ["A2DQwen2LMHeadModel"],
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "max_window_layers": 21,
    }


def diffullama(parts: dict, shape: Shape) -> tuple[dict, dict]:
    stored, config = transformer(parts, shape)
    stored = {
        "denoise_model." + name.removeprefix("model.") if name.startswith("model.") else name: tensor
        for name, tensor in stored.items()
    }
    stored["embed_tokens.weight"] = stored.pop("denoise_model.embed_tokens.weight")
    stored |= {
        f"denoise_model.layers.{index}.self_attn.rotary_emb.inv_freq": torch.zeros(shape.head_width // 2)
        for index in range(shape.layers)
    }  # recomputed, never read
    del config["rope_theta"]
    return stored, config | {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "pretraining_tp": 1,
        "rope_scaling": None,
    }


def gpt2(parts: dict, shape: Shape) -> tuple[dict, dict]:
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
    }
    config |= {
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
        block = {
            "ln_1.weight": layer["norm_1"],
            "ln_1.bias": layer["norm_1_bias"],
            "ln_2.weight": layer["norm_2"],
            "ln_2.bias": layer["norm_2_bias"],
        }
        block |= {
            "attn.c_attn.weight": torch.cat([layer[name] for name in "qkv"]).T.contiguous(),
            "attn.c_attn.bias": torch.cat([layer[f"{name}_bias"] for name in "qkv"]),
        }
        for public, name in (("attn.c_proj", "o"), ("mlp.c_fc", "up"), ("mlp.c_proj", "down")):
            block |= {f"{public}.weight": layer[name].T.contiguous(), f"{public}.bias": layer[f"{name}_bias"]}
        stored |= {f"h.{index}.{name}": tensor for name, tensor in block.items()} | {
            f"h.{index}.attn.bias": torch.ones(1, 1, shape.positions, shape.positions).tril()
        }
    return stored, config


def diffugpt(parts: dict, shape: Shape) -> tuple[dict, dict]:
    stored, config = gpt2(parts, shape)
    stored = {
        f"denoise_model.{name}": tensor for name, tensor in stored.items() if not name.endswith(".attn.bias")
    }
    stored["embed_tokens.weight"] = stored.pop("denoise_model.wte.weight")
    return stored, config


def smdm(parts: dict, shape: Shape) -> tuple[dict, dict]:
    """Weights alone, fused as lit-gpt fuses: for each group its queries, its key, its value."""
    stored = {
        "transformer.wte.weight": parts["embedding"],
        "transformer.ln_f.weight": parts["norm"],
        "lm_head.weight": parts["head"],
    }
    each, E = shape.heads // shape.groups, shape.head_width
    for index, layer in enumerate(parts["layers"]):
        rows = []
        for group in range(shape.groups):
            rows += [
                layer["q"][head * E : (head + 1) * E] for head in range(group * each, (group + 1) * each)
            ]
            rows += [layer["k"][group * E : (group + 1) * E], layer["v"][group * E : (group + 1) * E]]
        block = {
            "norm_1": layer["norm_1"],
            "attn.attn": torch.cat(rows),
            "attn.proj": layer["o"],
            "norm_2": layer["norm_2"],
            "mlp.swiglu.w1": layer["gate"],
            "mlp.swiglu.w2": layer["up"],
            "mlp.swiglu.w3": layer["down"],
        }
        stored |= {f"transformer.h.{index}.{name}.weight": tensor for name, tensor in block.items()}
    return stored, {}


def lit_config(shape: Shape) -> dict:
    return {
        "name": "Diff_LLaMA_tiny",
        "block_size": shape.positions,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_query_groups": shape.groups,
        "n_embd": shape.width,
        "bias": False,
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "_norm_class": "FusedRMSNorm",
        "norm_eps": shape.epsilon,
        "_mlp_class": "LLaMAMLP",
    }


def native(model_type: str) -> Callable:
    def write(parts: dict, shape: Shape) -> tuple[dict, dict]:
        stored, config = transformer(parts, shape)
        return stored, config | {"model_type": model_type, "head_dim": shape.head_width}

    return write


@dataclass(frozen=True)
class Case:
    """A family's tiny checkpoint and what loading must find out about it."""

    write: Callable[[dict, Shape], tuple[dict, dict]]
    family: str
    native: str
    shape: Shape
    mask: int | None = None
    shifted: bool = True
    mask_string: str | None = None  # an entry of the vocabulary at the mask's place
    declared: bool = False  # as the tokenizer's mask token
    shards: int = 1
    spells: bool = False  # whether its tokenizer spells any text in bytes; otherwise it knows made-up words

    @property
    def causal(self) -> bool:
        return self.mask is None


MHA = {"groups": 4}
BF16 = {"stored": torch.bfloat16}
GPT2 = Shape(gpt2=True, tied=True, width=32, head_width=8, mlp=48, **MHA)
QWEN2 = Shape(qkv_bias=True, epsilon=1e-6, theta=1e6)
CASES: dict[str, Case] = {
    "llada": Case(
        llada,
        "llada",
        "LlamaForCausalLM",
        Shape(theta=5e5, **MHA, **BF16),
        5,
        False,
        "<|mdm_mask|>",
        shards=3,
    ),
    "llada grouped": Case(llada, "llada", "LlamaForCausalLM", Shape(theta=5e5), 5, False),
    "mmada": Case(
        mmada, "mmada", "LlamaForCausalLM", Shape(theta=5e5, **MHA, **BF16), 5, False, "<|mdm_mask|>"
    ),
    "illada": Case(illada, "illada", "LlamaForCausalLM", Shape(theta=1e6, tied=True), 5, False, "<[MASK]>"),
    "dream": Case(
        dream,
        "dream",
        "Qwen2ForCausalLM",
        replace(QWEN2, vocabulary=272, **BF16),
        266,
        True,
        "<|mask|>",
        declared=True,
    ),
    "a2d qwen3": Case(
        a2d_qwen3,
        "a2d",
        "Qwen3ForCausalLM",
        Shape(head_norm=True, head_width=16, tied=True, theta=1e6, epsilon=1e-6),
        5,
        False,
        "<|mask|>",
    ),
    "a2d qwen2": Case(a2d_qwen2, "a2d", "Qwen2ForCausalLM", QWEN2, 5, False, "<|mask|>", declared=True),
    "diffugpt": Case(
        diffugpt,
        "diffugpt",
        "GPT2LMHeadModel",
        replace(GPT2, stored=torch.float16),
        20,
        True,
        "the",
        declared=True,
    ),
    "diffullama": Case(
        diffullama, "diffullama", "LlamaForCausalLM", Shape(**MHA), 20, True, "the", declared=True
    ),
    "smdm": Case(smdm, "smdm", "LlamaForCausalLM", Shape(vocabulary=73, head_rows=72, **MHA), 72, False),
    "smdm grouped": Case(smdm, "smdm", "LlamaForCausalLM", Shape(vocabulary=73, head_rows=72), 72, False),
    "smdm ar": Case(smdm, "smdm-ar", "LlamaForCausalLM", Shape(**MHA)),
    "llama": Case(native("llama"), "native", "LlamaForCausalLM", Shape(theta=5e5, **BF16), shards=2),
    "qwen2": Case(native("qwen2"), "native", "Qwen2ForCausalLM", QWEN2),
    "qwen3": Case(
        native("qwen3"),
        "native",
        "Qwen3ForCausalLM",
        Shape(head_norm=True, head_width=16, tied=True, theta=1e6, epsilon=1e-6),
    ),
    "gpt2": Case(gpt2, "native", "GPT2LMHeadModel", GPT2),
}


def write(case: Case, folder: Path, seed: int = 0) -> dict:
    """Write a case's checkpoint as it would lie on the hub; return its parts."""
    folder.mkdir(parents=True)
    parts = draw(case.shape, seed)
    stored, config = case.write(parts, case.shape)
    stored = {name: tensor.to(case.shape.stored).contiguous().clone() for name, tensor in stored.items()}
    write_weights(stored, folder, case.shards)
    if case.write is smdm:
        (folder / "lit_config.json").write_text(json.dumps(lit_config(case.shape)))
    else:
        (folder / "config.json").write_text(
            json.dumps(config | {"torch_dtype": str(case.shape.stored).removeprefix("torch.")})
        )
    (byte_level_tokenizer if case.write is dream else spelling_tokenizer if case.spells else word_tokenizer)(
        case, folder
    )
    return parts


def case_of(row: KnownModel) -> Case:
    """Return the case in the format of a row of the table of models, with a tokenizer for any text and 1024 positions."""
    case = next(case for case in CASES.values() if (case.family, case.native) == (row.family, row.native))
    vocabulary = case.shape.vocabulary if case.write is dream else 288 + (row.family == "smdm")
    head_rows, mask = (vocabulary - 1, vocabulary - 1) if row.family == "smdm" else (None, case.mask)
    shape = replace(case.shape, vocabulary=vocabulary, head_rows=head_rows, mlp=48, positions=1024)
    return replace(case, shape=shape, mask=mask, spells=True)


def stand_in(row: KnownModel, folder: Path, seed: int = 0) -> Path:
    """Return a folder with a tiny random checkpoint in the format of a row of the table of models, writing it where it is missing."""
    if not folder.exists():
        with atomic(folder) as partial:
            write(case_of(row), partial, seed)
    return folder


def write_weights(stored: dict, folder: Path, shards: int = 1) -> None:
    if shards == 1:
        return save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    names, where = sorted(stored), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        mine = names[shard::shards]
        save_file({name: stored[name] for name in mine}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(mine, file)
    total = sum(tensor.nbytes for tensor in stored.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": where})
    )


def instead_of(name: str, folder: Path, seed: int = 0) -> Path | str:
    """Return what to load where no weights are wanted: a stand-in below `folder` for a hub id, and the name itself for the embedded pair or a folder.

    Raises ValueError for an unknown name, as `load` does.
    """
    row, _ = parse(name)
    return (
        name
        if row is None or row.id in EMBEDDED
        else stand_in(row, folder / f"tiny-random-{row.id.replace('/', '--')}", seed)
    )


def word_tokenizer(case: Case, folder: Path) -> None:
    """A tokenizer.json of one word per token. The mask has the name that the family gives it, or none of its own."""
    words = ["<|endoftext|>"] + [f"word{index}" for index in range(1, min(case.shape.vocabulary, 72))]
    if case.mask_string:
        words[case.mask] = case.mask_string
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(words[:1] + ([case.mask_string] if case.mask_string and case.mask < 17 else []))
    declared = {"mask_token": case.mask_string} if case.declared else {}
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=words[0], eos_token=words[0], pad_token=words[0], **declared
    ).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"})
    )


def spelling_tokenizer(case: Case, folder: Path) -> None:
    """A tokenizer.json of one byte per token, the mask at its place."""
    letters, special = (
        sorted(pre_tokenizers.ByteLevel.alphabet()),
        {0: "<|endoftext|>"} | ({case.mask: case.mask_string} if case.mask_string else {}),
    )
    places = [place for place in range(len(letters) + len(special)) if place not in special]
    vocabulary = {letter: place for place, letter in zip(places, letters, strict=True)} | {
        token: place for place, token in special.items()
    }
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer, inner.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    inner.add_special_tokens(list(special.values()))
    PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=special[0],
        pad_token=special[0],
        **({"mask_token": case.mask_string} if case.declared else {}),
    ).save_pretrained(folder)


def byte_level_tokenizer(case: Case, folder: Path) -> None:
    """Dream's files: vocab.json and merges.txt, added tokens, and a tokenizer class that is remote code."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    vocabulary = {token: index for index, token in enumerate(letters + ["".join(merge) for merge in merges])}
    added = {
        token: len(vocabulary) + index
        for index, token in enumerate(
            [
                "<|endoftext|>",
                "<|im_start|>",
                "<|im_end|>",
                "<|box_start|>",
                "<|box_end|>",
                "<|quad_start|>",
                "<|beginoftext|>",
                "<|mask|>",
            ]
        )
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges)
    )
    decoder = {
        str(index): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token, index in added.items()
    }
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "tokenizer_class": "DreamTokenizer",
    }
    config |= {
        "bos_token": "<|beginoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
        "unk_token": None,
        "model_max_length": 131072,
        "errors": "replace",
        "split_special_tokens": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps(added))

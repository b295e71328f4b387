"""Public formats of checkpoints: how each is recognised, and where every native parameter lies in its files.

A format has a function for its configuration (configurations.py, which names the sources) and a list of names
(here).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import CONFIG_MAPPING, PretrainedConfig

from sinkprune.models import configurations
from sinkprune.models.catalog import REFUSALS
from sinkprune.models.configurations import A2D_CONFIGS, Shapes
from sinkprune.models.weight_files import FormatError


@dataclass(frozen=True)
class Source:
    """Where a native parameter lies: a stored tensor or some of its rows, and rows of zeros after them."""

    stored: str  # name of the stored tensor
    part: tuple[int, int, int, int] | None = None
    """(groups, slices, first, last): the rows are `groups` groups of `slices` equal slices each, and every
    group gives its slices [first, last). None: all rows."""
    padding: int = 0  # how many rows of zeros follow

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the native shape, from the shape of the stored tensor."""
        rows, *rest = stored
        if self.part is not None:
            groups, slices, first, last = self.part
            rows = rows // (groups * slices) * groups * (last - first)
        return (rows + self.padding, *rest)

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the native tensor, from the stored one."""
        if self.part is not None:
            groups, slices, first, last = self.part
            tensor = tensor.unflatten(0, (groups, slices, -1))[:, first:last].flatten(0, 2).contiguous()
        if self.padding:
            nothing = (0, 0) * (tensor.dim() - 1)
            tensor = functional.pad(tensor, (*nothing, 0, self.padding))
        return tensor


# The beginnings of stored names and the native ones that replace them: the first that fits counts, and # is
# the number of a block. Read the other way they write stored names (`stand_ins`).

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
SMDM_NAMES: Names = (
    ("transformer.wte.", "model.embed_tokens."),
    ("transformer.h.#.norm_1.", "model.layers.#.input_layernorm."),
    ("transformer.h.#.attn.attn.", "model.layers.#.self_attn.qkv_proj."),  # fused, see `_unfused`
    ("transformer.h.#.attn.proj.", "model.layers.#.self_attn.o_proj."),
    ("transformer.h.#.norm_2.", "model.layers.#.post_attention_layernorm."),
    ("transformer.h.#.mlp.swiglu.w1.", "model.layers.#.mlp.gate_proj."),
    ("transformer.h.#.mlp.swiglu.w2.", "model.layers.#.mlp.up_proj."),
    ("transformer.h.#.mlp.swiglu.w3.", "model.layers.#.mlp.down_proj."),
    ("transformer.ln_f.", "model.norm."),
)
DIFFUGPT_NAMES: Names = (("embed_tokens.", "transformer.wte."), ("denoise_model.", "transformer."))
DIFFULLAMA_NAMES: Names = (("embed_tokens.", "model.embed_tokens."), ("denoise_model.", "model."))
NATIVE_NAMES: Names = tuple(
    (part, f"transformer.{part}") for part in ("h.#.", "wte.", "wpe.", "ln_f.")
)  # GPT-2 on the hub has no prefix

# buffers that old files hold and that the native class computes itself
RECOMPUTED = re.compile(r".*\.rotary_emb\.inv_freq|.*\bh\.\d+\.attn\.(bias|masked_bias)")


@dataclass(frozen=True)
class Format:
    """A public format of checkpoints."""

    name: str  # the `family` of a model
    kind: str | None  # diffusion or autoregressive; None: the folder itself says
    logits_shifted: bool | None  # the output at position i-1 predicts the token at i; None: the folder says
    config: Callable[[dict, Shapes], PretrainedConfig]
    names: Names = ()  # stored names -> native ones
    mask_tokens: tuple[str, ...] = ()
    """What the mask may be called, where neither configuration nor tokenizer declares it."""


DLLM_MASKS = ("<|mask|>", "<|MASK|>")
_ALL = (
    Format("llada", "diffusion", False, configurations.llada, LLADA_NAMES, ("<|mdm_mask|>",)),
    Format("mmada", "diffusion", False, configurations.llada, LLADA_NAMES, ("<|mdm_mask|>",)),
    Format("illada", "diffusion", False, configurations.illada, (), ("<[MASK]>",)),
    Format("dream", "diffusion", True, configurations.dream, (), DLLM_MASKS),
    Format("a2d", "diffusion", False, configurations.a2d, (), DLLM_MASKS),
    Format("diffugpt", "diffusion", True, configurations.diffugpt, DIFFUGPT_NAMES),
    Format("diffullama", "diffusion", True, configurations.diffullama, DIFFULLAMA_NAMES),
    Format("smdm", "diffusion", False, configurations.smdm, SMDM_NAMES),
    Format("smdm-ar", "autoregressive", True, configurations.smdm, SMDM_NAMES),
    Format("native", None, None, configurations.native, NATIVE_NAMES),
)
FORMATS: dict[str, Format] = {published.name: published for published in _ALL}
UNCOVERED = {
    model_type: refusal.because for refusal in REFUSALS.values() for model_type in refusal.model_types
}  # why, by model type in lower case


def detect(raw: dict, shapes: Shapes, expected: str | None = None) -> Format:
    """Return the format of a folder from its configuration and stored names.

    `expected` counts where the model type says nothing: iLLaDA's, with the usual field names, is not
    documented. Raises FormatError where no format is covered.
    """
    model_type = str(raw.get("model_type", ""))
    if model_type.lower() in UNCOVERED:
        raise FormatError(f"model_type={model_type!r} is not covered: {UNCOVERED[model_type.lower()]}")
    name = _by_names(shapes) or _by_model_type(model_type, raw)
    if name is None and expected == "illada" and "hidden_size" in raw:
        name = expected
    if name is None and model_type in CONFIG_MAPPING:
        name = "native"
    if name is None and not raw:
        raise FormatError("config.json is missing, which says what the weights are: fetch the folder again")
    if name is None:
        raise FormatError(
            f"model_type={raw.get('model_type')!r} is not covered; covered are llada, mmada, illada, Dream, "
            f"{', '.join(A2D_CONFIGS)}, DiffuGPT, DiffuLLaMA, SMDM and the model types of transformers"
        )
    return FORMATS[name]


def _by_names(shapes: Shapes) -> str | None:
    """Return the format whose stored names no other has; None where there is no such name."""
    if any(".attn.attn." in name for name in shapes):
        embedding_rows = shapes.get("transformer.wte.weight", (0,))[0]
        head_rows = shapes.get("lm_head.weight", (0,))[0]
        return "smdm" if embedding_rows > head_rows else "smdm-ar"
    if any(name.startswith("denoise_model.h.") for name in shapes):
        return "diffugpt"
    if any(name.startswith("denoise_model.") for name in shapes):
        return "diffullama"
    return None


def _by_model_type(model_type: str, raw: dict) -> str | None:
    """Return the format that the configuration's model type and field names tell; None where they do not."""
    has_experts = any(raw.get(name) for name in ("num_experts", "n_routed_experts"))
    if has_experts and model_type in ("llada", "illada", "Dream"):
        because = REFUSALS["mixture_of_experts"].because
        raise FormatError(f"model_type={model_type!r} with experts is not covered: {because}")
    if model_type == "llada" and "d_model" not in raw:
        return "illada"
    if model_type in ("llada", "mmada", "illada"):
        return model_type
    if model_type in A2D_CONFIGS:
        return "a2d"
    if model_type.lower() == "dream":
        return "dream"
    return None


def sources(published: Format, shapes: Shapes, config: PretrainedConfig) -> dict[str, Source]:
    """Return where every native parameter lies, by its native name.

    A stored name that no pattern fits stays, to be reported. Raises FormatError for one that comes twice.
    """
    known: dict[str, Source] = {}
    for stored, shape in shapes.items():
        if RECOMPUTED.fullmatch(stored):
            continue
        name = renamed(stored, published.names)
        if ".qkv_proj." in name:
            parts = _unfused(stored, name, config)
        elif published.name == "smdm" and name == "lm_head.weight" and shape[0] + 1 == config.vocab_size:
            parts = {name: Source(stored, padding=1)}  # the mask is never predicted
        else:
            parts = {name: Source(stored)}
        double = sorted(known.keys() & parts.keys())
        if double:
            raise FormatError(
                f"{', '.join(double)} is stored twice, as {known[double[0]].stored} and as {stored}"
            )
        known |= parts
    return known


def renamed(name: str, names: Names) -> str:
    """Return a name with its beginning replaced as the first pair that fits it says; else as it is."""
    for old, new in names:
        match = re.match(re.escape(old).replace(r"\#", r"(\d+)"), name)
        if match:
            return new.replace("#", match[1] if "#" in old else "") + name[match.end() :]
    return name


def _unfused(stored: str, name: str, config: PretrainedConfig) -> dict[str, Source]:
    """Return the sources of queries, keys and values that are stored as one, group by group."""
    groups = config.num_key_value_heads
    queries = config.num_attention_heads // groups  # of a group, followed by its key and its value
    slices = queries + 2
    return {
        name.replace("qkv", "q"): Source(stored, (groups, slices, 0, queries)),
        name.replace("qkv", "k"): Source(stored, (groups, slices, queries, queries + 1)),
        name.replace("qkv", "v"): Source(stored, (groups, slices, queries + 1, queries + 2)),
    }

"""One tiny random checkpoint per format and variant, and what loading must find out about it."""

from dataclasses import dataclass, replace

import torch
from random_models import layouts as layouts
from random_models.layouts import Layout
from random_models.parts import TinyShape


@dataclass(frozen=True)
class Case:
    """A tiny checkpoint of a public format."""

    layout: Layout  # how its parts are written
    family: str  # the format that loading must recognise
    native: str  # the class of transformers that must hold it
    shape: TinyShape
    mask: int | None = None  # id of the mask token; None: an autoregressive model
    shifted: bool = True  # the output at position i-1 predicts the token at i
    mask_string: str | None = None  # an entry of the vocabulary at the mask's place
    declared: bool = False  # as the tokenizer's mask token
    shards: int = 1

    @property
    def causal(self) -> bool:
        """Whether it is an autoregressive model."""
        return self.mask is None


LLAMA = "LlamaForCausalLM"
QWEN2 = "Qwen2ForCausalLM"
QWEN3 = "Qwen3ForCausalLM"
GPT2 = "GPT2LMHeadModel"

LLADA_MASK = "<|mdm_mask|>"

MULTI_HEAD = TinyShape(groups=4)  # as many key-value heads as query heads
LLADA_SHAPE = TinyShape(groups=4, theta=5e5, stored=torch.bfloat16)
LLAMA_SHAPE = TinyShape(theta=5e5, stored=torch.bfloat16)
QWEN2_SHAPE = TinyShape(qkv_bias=True, epsilon=1e-6, theta=1e6)
QWEN3_SHAPE = TinyShape(head_norm=True, head_width=16, tied=True, theta=1e6, epsilon=1e-6)
GPT2_SHAPE = TinyShape(gpt2=True, tied=True, mlp=48, groups=4)

UNSHIFTED = {"mask": 5, "shifted": False}
DREAM_SHAPE = replace(QWEN2_SHAPE, vocabulary=272, stored=torch.bfloat16)
DIFFUGPT_SHAPE = replace(GPT2_SHAPE, stored=torch.float16)

CASES: dict[str, Case] = {
    "llada": Case(layouts.llada, "llada", LLAMA, LLADA_SHAPE, mask_string=LLADA_MASK, shards=3, **UNSHIFTED),
    "llada grouped": Case(layouts.llada, "llada", LLAMA, TinyShape(theta=5e5), **UNSHIFTED),
    "mmada": Case(layouts.mmada, "mmada", LLAMA, LLADA_SHAPE, mask_string=LLADA_MASK, **UNSHIFTED),
    "dream": Case(layouts.dream, "dream", QWEN2, DREAM_SHAPE, 266, mask_string="<|mask|>", declared=True),
    "a2d qwen3": Case(layouts.a2d_qwen3, "a2d", QWEN3, QWEN3_SHAPE, mask_string="<|mask|>", **UNSHIFTED),
    "a2d qwen2": Case(
        layouts.a2d_qwen2, "a2d", QWEN2, QWEN2_SHAPE, mask_string="<|mask|>", declared=True, **UNSHIFTED
    ),
    "diffugpt": Case(
        layouts.diffugpt, "diffugpt", GPT2, DIFFUGPT_SHAPE, 20, mask_string="the", declared=True
    ),
    "llama": Case(layouts.native("llama"), "native", LLAMA, LLAMA_SHAPE, shards=2),
    "qwen2": Case(layouts.native("qwen2"), "native", QWEN2, QWEN2_SHAPE),
    "qwen3": Case(layouts.native("qwen3"), "native", QWEN3, QWEN3_SHAPE),
    "gpt2": Case(layouts.gpt2, "native", GPT2, GPT2_SHAPE),
}

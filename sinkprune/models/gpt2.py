"""GPT-2 with plain linears, as all other models have them: in memory (O, I), in files GPT-2's own (I, O).

transformers' class has `Conv1D` in place of linears, whose weights are stored transposed. Here a weight is
turned round when it is read and when it is written, so that nothing else need know of it.

Dimensions: O output features, I input features.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn
from transformers import GPT2Config, PretrainedConfig
from transformers.pytorch_utils import Conv1D

TRANSPOSED = re.compile(r".*\bh\.\d+\.(attn|mlp)\.c_\w+\.weight")  # native names of what files hold as (I, O)


class GPT2LMHeadModel(transformers.GPT2LMHeadModel):
    """transformers' GPT-2, with a linear in place of every `Conv1D`; written, it is transformers' own."""

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Conv1D):
                    setattr(module, name, _linear(child))

    def save_pretrained(self, *args: Any, state_dict: dict[str, torch.Tensor] | None = None, **more: Any):
        """Write the model as transformers' own class does, so that stock transformers reads it."""
        state = self.state_dict() if state_dict is None else state_dict
        super().save_pretrained(*args, state_dict=all_turned(self.config, state), **more)


def is_transposed(config: PretrainedConfig, name: str) -> bool:
    """Return whether files hold a parameter, by its native name, as (I, O)."""
    return config.model_type == "gpt2" and TRANSPOSED.fullmatch(name) is not None


def turned(config: PretrainedConfig, name: str, value: torch.Tensor) -> torch.Tensor:
    """Return a parameter, by its native name, in memory's form where it is in that of files, or back."""
    return value.T if is_transposed(config, name) else value


def all_turned(config: PretrainedConfig, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return parameters by their native names, each as `turned` returns it, contiguous."""
    return {name: turned(config, name, value).contiguous() for name, value in values.items()}


def _linear(transposed: Conv1D) -> nn.Linear:
    """Return the linear that computes the same."""
    inputs, outputs = transposed.weight.shape
    linear = nn.Linear(inputs, outputs, device="meta")
    linear.weight = nn.Parameter(transposed.weight.detach().T.contiguous())
    linear.bias = transposed.bias
    return linear

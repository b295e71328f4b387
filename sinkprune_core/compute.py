"""What a model costs: parameters, non-zero weights and FLOPs, and what "matched compute" means here.

Matched compute is one of three things, always said which: the same sparsity of the same weights; the same number of
calibration tokens through the blocks; the same effective FLOPs of generation. Effective FLOPs count a zero weight as
skipped work. That is an idealisation: dense kernels multiply zeros as fast as other numbers, so unstructured sparsity
saves no time on today's hardware, and latency is reported beside it.

A multiply-add counts as two FLOPs. Dimensions: T sequence length, P positions whose logits are needed.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from .diffusion import Sampler
from .models import LanguageModel


@dataclass(frozen=True)
class ForwardCost:
    """FLOPs of one forward of one sequence by part; `linears` are those of the blocks, the only ones ever pruned."""

    linears: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        return self.linears + self.attention + self.head

    def effective(self, sparsity: float) -> float:
        """Return the FLOPs that remain when zeros of the blocks' linears cost nothing."""
        return self.linears * (1 - sparsity) + self.attention + self.head


def parameters(lm: LanguageModel) -> pd.DataFrame:
    """Return parameters and non-zero weights by kind: block linears, embeddings (and a tied head), everything else."""
    linears = [linear.weight for block in lm.blocks for linear in lm.linears(block).values()]
    known = {id(weight) for weight in linears}
    embedding = lm.model.get_input_embeddings().weight
    rest = [parameter for parameter in lm.model.parameters() if id(parameter) not in known and parameter is not embedding]
    kinds = {"block linears": linears, "embeddings": [embedding], "rest": rest}
    rows = [{"kind": kind, "parameters": sum(p.numel() for p in group), "nonzero": sum(int(p.count_nonzero()) for p in group)} for kind, group in kinds.items()]
    return pd.DataFrame(rows).set_index("kind")


def sparsity(lm: LanguageModel) -> float:
    """Return the share of zeros in the blocks' linears, counted."""
    counts = parameters(lm).loc["block linears"]
    return float(1 - counts.nonzero / counts.parameters)


def forward_cost(lm: LanguageModel, length: int, positions: int) -> ForwardCost:
    """Return the FLOPs of a forward over `length` tokens with logits at `positions` of them, from the model's shapes.

    Attention counts the full T x T products in both directions, as kernels without a causal shortcut do.
    """
    weights = sum(linear.weight.numel() for block in lm.blocks for linear in lm.linears(block).values())
    config = lm.model.config
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    attention = len(lm.blocks) * 2 * 2 * length**2 * width
    return ForwardCost(2.0 * weights * length, float(attention), 2.0 * positions * lm.model.get_output_embeddings().weight.numel())


@torch.inference_mode()
def counted_flops(lm: LanguageModel, ids_BT: torch.Tensor, where_BT: torch.Tensor) -> int:
    """Return what torch's FlopCounterMode counts in one real forward: the check of `forward_cost`.

    Attention runs eagerly for the count, as matrix products that the counter knows.
    """
    former = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")
    try:
        with FlopCounterMode(display=False) as counter:
            lm.logits_at(ids_BT, where_BT)
    finally:
        lm.model.set_attn_implementation(former)
    return counter.get_total_flops()


def generation_flops(lm: LanguageModel, length: int, prompt: int, steps: int, sparsity: float = 0.0) -> float:
    """Return effective FLOPs of generating `length` tokens after `prompt` tokens in `steps` denoising steps.

    Every step runs the whole sequence and takes logits at what is still masked.
    """
    left, total = length, 0.0
    for count in Sampler(length=length, steps=steps, block=None).reveals():
        total += forward_cost(lm, prompt + length, left).effective(sparsity)
        left -= count
    return total


def calibration_flops(lm: LanguageModel, length: int, rows: int, passes: int) -> float:
    """Return FLOPs of `passes` passes of `rows` calibration sequences through the blocks, without the head.

    Pruning with sequential propagation needs two passes (statistics, then the pruned output), dense propagation one,
    finding sinks one more.
    """
    return forward_cost(lm, length, 0).total * rows * passes

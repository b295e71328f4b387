"""What a model costs: parameters, non-zero weights, bytes, FLOPs and time, and what "matched compute" means here.

Matched compute is one of four things, always said which: the same sparsity of the same weights; the same number of
calibration tokens through the blocks; the same effective FLOPs of generation; the same measured time. Effective FLOPs
count a zero weight as skipped work. That is an idealisation: dense kernels multiply zeros as fast as other numbers, so
unstructured sparsity saves no time on today's hardware, and latency is reported beside it.

A multiply-add counts as two FLOPs. Dimensions: T sequence length, P positions whose logits are needed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from sinkprune_core.diffusion.sampling import Sampler
from sinkprune_core.models.language_model import LanguageModel


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
    rest = [
        parameter
        for parameter in lm.model.parameters()
        if id(parameter) not in known and parameter is not embedding
    ]
    kinds = {"block linears": linears, "embeddings": [embedding], "rest": rest}
    rows = [
        {
            "kind": kind,
            "parameters": sum(p.numel() for p in group),
            "nonzero": sum(int(p.count_nonzero()) for p in group),
        }
        for kind, group in kinds.items()
    ]
    return pd.DataFrame(rows).set_index("kind")


def forward_cost(lm: LanguageModel, length: int, positions: int) -> ForwardCost:
    """Return the FLOPs of a forward over `length` tokens with logits at `positions` of them, from the model's shapes.

    Attention counts the full T x T products in both directions, as kernels without a causal shortcut do.
    """
    weights = sum(linear.weight.numel() for block in lm.blocks for linear in lm.linears(block).values())
    config = lm.model.config
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    attention = len(lm.blocks) * 2 * 2 * length**2 * width
    return ForwardCost(
        2.0 * weights * length,
        float(attention),
        2.0 * positions * lm.model.get_output_embeddings().weight.numel(),
    )


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
    left, total, forward = (
        length,
        0.0,
        forward_cost(lm, prompt + length, 1),
    )  # of which logits alone differ from step to step
    for count in Sampler(length=length, steps=steps, block=None).reveals():
        total += replace(forward, head=left * forward.head).effective(sparsity)
        left -= count
    return total


def affordable_steps(cost: Callable[[int], float], budget: float, most: int) -> int:
    """Return the largest number of steps up to `most` whose `cost` is within `budget`, at least 1."""
    return max((count for count in range(1, most + 1) if cost(count) <= budget), default=1)


def account(lm: LanguageModel, ids_BT: torch.Tensor, where_BT: torch.Tensor) -> pd.DataFrame:
    """Return one row per kind of module: parameters, non-zero weights, bytes as stored, and FLOPs of one real forward.

    Kinds are the parts of a block that hold linears (`self_attn linears`, `mlp linears`), `attention products`,
    `embeddings and head`, `rest` and `total`. `flops` come from shapes, `effective_flops` count no zeros; `counted_flops`,
    of the total only, is what torch's own counter finds. The forward has ids (B, T) and logits where `where_BT` is true.
    """
    (rows, length), positions, linears = ids_BT.shape, int(where_BT.sum()), {}
    for block in lm.blocks:
        for name, linear in lm.linears(block).items():
            linears.setdefault(f"{name.split('.')[0]} linears", []).append(linear.weight)
    forward = forward_cost(lm, length, 0)
    outer = {
        id(each): each
        for each in (lm.model.get_input_embeddings().weight, lm.model.get_output_embeddings().weight)
    }
    known = {id(weight) for group in linears.values() for weight in group} | set(outer)
    rest = [parameter for parameter in lm.model.parameters() if id(parameter) not in known]
    groups = {**linears, "attention products": [], "embeddings and head": list(outer.values()), "rest": rest}
    flops = {
        kind: 2.0 * rows * length * sum(weight.numel() for weight in group) for kind, group in linears.items()
    }
    flops |= {
        "attention products": rows * forward.attention,
        "embeddings and head": 2.0 * positions * lm.model.get_output_embeddings().weight.numel(),
    }
    table = pd.DataFrame(
        [
            {
                "kind": kind,
                "parameters": sum(p.numel() for p in group),
                "nonzero": sum(int(p.count_nonzero()) for p in group),
                "bytes": sum(p.nbytes for p in group),
                "flops": flops.get(kind, 0.0),
            }
            for kind, group in groups.items()
        ]
    ).set_index("kind")
    table["effective_flops"] = table.flops * (table.nonzero / table.parameters).where(
        table.index.isin(list(linears)), 1.0
    )
    table.loc["total"] = table.sum()
    return table.assign(
        counted_flops=[float("nan")] * len(groups) + [float(counted_flops(lm, ids_BT, where_BT))]
    )


@torch.inference_mode()
def latency(
    models: dict[str, LanguageModel], ids_BT: torch.Tensor, where_BT: torch.Tensor, rounds: int = 9
) -> pd.DataFrame:
    """Return the seconds of one denoising step of every model, measured in turns after a warm-up: `variant`, `round`, `seconds`.

    A step is a forward over ids (B, T) with logits where `where_BT` is true. Models are compared within a round, since
    the speed of a machine drifts.
    """
    rows = []
    for turn in range(-1, rounds):
        for name, lm in models.items():
            begun = time.perf_counter()
            logits_NV = lm.logits_at(ids_BT, where_BT)
            float(logits_NV[0, 0])  # waits for a device
            rows.append({"variant": name, "round": turn, "seconds": time.perf_counter() - begun})
            del logits_NV  # or they would be held beside those of the next model
    return pd.DataFrame([row for row in rows if row["round"] >= 0])


def on_2_4_kernels(lm: LanguageModel) -> LanguageModel:
    """Turn the block linears of a model pruned 2:4, in place, into torch's semi-structured tensors; return it.

    Raises ValueError without a CUDA device, where torch has no kernels for them, and for another dtype than those of
    the kernels.
    """
    if lm.device.type != "cuda":
        raise ValueError(
            f"2:4 kernels need a CUDA device, and {lm.name} is on {lm.device}: move it there, or leave them out"
        )
    if lm.model.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"2:4 kernels need float16 or bfloat16 weights, not {lm.model.dtype}: load the model with that dtype"
        )
    for block in lm.blocks:
        for linear in lm.linears(block).values():
            linear.weight = torch.nn.Parameter(
                torch.sparse.to_sparse_semi_structured(linear.weight.detach()), requires_grad=False
            )
    return lm

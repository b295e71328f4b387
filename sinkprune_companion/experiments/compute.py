"""What a model costs: parameters, non-zero weights, bytes, FLOPs and time.

A multiply-add counts as two FLOPs. Effective FLOPs count a zero weight as skipped work; dense kernels do it.

Dimensions: B batch, T sequence length, N positions whose logits are needed, V vocabulary.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from sinkprune.memory import release_freed_memory
from sinkprune.models.shrinking import shrink
from sinkprune_core import LanguageModel, Recipe, Sampler, prune

PRODUCTS, EMBEDDINGS = "attention products", "embeddings and head"  # kinds of work and weights
ROUNDS = 9  # in which time is measured


@dataclass(frozen=True)
class ForwardCost:
    """FLOPs of one forward of one sequence, by part."""

    linears: float  # of the blocks, the only ones ever pruned
    attention: float  # products of queries with keys and of attention with values
    head: float

    @property
    def total(self) -> float:
        """The FLOPs of all parts."""
        return self.linears + self.attention + self.head

    def effective(self, sparsity: float) -> float:
        """Return the FLOPs that remain when zeros of the blocks' linears cost nothing."""
        return self.linears * (1 - sparsity) + self.attention + self.head


def forward_cost(lm: LanguageModel, length: int, positions: int) -> ForwardCost:
    """Return the FLOPs of a forward over `length` tokens with logits at `positions` of them, from shapes.

    Attention counts the full T x T products in both directions, as kernels without a causal shortcut do.
    """
    config = lm.model.config
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = config.num_attention_heads * head_width

    return ForwardCost(
        linears=2.0 * lm.prunable_weights * length,
        attention=float(len(lm.blocks) * 2 * 2 * length**2 * width),
        head=head_flops(lm, positions),
    )


def head_flops(lm: LanguageModel, positions: int) -> float:
    """Return the FLOPs of the logits at some positions."""
    return 2.0 * positions * lm.output_head.weight.numel()


@torch.inference_mode()
def counted_flops(lm: LanguageModel, ids_BT: torch.Tensor, where_BT: torch.Tensor) -> int:
    """Return what torch's FlopCounterMode counts in one real forward: the check of `forward_cost`."""
    former = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")  # as matrix products that the counter knows

    try:
        with FlopCounterMode(display=False) as counter:
            lm.logits_at(ids_BT, where_BT)
    finally:
        lm.model.set_attn_implementation(former)

    return counter.get_total_flops()


def generation_flops(lm: LanguageModel, length: int, prompt: int, steps: int, sparsity: float = 0.0) -> float:
    """Return the effective FLOPs of generating `length` tokens after `prompt` tokens in `steps` steps."""
    forward = forward_cost(lm, prompt + length, positions=1)
    masked = length

    total = 0.0
    for revealed in Sampler(length=length, steps=steps, block=None).reveals():
        total += replace(forward, head=masked * forward.head).effective(sparsity)
        masked -= revealed
    return total


def affordable_steps(cost: Callable[[int], float], budget: float, most: int) -> int:
    """Return the largest number of steps up to `most` whose `cost` is within `budget`, at least 1."""
    return max((steps for steps in range(1, most + 1) if cost(steps) <= budget), default=1)


def account(lm: LanguageModel, ids_BT: torch.Tensor, where_BT: torch.Tensor) -> pd.DataFrame:
    """Return one row per kind of module: parameters, non-zero weights, bytes as stored, FLOPs of a forward.

    Kinds are the parts of a block that hold linears (`self_attn linears`, `mlp linears`), PRODUCTS,
    EMBEDDINGS, `rest` and `total`. `flops` come from shapes; `counted_flops`, of the total, from torch's own
    counter. The forward has ids (B, T) and logits where `where_BT` is true.
    """
    linears = lm.all_linears().items()
    kind_of = {linear.weight: f"{name.split('.')[0]} linears" for (_, name), linear in linears}
    prunable = list(dict.fromkeys(kind_of.values()))

    for part in (lm.model.get_input_embeddings(), lm.model.get_output_embeddings()):
        kind_of[part.weight] = EMBEDDINGS

    counted = []
    for parameter in lm.model.parameters():
        kind, nonzero = kind_of.get(parameter, "rest"), int(parameter.count_nonzero())
        counted.append((kind, parameter.numel(), nonzero, parameter.nbytes))

    table = pd.DataFrame(counted, columns=["kind", "parameters", "nonzero", "bytes"])
    kinds = pd.Index([*prunable, PRODUCTS, EMBEDDINGS, "rest"], name="kind")
    table = table.groupby("kind").sum().reindex(kinds, fill_value=0)
    rows, length = ids_BT.shape
    table["flops"] = 2.0 * rows * length * table.parameters
    table.loc[PRODUCTS, "flops"] = rows * forward_cost(lm, length, 0).attention
    table.loc[EMBEDDINGS, "flops"] = head_flops(lm, int(where_BT.sum()))
    table.loc["rest", "flops"] = 0.0
    remaining = (table.nonzero / table.parameters).where(table.index.isin(prunable), 1.0)
    table["effective_flops"] = table.flops * remaining
    table.loc["total"] = table.sum()

    return table.assign(counted_flops=pd.Series({"total": float(counted_flops(lm, ids_BT, where_BT))}))


def cost_models(lm: LanguageModel, recipes: dict[str, Recipe]) -> Iterator[tuple[str, LanguageModel]]:
    """Yield copies of a model on its device, pruned by recipes that need no text, the last recipe's first.

    A structured recipe's smaller model is for a moment beside the full copy: as the last it finds room.
    """
    embeddings = lm.model.get_input_embeddings()
    for name, recipe in reversed(recipes.items()):
        copied = copy.deepcopy(lm.model, {id(embeddings.weight): embeddings.weight})
        pruned = replace(lm, model=copied)

        report = prune(pruned, recipe, progress=False)
        if report.kept_units:
            pruned = shrink(pruned, report.kept_units)
            pruned.model.set_input_embeddings(embeddings)
            pruned.model.tie_weights()

        del copied
        release_freed_memory()  # of the full copy that was shrunk, and of what the caller has let go of
        yield name, pruned
        del pruned  # before the next copy is made


@torch.inference_mode()
def latency(models: dict[str, LanguageModel], ids_BT: torch.Tensor, where_BT: torch.Tensor) -> pd.DataFrame:
    """Return the seconds of one denoising step of every model: columns `variant`, `round`, `seconds`.

    A step is a forward over ids (B, T) with logits where `where_BT` is true. Compare within a round.
    """
    table = []
    for number in range(-1, ROUNDS):  # round -1 is the warm-up
        for name, lm in models.items():  # in turns, since the speed of a machine drifts
            started = time.perf_counter()
            logits_NV = lm.logits_at(ids_BT, where_BT)
            float(logits_NV[0, 0])  # waits for a device
            seconds = time.perf_counter() - started
            del logits_NV  # or they would be held beside those of the next model
            if number >= 0:
                table.append({"variant": name, "round": number, "seconds": seconds})

    return pd.DataFrame(table)

"""Which rows and columns a unit owns by the definition of attention, and what its linears receive.

Dimensions: B batch, T position, N tokens, I input features.
"""

import naive
import torch

from sinkprune_core.calibration.input_statistics import InputStatistics
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.structured import mask, removable

FAMILIES = ["llama-gqa", "llama-mha", "llama-biased", "qwen2", "qwen3", "gpt2-wide"]
COMPENSATED = ["llama-gqa", "llama-mha", "llama-biased", "gpt2-wide"]
RNG = torch.Generator().manual_seed(4)
WEIGHT_N = torch.rand(3 * 11, generator=RNG, dtype=torch.float64).round(decimals=1)  # some are 0


def owned(lm, kind: str, unit: int) -> dict[str, tuple[set[int], set[int]]]:
    """Return the rows and the columns that a unit owns, by linear, head by head as attention pairs them."""
    if kind == "mlp":
        if lm.model.config.model_type == "gpt2":
            return {"mlp.c_fc": ({unit}, set()), "mlp.c_proj": (set(), {unit})}
        return {
            "mlp.gate_proj": ({unit}, set()),
            "mlp.up_proj": ({unit}, set()),
            "mlp.down_proj": (set(), {unit}),
        }

    attention = lm.blocks[0].self_attn
    width = attention.head_dim
    heads = range(lm.model.config.num_attention_heads)

    queries = [head for head in heads if head // attention.num_key_value_groups == unit]
    of_queries = {head * width + place for head in queries for place in range(width)}
    of_keys = {unit * width + place for place in range(width)}

    return {
        "self_attn.q_proj": (of_queries, set()),
        "self_attn.k_proj": (of_keys, set()),
        "self_attn.v_proj": (of_keys, set()),
        "self_attn.o_proj": (set(), of_queries),
    }


def counts(lm) -> dict[str, int]:
    return {kind: units.count(lm.model.config) for kind, units in removable(lm).items()}


def inputs_of(lm, layer: int, ids_BT) -> dict[str, torch.Tensor]:
    """Return what every linear of a block receives in a full forward, float64 (tokens, I)."""
    inputs = naive.inputs_of(lm, ids_BT)
    return {name: torch.from_numpy(inputs[at, name]).flatten(0, 1) for at, name in inputs if at == layer}


def statistics_of(lm, layer: int, ids_BT, weight_N) -> dict[str, InputStatistics]:
    found = {}

    for name, input_NI in inputs_of(lm, layer, ids_BT).items():
        count = weight_N.square().sum()
        share_N = weight_N.square() / count
        norm_I = (weight_N[:, None] * input_NI).square().sum(0).sqrt()
        mean_I = share_N @ input_NI
        variance_I = share_N @ (input_NI - mean_I).square()

        found[name] = InputStatistics(
            norm_I=norm_I.float(),
            summed_I=norm_I.float(),
            mean_I=mean_I.float(),
            variance_I=variance_I.float(),
        )

    return found


def some_kept(lm, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Return a different choice of units for every block: one group and about half of the channels leave."""
    rng = torch.Generator().manual_seed(seed)
    kept = []

    for _ in lm.blocks:
        kept_of_block = {}
        for kind, count in counts(lm).items():
            stay = count - 1 if kind == "attention" else count // 2
            kept_of_block[kind] = torch.randperm(count, generator=rng)[:stay].sort().values

        kept.append(kept_of_block)
    return kept


def masked(lm, kept, compensate=None) -> LanguageModel:
    for layer, block in enumerate(lm.blocks):
        mask(lm, block, kept[layer], compensate and compensate[layer])
    return lm


def logits(lm, ids_BT) -> torch.Tensor:
    return lm.model(ids_BT, use_cache=False).logits

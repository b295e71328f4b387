"""Recipes that leave stable, unstable or other tokens out of the statistics, and nothing else differently.

Dimensions: N sequences, S steps, T tokens.
"""

import torch

from sinkprune_core import Recipe
from sinkprune_core.calibration.token_weights import SinkContext, as_many_at_random


def random_stable(context: SinkContext) -> torch.Tensor:
    """Return as many visible tokens in every step as there are stable sinks, drawn at random, (N, S, T)."""
    stable_NST, _ = context.split_sinks()
    return as_many_at_random(context, stable_NST, "as many random tokens as stable sinks")


# what leaves the statistics, by its name in tables
LEFT_OUT = {name: name for name in ("none", "unstable", "stable", "all", "random")}
LEFT_OUT["random, as many as stable"] = random_stable


def recipes(sparsity: float, noise_levels: int, **settings: object) -> dict[str, Recipe]:
    """Return Wanda on noised text with dense propagation for every choice of LEFT_OUT."""
    common = {"inputs": "noised", "propagation": "dense", "noise_levels": noise_levels, **settings}
    return {name: Recipe(sparsity=sparsity, exclude=choice, **common) for name, choice in LEFT_OUT.items()}

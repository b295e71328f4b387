"""Recipes that leave stable, unstable or other tokens out of the statistics, and differ in nothing else; and
losses of the models that they prune.

Dimensions: N sequences, S steps, T tokens.
"""

from collections.abc import Iterable, Mapping

import pandas as pd
import torch

from sinkprune_companion.experiments.pruning_grid import row_of
from sinkprune_companion.experiments.variants import SharedStatistics, Variant, losses_on, measured
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core import Calibration, LanguageModel, Recipe
from sinkprune_core.calibration.token_weights import SinkContext, as_many_at_random
from sinkprune_core.pruning.recipe import compared_preset


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


RecipesByShare = Mapping[float, Mapping[str, Recipe]]  # of `recipes`, by sparsity


def draw_of(
    lm: LanguageModel, recipes_of: RecipesByShare, sequences: int, length: int, seed: int
) -> tuple[Calibration, SharedStatistics]:
    """Return one calibration draw and what all recipes share on it."""
    text = calibration_draw(lm, sequences, length, seed)
    every = [recipe for by_name in recipes_of.values() for recipe in by_name.values()]
    return text, SharedStatistics(lm, every, text)


def losses(
    run: Run,
    lm: LanguageModel,
    recipes_of: RecipesByShare,
    text: Calibration,
    shared: SharedStatistics,
    texts: dict[str, torch.Tensor],
    seed: int,
) -> pd.DataFrame:
    """Return the losses of the dense model, at `share` 0, and of one pruned by every recipe."""
    fingerprint = lm.fingerprint()
    with Variant(lm, fingerprint) as dense:
        frame = dense.scores(run, texts, 1, noise=seed, variant="dense", seed=seed)

    frames = [frame.assign(share=0.0)]

    for share, by_name in recipes_of.items():
        for left_out, recipe in by_name.items():
            with Variant(lm, fingerprint, recipe, text, shared) as variant:
                frame = variant.scores(run, texts, 1, noise=seed, variant=left_out, seed=seed)
            frames.append(frame.assign(share=share))

    return pd.concat(frames, ignore_index=True)


def twin_losses(
    run: Run,
    lm: LanguageModel,
    sparsity: float,
    sink_std: float,
    sequences: int,
    length: int,
    texts: dict[str, torch.Tensor],
    seeds: Iterable[int],
) -> pd.DataFrame:
    """Return the losses of an autoregressive model, dense and pruned by Wanda without some tokens."""
    rows = []
    for tokens in ("none", "all", "random"):
        recipe = compared_preset("wanda", sparsity=sparsity, exclude=tokens, sink_std=sink_std)
        rows.append(row_of(tokens, recipe, sequences))

    return measured(losses_on(run, texts, own_noise=False), lm, lm.fingerprint(), rows, length, seeds)

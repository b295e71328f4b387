"""Prune, measure, undo: what the notebooks repeat for every recipe, calibration draw and number of steps.

Dimensions: N sequences, T tokens per sequence, O output features, I input features.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from . import corpus
from .calibration import Calibration, Look
from .criteria import CRITERIA
from .evaluation import nelbo, nll
from .models import LanguageModel, weight_OI
from .pruning import DenseStatistics, Recipe, dense_statistics, prune, weights_kept
from .results import Run

EVALUATION_SEED = 0  # the same noise for every variant of a model: differences are paired


def calibration_draw(lm: LanguageModel, sequences: int, length: int, seed: int) -> Calibration:
    """Return calibration text from the training split: half samples of smol-ar, half documentation, drawn by `seed`."""
    ids_NT = torch.cat(list(corpus.texts(lm.tokenizer, sequences, length, held_out=False, seed=seed).values()))
    return Calibration(ids_NT, seed)


class SharedStatistics:
    """The statistics of all recipes with dense propagation on one calibration draw, taken once, when first asked for."""

    def __init__(self, lm: LanguageModel, recipes: Iterable[Recipe], calibration: Calibration):
        self.lm, self.calibration = lm, calibration
        self.recipes = [recipe for recipe in recipes if self.shared(recipe)]
        self._found: dict[Look, DenseStatistics] | None = None

    @staticmethod
    def shared(recipe: Recipe) -> bool:
        """Return whether a recipe's statistics are norms of the dense model's inputs, which others can share."""
        return recipe.propagation == "dense" and CRITERIA[recipe.criterion].needs in ("norms", "moments")

    def of(self, recipe: Recipe) -> DenseStatistics | None:
        """Return the statistics of one recipe, None where they are its own or it was not announced. The model must be dense at this moment."""
        if not self.shared(recipe) or recipe.looks_at not in {each.looks_at for each in self.recipes}:
            return None
        if self._found is None:
            self._found = dense_statistics(self.lm, self.recipes, self.calibration)
        return self._found[recipe.looks_at]


def score_texts(lm: LanguageModel, texts: dict[str, torch.Tensor], draws: int, steps: Sequence[int | None] = (None,), batch: int = 32) -> pd.DataFrame:
    """Return nats per token of every sequence: columns `sequence` (numbered through), `text` (its source), `steps`, `value`.

    A diffusion model's value is its NELBO, or the bound for generation in so many `steps`; an autoregressive model's is
    exact and knows no steps. `steps` is 0 where it is None.
    """
    ids_NT = torch.cat(list(texts.values()))
    source = [name for name, ids in texts.items() for _ in range(len(ids))]
    parts = []
    for count in steps if lm.is_diffusion else (None,):
        if lm.is_diffusion:
            frame = nelbo(lm, ids_NT, draws, EVALUATION_SEED, batch, steps=count, progress=True).groupby("sequence", as_index=False).value.mean()
        else:
            frame = nll(lm, ids_NT, batch, progress=True)
        parts.append(frame.assign(text=source, steps=count or 0))
    return pd.concat(parts, ignore_index=True)


def variant_scores(run: Run, lm: LanguageModel, fingerprint: str, recipe: Recipe | None, calibration: Calibration | None, texts: dict[str, torch.Tensor], draws: int, steps: Sequence[int | None] = (None,), shared: SharedStatistics | None = None, **labels: object) -> pd.DataFrame:
    """Return the record of one variant of `lm`, pruned by `recipe` or dense (None); its weights come back afterwards.

    Columns are those of `score_texts` and `labels`, and what pruning reported: `zeros`, their share in the block linears,
    `calibration_tokens`, `left_out_share`, `prune_seconds`. `fingerprint` is that of the dense model; `shared` holds statistics of `calibration` for several recipes.
    """
    data = hashlib.sha256(b"".join(name.encode() + ids.numpy().tobytes() for name, ids in texts.items())).hexdigest()[:16]
    drawn = calibration and calibration.fingerprint

    def compute() -> pd.DataFrame:
        with weights_kept(lm):
            report = prune(lm, recipe, calibration, statistics=shared and shared.of(recipe)) if recipe else None
            scores = score_texts(lm, texts, draws, steps)
        cost = {"calibration_tokens": report.calibration_tokens, "left_out_share": report.left_out_share, "prune_seconds": report.seconds} if report else {"calibration_tokens": 0, "left_out_share": 0.0, "prune_seconds": 0.0}
        return scores.assign(zeros=report.sparsity if report else 0.0, **cost)

    return run.record("scores", compute, **labels, model=lm.name, fingerprint=fingerprint, recipe=recipe, calibration=drawn, data=data, draws=draws, steps_measured=list(steps), evaluation_seed=EVALUATION_SEED)


# where methods prune differently


def kept_masks(lm: LanguageModel, recipe: Recipe, calibration: Calibration | None, shared: SharedStatistics | None = None) -> dict[tuple[int, str], np.ndarray]:
    """Return which weights are not zero after pruning by `recipe`, packed bits of (O, I) by layer and linear; weights come back."""
    with weights_kept(lm):
        prune(lm, recipe, calibration, progress=False, statistics=shared and shared.of(recipe))
        return {(layer, name): np.packbits((weight_OI(linear) != 0).cpu().numpy()) for layer, block in enumerate(lm.blocks) for name, linear in lm.linears(block).items()}


def mask_differences(lm: LanguageModel, variants: dict[str, tuple[Recipe, Calibration | None, SharedStatistics | None]], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return the share of kept weights that differ between two masks, for every pair, layer and linear.

    Columns `one`, `other`, `layer`, `linear`, `differ` = 1 - (kept by both) / (mean number kept): 0 for equal masks, 1 for
    masks that keep nothing in common; two random masks of sparsity s have s. `variants` maps names to a recipe, its
    calibration text and the statistics it shares with others. Raises ValueError for a pair that names no variant.
    """
    if unknown := {name for pair in pairs for name in pair} - set(variants):
        raise ValueError(f"pairs name {sorted(unknown)}, which are no variants: give them, or pairs of {', '.join(variants)}")
    masks = {name: kept_masks(lm, *variants[name]) for name in dict.fromkeys(name for pair in pairs for name in pair)}
    rows = []
    for one, other in pairs:
        for (layer, name), bits in masks[one].items():
            both, *kept = (int(np.bitwise_count(each).sum()) for each in (bits & masks[other][layer, name], bits, masks[other][layer, name]))
            rows.append({"one": one, "other": other, "layer": layer, "linear": name, "differ": 1 - 2 * both / sum(kept)})
    return pd.DataFrame(rows)

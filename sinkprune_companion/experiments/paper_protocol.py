"""The paper's protocol: calibrate on WikiText-2, score on articles that calibration has not seen.

Every recipe sees as many calibration tokens. A noised recipe sees a sequence at several noise levels, so it
gets fewer sequences than one that sees clean text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from sinkprune_companion.experiments.pruning_grid import UNSTRUCTURED, GridRow
from sinkprune_companion.experiments.variants import Variant, draw_for, variant_answers
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw, protocol_texts
from sinkprune_core import LanguageModel, Recipe, preset

LENGTH = 128  # tokens of a sequence
NOISE_LEVELS = 8  # of an even grid; official recipes have their own ten

RECIPES = (
    "wanda",
    "paper",
    "paper-no-sinks",
    "noised-dense",
    "all-sinks",
    "unstable",
    "random",
    "sparsegpt",
    "paper-sparsegpt",
    "recommended",
)
AT_25 = ("wanda", "paper", "paper-no-sinks", "sparsegpt", "paper-sparsegpt")
LARGE = ("wanda", "paper", "paper-no-sinks")  # on eight times the text, too
STRUCTURED = ("structured", "structured-sink", "structured-no-sinks")
ANSWERING = ("wanda", "paper", "paper-no-sinks", "unstable", "noised-dense", "sparsegpt", "paper-sparsegpt")


def seen_levels(recipe: Recipe) -> int:
    """Return at how many noise levels a recipe sees every calibration sequence."""
    return recipe.noise_levels if recipe.inputs == "noised" else 1


def protocol_recipe(name: str, sparsity: float) -> Recipe:
    """Return a preset at a sparsity, with NOISE_LEVELS levels where the preset has an even grid of them."""
    recipe = preset(name, sparsity=sparsity)
    if recipe.noise == "grid":
        recipe = replace(recipe, noise_levels=NOISE_LEVELS)
    return recipe


def protocol_rows(
    names: Iterable[str], sparsity: float, draws: int, tokens: int, pattern: str = UNSTRUCTURED
) -> list[GridRow]:
    """Return the rows of presets at one sparsity, all on about `tokens` calibration tokens.

    `pattern` is what tables call it; a preset for whole units has that pattern itself.
    """
    rows = []
    for name in names:
        recipe = protocol_recipe(name, sparsity)
        sequences = max(1, tokens // (LENGTH * seen_levels(recipe)))
        rows.append(GridRow(name, pattern, sparsity, recipe, sequences, draws))
    return rows


def dense_losses(
    run: Run, lm: LanguageModel, fingerprint: str, sequences: int, seeds: Iterable[int]
) -> pd.DataFrame:
    """Return the dense model's NELBO of every scored sequence, under the noise of every calibration draw."""
    texts = protocol_texts(lm.tokenizer, sequences, LENGTH)
    labels = {"variant": "dense", "pattern": "dense", "sparsity": 0.0}
    parts = []
    for seed in seeds:
        with Variant(lm, fingerprint) as variant:
            parts.append(variant.scores(run, texts, 1, noise=seed, **labels, seed=seed))
    return pd.concat(parts, ignore_index=True)


def losses_of_draw(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    rows: Sequence[GridRow],
    sequences: int,
    seed: int,
    asked: dict[str, int] | None = None,
    item_draws: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the NELBO of models pruned on one calibration draw, and their answers where items are `asked`.

    Each draw has noise of its own, which all of its models and the dense one share. Models that see the same
    states of the same text share the pass that takes their statistics.
    """
    texts = protocol_texts(lm.tokenizer, sequences, LENGTH)
    drawn = draw_for(lm, [(row.recipe, row.sequences) for row in rows], LENGTH, seed, protocol_draw)

    losses = []
    answers = []
    for row in rows:
        labels = {**row.labels, "seed": seed}
        with Variant(lm, fingerprint, row.recipe, *drawn[row.sequences]) as variant:
            losses.append(variant.scores(run, texts, 1, noise=seed, **labels))
            if asked:
                answers.append(variant_answers(run, variant, asked, item_draws, **labels))

    answered = pd.concat(answers, ignore_index=True) if answers else None
    return pd.concat(losses, ignore_index=True), answered

"""Which variants of a model notebook 03 prunes, on how much text and how often, and which it compares."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_companion.experiments.scoring import EVALUATION_SEED
from sinkprune_companion.experiments.variant_answers import variant_answers
from sinkprune_companion.experiments.variants import SharedStatistics, Variant
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.pruning.recipe import Recipe, preset

SPARSITY = 0.5  # at which verdicts are read
UNSTRUCTURED = "unstructured"
STRUCTURED = "structured"
UNMATCHED = "wanda-unmatched"  # Wanda on as many sequences as noised recipes, and so on fewer tokens
HEADLINE = (
    "wanda",
    UNMATCHED,
    "noised-dense",
    "paper",
    "paper-no-sinks",
    "all-sinks",
    "unstable",
    "random",
    "sparsegpt",
    "paper-sparsegpt",
)  # at SPARSITY, on all calibration draws
CONTROLS = ("magnitude", "dwanda", "stable", "only-sinks", "sparsegpt-unstable")  # at SPARSITY, on some
CURVE = (
    "magnitude",
    "wanda",
    UNMATCHED,
    "noised-dense",
    "paper",
    "all-sinks",
    "unstable",
    "sparsegpt",
    "paper-sparsegpt",
)  # at other sparsities and in N:M patterns
UNITS = ("structured-magnitude", "structured", "flap", "structured-sink", "structured-no-sinks")
ANSWERING = (
    "wanda",
    "noised-dense",
    "all-sinks",
    "paper",
    "unstable",
    "sparsegpt",
    "paper-sparsegpt",
)  # recipes whose models answer two-choice items, besides the dense one


@dataclass(frozen=True)
class GridCell:
    """One variant of a model: how it is pruned, on how many sequences, and in how many calibration draws."""

    pattern: str  # UNSTRUCTURED, N:M or STRUCTURED
    sparsity: float
    name: str  # of the variant
    recipe: Recipe
    sequences: int  # of calibration text
    draws: int  # calibration draws, the first ones
    answer_draws: int = 0  # in how many of them the model also answers two-choice items

    @property
    def labels(self) -> dict[str, object]:
        """The columns that name it in tables of scores."""
        return {"variant": self.name, "pattern": self.pattern, "sparsity": self.sparsity}


@dataclass(frozen=True)
class GridSize:
    """How much text and how many draws a grid takes."""

    calibration: int  # sequences of noised recipes
    noise_levels: int  # in which they see each sequence
    headline_draws: int
    other_draws: int  # of controls and other sparsities
    pattern_draws: int  # of N:M and structured pruning
    answer_draws: int

    def sequences(self, recipe: Recipe) -> int:
        """Return how many sequences a recipe is calibrated on.

        Clean baselines get as many tokens as noised recipes see in all their noise levels. SparseGPT is
        compared with recipes on clean text alone, among them UNMATCHED, and gets as many sequences.
        """
        if recipe.inputs == "clean" and recipe.criterion != "sparsegpt":
            return self.calibration * self.noise_levels
        return self.calibration


def grid_cells(
    size: GridSize,
    sparsities: Sequence[float],
    answer_sparsities: Sequence[float],
    patterns: Sequence[str],
    ratios: Sequence[float],
    chosen: Sequence[str] | None = None,
    **settings: object,
) -> list[GridCell]:
    """Return the variants of the diffusion model; `chosen` names the presets to keep (None: all).

    `settings` are fields of every recipe. All take `size.noise_levels`, where the official code has ten, so
    that all noised recipes see as many tokens.
    """
    settings = {"noise_levels": size.noise_levels, **settings}
    cells = []
    for share in sparsities:
        names = (*HEADLINE, *CONTROLS) if share == SPARSITY else CURVE
        for name in names:
            is_headline = share == SPARSITY and name in HEADLINE
            draws = size.headline_draws if is_headline else size.other_draws
            answers = size.answer_draws if name in ANSWERING and share in answer_sparsities else 0
            cells.append(_cell(size, UNSTRUCTURED, share, name, max(draws, answers), settings, answers))
    for share in answer_sparsities:
        if share not in sparsities:
            cells += [
                _cell(size, UNSTRUCTURED, share, name, size.answer_draws, settings, size.answer_draws)
                for name in ANSWERING
            ]
    for pattern in patterns:
        zeros, group = n_and_m(pattern)
        cells += [_cell(size, pattern, zeros / group, name, size.pattern_draws, settings) for name in CURVE]
    for ratio in ratios:
        cells += [_cell(size, STRUCTURED, ratio, name, size.pattern_draws, settings) for name in UNITS]
    return [cell for cell in cells if chosen is None or _preset_of(cell.name) in chosen]


def _preset_of(name: str) -> str:
    return "wanda" if name == UNMATCHED else name


def _cell(
    size: GridSize,
    pattern: str,
    share: float,
    name: str,
    draws: int,
    settings: dict[str, object],
    answers: int = 0,
) -> GridCell:
    changes = {"sparsity": share, **settings}
    if n_and_m(pattern):
        changes["pattern"] = pattern
    recipe = preset(_preset_of(name), **changes)
    sequences = size.calibration if name == UNMATCHED else size.sequences(recipe)
    return GridCell(pattern, share, name, recipe, sequences, draws, answers)


def twin_cells(size: GridSize, sparsities: Sequence[float], **settings: object) -> list[GridCell]:
    """Return the variants of the autoregressive twin: Wanda on clean text with and without its sinks."""
    cells = []
    for share in sparsities:
        for tokens in ("none", "all", "random"):
            recipe = Recipe(sparsity=share, exclude=tokens, noise_levels=size.noise_levels, **settings)
            name = f"wanda, {tokens}"
            cells.append(GridCell(UNSTRUCTURED, share, name, recipe, size.calibration, size.other_draws))
    return cells


@dataclass(frozen=True)
class Measures:
    """What every variant of a grid is asked: its loss on texts and, where it answers, two-choice items."""

    texts: dict[str, torch.Tensor]  # held-out ids, int64 (N, T), by domain and start
    draws: int  # noise draws per sequence
    items: dict[str, int]  # how many, by benchmark; see `variant_answers`
    item_draws: int  # maskings of an ending
    own_noise: bool = False  # for every calibration draw, with its number as seed; else one for all draws

    def noise(self, seed: int) -> int:
        """Return the seed of the noise under which the variants of a calibration draw are scored."""
        return seed if self.own_noise else EVALUATION_SEED


def measure_grid(
    run: Run, lm: LanguageModel, cells: Iterable[GridCell], measures: Measures, seeds: Iterable[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scores and answers of the dense model and of all variants, a record each.

    `seeds` are numbers of calibration draws. Variants of one draw share the statistics that they can. One
    that looks at no text is measured once; the dense model is, too, and once under the noise of every draw
    that has its own. Columns of scores are those of
    `Variant.scores`, of answers those of `variant_answers`, with `variant`, `pattern`, `sparsity` and `seed`.
    """
    cells, seeds = list(cells), list(seeds)
    fingerprint = lm.fingerprint()
    length = next(iter(measures.texts.values())).shape[1]
    uncalibrated = [cell for cell in cells if not CRITERIA[cell.recipe.criterion].calibrated]
    if not lm.is_diffusion:
        measures = replace(measures, own_noise=False)  # an exact likelihood knows no noise
    found = []
    for noise in dict.fromkeys([EVALUATION_SEED, *map(measures.noise, seeds)]):
        dense = {"variant": "dense", "pattern": "dense", "sparsity": 0.0, "seed": noise}
        answers = noise == EVALUATION_SEED and any(cell.answer_draws for cell in cells)
        found.append(_measured(run, Variant(lm, fingerprint), measures, dense, answers))
    for cell in uncalibrated:
        variant = Variant(lm, fingerprint, cell.recipe)
        labels = {**cell.labels, "seed": EVALUATION_SEED}
        found.append(_measured(run, variant, measures, labels, False))
    for seed in tqdm(seeds, desc=f"calibration draws of {lm.name}"):
        todo = [cell for cell in cells if CRITERIA[cell.recipe.criterion].calibrated and seed < cell.draws]
        texts = _shared_texts(lm, todo, length, seed)
        for cell in tqdm(todo, desc="prune and measure", unit="variant", leave=False):
            text, shared = texts[cell.sequences]
            variant = Variant(lm, fingerprint, cell.recipe, text, shared)
            labels = {**cell.labels, "seed": seed}
            found.append(_measured(run, variant, measures, labels, seed < cell.answer_draws))
    scores = pd.concat([each for each, _ in found], ignore_index=True)
    answers = [each for _, parts in found for each in parts]
    return scores, pd.concat(answers, ignore_index=True) if answers else pd.DataFrame()


def _shared_texts(
    lm: LanguageModel, cells: Sequence[GridCell], length: int, seed: int
) -> dict[int, tuple[Calibration, SharedStatistics]]:
    """Return calibration text and the statistics of it that recipes share, by number of sequences."""
    found = {}
    for count in dict.fromkeys(cell.sequences for cell in cells):
        text = calibration_draw(lm, count, length, seed)
        recipes = [cell.recipe for cell in cells if cell.sequences == count]
        found[count] = (text, SharedStatistics(lm, recipes, text))
    return found


def _measured(
    run: Run, variant: Variant, measures: Measures, labels: dict[str, object], answers: bool
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Return a variant's scores, and its answers to every benchmark where it is asked for them."""
    asked = measures.items if answers else {}
    with variant:
        noise = measures.noise(labels["seed"])
        scores = variant.scores(run, measures.texts, measures.draws, noise=noise, **labels)
        found = []
        for benchmark, items in asked.items():
            found.append(variant_answers(run, variant, benchmark, items, measures.item_draws, **labels))
    return scores, found

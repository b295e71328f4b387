"""Variants of a model, dense or pruned: prune, score, ask, and put the weights back.

Dimensions: N sequences, T tokens per sequence.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune.evaluation import suite, two_choice
from sinkprune.evaluation.local_data import embedded_blimp
from sinkprune.evaluation.text_scores import EVALUATION_SEED, score_texts
from sinkprune.memory import release_freed_memory
from sinkprune_companion.experiments.pruning_grid import DENSE, GridRow
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core import Calibration, LanguageModel, Recipe, Report, prune, weights_kept
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.calibration.token_weights import StatisticsKey
from sinkprune_core.pruning.engine import dense_statistics
from sinkprune_core.values import check_choice

SCORES_REVISION = 1  # of `Variant.scores`
ANSWERS_REVISION = 1  # of `variant_answers`
REPORTED = ("zeros", "calibration_tokens", "left_out_share", "prune_seconds")
BENCHMARKS = ("suite", "blimp")


def fingerprint_of(texts: dict[str, torch.Tensor]) -> str:
    """Return a SHA-256 prefix of texts and their names."""
    named = b"".join(name.encode() + ids.numpy().tobytes() for name, ids in texts.items())
    return hashlib.sha256(named).hexdigest()[:16]


@dataclass(eq=False)
class SharedStatistics:
    """Statistics of all recipes with dense propagation on one calibration draw, taken once, when needed."""

    lm: LanguageModel
    recipes: Collection[Recipe]
    calibration: Calibration | None

    def of(self, recipe: Recipe) -> DenseStatistics | None:
        """Return the statistics of one of the recipes, None where they are its own; `lm` must be dense."""
        return self._by_key[recipe.statistics_key] if _can_share(recipe) else None

    @cached_property
    def _by_key(self) -> dict[StatisticsKey, DenseStatistics]:
        return dense_statistics(self.lm, list(filter(_can_share, self.recipes)), self.calibration)


def _can_share(recipe: Recipe) -> bool:
    """Return whether a recipe needs norms of the dense model's inputs."""
    return recipe.propagation == "dense" and recipe.rule.needs in ("norms", "moments")


def draw_for(
    lm: LanguageModel,
    sequences: Iterable[tuple[Recipe, int]],
    length: int,
    seed: int,
    draw: Callable[[LanguageModel, int, int, int], Calibration] = calibration_draw,
) -> dict[int, tuple[Calibration, SharedStatistics]]:
    """Return one calibration draw by the numbers of sequences that recipes take, with what they share.

    `draw` gives the text: so many sequences, of a length, by a seed.
    """
    recipes_by_count = defaultdict(list)
    for recipe, count in sequences:
        recipes_by_count[count].append(recipe)

    drawn = {}
    for count, recipes in recipes_by_count.items():
        text = draw(lm, count, length, seed)
        drawn[count] = (text, SharedStatistics(lm, recipes, text))

    return drawn


@dataclass(eq=False)
class Variant:
    """One variant of a model, dense (no recipe) or pruned, while a `with` block runs.

    It is pruned when something that is not on record is first asked for, and at most once; its weights come
    back at the end of the block. `fingerprint` is that of the dense model.
    """

    lm: LanguageModel
    fingerprint: str
    recipe: Recipe | None = None
    calibration: Calibration | None = None
    shared: SharedStatistics | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _report: Report | None = None

    def __enter__(self) -> "Variant":
        return self

    def __exit__(self, *error: object) -> None:
        self._report = None
        self._stack.close()

    @property
    def key(self) -> dict[str, object]:
        """What tells this variant from others in the key of a record."""
        calibration = self.calibration and self.calibration.fingerprint
        of_model = {"model": self.lm.name, "fingerprint": self.fingerprint}
        return {**of_model, "recipe": self.recipe, "calibration": calibration}

    def ready(self) -> Report | None:
        """Prune the model unless that was done, and return what pruning reported; None for a dense model."""
        if self.recipe is not None and self._report is None:
            shared = self.shared or SharedStatistics(self.lm, [self.recipe], self.calibration)
            statistics = shared.of(self.recipe)  # needs more memory than a copy of the weights
            release_freed_memory()  # or the copy would come on top of what taking them needed
            self._stack.enter_context(weights_kept(self.lm))
            self._report = prune(self.lm, self.recipe, self.calibration, statistics=statistics)

        return self._report

    def scores(
        self,
        run: Run,
        texts: dict[str, torch.Tensor],
        draws: int,
        steps: Sequence[int | None] = (None,),
        noise: int = EVALUATION_SEED,
        **labels: object,
    ) -> pd.DataFrame:
        """Return the record of this variant's nats per token, under the noise with seed `noise`.

        Columns are those of `score_texts`, `labels`, and what pruning reported: `zeros`, their share in the
        block linears; `calibration_tokens`, `left_out_share` and `prune_seconds`, all 0 for a dense model.
        """

        def compute() -> pd.DataFrame:
            report = self.ready()
            reported = (0.0, 0, 0.0, 0.0)
            if report:
                reported = (report.sparsity, report.calibration_tokens, report.left_out_share, report.seconds)

            scores = score_texts(self.lm, texts, draws, steps, seed=noise)
            return scores.assign(**dict(zip(REPORTED, reported, strict=True)))

        key = {**self.key, "data": fingerprint_of(texts), "draws": draws, "steps_measured": list(steps)}
        key |= {"first_scored": 1, "evaluation_seed": noise}  # all of a sequence counts
        return run.record("scores", compute, SCORES_REVISION, labels, **key)


# variants of all rows of a grid, draw by draw

Measure = Callable[[Variant, dict[str, object]], pd.DataFrame]  # of a variant and the labels of its row


def measured(
    measure: Measure,
    lm: LanguageModel,
    fingerprint: str,
    rows: Sequence[GridRow],
    length: int,
    seeds: Iterable[int],
    draw: Callable[[LanguageModel, int, int, int], Calibration] = calibration_draw,
    kind: type[Variant] = Variant,
    dense_once: bool = False,
) -> pd.DataFrame:
    """Return what `measure` gives of the dense model and of one pruned by every row, on calibration draws.

    A row is measured in its first `draws`. Labels have the number of the draw as `seed`. Models of a draw
    that see the same states of the same text share the pass that takes their statistics. With `dense_once`
    the dense model is measured once, as of draw 0, and not with every draw.
    """
    dense = (DENSE, kind(lm, fingerprint))
    frames = [measure(dense[1], DENSE | {"seed": 0})] if dense_once else []

    for seed in tqdm(seeds, desc="calibration draws", leave=False):
        in_draw = [row for row in rows if row.draws is None or seed < row.draws]
        drawn = draw_for(lm, [(row.recipe, row.sequences) for row in in_draw], length, seed, draw)

        variants = [(row.labels, kind(lm, fingerprint, row.recipe, *drawn[row.sequences])) for row in in_draw]
        if not dense_once:
            variants = [dense, *variants]

        for labels, variant in tqdm(variants, desc="prune and measure", unit="variant", leave=False):
            with variant:
                frames.append(measure(variant, labels | {"seed": seed}))

    return pd.concat(frames, ignore_index=True)


def losses_on(run: Run, texts: dict[str, torch.Tensor], own_noise: bool = True) -> Measure:
    """Return what scores a variant once on every text: under noise of its draw, or under one of all draws."""

    def measure(variant: Variant, labels: dict[str, object]) -> pd.DataFrame:
        return variant.scores(run, texts, 1, noise=labels["seed"] if own_noise else 0, **labels)

    return measure


def variant_answers(
    run: Run, variant: Variant, questions: dict[str, int], draws: int, /, **labels: object
) -> pd.DataFrame:
    """Return a variant's answers to items of BENCHMARKS, a record each; `questions` says how many of which.

    These are about so many items of the offline suite, or the first so many minimal pairs of each BLiMP
    paradigm. Columns are those of `two_choice.accuracy`, `benchmark`, `labels`, and `calibration_tokens`, 0
    for a dense model. Maskings depend on the item alone. Raises ValueError for another benchmark.
    """
    parts = []
    for benchmark, items in questions.items():
        check_choice("benchmark", benchmark, BENCHMARKS)
        if benchmark == "suite":
            asked = suite.sample(items)
        else:
            paradigms = {name: pairs[:items] for name, pairs in embedded_blimp().items()}
            asked = suite.minimal_pairs(variant.lm.tokenizer, paradigms)

        def compute(asked: list[dict] = asked) -> pd.DataFrame:
            report = variant.ready()
            answers = two_choice.accuracy(variant.lm, asked, draws, EVALUATION_SEED, progress=True)
            return answers.assign(calibration_tokens=report.calibration_tokens if report else 0)

        key = {"benchmark": benchmark, "items": items, "draws": draws, "evaluation_seed": EVALUATION_SEED}
        parts.append(run.record("answers", compute, ANSWERS_REVISION, labels, **variant.key, **key))

    return pd.concat(parts, ignore_index=True)

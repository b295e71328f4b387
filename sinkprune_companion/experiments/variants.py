"""Variants of a model, dense or pruned: prune, measure, put the weights back."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from sinkprune_companion.experiments.scoring import EVALUATION_SEED, fingerprint_of, score_texts
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import StatisticsKey
from sinkprune_core.memory import release_freed_memory
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.engine import dense_statistics, prune
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.pruning.report import Report
from sinkprune_core.pruning.shrink import shrink

SCORES_REVISION = 1  # of `Variant.scores`
MODEL_REVISION = 1  # of `saved_variant`
REPORTED = ("zeros", "calibration_tokens", "left_out_share", "prune_seconds")


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
    return recipe.propagation == "dense" and CRITERIA[recipe.criterion].needs in ("norms", "moments")


def draw_for(
    lm: LanguageModel, sequences: Iterable[tuple[Recipe, int]], length: int, seed: int
) -> dict[int, tuple[Calibration, SharedStatistics]]:
    """Return one calibration draw in as many sequences as recipes take, and what those on as many share.

    `sequences` are pairs of a recipe and its number of calibration sequences, which are the keys.
    """
    recipes = defaultdict(list)
    for recipe, count in sequences:
        recipes[count].append(recipe)
    texts = {count: calibration_draw(lm, count, length, seed) for count in recipes}
    return {count: (text, SharedStatistics(lm, recipes[count], text)) for count, text in texts.items()}


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


def saved_variant(
    run: Run, lm: LanguageModel, fingerprint: str, recipe: Recipe, calibration: Calibration
) -> Path:
    """Return the folder of `lm` pruned by `recipe`, in `runs/<profile>/models`, saved at most once.

    `lm`, whose fingerprint is given, stays dense. A structured recipe is saved smaller.
    """
    key = {"fingerprint": fingerprint, "recipe": recipe, "calibration": calibration.fingerprint}
    identity = run.identity("model", MODEL_REVISION, key)
    name = lm.name.replace("/", "--")
    folder = run.folder / "models" / f"{name}-{recipe.sparsity:g}-{identity['digest']}"
    if folder.exists():
        return folder
    with weights_kept(lm):
        report = prune(lm, recipe, calibration)
        smaller = shrink(lm, report.kept_units) if report.kept_units else lm
        smaller.save(folder, **report.card())
    return folder

"""Calibration text as long as the paper's: sequences of 2,048 tokens, and as many tokens in short ones.

The paper's code calibrates on sequences of as many tokens as the model takes. The pool of this protocol has
255,329 tokens, which bear 64 sequences of 2,048. All recipes see the same sequences, so the official one sees
ten times as many tokens, at its ten noise levels.
"""

from collections.abc import Iterable
from functools import partial

import pandas as pd

from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune_companion.experiments.masks import mask_differences
from sinkprune_companion.experiments.paired_differences import above_dense
from sinkprune_companion.experiments.paper_protocol import COMPARISONS, ENDING, IN_PARTS, LENGTH
from sinkprune_companion.experiments.pruning_findings import differences
from sinkprune_companion.experiments.pruning_grid import SPARSITY, UNSTRUCTURED, GridRow
from sinkprune_companion.experiments.variants import Variant, draw_for
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw, protocol_texts
from sinkprune_core import LanguageModel, preset

RECIPES = ("wanda", "paper", "paper-sinks-kept")
PAIRS = (("paper", "paper-sinks-kept"), ("paper", "wanda"), ("paper-sinks-kept", "wanda"))
COMPARED = {
    name: (COMPARISONS | IN_PARTS)[name]
    for name in ("paper_minus_wanda", "paper_minus_paper_sinks_kept", "paper_sinks_kept_minus_wanda")
}
EXCHANGED_REVISION = 1  # of the records of `exchanged_weights`


class CalibrationLength:
    """Models pruned on sequences of one length, in one calibration draw after the other."""

    def __init__(self, run: Run, lm: LanguageModel, fingerprint: str, sequences: int, length: int):
        self.run = run
        self.lm = lm
        self.fingerprint = fingerprint
        self.sequences = sequences
        self.length = length

    def variants(self, seed: int) -> dict[str, Variant]:
        """Return RECIPES at 50 % on one calibration draw; they share the pass that takes their statistics."""
        recipes = {name: preset(name, sparsity=SPARSITY) for name in RECIPES}
        wanted = [(recipe, self.sequences) for recipe in recipes.values()]
        drawn = draw_for(self.lm, wanted, self.length, seed, protocol_draw)[self.sequences]
        return {name: Variant(self.lm, self.fingerprint, recipe, *drawn) for name, recipe in recipes.items()}

    def losses(self, seed: int, scored: int) -> pd.DataFrame:
        """Return the losses of the dense model and of RECIPES on the `scored` sequences of the protocol."""
        texts = protocol_texts(self.lm.tokenizer, scored, LENGTH)
        dense = {"variant": "dense", "pattern": "dense", "sparsity": 0.0, "seed": seed}
        losses = [Variant(self.lm, self.fingerprint).scores(self.run, texts, 1, noise=seed, **dense)]

        for name, variant in self.variants(seed).items():
            row = GridRow(name, UNSTRUCTURED, SPARSITY, variant.recipe, self.sequences)
            with variant:
                losses.append(variant.scores(self.run, texts, 1, noise=seed, **row.labels, seed=seed))

        return pd.concat(losses, ignore_index=True)

    def exchanged(self, seed: int) -> pd.DataFrame:
        """Return the share of kept weights that two recipes do not have in common, for every linear map."""
        variants = self.variants(seed)
        made_from = {name: (one.recipe, one.calibration, one.shared) for name, one in variants.items()}
        return self.run.record(
            "exchanged_weights",
            partial(mask_differences, self.lm, made_from, PAIRS),
            EXCHANGED_REVISION,
            {"seed": seed},
            variants={name: one.key for name, one in variants.items()},
            pairs=PAIRS,
        )


def findings(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    sequences: int,
    length: int,
    scored: int,
    draws: Iterable[int],
) -> dict[str, Estimate]:
    """Return differences of losses on long sequences, and shares of kept weights that two recipes exchange.

    The first are `{comparison}_wikitext_length_{tokens}`, over draws and scored sequences. The second are
    `exchanged_{one}_{other}_length_{tokens}`, means over draws with intervals over linear maps; beside the
    long sequences, on draw 0, stand as many tokens in sequences of LENGTH.
    """
    draws = list(draws)
    if not draws:
        return {}

    long = CalibrationLength(run, lm, fingerprint, sequences, length)
    losses = pd.concat([long.losses(seed, scored) for seed in draws], ignore_index=True)
    compared = differences(above_dense(losses), (UNSTRUCTURED, SPARSITY), COMPARED)
    found = {f"{name}_{ENDING}_length_{length}": difference for name, difference in compared.items()}

    exchanged = pd.concat([long.exchanged(seed) for seed in draws], ignore_index=True)
    found |= _shares(exchanged, length)
    if 0 in draws:
        short = CalibrationLength(run, lm, fingerprint, sequences * length // LENGTH, LENGTH)
        found |= _shares(short.exchanged(0), LENGTH)

    return found


def _shares(exchanged: pd.DataFrame, length: int) -> dict[str, Estimate]:
    """Return the shares of kept weights that are exchanged, by pair of recipes."""
    found = {}
    for (one, other), part in exchanged.groupby(["one", "other"], sort=False):
        pair = f"{one}_{other}".replace("-", "_")
        by_map = part.groupby(["layer", "linear"]).differ.mean()
        found[f"exchanged_{pair}_length_{length}"] = interval(by_map)

    return found

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
from sinkprune_companion.experiments.variants import Variant, draw_for, losses_on, measured
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


def rows_on(sequences: int) -> list[GridRow]:
    """Return RECIPES at 50 %, all on as many calibration sequences."""
    recipes = {name: preset(name, sparsity=SPARSITY) for name in RECIPES}
    return [GridRow(name, UNSTRUCTURED, SPARSITY, recipe, sequences) for name, recipe in recipes.items()]


def exchanged_weights(
    run: Run, lm: LanguageModel, fingerprint: str, sequences: int, length: int, seed: int
) -> pd.DataFrame:
    """Return the share of kept weights that two recipes do not have in common, for every linear map.

    They are pruned on one calibration draw of so many sequences of `length` tokens.
    """
    rows = rows_on(sequences)
    wanted = [(row.recipe, sequences) for row in rows]
    drawn = draw_for(lm, wanted, length, seed, protocol_draw)[sequences]
    made_from = {row.variant: (row.recipe, *drawn) for row in rows}

    keys = {name: Variant(lm, fingerprint, *parts).key for name, parts in made_from.items()}
    compute = partial(mask_differences, lm, made_from, PAIRS)
    labels = {"seed": seed}
    return run.record("exchanged_weights", compute, EXCHANGED_REVISION, labels, variants=keys, pairs=PAIRS)


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

    score = losses_on(run, protocol_texts(lm.tokenizer, scored, LENGTH))
    losses = measured(score, lm, fingerprint, rows_on(sequences), length, draws, protocol_draw)
    compared = differences(above_dense(losses), (UNSTRUCTURED, SPARSITY), COMPARED)
    found = {f"{name}_{ENDING}_length_{length}": difference for name, difference in compared.items()}

    exchanged = [exchanged_weights(run, lm, fingerprint, sequences, length, seed) for seed in draws]
    found |= _shares(pd.concat(exchanged, ignore_index=True), length)
    if 0 in draws:
        as_many = sequences * length // LENGTH
        found |= _shares(exchanged_weights(run, lm, fingerprint, as_many, LENGTH, 0), LENGTH)

    return found


def _shares(exchanged: pd.DataFrame, length: int) -> dict[str, Estimate]:
    """Return the shares of kept weights that are exchanged, by pair of recipes."""
    found = {}
    for (one, other), part in exchanged.groupby(["one", "other"], sort=False):
        pair = f"{one}_{other}".replace("-", "_")
        by_map = part.groupby(["layer", "linear"]).differ.mean()
        found[f"exchanged_{pair}_length_{length}"] = interval(by_map)

    return found

"""The paper's protocol: calibrate on WikiText-2, score on articles that calibration has not seen.

Every recipe sees as many calibration tokens. A noised recipe sees a sequence at several noise levels, so it
gets fewer sequences than one that sees clean text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from sinkprune.evaluation.intervals import Estimate, crossed_interval
from sinkprune_companion.experiments import pruning_findings
from sinkprune_companion.experiments.comparisons import (
    ACCURACY,
    BASELINES,
    CONTROLS,
    OFFICIAL,
    ONE_SWITCH,
    OURS,
    Compared,
)
from sinkprune_companion.experiments.paired_differences import compare_all, on_common_draws, pivot
from sinkprune_companion.experiments.pruning_findings import (
    Place,
    answer_findings,
    at,
    differences,
    places,
    sides,
)
from sinkprune_companion.experiments.pruning_grid import UNSTRUCTURED, GridRow, seen_levels, width_of
from sinkprune_companion.experiments.variants import Variant, losses_on, measured, variant_answers
from sinkprune_companion.margins import beside_damage, share_that_matters
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw, protocol_texts
from sinkprune_core import LanguageModel, preset

LENGTH = 128  # tokens of a sequence
NOISE_LEVELS = 8  # of an even grid; official recipes have their own ten

RECIPES = (
    "wanda",
    "paper",
    "paper-sinks-kept",
    "noised-dense",
    "all-sinks",
    "unstable",
    "random",
    "sparsegpt",
    "paper-sparsegpt",
    "recommended",
)
AT_25 = ("wanda", "paper", "paper-sinks-kept", "sparsegpt", "paper-sparsegpt")
LARGE = ("wanda", "paper", "paper-sinks-kept")  # on eight times the text, too
STRUCTURED = ("structured", "structured-sink", "structured-sinks-kept")


COMPARISONS = {
    "paper_minus_wanda": Compared("paper", "wanda", "official recipe − Wanda", OFFICIAL),
    "noised_dense_minus_wanda": Compared(
        "noised-dense", "wanda", "masked text, unpruned inputs − Wanda", OFFICIAL
    ),
    "paper_minus_paper_sinks_kept": Compared(
        "paper", "paper-sinks-kept", "official sink weights − none", ONE_SWITCH
    ),
    "all_sinks_minus_none": Compared("all-sinks", "noised-dense", "all sinks left out − kept", ONE_SWITCH),
    "unstable_minus_none": Compared("unstable", "noised-dense", "unstable sinks left out − kept", ONE_SWITCH),
    "random_minus_none": Compared("random", "noised-dense", "random tokens left out − kept", CONTROLS),
    "paper_sparsegpt_minus_sparsegpt": Compared(
        "paper-sparsegpt", "sparsegpt", "SparseGPT, official sink weights − none", ONE_SWITCH
    ),
    "sparsegpt_minus_wanda": Compared("sparsegpt", "wanda", "SparseGPT − Wanda", BASELINES),
    "recommended_minus_sparsegpt": Compared("recommended", "sparsegpt", "recommended − SparseGPT", BASELINES),
    "structured_sink_minus_structured": Compared(
        "structured-sink", "structured", "whole units, sink-aware − plain", OURS
    ),
    "structured_sink_minus_sinks_kept": Compared(
        "structured-sink", "structured-sinks-kept", "whole units, official sink weights − none", ONE_SWITCH
    ),
}
# not drawn: what helps in the official recipe, and what its noise levels and its sum of norms do
IN_PARTS = {
    "paper_sinks_kept_minus_wanda": Compared(
        "paper-sinks-kept", "wanda", "official recipe with all sinks kept − Wanda", OFFICIAL
    ),
    "paper_sinks_kept_minus_noised_dense": Compared(
        "paper-sinks-kept", "noised-dense", "official levels and sum of norms − an even grid", OFFICIAL
    ),
}
# recipes with sink weights, and the baselines that they are to match or outperform
BASELINE_OF = {"paper": "wanda", "paper-sparsegpt": "sparsegpt"}
# two-choice items: what Wanda costs, and every comparison of models that are pruned in single weights
ANSWERS = {"wanda_minus_dense": ACCURACY["wanda_minus_dense"]} | {
    name: compared for name, compared in COMPARISONS.items() if compared.variant in RECIPES
}
ENDING = "wikitext"  # of findings of this protocol


def protocol_row(name: str, place: Place, tokens: int, draws: int | None = None, **fields: object) -> GridRow:
    """Return the row of a preset, with more `fields`, at a place, on about `tokens` calibration tokens.

    It has NOISE_LEVELS levels where the preset has an even grid of them.
    """
    pattern, sparsity = place
    recipe = preset(name, sparsity=sparsity, **fields)
    if recipe.noise == "grid":
        recipe = replace(recipe, noise_levels=NOISE_LEVELS)

    sequences = max(1, tokens // (LENGTH * seen_levels(recipe)))
    return GridRow(name, pattern, sparsity, recipe, sequences, draws)


def protocol_rows(
    names: Iterable[str], sparsity: float, draws: int | None, tokens: int, pattern: str = UNSTRUCTURED
) -> list[GridRow]:
    """Return the rows of presets at one sparsity, all on about `tokens` calibration tokens.

    `pattern` is what tables call it; a preset for whole units has that pattern itself.
    """
    return [protocol_row(name, (pattern, sparsity), tokens, draws, **width_of(name)) for name in names]


def dense_loss(losses: pd.DataFrame) -> Estimate:
    """Return the dense model's NELBO in nats per token, over all sequences and all noise in `losses`."""
    return crossed_interval(pivot(losses[losses.variant == "dense"]))


def losses_of(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    rows: Sequence[GridRow],
    sequences: int,
    seeds: Iterable[int],
) -> pd.DataFrame:
    """Return the NELBO of the dense model and of models pruned on calibration draws.

    Each draw has noise of its own, which all of its models share.
    """
    score = losses_on(run, protocol_texts(lm.tokenizer, sequences, LENGTH))
    return measured(score, lm, fingerprint, rows, LENGTH, seeds, protocol_draw)


def protocol_losses(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    draws_at: Mapping[float, int],
    draws_of_units: Mapping[float, int],
    tokens: int,
    sequences: int,
    seeds: Iterable[int] | None = None,
    chosen: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Return the NELBO of the dense model and of pruned ones, by calibration draw.

    `draws_at` says at which sparsities single weights are pruned and in how many draws, counted from draw 0,
    `draws_of_units` the same of whole units. `seeds` are the draws to measure (None: all of these), and
    `chosen` the presets (None: all).
    """
    planned = []
    for sparsity, draws in draws_at.items():
        names = AT_25 if sparsity < 0.5 else RECIPES
        planned += protocol_rows(names, sparsity, draws, tokens)
    for ratio, draws in draws_of_units.items():
        planned += protocol_rows(STRUCTURED, ratio, draws, tokens, "structured")
    if chosen is not None:
        planned = [row for row in planned if row.variant in chosen]
    if seeds is None:
        seeds = range(max((row.draws for row in planned), default=1))
    return losses_of(run, lm, fingerprint, planned, sequences, seeds)


def protocol_answers(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    sparsity: float,
    tokens: int,
    questions: dict[str, int],
    item_draws: int,
    seeds: Iterable[int],
) -> pd.DataFrame:
    """Return the answers of the dense model and of those pruned by RECIPES, by calibration draw.

    These are the models that `losses_of` scores. `questions` and `item_draws` are those of
    `variant_answers`.
    """

    def ask(variant: Variant, labels: dict[str, object]) -> pd.DataFrame:
        return variant_answers(run, variant, questions, item_draws, **labels)

    rows = protocol_rows(RECIPES, sparsity, None, tokens)
    return measured(ask, lm, fingerprint, rows, LENGTH, seeds, protocol_draw, dense_once=True)


def pool_overlap(pool_tokens: int, sequences: int) -> float:
    """Return the share of one draw's text that another draw of so many crops has, too, on average."""
    return min(1.0, sequences * LENGTH / pool_tokens)


# findings


def finding_name(comparison: str, pattern: str, sparsity: float) -> str:
    """Return what a difference is called among the findings; at 50 % of single weights it has no number."""
    if pattern == "structured":
        return f"{comparison}_{100 * sparsity:.0f}_{ENDING}"
    if sparsity == 0.5:
        return f"{comparison}_{ENDING}"
    return f"{comparison}_{ENDING}_{100 * sparsity:.0f}"


def on_tokens(found: Mapping[str, Estimate], tokens: int) -> dict[str, Estimate]:
    """Return differences under names that end with the calibration tokens of their recipes."""
    return {f"{name}_{tokens}": estimate for name, estimate in found.items()}


def protocol_answer_findings(by_template: pd.DataFrame, sparsity: float, what: str) -> dict[str, Estimate]:
    """Return the findings of `answer_findings` on models of this protocol, under names that say so."""
    found = answer_findings(by_template, [sparsity], what, ANSWERS)
    return {f"{name}_{ENDING}": estimate for name, estimate in found.items()}


def by_label(found: Mapping[str, Estimate], pattern: str, sparsity: float) -> dict[str, Estimate]:
    """Return the differences that were found at one place, by what figures and tables call them."""
    named = {finding_name(name, pattern, sparsity): each.label for name, each in COMPARISONS.items()}
    return {label: found[name] for name, label in named.items() if name in found}


def protocol_findings(scores: pd.DataFrame) -> dict[str, Estimate]:
    """Return every difference that was measured, with its margin, and how the official gain grows.

    `scores` are losses above the dense model's under the same noise (`paired_differences.above_dense`).
    """
    found = {
        finding_name(name, *place): difference
        for place in places(scores)
        for name, difference in differences(scores, place, COMPARISONS | IN_PARTS).items()
    }
    found |= bounds(scores)

    growth = _growth(scores)
    return found if growth is None else {**found, f"paper_minus_wanda_growth_{ENDING}": growth}


def bounds(scores: pd.DataFrame) -> dict[str, Estimate]:
    """Return differences held against a share of what the baseline costs, whose error they carry.

    *matches* is the difference less the margin: below 0 the recipe matches its baseline or outperforms it.
    *full_gain* is the difference and all that the paper's recipe won back of Wanda's cost: above 0 a gain as
    large as the paper's is excluded.
    """
    found = {}
    for place in places(scores):
        for variant, baseline in BASELINE_OF.items():
            values = on_common_draws(scores, at(place, variant), at(place, baseline), at(place, "dense"))
            if values is None:
                continue

            variant_RN, baseline_RN, dense_RN = values
            margin_RN = share_that_matters() * (baseline_RN - dense_RN)
            difference_RN = variant_RN - baseline_RN

            name = variant.replace("-", "_")
            matches = crossed_interval(difference_RN - margin_RN)
            full_gain = crossed_interval(difference_RN + 2 * margin_RN)
            unit = float(margin_RN.mean())  # in which pictures count the distance from the bar
            if unit > 0:
                found[finding_name(f"{name}_matches", *place)] = matches.with_margin(unit)
                found[finding_name(f"{name}_full_gain", *place)] = full_gain.with_margin(unit)

    return found


def without_largest(scores: pd.DataFrame, place: Place) -> dict[str, Estimate]:
    """Return the differences of recipes without the one sequence in which they differ most, in any draw.

    One cell of draw and sequence can decide the sign of a difference that is near 0.
    """
    found = {}
    for name, compared in COMPARISONS.items():
        values = on_common_draws(scores, *sides(place, compared))
        if values is None:
            continue

        variant_RN, other_RN, dense_RN = values
        difference_RN = variant_RN - other_RN
        largest = int(np.abs(difference_RN).max(0).argmax())

        rest_RN = np.delete(difference_RN, largest, axis=1)
        cost_RN = np.delete(other_RN - dense_RN, largest, axis=1)
        found[f"{finding_name(name, *place)}_without_largest"] = beside_damage(rest_RN, cost_RN)

    return found


def beside_other_amounts(scores: pd.DataFrame, larger: pd.DataFrame) -> dict[str, Estimate]:
    """Return recipes on more calibration text less Wanda on less, at 50 %, under the same noise.

    `scores` and `larger` are losses above the dense model's, of which the second were calibrated on more
    tokens. The official recipe, which sees a sequence at ten noise levels, then has about as many sequences.
    """
    place = (UNSTRUCTURED, 0.5)
    renamed = larger.assign(
        variant=larger.variant.replace({"wanda": "wanda-larger", "paper": "paper-larger"})
    )
    both = pd.concat([scores, renamed[renamed.variant.str.endswith("-larger")]], ignore_index=True)

    compared = {
        "paper_as_many_sequences_minus_wanda": "paper-larger",
        "wanda_larger_minus_wanda": "wanda-larger",
    }
    beside = (at(place, "wanda"), at(place, "dense"))
    return compare_all(
        both, {f"{name}_{ENDING}": (at(place, variant), *beside) for name, variant in compared.items()}
    )


def _growth(scores: pd.DataFrame) -> Estimate | None:
    """Return (official − Wanda) at 75 % less the same at 50 %, in pairs."""
    at_75, at_50 = (UNSTRUCTURED, 0.75), (UNSTRUCTURED, 0.5)
    sides = [at(place, variant) for place in (at_75, at_50) for variant in ("paper", "wanda")]

    values = on_common_draws(scores, *sides)
    if values is None:
        return None

    paper_75, wanda_75, paper_50, wanda_50 = values
    return beside_damage((paper_75 - wanda_75) - (paper_50 - wanda_50), wanda_75)


def costs(scores: pd.DataFrame) -> Mapping[tuple[str, float], Estimate]:
    """Return what every variant costs above the dense model, by variant and sparsity."""
    found = pruning_findings.costs(scores)
    return {(variant, sparsity): cost for ((_, sparsity), variant), cost in found.items()}

"""A planted effect: what pruning would see if attention sinks held much more of the calibration statistics.

Wanda ranks weights within a row, so its mask does not change when all inputs are multiplied by one number.
Inputs at the sinks that are `dose` times as large are therefore the same as all other inputs divided by
`dose`, which is a choice of token weights like any other: no code of the pipeline changes. SparseGPT's
damping is a share of the mean diagonal of the Gram matrix, so the same holds for it.

Dimensions: N sequences, S steps, T position.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import pandas as pd
import torch

from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune_companion.experiments.paired_differences import compare_all
from sinkprune_companion.experiments.paper_protocol import LENGTH, NOISE_LEVELS, losses_of
from sinkprune_companion.experiments.pruning_findings import at
from sinkprune_companion.experiments.pruning_grid import UNSTRUCTURED, GridRow
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw
from sinkprune_core import Calibration, LanguageModel, Recipe
from sinkprune_core.calibration.token_weights import EXCLUDE, SinkContext, TokenChoice
from sinkprune_core.pruning.diagnosis import (
    ALL_TOKENS,
    OTHER_TEXT,
    WITHOUT_SINKS,
    Norms,
    Part,
    diagnosis_from,
    diagnosis_recipes,
    share_of_sinks,
)
from sinkprune_core.pruning.engine import dense_statistics

FORESEEN_REVISION = 2  # of `foreseen_by_dose`
DOSES = (1.0, 3.0, 10.0, 30.0, 100.0)  # how many times as large inputs at the sinks are
PLACES = ("all", "random")  # where: at all sinks, or at as many random tokens


@dataclass(frozen=True)
class Planted:
    """A choice of calibration tokens: inputs at `place` count `dose` times as much as all others.

    With `official` the token weights of the official code multiply the inputs as well: what it leaves of a
    sink is as many times as large.
    """

    dose: float  # at least 1
    place: str = "all"  # one of PLACES
    official: bool = False

    def __post_init__(self):
        if self.dose < 1:
            raise ValueError(f"dose={self.dose} must be at least 1: it multiplies the inputs at the sinks")
        if self.place not in PLACES:
            raise ValueError(f"place={self.place!r} is unknown; choose one of {', '.join(PLACES)}")

    def __call__(self, context: SinkContext) -> torch.Tensor:
        """Return the share left out of every token, float32 (N, S, T)."""
        is_planted_NST = EXCLUDE[self.place].function(context).bool()
        weight_NST = torch.where(is_planted_NST, 1.0, 1.0 / self.dose)

        if self.official:
            weight_NST = weight_NST * (1 - EXCLUDE["official"].function(context))

        return 1 - weight_NST


KEPT, LEFT_OUT, OFFICIAL = "kept", "left out", "official weights"
SPARSEGPT = "SparseGPT"


def planted_choices(doses: Sequence[float] = DOSES) -> dict[str, str | TokenChoice]:
    """Return the calibration tokens that pruning sees, by the name of the pruned model in tables.

    Where tokens are left out it does not matter how large they were, so that model stands for every dose.
    """
    choices: dict[str, str | TokenChoice] = {}
    for place in PLACES:
        choices[f"{place}, {LEFT_OUT}"] = place
        for dose in doses:
            choices[f"{place}, {KEPT}, {dose:g}"] = "none" if dose == 1 else Planted(dose, place)

    for dose in doses:
        choice = "official" if dose == 1 else Planted(dose, "all", official=True)
        choices[f"all, {OFFICIAL}, {dose:g}"] = choice

    return choices


def planted_recipe(choice: str | TokenChoice, sparsity: float, criterion: str = "wanda") -> Recipe:
    """Return a recipe on noised text, with a choice of calibration tokens.

    Wanda takes the dense model's inputs. SparseGPT takes what the pruned blocks give, as its authors do,
    since it changes the weights that stay to make up for these.
    """
    return Recipe(
        criterion=criterion,
        sparsity=sparsity,
        inputs="noised",
        propagation="sequential" if criterion == "sparsegpt" else "dense",
        noise_levels=NOISE_LEVELS,
        exclude=choice,
    )


def planted_losses(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    sparsities: Iterable[float],
    sequences: int,
    calibration_sequences: int,
    seed: int,
    doses: Sequence[float] = DOSES,
    method: Literal["Wanda", "SparseGPT"] = "Wanda",
) -> pd.DataFrame:
    """Return the NELBO of the dense model and of those pruned by `planted_choices` on one calibration draw.

    `sequences` are scored, as in the paper's protocol, under the noise of the draw. For Wanda one pass over
    the text takes the statistics of all models. Models of SparseGPT have the method before their names.
    """
    prefix = f"{SPARSEGPT}, " if method == SPARSEGPT else ""
    criterion = "sparsegpt" if method == SPARSEGPT else "wanda"

    rows = []
    for sparsity in sparsities:
        for name, choice in planted_choices(doses).items():
            recipe = planted_recipe(choice, sparsity, criterion)
            rows.append(GridRow(prefix + name, UNSTRUCTURED, sparsity, recipe, calibration_sequences))

    return losses_of(run, lm, fingerprint, rows, sequences, [seed])


# what one pass over the model foresees

OTHER_WITHOUT = "other text without sinks"


def taken_norms(lm: LanguageModel, calibration: Calibration) -> Norms:
    """Return the norms that a diagnosis takes, and those of the other text without its sinks, by one pass."""
    sequences = len(calibration.ids_NT)
    recipes = diagnosis_recipes(lm, sequences, NOISE_LEVELS)
    without = Part(sequences // 2, 2 * (sequences // 2), "all")
    recipes[OTHER_WITHOUT] = replace(recipes[OTHER_TEXT], exclude=without)

    taken = dense_statistics(lm, list(recipes.values()), calibration, progress=False)
    by_part = {}
    shares = {}
    for part, recipe in recipes.items():
        found = taken[recipe.statistics_key]
        by_part[part] = [{name: inputs.norm_I for name, inputs in block.items()} for block in found.layers]
        shares[part] = found.left_out_share

    return Norms(by_part, share_of_sinks(shares[ALL_TOKENS], shares[WITHOUT_SINKS]))


def with_dose(norms: Norms, dose: float) -> Norms:
    """Return norms with the inputs at the sinks `dose` times as large, in the draw and in the other text.

    The squares of a channel are those without sinks, and the sinks' own times the square of the dose.
    """
    planted = dict(norms.by_part)

    for part, without in ((ALL_TOKENS, WITHOUT_SINKS), (OTHER_TEXT, OTHER_WITHOUT)):
        layers = []
        for with_sinks, of_others in zip(norms.by_part[part], norms.by_part[without], strict=True):
            of_block = {}
            for name, norm_I in with_sinks.items():
                others_I = of_others[name].double().square()
                sinks_I = (norm_I.double().square() - others_I).clamp_min(0)
                of_block[name] = (others_I + dose**2 * sinks_I).sqrt().float()

            layers.append(of_block)

        planted[part] = layers

    return Norms(planted, norms.left_out)


def foreseen_by_dose(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    calibration_sequences: int,
    seed: int,
    sparsities: Sequence[float],
    doses: Sequence[float] = DOSES,
) -> pd.DataFrame:
    """Return the record of what `diagnose` says of the model at every dose, from one pass on one draw.

    A row per dose and sparsity: `predicted`, `exact` and `other_text` over all maps, and `expects`, whether
    the diagnosis expects leaving sinks out to matter. As many sequences as a draw has are the other text.
    """
    calibration = protocol_draw(lm, 2 * calibration_sequences, LENGTH, seed)

    def compute() -> pd.DataFrame:
        norms = taken_norms(lm, calibration)
        rows = []
        for dose in doses:
            found = diagnosis_from(lm, with_dose(norms, dose), sparsities)
            for sparsity, row in found.overall().iterrows():
                expects = found.expect_an_effect(sparsity)
                rows.append({"dose": dose, "sparsity": sparsity, **row, "expects": expects})
        return pd.DataFrame(rows)

    key = {"model": lm.name, "fingerprint": fingerprint, "noise_levels": NOISE_LEVELS}
    key |= {"calibration": calibration.fingerprint, "doses": list(doses), "sparsities": list(sparsities)}
    return run.record("foreseen_by_dose", compute, FORESEEN_REVISION, {"seed": seed}, **key)


def foreseen_findings(draws: Sequence[pd.DataFrame]) -> dict[str, Estimate]:
    """Return what leaving planted sinks out and other text exchange, shares of kept weights, by dose."""
    if len(draws) < 2:
        return {}

    found = {}
    table = pd.concat(draws)
    for (dose, sparsity), part in table.groupby(["dose", "sparsity"]):
        ending = f"x{dose:g}_{100 * sparsity:.0f}"
        found[f"planted_exact_{ending}"] = interval(part.exact)
        found[f"planted_other_text_{ending}"] = interval(part.other_text)
    return found


# findings


GAINS = {  # what is compared with the model that kept the tokens, by finding
    "planted_gain": ("all", f"all, {LEFT_OUT}"),
    "planted_official_gain": ("all", f"all, {OFFICIAL}, {{dose:g}}"),
    "planted_random_gain": ("random", f"random, {LEFT_OUT}"),
    "planted_sparsegpt_gain": (f"{SPARSEGPT}, all", f"{SPARSEGPT}, all, {LEFT_OUT}"),
    "planted_sparsegpt_official_gain": (f"{SPARSEGPT}, all", f"{SPARSEGPT}, all, {OFFICIAL}, {{dose:g}}"),
    "planted_sparsegpt_random_gain": (f"{SPARSEGPT}, random", f"{SPARSEGPT}, random, {LEFT_OUT}"),
}
BY_METHOD = {  # the lines of a picture
    "Wanda": ("planted_gain", "planted_official_gain", "planted_random_gain"),
    SPARSEGPT: (
        "planted_sparsegpt_gain",
        "planted_sparsegpt_official_gain",
        "planted_sparsegpt_random_gain",
    ),
}


def by_method(gains: Mapping[str, Estimate], sparsity: float) -> dict[str, dict[str, dict[float, Estimate]]]:
    """Return the findings of `planted_findings` at one sparsity by method, by name, and by dose.

    What was not measured is left out.
    """
    found = {}
    for method, names in BY_METHOD.items():
        lines = {finding: _by_dose(gains, finding, sparsity) for finding in names}
        measured = {finding: by_dose for finding, by_dose in lines.items() if by_dose}
        if measured:
            found[method] = measured

    return found


def _by_dose(gains: Mapping[str, Estimate], finding: str, sparsity: float) -> dict[float, Estimate]:
    """Return the gains of a finding at one sparsity by dose."""
    name = re.compile(rf"{finding}_x(.+)_{100 * sparsity:.0f}")
    matches = {name.fullmatch(each): gain for each, gain in gains.items()}
    return {float(match[1]): gain for match, gain in matches.items() if match is not None}


def planted_findings(
    scores: pd.DataFrame, sparsities: Iterable[float], doses: Sequence[float] = DOSES
) -> dict[str, Estimate]:
    """Return what leaving tokens out changes at every dose, left out − kept: below zero it helps.

    `scores` are losses above the dense model's. The margin is a share of what pruning costs where these
    tokens are kept.
    """
    sides = {}
    for sparsity, dose, finding in product(sparsities, doses, GAINS):
        tokens, without = GAINS[finding]
        compared = (without.format(dose=dose), f"{tokens}, {KEPT}, {dose:g}", "dense")
        place = (UNSTRUCTURED, sparsity)
        sides[f"{finding}_x{dose:g}_{100 * sparsity:.0f}"] = [at(place, variant) for variant in compared]
    return compare_all(scores, sides)

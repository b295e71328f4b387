"""Why leaving sinks out changes little: what one pass over the paper's calibration text says of a model."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune.evaluation.verdict_rule import HELPS, HURTS, NO_DIFFERENCE, verdicts_on_losses
from sinkprune_companion.experiments.paper_protocol import NOISE_LEVELS
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw
from sinkprune_core import Calibration, LanguageModel
from sinkprune_core.pruning.diagnosis import (
    ALL_TOKENS,
    SMALLEST_BY_CONVENTION,
    WITHOUT_SINKS,
    diagnose,
    energy_share,
    norms_of,
    weighted_mean,
)
from sinkprune_core.pruning.patterns import lowest
from sinkprune_core.values import share_of

DIAGNOSIS_REVISION = 2  # of `diagnosis_table`
CHANNELS_REVISION = 1  # of `channel_table`
SPARSITIES = (0.5, 0.75)
# layers around which the attention to the strongest key collapses in the project's models
COLLAPSE = (10, 11)


def diagnosis_table(
    run: Run, lm: LanguageModel, fingerprint: str, sequences: int, length: int, seed: int
) -> pd.DataFrame:
    """Return the record of `Diagnosis.table` on one calibration draw, with the sinks' share of tokens.

    The first half of `sequences` is the draw that models are pruned on, the second half is other text.
    """
    calibration = protocol_draw(lm, sequences, length, seed)

    def compute() -> pd.DataFrame:
        return diagnosed(lm, calibration)

    key = {"model": lm.name, "kind": lm.kind, "fingerprint": fingerprint, "noise_levels": NOISE_LEVELS}
    key |= {"calibration": calibration.fingerprint, "length": length, "seed": seed}
    return run.record("diagnosis", compute, DIAGNOSIS_REVISION, sparsities=list(SPARSITIES), **key)


def diagnosed(lm: LanguageModel, calibration: Calibration) -> pd.DataFrame:
    """Return `Diagnosis.table` with the sinks' share of tokens in the column `left_out`."""
    found = diagnose(lm, calibration, SPARSITIES, NOISE_LEVELS, progress=False)
    return found.table.assign(left_out=found.left_out)


def channel_table(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    sequences: int,
    length: int,
    seed: int,
    layers: Collection[int],
) -> pd.DataFrame:
    """Return the record of every input channel's norm and of the sinks' share of its energy, in some layers.

    Columns `layer`, `linear`, `channel`, `norm` and `share`. Linears with one input have equal rows.
    """
    calibration = protocol_draw(lm, sequences, length, seed)

    def compute() -> pd.DataFrame:
        norms = norms_of(lm, calibration, NOISE_LEVELS, progress=False).by_part
        parts = []
        for layer in layers:
            for linear, norm_I in norms[ALL_TOKENS][layer].items():
                share_I = energy_share(norm_I, norms[WITHOUT_SINKS][layer][linear])
                columns = {"channel": torch.arange(len(norm_I)), "norm": norm_I, "share": share_I}
                parts.append(pd.DataFrame(columns).assign(layer=layer, linear=linear))
        return pd.concat(parts, ignore_index=True)

    key = {"model": lm.name, "fingerprint": fingerprint, "noise_levels": NOISE_LEVELS}
    key |= {"calibration": calibration.fingerprint, "length": length, "seed": seed}
    return run.record("channels", compute, CHANNELS_REVISION, layers=list(layers), **key)


def wanda_keeps(weight_OI: torch.Tensor, norm_I: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return which weights Wanda keeps, bool (O, I)."""
    return ~lowest(weight_OI.abs() * norm_I.to(weight_OI), share_of(weight_OI.shape[1], sparsity))


def correlation(table: pd.DataFrame) -> float:
    """Return the correlation of predicted and exact changes, of their logarithms, over maps that change."""
    changed = table[(table.predicted > 0) & (table.exact > 0)]
    return float(np.corrcoef(np.log(changed.predicted), np.log(changed.exact))[0, 1])


def largest_miss(table: pd.DataFrame) -> pd.Series:
    """Return the row of the map whose exact change is furthest from the predicted one, and its `miss`.

    `miss` is exact − predicted, a share of the map's kept weights.
    """
    table = table.assign(miss=table.exact - table.predicted)
    return table.loc[table.miss.abs().idxmax()]


def largest_ratio(table: pd.DataFrame) -> float:
    """Return the largest ratio of predicted and exact, the larger over the smaller, over maps that change."""
    changed = table[(table.predicted > 0) & (table.exact > 0)]
    return float(np.exp(np.abs(np.log(changed.predicted / changed.exact))).max())


def fit_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how well the prediction fits the maps of several models: a row per model and sparsity.

    Columns: `maps` that change, `correlation` of logarithms, `largest_miss`, the `worst_map` where it is,
    what was `predicted` and `exact` there, and the `largest_ratio` of the two, over all maps.
    """
    rows = []

    for model, table in tables.items():
        for sparsity, part in table.groupby("sparsity"):
            is_changed = (part.predicted > 0) & (part.exact > 0)
            worst = largest_miss(part)
            rows.append(
                {
                    "model": model,
                    "zeros": sparsity,
                    "maps": int(is_changed.sum()),
                    "correlation": correlation(part),
                    "largest_miss": worst.miss,
                    "worst_map": f"{worst.kind}, layer {worst.layer}",
                    "predicted": worst.predicted,
                    "exact": worst.exact,
                    "largest_ratio": largest_ratio(part),
                }
            )

    return pd.DataFrame(rows)


def length_table(tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Return what a diagnosis says over all maps, by length of a sequence: a row per length and sparsity.

    Columns: `tokens`, `zeros`, `predicted`, `exact` and `other_text`, means by the maps' weights.
    """
    columns = ["predicted", "exact", "other_text", "weights"]
    rows = [
        {"tokens": tokens, "zeros": sparsity, **weighted_mean(part[columns])}
        for tokens, table in tables.items()
        for sparsity, part in table.groupby("sparsity")
    ]
    return pd.DataFrame(rows)


def by_layer(tables: Sequence[pd.DataFrame], sparsity: float) -> pd.DataFrame:
    """Return by layer the means over its maps, each counted by its weights, and over draws."""
    columns = ["energy", "exact", "other_text"]
    table = pd.concat(tables)
    table = table[table.sparsity == sparsity]

    weighted = table[columns].mul(table.weights, axis=0).groupby(table.layer).sum()
    return weighted.div(table.weights.groupby(table.layer).sum(), axis=0)


def diagnosis_findings(draws: Sequence[pd.DataFrame]) -> dict[str, Estimate]:
    """Return what the tables of several calibration draws say, with intervals over draws, by finding.

    A finding ends with the sparsity in percent. Means count every map by its weights, but for those called
    unweighted; medians are over maps.
    There is none for a single draw.
    """
    if len(draws) < 2:
        return {}

    found = {}
    for sparsity in SPARSITIES:
        tables = [table[table.sparsity == sparsity] for table in draws]
        measures = {
            "predicted": [_mean(table, "predicted") for table in tables],
            "exact": [_mean(table, "exact") for table in tables],
            "other_text": [_mean(table, "other_text") for table in tables],
            "unweighted_exact": [float(table.exact.mean()) for table in tables],
            "unweighted_other_text": [float(table.other_text.mean()) for table in tables],
            "median_exact": [float(table.exact.median()) for table in tables],
            "median_other_text": [float(table.other_text.median()) for table in tables],
            "correlation": [correlation(table) for table in tables],
            "maps_above_other_text": [float((table.exact > table.other_text).sum()) for table in tables],
            "largest_miss": [abs(float(largest_miss(table).miss)) for table in tables],
        }
        for layer in sorted(set(COLLAPSE) & set(tables[0].layer)):
            of_layer = [by_layer([table], sparsity).loc[layer] for table in tables]
            measures[f"exact_layer_{layer}"] = [row.exact for row in of_layer]
            measures[f"other_text_layer_{layer}"] = [row.other_text for row in of_layer]

        found |= {f"{name}_{100 * sparsity:.0f}": interval(values) for name, values in measures.items()}

    found["left_out"] = interval([float(table.left_out.iloc[0]) for table in draws])
    for kind in ("q_proj", "down_proj"):
        energies = [_mean(table[table.kind == kind], "energy") for table in draws]
        found[f"energy_{kind}"] = interval(energies)
    return found


def _mean(table: pd.DataFrame, column: str) -> float:
    """Return the mean over maps, each counted by its weights."""
    return float(np.average(table[column], weights=table.weights))


# what is foreseen beside what was measured


PLANTED = "planted in the statistics"
AS_IT_IS, ELSEWHERE = "as it is", "loss on other calibration text"
# of ELSEWHERE the masks are of one text, and the loss of another
KINDS = (PLANTED, AS_IT_IS, ELSEWHERE)


class Case(NamedTuple):
    """One model, as it is or with a planted effect: what one pass foresees, and what pruning measured."""

    name: str
    kind: str  # one of KINDS
    sparsity: float
    exchanged: float  # share of the kept weights that leaving all sinks out exchanges
    other_text: float  # the same of another draw of calibration text
    expects: bool  # whether the diagnosis expects leaving sinks out to matter
    gain: Estimate  # loss with sinks left out less with them kept, with what would matter as its margin


MEASURED = {  # findings of what leaving all sinks out changed in a model, by what notebooks call it
    "smol-ar-adapted": "08/ar_all_minus_none",
    "figures/trainings/smol-dlm-8M": "08/all_minus_none_model_2",
    "figures/trainings/seed-1-diffusion": "08/all_minus_none_model_3",
    "figures/trainings/seed-2-diffusion": "08/all_minus_none_model_4",
    "diffusion, from scratch": "09/all_sinks_minus_none",
}
RIGHT, WRONG, OPEN = "right", "wrong", "not decided"


def planted_cases(
    passes: Sequence[pd.DataFrame], gains: Mapping[str, Estimate], name: str, sparsity: float
) -> list[Case]:
    """Return the cases of one model at all doses: means over calibration draws, and what was measured.

    `passes` are tables of `planted.foreseen_by_dose`, `gains` the findings of `planted.planted_findings`. At
    dose 1 nothing is planted, and the case has the model's `name`.
    """
    cases = []
    for dose, row in _mean_exchanges(passes, sparsity).iterrows():
        gain = gains[f"planted_gain_x{dose:g}_{100 * sparsity:.0f}"]
        case, kind = (name, AS_IT_IS) if dose == 1 else (f"× {dose:g}", PLANTED)
        cases.append(Case(case, kind, sparsity, row.exact, row.other_text, expects_an_effect(row), gain))
    return cases


def _mean_exchanges(passes: Sequence[pd.DataFrame], sparsity: float) -> pd.DataFrame:
    """Return `exact` and `other_text` by dose, means over the tables of some calibration draws."""
    table = pd.concat(passes)
    table = table[table.sparsity == sparsity]
    return table.groupby("dose")[["exact", "other_text"]].mean()


def expects_an_effect(row: pd.Series) -> bool:
    """Return whether a diagnosis of these means would expect leaving sinks out to matter."""
    return bool(row.exact > max(row.other_text, SMALLEST_BY_CONVENTION))


def foresight(
    cases: Sequence[Case], judged: Callable[[Collection[Estimate]], list[str]] = verdicts_on_losses
) -> pd.DataFrame:
    """Return a row per case: what was foreseen, what was measured, and whether the one fits the other.

    It fits where an effect was expected and is told from zero, or where none was expected and the measured
    difference is negligible. Where the measurement does not decide it is open. `judged` gives verdicts on the
    measured differences.
    """
    gains = [case.gain for case in cases]
    rows = []

    for case, outcome in zip(cases, judged(gains), strict=True):
        matters = {HELPS: True, HURTS: True, NO_DIFFERENCE: False}.get(outcome)
        foreseen = OPEN
        if matters is not None:
            foreseen = RIGHT if matters == case.expects else WRONG

        rows.append(
            {
                "case": case.name,
                "kind": case.kind,
                "zeros": case.sparsity,
                "exchanged": case.exchanged,
                "other_text": case.other_text,
                "expects": case.expects,
                **{end: getattr(case.gain, end) for end in ("value", "low", "high", "margin")},
                "measured": outcome,
                "foreseen": foreseen,
            }
        )

    return pd.DataFrame(rows).astype({"margin": float})  # NaN where pruning costs nothing

"""Tables of scores and answers, in which variants are compared in pairs: by calibration draw and sequence.

Dimensions: N sequences or templates of items, R repetitions (calibration draws).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from sinkprune.evaluation import suite
from sinkprune.evaluation.intervals import Estimate, crossed_interval
from sinkprune_companion.margins import beside_damage

NAMES = ("benchmark", "variant", "pattern", "sparsity", "place", "seed", "calibration_tokens")  # of answers


def above_dense(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores less the dense model's under the same noise, of which one draw, of zeros, is left."""
    is_dense = scores.variant == "dense"
    dense = scores[is_dense].set_index(["seed", "sequence"]).value
    of_row = pd.MultiIndex.from_frame(scores[["seed", "sequence"]])
    above = scores.assign(value=scores.value - dense.loc[of_row].to_numpy())
    return above[~is_dense | (above.seed == above.seed[is_dense].min())]


def by_template(answers: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column of `variant_answers` by template (BLiMP has one per paradigm), as tables of scores."""
    names = [name for name in NAMES if name in answers]
    parts = [
        suite.by_template(part, column).reset_index(name="value").assign(**dict(zip(names, of, strict=True)))
        for of, part in answers.groupby(names, sort=False)
    ]
    units = pd.concat(parts, ignore_index=True)
    return units.assign(sequence=units.groupby(names, sort=False).cumcount())


def pivot(frame: pd.DataFrame) -> np.ndarray:
    """Return the values of one variant as an array (R, N); raise ValueError when a cell is missing."""
    values_RN = frame.pivot(index="seed", columns="sequence", values="value").to_numpy()
    if np.isnan(values_RN).any():
        raise ValueError("some repetitions lack some sequences: differences would not be paired")
    return values_RN


def _rows_where(frame: pd.DataFrame, where: dict[str, object]) -> pd.DataFrame:
    return frame[np.logical_and.reduce([frame[column] == value for column, value in where.items()])]


def _is_calibrated(scores: pd.DataFrame) -> bool:
    return scores.calibration_tokens.max() > 0


def on_common_draws(scores: pd.DataFrame, *sides: dict[str, object]) -> list[np.ndarray] | None:
    """Return the values of several variants, (R, N) each, on the calibration draws that all have.

    `sides` are columns of each with their values. None where one was not measured. A variant without
    calibration (dense, magnitude) has one row, which serves every draw. Raises ValueError where calibrated
    variants have no draw in common.
    """
    parts = [_rows_where(scores, where) for where in sides]
    if any(part.empty for part in parts):
        return None

    draws = [set(part.seed) for part in parts if _is_calibrated(part)]
    common = set.intersection(*draws) if draws else set()
    if draws and not common:
        raise ValueError(f"variants {sides} share no calibration draw: their differences would not be paired")

    seeds = [common if _is_calibrated(part) else {part.seed.min()} for part in parts]
    return [pivot(part[part.seed.isin(some)]) for part, some in zip(parts, seeds, strict=True)]


def difference(
    scores: pd.DataFrame, variant: dict[str, object], other: dict[str, object]
) -> np.ndarray | None:
    """Return variant - other in `value`, (R, N), paired by draw and sequence; None if one is missing."""
    values = on_common_draws(scores, variant, other)
    return None if values is None else values[0] - values[1]


def compare(
    scores: pd.DataFrame,
    variant: dict[str, object],
    other: dict[str, object],
    dense: dict[str, object] | None = None,
) -> Estimate | None:
    """Return the mean of `difference` with its interval; None if a variant is missing.

    With `dense` it has a margin, a share of what `other` costs that model.
    """
    sides = [variant, other] if dense is None else [variant, other, dense]
    values = on_common_draws(scores, *sides)
    if values is None:
        return None

    variant_RN, other_RN, *dense_RN = values
    if dense_RN:
        estimate = beside_damage(variant_RN - other_RN, other_RN - dense_RN[0])
    else:
        estimate = crossed_interval(variant_RN - other_RN)

    has_draws = any(_is_calibrated(_rows_where(scores, side)) for side in (variant, other))
    if not has_draws:  # neither is calibrated
        estimate = replace(estimate, draws=None)
    return estimate


def compare_all(
    scores: pd.DataFrame, sides: Mapping[str, Sequence[dict[str, object]]]
) -> dict[str, Estimate]:
    """Return `compare` of variant, other and dense model by finding; without what was not measured."""
    found = {name: compare(scores, *compared) for name, compared in sides.items()}
    return {name: estimate for name, estimate in found.items() if estimate is not None}

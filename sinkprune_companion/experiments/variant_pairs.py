"""Variants in a table of scores, compared in pairs on the calibration draws that they share.

Dimensions: R repetitions (calibration draws), N sequences.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from sinkprune_core.evaluation.intervals import Estimate, crossed_interval


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


def compare(scores: pd.DataFrame, variant: dict[str, object], other: dict[str, object]) -> Estimate | None:
    """Return the mean of variant - other in `value`, paired by common calibration draw and by sequence.

    None where one of the two was not measured; `draws` is None where neither variant is calibrated.
    """
    values = on_common_draws(scores, variant, other)
    if values is None:
        return None
    estimate = crossed_interval(values[0] - values[1])
    has_draws = any(_is_calibrated(_rows_where(scores, side)) for side in (variant, other))
    return estimate if has_draws else replace(estimate, draws=None)

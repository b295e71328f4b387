"""Comparisons of variants on the calibration draws that they share, against differences by hand."""

import numpy as np
import pandas as pd
import pytest

from sinkprune.evaluation.intervals import crossed_interval
from sinkprune_companion.experiments.paired_differences import compare, pivot

SEQUENCES = 6


def table(variant: str, draws: int, sparsity: float = 0.5, calibrated: bool = True) -> pd.DataFrame:
    """Return made-up scores of one variant: random, on so many calibration draws."""
    values = np.random.default_rng(list(f"{variant} {sparsity}".encode())).normal(size=(draws, SEQUENCES))

    rows = [
        {
            "variant": variant,
            "sparsity": sparsity,
            "seed": r,
            "sequence": n,
            "value": values[r, n],
            "calibration_tokens": 64 * calibrated,
        }
        for r in range(draws)
        for n in range(SEQUENCES)
    ]

    return pd.DataFrame(rows)


def values(frame: pd.DataFrame) -> np.ndarray:
    return frame.sort_values(["seed", "sequence"]).value.to_numpy().reshape(-1, SEQUENCES)


# comparisons


def test_variants_are_compared_on_the_draws_that_both_have():
    many, few = table("many", 3), table("few", 2)
    found = compare(pd.concat([many, few]), {"variant": "many"}, {"variant": "few"})
    assert found == crossed_interval(values(many)[:2] - values(few))


def test_a_variant_without_calibration_serves_every_draw():
    many, dense = table("many", 3), table("dense", 1, calibrated=False)
    found = compare(pd.concat([many, dense]), {"variant": "many"}, {"variant": "dense"})
    assert found == crossed_interval(values(many) - values(dense))


def test_variants_without_calibration_rest_on_no_draws():
    one, other = (table(name, 1, calibrated=False) for name in ("one", "other"))
    found = compare(pd.concat([one, other]), {"variant": "one"}, {"variant": "other"})
    assert found.draws is None and found.value == pytest.approx((values(one) - values(other)).mean())


def test_what_was_not_measured_gives_none_and_draws_apart_are_refused():
    many, later = table("many", 2), table("later", 2).assign(seed=lambda frame: frame.seed + 5)
    scores = pd.concat([many, later])
    assert compare(scores, {"variant": "many"}, {"variant": "other"}) is None
    with pytest.raises(ValueError, match="share no calibration draw"):
        compare(scores, {"variant": "many"}, {"variant": "later"})
    with pytest.raises(ValueError, match="not be paired"):
        pivot(many.iloc[1:])

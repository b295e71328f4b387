"""Accuracy of variants, paired by draw and item: against counts by hand."""

import pandas as pd
import pytest

from sinkprune_companion.experiments.variant_answers import accuracy_difference, points


def answers_of(variant: str, seed: int, right: list[bool], tokens: int = 10) -> pd.DataFrame:
    """Return answers to items of which two in a row are a pair."""
    return pd.DataFrame(
        {
            "benchmark": "suite",
            "variant": variant,
            "pattern": "dense" if tokens == 0 else "unstructured",
            "sparsity": 0.0 if tokens == 0 else 0.5,
            "seed": seed,
            "calibration_tokens": tokens,
            "group": "g",
            "pair": [item // 2 for item in range(len(right))],
            "correct": right,
        }
    )


def side(variant: str) -> dict[str, object]:
    is_dense = variant == "dense"
    pattern, sparsity = ("dense", 0.0) if is_dense else ("unstructured", 0.5)
    return {"benchmark": "suite", "variant": variant, "pattern": pattern, "sparsity": sparsity}


@pytest.fixture
def answers() -> pd.DataFrame:
    """Two variants in two calibration draws, and the dense model, which has none; 6 items in 3 pairs."""
    yes, no = True, False
    return pd.concat(
        [
            answers_of("dense", 0, [yes, yes, yes, yes, yes, no], 0),
            answers_of("one", 0, [yes, no, yes, yes, no, no]),
            answers_of("one", 1, [yes, no, yes, no, no, no]),
            answers_of("two", 0, [yes, no, no, no, yes, no]),
            answers_of("two", 1, [no, no, no, no, no, no]),
        ],
        ignore_index=True,
    )


def test_a_difference_is_paired_by_draw_and_pair_and_knows_what_the_second_costs(answers):
    estimate, cost = accuracy_difference(points(answers), side("one"), side("two"), side("dense"))
    assert estimate.value == pytest.approx(100 * ((3 + 2) - (2 + 0)) / 12)
    assert cost == pytest.approx(100 * (5 / 6 - 2 / 12))
    assert (estimate.draws, estimate.units) == (2, 3)
    assert accuracy_difference(points(answers), side("three"), side("two"), side("dense")) is None

"""The kind of text as a factor: effects planted on one kind are found on it."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments.text_kinds import KINDS, by_kind
from sinkprune_companion.experiments.variant_pairs import pivot
from sinkprune_companion.ledger.margins import share_that_matters

GAINS = {"natural": -0.5, "samples": 0.0, "documentation": 0.25}


@pytest.fixture
def scores() -> pd.DataFrame:
    """Two variants in three draws: the second gains on crops by domain, and loses 1 on beginnings."""
    rng = np.random.default_rng(0)
    rows = []
    sequence = 0
    for text in GAINS:
        for start in ("crop", "beginning"):
            for _ in range(30):
                hard = rng.normal(4, 1)
                for seed in range(3):
                    gain = (GAINS[text] if start == "crop" else 1.0) + 0.01 * rng.normal()
                    for variant, value in (("one", hard), ("two", hard + gain)):
                        row = {"variant": variant, "seed": seed, "sequence": sequence, "value": value}
                        rows.append(row | {"text": text, "start": start})
                sequence += 1
    return pd.DataFrame(rows)


def gain(part: pd.DataFrame) -> np.ndarray:
    return pivot(part[part.variant == "two"]) - pivot(part[part.variant == "one"])


def test_effects_are_found_on_their_kind_of_text(scores):
    found = by_kind(scores, {"x": gain}, lambda part: np.full((1, 2), 2.0))
    assert len(found) == len(KINDS)
    expected = {
        "x_natural": -0.5,
        "x_samples": 0.0,
        "x_documentation": 0.25,
        "x_first_token": 1.0,
        "x_crop": -0.25 / 3,
        "x_beginning": 1.0,
    }
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected, abs=0.01)
    assert all(each.margin == pytest.approx(2 * share_that_matters()) for each in found.values())
    assert found["x_natural"].high < 0 < found["x_documentation"].low

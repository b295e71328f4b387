"""The kind of text as a factor: effects planted on one kind are found on it, and between kinds."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments.text_kinds import CONTRASTS, KINDS, by_kind, of_kind
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_core.evaluation.intervals import crossed_interval_between, pivot

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


def test_effects_are_found_on_their_kind_of_text_and_between_kinds(scores):
    found = by_kind(scores, {"x": gain}, lambda part: np.full((1, 2), 2.0))
    assert len(found) == len(KINDS) + len(CONTRASTS)
    expected = {
        "x_natural": -0.5,
        "x_samples": 0.0,
        "x_documentation": 0.25,
        "x_first_token": 1.0,
        "x_crop": -0.25 / 3,
        "x_beginning": 1.0,
        "x_samples_minus_natural": 0.5,
        "x_documentation_minus_natural": 0.75,
        "x_first_token_minus_natural": 1.5,
        "x_beginning_minus_crop": 1 + 0.25 / 3,
    }
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected, abs=0.01)
    assert all(each.margin == pytest.approx(2 * share_that_matters()) for each in found.values())
    assert found["x_samples_minus_natural"].low > 0


def test_kinds_of_a_domain_are_its_crops(scores):
    assert set(of_kind(scores, "natural").start) == {"crop"}
    assert set(of_kind(scores, "first_token").text) == {"natural"}
    assert set(of_kind(scores, "beginning").text) == set(GAINS)
    with pytest.raises(ValueError, match="kind='web' is unknown; choose one of natural, samples"):
        of_kind(scores, "web")


# the interval between two groups of sequences


def test_groups_of_sequences_are_resampled_apart_and_draws_together():
    rng = np.random.default_rng(1)
    shared_R1 = rng.normal(0, 5, size=(12, 1))  # what a draw does to both groups leaves their difference
    one_RN = 1 + shared_R1 + 0.1 * rng.normal(size=(12, 40))
    other_RM = shared_R1 + 0.1 * rng.normal(size=(12, 25))
    found = crossed_interval_between(one_RN, other_RM)
    assert found.value == pytest.approx(1, abs=0.05)
    assert found.half_width < 0.1
    assert (found.units, found.draws) == (65, 12)
    wide = crossed_interval_between(one_RN, other_RM + 3 * rng.normal(size=(1, 25)))
    assert wide.half_width > 0.5, "sequences count as chance"


@pytest.mark.parametrize("shapes", [((2, 5), (3, 5)), ((2, 5), (2, 1)), ((5,), (5,))])
def test_groups_that_cannot_be_compared_are_refused(shapes):
    with pytest.raises(ValueError, match=r"expected \(repetitions, at least 2 sequences\)"):
        crossed_interval_between(*(np.zeros(shape) for shape in shapes))

"""Each answer about the longer training turns with the number that decides it, and with no other."""

import pytest

from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion.experiments.longer_training import can_tell

HOLDS = {
    "minus_bigram_trained": (-0.7, -0.6),
    "wanda_minus_dense_trained_50": (0.1, 0.2),
    "exact_trained_50": (0.03, 0.03),
    "other_text_trained_50": (0.02, 0.02),
    "exact_trained_75": (0.01, 0.01),
    "other_text_trained_75": (0.04, 0.04),
}


def answers(**changed: tuple[float, float]) -> list[bool]:
    ends = {**HOLDS, **changed}
    found = {name: Estimate((low + high) / 2, low, high, 9, "") for name, (low, high) in ends.items()}
    return list(can_tell(found).values())


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [True, True, True]),
        ({"minus_bigram_trained": (-0.1, 0.1)}, [False, True, True]),
        ({"wanda_minus_dense_trained_50": (-0.1, 0.1)}, [True, False, True]),
        ({"exact_trained_50": (0.01, 0.01)}, [True, True, False]),  # other text exchanges more
        ({"exact_trained_50": (0.01, 0.01), "exact_trained_75": (0.05, 0.05)}, [True, True, True]),
    ],
)
def test_each_answer_follows_from_its_own_number(changed, expected):
    assert answers(**changed) == expected

"""What was foreseen, held against what was measured."""

import pytest

from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion.experiments.why import OPEN, RIGHT, WRONG, Case, foresight


def estimate(low: float, high: float, margin: float = 0.01) -> Estimate:
    """Return an estimate with an interval over six draws that is symmetrical."""
    half_width = (high - low) / 2

    return Estimate(
        value=(low + high) / 2,
        low=low,
        high=high,
        units=100,
        method="t interval over calibration draws and sequences",
        margin=margin,
        draws=6,
        error_draws=half_width / 2.571,
        error_sequences=0.0,
        freedom=5.0,
    )


def case(expects: bool, low: float, high: float) -> Case:
    return Case("a model", "as it is", 0.001, 0.02, expects, estimate(low, high))


@pytest.mark.parametrize(
    ("expects", "low", "high", "foreseen"),
    [
        (False, -0.002, 0.003, RIGHT),
        (True, -0.3, -0.2, RIGHT),
        (True, 0.2, 0.3, RIGHT),  # harm is an effect, too
        (False, -0.3, -0.2, WRONG),
        (True, -0.002, 0.003, WRONG),
        (True, -0.3, 0.2, OPEN),
    ],
)
def test_what_was_foreseen_is_held_against_what_was_measured(expects, low, high, foreseen):
    table = foresight([case(expects, low, high)])
    assert table.foreseen.tolist() == [foreseen]

"""What recovery is compared with: in pairs, by the draws that both sides have."""

import pandas as pd
import pytest

from sinkprune_companion.experiments import recovery

TOKENS = 2000  # of training
SEQUENCES = 6


def losses(variant: str, place: recovery.Place, asked: int, by_draw: list[float], **columns) -> pd.DataFrame:
    """Losses of one model: of each draw the same number, and more in every later sequence."""
    rows = [
        {"variant": variant, "pattern": place.pattern, "sparsity": place.sparsity, "asked": asked}
        | {"seed": seed, "sequence": sequence, "value": value + 10 * sequence, "calibration_tokens": 1}
        | columns
        for seed, value in enumerate(by_draw)
        for sequence in range(SEQUENCES)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def measured() -> pd.DataFrame:
    place = recovery.PLACES["75"]
    parts = []
    for asked in (0, TOKENS):
        parts.append(losses(recovery.CONTROL, recovery.DENSE, asked, [4.0, 5.0, 6.0]))
        parts.append(losses("wanda", place, asked, [6.0, 7.0, 8.0]))
    return pd.concat(parts, ignore_index=True)


def test_a_teacher_is_compared_on_the_draws_that_both_have(measured):
    taught = losses("wanda", recovery.PLACES["75"], TOKENS, [5.5, 6.5], taught=True)

    (estimate,) = recovery.taught_findings(measured, taught).values()
    assert estimate.draws == 2
    assert estimate.value == pytest.approx(-0.5)
    assert estimate.high - estimate.low == pytest.approx(
        0.0, abs=1e-9
    )  # the sequences' scatter is paired away


def test_a_smaller_dense_model_is_compared_before_and_after_training():
    half, units = recovery.PLACES["50"], recovery.PLACES["units 50"]
    parts = []
    for asked, gain in ((0, 0.0), (TOKENS, 0.5)):
        parts.append(losses(recovery.CONTROL, recovery.DENSE, asked, [4.0, 5.0]))
        parts.append(losses("wanda", half, asked, [4.4, 5.4]))
        parts.append(losses(recovery.SMALLER, units, asked, [5.5 - gain, 6.5 - gain]))

    found = recovery.smaller_findings(pd.concat(parts, ignore_index=True), [TOKENS])
    assert found["sparse_minus_smaller_50_0_recovered"].value == pytest.approx(-1.1)
    assert found["sparse_minus_smaller_50_2_recovered"].value == pytest.approx(-0.6)


def test_what_was_not_measured_is_no_finding(measured):
    assert recovery.smaller_findings(measured, [TOKENS]) == {}
    places = [recovery.PLACES["75"]]
    found = recovery.recovery_findings(measured, places, [TOKENS])
    assert found["recovered_wanda_75_2"].value == pytest.approx(0.0)
    assert found["recovered_paper_75_2"] is None
    assert found["after_wanda_75_2"].value == pytest.approx(2.0)

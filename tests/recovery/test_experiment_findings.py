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
    assert "recovered_paper_75_2" not in found
    assert found["after_wanda_75_2"].value == pytest.approx(2.0)


def test_levels_lie_above_the_dense_model_as_it_was_before_training():
    """So a pruned model falls by what it gained, and the dense one moves by what it lost."""
    at_75, at_2_4 = recovery.PLACES["75"], recovery.PLACES["2:4"]
    parts = []
    for asked, worse, gain in ((0, 0.0, 0.0), (TOKENS, 0.25, 1.5)):
        parts.append(losses(recovery.CONTROL, recovery.DENSE, asked, [4.0 + worse, 5.0 + worse]))
        parts.append(losses("wanda", at_75, asked, [6.0 - gain, 7.0 - gain]))
        parts.append(losses("wanda", at_2_4, asked, [4.5, 5.5]))
    taught = losses("wanda", at_75, TOKENS, [4.2, 5.2], taught=True)

    measured = pd.concat(parts, ignore_index=True)
    table = recovery.recovery_levels(measured, [at_75, at_2_4], [TOKENS], taught)
    values = table.set_index(["zeros", "recipe", "tokens"]).value.round(9).to_dict()
    both = {("dense", 0): 0.0, ("dense", TOKENS): 0.25}
    of_wanda = {("wanda", 0): 2.0, ("wanda", TOKENS): 0.5, ("wanda, taught", TOKENS): 0.2}
    expected = {(at_75.words, *key): value for key, value in {**both, **of_wanda}.items()}
    of_2_4 = {**both, ("wanda", 0): 0.5, ("wanda", TOKENS): 0.5}
    assert values == expected | {(at_2_4.words, *key): value for key, value in of_2_4.items()}

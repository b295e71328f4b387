"""The learning curve: the fit finds the power law that went in, and says how far more tokens bring it."""

import pytest

from sinkprune_companion.training.learning_curve import extrapolate, flops_per_token, tokens_per_hour
from sinkprune_core.costs import compute


def test_the_fit_finds_the_power_law_that_went_in_and_leaves_falling_rates_out(curve_log):
    found = extrapolate(curve_log(2.0, 0.5, 0.4), "nelbo", [2_000_000], needed=0.1, refits=3)
    assert found["points"] == 12 and found["residual"] < 1e-4
    for name, value in (("floor", 2.0), ("scale", 0.5), ("exponent", 0.4)):
        assert found[name]["value"] == pytest.approx(value, abs=1e-2)
    now = 1.25**-0.4
    assert found["now"] == 1_250_000
    assert found["gains"][0]["value"] == pytest.approx(0.5 * (now - 2**-0.4), abs=1e-3)
    # 0.5 nats times this to the -0.4 are 0.1 less
    assert found["tokens"]["value"] == pytest.approx(1e6 * (now - 0.2) ** -2.5, rel=0.02)


def test_noise_widens_the_interval(curve_log):
    calm, noisy = (
        extrapolate(curve_log(2.0, 0.5, 0.4, noise), "nelbo", [1e8], needed=0.6, refits=40)["gains"][0]
        for noise in (0.002, 0.02)
    )
    assert noisy["high"] - noisy["low"] > 3 * (calm["high"] - calm["low"]) > 0
    assert calm["low"] <= 0.5 * (1.25**-0.4 - 100**-0.4) <= calm["high"]


def test_what_lies_below_the_floor_is_never_reached(curve_log):
    found = extrapolate(curve_log(2.0, 0.5, 0.4), "nelbo", [1e8], needed=0.6, refits=3)
    assert found["tokens"] == {"value": None, "low": None, "high": None}


def test_three_parameters_need_five_rows():
    log = [{"tokens": step, "learning_rate": 1.0, "nelbo": 1.0} for step in range(1, 5)]
    with pytest.raises(ValueError, match="has 4 rows at its flat learning rate, and three parameters need 5"):
        extrapolate(log, "nelbo", [10.0], 0.1, 3)


def test_an_hour_trains_on_as_many_tokens_as_its_flops_pay_for(tiny_dlm):
    alone = flops_per_token(tiny_dlm, (8,))
    assert alone == 3 * compute.forward_cost(tiny_dlm, 8, 4).total / 8
    longer = flops_per_token(tiny_dlm, (32,))
    assert longer > alone  # attention grows with the square of the length
    assert flops_per_token(tiny_dlm, (8, 32)) == pytest.approx((alone + longer) / 2)
    assert tokens_per_hour(tiny_dlm, (8,)) == pytest.approx(compute.SPEED * 3600 / alone)

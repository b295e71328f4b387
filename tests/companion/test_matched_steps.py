"""Pruned models beside the dense one in fewer steps: what is matched costs no more, and pairs are paired."""

import pandas as pd
import pytest
import torch

from sinkprune_companion.experiments import compute, matched_steps
from sinkprune_companion.experiments.matched_steps import FLOPS_OF_UNSTRUCTURED, at

STEPS = [4, 8]


@pytest.fixture
def costs(run, make_lm, make_ids):
    return matched_steps.step_costs(
        run, make_lm("diffusion", "gqa-24"), "f", make_ids(1, 16), 0.5, STEPS, batch=2
    )


def test_the_dense_model_takes_as_many_steps_as_cost_no_more(costs):
    dense, pruned = costs.flops["dense"], costs.flops["unstructured"]
    for count, of_dense in zip(STEPS, costs.matched[FLOPS_OF_UNSTRUCTURED], strict=True):
        assert dense[of_dense] <= pruned[count] < dense[of_dense + 1]
    assert costs.matched.steps.tolist() == STEPS
    assert (costs.relative.dense == 1).all()
    assert list(costs.totals.index) == ["dense", "unstructured", "2:4", "structured"]
    assert costs.totals.effective_flops["unstructured"] < costs.totals.effective_flops["dense"]


def test_time_is_measured_once_and_read_then(run, make_lm, make_ids, costs, monkeypatch):
    monkeypatch.setattr(compute, "latency", None)
    again = matched_steps.step_costs(
        run, make_lm("diffusion", "gqa-24"), "f", make_ids(1, 16), 0.5, STEPS, batch=2
    )
    pd.testing.assert_frame_equal(again.seconds, costs.seconds)


def test_a_difference_to_fewer_steps_is_a_mean_over_numbers_of_steps():
    """Losses that are known: the pruned model's is 5 at every step, the dense model's its number of steps."""
    rows = [("pruned", count, 5.0, 100) for count in STEPS]
    rows += [("dense", count, float(count), 0) for count in (1, 2, 3)] + [("dense", 0, 0.5, 0)]
    scores = pd.DataFrame(
        [
            {"variant": name, "steps": steps, "value": value + sequence, "sequence": sequence, "seed": 0}
            | {"calibration_tokens": tokens}
            for name, steps, value, tokens in rows
            for sequence in range(3)
        ]
    )
    matched = pd.DataFrame({"steps": STEPS, FLOPS_OF_UNSTRUCTURED: [1, 3]})
    estimate = matched_steps.minus_fewer_steps(scores, matched, "pruned", FLOPS_OF_UNSTRUCTURED)
    assert estimate.value == pytest.approx(5 - (1 + 3) / 2)

    named = scores.assign(variant=scores.variant.replace("pruned", "unstable"))
    found = matched_steps.findings(named, matched, baselines=[], structured=[])
    at_each = [found[f"pruned_minus_dense_steps_{count}"].value for count in STEPS]
    assert at_each == pytest.approx([5 - 1, 5 - 3])
    assert found["pruned_minus_dense_steps"].value == pytest.approx(sum(at_each) / 2)

    renamed = scores.assign(variant=scores.variant.replace("pruned", "own-recipe"))
    both = pd.concat([named, renamed[renamed.variant == "own-recipe"]])
    found = matched_steps.findings(both, matched, baselines=[], structured=[], in_steps=["own-recipe"])
    for ending in ("", *(f"_{count}" for count in STEPS)):
        same = f"minus_dense_steps{ending}"
        assert found[f"own_recipe_{same}"] == found[f"pruned_{same}"]

    seconds = pd.DataFrame({"dense": [1.0, 1.0], "unstructured": [2.0, 2.0]})
    flops = {"dense": {1: 1e12, 2: 2e12, 3: 3e12}, "unstructured": {4: 4e12, 8: 8e12}}
    costs = matched_steps.StepCosts(pd.DataFrame(), seconds, 2, flops, matched)
    drawn = matched_steps.front(scores, costs, structured=[]).set_index(["variant", "steps"])
    assert drawn.excess["pruned", 4] == pytest.approx(4.5) and drawn.excess["dense", 2] == pytest.approx(1.5)
    assert drawn.tflop["pruned", 8] == 8 and drawn.seconds["pruned", 8] == 8
    assert at("dense", torch.tensor(3)) == {"variant": "dense", "steps": 3}

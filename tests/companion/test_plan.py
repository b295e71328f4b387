"""The plan of notebook 10 pairs what differs in one thing, and says what its evaluation could show."""

import numpy as np
import pytest
from scipy import stats

from sinkprune_companion.ledger import plan
from sinkprune_companion.ledger.plan import Plan

LLADA = "GSAI-ML/LLaDA-8B-Base"
DREAM = "Dream-org/Dream-v0-Base-7B"


def test_recommended_gets_half_as_many_sequences_since_it_reads_each_twice():
    made = Plan(LLADA, "sparsegpt", 0.5)
    tokens = {
        preset: made.result(preset, count).pruning().tokens
        for preset, count in {"recommended": plan.HALF, "wanda": plan.SEQUENCES}.items()
    }
    assert tokens["recommended"] == tokens["wanda"]
    (prune, _evaluate) = made.commands(5)["recommended, 64 sequences"]
    assert "--sequences 64" in prune


@pytest.mark.parametrize("model", [LLADA, DREAM])
def test_every_draw_prunes_each_control_into_a_folder_of_its_own(model):
    made = Plan(model, "wanda", 0.5)
    lines = made.commands(3)["3 calibration draws of what differs in sinks alone"]
    assert lines[0] == "for seed in 0 1 2; do" and lines[-1] == "done"

    prunings = [line for line in lines if " prune " in line]
    assert len(prunings) == len(made.controls)
    for preset, line in zip(made.controls, prunings, strict=True):
        folder = f"{made.result(preset, plan.MATCHED).folder}-$seed"
        assert f"--out {folder} --seed $seed" in line
        assert any(f"evaluate {folder} " in other and f"--json {folder}.json" in other for other in lines)


def test_what_could_be_seen_is_seen_in_four_of_five_simulated_evaluations():
    share, items, trials = 0.2, [300, 500], 4000
    points = plan.detectable_points(share, items)
    rng = np.random.default_rng(0)

    means, variances = [], []
    for count in items:  # an item counts 1, -1 or 0: one model alone is right, or the other, or neither
        better = (share + points / 100) / 2
        drawn = rng.choice([1, -1, 0], p=[better, share - better, 1 - share], size=(trials, count))
        means.append(drawn.mean(axis=1))
        variances.append(drawn.var(axis=1) / count)

    error = np.sqrt(sum(variances)) / len(items)
    is_seen = np.mean(means, axis=0) / error > stats.norm.ppf(0.975)
    assert is_seen.mean() == pytest.approx(0.8, abs=0.03)


def test_the_items_that_are_needed_show_just_these_points():
    items = plan.needed_items(0.1, 0.48)
    assert plan.detectable_points(0.1, [items]) == pytest.approx(0.48, rel=1e-4)
    assert plan.published_gain() == pytest.approx(0.48)


def test_a_model_without_published_numbers_has_no_table():
    assert plan.published_tables(DREAM) == []
    numbers, gains, *_ = plan.published_tables(LLADA)
    assert gains.loc[("sink-aware Wanda − Wanda", 0.5), "average"] == pytest.approx(0.48)
    assert numbers.loc[(0.5, "Wanda"), "average"] == pytest.approx(52.70)

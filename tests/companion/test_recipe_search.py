"""Recipes of notebook 09: every combination once, on as many tokens, and the best of a table."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments import recipe_search
from sinkprune_companion.experiments.scoring import above_dense
from sinkprune_companion.run.records import Run
from sinkprune_core.calibration.text import Calibration, trajectory

TOKENS = 16  # in sequences
PARTS = {
    "factorial": recipe_search.factorial(0.75, TOKENS, 8),
    "schedules": recipe_search.schedules(0.75, 20, 8),
    "candidates": recipe_search.candidates("60", TOKENS, 8),
    "pattern": recipe_search.candidates("2:4", TOKENS, 8),
}


@pytest.mark.parametrize("part", PARTS)
def test_names_are_different_and_rows_as_many_as_can_be(part):
    entries = PARTS[part]
    assert len({entry.name for entry in entries}) == len({entry.recipe for entry in entries}) == len(entries)
    tokens = 20 if part == "schedules" else TOKENS
    for entry in entries:
        states = entry.recipe.noise_levels if entry.recipe.inputs == "noised" else 1
        assert tokens - states < entry.sequences * states <= tokens


def test_the_search_is_every_combination_that_a_pattern_allows():
    assert len(PARTS["factorial"]) == 8 and len(PARTS["candidates"]) == 24 and len(PARTS["pattern"]) == 12
    assert {entry.place for entry in PARTS["candidates"]} == {"60 %"}
    assert {entry.place for entry in PARTS["pattern"]} == {"2:4"}
    assert recipe_search.BASELINE in {entry.name for entry in PARTS["candidates"]}
    assert {entry.recipe.allocation for entry in PARTS["pattern"]} == {"uniform"}


def test_main_effects_are_those_of_a_sum_of_switches():
    added = {"noised": -0.5, "dense": 0.2, "all": 0.03}
    values = {}
    for entry in PARTS["factorial"]:
        cost = sum(added.get(setting, 0) for setting in entry.name.split(", "))
        values[entry.name] = np.array([[1.0, 2.0]]) + cost
    effects = recipe_search.main_effects(values)
    for switch, size in (("noised", -0.5), ("dense", 0.2), ("sinks", 0.03)):
        assert effects[switch].tolist() == [[pytest.approx(size)] * 2]


def test_the_official_levels_below_1_are_the_same_states_without_the_last(tiny_dlm, make_ids):
    _, official, below = recipe_search.schedules(0.5, 30, 8)
    assert official.sequences == below.sequences == 3
    text = Calibration(make_ids(3, 24), seed=5)
    states = [trajectory(tiny_dlm, text, e.recipe.noise_levels, e.recipe.noise) for e in (official, below)]
    assert states[0][:, :9].equal(states[1])


def test_sparsegpt_has_random_tokens_and_the_damping_of_the_plain_run_as_controls():
    entries = recipe_search.sparsegpt_controls(0.75, 64)
    assert [entry.fixed_damping for entry in entries] == [False, False, False, True]
    assert [entry.recipe.exclude for entry in entries] == ["none", "official", "random", "official"]
    assert {entry.sequences for entry in entries} == {64}


def test_the_best_are_those_of_lowest_mean_at_each_place():
    rows = [("dense", "dense", 0.0), ("a", "50 %", 1.0), ("b", "50 %", 0.5), ("a", "50 %", 0.2)]
    rows += [("c", "50 %", 0.9), ("c", "2:4", 3.0), ("b", "2:4", 4.0)]
    scores = pd.DataFrame(rows, columns=["variant", "place", "value"])
    assert recipe_search.best(scores, 2) == {"50 %": ["b", "a"], "2:4": ["c", "b"]}


def test_measuring_gives_a_record_of_every_recipe_and_draw_and_no_more_work_the_second_time(
    tiny_dlm, make_ids, tmp_path, monkeypatch
):
    monkeypatch.setattr("sinkprune_companion.run.records.project_root", lambda: tmp_path)
    monkeypatch.setattr(
        recipe_search,
        "calibration_draw",
        lambda lm, count, length, seed: Calibration(make_ids(count, length, seed), seed),
    )
    run = Run("09_best_recipe", "test", {})
    entries = recipe_search.factorial(0.5, 4, 2)[::3] + recipe_search.sparsegpt_controls(0.5, 2)[2:]

    def measured() -> pd.DataFrame:
        parts = []
        for seed in (0, 1):
            for variant, labels in recipe_search.variants_on(run, tiny_dlm, "tiny", entries, 16, seed):
                with variant:
                    parts.append(
                        variant.scores(run, {"natural/crop": make_ids(4, 16)}, 1, noise=seed, **labels)
                    )
        return pd.concat(parts, ignore_index=True)

    scores = measured()
    above = above_dense(scores)
    assert set(above.variant) == {"dense", *(entry.name for entry in entries)}
    assert (above.groupby("variant").seed.nunique().drop("dense") == 2).all()
    monkeypatch.setattr("sinkprune_companion.experiments.variants.prune", None)  # what would prune again
    pd.testing.assert_frame_equal(scores, measured())

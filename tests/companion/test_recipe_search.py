"""Recipes of notebook 09: every combination once, on as many tokens, and the best of a table."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments import recipe_search
from sinkprune_companion.experiments.scoring import above_dense
from sinkprune_companion.run.records import Run
from sinkprune_core.calibration.text import Calibration

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


def test_main_effects_are_those_of_a_sum_of_switches():
    added = {"noised": -0.5, "dense": 0.2, "all": 0.03}
    values = {}
    for entry in PARTS["factorial"]:
        cost = sum(added.get(setting, 0) for setting in entry.name.split(", "))
        values[entry.name] = np.array([[1.0, 2.0]]) + cost
    effects = recipe_search.main_effects(values)
    for switch, size in (("noised", -0.5), ("dense", 0.2), ("sinks", 0.03)):
        assert effects[switch].tolist() == [[pytest.approx(size)] * 2]


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
    measures = recipe_search.Measures({"natural/crop": make_ids(4, 16)}, items={"blimp": 1})
    given = (run, tiny_dlm, "tiny", entries, measures, [0, 1])
    scores, answers = recipe_search.measure(*given)
    assert len(answers.drop_duplicates(["variant", "seed"])) == 2 * (1 + len(entries))
    above = above_dense(scores)
    assert set(above.variant) == {"dense", *(entry.name for entry in entries)}
    assert (above.groupby("variant").seed.nunique().drop("dense") == 2).all()
    monkeypatch.setattr("sinkprune_companion.experiments.variants.prune", None)  # what would prune again
    again, _ = recipe_search.measure(*given)
    pd.testing.assert_frame_equal(scores, again)

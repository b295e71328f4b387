"""The record of a recovered variant, and what is found in several."""

import math

import pandas as pd
import pytest
import torch

from sinkprune_companion.experiments import recovery
from sinkprune_companion.experiments.recovery import (
    PLACES,
    RECIPES,
    recovered_losses,
    recovered_scores,
    recovery_findings,
    recovery_rows,
    settings_of,
)
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.run import records
from sinkprune_companion.run.records import Run
from sinkprune_core import Calibration, preset


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)
    return Run("00_test", "p", {})


@pytest.fixture
def texts(make_ids):
    return {"natural/crop": make_ids(4, 12, seed=9)}


SETTINGS = {"batch": 4, "length": 12, "learning_rate": 3e-3}


def test_a_record_is_measured_once_and_leaves_the_model_as_it_was(run, make_lm, words, texts, calibration):
    lm = make_lm("diffusion", "gqa-24")
    fingerprint = lm.fingerprint()
    settings = settings_of(lm, 200, **SETTINGS)
    assert settings.steps == 4

    frames = []
    for _ in range(2):
        with Variant(lm, fingerprint, preset("wanda"), calibration) as variant:
            arguments = (settings, words, texts, 1, 0)
            frames.append(recovered_scores(run, variant, *arguments, variant="wanda"))
        assert lm.fingerprint() == fingerprint

    pd.testing.assert_frame_equal(*frames)
    assert len(list((run.records / "recovered").glob("*.csv"))) == 1

    frame = frames[0]
    assert frame.zeros.unique() == pytest.approx(0.5) and frame.tokens.unique() == 192
    assert (frame.held_out_after < frame.held_out_before).all()


def test_2_4_has_its_pattern_and_all_recipes_see_as_many_tokens():
    places = [PLACES[name] for name in ("50", "75", "2:4")]
    rows = recovery_rows(places, 16_384)
    assert [row.variant for row in rows] == [*RECIPES] * 3
    assert {row.recipe.pattern for row in rows if row.pattern == "2:4"} == {"2:4"}
    seen = {row.sequences * (row.recipe.noise_levels if row.recipe.inputs == "noised" else 1) for row in rows}
    assert max(seen) == 128 and min(seen) >= 120


def test_losses_before_and_after_compare_in_pairs(run, make_lm, words, make_ids, monkeypatch):
    lm = make_lm("diffusion", "gqa-24")
    texts = {"natural/crop": make_ids(4, 12, seed=9)}

    monkeypatch.setattr(recovery, "protocol_texts", lambda *_: texts)
    monkeypatch.setattr(recovery, "training_text", lambda *_: words)
    draw = lambda lm, sequences, length, seed: Calibration(make_ids(sequences, 12, seed), seed)  # noqa: E731
    monkeypatch.setattr(recovery, "protocol_draw", draw)

    rows = [row._replace(sequences=3) for row in recovery_rows([PLACES["50"]], 512)]
    parts = [
        recovered_losses(run, lm, lm.fingerprint(), rows, 4, seed, (1000,), **SETTINGS) for seed in range(2)
    ]

    losses = pd.concat(parts, ignore_index=True)
    found = recovery_findings(losses, [PLACES["50"]], (1000,))

    assert found["recovered_wanda_50_1"].draws == 2
    mean = losses.groupby(["variant", "asked"]).value.mean()

    expected = mean["wanda", 1000] - mean["wanda", 0]
    assert math.isclose(found["recovered_wanda_50_1"].value, expected, rel_tol=1e-6)

    assert found["paper_minus_wanda_50_0_recovered"] is not None
    assert found["recovered_dense_1"].value == pytest.approx(mean["dense", 1000] - mean["dense", 0])
    assert "after_paper_75_1" not in recovery_findings(losses, [PLACES["75"]], (1000,))
    assert torch.is_tensor(words.held_out_NT)


def test_a_model_with_a_teacher_is_compared_with_the_same_without_one_draw_by_draw(
    run, make_lm, words, make_ids, monkeypatch
):
    lm, teacher = make_lm("diffusion", "gqa-24"), make_lm("diffusion", "gqa-24")
    fingerprint = lm.fingerprint()
    texts = {"natural/crop": make_ids(4, 12, seed=9)}

    monkeypatch.setattr(recovery, "protocol_texts", lambda *_: texts)
    monkeypatch.setattr(recovery, "training_text", lambda *_: words)
    draw = lambda lm, sequences, length, seed: Calibration(make_ids(sequences, 12, seed), seed)  # noqa: E731
    monkeypatch.setattr(recovery, "protocol_draw", draw)

    (row,) = recovery_rows([PLACES["75"]], 512, recipes=["wanda"])
    row = row._replace(sequences=3)
    from_text = [
        recovered_losses(run, lm, fingerprint, [row], 4, seed, (1000,), **SETTINGS) for seed in range(3)
    ]
    taught = [
        recovery.taught_losses(run, lm, fingerprint, teacher, row, 4, seed, 1000, **SETTINGS)
        for seed in range(2)
    ]

    (estimate,) = recovery.taught_findings(pd.concat(from_text), pd.concat(taught)).values()
    assert estimate.draws == 2  # those that both have
    assert lm.fingerprint() == fingerprint

"""Records of a model without its sinks: paired scores, texts, what a judge says."""

from itertools import pairwise

import pandas as pd
import pytest
import torch

from sinkprune_companion.experiments import hiding_scores
from sinkprune_companion.run.records import Run
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.evaluation.likelihood import nelbo
from sinkprune_core.sinks.hiding import Hiding, hiding_model

KINDS = ("autoregressive", "diffusion")
SAMPLER = Sampler(length=8, steps=4, block=None, temperature=1.0)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr("sinkprune_companion.run.records.project_root", lambda: tmp_path)
    return Run("02_hiding_sinks", "test", {})


def test_records_of_scores_are_paired_with_the_dense_model(run, make_lm, make_ids, monkeypatch):
    lm, texts = make_lm("diffusion"), {"samples": make_ids(3, 16), "documentation": make_ids(2, 16, seed=1)}
    hidings = [Hiding("top", 2), Hiding("random", 2), Hiding("first", 1)]
    frame = hiding_scores.hiding_scores(run, lm, "f", hidings, texts, draws=2)

    def means_of(model):
        ids_NT = torch.cat(list(texts.values()))
        return nelbo(model, ids_NT, 2, hiding_scores.EVALUATION_SEED).groupby("sequence").value.mean()

    top, plain = means_of(hiding_model(lm, Hiding("top", 2))), means_of(lm)
    found = frame[frame.label == "strongest"].set_index("sequence")
    assert found.excess.to_numpy() == pytest.approx((top - plain).to_numpy(), abs=1e-6)
    assert (frame[frame["count"] == 0].excess == 0).all()
    assert set(frame.label) == {"none", "strongest", "random", "first token"}
    assert found.text.tolist() == ["samples"] * 3 + ["documentation"] * 2
    by_label = frame.groupby("label")
    assert by_label.attention.first()["none"] == 0
    assert 0 < by_label.attention.first()["random"] < found.attention.iloc[0] < 1
    assert by_label["first"].first()["first token"] == 1
    monkeypatch.setattr(hiding_scores, "score_texts", None)  # a second call reads
    pd.testing.assert_frame_equal(hiding_scores.hiding_scores(run, lm, "f", hidings, texts, draws=2), frame)


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_texts_say_what_changed_and_what_the_judge_thinks(run, make_lm, make_ids, kind):
    lm, judge, prompt_NT = make_lm(kind), make_lm("autoregressive", seed=3), make_ids(3, 8)
    fingerprints = {lm.name: "a", judge.name: "b"}
    frame = hiding_scores.hiding_texts(
        run, lm, judge, fingerprints, [Hiding("top", 2)], prompt_NT, SAMPLER, seed=0, batch=2
    )
    plain, hidden = (frame[frame["count"] == count].set_index("sequence") for count in (0, 2))

    def write(model):
        if model.is_diffusion:
            return generate(model, prompt_NT, SAMPLER, 0)
        return decode(model, prompt_NT, 8, 1.0, 0)

    before_NT, after_NT = write(lm), write(hiding_model(lm, Hiding("top", 2)))
    changed_N = (before_NT != after_NT)[:, 8:].double().mean(1)
    assert hidden.changed.tolist() == pytest.approx(changed_N.tolist())
    assert hidden.changed.max() > 0
    assert (plain.changed == 0).all() and (plain.excess == 0).all()
    log_p_NTV = judge.head(judge.hidden(after_NT)).log_softmax(-1)
    expected = [
        -sum(float(log_p_NTV[row, place - 1, after_NT[row, place]]) for place in range(8, 16)) / 8
        for row in range(3)
    ]
    assert hidden.value.tolist() == pytest.approx(expected, abs=1e-4)
    distinct = [len(set(pairwise(row[8:]))) / 7 for row in after_NT.tolist()]
    assert hidden.distinct.tolist() == distinct

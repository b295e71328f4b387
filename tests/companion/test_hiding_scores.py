"""Records of a model without its sinks: scores paired with the dense model's."""

import pandas as pd
import pytest
import torch

from sinkprune.evaluation.likelihood import nelbo
from sinkprune_companion.experiments import hiding_scores
from sinkprune_core import Sampler
from sinkprune_core.sinks.hiding import Hiding, hiding_model


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


@pytest.mark.parametrize("length", [1, 2])
def test_records_of_texts_are_read_back_however_short_they_are(run, make_lm, make_ids, length, monkeypatch):
    lm, judge = make_lm("diffusion"), make_lm("autoregressive", seed=1)
    sampler = Sampler(length, length, None)
    given = (run, lm, judge, {lm.name: "f", judge.name: "g"}, [Hiding("top", 2)], make_ids(3, 8))
    frame = hiding_scores.hiding_texts(*given, sampler, seed=0)
    written = frame.tokens.astype(str).str.split().tolist()
    assert [len(tokens) for tokens in written] == [length] * 6
    differing = [one != other for one, other in zip(written[3:], written[:3], strict=True)]
    assert [share > 0 for share in frame.changed] == [False] * 3 + differing
    monkeypatch.setattr(hiding_scores, "exact_log_likelihood", None)  # a second call reads
    pd.testing.assert_frame_equal(hiding_scores.hiding_texts(*given, sampler, seed=0), frame)

"""Records of a model without its sinks: scores paired with the dense model's."""

import pandas as pd
import pytest
import torch

from sinkprune.evaluation.likelihood import nelbo
from sinkprune_companion.experiments import hiding_scores
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

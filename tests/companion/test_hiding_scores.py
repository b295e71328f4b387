"""Records of a model without its sinks: scores paired with the dense model's."""

import numpy as np
import pandas as pd
import pytest
import torch

from sinkprune.evaluation.likelihood import nelbo
from sinkprune_companion.experiments import hiding_scores
from sinkprune_companion.experiments.sink_conditions import Condition
from sinkprune_companion.hiding import Hiding, hiding_model


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


def test_panels_show_what_is_left_of_attention_in_every_layer(make_lm, make_ids, monkeypatch):
    lm = make_lm("autoregressive")
    ids_1T = make_ids(1, 16)
    dense, everywhere, middle = hiding_scores.layer_panels(lm, ids_1T, count=2)
    assert dense["profile_SK"].shape == (len(lm.blocks), 8), "keys of the first half"

    hidden = dense["profile_SK"].mean(0).argsort()[-2:]
    assert (dense["profile_SK"][:, hidden] > 0.1).all()
    assert np.allclose(everywhere["profile_SK"][:, hidden], 0), "later queries do not see them"
    untouched = [
        layer
        for layer in range(len(lm.blocks))
        if not Hiding(layers="middle").hides_in(layer, len(lm.blocks))
    ]
    inside = sorted(set(range(len(lm.blocks))) - set(untouched))
    assert np.allclose(middle["profile_SK"][inside][:, hidden], 0)
    assert (middle["profile_SK"][untouched][:, hidden] > 0.1).all()
    assert not everywhere["visible_SK"][:, hidden].any() and dense["visible_SK"].all(), "hidden keys are grey"

    assert dense["named"] == middle["named"] == hidden.tolist()[::-1], "the hidden keys, the strongest first"
    assert everywhere["named"] == [everywhere["profile_SK"].mean(0).argmax()], "the key that takes over"

    monkeypatch.setattr(hiding_scores, "TAKES_OVER", 0.0)
    _, everywhere, _ = hiding_scores.layer_panels(lm, ids_1T, count=2)
    assert len(everywhere["named"]) == 8 - 2, "all that get more than so many times the mean"


def test_the_panel_of_a_diffusion_model_has_the_first_half_of_the_text_asked_by_itself(make_lm, make_ids):
    lm = make_lm("diffusion")
    ids_1T = make_ids(1, 16)
    dense, everywhere, _ = hiding_scores.layer_panels(lm, ids_1T, count=2)
    assert dense["profile_SK"].shape == (len(lm.blocks), 8)
    assert np.allclose(dense["profile_SK"].mean(1), 1), "all attention stays among the keys that are shown"
    assert (~everywhere["visible_SK"]).sum(1).tolist() == [2] * len(lm.blocks)


def test_conditions_are_named_and_a_special_first_token_is_context(run, make_lm, monkeypatch):
    texts = {}

    def crops(tokenizer, condition, count, length, seed=0):
        tokens = length + condition.first_token
        texts[condition] = torch.arange(count * tokens).view(count, tokens) % 40
        return {"natural": texts[condition]}

    monkeypatch.setattr(hiding_scores.sink_conditions, "prompts", crops)
    main, first, longer = Condition(tokens=16), Condition(first_token=True, tokens=16), Condition(tokens=32)
    hidings = [Hiding("top", 2), Hiding("top", 6)]
    for condition, names in (
        (main, {"natural English, 16 tokens"}),
        (
            first,
            {
                "<|endoftext|> + natural English, 16 tokens",
                "<|endoftext|> + natural English, 16 tokens, 6 keys",
            },
        ),
        (longer, {"natural English, 32 tokens", "natural English, 32 tokens, 6 keys"}),
    ):
        given = (run, make_lm("autoregressive"), "f", condition, main, hidings)
        frame = hiding_scores.condition_scores(*given, sequences=2, draws=1)
        assert set(frame.what) == names
        assert set(frame.condition) == {condition.name(main) or "main"}

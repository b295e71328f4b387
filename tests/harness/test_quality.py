"""How good a model is beside its twin: measures agree with loops over naive code, and all are paired."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from sinkprune_companion.harness import quality
from sinkprune_core.corpus import separator
from sinkprune_core.diffusion.noise import random_mask
from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.models.embedded import MASK_TOKEN_ID
from sinkprune_core.seeds import generator

# filling masks


def test_filling_equals_a_naive_loop(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(3, 9)
    found = quality.filling(tiny_dlm, tiny_ar, ids_NT, shares=(0.25, 1.0), seed=4, batch=2).set_index(
        ["model", "share", "sequence"]
    )
    for share, masks in ((0.25, 2), (1.0, 8)):
        for sequence, ids_T in enumerate(ids_NT):
            where_T = random_mask(torch.arange(9) > 0, masks, generator(4, "filling", sequence))
            for lm, input_T in ((tiny_dlm, torch.where(where_T, MASK_TOKEN_ID, ids_T)), (tiny_ar, ids_T)):
                log_p_TV = lm.model(input_T[None], use_cache=False).logits[0].log_softmax(-1)
                places = [place for place in range(9) if where_T[place]]
                hits = [int(log_p_TV[place - 1].argmax()) == int(ids_T[place]) for place in places]
                row = found.loc[lm.name, share, sequence]
                assert row.masks == len(places) == masks and row.kind == lm.kind
                assert row.correct == pytest.approx(np.mean(hits))
                assert row.value == pytest.approx(
                    np.mean([-float(log_p_TV[place - 1, ids_T[place]]) for place in places]), rel=1e-5
                )


def test_filling_depends_on_the_seed_and_not_on_the_batch(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(5, 12)
    one, other, another = (
        quality.filling(tiny_dlm, tiny_ar, ids_NT, shares=(0.5,), seed=seed, batch=batch)
        for seed, batch in ((0, 1), (0, 5), (1, 5))
    )
    pd.testing.assert_frame_equal(one, other, rtol=1e-5)
    assert not np.allclose(one.value, another.value)


def test_with_everything_masked_the_twin_is_scored_on_every_token(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(4, 7)
    found = quality.filling(tiny_dlm, tiny_ar, ids_NT, shares=(1.0,))
    assert (found.masks == 6).all()
    assert found[found.kind == "autoregressive"].value.to_numpy() == pytest.approx(
        nll(tiny_ar, ids_NT).value.to_numpy(), rel=1e-5
    )


def test_filling_refuses_models_and_shares_that_cannot_be(tiny_dlm, tiny_ar, make_ids):
    with pytest.raises(
        ValueError,
        match="tiny-autoregressive is autoregressive and tiny-diffusion is diffusion: filling compares",
    ):
        quality.filling(tiny_ar, tiny_dlm, make_ids(2, 5))
    with pytest.raises(ValueError, match=r"shares=\[0, 1\.5\] must lie in \(0, 1\]"):
        quality.filling(tiny_dlm, tiny_ar, make_ids(2, 5), shares=(0, 0.5, 1.5))


# noise levels, and everything together


def test_levels_equal_loops_and_their_mean_is_the_nelbo(tiny_dlm, make_ids):
    # of 8 maskable tokens: one draw of each sequence in every quarter
    scores = nelbo(tiny_dlm, make_ids(6, 9), draws=4, seed=2)
    found = quality.by_level(scores, parts=4)
    assert list(found) == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    for (low, high), estimate in found.items():
        assert estimate.value == pytest.approx(
            np.mean([row.value for row in scores.itertuples() if low < row.noise <= high])
        )
        assert estimate.units == 6
    assert np.mean([estimate.value for estimate in found.values()]) == pytest.approx(scores.value.mean())
    assert list(quality.by_level(scores[scores.noise > 0.5], parts=4)) == [(0.5, 0.75), (0.75, 1.0)]


def answers(pairs, margins, correct) -> pd.DataFrame:
    """Answers of a model to the items of a task with one group."""
    return pd.DataFrame(
        {
            "group": "g",
            "pair": pairs,
            "template": 0,
            "margin": margins,
            "margin_mean": 1.0,
            "correct": correct,
        }
    )


def test_measures_are_paired_and_tasks_of_single_items_have_no_pairs(tiny_dlm, tiny_ar, make_ids):
    texts = {"samples": make_ids(4, 9, seed=1), "another": make_ids(3, 9, seed=2)}

    def alone(lm):
        return answers(range(4), 1.0, [lm.is_diffusion, True, True, True])

    def twice(lm):
        return answers([0, 0, 1, 1], [1.0, -2.0, 1.0, 1.0], [True, False, True, True])

    rows = quality.measure(tiny_dlm, tiny_ar, texts, {"alone": alone, "twice": twice}, draws=4, seed=3)
    value = {(row["measure"], row["on"], str(row["level"]), row["model"]): row["value"] for row in rows}
    dlm, ar = tiny_dlm.name, tiny_ar.name
    for name, ids_NT in texts.items():
        bound = nelbo(tiny_dlm, ids_NT, 4, 3).value.mean()
        exact = nll(tiny_ar, ids_NT).value.mean()
        assert value["likelihood", name, "None", dlm] == pytest.approx(bound)
        assert value["likelihood", name, "None", "difference"] == pytest.approx(bound - exact)
        assert ("level", name, "[0.0, 0.25]", dlm) in value
        assert ("correct", name, "0.85", ar) in value
    assert (value["items", "alone", "all", dlm], value["items", "alone", "all", ar]) == (1, 0.75)
    assert (value["items", "twice", "g", ar], value["pairs", "twice", "g", ar]) == (0.75, 0.5)
    assert not [key for key in value if key[:2] == ("pairs", "alone")]
    json.dumps(rows, allow_nan=False)


def test_samples_are_the_same_for_a_seed_and_as_many_as_asked_for(tiny_dlm, monkeypatch):
    monkeypatch.setattr(quality, "SAMPLE_TOKENS", 32)
    arguments = {"prompts": ["the list of"], "steps": (8, 32)}
    found = quality.samples(tiny_dlm, **arguments)
    assert [(each["prompt"], each["steps"]) for each in found] == [("the list of", 8), ("the list of", 32)]
    assert found == quality.samples(tiny_dlm, **arguments) != quality.samples(tiny_dlm, **arguments, seed=1)


def test_minimal_pairs_are_scored_as_whole_sentences(tiny_ar):
    pairs = [
        {"sentence_good": "the list of names", "sentence_bad": "list the names of"},
        {"sentence_good": "a value", "sentence_bad": "value a"},
    ]
    start = separator(tiny_ar.tokenizer)

    def naive(text: str) -> float:
        ids_T = torch.cat([torch.tensor([start]), tiny_ar.encode(f" {text}")])
        log_p_TV = tiny_ar.model(ids_T[None]).logits[0].double().log_softmax(-1)
        return float(log_p_TV[:-1].gather(1, ids_T[1:, None]).sum())

    margin = quality.minimal_pairs({"p": pairs}, draws=1)(tiny_ar).margin
    assert margin.tolist() == pytest.approx(
        [naive(pair["sentence_good"]) - naive(pair["sentence_bad"]) for pair in pairs], abs=1e-4
    )

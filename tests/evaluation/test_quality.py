"""Filling masks beside the twin, and minimal pairs, agree with loops over naive code."""

import model_card
import numpy as np
import pytest
import torch

from sinkprune.corpus import separator
from sinkprune.evaluation import suite, two_choice
from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune_core.diffusion.noise import random_mask
from sinkprune_core.seeds import generator

# filling masks


def test_filling_equals_a_naive_loop(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(3, 9)
    found = model_card.filled(tiny_dlm, tiny_ar, ids_NT, seed=4, shares=(0.25, 1.0), batch=2).set_index(
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

    items = suite.minimal_pairs(tiny_ar.tokenizer, {"p": pairs})
    margin = two_choice.accuracy(tiny_ar, items, draws=1).margin
    assert margin.tolist() == pytest.approx(
        [naive(pair["sentence_good"]) - naive(pair["sentence_bad"]) for pair in pairs], abs=1e-4
    )

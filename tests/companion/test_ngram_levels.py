"""Unigram and bigram levels: distributions that add up, and numbers of a naive calculation."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sinkprune_companion import corpus
from sinkprune_companion.experiments.ngram_levels import NgramModel, ngram_levels

SIZE = 12
STREAM = [0, 3, 4, 3, 5, 0, 3, 4, 7, 7, 7, 3]


@pytest.fixture
def model() -> NgramModel:
    return NgramModel(torch.tensor(STREAM), SIZE)


def naive_unigram(token: int) -> float:
    types = len(set(STREAM))
    return (STREAM.count(token) + types / SIZE) / (len(STREAM) + types)


def naive_bigram(before: int, token: int) -> float:
    followers = [second for first, second in pairwise(STREAM) if first == before]
    if not followers:
        return naive_unigram(token)
    share = len(followers) / (len(followers) + len(set(followers)))
    return share * followers.count(token) / len(followers) + (1 - share) * naive_unigram(token)


def test_every_distribution_adds_up_to_one(model):
    every = np.arange(SIZE)
    assert model.unigram(every).sum() == pytest.approx(1)
    for before in every:  # tokens that were never seen among them
        assert model.bigram(np.full(SIZE, before), every).sum() == pytest.approx(1)


def test_probabilities_are_those_of_a_naive_calculation(model):
    for before in range(SIZE):
        for token in range(SIZE):
            assert model.unigram(np.array([token]))[0] == pytest.approx(naive_unigram(token))
            given = model.bigram(np.array([before]), np.array([token]))[0]
            assert given == pytest.approx(naive_bigram(before, token))


def test_levels_are_mean_surprises_of_all_tokens_but_the_first(monkeypatch):
    monkeypatch.setattr(corpus, "source_stream", lambda source, tokenizer, held_out: torch.tensor(STREAM[:6]))
    monkeypatch.setattr(corpus, "SOURCES", ("one",))
    stream = NgramModel(torch.tensor(STREAM[:6]), SIZE)
    table = ngram_levels(range(SIZE), {"natural/crop": torch.tensor([[1, 3, 4], [5, 0, 0]])})
    (row,) = table.to_dict("records")
    assert row["text"] == "natural/crop" and row["tokens"] == 4
    pairs = [(1, 3), (3, 4), (5, 0), (0, 0)]
    unigram = [-math.log(stream.unigram(np.array([token]))[0]) for _, token in pairs]
    bigram = [-math.log(stream.bigram(np.array([one]), np.array([other]))[0]) for one, other in pairs]
    assert row["unigram"] == pytest.approx(np.mean(unigram)) and row["bigram"] == pytest.approx(
        np.mean(bigram)
    )

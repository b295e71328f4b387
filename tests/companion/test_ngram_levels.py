"""Unigram and bigram levels: numbers of a naive calculation."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from sinkprune_companion.experiments.ngram_levels import NgramModel

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


def test_probabilities_are_those_of_a_naive_calculation(model):
    for before in range(SIZE):
        for token in range(SIZE):
            assert model.unigram(np.array([token]))[0] == pytest.approx(naive_unigram(token))
            given = model.bigram(np.array([before]), np.array([token]))[0]
            assert given == pytest.approx(naive_bigram(before, token))

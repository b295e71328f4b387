"""The shipped samples of the embedded model, and the script that draws them: as a naive sampler does."""

import importlib.util
import itertools
import math
from pathlib import Path

import torch
from safetensors.torch import load_file

from sinkprune_companion.corpus import SAMPLES
from sinkprune_core.models.embedded import START_TOKEN_ID
from sinkprune_core.seeds import generator

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "ar_samples.py"
spec = importlib.util.spec_from_file_location("ar_samples", SCRIPT)
ar_samples = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ar_samples)
sample_batch = ar_samples.sample_batch
RESERVED = ar_samples.RESERVED


def test_samples_equal_a_naive_sampler(tiny_ar):
    samples_BT = sample_batch(tiny_ar, 12, first=3, count=4, seed=5)
    assert samples_BT.shape == (4, 12) and samples_BT.dtype == torch.int64
    for row in range(4):
        turn = [1, 17]  # <|im_start|> assistant
        uniform = torch.rand(13, generator=generator(5, "ar-sample", 3 + row)).tolist()
        ids = list(turn)
        for position in range(2, 13):
            logits = tiny_ar.model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().tolist()
            allowed = [token for token in range(72) if not 3 <= token < 17]
            ranked = sorted(allowed, key=lambda token: -logits[token])[:50]
            weights = [math.exp(logits[token] - logits[ranked[0]]) for token in ranked]
            cumulative = list(itertools.accumulate(weight / sum(weights) for weight in weights))
            reached = [place for place, upto in enumerate(cumulative) if upto >= uniform[position]]
            ids.append(ranked[reached[0]] if reached else ranked[-1])
        assert samples_BT[row].tolist() == [START_TOKEN_ID, *ids[2:]]


def test_a_sample_does_not_depend_on_its_batch(tiny_ar):
    together_BT = sample_batch(tiny_ar, 16, 0, 6, seed=1)
    assert torch.equal(
        torch.cat([sample_batch(tiny_ar, 16, first, 2, seed=1) for first in (0, 2, 4)]), together_BT
    )
    assert torch.equal(sample_batch(tiny_ar, 16, 5, 1, seed=1), together_BT[5:])
    assert torch.equal(
        sample_batch(tiny_ar, 9, 0, 6, seed=1), together_BT[:, :9]
    )  # a longer sample begins as the shorter one
    assert len(set(map(tuple, together_BT.tolist()))) == 6
    assert not torch.equal(sample_batch(tiny_ar, 16, 0, 6, seed=2), together_BT)


def test_the_shipped_samples_are_whole():
    stored_NT = load_file(SAMPLES)["ids"]
    assert stored_NT.dtype == torch.uint16 and stored_NT.shape == (ar_samples.COUNT, ar_samples.LENGTH)
    ids_NT = stored_NT.long()
    assert (ids_NT[:, 0] == START_TOKEN_ID).all()
    assert not ((ids_NT >= RESERVED.start) & (ids_NT < RESERVED.stop)).any()
    assert len(set(map(tuple, ids_NT.tolist()))) == len(ids_NT)

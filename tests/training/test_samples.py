"""The shipped samples of the embedded model, and the script that draws them: as a naive sampler does."""

import importlib.util
import itertools
import math
from pathlib import Path

import torch
from safetensors.torch import load_file

from sinkprune_core.corpus import SAMPLES
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


def test_the_shipped_samples_are_whole():
    stored_NT = load_file(SAMPLES)["ids"]
    assert stored_NT.dtype == torch.uint16 and stored_NT.shape == (ar_samples.COUNT, ar_samples.LENGTH)
    ids_NT = stored_NT.long()
    assert (ids_NT[:, 0] == START_TOKEN_ID).all()
    assert not ((ids_NT >= RESERVED.start) & (ids_NT < RESERVED.stop)).any()
    assert len(set(map(tuple, ids_NT.tolist()))) == len(ids_NT)

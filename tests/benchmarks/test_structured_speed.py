"""Processor time of the embedded pair, shrunk by structured pruning against dense, measured in one run."""

import statistics
import time

import pytest
import torch

from sinkprune_core.models.loading import load
from sinkprune_core.pruning.shrink import shrink
from sinkprune_core.pruning.structured import choose, plan, scores

RATIO, BATCH, LENGTH, PAIRS = 0.5, 8, 128, 7


@pytest.mark.parametrize("name", ["smol-ar", "smol-dlm"])
def test_half_of_the_weights_needs_at_most_three_fifths_of_the_time(name, record):
    lm = load(name)
    planned = plan(lm, RATIO)
    kept = []
    for block in lm.blocks:
        unit_scores = scores(lm, block, "magnitude")
        kept.append({kind: choose(score_U, planned.removed[kind]) for kind, score_U in unit_scores.items()})
    smaller = shrink(lm, kept)
    ids_BT = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH) % 40000 + 20

    def seconds(model) -> float:
        begun = time.process_time()
        model.hidden(ids_BT)
        return time.process_time() - begun

    with torch.inference_mode():
        seconds(lm), seconds(smaller)
        pairs = [(seconds(lm), seconds(smaller)) for _ in range(PAIRS)]
    ratio = statistics.median(after / before for before, after in pairs)
    dense, shrunk = (statistics.median(times) for times in zip(*pairs, strict=True))
    assert record(
        f"time of a forward of {name} with {planned.reached:.2%} of its block weights gone as whole units, "
        f"{BATCH} x {LENGTH} tokens",
        ratio,
        dense,
        shrunk,
        ("dense", "shrunk"),
        at_most=0.6,
    )

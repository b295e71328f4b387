"""What is left out beside stable sinks: as many random tokens at every step."""

import pytest
import torch

from sinkprune_companion.experiments import stable_sinks
from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import SinkContext, heads_of, token_weights

LEVELS = 4
SPARSITY = 0.5


@pytest.fixture
def lm(make_anchored_lm):
    return make_anchored_lm("diffusion")


@pytest.fixture
def text(make_text_with_separators) -> Calibration:
    return make_text_with_separators(6)


@pytest.fixture
def by_name(lm):
    return stable_sinks.recipes(SPARSITY, LEVELS, stability_threshold=0.3)


def test_as_many_random_tokens_as_stable_sinks_leave_at_every_step(lm, by_name, text):
    profiles = sink_profiles(lm, text, LEVELS, progress=False)
    counts = {}

    for name in ("stable", "random, as many as stable"):
        key = by_name[name].statistics_key
        weight_RT = token_weights(SinkContext(*profiles, key, heads_of(lm), text.seed))
        counts[name] = (weight_RT == 0).sum(1)
        alone = SinkContext(profiles[0][2:3], profiles[1], key, heads_of(lm), text.seed, 2)
        assert torch.equal(token_weights(alone), weight_RT[2 * LEVELS : 3 * LEVELS])

    assert torch.equal(*counts.values()) and counts["stable"].sum() > 0

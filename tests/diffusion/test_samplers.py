"""Samplers: how many tokens each step reveals, the published settings, and settings that cannot work."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_sampler import naive_reveals

from sinkprune.evaluation.protocols import SAMPLERS
from sinkprune_core.diffusion.samplers import DREAM_SAMPLER, LLADA_SAMPLER, Sampler, Schedule


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    blocks=st.integers(1, 5),
    width=st.integers(1, 12),
    per_block=st.integers(1, 20),
    schedule=st.sampled_from(get_args(Schedule)),
)
def test_reveals_agree_with_a_naive_count_and_sum_to_the_length(blocks, width, per_block, schedule):
    if schedule == "even" and per_block > width:
        per_block = width
    sampler = Sampler(blocks * width, blocks * per_block, width, schedule=schedule)
    counts = sampler.reveals()
    assert counts == naive_reveals(sampler)
    assert len(counts) == sampler.steps and min(counts) >= 0
    for block in range(blocks):
        assert sum(counts[block * per_block : (block + 1) * per_block]) == width


def test_the_published_samplers_and_schedules():
    assert SAMPLERS["llada"].reveals() == [1] * 128
    assert sum(SAMPLERS["dream"].reveals()) == 512
    assert SAMPLERS["dream"].order == "entropy"
    assert SAMPLERS["dream"].top_p == 0.95

    assert LLADA_SAMPLER.reveals() == [2] * 48
    assert DREAM_SAMPLER.blocks == 1 and sum(DREAM_SAMPLER.reveals()) == 96

    assert Sampler(5, 3, None).reveals() == [2, 2, 1]
    in_time = Sampler(8, 4, None, schedule="time")
    assert in_time.reveals() == [1, 2, 2, 3]  # 8 (1/4), 7 (1/3), 5 (1/2), what is left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"order": "left"}, "order='left' must be 'low_confidence', 'entropy' or 'random'"),
        ({"length": 96, "block": 36}, "length=96 is not a multiple of block=36"),
        ({"length": 96, "block": 32, "steps": 50}, "steps=50 cannot be shared by 3 blocks"),
        ({"length": 8, "block": None, "steps": 9}, "steps=9 exceed the 8 tokens"),
        ({"proposal": "filtered", "top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 0.9}, "top_p=0.9 and top_k=None need proposal='filtered'"),
    ],
)
def test_a_sampler_that_cannot_work_is_refused_with_its_value(arguments, said):
    with pytest.raises(ValueError, match=said):
        Sampler(**arguments)

"""The forward process: exact counts of masks, at random places, over all noise levels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkprune_core.diffusion.noise import corrupt, even_split, random_mask, stratified_counts
from sinkprune_core.seeds import generator


@settings(max_examples=40, deadline=None, derandomize=True)
@given(free=st.lists(st.booleans(), min_size=1, max_size=30), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_random_mask_has_exactly_the_count_and_stays_inside(free, share, seed):
    maskable_T = torch.tensor(free)
    count = round(share * sum(free))
    where_T = random_mask(maskable_T, count, generator(seed))
    assert int(where_T.sum()) == count
    assert not (where_T & ~maskable_T).any()
    assert torch.equal(random_mask(maskable_T, count, generator(seed)), where_T)


def test_random_masks_hit_every_place_equally_often():
    maskable_T, rng = torch.tensor([False, True, True, True, False, True]), generator("places")
    hits_T = sum(random_mask(maskable_T, 2, rng).float() for _ in range(2000)) / 2000
    assert hits_T[~maskable_T].tolist() == [0, 0]
    assert (hits_T[maskable_T] - 0.5).abs().max() < 4.5 * math.sqrt(0.25 / 2000)


@pytest.mark.parametrize("count", [-1, 4])
def test_a_count_that_does_not_fit_is_refused(count):
    with pytest.raises(ValueError, match=f"count={count} masks do not fit 3 maskable positions"):
        random_mask(torch.tensor([True, True, False, True]), count, generator(0))


def test_corruption_touches_the_chosen_positions_only():
    ids_BT = torch.arange(20, 28).view(2, 4)
    where_BT = torch.tensor([[True, False, False, True], [False, True, False, False]])
    assert corrupt(ids_BT, where_BT, 4).tolist() == [[4, 21, 22, 4], [24, 4, 26, 27]]
    assert ids_BT.tolist() == [[20, 21, 22, 23], [24, 25, 26, 27]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(draws=st.integers(1, 40), maskable=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_stratified_counts_cover_all_levels(draws, maskable, seed):
    counts = stratified_counts(draws, maskable, generator(seed)).tolist()
    assert len(counts) == draws and min(counts) >= 1 and max(counts) <= maskable
    often = [counts.count(level) for level in range(1, maskable + 1)]
    assert max(often) - min(often) <= (
        1 if draws % maskable else 0
    )  # an even grid: no level is far ahead of another
    if draws == maskable:
        assert sorted(counts) == list(range(1, maskable + 1))


def test_one_stratified_count_is_uniform():
    often = (
        torch.stack([stratified_counts(1, 5, generator("uniform", index)) for index in range(4000)])
        .flatten()
        .bincount(minlength=6)[1:]
    )
    assert (often / 4000 - 0.2).abs().max() < 4.5 * math.sqrt(0.16 / 4000)


@given(items=st.integers(0, 50), parts=st.integers(1, 20))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_an_even_split_is_even_and_complete(items, parts):
    shares = even_split(items, parts)
    assert sum(shares) == items and len(shares) == parts
    assert max(shares) - min(shares) <= 1 and shares == sorted(shares, reverse=True)

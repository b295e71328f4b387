"""Ways to mask an ending: all of them where they are few, else stratified draws on common random numbers."""

import itertools
import math

import pytest
import torch

from sinkprune.evaluation.maskings import drawn_masks, maskings
from sinkprune_core.seeds import generator

pytestmark = pytest.mark.slow


def subsets(length: int) -> set[tuple[int, ...]]:
    """Return every way to mask at least one of so many tokens."""
    places = range(length)
    return {masked for count in range(1, length + 1) for masked in itertools.combinations(places, count)}


def as_sets(mask_ML: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(mask_L.nonzero()[:, 0].tolist()) for mask_L in mask_ML]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_an_ending_with_few_ways_has_each_once(length):
    ways = 2**length - 1
    ending = torch.arange(length)
    [found, again] = maskings([ending, ending], ways, generator("few"))

    assert set(as_sets(found.mask_ML)) == subsets(length) and len(found.mask_ML) == ways
    assert found.masking_S is None and torch.equal(found.mask_ML, again.mask_ML)

    for masked, share in zip(as_sets(found.mask_ML), found.share_M.tolist(), strict=True):
        assert share == pytest.approx(1 / (length * math.comb(length, len(masked))))

    if length > 1:
        [drawn, _] = maskings([ending, ending], ways - 1, generator("few"))
        assert len(drawn.masking_S) == ways - 1


def test_an_ending_with_more_ways_has_its_draws():
    endings = [torch.arange(6), torch.arange(10, 14)]
    drawn = drawn_masks(endings, 9, generator("more"))
    found = maskings(endings, 9, generator("more"))
    for masks_SL, each in zip(drawn, found, strict=True):
        assert torch.equal(each.mask_ML[each.masking_S], masks_SL)
        assert len(set(as_sets(each.mask_ML))) == len(each.mask_ML)
        assert torch.equal(each.share_M, each.masking_S.bincount().double() / 9)
        assert float(each.share_M.sum()) == pytest.approx(1)


def test_the_mean_over_draws_is_that_over_all_ways():
    """Every way to mask comes as often as its share says, for each number of draws: the first draw too."""
    length = 3
    ending = torch.arange(length)
    [every, _] = maskings([ending, ending], 7, generator())
    expected = dict(zip(as_sets(every.mask_ML), every.share_M.tolist(), strict=True))

    for draws in (1, 4):
        times = dict.fromkeys(expected, 0.0)
        repetitions = 4000

        for repetition in range(repetitions):
            [masks_SL, _] = drawn_masks([ending, ending], draws, generator(repetition))
            for masked in as_sets(masks_SL):
                times[masked] += 1 / (draws * repetitions)

        for masked, share in expected.items():
            error = math.sqrt(share * (1 - share) / repetitions)
            assert abs(times[masked] - share) < 4 * error, (draws, masked)


def test_noise_levels_are_shared_and_every_count_and_token_has_its_share():
    first, second = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([7, 3, 4, 5])
    masks = drawn_masks([first, second], 60, generator("test"))
    assert [tuple(mask.shape) for mask in masks] == [(60, 5), (60, 4)]

    for mask_SL in masks:  # counts are stratified: each of 1 … L in an even share of the draws
        length = mask_SL.shape[1]
        draws_by_count = mask_SL.sum(1).bincount(minlength=length + 1)[1:]
        assert draws_by_count.tolist() == [60 // length] * length

    level_of_first, level_of_second = (mask.sum(1) / mask.shape[1] for mask in masks)
    assert (abs(level_of_first - level_of_second) <= 1 / 4).all()
    assert torch.equal(*drawn_masks([first, torch.tensor([9, 9, 8, 7, 6])], 8, generator("test")))

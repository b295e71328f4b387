"""Patterns and allocation: exact counts and ties by lowest index, against sorts of Python lists."""

import statistics
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import choose, choose_globally, share_of

from sinkprune_core.pruning.patterns import GlobalThreshold, allocate, n_and_m, n_of_m, outlier_share, select

FEW = settings(max_examples=100, deadline=None, derandomize=True)


def places(mask_OI: torch.Tensor) -> set[tuple[int, int]]:
    return {(row, column) for row, column in mask_OI.nonzero().tolist()}


def drawn(rows: int, columns: int, values: int, seed: int) -> torch.Tensor:
    """Return scores of so many distinct values: of few, ties are everywhere."""
    return torch.randint(values, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()


# one linear


@pytest.mark.parametrize(("share", "columns", "of_a_row"), [(0.29, 100, 29), (0.57, 100, 57), (1 / 3, 9, 3)])
def test_a_share_counts_what_makes_it(share, columns, of_a_row):
    """int(100 * 0.29) is 28, and 9 times the decimals that 1 / 3 prints as is below 3."""
    score_OI = drawn(2, columns, 10**6, 0)
    assert select("row", share)(score_OI, 0, columns).sum(1).tolist() == [of_a_row] * 2
    assert int(select("layer", share)(score_OI, 0, columns).sum()) == 2 * of_a_row
    assert int(GlobalThreshold.of(lambda: [score_OI], share).take(score_OI).sum()) == 2 * of_a_row


@FEW
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 33),
    block_size=st.integers(1, 40),
    sparsity=st.floats(0, 0.999),
    values=st.sampled_from([1, 2, 5, 12, 10**6]),
    seed=st.integers(0, 10**6),
    pattern=st.sampled_from(["row", "layer"]),
)
def test_blocks_of_columns_lose_their_lowest_scores_ties_from_the_left_and_add_up_to_the_count(
    rows, columns, block_size, sparsity, values, seed, pattern
):
    score_OI = drawn(rows, columns, values, seed)
    choose_part = select(pattern, sparsity)
    parts = []

    for first in range(0, columns, block_size):
        last = min(first + block_size, columns)
        parts.append(choose_part(score_OI[:, first:last], first, last))
        assert places(parts[-1]) == choose(score_OI[:, first:last].tolist(), pattern, sparsity, first)

    total = torch.cat(parts, 1).sum()
    assert total == (
        rows * share_of(columns, sparsity) if pattern == "row" else share_of(rows * columns, sparsity)
    )


@FEW
@given(
    rows=st.integers(1, 4),
    groups=st.integers(1, 5),
    group=st.integers(2, 9),
    data=st.data(),
    values=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_every_group_loses_its_n_lowest_scores_and_ties_go_from_the_left(
    rows, groups, group, data, values, seed
):
    zeros = data.draw(st.integers(1, group - 1))
    score_OI = drawn(rows, groups * group, values, seed)
    mask_OI = n_of_m(score_OI, zeros, group)
    assert places(mask_OI) == choose(score_OI.tolist(), f"{zeros}:{group}", zeros / group)
    assert (mask_OI.view(rows, groups, group).sum(-1) == zeros).all()


def test_groups_of_more_than_256_are_ranked_without_overflow():
    score_OI = torch.rand(2, 257, generator=torch.Generator().manual_seed(0))
    assert places(n_of_m(score_OI, 256, 257)) == choose(score_OI.tolist(), "256:257", 256 / 257)


@pytest.mark.parametrize("pattern", ["4:4", "0:4", "5:4", "0:0"])
def test_n_of_m_must_prune_and_keep_something(pattern):
    with pytest.raises(ValueError, match=f"pattern='{pattern}' must have 1 <= N < M"):
        n_and_m(pattern)


# all linears


def below_the_threshold(parts: list[torch.Tensor], sparsity: float) -> list[set]:
    threshold = GlobalThreshold.of(lambda: iter(parts), sparsity)
    return [places(threshold.take(part)) for part in parts]


def by_sorting(parts: list[torch.Tensor], sparsity: float) -> list[set]:
    scores = {index: part.tolist() for index, part in enumerate(parts)}
    return list(choose_globally(scores, sparsity).values())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=4),
    sparsity=st.floats(0, 0.999),
    values=st.integers(1, 40),
    scale=st.sampled_from([-0.0, 1e-45, 1e-30, 1e-3, 1.0, 7e20, 8e36]),
    seed=st.integers(0, 10**6),
)
def test_the_threshold_is_that_of_a_full_sort_with_ties_by_order(shapes, sparsity, values, scale, seed):
    parts = []
    for index, (rows, columns) in enumerate(shapes):
        parts.append(scale * drawn(rows, columns, values, seed + index))
    assert below_the_threshold(parts, sparsity) == by_sorting(parts, sparsity)


@FEW
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    sparsity=st.floats(0, 0.999),
    seed=st.integers(0, 10**6),
)
def test_the_threshold_of_scores_that_differ_in_their_last_bits_is_exact(counts, sparsity, seed):
    """Neighbouring floats: only the lower half of their bits tells them apart."""
    parts = []
    for count in counts:
        rng = torch.Generator().manual_seed(seed + count)
        last_bits = torch.randint(300, (1, count), generator=rng, dtype=torch.int32)
        parts.append((0x3F800000 + last_bits).view(torch.float32))
    assert below_the_threshold(parts, sparsity) == by_sorting(parts, sparsity)


# layers


@FEW
@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    sparsity=st.floats(0.3, 0.7),
    owl_lambda=st.floats(0, 0.14),
)
def test_owl_keeps_more_where_outliers_are(shares, sparsity, owl_lambda):
    found = allocate("owl", sparsity, len(shares), owl_lambda, shares)
    assert statistics.fmean(found) == pytest.approx(sparsity)

    width = max(shares) - min(shares)
    assert max(found) - min(found) == pytest.approx(2 * owl_lambda if width > 0 else 0, abs=1e-9)

    by_share = sorted(zip(shares, found, strict=True), key=lambda entry: (entry[0], -entry[1]))
    assert all(before[1] >= after[1] - 1e-12 for before, after in pairwise(by_share))

    if width > 0:
        kept = [(share - min(shares)) / width * 2 * owl_lambda for share in shares]
        assert found == pytest.approx([sparsity - value + statistics.fmean(kept) for value in kept], abs=1e-9)


@pytest.mark.parametrize("sparsity", [0.02, 0.9, 0.99])
def test_owl_takes_a_smaller_lambda_where_a_layer_could_lose_everything(sparsity):
    found = allocate("owl", sparsity, 3, 0.08, [0.2, 0.1, 0.2])
    assert statistics.fmean(found) == pytest.approx(sparsity)
    assert 0 <= min(found) < max(found) < 1


def test_the_outlier_share_counts_scores_above_a_multiple_of_the_mean_of_all_linears():
    scores = [torch.tensor([[1.0, 1, 1], [1, 1, 7]]), torch.tensor([[20.0, 0]])]
    mean = 32 / 8
    assert outlier_share(scores, 1.0) == 2 / 8
    assert outlier_share(scores, 7 / mean) == 1 / 8
    assert outlier_share(scores, 20 / mean) == 0

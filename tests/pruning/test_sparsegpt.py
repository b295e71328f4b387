"""SparseGPT against a plain loop over columns without a Cholesky factor.

On every pattern, family, kind of input and choice of token weights.
"""

import naive
import numpy as np
import pytest
import torch
from naive import linears_of, matrix, same, weights_of

from sinkprune_core import Calibration, Recipe, prune, weights_kept
from sinkprune_core.pruning.patterns import select
from sinkprune_core.pruning.sparsegpt import SingularGram, sparsegpt

pytestmark = pytest.mark.slow


def problem(
    rows: int, columns: int, seed: int = 0, tokens: int = 300, dead: tuple[int, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights (O, I) and the Gram matrix of correlated inputs, float32 (I, I).

    The inputs `dead` are always zero.
    """
    rng = torch.Generator().manual_seed(seed)
    independent_NI = torch.randn(tokens, columns, generator=rng)
    mixing_II = torch.eye(columns) + 0.3 * torch.randn(columns, columns, generator=rng) / columns**0.5
    input_NI = independent_NI @ mixing_II
    input_NI[:, list(dead)] = 0.0
    return torch.randn(rows, columns, generator=rng), input_NI.T @ input_NI


def solve(weight_OI, gram_II, pattern: str, sparsity: float, damping: float = 0.01, block_size: int = 128):
    """Solve one linear; return its new weights and its mask."""
    group = int(pattern.split(":")[1]) if ":" in pattern else None
    new, masks = sparsegpt([weight_OI], gram_II, select(pattern, sparsity), group, damping, block_size)
    return new[0], masks[0]


def assert_close(found, expected) -> None:
    """Within 1e-4 of the largest weight, and zero in the same places."""
    found = found.double().numpy() if isinstance(found, torch.Tensor) else found
    assert np.array_equal(found == 0, expected == 0)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("pattern", "sparsity"),
    [
        ("row", 0.5),
        ("row", 0.73),
        ("layer", 0.5),
        ("layer", 0.31),
        ("2:4", 0.5),
        ("4:8", 0.5),
        ("1:3", 1 / 3),
    ],
)
@pytest.mark.parametrize(
    ("columns", "block_size"), [(24, 128), (72, 128), (72, 16), (72, 40), (168, 128), (72, 7), (24, 1)]
)
def test_new_weights_equal_a_loop_over_columns(pattern, sparsity, columns, block_size):
    """Blocks of columns smaller and larger than the width, and blocks that do not divide it."""
    weight_OI, gram_II = problem(9, columns)
    expected, places = naive.sparsegpt(
        weight_OI.numpy(), gram_II.numpy(), pattern, sparsity, block_size=block_size
    )
    found_OI, pruned_OI = solve(weight_OI, gram_II, pattern, sparsity, block_size=block_size)
    assert {(row, column) for row, column in pruned_OI.nonzero().tolist()} == places
    assert_close(found_OI, expected)


@pytest.mark.parametrize("damping", [0.0, 0.01, 1.0])
def test_damping_is_a_share_of_the_mean_diagonal(damping):
    weight_OI, gram_II = problem(5, 24, seed=2)
    found_OI, _ = solve(weight_OI, gram_II, "row", 0.5, damping)
    expected, _ = naive.sparsegpt(weight_OI.numpy(), gram_II.numpy(), "row", 0.5, damping)
    assert_close(found_OI, expected)


@pytest.mark.parametrize("pattern", ["row", "layer", "2:4"])
def test_linears_that_share_a_gram_matrix_are_each_solved_as_alone(pattern):
    gram_II = problem(1, 40)[1]
    weights = [problem(rows, 40, seed=rows)[0] for rows in (7, 3, 12)]
    group = 4 if pattern == "2:4" else None
    together, masks = sparsegpt(weights, gram_II, select(pattern, 0.5), group, 0.01, 16)

    for weight_OI, found_OI, pruned_OI in zip(weights, together, masks, strict=True):
        alone_OI, alone_pruned_OI = solve(weight_OI, gram_II, pattern, 0.5, block_size=16)
        assert torch.equal(pruned_OI, alone_pruned_OI)
        torch.testing.assert_close(found_OI, alone_OI, rtol=1e-5, atol=1e-5)
        expected, _ = naive.sparsegpt(weight_OI.numpy(), gram_II.numpy(), pattern, 0.5, block_size=16)
        assert_close(found_OI, expected)


@pytest.mark.parametrize(("pattern", "block_size"), [("row", 128), ("layer", 128), ("row", 10), ("2:4", 128)])
def test_inputs_that_are_always_zero_leave_first_within_the_count(pattern, block_size):
    dead = (0, 3, 12, 13, 30)
    weight_OI, gram_II = problem(6, 40, dead=dead)
    weight_OI[:, list(dead)] = 50.0
    found_OI, pruned_OI = solve(weight_OI, gram_II, pattern, 0.5, block_size=block_size)
    assert pruned_OI[:, list(dead)].all() and pruned_OI.sum() == 6 * 20
    expected, _ = naive.sparsegpt(weight_OI.numpy(), gram_II.numpy(), pattern, 0.5, block_size=block_size)
    assert_close(found_OI, expected)


def test_an_input_that_is_always_zero_counts_as_one_in_the_mean_diagonal():
    """So that damping is that of SparseGPT's code."""
    weight_OI, gram_II = problem(5, 24, dead=(2, 3, 4, 5, 20))
    gram_II /= 300  # whose diagonal is then near 1, too
    found_OI, _ = solve(weight_OI, gram_II, "row", 0.5, damping=1.0)
    expected, _ = naive.sparsegpt(weight_OI.numpy(), gram_II.numpy(), "row", 0.5, 1.0)
    assert_close(found_OI, expected)


def test_the_arguments_are_left_alone():
    weight_OI, gram_II = problem(5, 24, dead=(2,))
    weight_before_OI, gram_before_II = weight_OI.clone(), gram_II.clone()
    solve(weight_OI, gram_II, "row", 0.5)
    assert torch.equal(weight_OI, weight_before_OI) and torch.equal(gram_II, gram_before_II)


def test_no_sparsity_changes_nothing():
    weight_OI, gram_II = problem(5, 24)
    assert torch.equal(solve(weight_OI, gram_II, "row", 0.0)[0], weight_OI)


# in a model


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("llama-mha", "autoregressive"),
        ("llama-gqa", "diffusion"),
        ("qwen2", "autoregressive"),
        ("gpt2", "autoregressive"),
        ("gpt2", "diffusion"),
    ],
)
@pytest.mark.parametrize("pattern", ["row", "layer", "2:4"])
def test_every_family_gets_the_weights_of_a_naive_calculation(
    make_family, calibration, family, kind, pattern
):
    lm = make_family(family, kind)

    for propagation, block_size in [("sequential", 128), ("dense", 16)]:
        fields = {"propagation": propagation, "block_size": block_size}
        expected = naive.prune_by_sparsegpt(lm, pattern, 0.5, calibration.ids_NT, **fields)

        with weights_kept(lm):
            recipe = Recipe("sparsegpt", pattern=pattern, **fields)
            report = prune(lm, recipe, calibration, progress=False)
            for place, linear in linears_of(lm).items():
                assert_close(matrix(linear), expected[place])

        zeros = [int((weight_OI == 0).sum()) for weight_OI in expected.values()]
        assert report.linears.zeros.tolist() == zeros


def test_too_little_text_without_damping_is_an_error_that_names_the_linear(make_family, make_ids):
    lm = make_family("llama-gqa")
    before = weights_of(lm)

    said = (
        r"block 0 self_attn\.q_proj: the Gram matrix of the inputs stays singular with damping=0\.0: "
        "use more damping or more calibration text"
    )

    with pytest.raises(SingularGram, match=said):
        prune(lm, Recipe("sparsegpt", damping=0), Calibration(make_ids(1, 5)), progress=False)
    assert same(weights_of(lm), before)
    prune(lm, Recipe("sparsegpt"), Calibration(make_ids(1, 5)), progress=False)

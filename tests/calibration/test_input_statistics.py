"""Statistics of linear inputs: as loops in float64 find them, one per distinct input, whatever the batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkprune_core import Calibration, Recipe, prune
from sinkprune_core.blocks import Rows, block_inputs, run_block
from sinkprune_core.calibration import input_statistics
from sinkprune_core.calibration.input_statistics import RunningStatistics, observe
from sinkprune_core.pruning.criteria import magnitude, wanda


def test_a_score_by_hand():
    weight_OI, norms = torch.tensor([[1.0, -2, 3], [-4, 0.5, 0]]), RunningStatistics(3)
    norms.add(torch.tensor([[[3.0, 1, 0], [4, 0, 0]]]), torch.tensor([[1.0, 1]]))

    assert norms.finished().norm_I.tolist() == [5, 1, 0]
    assert wanda(weight_OI, norms.finished()).tolist() == [[5, 2, 0], [20, 0.5, 0]]
    assert magnitude(weight_OI, norms.finished()).tolist() == [[1, 2, 3], [4, 0.5, 0]]

    halved = RunningStatistics(3)
    halved.add(
        torch.tensor([[[3.0, 1, 0], [8, 0, 0]]]), torch.tensor([[1.0, 0.5]])
    )  # the weight counts inside the square
    assert halved.finished().norm_I.tolist() == [5, 1, 0]

    norms.add(torch.tensor([[[0.0, 12, 0], [0, 5, 0]]]), None)
    assert norms.finished().summed_I.tolist() == [5, 14, 0]  # 1 of the first sequence and 13 of the second
    assert norms.finished().with_norm("sum").norm_I.tolist() == [5, 14, 0]
    assert norms.finished().with_norm("root").norm_I.tolist() == pytest.approx([5, math.sqrt(170), 0])


def test_mixed_precision_of_a_user_changes_no_sum(make_ids):
    input_BTI = torch.randn(2, 5, 300, generator=torch.Generator().manual_seed(0))
    alone, inside = RunningStatistics(300, gram=True), RunningStatistics(300, gram=True)
    alone.add(input_BTI, None)
    with torch.autocast("cpu", torch.bfloat16):
        inside.add(input_BTI, None)

    for name, value in vars(alone.finished()).items():
        assert torch.equal(value, getattr(inside.finished(), name)), name


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 6),
    tokens=st.integers(1, 7),
    cut=st.integers(1, 6),
    weighted=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_every_statistic_equals_a_loop_however_the_batches_are_cut(batch, tokens, cut, weighted, seed):
    rng = torch.Generator().manual_seed(seed)
    input_BTI = torch.randn(batch, tokens, 5, generator=rng)
    weight_BT = torch.rand(batch, tokens, generator=rng)

    running = RunningStatistics(5, gram=True)
    for part_BTI, part_BT in zip(input_BTI.split(cut), weight_BT.split(cut), strict=True):
        running.add(part_BTI, part_BT if weighted else None)

    inputs, rows = running.finished(), input_BTI.double().tolist()
    ws = weight_BT.double().tolist() if weighted else [[1.0] * tokens] * batch
    count = sum(w * w for row in ws for w in row)

    for column in range(5):
        pairs = [
            [(w, token[column]) for w, token in zip(row_w, row, strict=True)]
            for row_w, row in zip(ws, rows, strict=True)
        ]
        mean = sum(w * w * x for row in pairs for w, x in row) / count
        assert inputs.norm_I[column].item() == pytest.approx(
            math.hypot(*(w * x for row in pairs for w, x in row)), rel=1e-5
        )

        assert inputs.summed_I[column].item() == pytest.approx(
            sum(math.hypot(*(w * x for w, x in row)) for row in pairs), rel=1e-5
        )

        assert inputs.mean_I[column].item() == pytest.approx(mean, abs=1e-5)
        assert inputs.variance_I[column].item() == pytest.approx(
            sum(w * w * (x - mean) ** 2 for row in pairs for w, x in row) / count, abs=1e-5
        )

        for other in range(5):
            product = sum(
                w * w * token[column] * token[other]
                for row_w, row in zip(ws, rows, strict=True)
                for w, token in zip(row_w, row, strict=True)
            )
            assert inputs.gram_II[column, other].item() == pytest.approx(product, abs=1e-4)


def test_several_choices_of_weights_at_once_are_each_alone():
    rng = torch.Generator().manual_seed(0)
    input_BTI, weight_WBT = torch.randn(4, 6, 5, generator=rng), torch.rand(3, 4, 6, generator=rng)
    together = RunningStatistics(5, choices=3, gram=True)
    together.add(input_BTI, weight_WBT)

    for choice in range(3):
        alone = RunningStatistics(5, gram=True)
        alone.add(input_BTI, weight_WBT[choice])

        for field in ("norm_I", "summed_I", "mean_I", "variance_I", "gram_II"):
            torch.testing.assert_close(
                getattr(together.finished(choice), field),
                getattr(alone.finished(), field),
                rtol=1e-6,
                atol=1e-6,
            )


def test_a_gram_matrix_of_more_columns_than_a_strip_is_whole_and_symmetric(monkeypatch):
    monkeypatch.setattr(input_statistics, "GRAM_STRIP", 4)
    input_BTI = torch.randn(3, 5, 11, generator=torch.Generator().manual_seed(0))

    running = RunningStatistics(11, gram=True)
    for part in input_BTI.split(2):
        running.add(part, None)

    gram_II = running.finished().gram_II
    flat_NI = input_BTI.flatten(0, 1).double()
    torch.testing.assert_close(gram_II, (flat_NI.T @ flat_NI).float())
    assert torch.equal(gram_II, gram_II.T)


def test_a_choice_that_leaves_all_tokens_out_has_statistics_of_zero():
    running = RunningStatistics(3, gram=True)
    running.add(torch.ones(1, 4, 3), torch.zeros(1, 4))
    inputs = running.finished()
    assert not any(
        getattr(inputs, field).any() for field in ("norm_I", "summed_I", "mean_I", "variance_I", "gram_II")
    )


def test_linears_with_one_input_share_one_statistic_and_count_a_token_once(tiny_ar, make_ids):
    states = block_inputs(tiny_ar, Rows(make_ids(5, 7), None), batch=2)
    with observe(tiny_ar.linears(tiny_ar.blocks[0])) as observer:
        run_block(tiny_ar.blocks[0], states, observer)

    by_name = {name.split(".")[-1]: inputs for name, inputs in observer.statistics().items()}
    assert by_name["q_proj"] is by_name["k_proj"] is by_name["v_proj"]
    assert by_name["gate_proj"] is by_name["up_proj"]
    assert len(set(map(id, by_name.values()))) == 4

    normed_BTI = torch.cat([tiny_ar.blocks[0].input_layernorm(state.hidden_BTD) for state in states])
    torch.testing.assert_close(by_name["q_proj"].norm_I, normed_BTI.flatten(0, 1).norm(dim=0))


def test_hooks_are_gone_after_an_exception(tiny_ar, make_ids):
    with pytest.raises(KeyboardInterrupt), observe(tiny_ar.linears(tiny_ar.blocks[0])):
        raise KeyboardInterrupt

    tiny_ar.model.base_model.embed_tokens.weight[:] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        prune(tiny_ar, Recipe(), Calibration(make_ids(2, 5)), progress=False)

    with pytest.raises(ValueError, match="not finite"):
        prune(
            tiny_ar,
            Recipe(propagation="dense", exclude="all", noise_levels=2),
            Calibration(make_ids(2, 5)),
            progress=False,
        )

    assert not [
        module for module in tiny_ar.model.modules() if module._forward_pre_hooks or module._forward_hooks
    ]

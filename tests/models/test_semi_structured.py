"""Kernels for 2:4 zeros: which weights they are for, and that a model has its own weights again."""

import pytest
import torch
from architectures import DIRECTIONS, tiny

from sinkprune import load, preset, prune, wrap
from sinkprune.models.semi_structured import has_kernels, is_two_of_four, semi_structured


@pytest.fixture
def lm():
    return wrap(tiny("Llama"), **DIRECTIONS["diffusion"])


def test_two_of_four_is_counted_along_the_inputs():
    weight_OI = torch.tensor([[1.0, 0, 2, 0, 0, 3, 0, 4], [0, 0, 0, 0, 5, 6, 0, 0]])
    assert is_two_of_four(weight_OI)
    assert not is_two_of_four(weight_OI.index_fill(1, torch.tensor(1), 1.0))
    assert not is_two_of_four(torch.zeros(4, 6)), "six inputs are no whole groups"


def test_a_model_that_is_not_pruned_so_is_refused(lm):
    with pytest.raises(ValueError, match="block 0"), semi_structured(lm):
        pass


def test_where_there_are_no_kernels_the_weights_stay(lm):
    if has_kernels(lm):
        pytest.skip("this machine has kernels")

    prune(lm, preset("magnitude", pattern="2:4"), progress=False)
    before = {name: weight.data_ptr() for name, weight in lm.model.named_parameters()}
    with pytest.raises(ValueError, match="float32"), semi_structured(lm):
        pass
    assert {name: weight.data_ptr() for name, weight in lm.model.named_parameters()} == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@torch.no_grad()
def test_a_forward_on_kernels_is_that_of_the_zeros():
    lm = load("smol-dlm", dtype="bfloat16", device="cuda")
    if not has_kernels(lm):
        pytest.skip("a GPU without such kernels")

    prune(lm, preset("magnitude", pattern="2:4"), progress=False)
    ids_BT = torch.arange(64, device=lm.device).view(1, 64) + 20
    expected_BTD = lm.hidden(ids_BT).float()
    before = {name: weight.data_ptr() for name, weight in lm.model.named_parameters()}

    with semi_structured(lm):
        found_BTD = lm.hidden(ids_BT).float()

    torch.testing.assert_close(found_BTD, expected_BTD, atol=0.05, rtol=0.05)
    assert {name: weight.data_ptr() for name, weight in lm.model.named_parameters()} == before

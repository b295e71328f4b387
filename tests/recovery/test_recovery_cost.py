"""What a recovery takes follows from shapes: the products of a step, a run on a GPU that is not here."""

import shutil

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sinkprune.models.gpus import GPUS, Gpu
from sinkprune.models.saving import save
from sinkprune.recovery import cost
from sinkprune.recovery.cost import recovery_cost, step_flops
from sinkprune.recovery.recover import recover
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.trainable import trained
from sinkprune.recovery.training import one_step
from sinkprune.recovery.zeros import zeros_held

SMALL = {"steps": 4, "batch": 8, "length": 12}


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_products_of_a_step_are_those_that_torch_counts(make_pruned, words, kind, method, checkpointing):
    """With LoRA torch counts what makes its products as well, and no gradient that nothing learns from."""
    lm = make_pruned(kind)
    settings = Recovery(**SMALL, method=method, rank=1, gradient_checkpointing=checkpointing)
    with trained(lm, settings) as parameters:
        optimizer = torch.optim.AdamW(parameters.values())
        with FlopCounterMode(display=False) as counter:
            one_step(lm, settings, words, None, parameters, optimizer, 0)

    assert step_flops(lm, settings) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_a_teacher_costs_a_forward(make_pruned, make_lm, words):
    lm, teacher = make_pruned(), make_lm("diffusion", "gqa-24")
    settings = Recovery(**SMALL, distillation=1.0)
    with trained(lm, settings) as parameters:
        optimizer = torch.optim.AdamW(parameters.values())
        with FlopCounterMode(display=False) as counter:
            one_step(lm, settings, words, teacher, parameters, optimizer, 0)

    assert step_flops(lm, settings, teacher) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_logits_that_are_not_kept_are_computed_twice(make_pruned, words, monkeypatch):
    lm = make_pruned()
    settings = Recovery(**SMALL)
    whole = step_flops(lm, settings)
    monkeypatch.setattr(cost, "LOGITS_BYTES", 100)
    half_of_the_tokens = settings.batch_tokens // 2
    assert step_flops(lm, settings) - whole == 2 * half_of_the_tokens * lm.output_head.weight.numel()


def test_blocks_that_are_timed_have_zeros_to_hold(make_lm):
    """Beside LoRA a product is made only where there are some."""
    small = cost._of_blocks(make_lm("diffusion", "gqa-24"), 2, "cpu")
    with zeros_held(small) as held:
        assert len(held) == len(small.all_linears()) == 14
    assert small.count_zeros() / small.prunable_weights == pytest.approx(0.5, abs=0.01)


@pytest.fixture
def bare(make_pruned, tmp_path):
    """A folder with the configuration of a model alone."""
    save(make_pruned(), tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "bare")
    return tmp_path / "bare"


def test_a_configuration_alone_is_planned_as_the_whole_model(bare):
    whole = bare.parent / "whole"
    run = {"steps": 2, "length": 12, "dtype": "float32", "device": "cuda:H100", "dry_run": True}
    assert recover(bare, **run) == recover(whole, **run)


def test_no_weight_is_needed_for_a_plan_on_this_machine(bare):
    assert recover(bare, steps=2, length=12, batch=2, device="cpu", dry_run=True).seconds > 0


def test_a_model_that_is_not_here_is_planned_from_its_published_shape():
    """Nothing is fetched: there is no network in tests."""
    said = []
    run = {"steps": 10, "length": 512, "dry_run": True, "tell": said.append}
    found = recover("GSAI-ML/LLaDA-8B-Base", device="cuda:H100", **run)

    assert "bfloat16 on H100, which is not here: 16.0 GB to download" in said[0]
    assert f"at least {found.seconds:.0f} s"[:9] in said[0] and "40% of the peak of H100" in said[0]
    gradients_and_moments = 3 * 4 * 6.98e9
    assert found.memory > gradients_and_moments + 4 * 8.02e9
    assert found.missing[0].startswith("H100 has 80 GB of memory, which is too little: take a smaller batch")


def test_a_model_that_teaches_itself_is_fetched_once():
    said = []
    name = "GSAI-ML/LLaDA-8B-Base"
    recover(name, steps=1, length=512, device="cuda:H100", dry_run=True, teacher=name, tell=said.append)

    assert f"teacher {name}" in said[0] and "16.0 GB to download" in said[0]


def test_a_gpu_without_bfloat16_computes_in_float32(bare):
    said = []
    run = {"steps": 2, "length": 12, "dry_run": True, "tell": said.append}
    seconds = {name: recover(bare, device=f"cuda:{name}", **run).seconds for name in ("V100", "A100")}
    assert "float32 on V100" in said[0] and "bfloat16 on A100" in said[1]
    assert seconds["V100"] / seconds["A100"] == pytest.approx(312 / 15.7)


def test_what_fits_a_gpu_lacks_nothing(bare, monkeypatch):
    """Whatever this machine has."""
    monkeypatch.setattr(cost, "available_memory", lambda _: 0)
    run = {"steps": 2, "length": 12, "device": "cuda:H100", "dry_run": True}
    assert recover(bare, **run).missing == ()
    monkeypatch.setitem(GPUS, "H100", Gpu("H100", 1e3, 1e12, 1e12))
    assert len(recover(bare, **run).missing) == 1


def test_nothing_is_recovered_on_a_gpu_that_is_not_here(bare, tmp_path):
    with pytest.raises(ValueError, match="cuda:H100 names a GPU that a run can be planned for"):
        recover(bare, steps=2, device="cuda:H100", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "ways"),
    [
        ({}, "a smaller batch, a shorter length, gradient checkpointing, method lora, or a smaller model"),
        (
            {"gradient_checkpointing": True, "method": "lora"},
            "a smaller batch, a shorter length, or a smaller model",
        ),
    ],
)
def test_the_ways_out_are_those_that_are_not_taken_yet(make_pruned, tmp_path, changes, ways):
    gpu = Gpu("tiny", 1e3, 1e12, 1e12)
    settings = Recovery(**SMALL, **changes)
    found = recovery_cost(make_pruned(), settings, tmp_path / "out", tmp_path / "work", gpu=gpu)
    assert found.missing[0].endswith(f"too little: take {ways}")

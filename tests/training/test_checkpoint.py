"""Checkpoints bring back all that a run needs, and a kill while one is saved leaves a whole one."""

from shutil import rmtree

import pytest
import torch
from damage import flip
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from sinkprune_companion.training.settings import (
    newest_checkpoint,
    restore_optimizer,
    save_checkpoint,
    step_of,
)


def with_adapter(model) -> PeftModel:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def adam(model: PeftModel) -> torch.optim.AdamW:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.95))


def some_steps(model: PeftModel, optimizer, ids_BT, count: int) -> None:
    for _ in range(count):
        model(ids_BT, labels=ids_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def saved(tiny_ar, make_lm, make_ids, tmp_path):
    """A model and its optimizer after three steps, a second model read from their checkpoint, and a batch."""
    model = with_adapter(tiny_ar.model)
    optimizer = adam(model)
    ids_BT = make_ids(3, 7)
    some_steps(model, optimizer, ids_BT, 3)
    save_checkpoint(model, optimizer, tmp_path / "checkpoint", 3)
    fresh = make_lm("autoregressive").model
    again = PeftModel.from_pretrained(fresh, tmp_path / "checkpoint", is_trainable=True)
    return model, optimizer, again, ids_BT


def test_a_checkpoint_brings_adapter_and_moments_back(saved, tmp_path):
    model, optimizer, again, ids_BT = saved

    restored = adam(again)
    assert restore_optimizer(restored, tmp_path / "checkpoint") == 3
    for index, moments in optimizer.state_dict()["state"].items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(restored.state_dict()["state"][index][key], moments[key])

    some_steps(model, optimizer, ids_BT, 2)
    some_steps(again, restored, ids_BT, 2)
    for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_without_moments_the_next_step_would_differ(saved):
    """The control for the test above."""
    model, optimizer, again, ids_BT = saved
    some_steps(model, optimizer, ids_BT, 1)
    some_steps(again, adam(again), ids_BT, 1)
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    assert any(not torch.allclose(one, other, atol=1e-4) for one, other in pairs)


@pytest.mark.parametrize("left_of_former", ["all", "a part", "nothing", "all, moved"])
def test_a_kill_while_a_checkpoint_is_replaced_leaves_a_whole_one(
    tiny_ar, make_ids, tmp_path, left_of_former
):
    model = with_adapter(tiny_ar.model)
    optimizer = adam(model)
    some_steps(model, optimizer, make_ids(2, 5), 1)

    checkpoint, new, former = (tmp_path / name for name in ("checkpoint", "checkpoint.new", "former"))
    for step, place in ((1, former), (2, new)):
        save_checkpoint(model, optimizer, checkpoint, step)
        checkpoint.rename(place)
    former.rename(checkpoint)

    if left_of_former == "a part":
        (checkpoint / "optimizer.safetensors").unlink()
    if left_of_former == "nothing":
        rmtree(checkpoint)
    if left_of_former == "all, moved":
        checkpoint.rename(tmp_path / "checkpoint.old")

    assert newest_checkpoint(tmp_path) == checkpoint
    assert step_of(checkpoint) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("damage", ["cut", "no step"])
def test_a_damaged_state_of_the_optimizer_is_refused(saved, tmp_path, damage):
    again = saved[2]
    file = tmp_path / "checkpoint" / "optimizer.safetensors"
    (tmp_path / "checkpoint" / "digests.json").unlink()  # so that the state itself is looked at
    state = load_file(file)

    save_file(state, file, metadata={} if damage == "no step" else {"step": "3"})
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])

    with pytest.raises(ValueError, match=r"optimizer.safetensors .*remove the checkpoint to start anew"):
        restore_optimizer(adam(again), tmp_path / "checkpoint")


@pytest.mark.parametrize("name", ["optimizer.safetensors", "adapter_model.safetensors"])
def test_a_checkpoint_with_one_bit_flipped_is_refused(saved, tmp_path, name):
    again = saved[2]
    flip(tmp_path / "checkpoint" / name, -9)
    with pytest.raises(ValueError, match=rf"{name} in .* is not what was saved: remove the checkpoint"):
        restore_optimizer(adam(again), tmp_path / "checkpoint")

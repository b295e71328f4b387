"""Runs learn, can be killed anywhere, and export adapters that merge to the trained model."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sinkprune.models import embedded
from sinkprune.models.adapters import merge_adapter
from sinkprune.models.reader import Checkpoint
from sinkprune_companion.training import lora
from sinkprune_companion.training.export import export
from sinkprune_companion.training.lora import train
from sinkprune_companion.training.settings import step_of

pytestmark = pytest.mark.slow

LOSSES = ("nelbo_samples_crops", "nelbo_samples_beginnings", "nelbo_documentation_crops")


def adapter_of(checkpoint) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "adapter_model.safetensors")


def assert_same_adapter(one, other) -> None:
    one, other = adapter_of(one), adapter_of(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_training_learns_and_a_finished_run_is_not_repeated(prepared, rows_of, short, kind):
    config = short(kind=kind, tokens=100 * 32, batch_tokens=32, learning_rate=1e-2)
    checkpoint = train(config, prepared, check_every=25)

    log = rows_of(prepared / "log.jsonl")
    assert [row["step"] for row in log] == [25, 50, 75, 100]

    columns = [name for name in log[0] if name.startswith(lora.MEASURES[kind])]
    assert len(columns) == 4

    for name in columns:
        assert log[-1][name] < log[0][name] - 0.3
        if kind == "diffusion":
            assert log[-1][name] < 3  # nats per token; 4.3 without any knowledge

    before = (checkpoint / "adapter_model.safetensors").read_bytes()
    assert train(config, prepared) == checkpoint
    assert (checkpoint / "adapter_model.safetensors").read_bytes() == before
    assert rows_of(prepared / "log.jsonl") == log

    settings = (prepared / "training.json").read_bytes()
    with pytest.raises(ValueError, match="holds a run that is done, with other settings"):
        train(replace(config, learning_rate=1e-3), prepared)
    assert (prepared / "training.json").read_bytes() == settings


# a killed run goes on from the step it was killed in, or from the last row of the log
@pytest.mark.parametrize("save_every", [1, 100])
def test_a_killed_run_ends_as_if_it_had_not_been(prepared, copied, rows_of, short, monkeypatch, save_every):
    config = short(warmup_steps=3, lengths=(4, 8))  # the warm-up is not repeated
    loss = lora.masked_cross_entropy
    calls = []

    def killed_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments)

    whole = copied("whole")
    train(config, whole, check_every=2)
    with monkeypatch.context() as patch:
        patch.setitem(lora.LOSSES, "diffusion", killed_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            train(config, prepared, check_every=2, save_every=save_every)
    assert step_of(prepared / "checkpoint") == (3 if save_every == 1 else 2)
    train(config, prepared, check_every=2)
    assert_same_adapter(whole / "checkpoint", prepared / "checkpoint")
    logs = [rows_of(folder / "log.jsonl") for folder in (whole, prepared)]
    assert [[row["step"] for row in log] for log in logs] == [[2, 4], [2, 4]]
    columns = {"tokens", "learning_rate", *LOSSES}
    if save_every > 1:
        columns.add("train_nelbo")  # else it is the mean since the restart
    for one, other in zip(*logs, strict=True):
        assert {name: one[name] for name in columns} == {name: other[name] for name in columns}


def test_an_exported_adapter_merges_to_the_trained_model(prepared, short, tmp_path):
    checkpoint = train(short(learning_rate=1e-2), prepared, check_every=2)
    folder = export(checkpoint, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    trained = load_file(checkpoint / "adapter_model.safetensors")
    assert tensors.keys() == trained.keys()
    assert all(torch.equal(tensors[name], trained[name].to(torch.bfloat16)) for name in trained)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"{embedded.BASE.package}=={embedded.BASE.version}"

    base = Checkpoint(embedded.base_folder()).load(torch.float32)
    before = base.model.layers[0].mlp.down_proj.weight.clone()
    merged = merge_adapter(base, folder, torch.float32)
    prefix = "base_model.model.model.layers.0.mlp.down_proj.lora"
    product = tensors[f"{prefix}_B.weight"].float() @ tensors[f"{prefix}_A.weight"].float()
    expected = before + 8 / 4 * product
    torch.testing.assert_close(merged.model.layers[0].mlp.down_proj.weight, expected)
    assert not torch.allclose(expected, before, atol=1e-3)

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

pytestmark = pytest.mark.slow

LOSSES = ("nelbo_samples_crops", "nelbo_samples_beginnings", "nelbo_documentation_crops")


def state_of(run) -> dict[str, torch.Tensor]:
    """Weights and moments of a run's checkpoint."""
    (file,) = (run / "checkpoint").glob("step-*.safetensors")
    return load_file(file)


def log_of(run) -> list[dict]:
    return json.loads((run / "checkpoint" / "state.json").read_text())["progress"]["log"]


def bytes_of(run) -> dict:
    return {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_training_learns_and_a_finished_run_is_not_repeated(prepared, short, kind):
    config = short(kind=kind, tokens=100 * 32, batch_tokens=32, learning_rate=1e-2)
    assert train(config, prepared, check_every=25) == prepared

    log = log_of(prepared)
    assert [row["step"] for row in log] == [25, 50, 75, 100]

    columns = ["loss", *(name for name in log[0] if name.startswith(lora.MEASURES[kind]))]
    assert len(columns) == 5

    for name in columns:
        assert log[-1][name] < log[0][name] - 0.3
        if kind == "diffusion":
            assert log[-1][name] < 3  # nats per token; 4.3 without any knowledge

    before = bytes_of(prepared)
    train(config, prepared)
    assert bytes_of(prepared) == before

    with pytest.raises(ValueError, match="holds a run that is done, with other settings"):
        train(replace(config, learning_rate=1e-3), prepared)
    assert bytes_of(prepared) == before


# a killed run goes on from the step it was killed in, or from the one that was kept before
@pytest.mark.parametrize(("save_every", "step"), [(1, 3), (2, 2)])
def test_a_killed_run_ends_as_if_it_had_not_been(prepared, copied, short, monkeypatch, save_every, step):
    config = short(warmup_steps=3, lengths=(4, 8))  # the warm-up is not repeated
    loss = lora.loss_of
    calls = []

    def killed_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments)

    whole = copied("whole")
    train(config, whole, check_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(lora, "loss_of", killed_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            train(config, prepared, check_every=2, save_every=save_every)
    assert (prepared / "checkpoint" / f"step-{step:08d}.safetensors").is_file()

    train(config, prepared, check_every=2)
    one, other = state_of(whole), state_of(prepared)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)

    assert log_of(prepared) == log_of(whole)
    assert [row["step"] for row in log_of(whole)] == [2, 4]
    assert {"step", "tokens", "loss", "learning_rate", *LOSSES} <= log_of(whole)[0].keys()


def test_an_exported_adapter_merges_to_the_trained_model(prepared, short, tmp_path):
    train(short(learning_rate=1e-2), prepared, check_every=2)
    folder = export(prepared, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")

    trained = {
        name.removeprefix("parameter.").replace(".default", ""): value.to(torch.bfloat16)
        for name, value in state_of(prepared).items()
        if name.startswith("parameter.")
    }
    assert tensors.keys() == trained.keys()
    assert all(torch.equal(tensors[name], trained[name]) for name in trained)

    rows = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4] and all("train_nelbo" in row for row in rows)

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


def test_a_run_that_begins_with_an_adapter_has_its_size_and_counts_its_tokens(
    prepared, copied, short, tmp_path
):
    folder = export(train(short(learning_rate=1e-2), prepared), tmp_path / "adapter")
    first = load_file(folder / "adapter_model.safetensors")

    begun = train(short(rank=8, alpha=16, learning_rate=1e-9), copied("second"), begin_with=folder)
    settings = json.loads((begun / "training.json").read_text())
    assert (settings["rank"], settings["alpha"], settings["earlier_tokens"]) == (4, 8, 64)

    second = load_file(export(begun, tmp_path / "again") / "adapter_model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], atol=1e-3) for name in first)

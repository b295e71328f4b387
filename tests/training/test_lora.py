"""Runs: they learn, can be killed anywhere, lengthened, and gone on with from an exported adapter."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sinkprune_companion.training import losses
from sinkprune_companion.training.checkpoint import step_of
from sinkprune_companion.training.crops import Crops
from sinkprune_companion.training.export import export
from sinkprune_companion.training.lora import tokens_seen, train
from sinkprune_companion.training.settings import settings_of

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
    columns = [name for name in log[0] if name.startswith(losses.MEASURES[kind])]
    assert len(columns) == 4
    for name in columns:
        assert log[-1][name] < log[0][name] - 0.3
        if kind == "diffusion":
            assert log[-1][name] < 3  # nats per token; 4.3 without any knowledge
    before = (checkpoint / "adapter_model.safetensors").read_bytes()
    assert train(config, prepared) == checkpoint
    assert (checkpoint / "adapter_model.safetensors").read_bytes() == before
    assert rows_of(prepared / "log.jsonl") == log


# a killed run goes on from the step it was killed in, or from the last row of the log
@pytest.mark.parametrize("save_every", [1, 100])
def test_a_killed_run_ends_as_if_it_had_not_been(prepared, copied, rows_of, short, monkeypatch, save_every):
    config = short(warmup_steps=3, lengths=(4, 8))  # the warm-up is not repeated
    loss = losses.masked_cross_entropy
    calls = []

    def killed_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments)

    whole = copied("whole")
    train(config, whole, check_every=2)
    with monkeypatch.context() as patch:
        patch.setitem(losses.LOSSES, "diffusion", killed_at_the_fourth)
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


def test_text_too_short_for_the_crops_is_refused_before_the_base_is_loaded(prepared, short, monkeypatch):
    monkeypatch.setattr("sinkprune_companion.training.lora.trainable", None)
    with pytest.raises(ValueError, match="need a source of at least 2048 tokens, and one has 1280"):
        train(short(lengths=(8, 2048), batch_tokens=2048), prepared)


def test_a_run_may_be_lengthened(prepared, rows_of, short):
    train(short(), prepared, check_every=2)
    train(short(tokens=96, decay_share=0.5), prepared, check_every=2)
    assert [row["step"] for row in rows_of(prepared / "log.jsonl")] == [2, 4, 6]


def test_a_run_goes_on_from_an_exported_adapter_at_its_place_in_the_data(
    prepared, copied, rows_of, short, tmp_path, monkeypatch
):
    adapter = export(train(short(), prepared, check_every=2), tmp_path / "adapter")
    assert settings_of(adapter / "training.json")["tokens"] == 64
    other = copied("another machine")
    asked = []
    batch = Crops.batch
    monkeypatch.setattr(Crops, "batch", lambda self, index: asked.append(index) or batch(self, index))
    train(short(tokens=112), other, start_from=adapter, check_every=2)
    assert asked == [4, 5, 6]  # the adapter has seen 0 … 3
    rows = rows_of(other / "log.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 7]
    assert rows[:2] == rows_of(adapter / "training_log.jsonl")


def test_an_adapter_that_a_run_cannot_go_on_from_is_refused(prepared, short, tmp_path):
    adapter = export(train(short(), prepared), tmp_path / "adapter")
    folder = tmp_path / "run2"
    with pytest.raises(ValueError, match=r"tokens=64 are not more than the 64 the adapter"):
        train(short(), folder, start_from=adapter)
    with pytest.raises(ValueError, match=r"holds a run with other settings \(kind, lengths\)"):
        train(short(kind="autoregressive", lengths=(16,), tokens=999), folder, start_from=adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "gpt2"}))
    with pytest.raises(ValueError, match="belongs to the base 'gpt2'"):
        train(short(tokens=999), folder, start_from=adapter)
    (adapter / "training_log.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no training_log\.jsonl: start from a folder"):
        train(short(tokens=999), folder, start_from=adapter)
    assert not (folder / "log.jsonl").exists()


def test_a_run_of_other_settings_begins_with_the_weights_of_an_exported_adapter(prepared, short, tmp_path):
    adapter = export(train(short(learning_rate=1e-2), prepared), tmp_path / "adapter")
    other = tmp_path / "other"
    other.mkdir()
    (other / "data.safetensors").write_bytes((prepared / "data.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"earlier_tokens=0 must be 64, the tokens that"):
        train(short(seed=1), other, begin_with=adapter)
    settings = {"seed": 1, "earlier_tokens": 64, "learning_rate": 1e-12}
    checkpoint = train(short(**settings), other, begin_with=adapter)
    begun = load_file(adapter / "adapter_model.safetensors")
    found = adapter_of(checkpoint)
    assert all(torch.allclose(found[name], begun[name].float(), atol=1e-6) for name in found)
    again = export(checkpoint, tmp_path / "again")
    assert tokens_seen(again) == 128
    assert settings_of(again / "training.json")["earlier_tokens"] == 64


@pytest.mark.parametrize("name", ["check_every", "save_every", "held_out_count", "draws"])
def test_a_count_of_nothing_is_refused_before_anything_is_made(short, tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}=0 must be a whole number of at least 1"):
        train(short(), tmp_path / "run", **{name: 0})
    assert not (tmp_path / "run").exists()

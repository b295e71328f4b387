"""A dry run says what a command takes, from shapes alone: it reads no weights, fetches and writes nothing."""

import json
import shutil

import pytest

from sinkprune.cli import common, main
from sinkprune.models.reader import Checkpoint
from sinkprune.runs import memory_and_disk

NOT_HERE = "GSAI-ML/LLaDA-8B-Base"
LINES = {
    "prune": ("--preset", "wanda", "--sequences", 4, "--length", 12),
    "diagnose": ("--sequences", 4, "--length", 12),
    "recover": ("--tokens", 96, "--length", 12),
}


@pytest.fixture
def dry_run(capsys):
    """A function that runs a command with --dry-run and returns what it says."""

    def run(command: str, *arguments: object) -> str:
        capsys.readouterr()
        line = (command, *arguments, *LINES[command], "--dry-run")
        assert main.main([str(word) for word in line]) == 0
        return capsys.readouterr().err

    return run


@pytest.fixture
def no_weights(monkeypatch):
    """No weight may be read, and nothing fetched."""
    monkeypatch.setattr(Checkpoint, "fill", lambda *_, **__: pytest.fail("read weights"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("downloaded"))


@pytest.mark.parametrize("command", LINES)
def test_a_configuration_alone_takes_what_the_whole_model_takes(
    command, model, dry_run, no_weights, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").mkdir()
    shutil.copy(model / "config.json", tmp_path / "bare")
    there = sorted(tmp_path.rglob("*"))

    said = dry_run(command, tmp_path / "bare", "--dtype", "float32")
    assert "float32 on" in said and "peak memory about" in said and "lacks" not in said
    assert said == dry_run(command, model, "--dtype", "float32").replace(model.name, "bare")
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("command", LINES)
def test_of_a_model_that_is_not_here_the_shape_is_known(command, dry_run, no_weights, monkeypatch):
    monkeypatch.setattr(memory_and_disk, "available_memory", lambda _: 1 << 50)
    monkeypatch.setattr(common, "available_memory", lambda _: 1 << 50)
    said = dry_run(command, NOT_HERE, "--dtype", "bfloat16")
    assert f"{NOT_HERE} (diffusion" in said and "streamed" not in said


@pytest.mark.parametrize("command", LINES)
def test_what_this_machine_lacks_is_said_and_is_no_error(command, model, dry_run, monkeypatch):
    monkeypatch.setattr(memory_and_disk, "available_memory", lambda _: 0)
    first, second = dry_run(command, model).splitlines()
    assert "peak memory about" in first and second.startswith("this machine lacks memory")


@pytest.mark.parametrize("command", ["prune", "diagnose"])
def test_a_model_that_is_large_for_this_machine_would_be_streamed(command, model, dry_run, monkeypatch):
    monkeypatch.setattr(common, "STREAM_ABOVE", 0.0)
    assert ", streamed from disk" in dry_run(command, model)
    assert ", streamed from disk" not in dry_run(command, "smol-dlm")  # which cannot be


def test_a_text_that_does_not_fit_the_model_is_refused(refused):
    said = refused("prune", NOT_HERE, "--length", 5000, "--dtype", "bfloat16", "--dry-run")
    assert "a sequence of 5000 tokens exceeds the 4096 positions" in said


def test_a_configuration_without_a_shape_is_one_sentence(tmp_path, refused):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "config.json" in refused("prune", tmp_path / "bare", *LINES["prune"], "--dry-run")


def test_a_configuration_alone_is_pruned_by_nobody_and_the_error_names_the_way(model, tmp_path, refused):
    (tmp_path / "bare").mkdir()
    shutil.copy(model / "config.json", tmp_path / "bare")
    said = refused("prune", tmp_path / "bare", "--out", tmp_path / "out")
    assert f"no safetensors in {tmp_path / 'bare'}" in said and "--dry-run" in said

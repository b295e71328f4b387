"""A dry run says what it takes without the weights, and for a GPU that is not here."""

import json
import shutil

import pytest
import torch

from sinkprune.cli import main
from sinkprune.models.gpus import GPUS, HERE, REACHED, planned_gpu
from sinkprune.models.meta_model import MetaModel, shapes_of

FLAGS = ("--preset", "wanda", "--sequences", "4", "--length", "12", "--dry-run")


@pytest.fixture
def plan(capsys):
    """A function that runs a dry run and returns what it says."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main.main(["prune", *map(str, arguments), *FLAGS]) == 0
        return capsys.readouterr().err

    return run


def test_a_folder_with_a_configuration_alone_is_pruned_by_nobody_and_the_error_names_the_plan(
    model, tmp_path, refused
):
    (tmp_path / "bare").mkdir()
    shutil.copy(model / "config.json", tmp_path / "bare")
    said = refused("prune", tmp_path / "bare", "--out", tmp_path / "out")
    assert f"no safetensors in {tmp_path / 'bare'}" in said and "--dry-run" in said


def test_a_folder_with_a_configuration_alone_can_be_planned(model, tmp_path, plan):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(model / "config.json", bare)
    said = plan(bare, "--dtype", "float32", "--device", "cpu")
    assert "48 calibration tokens x 2 passes" in said and "float32 on cpu" in said

    whole = shapes_of(str(model), torch.float32)
    planned = shapes_of(str(bare), torch.float32)
    shapes = {name: value.shape for name, value in whole.model.named_parameters()}
    assert shapes == {name: value.shape for name, value in planned.model.named_parameters()}
    assert planned.is_diffusion and isinstance(planned, MetaModel)


def test_a_configuration_without_a_shape_is_one_sentence(tmp_path, refused):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "config.json" in refused("prune", bare, *FLAGS)


def test_a_gpu_that_is_not_here_can_be_planned_for(model, plan):
    said = plan(model, "--device", "cuda:H100")
    assert "bfloat16 on H100, which is not here" in said
    assert f"{REACHED * 989:.0f} TFLOP/s" in said and HERE not in said
    assert "lacks" not in said


def test_what_is_too_large_for_a_gpu_is_said(monkeypatch, model, plan):
    monkeypatch.setitem(GPUS, "L4", GPUS["L4"].__class__("L4", 1e6, 1e12, 1e12))
    said = plan(model, "--device", "cuda:L4")
    assert "L4 has 0 GB of memory, which is too little" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--device", "cuda:H100", "--out", "x"), "add --dry-run"),
        (("--device", "cuda:H10", "--dry-run"), "did you mean H100"),
    ],
)
def test_a_planned_gpu_prunes_nothing(options, said, refused):
    assert said in refused("prune", "smol-dlm", *options)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps", "auto"])
def test_devices_of_this_machine_are_no_planned_gpus(device):
    assert planned_gpu(device) is None


# recover


@pytest.fixture
def plan_recovery(capsys):
    """A function that plans a recovery and returns what it says."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        line = ["recover", *map(str, arguments), "--tokens", "96", "--length", "12", "--dry-run"]
        assert main.main(line) == 0
        return capsys.readouterr().err

    return run


def test_a_recovery_can_be_planned_for_a_gpu_that_is_not_here(model, plan_recovery):
    said = plan_recovery(model, "--device", "cuda:H100")
    assert "bfloat16 on H100, which is not here: 96 tokens in 1 steps, at least 0 min 0 s" in said
    assert f"{REACHED * 989:.0f} TFLOP/s" in said and HERE not in said
    assert "too little" not in said and "lacks" not in said


def test_what_is_too_large_to_recover_on_a_gpu_is_said(monkeypatch, model, plan_recovery):
    monkeypatch.setitem(GPUS, "L4", GPUS["L4"].__class__("L4", 1e6, 1e12, 1e12))
    said = plan_recovery(model, "--device", "cuda:L4").splitlines()
    assert said[-1].startswith("L4 has 0 GB of memory, which is too little: take a smaller batch")


def test_what_this_machine_lacks_for_a_recovery_fails(monkeypatch, model, capsys):
    monkeypatch.setattr("sinkprune.recovery.cost.available_memory", lambda _: 1e6)
    assert main.main(["recover", str(model), "--tokens", "96", "--length", "12", "--dry-run"]) == 1
    assert "error: this machine lacks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--device", "cuda:H100", "--out", "x"), "add --dry-run"),
        (("--device", "cuda:H10", "--dry-run"), "did you mean H100"),
    ],
)
def test_a_planned_gpu_recovers_nothing(options, said, refused):
    assert said in refused("recover", "smol-dlm", "--tokens", "9", *options)

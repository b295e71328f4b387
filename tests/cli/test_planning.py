"""A dry run says what it takes without the weights, and for a GPU that is not here."""

import json
import shutil

import pytest
import torch

from sinkprune.cli import main
from sinkprune.cli.gpus import GPUS, REACHED, planned_gpu
from sinkprune.cli.planning import HERE, shapes_of
from sinkprune.models.meta_model import MetaModel
from sinkprune.runs.pruning_cost import PruningCost

FLAGS = ("--preset", "wanda", "--sequences", "4", "--length", "12", "--dry-run")


@pytest.fixture
def plan(capsys):
    """A function that runs a dry run and returns what it says."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main.main(["prune", *map(str, arguments), *FLAGS]) == 0
        return capsys.readouterr().err

    return run


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


def test_the_words_that_a_plan_replaces_are_those_of_a_cost():
    assert HERE in str(PruningCost(1, 1, 1.0, 1.0, 1, 1, ()))


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

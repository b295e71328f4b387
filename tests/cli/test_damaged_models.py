"""Commands refuse a damaged model in one line, before they save or print anything."""

import math

import pytest
from safetensors.torch import load_file, save_file

PARTS = {
    "embedding": "model.transformer.wte.weight",
    "norm": "model.transformer.ln_f.weight",
    "head": "model.transformer.ff_out.weight",
}  # stored names of LLaDA


@pytest.fixture(params=PARTS)
def damaged(request, model):
    """A tiny checkpoint with a NaN outside its blocks."""
    name = PARTS[request.param]
    for file in model.glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            tensors[name].view(-1)[3] = math.nan
            save_file(tensors, file, metadata={"format": "pt"})
    return model


def test_a_model_with_a_nan_is_not_evaluated(damaged, command, capsys):
    assert command("evaluate") == 1
    found = capsys.readouterr()
    assert "not finite" in found.err and not found.out


def test_a_work_folder_that_is_a_model_s_is_refused(model, command, tmp_path, capsys):
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    assert command("prune", "--preset", "wanda", "--out", tmp_path / "out", "--work", model) == 1
    assert "is not a work folder of sinkprune" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in model.iterdir()} == before

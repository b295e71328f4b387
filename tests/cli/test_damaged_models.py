"""Commands refuse a damaged model in one line, before they save or print anything."""

import pytest
from public_formats import write_both
from safetensors.torch import load_file, save_file

from sinkprune_companion.cli import main

USES = {
    "text": ("evaluate", "--text", "text.txt", "--sequences", 4, "--length", 12),
    "suite": ("evaluate", "--tasks", "suite", "--limit", 1),
    "blimp": ("evaluate", "--tasks", "blimp_passive_1", "--data", "data"),
    "wikitext": ("evaluate", "--tasks", "wikitext", "--data", "data"),
    "trace": ("trace", "--text", "text.txt", "--sequences", 2, "--prompt", 8, "--tokens", 6, "--steps", 3),
    "prune": ("prune", "--text", "text.txt", "--sequences", 4, "--length", 12, "--out", "out"),
}


@pytest.mark.parametrize("name", USES)
def test_a_model_that_overflows_gets_no_score(name, model, tmp_path, monkeypatch, capsys):
    """Its weights are finite; what its MLPs compute in float16 is not."""
    monkeypatch.chdir(tmp_path)
    write_both(tmp_path / "data")
    for file in model.glob("*.safetensors"):
        tensors = load_file(file)
        for part, tensor in tensors.items():
            if part.endswith(("ff_proj.weight", "up_proj.weight")):
                tensor.mul_(1e4)
        save_file(tensors, file, metadata={"format": "pt"})
    command, *options = USES[name]
    arguments = (command, model, *options, "--dtype", "float16", "--batch", 2)
    assert main.main([str(part) for part in arguments]) == 1
    found = capsys.readouterr()
    assert "not finite" in found.err.splitlines()[-1] and not found.out
    assert not (tmp_path / "out").exists()

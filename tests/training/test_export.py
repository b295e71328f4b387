"""An exported adapter merges to the trained model."""

import json

import torch
from safetensors.torch import load_file

from sinkprune_companion.training.export import export
from sinkprune_companion.training.lora import train
from sinkprune_core.models import embedded
from sinkprune_core.models.adapters import merge_adapter
from sinkprune_core.models.reader import Checkpoint


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

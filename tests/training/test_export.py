"""What a run leaves: an adapter that merges to the trained model, its log and card, and the pair by name."""

import json

import torch
from peft import PeftModel
from safetensors.torch import load_file

from sinkprune_companion.training.export import export
from sinkprune_companion.training.lora import train
from sinkprune_core.models import embedded
from sinkprune_core.models.adapters import merge_adapter
from sinkprune_core.models.embedded import MASK_TOKEN_ID
from sinkprune_core.models.language_model import set_direction
from sinkprune_core.models.loading import load
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


def test_the_trained_pair_is_loaded_by_its_names(prepared, short, make_ids, monkeypatch):
    """The whole way: train on a base, export, and read both models back as everybody does."""
    adapter = export(train(short(learning_rate=1e-2), prepared), prepared.parent / "adapter")
    monkeypatch.setitem(embedded.ADAPTERS, "smol-dlm", adapter)
    ar, dlm = load("smol-ar"), load("smol-dlm")
    assert (ar.kind, dlm.kind, dlm.mask_token_id) == ("autoregressive", "diffusion", MASK_TOKEN_ID)
    assert ar.model.dtype == dlm.model.dtype == torch.float32
    base = Checkpoint(embedded.base_folder()).load(torch.float32)
    trained = PeftModel.from_pretrained(set_direction(base, causal=False), adapter)
    ids_BT = make_ids(2, 8)
    expected_BTV = trained(ids_BT, use_cache=False).logits
    torch.testing.assert_close(dlm.model(ids_BT, use_cache=False).logits, expected_BTV, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(ar.model(ids_BT, use_cache=False).logits, expected_BTV, atol=0.1)
    assert not any(parameter.requires_grad for parameter in dlm.model.parameters())
    halved = load("smol-dlm", "bfloat16")
    for name, parameter in dlm.model.named_parameters():
        assert torch.equal(halved.model.get_parameter(name), parameter.to(torch.bfloat16)), name

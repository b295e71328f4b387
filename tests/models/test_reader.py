"""The reader: whole or block by block, and errors that say what does not fit."""

import pytest
import torch
from families import outputs, some_ids
from random_models.cases import CASES
from safetensors.torch import load_file, save_file

from sinkprune_core.models.language_model import part_name
from sinkprune_core.models.loading import language_model, load
from sinkprune_core.models.reader import Checkpoint
from sinkprune_core.models.weight_files import FormatError, WeightFiles


@pytest.mark.parametrize("name", CASES)
def test_a_model_filled_block_by_block_is_the_whole_model(name, written):
    checkpoint = Checkpoint(written(name)[0])
    skeleton = checkpoint.skeleton()
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert {buffer.device.type for buffer in skeleton.buffers()} <= {"cpu"} and not skeleton.training
    lm = language_model(checkpoint, skeleton)
    parts = [
        *lm.blocks,
        skeleton.get_input_embeddings(),
        *(module for key, module in skeleton.base_model.named_children() if key in ("norm", "ln_f", "wpe")),
        skeleton.get_output_embeddings(),
    ]
    for part in parts:
        checkpoint.fill(part, part_name(lm.model, part))
    skeleton.tie_weights()
    whole, ids_BT = load(written(name)[0]), some_ids(CASES[name])
    assert torch.equal(outputs(lm, ids_BT), outputs(whole, ids_BT))
    assert lm.fingerprint() == whole.fingerprint()
    assert checkpoint.parameters == sum(parameter.numel() for parameter in whole.model.parameters())


def test_a_block_is_read_without_reading_another(written, monkeypatch):
    read = []
    tensor = WeightFiles.tensor

    def watched(files, stored):
        read.append(stored)
        return tensor(files, stored)

    monkeypatch.setattr(WeightFiles, "tensor", watched)
    checkpoint = Checkpoint(written("llada")[0])
    skeleton = checkpoint.skeleton()
    checkpoint.fill(skeleton.model.layers[1], "model.layers.1", torch.bfloat16)
    assert len(read) == 9 and all(name.startswith("model.transformer.blocks.1.") for name in read)
    assert skeleton.model.layers[1].mlp.up_proj.weight.dtype == torch.bfloat16
    assert skeleton.model.layers[0].mlp.up_proj.weight.is_meta


def test_what_is_loaded_does_not_hang_on_its_file(fresh):
    """Mapped memory would: writing to it changes what is read next, and a file cut short ends the process."""
    folder = fresh("smdm grouped")
    checkpoint = Checkpoint(folder)
    model = checkpoint.load()
    before = checkpoint.tensor("model.layers.0.mlp.up_proj.weight").clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(checkpoint.tensor("model.layers.0.mlp.up_proj.weight"), before)
    assert torch.equal(Checkpoint(folder).load().model.layers[0].mlp.up_proj.weight, before)


def test_a_tied_head_is_read_from_the_embedding(written):
    checkpoint = Checkpoint(written("illada")[0])
    assert "lm_head.weight" not in checkpoint.names() and "lm_head.weight" in checkpoint
    assert torch.equal(checkpoint.tensor("lm_head.weight"), checkpoint.tensor("model.embed_tokens.weight"))
    model = checkpoint.load()
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_head_that_is_called_tied_and_is_not_is_kept(fresh):
    """dllm's A2D models have a head of their own, although their configuration is that of a tied base."""
    folder = fresh("a2d qwen2")
    model = Checkpoint(folder).load()
    assert not model.config.tie_word_embeddings
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors")
    model = Checkpoint(folder).load()
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("damage", "stored", "native"),
    [
        ("missing", "model.transformer.blocks.1.ff_proj.weight", "model.layers.1.mlp.gate_proj.weight"),
        (
            "unexpected",
            "model.transformer.blocks.1.q_norm.weight",
            "model.transformer.blocks.1.q_norm.weight",
        ),
        (
            "mismatched",
            "model.transformer.blocks.1.ff_out.weight",
            r"model.layers.1.mlp.down_proj.weight: \(3, 3\) instead of \(32, 45\)",
        ),
    ],
)
@pytest.mark.parametrize("block_alone", [False, True])
def test_weights_that_do_not_fit_are_one_error_with_native_names(fresh, damage, stored, native, block_alone):
    folder = fresh("llada grouped")
    weights = load_file(folder / "model.safetensors")
    if damage == "missing":
        del weights[stored]
    else:
        weights[stored] = torch.ones(3, 3)
    save_file(weights, folder / "model.safetensors")
    checkpoint = Checkpoint(folder)
    if block_alone and "layers.1" in native:
        with pytest.raises(FormatError, match=f"{damage}_keys.*{native}"):
            checkpoint.fill(checkpoint.skeleton().model.layers[1], "model.layers.1")
    elif not block_alone:
        with pytest.raises(FormatError, match=f"do not fit LlamaForCausalLM.*{damage}_keys.*{native}"):
            load(folder)

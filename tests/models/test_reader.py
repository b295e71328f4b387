"""The reader: whole or block by block, tied or not."""

import pytest
import torch
from families import outputs, some_ids
from random_models.cases import CASES
from safetensors.torch import load_file, save_file

from sinkprune.models.loading import language_model, load
from sinkprune.models.reader import Checkpoint
from sinkprune_core.language_model import part_name


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


def test_what_is_loaded_does_not_hang_on_its_file(fresh):
    """Mapped memory would: writing to it changes what is read next, and a file cut short ends the process."""
    folder = fresh("llada grouped")
    checkpoint = Checkpoint(folder)
    model = checkpoint.load()
    before = checkpoint.tensor("model.layers.0.mlp.up_proj.weight").clone()

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()

    assert torch.equal(checkpoint.tensor("model.layers.0.mlp.up_proj.weight"), before)
    assert torch.equal(Checkpoint(folder).load().model.layers[0].mlp.up_proj.weight, before)


def test_a_model_in_the_working_directory_has_the_name_of_its_folder(fresh, monkeypatch):
    folder = fresh("qwen2")
    monkeypatch.chdir(folder)
    assert load(".").name == folder.name != ""


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

"""A streamed model is checked as one in memory is, before any work, and its files are the same to the end."""

import json
import math
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from sinkprune import prune
from sinkprune.models.loading import load, open_checkpoint
from sinkprune.models.saving import save
from sinkprune.models.streaming import stream
from sinkprune.models.weight_files import FormatError
from sinkprune_core.pruning.recipe import preset

WEIGHTS = "model.safetensors"


def in_memory(folder):
    return load(folder)


def streamed(folder):
    return stream(open_checkpoint(folder), "streamed", torch.float32)


def rewrite(folder, change) -> None:
    """Change the tensors of a folder, a dict by name, and take their digests off the card."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    card = json.loads((folder / "sinkprune.json").read_text())
    del card["sha256"]
    (folder / "sinkprune.json").write_text(json.dumps(card))


def fewer_blocks(folder) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 2
    config["layer_types"] = None
    (folder / "config.json").write_text(json.dumps(config))


def without(name):
    return lambda folder: rewrite(folder, lambda tensors: tensors.pop(name))


def extra(folder) -> None:
    rewrite(folder, lambda tensors: tensors.update({"model.layers.0.more.weight": torch.ones(3)}))


def short(name):
    return lambda folder: rewrite(
        folder, lambda tensors: tensors.update({name: tensors[name][:-1].contiguous()})
    )


def spoilt(name, number):
    def change(tensors):
        tensors[name].view(-1)[-1] = number

    return lambda folder: rewrite(folder, change)


EMBEDDING = "model.embed_tokens.weight"
FINAL = "model.norm.weight"
NORM = "model.layers.1.input_layernorm.weight"
DAMAGES = {
    "2 of 3 blocks in the configuration": (fewer_blocks, "unexpected_keys.*model.layers.2"),
    "a tensor too many": (extra, "unexpected_keys.*model.layers.0.more.weight"),
    "no final norm": (without(FINAL), f"missing_keys.*{FINAL}"),
    "no linear": (without("model.layers.1.mlp.up_proj.weight"), "missing_keys.*up_proj"),
    "an embedding one row short": (short(EMBEDDING), f"{EMBEDDING}: .71, 32. instead"),
    "a norm one number short": (short(NORM), "mismatched_keys.*input_layernorm.weight: .31,. instead"),
    "NaN in a norm": (spoilt(NORM, math.nan), f"{NORM} of .* holds numbers that are not finite"),
    "infinity in the final norm": (spoilt(FINAL, math.inf), f"{FINAL} of .* not finite"),
}


@pytest.mark.parametrize("read", [in_memory, streamed])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_refused_before_any_work(damage, read, saved):
    spoil, said = DAMAGES[damage]
    spoil(saved)
    with pytest.raises(ValueError, match=said):
        read(saved)


def test_a_number_that_is_not_finite_in_a_linear_is_met_when_its_block_is_read(saved):
    name = "model.layers.2.mlp.up_proj.weight"
    spoilt(name, math.nan)(saved)
    lm = streamed(saved)
    with lm.resident(1):
        pass
    with pytest.raises(ValueError, match=f"{name} of .* not finite"), lm.resident(2):
        pytest.fail("resident")
    assert all(value.is_meta for value in lm.blocks[2].parameters())


@pytest.mark.parametrize("read", [in_memory, streamed])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer_config.json", "special_tokens_map.json"])
def test_a_pipe_in_the_folder_of_a_model_does_not_hang(name, read, saved):
    (saved / name).unlink(missing_ok=True)
    os.mkfifo(saved / name)
    with pytest.raises(FormatError, match=f"{name} is no ordinary file"):
        read(saved)


def test_a_configuration_with_a_key_twice_is_refused(saved):
    file = saved / "config.json"
    file.write_text('{"num_hidden_layers": 2,' + file.read_text().removeprefix("{"))
    with pytest.raises(FormatError, match=r"config.json is not JSON .the key 'num_hidden_layers' comes"):
        load(saved)


# files that change while they are in use


def other_weights(folder) -> None:
    """Put weights of the same shapes in place of those of a folder, by a new file."""
    tensors = {name: 1.5 * value for name, value in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / "new", metadata={"format": "pt"})
    os.replace(folder / "new", folder / WEIGHTS)


def written_into(folder) -> None:
    with open(folder / WEIGHTS, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")


def gone(folder) -> None:
    (folder / WEIGHTS).unlink()


def pruned_while(change, lm, folder, short_text, tmp_path) -> None:
    """Prune and save a streamed model whose files change when its second block is about to be read."""
    fill = lm.checkpoint.fill
    is_first = [True]

    def changing(block, prefix, *options):
        if prefix.endswith(".1") and is_first.pop():
            is_first.append(False)
            change(folder)
        return fill(block, prefix, *options)

    lm.checkpoint.fill = changing
    prune(lm, preset("wanda", sparsity=0.5), short_text, progress=False, work=tmp_path / "work")
    save(lm, tmp_path / "out")


@pytest.mark.parametrize("change", [other_weights, written_into, gone])
def test_weights_that_change_during_a_streamed_run_are_an_error(change, saved, short_text, tmp_path):
    lm = streamed(saved)
    with pytest.raises(FormatError, match=f"{WEIGHTS} (has changed while it was in use|cannot be read)"):
        pruned_while(change, lm, saved, short_text, tmp_path)
    assert not (tmp_path / "out").exists()


def test_weights_that_change_after_the_last_block_are_not_saved_with_it(saved, tmp_path):
    lm = streamed(saved)
    other_weights(saved)
    with pytest.raises(FormatError, match="has changed while it was in use"):
        save(lm, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_only_got_another_name_is_the_same_file(saved, tmp_path):
    lm = streamed(saved)
    os.link(saved / WEIGHTS, tmp_path / "kept")  # which changes its status, and nothing in it
    os.chmod(saved / WEIGHTS, 0o600)
    with lm.resident(0), lm.resident(1):
        pass
    save(lm, tmp_path / "out")

"""Damaged and foreign files are refused in one sentence that names file, field, value and what is allowed."""

import json
import stat

import pytest
import torch
from damage import flip
from families import edit
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from sinkprune.models.adapters import merge_adapter
from sinkprune.models.loading import load
from sinkprune.models.weight_files import INDEX, FormatError, read_json

MODEL = "model.safetensors"


@pytest.mark.parametrize("name", [MODEL, "tokenizer.json"])
def test_a_saved_file_with_one_bit_flipped_is_refused(saved, name):
    flip(saved / name, -40)
    with pytest.raises(FormatError, match=rf"{name} is damaged, or was saved anew: its SHA-256 is"):
        load(saved)


def test_a_saved_model_that_was_changed_on_purpose_loads_without_its_digests(saved):
    flip(saved / MODEL, -3)
    edit(saved, "sinkprune.json", drop=("sha256",))
    load(saved)


def test_files_of_a_saved_model_have_ordinary_modes(saved, tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (*saved.iterdir(), ordinary)}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 2**31}, "the weights beside it are those of 3 blocks"),
        ({"num_hidden_layers": 0}, "the weights beside it are those of 3 blocks"),
        ({"num_attention_heads": 0}, "num_attention_heads=0: it must be a number from 1"),
        ({"hidden_size": "32"}, "Validation error for field 'hidden_size'"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps=-1e-05: it must be a number from"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "Missing required keys .*factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor=0: it must be a number"),
        ({"rope_scaling": {"rope_type": 3}}, "KeyError: 3"),
        ({"rope_scaling": {"type": "dynamic"}}, "rope"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": -1.0}}, "factor=-1.0: it must be"),
        (
            {"rope_parameters": {"rope_type": "longrope", "short_factor": [], "long_factor": []}},
            "makes no model",
        ),
    ],
)
def test_a_configuration_with_a_wrong_value_is_refused(fresh, values, said):
    folder = fresh("a2d qwen3")
    edit(folder, **values)
    with pytest.raises(FormatError, match=f"config.json.*{said}"):
        load(folder)


@pytest.mark.parametrize("text", ["{", "[]", "3", "\x00", "[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", INDEX, "tokenizer.json"])
def test_broken_json_names_its_file(fresh, name, text):
    folder = fresh("llama")
    (folder / name).write_text(text)
    with pytest.raises(FormatError, match=name) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "outside", ["../other.safetensors", "/etc/passwd", "a/../../b.safetensors", "", 3, None]
)
def test_an_index_that_names_a_file_outside_its_folder_is_refused(fresh, outside):
    folder = fresh("llama")
    index = read_json(folder / INDEX)
    first = next(iter(index["weight_map"]))

    other = load_file(folder / index["weight_map"][first])
    save_file(other, folder.parent / "other.safetensors")  # a sound file, in the wrong place
    index["weight_map"][first] = outside
    (folder / INDEX).write_text(json.dumps(index))

    with pytest.raises(FormatError, match=f"{first} is in .*: it must be the name of a safetensors file"):
        load(folder)


def test_pickled_weights_are_not_loaded(fresh):
    folder = fresh("a2d qwen3")
    (folder / MODEL).rename(folder / "pytorch_model.bin")
    with pytest.raises(FormatError, match=r"only pytorch_model.bin: pickled weights are not loaded"):
        load(folder)


def test_a_tokenizer_larger_than_the_embedding_is_refused(fresh):
    folder = fresh("a2d qwen3")
    tokenizer = read_json(folder / "tokenizer.json")
    tokenizer["model"]["vocab"]["beyond"] = 72
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(FormatError, match="gives 'beyond' the id 72, and the model has embeddings for 72"):
        load(folder)


@pytest.mark.parametrize("device", ["cuda:99", "privateuseone", "xla", "vulkan:1", "meta", "nonsense"])
def test_a_device_that_pytorch_cannot_use_here_is_named(saved, device):
    with pytest.raises(ValueError, match=f"device='{device}'"):
        load(saved, device=device)


# adapters


@pytest.fixture
def adapter(saved, tmp_path):
    """A base, and the folder of an adapter of it, both of whose factors are random."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load(saved).model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()

    model.save_pretrained(tmp_path / "adapter")
    return saved, tmp_path / "adapter"


def spoil(folder, change) -> str:
    """Change the tensors of an adapter, a dict by name; return the name of the first."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    first = sorted(tensors)[0]
    change(tensors, first)
    save_file(tensors, file)
    return first


def test_an_adapter_with_a_missing_tensor_is_not_merged(adapter):
    base, folder = adapter
    lost = spoil(folder, lambda tensors, first: tensors.pop(first))
    with pytest.raises(FormatError, match=f"does not fit adapter_config.json and .*: {lost} is missing"):
        merge_adapter(load(base).model, folder, torch.float32)

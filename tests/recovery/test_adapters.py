"""The folder of a PEFT adapter: loaded with its base, merged under the mask of a pruned one, or refused."""

import json
import re
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from sinkprune import load, save_model, zeros_held
from sinkprune.cli import main
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.reader import Checkpoint
from sinkprune_core.language_model import LanguageModel


def train(model, ids_BT) -> None:
    """Train an adapter for two steps; its matrices are far from zero then."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.05)
    for _ in range(2):
        model(ids_BT, labels=ids_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def saved(make_pruned, tmp_path):
    """The folder of a pruned model, and a function that trains an adapter of it."""
    folder = save_model(make_pruned("diffusion"), tmp_path / "pruned")

    def adapt(ids_BT, holds: bool) -> torch.Tensor:
        lm = load(folder)
        lora = {"target_modules": ["q_proj", "down_proj"], "r": 2, "lora_alpha": 8}
        model = get_peft_model(lm.model, LoraConfig(**lora, task_type="CAUSAL_LM"))
        if holds:
            with zeros_held(model):
                train(model, ids_BT)
                logits_BTV = model(ids_BT, use_cache=False).logits.detach()
        else:
            train(model, ids_BT)
            logits_BTV = model(ids_BT, use_cache=False).logits.detach()
        model.save_pretrained(tmp_path / "adapter")
        return logits_BTV

    return folder, adapt, tmp_path / "adapter"


def logits(lm: LanguageModel, ids_BT: torch.Tensor) -> torch.Tensor:
    return lm.model(ids_BT, use_cache=False).logits


def test_an_adapter_of_a_pruned_base_is_merged_under_the_mask(saved, zeros, make_ids):
    folder, adapt, adapter = saved
    ids_BT = make_ids(2, 9)
    trained_BTV = adapt(ids_BT, holds=True)

    with pytest.warns(
        UserWarning, match=r"is merged where .*pruned is not zero, so that 5\d\.\d% zeros stay"
    ):
        lm = load(adapter)

    assert lm.name == "adapter" and lm.kind == "diffusion" and lm.mask_token_id == load(folder).mask_token_id
    torch.testing.assert_close(logits(lm, ids_BT), trained_BTV, atol=1e-4, rtol=1e-4)

    before, after = zeros(load(folder)), zeros(lm)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(logits(lm, ids_BT), logits(load(folder), ids_BT))


def test_an_adapter_of_a_dense_base_is_merged_as_it_is(make_lm, make_ids, tmp_path):
    save_model(make_lm("autoregressive", "gqa-24"), tmp_path / "dense")
    lm, ids_BT = load(tmp_path / "dense"), make_ids(2, 9)

    model = get_peft_model(lm.model, LoraConfig(target_modules=["v_proj"], r=2, task_type="CAUSAL_LM"))
    train(model, ids_BT)
    expected_BTV = logits(load(tmp_path / "dense"), ids_BT), model(ids_BT, use_cache=False).logits.detach()

    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "elsewhere").mkdir()
    for part in ("dense", "adapter"):
        (tmp_path / part).rename(tmp_path / "elsewhere" / part)  # the base is found beside the adapter

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found_BTV = logits(load(tmp_path / "elsewhere" / "adapter"), ids_BT)

    torch.testing.assert_close(found_BTV, expected_BTV[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found_BTV, expected_BTV[0], atol=1e-4)


def config_with(adapter, **values) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


REFUSED = {
    "no base": ({"base_model_name_or_path": None}, "does not say which model the adapter belongs to"),
    "a lost base": ({"base_model_name_or_path": "gone"}, "is an adapter of 'gone', which cannot be loaded"),
    "itself": ({"base_model_name_or_path": "adapter"}, "is an adapter of 'adapter', which cannot be loaded"),
    "DoRA": ({"use_dora": True}, "has use_dora=True: only plain LoRA is covered"),
    "another kind": ({"peft_type": "IA3"}, "has peft_type='IA3': only plain LoRA is covered"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_adapter_that_cannot_be_merged_is_refused_in_a_sentence(saved, make_ids, name):
    _, adapt, adapter = saved
    adapt(make_ids(2, 9), holds=True)
    values, said = REFUSED[name]
    config_with(adapter, **values)
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        load(adapter)
    assert "\n" not in str(raised.value)


def test_an_adapter_without_its_tensors_is_refused(saved, make_ids):
    _, adapt, adapter = saved
    adapt(make_ids(2, 9), holds=True)

    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors.popitem()
    save_file(tensors, weights)

    with pytest.raises(ValueError, match=r"does not fit adapter_config\.json and the base"):
        load(adapter)

    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no adapter_model\.safetensors in"):
        load(adapter)


@pytest.mark.filterwarnings("ignore:.*is merged where")
def test_an_adapter_is_shipped_as_one_model(saved, make_ids, tmp_path):
    _, adapt, adapter = saved
    adapt(make_ids(2, 9), holds=True)
    with pytest.raises(ValueError, match=rf"is an adapter, not a whole model: .*`sinkprune ship {adapter} "):
        open_checkpoint(adapter)

    assert main.main(["ship", str(adapter), "--out", str(tmp_path / "whole")]) == 0
    assert open_checkpoint(tmp_path / "whole").name == "whole"
    assert load(tmp_path / "whole").fingerprint() == load(adapter).fingerprint()


PUBLISHED = {"o_proj": "attn_out", "gate_proj": "ff_proj", "down_proj": "ff_out"}  # native -> LLaDA's own


def as_published(adapter) -> None:
    """Rename an adapter as if it had been trained on the class that LLaDA is published with."""
    weights = adapter / "adapter_model.safetensors"
    tensors = {}
    for name, tensor in load_file(weights).items():
        name = name.replace("model.layers.", "model.transformer.blocks.")
        name = name.replace("self_attn.", "").replace("mlp.", "")
        for native, published in PUBLISHED.items():
            name = name.replace(f".{native}.", f".{published}.")
        tensors[name] = tensor
    save_file(tensors, weights)

    targets = json.loads((adapter / "adapter_config.json").read_text())["target_modules"]
    config_with(adapter, target_modules=[PUBLISHED.get(target, target) for target in targets])


@pytest.fixture
def adapter_of(tmp_path):
    """A function that writes a random adapter of the model in a folder, and returns the adapter's folder."""

    def write(folder, *targets: str):
        torch.manual_seed(0)
        lora = LoraConfig(target_modules=list(targets), r=2, init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(load(folder).model, lora).save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return write


@pytest.mark.parametrize("targets", [("q_proj", "o_proj"), ("gate_proj", "up_proj", "v_proj", "k_proj")])
def test_an_adapter_of_the_class_that_llada_is_published_with_is_renamed(checkpoint, adapter_of, targets):
    adapter = adapter_of(checkpoint, *targets)
    expected = load(adapter).fingerprint()
    assert expected != load(checkpoint).fingerprint()

    as_published(adapter)
    assert any("blocks.0." in name for name in load_file(adapter / "adapter_model.safetensors"))
    assert load(adapter).fingerprint() == expected


def test_the_base_of_an_adapter_is_read_as_it_is_stored(checkpoint, adapter_of, monkeypatch):
    adapter = adapter_of(checkpoint, "q_proj")
    read = []
    fill = Checkpoint.fill

    def filled(self, module, prefix="", dtype=torch.float32, *more, **named):
        read.append(dtype)
        return fill(self, module, prefix, dtype, *more, **named)

    monkeypatch.setattr(Checkpoint, "fill", filled)
    assert load(adapter, "bfloat16").model.dtype == torch.bfloat16
    assert set(Checkpoint(checkpoint).files.dtypes.values()) == {torch.bfloat16} == set(read)


@pytest.fixture
def text(tmp_path, make_ids):
    """A file of paragraphs in the words of the tiny vocabulary."""
    file = tmp_path / "words.txt"
    paragraphs = [[f"word{max(index, 27)}" for index in row] for row in make_ids(60, 12, seed=4).tolist()]
    file.write_text("\n\n".join(map(" ".join, paragraphs)))
    return file


def test_commands_take_an_adapter_and_the_next_command_that_one_prints_runs(
    checkpoint, adapter_of, text, tmp_path, capsys
):
    adapter = adapter_of(checkpoint, "q_proj")
    of_text = ["--text", str(text), "--length", "8"]
    line = ["prune", str(adapter), "--preset", "wanda", "--sequences", "4", *of_text]

    assert main.main([*line, "--out", str(tmp_path / "pruned")]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed == f"next: sinkprune compare {adapter} {tmp_path / 'pruned'}"
    following = printed.removeprefix("next: sinkprune ").split()
    assert main.main([*following, "--sequences", "4", *of_text]) == 0
    assert f"A is {adapter}: adapter (diffusion" in capsys.readouterr().out

    assert main.main([*line, "--dtype", "bfloat16", "--dry-run"]) == 0
    assert "adapter (diffusion, bfloat16 on" in capsys.readouterr().err


def test_an_adapter_is_recovered_as_the_model_that_it_makes(checkpoint, adapter_of, text, tmp_path, capsys):
    adapter = adapter_of(checkpoint, "q_proj")
    line = ["recover", str(adapter), "--steps", "1", "--text", str(text), "--length", "8", "--batch", "2"]
    assert main.main([*line, "--out", str(tmp_path / "recovered")]) == 0
    assert "adapter (diffusion), full, text alone" in capsys.readouterr().err
    assert load(tmp_path / "recovered").fingerprint() != load(adapter).fingerprint()

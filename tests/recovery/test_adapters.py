"""The folder of a PEFT adapter: loaded with its base, merged under the mask of a pruned one, or refused."""

import json
import re
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from sinkprune import load, recover, save_model, zeros_held
from sinkprune.cli import main
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


def test_what_needs_files_of_a_whole_model_says_how_to_make_them(saved, make_ids, tmp_path, capsys):
    _, adapt, adapter = saved
    adapt(make_ids(2, 9), holds=True)
    with pytest.raises(
        ValueError, match="is an adapter, not a whole model: make one model of it, `save_model"
    ):
        recover(adapter, out=tmp_path / "out", steps=1)
    assert main.main(["ship", str(adapter), "--masks", str(tmp_path / "m"), "--dense", "smol-dlm"]) == 1
    assert "is an adapter, not a whole model" in capsys.readouterr().err

"""`sinkprune ship --push` uploads a folder with its card to a hub of this machine, and its id then loads."""

import json
import shlex

import pytest
from fake_hub import TOKEN, running_hub
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model

from sinkprune import load, save_model
from sinkprune.cli import main


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, for which this process has a token, with an empty cache."""
    with running_hub() as hub:
        address = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + address)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)  # read from HF_ENDPOINT, but at import alone
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by HTTP
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def folder(make_pruned, tmp_path):
    return save_model(make_pruned(), tmp_path / "a model")


def test_what_is_pushed_loads_by_its_id(hub, folder, capsys):
    assert main.main(["ship", str(folder), "--push", "me/pruned"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.address}/me/pruned"
    assert hub.visibility == {"me/pruned": "private"}
    written = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert hub.repositories["me/pruned"] == written and {"README.md", "sinkprune.json"} <= written.keys()
    assert load("me/pruned").fingerprint() == load(folder).fingerprint()


def test_what_the_hub_refuses_is_one_sentence_with_the_line_to_type(hub, folder, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    assert main.main(["ship", str(folder), "--push", "me/pruned"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {folder} was not uploaded (") and "log in with `hf auth login`" in said
    assert said.endswith(f"then type `hf upload me/pruned {shlex.quote(str(folder))} .`")
    assert not hub.repositories


def test_a_name_that_is_none_is_refused(folder, capsys):
    assert main.main(["ship", str(folder), "--push", "pruned"]) == 1
    assert "repository='pruned' must be OWNER/NAME" in capsys.readouterr().err


def test_without_push_the_line_to_type_is_printed(folder, capsys):
    assert main.main(["ship", str(folder)]) == 0
    line = f"to publish it: hf upload OWNER/NAME {shlex.quote(str(folder))} ."
    assert capsys.readouterr().out.splitlines()[-1] == line


@pytest.mark.filterwarnings("ignore:.*is merged where me/pruned is not zero")
def test_an_adapter_on_the_hub_loads_with_its_base_from_there(hub, folder, tmp_path):
    lm = load(folder)
    weights = lm.fingerprint()
    model = get_peft_model(lm.model, LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")

    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "me/pruned"}))

    for name, place in (("me/pruned", folder), ("me/adapter", tmp_path / "adapter")):
        hub.repositories[name] = {file.name: file.read_bytes() for file in place.iterdir()}

    adapted = load("me/adapter")
    assert adapted.name == "adapter" and adapted.fingerprint() != weights

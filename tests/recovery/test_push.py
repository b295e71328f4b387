"""`sinkprune ship --push` uploads a folder with its card to a hub of this machine, and its id then loads."""

import shlex

import pytest
from fake_hub import TOKEN, running_hub
from huggingface_hub import constants

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

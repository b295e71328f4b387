"""A hub id stands for a model wherever a folder does: evaluated, pruned, recovered, and planned."""

import json
from pathlib import Path

import pytest
from fake_hub import running_hub
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model

from sinkprune import load, recover, save_model
from sinkprune.cli import main
from sinkprune.models.embedded import FetchError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, with an empty cache."""
    with running_hub() as hub:
        address = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + address)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)  # read from HF_ENDPOINT, but at import alone
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield hub


@pytest.fixture
def folder(make_pruned, tmp_path):
    return save_model(make_pruned(), tmp_path / "a model")


@pytest.fixture
def text(tmp_path, make_ids):
    """A file of paragraphs in the words of the tiny vocabulary."""
    rows = make_ids(60, 12, seed=4).tolist()
    file = tmp_path / "words.txt"
    file.write_text(
        "\n\n".join(" ".join(f"word{index}" if index > 26 else "the" for index in row) for row in rows)
    )
    return file


def test_a_model_is_evaluated_by_its_id_as_its_folder_is(hub, folder, text, tmp_path):
    hub.upload("me/pruned", folder)
    assert load("me/pruned").fingerprint() == load(folder).fingerprint()

    found = []
    for number, name in enumerate((folder, "me/pruned")):
        file = tmp_path / f"{number}.json"
        line = ["evaluate", str(name), "--text", str(text), "--sequences", "4", "--length", "12"]
        assert main.main([*line, "--json", str(file)]) == 0
        found.append(json.loads(file.read_text()))
    assert found[0] == found[1]


def test_a_download_is_announced_with_its_size_once(hub, folder, capsys, monkeypatch):
    monkeypatch.setattr("sinkprune.models.hub.ANNOUNCED", 1)
    with (folder / "LICENSE.txt").open("wb") as file:
        file.truncate(7_000_000)
    hub.upload("me/pruned", folder)

    load("me/pruned")
    assert "me/pruned from the hub: 7 MB\n" in capsys.readouterr().err
    load("me/pruned")
    assert "from the hub" not in capsys.readouterr().err, "it is in the cache"


def test_a_chain_of_ids_is_kept_on_the_cards(hub, make_lm, text, tmp_path):
    """A dense model of the hub is pruned; the result is uploaded, and recovered by its id."""
    lm = make_lm("diffusion", "gqa-24")
    dense = save_model(lm, tmp_path / "dense")
    (dense / "README.md").write_text("---\nlicense: cc-by-4.0\nbase_model: someone/else\n---\n")
    hub.upload("them/dense", dense)

    line = ["prune", "them/dense", "--preset", "wanda", "--text", str(text), "--sequences", "4"]
    assert main.main([*line, "--length", "12", "--out", str(tmp_path / "pruned")]) == 0
    readme = (tmp_path / "pruned" / "README.md").read_text()
    assert "base_model: them/dense\n" in readme and "license: cc-by-4.0\n" in readme
    assert "48 tokens of calibration text (words.txt)" in readme

    hub.upload("me/pruned", tmp_path / "pruned")
    settings = {"steps": 1, "batch": 2, "length": 12, "progress": False}
    done = recover("me/pruned", out=tmp_path / "recovered", text=text, **settings)

    assert done.teacher == lm.name  # which the hub's cache holds
    card = json.loads((tmp_path / "recovered" / "sinkprune.json").read_text())
    assert card["recipe"]["criterion"] == "wanda" and card["made_from"]["given"] == "them/dense"
    readme = (tmp_path / "recovered" / "README.md").read_text()
    assert "base_model: them/dense\n" in readme and "24 tokens of text (words.txt) in 1 steps" in readme

    again = ["prune", "me/pruned", "--preset", "magnitude", "--sparsity", "0.6"]
    assert main.main([*again, "--out", str(tmp_path / "again")]) == 0
    made_from = json.loads((tmp_path / "again" / "sinkprune.json").read_text())["made_from"]
    assert made_from["recipe_before"] == card["recipe"] and made_from["base_model"] == "me/pruned"


@pytest.mark.filterwarnings("ignore:.*is merged where me/pruned is not zero")
def test_an_adapter_on_the_hub_loads_with_its_base_from_there(hub, folder, tmp_path):
    lm = load(folder)
    weights = lm.fingerprint()
    model = get_peft_model(lm.model, LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")

    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "me/pruned"}))

    hub.upload("me/pruned", folder)
    hub.upload("me/adapter", tmp_path / "adapter")

    adapted = load("me/adapter")
    assert adapted.name == "adapter" and adapted.fingerprint() != weights


def in_cache(pattern: str) -> list[Path]:
    return list(Path(constants.HF_HUB_CACHE).rglob(pattern))


@pytest.mark.parametrize("command", ["prune", "recover"])
def test_a_dry_run_of_any_id_downloads_no_weights(hub, folder, command, capsys):
    hub.upload("me/planned", folder)
    options = {"prune": ["--preset", "wanda", "--sequences", "4"], "recover": ["--tokens", "96"]}
    assert main.main([command, "me/planned", *options[command], "--length", "12", "--dry-run"]) == 0

    said = capsys.readouterr().err
    assert "me/planned (diffusion" in said and "peak memory about" in said
    assert in_cache("config.json") and not in_cache("*.safetensors")


def test_a_repository_without_safetensors_is_one_sentence_before_a_download(hub, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.upload("me/pickled", folder)
    with pytest.raises(FetchError, match="me/pickled publishes no safetensors: pickled weights can run code"):
        load("me/pickled")

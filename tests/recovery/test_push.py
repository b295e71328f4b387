"""`sinkprune ship --push` uploads a folder with its card to a hub of this machine, and its id then loads."""

import json
import shlex
from pathlib import Path

import pytest
from fake_hub import TOKEN, running_hub
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model

from sinkprune import load, recover, save_model
from sinkprune.cli import main
from sinkprune.models.embedded import FetchError
from sinkprune.models.hub import requirements
from sinkprune.recovery.masks import save_masks


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


def test_the_card_of_what_is_pushed_loads_it_from_there_and_keeps_what_was_written_in_it(hub, folder):
    readme = folder / "README.md"
    assert 'lm = load("a model")' in readme.read_text()
    readme.write_text(readme.read_text() + "\nFor research alone.\n")

    assert main.main(["ship", str(folder), "--push", "me/pruned"]) == 0
    text = hub.repositories["me/pruned"]["README.md"].decode()
    assert 'lm = load("me/pruned")' in text and text.endswith("For research alone.\n")


def test_the_card_of_an_int8_folder_loads_it_with_stock_transformers(hub, folder, tmp_path):
    pytest.importorskip("torchao")
    assert main.main(["ship", str(folder), "--int8", str(tmp_path / "narrow")]) == 0
    text = (tmp_path / "narrow" / "README.md").read_text()
    assert 'AutoModelForCausalLM.from_pretrained("narrow"' in text and "lm = load" not in text

    assert main.main(["ship", str(tmp_path / "narrow"), "--push", "me/narrow"]) == 0
    pushed = hub.repositories["me/narrow"]["README.md"].decode()
    assert pushed == text.replace('"narrow"', '"me/narrow"')


@pytest.fixture
def text(tmp_path, make_ids):
    """A file of paragraphs in the words of the tiny vocabulary."""
    rows = make_ids(60, 12, seed=4).tolist()
    file = tmp_path / "words.txt"
    file.write_text(
        "\n\n".join(" ".join(f"word{index}" if index > 26 else "the" for index in row) for row in rows)
    )
    return file


def test_what_is_pushed_is_evaluated_by_its_id_as_its_folder_is(hub, folder, text, tmp_path):
    assert main.main(["ship", str(folder), "--push", "me/pruned"]) == 0
    found = []
    for number, name in enumerate((folder, "me/pruned")):
        file = tmp_path / f"{number}.json"
        line = ["evaluate", str(name), "--text", str(text), "--sequences", "4", "--length", "12"]
        assert main.main([*line, "--json", str(file)]) == 0
        found.append(json.loads(file.read_text()))
    assert found[0] == found[1]


def test_a_chain_of_ids_is_kept_on_the_cards(hub, make_lm, text, tmp_path):
    """A dense model of the hub is pruned; the result is pushed, and recovered by its id."""
    lm = make_lm("diffusion", "gqa-24")
    dense = save_model(lm, tmp_path / "dense")
    (dense / "README.md").write_text("---\nlicense: cc-by-4.0\nbase_model: someone/else\n---\n")
    hub.repositories["them/dense"] = {file.name: file.read_bytes() for file in dense.iterdir()}

    line = ["prune", "them/dense", "--preset", "wanda", "--text", str(text), "--sequences", "4"]
    assert main.main([*line, "--length", "12", "--out", str(tmp_path / "pruned")]) == 0
    readme = (tmp_path / "pruned" / "README.md").read_text()
    assert "base_model: them/dense\n" in readme and "license: cc-by-4.0\n" in readme
    assert "48 tokens of calibration text (words.txt)" in readme

    assert main.main(["ship", str(tmp_path / "pruned"), "--push", "me/pruned"]) == 0
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


def test_what_the_hub_refuses_is_one_sentence_with_the_line_to_type(hub, folder, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    assert main.main(["ship", str(folder), "--push", "me/pruned"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {folder} was not uploaded (") and "log in with `hf auth login`" in said
    assert said.endswith(f"then type `hf upload me/pruned {shlex.quote(str(folder))} .`")
    assert not hub.repositories


def test_a_hub_that_cannot_be_reached_asks_for_no_login(folder, capsys, monkeypatch):
    """No server listens at this port."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main.main(["ship", str(folder), "--push", "me/pruned"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "was not uploaded (" in said and "reached" in said and "log in" not in said


def test_a_name_that_is_none_is_refused(folder, capsys):
    assert main.main(["ship", str(folder), "--push", "pruned"]) == 1
    assert "repository='pruned' must be OWNER/NAME" in capsys.readouterr().err


def test_after_a_typo_or_a_refusal_the_card_names_where_the_model_is(hub, folder, monkeypatch):
    readme = folder / "README.md"
    before = readme.read_text()
    with monkeypatch.context() as patches:
        patches.setenv("HF_TOKEN", "hf_of_another")
        assert main.main(["ship", str(folder), "--push", "me/pruned"]) == 1
    assert readme.read_text() == before

    for name in ("me/prunde", "me/pruned"):
        assert main.main(["ship", str(folder), "--push", name]) == 0
        assert hub.repositories[name]["README.md"].decode().count(f'lm = load("{name}")\n') == 1
    assert "prunde" not in readme.read_text()


@pytest.mark.parametrize("name", ["smol-dlm", "GSAI-ML/LLaDA-8B-Base"])
@pytest.mark.parametrize("more", [[], ["--push", "me/pruned"]])
def test_a_name_cannot_be_shipped(hub, capsys, name, more):
    assert main.main(["ship", name, *more]) == 1
    assert f"error: {name} is no folder" in capsys.readouterr().err and not hub.repositories


def test_what_masks_give_back_is_what_is_pushed(hub, make_lm, make_pruned, tmp_path):
    dense = save_model(make_lm("diffusion", "gqa-24"), tmp_path / "dense")
    pruned = make_pruned()
    masks, again = save_masks(pruned, tmp_path / "masks.safetensors"), tmp_path / "again"
    line = ["ship", str(dense), "--apply-masks", str(masks), "--out", str(again), "--push", "me/again"]
    assert main.main(line) == 0
    assert hub.repositories.keys() == {"me/again"}
    assert load("me/again").fingerprint() == pruned.fingerprint()


def test_what_cannot_be_pushed_is_refused_before_anything_is_written(make_lm, folder, tmp_path, capsys):
    plain = tmp_path / "plain"
    make_lm("autoregressive", "gqa-24").model.save_pretrained(plain)
    line = ["--dense", str(plain), "--masks", str(tmp_path / "masks.safetensors"), "--push"]
    cases = ((plain, "me/pruned", "neither README.md nor sinkprune.json"), (folder, "me/a b", "OWNER/NAME"))
    for place, name, said in cases:
        there = sorted(tmp_path.rglob("*"))
        assert main.main(["ship", str(place), *line, name]) == 1
        assert said in capsys.readouterr().err.splitlines()[-1]
        assert sorted(tmp_path.rglob("*")) == there


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


def in_cache(pattern: str) -> list[Path]:
    return list(Path(constants.HF_HUB_CACHE).rglob(pattern))


@pytest.mark.parametrize("command", ["prune", "recover"])
def test_a_dry_run_of_any_id_downloads_no_weights(hub, folder, command, capsys):
    hub.repositories["me/planned"] = {file.name: file.read_bytes() for file in folder.iterdir()}
    options = {"prune": ["--preset", "wanda", "--sequences", "4"], "recover": ["--tokens", "96"]}
    assert main.main([command, "me/planned", *options[command], "--length", "12", "--dry-run"]) == 0

    said = capsys.readouterr().err
    assert "0.0 GB to download, since it is not on this machine" in said
    assert "me/planned (diffusion" in said
    assert in_cache("config.json") and not in_cache("*.safetensors")


def test_what_a_hub_id_takes_is_known_from_the_headers_on_the_hub(hub, folder):
    hub.repositories["me/sized"] = {file.name: file.read_bytes() for file in folder.iterdir()}
    there, here = requirements("me/sized"), requirements(folder)
    assert not in_cache("*.safetensors")
    assert (there.parameters, there.disk, there.memory) == (here.parameters, here.disk, here.memory)
    assert (there.download, here.download) == (here.disk, 0)


def test_a_repository_without_safetensors_is_one_sentence_before_a_download(hub, folder):
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.repositories["me/pickled"] = {name: content for name, content in files.items() if "safe" not in name}
    with pytest.raises(FetchError, match="me/pickled publishes no safetensors: pickled weights can run code"):
        load("me/pickled")


def test_a_folder_without_a_card_is_not_offered_for_upload(make_lm, tmp_path, capsys):
    plain = tmp_path / "plain"
    make_lm("autoregressive", "gqa-24").model.save_pretrained(plain)
    assert main.main(["ship", str(plain)]) == 0
    said = capsys.readouterr().out
    assert "hf upload" not in said
    assert "--family native" in said  # an autoregressive model stays one

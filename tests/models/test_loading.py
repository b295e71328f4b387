"""From a name to a model: the hub's cache, what a model takes, and errors that say what is wrong."""

import hashlib
from pathlib import Path

import pytest
import torch
from random_models.cases import CASES
from random_models.writing import write

from sinkprune.models import embedded
from sinkprune.models.hub import Name, parse
from sinkprune.models.loading import load, open_checkpoint
from sinkprune.models.meta_model import shapes_of
from sinkprune.models.reader import Checkpoint
from sinkprune.models.saving import save
from sinkprune.models.weight_files import FormatError
from sinkprune.recovery.model_card import card_of, provenance
from sinkprune_core.language_model import LanguageModel


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    for name in ("smol", tmp_path):
        with pytest.raises(ValueError, match=r"unknown model .*known names: smol-ar, smol-dlm"):
            load(name)


def load_case(case, folder: Path) -> LanguageModel:
    write(case, folder)
    return load(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache in the hub's own layout, and no network: a function that puts a tiny checkpoint there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repository: str, case, revision: str = "main"):
        root = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        commit = hashlib.sha1(revision.encode()).hexdigest()
        folder = root / "snapshots" / commit
        parts = write(case, folder, seed=len(revision))
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / revision).write_text(commit)
        return parts

    return put


def test_a_hub_id_is_loaded_from_the_hub_s_cache(hub):
    name = "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1"
    hub(name, CASES["a2d qwen2"])
    hub(name, CASES["a2d qwen2"], revision="v2")
    lm, other = load(name), load(f"{name}@v2", "bfloat16")
    assert (lm.name, lm.kind, lm.mask_token_id, lm.logits_shifted) == (name, "diffusion", 5, False)
    assert other.model.dtype == torch.bfloat16 and lm.fingerprint() != load(f"{name}@v2").fingerprint()
    hub("Qwen/Qwen3-0.6B", CASES["qwen3"])
    assert load("Qwen/Qwen3-0.6B").kind == "autoregressive"


def test_a_hub_id_that_the_table_does_not_have_is_loaded_by_its_files(hub):
    hub("someone/my-llada", CASES["llada"])
    hub("someone/my-model", CASES["qwen2"], revision="v2")

    lm = load("someone/my-llada")
    assert (lm.name, lm.kind, lm.mask_token_id) == ("someone/my-llada", "diffusion", 5)
    assert load("someone/my-model@v2").name == "someone/my-model"

    said = (
        r"Qwen3-0.6 could not be fetched.* there is no folder Qwen/Qwen3-0.6 here either; did you mean Qwen/"
    )
    with pytest.raises(embedded.FetchError, match=said):
        load("Qwen/Qwen3-0.6")


def test_a_fact_of_the_table_that_the_files_contradict_is_an_error(hub):
    hub("Dream-org/Dream-v0-Base-7B", CASES["dream"])
    with pytest.raises(
        FormatError, match=r"not clear: 151666 says the table of models, 266 says config.json"
    ):
        load("Dream-org/Dream-v0-Base-7B")
    hub("GSAI-ML/LLaDA-1.5", CASES["dream"])
    with pytest.raises(FormatError, match="expected to be of the family 'llada' and looks like 'dream'"):
        load("GSAI-ML/LLaDA-1.5")


def test_a_folder_goes_before_a_hub_id_of_its_name(hub, tmp_path, monkeypatch):
    name = "GSAI-ML/LLaDA-8B-Base"
    monkeypatch.chdir(tmp_path)
    folder = save(load_case(CASES["llama"], tmp_path / "made"), tmp_path / name, note="mine")

    assert parse(name) == Name(folder=Path(name))
    assert load(name).fingerprint() == load(folder).fingerprint()
    assert open_checkpoint(name).kind == "autoregressive"
    assert shapes_of(name, torch.float32).name == "LLaDA-8B-Base"

    assert card_of(name)["note"] == "mine"
    assert provenance(name) == {"given": name}, "it is not known to be what the hub has"


def test_a_folder_without_a_model_is_not_passed_over_for_the_hub(hub, tmp_path, monkeypatch):
    name = "GSAI-ML/LLaDA-8B-Base"
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)

    with pytest.raises(
        ValueError, match=rf"{name} is a folder here.* without config.json.* remove it or run"
    ):
        load(name)


def test_without_network_and_cache_the_error_says_what_to_do(hub):
    for name in ("openai-community/gpt2", "openai-community/gpt2@v1"):
        with pytest.raises(
            embedded.FetchError,
            match=r"openai-community/gpt2 could not be fetched: the hub cannot be reached .* "
            r"run again with a network, .* or copy a folder of it here",
        ):
            load(name)


def test_weights_that_do_not_fit_are_refused_before_one_is_read(tmp_path, monkeypatch):
    write(CASES["llada"], tmp_path / "llada")
    needed = sum(parameter.nbytes for parameter in load(tmp_path / "llada").model.parameters())

    monkeypatch.setattr("sinkprune.models.loading.available_memory", lambda _: needed - 1)
    assert load(tmp_path / "llada", "bfloat16").model.dtype == torch.bfloat16

    monkeypatch.setattr(Checkpoint, "fill", lambda *_, **__: pytest.fail("read weights"))
    with pytest.raises(RuntimeError, match=r"llada cannot be loaded here.*take a smaller dtype"):
        load(tmp_path / "llada")

"""What is shipped says what it is, and loads: folders with a model card."""

import json
import os
import shlex
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from sinkprune import load, recover
from sinkprune.cli import main
from sinkprune.cli.screen import keeping
from sinkprune.files import file_digest
from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.saving import save
from sinkprune.models.shrinking import shrink
from sinkprune.models.streaming import FinishedBlock, stored_block, stream
from sinkprune.recovery.model_card import provenance, save_model, write_readme
from sinkprune_core import preset, prune, wrap


@pytest.fixture
def make_reported(make_lm, calibration):
    """A function that returns a tiny pruned model and its report."""

    def make(kind="diffusion", name="wanda", seed=0, **changes):
        lm = make_lm(kind, "gqa-24", seed)
        return lm, prune(lm, preset(name, **{"sparsity": 0.5} | changes), calibration)

    return make


def front_matter(folder: Path) -> str:
    text = (folder / "README.md").read_text()
    return text.split("---\n")[1]


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_a_saved_folder_says_what_it_is(make_reported, tmp_path, kind):
    lm, report = make_reported(kind)
    folder = save_model(lm, tmp_path / "pruned", **report.card(), made_from=provenance("smol-dlm"))
    again = load(folder)
    assert again.fingerprint() == lm.fingerprint()
    assert (again.kind, again.mask_token_id) == (kind, lm.mask_token_id)

    config = AutoConfig.from_pretrained(folder)
    assert config.is_causal == (kind == "autoregressive")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if kind == "diffusion":
        assert config.mask_token_id == tokenizer.mask_token_id == lm.mask_token_id
    text = " ".join(lm.tokenizer.get_vocab())
    assert tokenizer(text).input_ids == lm.tokenizer(text).input_ids

    with safe_open(folder / "model.safetensors", "pt") as handle:
        assert json.loads(handle.metadata()["recipe"]) == report.card()["recipe"]
        assert handle.metadata()["format"] == "pt"
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in front_matter(folder)
    assert "license: apache-2.0" in front_matter(folder)
    assert ("pipeline_tag: text-generation" in front_matter(folder)) == (kind == "autoregressive")
    readme = (folder / "README.md").read_text()
    assert f" % of {report.linears.weights.sum():,} weights" in readme and "| criterion | wanda |" in readme
    assert ("generate()" in readme) == (kind == "diffusion")


def test_the_base_model_is_what_was_loaded_and_no_model_of_the_same_name(make_lm, tmp_path):
    lm = make_lm("diffusion", "gqa-24").named("smol-dlm")
    lm.model.name_or_path = "smol-dlm"
    folder = save_model(lm, tmp_path / "smol-dlm")
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in front_matter(folder)
    again = save_model(load(folder), tmp_path / "again")
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in front_matter(again)

    (folder / "README.md").unlink()  # nothing says any more what is behind the folder of that name
    other = save_model(load(folder), tmp_path / "other")
    assert "base_model" not in front_matter(other) and "license: other" in front_matter(other)


@pytest.mark.parametrize("name", ["A title of a model", "", "no/such-model", "../elsewhere"])
def test_a_model_that_was_loaded_from_nowhere_has_no_base_model(make_lm, tmp_path, name):
    lm = make_lm("autoregressive")
    lm.model.name_or_path = name
    assert "base_model" not in front_matter(save_model(lm, tmp_path / "saved"))


def test_what_transformers_loads_and_saves_again_needs_no_card(make_reported, tmp_path):
    """As a Trainer does."""
    lm, report = make_reported()
    folder = save_model(lm, tmp_path / "pruned", **report.card())
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "again")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "sinkprune.json").exists()
    again = load(tmp_path / "again")
    assert again.fingerprint() == lm.fingerprint()
    assert (again.kind, again.mask_token_id, again.logits_shifted) == ("diffusion", MASK_TOKEN_ID, True)


def test_stock_transformers_computes_the_same(make_reported, make_ids, tmp_path):
    lm, report = make_reported()
    folder = save_model(lm, tmp_path / "pruned", **report.card())
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids_BT = make_ids(3, 12)
    with torch.no_grad():
        assert torch.equal(stock(ids_BT).logits, lm.model(ids_BT).logits)


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_what_transformers_generates_with_is_left_alone(make_reported, make_ids, tmp_path, kind):
    """Who writes a diffusion model from left to right gets what was asked for; the model card says more."""
    lm, report = make_reported(kind)
    folder = save_model(lm, tmp_path / "pruned", **report.card())
    stock = AutoModelForCausalLM.from_pretrained(folder)

    assert stock.generation_config.sequence_bias is None
    assert stock.generate(make_ids(2, 12), max_new_tokens=3, eos_token_id=None).shape == (2, 15)
    assert torch.equal(
        AutoModel.from_pretrained(folder)(make_ids(2, 12)).last_hidden_state, lm.hidden(make_ids(2, 12))
    )


def test_a_folder_with_another_tensor_is_damaged(make_reported, tmp_path):
    lm, report = make_reported()
    folder = save_model(lm, tmp_path / "pruned", **report.card())
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load(folder)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_folder_says_of_generate_is_kept(make_lm, tmp_path, streamed):
    """As a published model has it: sampling by default, and several tokens that end a text."""
    stated = {"eos_token_id": [2, 7], "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    dense = save(make_lm("autoregressive", "gqa-24"), tmp_path / "dense")
    (dense / "generation_config.json").write_text(json.dumps(stated))

    lm = stream(open_checkpoint(dense), "dense", torch.float32) if streamed else load(dense)
    again = save_model(lm, tmp_path / "again")
    written = json.loads((again / "generation_config.json").read_text())
    assert {name: written.get(name) for name in stated} == stated
    assert load(again).model.generation_config.eos_token_id == [2, 7]


def test_blocks_that_a_streamed_run_has_finished_are_not_copied(make_reported, make_lm, tmp_path):
    """So that the end of a run takes no more of the disk than its plan says."""
    pruned, report = make_reported("autoregressive")
    dense = save(make_lm("autoregressive", "gqa-24"), tmp_path / "dense")
    lm = stream(open_checkpoint(dense), "dense", torch.float32)
    for layer in range(len(lm.blocks)):
        file = tmp_path / f"{layer}.safetensors"
        save_file(stored_block(pruned, layer), file, metadata={"format": "pt"})
        lm.finished[layer] = FinishedBlock(file, file_digest(file))

    folder = save_model(lm, tmp_path / "pruned", **report.card())
    for layer in range(len(lm.blocks)):
        shard = folder / f"model-block-{layer:05d}.safetensors"
        assert os.path.samefile(tmp_path / f"{layer}.safetensors", shard)

    with safe_open(folder / "model-rest-00000.safetensors", "pt") as handle:
        assert json.loads(handle.metadata()["recipe"]) == report.card()["recipe"]
    assert load(folder).fingerprint() == pruned.fingerprint()


@pytest.mark.parametrize(
    "card",
    [
        {"recipe": {"how": "mine"}},
        {"recovery": {"method": "mine"}},
        {"recipe": "mine"},
        {"made_from": "mine"},
        {"sparsity": 50},
    ],
    ids=str,
)
def test_what_a_model_card_cannot_tell_is_refused_at_once(make_lm, tmp_path, monkeypatch, card):
    (name,) = card
    lm = make_lm("diffusion")
    monkeypatch.setattr(lm.model, "save_pretrained", lambda *_, **__: pytest.fail("wrote weights"))
    with pytest.raises(ValueError, match=rf"^{name}.* by another name"):
        save_model(lm, tmp_path / "out", **card)
    assert not list(tmp_path.iterdir())


BROKEN = [
    ("made_from", "smol-dlm", "made_from="),
    ("made_from", {"given": ["smol-dlm"]}, "made_from.given="),
    ("made_from", {"text": "words.txt"}, "made_from.text="),
    ("sparsity", "half", "sparsity="),
    ("prunable_weights", -1, "prunable_weights="),
    ("recovery", {"tokens": 9}, "recovery.steps="),
]


@pytest.mark.parametrize(("field", "value", "said"), BROKEN, ids=str)
def test_a_broken_card_is_refused_by_its_field_wherever_it_is_read(
    make_reported, tmp_path, field, value, said
):
    lm, report = make_reported()
    folder = save_model(lm, tmp_path / "pruned", **report.card())
    file = folder / "sinkprune.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))

    readers = (
        lambda: load(folder),
        lambda: recover(folder, out=tmp_path / "out", steps=1),
        lambda: write_readme(folder, "pruned"),
    )
    for read in readers:
        with pytest.raises(ValueError, match=rf"sinkprune\.json has {said}"):
            read()


@pytest.mark.parametrize("name", ["README.md", "config.json", "sinkprune.json", "model.safetensors"])
def test_a_text_by_the_name_of_a_file_of_the_model_is_refused_at_once(make_lm, tmp_path, monkeypatch, name):
    lm = make_lm("diffusion")
    monkeypatch.setattr(lm.model, "save_pretrained", lambda *_, **__: pytest.fail("wrote weights"))
    with pytest.raises(ValueError, match=f"{name}, which is written with the model"):
        save_model(lm, tmp_path / "out", {name: "mine"})
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(make_reported, tmp_path):
    lm, report = make_reported()
    save_model(lm, tmp_path / "pruned", **report.card())
    with pytest.raises(FileExistsError, match="exists"):
        save_model(lm, tmp_path / "pruned", **report.card())
    assert [file.name for file in tmp_path.iterdir()] == ["pruned"]


@pytest.mark.parametrize("is_shrunk", [False, True])
def test_the_card_of_a_structured_model_says_whether_units_left_it(make_lm, calibration, tmp_path, is_shrunk):
    lm = make_lm("diffusion", "gqa-24", 0)
    report = prune(lm, preset("structured", round_to=1), calibration)
    saved = shrink(lm, report.kept_units) if is_shrunk else lm
    save_model(saved, tmp_path / "out", **report.card())
    readme = (tmp_path / "out" / "README.md").read_text()
    assert ("the model is smaller" in readme) is is_shrunk


@pytest.mark.parametrize("card", [{"kind": "autoregressive"}, {"name": "mine"}], ids=str)
def test_a_card_that_says_too_little_is_refused_with_the_way_out(make_lm, tmp_path, card):
    save_model(make_lm("diffusion", "gqa-24", 0), tmp_path / "out")
    (tmp_path / "out" / "sinkprune.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"has no .*: save the model anew with save_model"):
        write_readme(tmp_path / "out", "out")


def test_a_pattern_says_which_kernels_it_is_for(make_reported, tmp_path):
    lm, report = make_reported(pattern="2:4")
    folder = save_model(lm, tmp_path / "pruned", **report.card())
    assert "to_sparse_semi_structured" in (folder / "README.md").read_text()


def test_the_line_to_type_is_printed(make_lm, tmp_path, capsys):
    folder = save_model(make_lm("diffusion"), tmp_path / "a model")
    assert main.main(["ship", str(folder)]) == 0
    line = f"to publish it: hf upload OWNER/NAME {shlex.quote(str(folder))} ."
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_a_folder_without_a_card_gets_one_elsewhere(make_lm, tmp_path, capsys):
    plain, out = tmp_path / "plain", tmp_path / "out"
    lm = make_lm("autoregressive", "gqa-24")
    lm.model.save_pretrained(plain)
    lm.tokenizer.save_pretrained(plain)

    assert main.main(["ship", str(plain)]) == 1
    assert "--out" in capsys.readouterr().err
    assert main.main(["ship", str(plain), "--out", str(out)]) == 0
    assert f"to publish it: hf upload OWNER/NAME {out} ." in capsys.readouterr().out
    assert load(out).fingerprint() == lm.fingerprint() and "pipeline_tag" in front_matter(out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_exported_has_the_weights_dtype_and_recipe_of_the_model(make_reported, tmp_path, dtype):
    lm, report = make_reported()
    lm.model.to(dtype)
    save_model(lm, tmp_path / "pruned", **report.card())

    assert main.main(["ship", str(tmp_path / "pruned"), "--out", str(tmp_path / "out")]) == 0
    assert load(tmp_path / "out", dtype).fingerprint() == lm.fingerprint()
    assert set(open_checkpoint(tmp_path / "out").files.dtypes.values()) == {dtype}

    card = json.loads((tmp_path / "out" / "sinkprune.json").read_text())
    assert card["recipe"] == report.card()["recipe"] and card["name"] == "out"


def test_a_name_can_only_be_shipped_to_a_folder(capsys):
    assert main.main(["ship", "smol-dlm"]) == 1
    said = capsys.readouterr().err
    assert "error: smol-dlm is no folder" in said and "--out" in said


# folders that something else saved


def test_what_something_else_saved_is_wrapped_and_saved(make_reported, tmp_path):
    """As docs/pruning.md shows it: neither card nor configuration says how the model predicts."""
    lm, _ = make_reported()
    other = tmp_path / "checkpoint"
    lm.model.save_pretrained(other)
    lm.tokenizer.save_pretrained(other)

    model, tokenizer = AutoModelForCausalLM.from_pretrained(other), AutoTokenizer.from_pretrained(other)
    save_model(wrap(model, tokenizer, mask_token_id=MASK_TOKEN_ID, logits_shifted=True), tmp_path / "mine")

    again = load(tmp_path / "mine")
    assert again.fingerprint() == lm.fingerprint()
    assert (again.kind, again.mask_token_id, again.logits_shifted) == ("diffusion", MASK_TOKEN_ID, True)


def test_weights_that_were_saved_anew_load_without_the_card_of_the_former_ones(make_reported, tmp_path):
    lm, report = make_reported()
    folder = save_model(lm, tmp_path / "pruned", **report.card())
    stock = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        stock.model.layers[0].mlp.down_proj.weight.mul_(2)
    stock.save_pretrained(folder)

    with pytest.raises(ValueError, match=r"remove sinkprune\.json"):
        load(folder)
    (folder / "sinkprune.json").unlink()
    again = load(folder)
    assert torch.equal(again.blocks[0].mlp.down_proj.weight, 2 * lm.blocks[0].mlp.down_proj.weight)
    assert (again.kind, again.mask_token_id, again.logits_shifted) == ("diffusion", MASK_TOKEN_ID, True)


def test_weights_load_where_what_a_folder_says_of_generate_is_nonsense(make_lm, tmp_path):
    folder = save(make_lm("autoregressive", "gqa-24"), tmp_path / "dense")
    (folder / "generation_config.json").write_text('{"max_new_tokens": 0}')

    with pytest.warns(UserWarning, match="generation_config.json is left out"):
        lm = load(folder)
    assert lm.model.generation_config.max_new_tokens is None


# interruptions


def test_after_an_interruption_a_finished_model_is_not_called_nothing(tmp_path):
    out, work = tmp_path / "out", tmp_path / "out.work"
    work.mkdir()
    with pytest.raises(KeyboardInterrupt) as stopped, keeping("the last state is", work, out):
        raise KeyboardInterrupt
    assert str(work) in stopped.value.__notes__[0]

    out.mkdir()
    with pytest.raises(KeyboardInterrupt) as stopped, keeping("the last state is", work, out):
        raise KeyboardInterrupt
    assert stopped.value.__notes__ == [f"{out} is written, and whole"]

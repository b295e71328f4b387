"""What is shipped says what it is, and loads: folders with a model card, and masks alone."""

import json
import os
import shlex
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

from sinkprune import load
from sinkprune.cli import main
from sinkprune.cli.options import parse
from sinkprune.files import file_digest
from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.saving import save
from sinkprune.models.shrinking import shrink
from sinkprune.models.streaming import FinishedBlock, stored_block, stream
from sinkprune.recovery import model_card
from sinkprune.recovery.masks import apply_masks, save_masks
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


@pytest.mark.parametrize("writer", ["saved", "saved again by transformers"])
def test_stock_generation_of_a_diffusion_model_ends_in_a_sentence(make_reported, make_ids, tmp_path, writer):
    lm, report = make_reported()
    folder = save_model(lm, tmp_path / "pruned", **report.card())
    if writer != "saved":
        AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "again")
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
        folder = tmp_path / "again"

    says = "a masked diffusion model.*sinkprune generate"
    ids_BT = make_ids(2, 12)
    stock = AutoModelForCausalLM.from_pretrained(folder)
    for options in ({}, {"do_sample": True}, {"num_beams": 2}, {"use_cache": False}):
        with pytest.raises(ValueError, match=says):
            stock.generate(ids_BT, max_new_tokens=2, **options)
    write = pipeline("text-generation", model=str(folder))
    with pytest.raises(ValueError, match=says):
        write("w20 w21", max_new_tokens=2)

    with torch.no_grad():  # what is no generation is as before
        assert torch.equal(AutoModel.from_pretrained(folder)(ids_BT).last_hidden_state, lm.hidden(ids_BT))
    assert load(folder).fingerprint() == lm.fingerprint()


def test_stock_generation_of_an_autoregressive_model_is_left_alone(make_reported, make_ids, tmp_path):
    lm, report = make_reported("autoregressive")
    stock = AutoModelForCausalLM.from_pretrained(save_model(lm, tmp_path / "pruned", **report.card()))
    assert stock.generate(make_ids(2, 12), max_new_tokens=3, eos_token_id=None).shape == (2, 15)


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
    "card", [{"recipe": {"how": "mine"}}, {"recovery": {"method": "mine"}}, {"recipe": "mine"}], ids=str
)
def test_what_a_model_card_cannot_tell_is_refused_at_once(make_lm, tmp_path, monkeypatch, card):
    (name,) = card
    monkeypatch.setattr(model_card, "save", lambda *_: pytest.fail("wrote weights"))
    with pytest.raises(ValueError, match=rf"{name}=.*mine.* does not say what .* by another name"):
        save_model(make_lm("diffusion"), tmp_path / "out", **card)
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


def test_a_folder_without_a_card_is_not_offered_for_upload(make_lm, tmp_path, capsys):
    plain = tmp_path / "plain"
    make_lm("autoregressive", "gqa-24").model.save_pretrained(plain)
    assert main.main(["ship", str(plain)]) == 0
    said = capsys.readouterr().out
    assert "hf upload" not in said
    assert "save_model" in said


@pytest.mark.parametrize("name", ["smol-dlm", "GSAI-ML/LLaDA-8B-Base"])
def test_a_name_cannot_be_shipped(capsys, name):
    assert main.main(["ship", name]) == 1
    assert f"error: {name} is no folder" in capsys.readouterr().err


# masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_bring_a_pruned_model_back(make_reported, make_lm, tmp_path, dtype):
    lm, _ = make_reported(sparsity=0.75)
    dense = make_lm("diffusion", "gqa-24")
    for each in (lm, dense):
        each.model.to(dtype)

    file = save_masks(lm, tmp_path / "masks.safetensors", dense)
    zeros = apply_masks(dense, file)

    assert dense.fingerprint() == lm.fingerprint()
    assert zeros == sum(int((linear.weight == 0).sum()) for linear in lm.all_linears().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_command_brings_a_pruned_model_back_with_its_card(make_reported, make_lm, tmp_path, dtype):
    """In the dtype that the pruned model was saved in."""
    dense, (lm, report) = make_lm("diffusion", "gqa-24"), make_reported()
    for each, name in ((dense, "dense"), (lm, "pruned")):
        each.model.to(dtype)
        save_model(each, tmp_path / name, **(report.card() if each is lm else {}))

    masks, again = str(tmp_path / "masks.safetensors"), tmp_path / "again"
    lines = (
        ["ship", str(tmp_path / "pruned"), "--dense", str(tmp_path / "dense"), "--masks", masks],
        ["ship", str(tmp_path / "dense"), "--apply-masks", masks, "--out", str(again)],
    )
    assert [main.main(line) for line in lines] == [0, 0]
    assert load(again).fingerprint() == load(tmp_path / "pruned").fingerprint()

    cards = [json.loads((tmp_path / name / "sinkprune.json").read_text()) for name in ("again", "pruned")]
    assert cards[0]["recipe"] == cards[1]["recipe"] and cards[0]["name"] == "again"
    assert "| criterion | wanda |" in (again / "README.md").read_text()


def test_masks_take_less_than_a_tenth_of_the_dense_file(make_lm, calibration, tmp_path):
    """Of bfloat16, and of a model whose linears are most of it, as those of real ones are."""
    lm = make_lm("diffusion", "gqa-24", layers=12)
    lm.model.to(torch.bfloat16)
    save(lm, tmp_path / "dense")
    prune(lm, preset("magnitude", sparsity=0.75), calibration)
    file = save_masks(lm, tmp_path / "masks.safetensors")

    with safe_open(file, "pt") as handle:
        packed = sum(handle.get_tensor(name).numel() for name in handle.keys())  # noqa: SIM118

    dense = sum(parameter.numel() * 2 for parameter in lm.model.parameters())
    assert packed < 0.1 * dense


def test_the_mask_of_another_model_is_refused_and_changes_nothing(make_reported, make_lm, tmp_path):
    lm, _ = make_reported()
    file = save_masks(lm, tmp_path / "masks.safetensors")
    for other in (make_lm("diffusion", "gqa-24", 1), make_lm("diffusion", "mha-24")):
        before = other.fingerprint()
        with pytest.raises(ValueError, match="belongs to tiny-diffusion"):
            apply_masks(other, file)
        assert other.fingerprint() == before


def test_a_model_that_was_updated_is_no_mask(make_reported, make_lm, tmp_path):
    lm, _ = make_reported(name="sparsegpt")
    with pytest.raises(ValueError, match="weights were updated"):
        save_masks(lm, tmp_path / "masks.safetensors", make_lm("diffusion", "gqa-24"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": 2}, r"layers.2\.\S+ is missing there and float32 \(24,\) in"),
        ({"shape": "mha-24"}, r"k_proj.weight is float32 \(24, 24\) there and float32 \(8, 24\) in"),
        ({"dtype": torch.bfloat16}, r"is bfloat16 \S+ \S+ there and float32 \S+ \S+ in tiny-diffusion"),
        ({"seed": 1}, r"its tokens have other embeddings"),
    ],
)
def test_masks_of_another_dense_model_are_refused(make_reported, make_lm, tmp_path, changes, said):
    lm, _ = make_reported()
    dtype = changes.pop("dtype", torch.float32)
    dense = make_lm("diffusion", changes.pop("shape", "gqa-24"), changes.pop("seed", 0), **changes)
    dense.model.to(dtype)
    with pytest.raises(ValueError, match=rf"dense=tiny-diffusion is not what .*{said}.*in the same dtype$"):
        save_masks(lm, tmp_path / "masks.safetensors", dense)
    assert not list(tmp_path.iterdir())


def test_a_dense_model_has_no_mask(make_lm, tmp_path):
    with pytest.raises(ValueError, match="no zeros"):
        save_masks(make_lm("diffusion"), tmp_path / "masks.safetensors")


def test_a_file_that_is_no_mask_is_refused(make_lm, tmp_path):
    lm = make_lm("diffusion")
    save(lm, tmp_path / "dense")
    with pytest.raises(ValueError, match="is no mask"):
        apply_masks(lm, tmp_path / "dense" / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no such mask"):
        apply_masks(lm, tmp_path / "nowhere")


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


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["recover", "pruned", "--steps", "1"], "out is written, and whole"),
        (["ship", "dense", "--apply-masks", "m.bits"], "out is written, and whole"),
    ],
)
def test_after_an_interruption_a_finished_model_is_not_called_nothing(tmp_path, monkeypatch, line, said):
    monkeypatch.chdir(tmp_path)
    options = parse([*line, "--out", "out"])
    assert "nothing was written" in options.left_behind()
    (tmp_path / "out").mkdir()
    assert options.left_behind() == said

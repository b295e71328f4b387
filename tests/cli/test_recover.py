"""`sinkprune recover` and `ship`: from a pruned folder to one that is recovered and published."""

import json
import shutil

import pytest
import torch
from random_models.texts import TEXT

from sinkprune import load
from sinkprune.cli import main
from sinkprune.evaluation import local_data
from sinkprune.models.card import CARD
from sinkprune.models.saving import save
from sinkprune.recovery import trainer
from sinkprune.recovery.recover import recover as recover_from_python


@pytest.fixture
def pruned(command, tmp_path, capsys):
    """A folder that `sinkprune prune` wrote."""
    assert command("prune", "--preset", "wanda", "--out", tmp_path / "pruned") == 0
    capsys.readouterr()
    return tmp_path / "pruned"


@pytest.fixture
def recover(pruned, model):
    """A function that recovers it on the text, and returns the exit status."""

    def run(*options: object, tokens: int = 192) -> int:
        (model.parent / "long.txt").write_text("\n\n".join([TEXT] * 4))
        given = [] if "--text" in options else ["--text", model.parent / "long.txt"]
        fixed = [*given, "--length", 12, "--batch", 4, "--dtype", "float32"]
        line = ["recover", pruned, *fixed, "--device", "cpu", "--tokens", tokens, *options]
        return main.main([str(word) for word in line])

    return run


def zeros_of(folder):
    return [linear.weight == 0 for linear in load(folder).all_linears().values()]


def test_one_command_recovers_and_says_what_came_of_it(recover, pruned, model, tmp_path, capsys):
    assert recover("--out", tmp_path / "out") == 0
    found = capsys.readouterr()

    assert f"teacher {model}" in found.err and "192 tokens in 4 steps; peak memory about" in found.err
    assert "peak memory about" in found.err
    assert f"{tmp_path / 'out'}: 192 tokens in 4 steps; held-out loss" in found.out
    assert f"next: sinkprune compare {pruned} {tmp_path / 'out'}" in found.out

    pairs = zip(zeros_of(pruned), zeros_of(tmp_path / "out"), strict=True)
    assert all(torch.equal(before, after) for before, after in pairs)

    card = json.loads((tmp_path / "out" / CARD).read_text())
    assert card["recovery"]["distillation"] == 1.0 and card["recipe"]["criterion"] == "wanda"
    assert card["made_from"]["given"] == str(model)


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_a_teacher_that_is_another_model_by_now_is_refused(
    command, recover, model, tmp_path, monkeypatch, capsys, options
):
    """Its name on the card leads to another model: overwritten, or of another working directory."""
    shutil.rmtree(tmp_path / "pruned")
    assert command("prune", "--preset", "wanda", "--out", tmp_path / "pruned", *options) == 0

    dense = load(model)
    with torch.no_grad():
        dense.blocks[0].mlp.down_proj.weight[0, 0] += 1
    shutil.rmtree(model)
    save(dense, model)

    with monkeypatch.context() as patches:
        patches.setattr(trainer, "one_step", lambda *_: pytest.fail("trained"))
        assert recover("--out", tmp_path / "out") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"the teacher {model} is not the model any more" in said and "--teacher" in said
    assert not (tmp_path / "out").exists()

    assert recover("--teacher", model, "--out", tmp_path / "out") == 0  # somebody meant it


def test_wikitext_2_is_learned_from_a_local_folder(recover, tmp_path):
    pages = [f" = word{number} = \n \n {TEXT.replace(chr(10), ' ')} \n \n" for number in range(30, 40)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wiki.train.raw").write_text(" \n" + "".join(pages))

    assert recover("--text", "wikitext-2", "--dry-run") == 0  # without a network

    text = ("--text", "wikitext-2", "--data", tmp_path / "data")
    assert recover(*text, "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / CARD).read_text())["recovery"]["text_name"] == "wikitext-2"


def test_wikitext_2_is_learned_from_python_by_its_name(model, tmp_path, monkeypatch):
    short = {"length": 12, "batch": 4, "steps": 2, "teacher": None, "progress": False}
    recover_from_python(model, text="wikitext-2", dry_run=True, **short)  # without a network

    asked = []

    def pages(data, split):
        asked.append((data, split))
        return [f" = word{number} = \n \n {TEXT.replace(chr(10), ' ')} \n" for number in range(30, 40)]

    monkeypatch.setattr(local_data, "wikitext", pages)
    recover_from_python(model, out=tmp_path / "out", text="wikitext-2", **short)
    assert asked == [(None, "train")]
    assert json.loads((tmp_path / "out" / CARD).read_text())["recovery"]["text_name"] == "wikitext-2"


def test_from_python_wikitext_2_lies_in_a_folder_that_data_names(model, tmp_path, monkeypatch):
    short = {"length": 12, "batch": 4, "steps": 2, "teacher": None, "progress": False}
    pages = [f" = word{number} = \n \n {TEXT.replace(chr(10), ' ')} \n \n" for number in range(30, 40)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wiki.train.raw").write_text(" \n" + "".join(pages))

    recover_from_python(model, out=tmp_path / "out", text="wikitext-2", data=tmp_path / "data", **short)
    assert json.loads((tmp_path / "out" / CARD).read_text())["recovery"]["text_name"] == "wikitext-2"

    with pytest.raises(ValueError, match=r"data=.* is for text='wikitext-2'"):
        recover_from_python(model, out=tmp_path / "other", data=tmp_path / "data", **short)


def test_where_the_hub_is_out_of_reach_the_parameter_is_named(model, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(OSError, match=r"as data \(--data\)"):
        recover_from_python(model, out=tmp_path / "out", text="wikitext-2", steps=1, length=12)


def test_the_dtype_of_a_recovery_is_a_name_or_a_dtype(model):
    short = {"length": 12, "batch": 4, "steps": 2, "teacher": None, "progress": False}
    said = []
    for dtype in ("bfloat16", torch.bfloat16):
        recover_from_python(model, dtype=dtype, dry_run=True, tell=said.append, **short)
    assert all("bfloat16 on" in sentence for sentence in said) and len(said) == 2

    with pytest.raises(ValueError, match=r"dtype='float16' must be 'float32'"):
        recover_from_python(model, dtype=torch.float16, dry_run=True, **short)


def test_a_dry_run_says_what_it_takes_and_writes_nothing(recover, tmp_path, capsys):
    recover("--dry-run")
    there = sorted(tmp_path.rglob("*"))
    assert recover("--dry-run", "--method", "lora") == 0
    assert "192 tokens in 4 steps; peak memory about" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tokens", "9", "--steps", "9", "--out", "x"], "give --tokens or --steps, one of them"),
        (["--tokens", "9"], "--out is missing"),
        (["--tokens", "9", "--out", "x", "--rank", "4"], "--rank 4 does nothing here"),
        (
            ["--tokens", "9", "--out", "x", "--teacher", "none", "--distillation", "0.5"],
            "--distillation 0.5 does nothing here",
        ),
        (["--tokens", "9", "--out", "x", "--text", "nowhere"], "--text"),
        (
            ["--tokens", "9", "--out", "x", "--data", "y"],
            "--data y does nothing here: it is for --text wikitext-2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_once(pruned, refused, options, said, no_model):
    assert said in refused("recover", pruned, *options)


def test_what_a_kill_at_the_very_end_left_is_named(recover, tmp_path, capsys):
    assert recover("--out", tmp_path / "out") == 0
    (tmp_path / "out.work").mkdir()
    assert recover("--out", tmp_path / "out") == 1
    assert f"{tmp_path / 'out.work'} may be removed" in capsys.readouterr().err


def test_a_pruned_folder_has_a_model_card(pruned):
    readme = (pruned / "README.md").read_text()
    assert "| criterion | wanda |" in readme and "masked diffusion language model" in readme

"""`sinkprune prune` does what Python does, plans first, and says what is wrong with an option."""

import json

import pandas as pd
import pytest
import torch
from random_models.texts import TEXT
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from sinkprune import load
from sinkprune.cli import main
from sinkprune.cli.prune import recipe_of, widths_left
from sinkprune.runs import memory_and_disk
from sinkprune_core import Calibration, Recipe, preset, prune, wrap

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("flags", [(), ("--stream",)])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("unstable", {"noise_levels": 3}),
        ("sparsegpt", {"block_size": 16}),
        ("wanda", {"allocation": "owl"}),
    ],
)
def test_the_shell_prunes_as_python_does(model, command, drawn, tmp_path, name, fields, flags):
    out = tmp_path / "out"
    lm = load(model)
    recipe = preset(name, sparsity=0.4, **fields)
    prune(lm, recipe, Calibration(drawn(lm, held_out=False)), progress=False)
    changes = [f"--set={key}={value}" for key, value in fields.items()]
    assert command("prune", "--preset", name, "--sparsity", 0.4, *changes, "--out", out, *flags) == 0

    state = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    assert all(torch.equal(state[key], value) for key, value in lm.model.state_dict().items())
    card = json.loads((out / "sinkprune.json").read_text())
    assert Recipe(**card["recipe"]) == recipe
    assert (card["name"], card["model"]) == ("out", lm.name)
    assert card["sparsity"] == pytest.approx(0.4, abs=0.03)
    assert set(pd.read_csv(out / "sinkprune-linears.csv").layer) == {0, 1, 2}
    assert not (tmp_path / "out.work").exists()


def test_a_structured_recipe_saves_a_smaller_model(command, tmp_path):
    structured = ["--preset", "structured", "--sparsity", 0.5]
    assert command("prune", *structured, "--out", tmp_path / "out") == 0
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert config.intermediate_size < 45 or config.num_attention_heads < 4
    assert command("prune", "--preset", "flap", "--out", tmp_path / "masked", "--masked") == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "masked").config.intermediate_size == 45


def test_a_model_that_is_pruned_again_keeps_its_former_recipe(command, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert command("prune", "--preset", "wanda", "--sparsity", 0.3, "--out", first) == 0
    assert main.main(["prune", str(first), "--preset", "magnitude", "--out", str(second)]) == 0
    former, card = (json.loads((place / "sinkprune.json").read_text()) for place in (first, second))
    assert card["made_from"]["given"] == str(first)
    assert card["made_from"]["recipe_before"] == former["recipe"] != card["recipe"]
    assert main.main(["prune", str(first), "--preset", "magnitude", "--out", str(second)]) == 0
    assert "finished already" in capsys.readouterr().out


# plans


def test_a_run_that_cannot_fit_is_refused_before_it_starts(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory_and_disk, "available_memory", lambda _: 1000)
    assert command("prune", "--out", tmp_path / "out") == 1
    assert "this machine lacks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


# recipes


@pytest.mark.parametrize("options", [(), ("--sparsity", "0.333333"), ("--sparsity", "0.333")])
def test_a_pattern_brings_its_sparsity(options):
    sparsity = float(options[1]) if options else None
    assert recipe_of("wanda", sparsity, "1:3", ()).sparsity == 1 / 3


def test_a_sparsity_that_a_pattern_does_not_mean_is_named_with_both_numbers(refused):
    line = ("prune", "smol-dlm", "--dry-run", "--preset", "wanda", "--pattern", "1:3")
    said = refused(*line, "--sparsity", "0.34")
    assert "0.34" in said and "which means 0.3333333333333333" in said


# mistakes


def test_too_many_sequences_are_told_with_what_the_text_has(model, tmp_path, refused):
    text = ("--text", tmp_path / "text.txt", "--length", 12, "--sequences", 5000)
    said = refused("prune", model, *text, "--dtype", "float32", "--out", tmp_path / "out")
    assert "--sequences 5000: text.txt has" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--preset", "all-sink"), "--preset"),
        (("--set", "colour=red"), "--set colour=red: a recipe has no 'colour'; it has"),
        (("--set", "sparsity=0.3", "--sparsity", 0.4), "--set sparsity=0.3: sparsity is given twice"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(model, command, tmp_path, flags, said, capsys):
    flags = [str(flag).format(model=model) for flag in flags]
    out = [] if "--out" in flags else ["--out", tmp_path / "out"]
    assert command("prune", *flags, *out) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") <= 2
    assert not (tmp_path / "out").exists()


def test_json_lines_are_text_as_paragraphs_are(model, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"text": part}) + "\n" for part in TEXT.split("\n\n")))
    words = ["--preset", "wanda", "--sequences", 6, "--length", 12, "--dtype", "float32"]
    for name, text in (("paragraphs", model.parent / "text.txt"), ("lines", lines)):
        run = ["prune", model, "--text", text, *words, "--out", tmp_path / name]
        assert main.main([str(word) for word in run]) == 0
    weights = [load(tmp_path / name).model.state_dict() for name in ("paragraphs", "lines")]
    assert all(torch.equal(weights[1][key], value) for key, value in weights[0].items())


def test_a_line_that_is_no_text_is_named_before_a_model_is_loaded(model, tmp_path, refused, no_model):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('"the list"\n{"prompt": "the"}\n')
    said = refused("prune", model, "--text", lines, "--out", tmp_path / "out")
    assert said.startswith(f"line 2 of {lines} is an object with prompt: each line must be a string")


@pytest.mark.parametrize(("channels", "is_multiple"), [(96, False), (1024, True)])
def test_a_multiple_is_named_only_where_widths_are_rounded_to_it(channels, is_multiple):
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=channels, vocab_size=64)).eval()
    lm = wrap(model, None)

    said = widths_left(lm, prune(lm, preset("structured-magnitude", sparsity=0.35)))
    assert "0.35 was asked for" in said
    assert ("a multiple of 64" in said) is is_multiple

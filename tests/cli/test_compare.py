"""`sinkprune compare`: paired differences on common random numbers, and a verdict."""

import json
import shutil

import pytest
import torch
from random_models.cases import CASES
from random_models.writing import write
from safetensors.torch import load_file, save_file

from sinkprune.cli import main


@pytest.fixture
def worse(model, tmp_path):
    """A copy of the model whose weights are drawn anew, ten times as large."""
    out = shutil.copytree(model, tmp_path / "destroyed")
    rng = torch.Generator().manual_seed(0)

    for file in sorted(out.glob("*.safetensors")):
        state = load_file(file)
        for name, weight in state.items():
            if "norm" not in name:
                noise = torch.randn(weight.shape, generator=rng)
                state[name] = (10 * weight.float().std() * noise).to(weight.dtype)
        save_file(state, file, metadata={"format": "pt"})

    return out


@pytest.fixture
def compare(tmp_path, rows_of):
    """A function that compares two models on the tiny text and returns what is written."""
    text = ("--text", tmp_path / "text.txt", "--sequences", 8, "--length", 12, "--dtype", "float32")
    return lambda a, b, *options: rows_of("compare", a, b, *text, *options)


SUITE = ("--tasks", "suite", "--limit", 2, "--draws", 2)


def test_a_model_against_itself_differs_by_exactly_nothing(model, compare):
    found = compare(model, model, *SUITE)
    assert found["verdict"] == "no difference that matters"
    for row in found["differences"]:
        assert (row["b_minus_a"], row["low"], row["high"]) == (0, 0, 0) and row["a"] == row["b"]
    assert [row["number"] for row in found["differences"]] == [8, 6]
    counts = found["flips"]
    assert counts["only_a"] == counts["only_b"] == 0 and counts["both"] + counts["neither"] == 12


def test_a_destroyed_model_is_worse_whichever_comes_first(model, worse, compare):
    found = compare(model, worse, *SUITE)
    swapped = compare(worse, model, *SUITE)

    assert (found["verdict"], swapped["verdict"]) == ("A is better", "B is better")

    for row, other in zip(found["differences"], swapped["differences"], strict=True):
        assert row["b_minus_a"] == -other["b_minus_a"] and (row["a"], row["b"]) == (other["b"], other["a"])
        assert row["low"] == pytest.approx(-other["high"], abs=0.1 * (row["high"] - row["low"]) + 1e-9)

    assert found["flips"]["only_a"] == swapped["flips"]["only_b"]
    assert found["flips"]["only_b"] == swapped["flips"]["only_a"]

    nats, accuracy = found["differences"]
    assert nats["low"] > 0.02

    items = sum(found["flips"].values())
    flipped = found["flips"]["only_b"] - found["flips"]["only_a"]
    assert accuracy["b_minus_a"] == pytest.approx(flipped / items)


def test_other_tokenizers_are_refused_before_any_model_is_loaded(model, tmp_path, refused, no_model):
    write(CASES["dream"], tmp_path / "dream")
    said = refused("compare", model, tmp_path / "dream", "--text", tmp_path / "text.txt")
    assert f"{model} and {tmp_path}/dream have different tokenizers" in said
    assert "bits per character would be needed" in said


def test_a_length_beyond_the_positions_of_one_is_refused_before_any_model_is_loaded(
    model, tmp_path, refused, no_model
):
    shorter = shutil.copytree(model, tmp_path / "shorter")
    config = json.loads((shorter / "config.json").read_text())
    (shorter / "config.json").write_text(json.dumps(config | {"max_sequence_length": 16}))
    for pair in ((model, shorter), (shorter, model)):
        said = refused("compare", *pair, "--text", tmp_path / "text.txt", "--length", 20)
        assert f"--length 20 exceeds the 16 positions of {shorter}: ask for shorter sequences" in said


def test_a_text_that_a_model_was_pruned_with_is_warned_of(model, command, tmp_path, capsys):
    assert command("prune", "--preset", "wanda", "--out", tmp_path / "pruned") == 0
    capsys.readouterr()

    said = f"warning: {tmp_path}/pruned was made with a text called text.txt: if it is this one, its loss"
    assert command("compare", tmp_path / "pruned", "--draws", 1) == 0
    assert said in " ".join(capsys.readouterr().out.split())

    (tmp_path / "text.txt").rename(tmp_path / "other.txt")
    other = ("--text", tmp_path / "other.txt", "--sequences", 6, "--length", 12, "--draws", 1)
    assert main.main([str(word) for word in ("compare", model, tmp_path / "pruned", *other)]) == 0
    assert "warning" not in capsys.readouterr().out


def test_what_both_cost_is_measured(model, compare, tmp_path):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_sequence_length": 128}))
    smaller = tmp_path / "smaller"
    text = ("--text", tmp_path / "text.txt", "--sequences", 4, "--length", 12, "--dtype", "float32")
    pruned = ("prune", model, "--preset", "structured", "--set", "round_to=1", *text, "--out", smaller)
    assert main.main([str(part) for part in pruned]) == 0

    found = compare(model, smaller, "--steps", 16, 8)["costs"]
    assert found["b"]["gigabytes"] < found["a"]["gigabytes"]
    assert (found["a"]["steps"], found["b"]["steps"]) == (16, 8)
    assert found["a"]["seconds"] > 0 and found["a"]["kernel_seconds"] is None
    assert set(compare(model, model)["costs"]["a"]) == {"gigabytes"}


def test_steps_beyond_the_text_that_is_written_are_refused(model, tmp_path, refused, no_model):
    said = refused("compare", model, model, "--text", tmp_path / "text.txt", "--steps", 65)
    assert "--steps 65" in said and "64 tokens" in said

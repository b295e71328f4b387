"""`sinkprune compare`: paired differences on common random numbers, a verdict, and what is refused."""

import json
import shutil

import pytest
import torch
from random_models.cases import CASES
from random_models.writing import write
from safetensors.torch import load_file, save_file

from sinkprune_companion.cli import main
from sinkprune_core import corpus
from sinkprune_core.evaluation.likelihood import nelbo
from sinkprune_core.models.loading import load
from sinkprune_core.seeds import generator


def destroyed(folder, out):
    """Write a copy of a model whose weights are drawn anew, ten times as large."""
    shutil.copytree(folder, out)
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
def compare(model, tmp_path, capsys):
    """A function that compares two models on the tiny text and returns what is written and printed."""
    names = iter(range(100))

    def run(a, b, *options: object) -> tuple[dict, str]:
        file = tmp_path / f"found-{next(names)}.json"
        text = ("--text", tmp_path / "text.txt", "--sequences", 8, "--length", 12, "--dtype", "float32")
        assert main.main([str(part) for part in ("compare", a, b, *text, *options, "--json", file)]) == 0
        return json.loads(file.read_text()), capsys.readouterr().out

    return run


@pytest.fixture
def worse(model, tmp_path):
    return destroyed(model, tmp_path / "destroyed")


SUITE = ("--tasks", "suite", "--limit", 2, "--draws", 2)


def test_a_model_against_itself_differs_by_exactly_nothing(model, compare):
    found, printed = compare(model, model, *SUITE)
    assert found["verdict"] == "no difference that matters"
    for row in found["differences"]:
        assert (row["b_minus_a"], row["low"], row["high"]) == (0, 0, 0) and row["a"] == row["b"]
    assert [row["number"] for row in found["differences"]] == [8, 6]
    counts = found["flips"]
    assert counts["only_a"] == counts["only_b"] == 0 and counts["both"] + counts["neither"] == 12
    assert printed.endswith("verdict (margin 0.02 nats per token): no difference that matters\n")
    assert "items: 0 are right in A only, 0 in B only, 12 alike" in printed


def test_a_destroyed_model_is_worse_whichever_comes_first(model, worse, compare):
    found, printed = compare(model, worse, *SUITE)
    swapped, _ = compare(worse, model, *SUITE)
    assert (found["verdict"], swapped["verdict"]) == ("A is better", "B is better")
    assert "A is better" in printed.splitlines()[-1]
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


def test_both_models_are_scored_by_python_s_numbers_whatever_the_batch(model, worse, compare, tmp_path):
    found, _ = compare(model, worse, "--draws", 3)
    lm = load(model)
    text = (tmp_path / "text.txt").read_text()
    ids_NT = corpus.pack(text.split("\n\n"), lm.tokenizer, 12)
    order = torch.randperm(len(ids_NT), generator=generator(0, "texts", "text", True))
    chosen = ids_NT[order[:8].sort().values]
    [row] = found["differences"]
    assert row["a"] == pytest.approx(nelbo(lm, chosen, 3).value.mean(), rel=1e-5)
    assert row["b"] == pytest.approx(nelbo(load(worse), chosen, 3).value.mean(), rel=1e-5)
    small, _ = compare(model, worse, "--draws", 3, "--batch", 1)
    for key in ("a", "b", "b_minus_a", "low", "high"):
        assert small["differences"][0][key] == pytest.approx(row[key], rel=1e-4)
    other, _ = compare(model, worse, "--draws", 3, "--seed", 1)
    assert other["differences"][0]["a"] != row["a"]


def test_a_margin_decides_what_matters(model, worse, compare):
    found, printed = compare(model, worse, "--margin", 1000)
    assert found["verdict"] == "no difference that matters" and found["margin"] == 1000
    assert "verdict (margin 1000 nats per token)" in printed


def test_other_tokenizers_are_refused_before_any_model_is_loaded(model, tmp_path, refused, monkeypatch):
    write(CASES["dream"], tmp_path / "dream")
    monkeypatch.setattr(
        "sinkprune_companion.cli.inputs.open_model", lambda *_: pytest.fail("a model was loaded")
    )
    said = refused("compare", model, tmp_path / "dream", "--text", tmp_path / "text.txt")
    assert f"{model} and {tmp_path}/dream have different tokenizers" in said
    assert "bits per character would be needed" in said


def test_positions_of_both_models_count_before_any_model_is_loaded(model, tmp_path, refused, monkeypatch):
    shorter = shutil.copytree(model, tmp_path / "shorter")
    config = json.loads((shorter / "config.json").read_text())
    (shorter / "config.json").write_text(json.dumps({**config, "max_sequence_length": 16}))
    monkeypatch.setattr(
        "sinkprune_companion.cli.inputs.open_model", lambda *_: pytest.fail("a model was loaded")
    )
    options = ("--text", tmp_path / "text.txt", "--length", 17)
    sentence = f"--length 17 exceeds the 16 positions of {shorter}: ask for shorter sequences"
    assert refused("compare", model, shorter, *options) == sentence
    assert refused("compare", shorter, model, *options) == sentence


def test_a_bound_beside_an_exact_likelihood_is_said(tiny_ar, tiny_dlm, tmp_path, capsys):
    folders = [tiny_ar.save(tmp_path / "ar"), tiny_dlm.save(tmp_path / "dlm")]
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"word{20 + number % 50}" for number in range(200)))
    options = ("--text", text, "--sequences", 4, "--length", 8, "--dtype", "float32")
    assert main.main([str(part) for part in ("compare", *folders, *options)]) == 0
    assert "a diffusion model's nats are an upper bound" in capsys.readouterr().out


def test_what_does_nothing_is_refused(tiny_ar, model, tmp_path, refused, capsys):
    ar = tiny_ar.save(tmp_path / "ar")
    capsys.readouterr()
    text = ("--text", tmp_path / "text.txt")
    said = refused("compare", ar, ar, *text, "--draws", 2)
    assert "--draws does nothing here: both models are autoregressive" in said
    assert "--limit does nothing here" in refused("compare", model, model, "--limit", 2)
    assert "--tasks: piqa is unknown; choose one of suite" in refused(
        "compare", model, model, "--tasks", "piqa"
    )
    assert "did you mean suite?" in refused("compare", model, model, "--tasks", "suit")
    assert "--margin: 0 must be a finite number above 0" in refused("compare", model, model, "--margin", 0)
    assert "--sequences: 1 must be a whole number of at least 2" in refused(
        "compare", model, model, "--sequences", 1
    )
    assert "did you mean smol-dlm" in refused("compare", model, "smol-dlmm")
    taken = tmp_path / "text.txt"
    assert f"--json {taken} exists" in refused("compare", model, model, *text, "--json", taken)

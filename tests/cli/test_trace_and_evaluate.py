"""`sinkprune trace` and `sinkprune evaluate` give the numbers of Python, and explain and write tables."""

import json
import sys

import pytest
import torch

from sinkprune_companion.cli import main
from sinkprune_companion.cli.tables import estimate
from sinkprune_companion.cli.trace import MEANINGS
from sinkprune_companion.harness.suite import GROUPS, items
from sinkprune_core import corpus
from sinkprune_core.evaluation.likelihood import nelbo
from sinkprune_core.evaluation.two_choice import accuracy
from sinkprune_core.models.loading import load
from sinkprune_core.seeds import generator
from sinkprune_core.sinks.trace import Trace

SHORT = ("--prompt", 8, "--tokens", 6, "--steps", 3)


def test_trace_writes_what_it_saw_and_explains_every_measure(command, tmp_path, capsys):
    out = tmp_path / "trace.safetensors"
    assert command("trace", *SHORT, "--out", out, "--json", tmp_path / "table.json") == 0
    assert Trace.load(out).ids_BSK.shape == (6, 3, 14)
    printed, bar = capsys.readouterr()
    assert "/3 [" in bar, "steps are counted"
    rows = json.loads((tmp_path / "table.json").read_text())
    assert all(set(row) == {"index", "value", "low", "high", "units", "method"} for row in rows)
    measures = [row["index"] for row in rows]
    assert [*measures, "value"] == list(MEANINGS)
    for name in MEANINGS:
        assert f"{name} " in printed and MEANINGS[name] in printed
    overlap = next(row["value"] for row in rows if row["index"] == "overlap")
    last = printed.splitlines()[-1]
    assert last.startswith("Read overlap first: ") and f" {overlap:.0%} are the same" in last


def test_what_only_a_diffusion_model_has_is_refused_for_others(tiny_ar, tmp_path, refused, capsys):
    folder = tiny_ar.save(tmp_path / "ar")
    capsys.readouterr()
    text = ("--text", tmp_path / "text.txt")
    text[1].write_text(" ".join(f"word{index}" for index in range(20, 70)))
    options = (*SHORT, "--sequences", 2, *text)
    said = refused("trace", folder, *options, "--block", 6)
    assert "--block does nothing here: tiny-autoregressive is autoregressive" in said
    assert main.main(["trace", str(folder), *map(str, options)]) == 0
    capsys.readouterr()
    said = refused("evaluate", folder, *text, "--length", 8, "--sequences", 2, "--draws", 2)
    assert (
        "--draws does nothing here: tiny-autoregressive is autoregressive, and its likelihood is exact"
        in said
    )


def test_evaluate_prints_the_likelihood_with_its_interval(model, command, tmp_path, capsys):
    assert command("evaluate", "--draws", 2, "--json", tmp_path / "found.json") == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())
    lm = load(model)
    text = (tmp_path / "text.txt").read_text()
    ids_NT = corpus.pack(text.split("\n\n"), lm.tokenizer, 12)
    order = torch.randperm(len(ids_NT), generator=generator(0, "texts", "text", True))
    expected = nelbo(lm, ids_NT[order[:6].sort().values], 2).value.mean()
    assert row["value"] == pytest.approx(expected, rel=1e-4)
    assert row["low"] < row["value"] < row["high"]
    assert "NELBO, nats per token" in capsys.readouterr().out


def test_a_single_sequence_has_a_value_and_no_interval(command, tmp_path):
    assert command("evaluate", "--sequences", 1, "--json", tmp_path / "found.json") == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())
    assert row["value"] > 0 and "low" not in row
    import pandas as pd

    assert pd.isna(estimate(pd.Series([float("nan")]))["value"])


def test_a_trace_is_drawn(command, tmp_path, capsys):
    from PIL import Image

    figure = tmp_path / "sinks.png"
    assert command("trace", *SHORT, "--figure", figure) == 0
    assert f"{figure}: attention of the first prompt" in capsys.readouterr().out
    with Image.open(figure) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
        assert len(picture.convert("RGB").resize((60, 40)).getcolors(2400)) > 20  # not blank


@pytest.fixture
def suite(model, tmp_path):
    """A function that evaluates the tiny checkpoint on the suite and returns the rows that are written.

    The suite needs a model that knows English words: the tiny one only shows that it runs.
    """
    names = iter(range(100))

    def run(*options: object) -> list[dict]:
        file = tmp_path / f"found-{next(names)}.json"
        given = ("evaluate", model, "--tasks", "suite", "--limit", 2, *options, "--json", file)
        assert main.main([str(part) for part in given]) == 0
        return json.loads(file.read_text())

    return run


def test_evaluate_runs_the_offline_suite(model, suite, capfd):
    rows = suite("--draws", 3)
    found = capfd.readouterr()
    lm = load(model)
    expected = accuracy(lm, items(limit=2), draws=3)
    tasks = {row["task"] for row in rows}
    assert tasks == {"sinkprune_suite", *(f"sinkprune_suite_{group}" for group in GROUPS)}
    [every] = [row for row in rows if row["task"] == "sinkprune_suite" and row["metric"] == "acc"]
    assert every["value"] == pytest.approx(expected.correct.mean())
    assert every["low"] <= every["value"] <= every["high"]
    assert (every["documents"], every["draws"]) == (12, 3)
    assert "sinkprune_suite_facts" in found.out
    explained = found.out.splitlines()[-3:]
    assert [line.split("  ")[0] for line in explained] == ["acc", "low, high", "error_draws"]

    bar = found.err.split("suite, ")[0] + found.err.split("(--draws)")[-1]
    said = [line for line in found.err.splitlines() if line and "\r" not in line and "item" not in line]
    assert "minutes at this machine's speed now, with at most 3 random masks of an answer" in found.err
    assert "12/12" in bar or "/12 [" in bar  # items, not batches
    assert said[-1] == f"next: sinkprune trace {model} --figure llada-sinks.png"
    for noise in ("fatal", "arning", "git"):
        assert noise not in found.err


def test_options_of_the_suite_do_what_they_say(suite):
    rows = suite("--draws", 3)
    singly = suite("--draws", 3, "--batch", 1)
    assert [row["value"] for row in singly] == [row["value"] for row in rows]
    assert [row["error_draws"] for row in singly] == pytest.approx(
        [row["error_draws"] for row in rows], rel=1e-3, abs=1e-6
    )
    errors = [row["error_draws"] for row in rows]
    assert [row["error_draws"] for row in suite("--draws", 3, "--seed", 1)] != errors
    assert [row["error_draws"] for row in suite("--draws", 40)] != errors


def test_draws_of_the_suite_are_for_diffusion_models(tiny_ar, tmp_path, refused, capsys):
    folder = tiny_ar.save(tmp_path / "ar")
    capsys.readouterr()
    said = refused("evaluate", folder, "--tasks", "suite", "--draws", 2)
    assert "draws=2 cannot be used: tiny-autoregressive is autoregressive" in said


def test_the_suite_needs_no_harness_and_no_data(model, refused, suite, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert suite()
    capsys.readouterr()
    said = refused("evaluate", model, "--tasks", "suite", "--data", model)
    assert "--data does nothing here: the suite comes with this package" in said


def test_a_family_is_for_tasks_that_have_its_settings(model, refused):
    said = refused("evaluate", model, "--tasks", "suite", "--family", "llada")
    assert "--family does nothing here: it has settings of paper and of mmlu, arc_challenge" in said

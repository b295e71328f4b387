"""`sinkprune trace` and `sinkprune evaluate` give the numbers of Python, and explain and write tables."""

import json

import pytest
import torch

from sinkprune_core import corpus
from sinkprune_core.cli import main
from sinkprune_core.cli.tables import estimate
from sinkprune_core.cli.trace import MEANINGS
from sinkprune_core.evaluation.likelihood import nelbo
from sinkprune_core.models.loading import load
from sinkprune_core.seeds import generator
from sinkprune_core.sinks.trace import Trace

SHORT = ("--prompt", 8, "--tokens", 6, "--steps", 3)


def test_trace_writes_what_it_saw_and_explains_every_measure(command, tmp_path, capsys):
    out = tmp_path / "trace.safetensors"
    assert command("trace", *SHORT, "--out", out, "--json", tmp_path / "table.json") == 0
    assert Trace.load(out).ids_BSK.shape == (6, 3, 14)
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "table.json").read_text())
    measures = [row["index"] for row in rows]
    assert [*measures, "value"] == list(MEANINGS)
    for name in MEANINGS:
        assert f"{name} " in printed and MEANINGS[name] in printed


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
    order = torch.randperm(len(ids_NT), generator=generator(0, "texts", "text.txt", True))
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


def test_evaluate_runs_the_offline_suite(model, tmp_path):
    """The suite needs a model that knows English words: the tiny one only shows that it runs."""
    found = tmp_path / "found.json"
    suite = ["--tasks", "suite", "--limit", "1", "--dtype", "float32", "--json", str(found)]
    assert main.main(["evaluate", str(model), *suite]) == 0
    rows = json.loads(found.read_text())
    assert {"sinkprune_suite_facts", "sinkprune_suite_grammar"} <= {row["task"] for row in rows}


def test_a_family_is_for_tasks_that_have_its_settings(model, refused):
    said = refused("evaluate", model, "--tasks", "suite", "--family", "llada")
    assert "--family does nothing here: it has settings of paper and of mmlu, arc_challenge" in said

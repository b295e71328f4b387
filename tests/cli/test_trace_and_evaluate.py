"""`sinkprune trace` and `sinkprune evaluate` give the numbers of Python, and explain and write tables."""

import json
import sys

import pandas as pd
import pytest
import torch
from random_models.texts import TEXT
from tqdm.auto import tqdm

from sinkprune import corpus, load, nelbo
from sinkprune.cli import common, main
from sinkprune.cli.options import Source, Where
from sinkprune.cli.trace import MEANINGS
from sinkprune.evaluation.suite import GROUPS, items
from sinkprune.evaluation.two_choice import accuracy
from sinkprune.models.saving import save
from sinkprune_core import Trace

SHORT = ("--prompt", 8, "--tokens", 6, "--steps", 3)


def test_trace_writes_what_it_saw_and_a_row_of_every_measure(command, tmp_path):
    out = tmp_path / "trace.safetensors"
    assert command("trace", *SHORT, "--out", out, "--json", tmp_path / "table.json") == 0
    assert Trace.load(out).ids_BSK.shape == (6, 3, 14)
    rows = json.loads((tmp_path / "table.json").read_text())
    assert all(set(row) == {"index", "value", "low", "high", "units", "method"} for row in rows)
    assert [*(row["index"] for row in rows), "value"] == list(MEANINGS)


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        (("--temperature", "1e-9"), "temperature=1e-09", "--tokens"),
        (("--tokens", 6, "--steps", 6, "--block", 4), "length=6 is not a multiple of block=4", "temperature"),
    ],
)
def test_an_option_that_does_not_fit_is_the_one_that_is_named(model, refused, options, said, unsaid):
    error = refused("trace", model, *options)
    assert said in error and unsaid not in error


def test_what_only_a_diffusion_model_has_is_refused_for_others(tiny_ar, tmp_path, refused, capsys):
    folder = save(tiny_ar, tmp_path / "ar")
    capsys.readouterr()

    text = ("--text", tmp_path / "text.txt")
    text[1].write_text(" ".join(f"word{index}" for index in range(20, 70)))
    options = (*SHORT, "--sequences", 2, *text)

    said = refused("trace", folder, *options, "--block", 6)
    assert "--block 6 does nothing here: tiny-autoregressive is autoregressive" in said
    assert main.main(["trace", str(folder), *map(str, options)]) == 0
    capsys.readouterr()

    said = refused("evaluate", folder, *text, "--length", 8, "--sequences", 2, "--draws", 2)
    assert (
        "--draws 2 does nothing here: tiny-autoregressive is autoregressive, and its likelihood is exact"
        in said
    )

    own = ("--preset", "wanda", "--set", "exclude=all", "--set", "noise=official")
    said = refused("prune", folder, *text, "--length", 8, "--sequences", 2, *own, "--out", tmp_path / "out")
    assert "--set noise=official does nothing here: tiny-autoregressive is autoregressive" in said

    said = refused("evaluate", folder, "--tasks", "suite", "--limit", 2, "--seed", 7)
    assert "--seed 7 does nothing here: tiny-autoregressive is autoregressive, and its answers" in said


def test_evaluate_prints_the_likelihood_with_its_interval(model, command, drawn, tmp_path, capsys):
    assert command("evaluate", "--draws", 2, "--json", tmp_path / "found.json") == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())
    lm = load(model)
    expected = nelbo(lm, drawn(lm, held_out=True), 2).value.mean()
    assert row["value"] == pytest.approx(expected, rel=1e-4)
    assert row["low"] < row["value"] < row["high"]
    assert "NELBO, nats per token" in capsys.readouterr().out


@pytest.fixture
def suite(model, rows_of):
    """A function that evaluates the tiny checkpoint on the suite and returns the rows that are written.

    The suite needs a model that knows English words: the tiny one only shows that it runs.
    """
    return lambda *options: rows_of("evaluate", model, "--tasks", "suite", "--limit", 2, *options)


def test_evaluate_runs_the_offline_suite(model, suite, capsys):
    rows = suite("--draws", 3)
    lm = load(model)
    expected = accuracy(lm, items(limit=2), draws=3)

    tasks = {row["task"] for row in rows}
    assert tasks == {"sinkprune_suite", *(f"sinkprune_suite_{group}" for group in GROUPS)}

    [every] = [row for row in rows if row["task"] == "sinkprune_suite" and row["metric"] == "acc"]
    assert every["value"] == pytest.approx(expected.correct.mean())
    assert every["low"] <= every["value"] <= every["high"]
    assert (every["documents"], every["draws"]) == (12, 3)
    assert "sinkprune_suite_facts" in capsys.readouterr().out


def test_the_suite_needs_no_harness_and_no_data(model, refused, suite, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert suite()
    capsys.readouterr()
    said = refused("evaluate", model, "--tasks", "suite", "--data", model)
    assert f"--data {model} does nothing here: the suite comes with this package" in said


# tasks of users

TASK = """
task: my_task
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["word21", "word22"]
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def test_a_task_of_ones_own_is_found_below_include_path(model, tmp_path, rows_of, refused, capsys):
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    line = ("evaluate", model, "--tasks", "my_task", "--include-path", tasks)
    assert "--include-path" in refused(*line[:-1], "nowhere")

    data = tmp_path / "questions.jsonl"
    data.write_text("".join(f'{{"question": "word{number}"}}\n' for number in (30, 31)))
    (tasks / "my_task.yaml").write_text(TASK.replace("DATA", str(data)))
    rows = rows_of(*line, "--draws", 2)
    assert {(row["task"], row["metric"], row["documents"]) for row in rows} == {("my_task", "acc", 2)}
    capsys.readouterr()
    assert "did you mean my_task" in refused("evaluate", model, "--tasks", "my_tusk", *line[-2:])


# numbers


def test_numbers_are_written_as_people_write_them():
    texts = {2.842e-14: "0", 0.0: "0", 1.0: "1", 0.25: "0.25", 0.123456: "0.1235", -0.5: "-0.5"}
    texts |= {0.00001234: "0.00001234", 1234.5678: "1235", 123456.7: "123,457", float("nan"): "nan"}
    assert {value: common.number_text(value) for value in texts} == pytest.approx(texts)


def test_the_interval_of_a_share_stays_a_share():
    shares = pd.Series([1.0, 0.9, 0.2, 0.1])
    free, share = common.estimate(shares), common.estimate(shares, is_share=True)
    assert free["low"] < 0 and free["high"] > 1, "or the test shows nothing"
    assert (share["low"], share["high"]) == (0, 1) and share["value"] == free["value"]


def test_every_table_says_where_it_was_computed(command, capsys):
    assert command("evaluate", "--draws", 1) == 0
    found = capsys.readouterr()
    assert found.out.splitlines()[0] == "llada (diffusion, float32 on cpu)"
    assert found.err.splitlines()[0].startswith("loading ")


# text without a file


@pytest.mark.parametrize("length", [12, 200])
def test_the_vocabulary_of_the_samples_is_known_without_a_download(model, monkeypatch, length):
    monkeypatch.setattr("sinkprune.models.embedded.base_folder", lambda: pytest.fail("the base was fetched"))
    shipped = corpus.documentation("stdlib")
    monkeypatch.setattr("sinkprune.corpus.installed", lambda *folders: shipped)  # all packages take a minute
    cpu = Where(device="cpu")
    _, texts = common.model_and_texts(str(model), cpu, Source(), 4, length, seed=0, held_out=True)
    assert list(texts) == ["documentation"]


# text files of users


def scored(model, file) -> torch.Tensor:
    """Return the sequences that `evaluate --text FILE` scores."""
    cpu = Where("float32", "cpu")
    _, texts = common.model_and_texts(str(model), cpu, Source(file), 4, 12, seed=0, held_out=True)
    (ids_NT,) = texts.values()
    return ids_NT


def test_neither_its_name_nor_a_mark_of_byte_order_is_part_of_a_text(model, tmp_path):
    file, copy = tmp_path / "a.txt", tmp_path / "a copy.txt"
    file.write_text(TEXT)
    copy.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert torch.equal(scored(model, file), scored(model, copy))


def test_an_error_after_a_progress_bar_has_a_line_of_its_own(model, monkeypatch, capsys):
    """As a terminal shows it: what stands behind a carriage return replaces the line."""

    def fail(*_, **__):
        for _ in tqdm(range(3), desc="at work", leave=False):
            raise ValueError("no luck")

    monkeypatch.setattr("sinkprune.cli.common.open_model", fail)
    assert main.main(["evaluate", str(model), "--text", str(model.parent / "text.txt")]) == 1
    before, _, last = capsys.readouterr().err.rpartition("\r")
    assert last.splitlines()[-1].startswith("error: ") and "at work" not in last
    assert "at work" in before

"""BLiMP and WikiText-2 from a local folder by the shell; what is refused, before a model is loaded."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
from public_formats import RAW, put, write_both

from sinkprune_companion.cli import main
from sinkprune_companion.cli.evaluate import EvaluateOptions
from sinkprune_companion.cli.inputs import documents_of
from sinkprune_companion.harness.benchmarks import evaluate
from sinkprune_companion.harness.local_data import running_text, wikitext
from sinkprune_companion.harness.local_tasks import local_tasks
from sinkprune_core import corpus
from sinkprune_core.evaluation.conditional_likelihood import perplexity
from sinkprune_core.evaluation.likelihood import nll
from sinkprune_core.evaluation.protocols import PROTOCOLS, Protocol
from sinkprune_core.seeds import generator


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_both(tmp_path / "data")


@pytest.fixture
def model(tiny_ar, tiny_dlm, tmp_path):
    """A function that saves a tiny model of a kind and returns its folder."""

    def save(kind: str) -> str:
        lm = tiny_ar if kind == "autoregressive" else tiny_dlm
        return str(lm.save(tmp_path / kind))

    return save


def shell(out: Path, *arguments: object) -> list[dict]:
    """Run `sinkprune evaluate` and return the rows that it writes."""
    asked = [str(part) for part in ("evaluate", *arguments, "--dtype", "float32", "--json", out)]
    assert main.main(asked) == 0
    return json.loads(out.read_text())


def test_the_shell_runs_tasks_on_local_data(model, tiny_ar, folder, tmp_path):
    tasks = ("--tasks", "blimp_passive_1,wikitext", "blimp_wh_island")
    found = pd.DataFrame(
        shell(tmp_path / "out.json", model("autoregressive"), *tasks, "--data", folder, "--limit", 2)
    )
    with local_tasks(folder, ["blimp_passive_1", "wikitext", "blimp_wh_island"]) as (names, include):
        expected = evaluate(tiny_ar, names, include=include, limit=2)
    assert found.task.tolist() == expected.task.tolist() and found.documents.tolist() == [2] * 5
    assert found.value.tolist() == pytest.approx(expected.value.tolist())


def test_the_shell_scores_wikitext_with_an_interval(model, tiny_ar, folder, tmp_path):
    text = ("--text", "wikitext-2", "--data", folder)
    [row] = shell(tmp_path / "out.json", model("autoregressive"), *text, "--length", 8, "--sequences", 5)
    ids_NT = corpus.pack([running_text([page]) for page in wikitext(folder)], tiny_ar.tokenizer, 8)
    order = torch.randperm(len(ids_NT), generator=generator(0, "texts", "text", True))
    chosen = order[:5].sort().values
    assert row["value"] == pytest.approx(nll(tiny_ar, ids_NT[chosen]).value.mean(), rel=1e-4)
    assert row["low"] < row["value"] < row["high"] and row["units"] == 5


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_the_shell_scores_a_running_text_by_a_published_protocol(
    kind, model, tiny_ar, tiny_dlm, folder, tmp_path, monkeypatch
):
    how = Protocol("count", draws=2, grid=1, chunk=4, context=8)
    monkeypatch.setitem(PROTOCOLS, "main_llada", how)
    lm = tiny_ar if kind == "autoregressive" else tiny_dlm
    flags = (model(kind), "--text", "wikitext-2", "--data", folder, "--protocol", "main_llada")
    ids_T = lm.encode(running_text(wikitext(folder)))
    [row] = shell(tmp_path / "whole.json", *flags)
    expected = perplexity(lm, ids_T, how)
    assert row["nats"] == pytest.approx(expected.nats, rel=1e-4)
    assert row["sequences"] == len(how.windows(ids_T)) == expected.sequences
    [row] = shell(tmp_path / "part.json", *flags, "--limit", 3)
    assert row["sequences"] == 3 and row["tokens"] == 12
    assert row["perplexity"] == pytest.approx(math.exp(row["nats"]))
    assert row["nats"] == pytest.approx(perplexity(lm, ids_T[:17], how).nats, rel=1e-4)


def test_calibration_takes_train_and_a_file_of_that_name_comes_first(folder, tmp_path, monkeypatch):
    put(folder / "wikitext-2-raw" / "wiki.train.raw", RAW.replace("word30", "word33"))
    options = EvaluateOptions(model="smol-ar", text=Path("wikitext-2"), data=folder)
    assert documents_of(options, held_out=False)[0].startswith(" = word33 word31")
    assert documents_of(options, held_out=True)[0].startswith(" = word30 word31")
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "wikitext-2", "mine\n\nown")
    options = EvaluateOptions(model="smol-ar", text=Path("wikitext-2"))
    assert documents_of(options, held_out=True) == ["mine", "own"]


@pytest.mark.slow
def test_a_hub_that_is_out_of_reach_says_that_a_folder_will_do(model, capsys, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert main.main(["evaluate", model("autoregressive"), "--tasks", "wikitext"]) == 1
    error = capsys.readouterr().err
    assert "the data of task 'wikitext' cannot be loaded (no route)" in error
    assert error.endswith("of BLiMP and WikiText-2 a local folder will do: --data FOLDER\n")


# refusals


@dataclass(frozen=True)
class Refused:
    """A command that cannot work, and what it says."""

    flags: str
    said: str
    file: str | None = None  # a file that is written first
    text: str | bytes = ""  # what it holds


PAIR = '{"sentence_good": "a", "sentence_bad": "b"}\n'
PASSIVE = "blimp/data/passive_1.jsonl"
REFUSED = {
    "no folder": Refused(
        "--tasks blimp --data {folder}/gone",
        "the data folder {folder}/gone does not exist: give the folder that holds BLiMP or WikiText-2",
    ),
    "no BLiMP": Refused(
        "--tasks wikitext blimp --data {folder}/wikitext-2-raw",
        "holds no paradigm of BLiMP, looked for as <paradigm>.jsonl (as its authors publish it) or "
        "<paradigm>/*.parquet",
    ),
    "other tasks": Refused(
        "--tasks blimp piqa --data {folder}",
        "task 'piqa' cannot take local data, only blimp, blimp_<paradigm> and wikitext can: "
        "run it without --data",
    ),
    "broken JSON": Refused(
        "--tasks blimp --data {folder}",
        "{folder}/blimp/data/passive_1.jsonl, line 3: not JSON (",
        PASSIVE,
        PAIR + "\n" + '{"sentence_good": "a", "sen',
    ),
    "no pairs": Refused(
        "--tasks blimp_passive_1 --data {folder}", "passive_1.jsonl holds no pairs", PASSIVE, "\n"
    ),
    "no UTF-8": Refused(
        "--text wikitext-2 --data {folder}",
        "wiki.test.raw is not UTF-8 text (invalid start byte at byte 0)",
        "wikitext-2-raw/wiki.test.raw",
        b"\xff\xfe",
    ),
    "data for nothing": Refused(
        "--data {folder}",
        "--data {folder} is for --text wikitext-2, and in evaluate for --tasks blimp and wikitext",
    ),
    "a protocol for tasks": Refused(
        "--tasks wikitext --data {folder} --protocol ppl_llada",
        "--protocol ppl_llada scores a running text: give --text and no --tasks",
    ),
}


@pytest.mark.filterwarnings("ignore:.*paradigms of BLiMP")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_missing_or_broken_is_one_line_before_the_model_is_loaded(name, folder, capsys, monkeypatch):
    refused = REFUSED[name]
    monkeypatch.setattr(
        "sinkprune_companion.cli.inputs.open_model", lambda *_: pytest.fail("the model was loaded")
    )
    if refused.file is not None:
        put(folder / refused.file, refused.text)
    assert main.main(["evaluate", "smol-ar", *refused.flags.format(folder=folder).split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert refused.said.format(folder=folder) in error

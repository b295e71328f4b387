"""BLiMP and WikiText-2 from local folders: every published format, the harness's own numbers, naive ones, and refusals before any work."""

import dataclasses
import json
import logging
import math
import os
import re
from argparse import Namespace
from pathlib import Path

import datasets
import lm_eval.tasks
import pandas as pd
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.normalizers import Lowercase
from transformers import PreTrainedTokenizerFast

from sinkprune_core import corpus
from sinkprune_core.cli import main
from sinkprune_core.cli.commands import documents_of
from sinkprune_core.evaluation.benchmarks import evaluate
from sinkprune_core.evaluation.harness import HarnessModel
from sinkprune_core.evaluation.likelihood import log_likelihood, nll, perplexity
from sinkprune_core.evaluation.local_data import (
    blimp_files,
    local_tasks,
    pairs,
    running_text,
    wikitext,
    wikitext_files,
)
from sinkprune_core.evaluation.protocols import PROTOCOLS, Protocol
from sinkprune_core.models.language_model import LanguageModel

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SINKPRUNE_TEST_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "blimp").is_dir(),
    reason="neither ../shared/data nor SINKPRUNE_TEST_DATA holds BLiMP and WikiText-2",
)


def words(count: int, seed: int) -> str:
    return " ".join(
        f"word{27 + int(place)}"
        for place in torch.randint(45, (count,), generator=torch.Generator().manual_seed(seed))
    )


BLIMP = {
    name: [
        (words(3 + row % 3, 100 * place + row), words(3 + row % 3, 900 + 100 * place + row))
        for row in range(3 + place)
    ]
    for place, name in enumerate(("wh_island", "passive_1"))
}
TITLES = ("word30 word31", "word40")
PAGES = [
    f" = {title} = \n \n {words(9, place)} , {words(4, place + 5)} . \n \n = = word50 = = \n \n {words(6, place + 9)} . \n \n"
    for place, title in enumerate(TITLES)
]
RAW = " \n" + "".join(PAGES)
LINES = [
    line + "\n" if line.strip() else "" for line in RAW.split("\n")[:-1]
]  # as rows of the hub's line-level data set


def jsonl(file: Path, rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "".join(
            json.dumps({"sentence_good": good, "sentence_bad": bad, "UID": file.stem, "pairID": str(row)})
            + "\n"
            for row, (good, bad) in enumerate(rows)
        )
    )


def parquet(file: Path, **columns) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(file)


def put(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def folder(tmp_path):
    """Two paradigms of BLiMP, and WikiText-2's test split, as their authors publish them."""
    for name, rows in BLIMP.items():
        jsonl(tmp_path / "data" / "blimp" / "data" / f"{name}.jsonl", rows)
    put(tmp_path / "data" / "wikitext-2-raw" / "wiki.test.raw", RAW)
    return tmp_path / "data"


@pytest.fixture
def reader(make_lm):
    """A function that makes a tiny model of a kind that reads English letter by letter."""

    def make(kind: str) -> LanguageModel:
        lm = make_lm(kind)
        special = lm.tokenizer.convert_ids_to_tokens(range(17))
        inner = Tokenizer(
            models.WordLevel(
                {
                    token: index
                    for index, token in enumerate(
                        [*special, *"abcdefghijklmnopqrstuvwxyz0123456789 .,'-\n=\"()<>@?!:;"]
                    )
                },
                unk_token=special[0],
            )
        )
        inner.normalizer, inner.pre_tokenizer = (
            Lowercase(),
            pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"),
        )
        inner.add_special_tokens(special)
        lm.model.config.max_position_embeddings = 256
        return dataclasses.replace(
            lm,
            tokenizer=PreTrainedTokenizerFast(
                tokenizer_object=inner, unk_token=special[0], eos_token=special[0]
            ),
        )

    return make


def log_p(lm, text: str) -> float:
    """Return log p of a text after the end-of-text token, one token at a time."""
    ids = [lm.tokenizer.eos_token_id, *lm.tokenizer(text, add_special_tokens=False).input_ids]
    return sum(
        float(lm.model(torch.tensor([ids[:place]])).logits[0, -1].log_softmax(-1)[ids[place]])
        for place in range(1, len(ids))
    )


def local(lm, data: Path, tasks: list[str], split: str = "test", **options) -> pd.DataFrame:
    with local_tasks(data, tasks, split) as (names, include):
        return evaluate(lm, names, include=include, **options)


# BLiMP


def test_accuracy_is_that_of_a_naive_loop(tiny_ar, tiny_dlm, folder):
    with pytest.warns(UserWarning, match="2 of the 67 paradigms"):
        frame = local(tiny_ar, folder, ["blimp", "blimp_passive_1"])
    right = {
        name: [log_p(tiny_ar, f" {good}") > log_p(tiny_ar, f" {bad}") for good, bad in rows]
        for name, rows in BLIMP.items()
    }
    shares = {name: sum(rows) / len(rows) for name, rows in right.items()}
    assert 0 < sum(shares.values()) < 2
    assert (
        frame.task.tolist() == ["blimp_2_of_67", "blimp_passive_1"]
        and frame.metric.tolist() == ["acc", "acc"]
        and frame.documents.tolist() == [7, 4]
    )
    assert frame.value.tolist() == pytest.approx([sum(shares.values()) / 2, shares["passive_1"]])

    bounds = [
        [
            log_likelihood(
                tiny_dlm, [(torch.tensor([0]), tiny_dlm.encode(f" {text}"))], Protocol("count", 8, 8)
            ).value.mean()
            for text in pair
        ]
        for pair in BLIMP["passive_1"]
    ]
    assert local(tiny_dlm, folder, ["blimp_passive_1"], mc_num=8).value.tolist() == [
        sum(good > bad for good, bad in bounds) / 4
    ]


def test_parquet_files_and_shards_are_as_good(tiny_ar, folder, tmp_path):
    (name, rows), (other, others) = BLIMP.items()
    good, bad = zip(*rows, strict=True)
    parquet(
        tmp_path / "hub" / name / "train-00000-of-00002.parquet", sentence_good=good[:2], sentence_bad=bad[:2]
    )
    parquet(
        tmp_path / "hub" / name / "train-00001-of-00002.parquet", sentence_good=good[2:], sentence_bad=bad[2:]
    )
    parquet(
        tmp_path / "hub" / f"{other}.parquet",
        sentence_good=[row[0] for row in others],
        sentence_bad=[row[1] for row in others],
    )
    assert {key: pairs(files) for key, files in blimp_files(tmp_path / "hub").items()} == {
        key: pairs(files) for key, files in blimp_files(folder).items()
    }
    asked = ["blimp_wh_island", "blimp_passive_1"]
    pd.testing.assert_frame_equal(local(tiny_ar, tmp_path / "hub", asked), local(tiny_ar, folder, asked))


def test_all_paradigms_are_blimp_and_fewer_are_not(tiny_ar, tmp_path):
    known = TaskManager(include_path=Path(lm_eval.tasks.__file__).parent / "blimp", include_defaults=False)
    paradigms = [entry.cfg["dataset_name"] for name, entry in known.task_index.items() if name != "blimp"]
    assert len(paradigms) == 67
    for place, name in enumerate(paradigms):
        jsonl(tmp_path / f"{name}.jsonl", [(words(2, place), words(2, place + 500))] * (1 + place % 2))
    with local_tasks(tmp_path, ["blimp"]) as (names, include):
        frame, apart = (
            evaluate(tiny_ar, names, include=include, per_document=apart) for apart in (False, True)
        )
    assert frame.task.tolist() == names == ["blimp"] and frame.documents.tolist() == [100]
    assert frame.value[0] == pytest.approx(
        apart.groupby("task").value.mean().mean()
    )  # paradigms weigh alike, as in the harness
    (tmp_path / "wh_island.jsonl").unlink()
    with pytest.warns(UserWarning, match="66 of the 67"), local_tasks(tmp_path, ["blimp"]) as (names, _):
        assert names == ["blimp_66_of_67"]


# WikiText-2


FORMATS = {
    "raw": lambda root: put(root / "wiki.test.raw", RAW),
    "tokens": lambda root: put(root / "wikitext-2" / "wiki.test.tokens", RAW),
    "text": lambda root: put(root / "wikitext-2" / "test.txt", RAW),
    "lines": lambda root: parquet(root / "wikitext-2-raw-v1" / "test-00000-of-00001.parquet", text=LINES),
    "pages": lambda root: parquet(root / "WikiText2" / "test.parquet", page=PAGES),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_articles(name, tmp_path):
    FORMATS[name](tmp_path)
    found = wikitext(tmp_path, "test")
    assert [page.strip() for page in found] == [page.strip() for page in PAGES]
    assert found == wikitext(put(tmp_path / "other" / "wiki.test.raw", RAW).parent) or name == "pages"
    assert running_text(found) == "\n".join(line for line in RAW.split("\n") if line.strip())


def test_word_perplexity_is_the_naive_one(tiny_ar, folder):
    frame = local(tiny_ar, folder, ["wikitext"])
    found = wikitext(folder)
    assert len(found) == 2 and all(
        len(tiny_ar.encode(wikitext_detokenizer({"page": page}))) < 60 for page in found
    )
    total = sum(log_p(tiny_ar, wikitext_detokenizer({"page": page})) for page in found)
    counts = [len(re.split(r"\s+", page)) for page in found], [len(page.encode()) for page in found]
    expected = [
        math.exp(-total / sum(counts[0])),
        math.exp(-total / sum(counts[1])),
        -total / sum(counts[1]) / math.log(2),
    ]
    assert frame.metric.tolist() == ["word_perplexity", "byte_perplexity", "bits_per_byte"] and set(
        frame.task
    ) == {"wikitext"}
    assert frame.value.tolist() == pytest.approx(expected, rel=1e-4)
    assert local(tiny_ar, folder, ["wikitext"], limit=1).documents.tolist() == [1, 1, 1]


def test_another_split_has_another_name(tiny_ar, tmp_path):
    put(tmp_path / "wiki.valid.tokens", RAW)
    assert set(local(tiny_ar, tmp_path, ["wikitext"], "validation").task) == {"wikitext_validation"}


def test_raw_text_goes_before_the_one_with_unk_and_other_wikitexts_are_passed_over(tmp_path):
    raw = put(tmp_path / "wikitext-2-raw" / "wiki.test.raw", RAW)
    tokens = put(tmp_path / "wikitext-2" / "wiki.test.tokens", RAW.replace("word40", "<unk>"))
    put(tmp_path / "wikitext-103-raw" / "wiki.test.raw", RAW)
    put(tmp_path / "notes" / "test.txt", "no WikiText")
    assert wikitext_files(tmp_path) == {"test": [raw]}
    raw.unlink()
    assert wikitext_files(tmp_path) == {"test": [tokens]}
    with pytest.warns(
        UserWarning,
        match="has <unk> for rare words; published perplexities are of the raw version, wiki.test.raw",
    ):
        wikitext(tmp_path)
    tokens.unlink()
    assert wikitext_files(tmp_path) == {}


def test_the_hub_gives_what_the_harness_reads(monkeypatch):
    asked = []
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *args, **options: (
            asked.append((args, options)) or datasets.Dataset.from_list([{"page": page} for page in PAGES])
        ),
    )
    assert wikitext(None, "validation") == PAGES
    entry = (
        TaskManager(include_path=Path(lm_eval.tasks.__file__).parent / "wikitext", include_defaults=False)
        .task_index["wikitext"]
        .cfg
    )
    assert asked == [((entry["dataset_path"], entry["dataset_name"]), {"split": "validation"})]

    def offline(*_, **__):
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        OSError,
        match=r"WikiText-2 cannot be had from the hub \(no route\): give a local folder of it \(--data\)",
    ):
        wikitext(None)


# the shell


@pytest.fixture
def model(tiny_ar, tiny_dlm, tmp_path):
    """A function that saves a tiny model of a kind and returns its folder."""
    return lambda kind: str((tiny_ar if kind == "autoregressive" else tiny_dlm).save(tmp_path / kind))


def shell(out: Path, *arguments: object) -> list[dict]:
    assert (
        main.main([str(part) for part in ("evaluate", *arguments, "--dtype", "float32", "--json", out)]) == 0
    )
    return json.loads(out.read_text())


def test_the_shell_runs_tasks_on_local_data(model, tiny_ar, folder, tmp_path):
    found = shell(
        tmp_path / "out.json",
        model("autoregressive"),
        "--tasks",
        "blimp_passive_1,wikitext",
        "blimp_wh_island",
        "--data",
        folder,
        "--limit",
        2,
    )
    expected = local(tiny_ar, folder, ["blimp_passive_1", "wikitext", "blimp_wh_island"], limit=2)
    assert [row["task"] for row in found] == expected.task.tolist() and [
        row["documents"] for row in found
    ] == [2] * 5
    assert [row["value"] for row in found] == pytest.approx(expected.value.tolist())


def test_the_shell_scores_wikitext_with_an_interval(model, tiny_ar, folder, tmp_path):
    [row] = shell(
        tmp_path / "out.json",
        model("autoregressive"),
        "--text",
        "wikitext-2",
        "--data",
        folder,
        "--length",
        8,
        "--sequences",
        5,
    )
    ids_NT = corpus.pack([running_text([page]) for page in wikitext(folder)], tiny_ar.tokenizer, 8)
    order = (
        torch.randperm(len(ids_NT), generator=corpus.generator(0, "texts", "wikitext-2", True))[:5]
        .sort()
        .values
    )
    assert (
        row["value"] == pytest.approx(nll(tiny_ar, ids_NT[order]).value.mean(), rel=1e-4)
        and row["low"] < row["value"] < row["high"]
        and row["units"] == 5
    )


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_the_shell_scores_a_running_text_by_a_published_protocol(
    kind, model, tiny_ar, tiny_dlm, folder, tmp_path, monkeypatch
):
    how = Protocol("count", draws=2, grid=1, chunk=4, context=8)
    monkeypatch.setitem(PROTOCOLS, "main_llada", how)
    lm, flags = (
        tiny_ar if kind == "autoregressive" else tiny_dlm,
        (model(kind), "--text", "wikitext-2", "--data", folder, "--protocol", "main_llada"),
    )
    ids_T = lm.encode(running_text(wikitext(folder)))
    [row] = shell(tmp_path / "out.json", *flags)
    expected = perplexity(lm, ids_T, how)
    assert (
        row["nats"] == pytest.approx(expected.nats, rel=1e-4)
        and row["sequences"] == len(how.windows(ids_T)) == expected.sequences
    )
    [row] = shell(tmp_path / "out.json", *flags, "--limit", 3)
    assert (
        row["sequences"] == 3
        and row["tokens"] == 12
        and row["perplexity"] == pytest.approx(math.exp(row["nats"]))
    )
    assert row["nats"] == pytest.approx(perplexity(lm, ids_T[:17], how).nats, rel=1e-4)


def test_calibration_takes_train_and_a_file_of_that_name_comes_first(folder, tmp_path, monkeypatch):
    put(folder / "wikitext-2-raw" / "wiki.train.raw", RAW.replace("word30", "word33"))
    options = Namespace(text=Path("wikitext-2"), data=folder, split=None)
    assert documents_of(options, held_out=False)[0].startswith(" = word33 word31") and documents_of(
        options, held_out=True
    )[0].startswith(" = word30 word31")
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "wikitext-2", "mine\n\nown")
    assert documents_of(Namespace(text=Path("wikitext-2"), data=None, split=None), held_out=True) == [
        "mine",
        "own",
    ]


@pytest.mark.slow
def test_a_hub_that_is_out_of_reach_says_that_a_folder_will_do(model, capsys, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert main.main(["evaluate", model("autoregressive"), "--tasks", "wikitext"]) == 1
    error = capsys.readouterr().err
    assert "the data of task 'wikitext' cannot be loaded (no route)" in error and error.endswith(
        "; or give a local folder of BLiMP and WikiText-2: --data FOLDER\n"
    )


def broken(name: str, text: str | bytes):
    def damage(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


PAIR = '{"sentence_good": "a", "sentence_bad": "b"}\n'
REFUSED = {
    "no folder": (None, "--tasks blimp --data {folder}/gone", "the data folder {folder}/gone does not exist: give the folder that holds BLiMP or WikiText-2"),
    "a file": (None, "--tasks wikitext --data {folder}/wikitext-2-raw/wiki.test.raw", "the data folder {folder}/wikitext-2-raw/wiki.test.raw is a file: give the folder"),
    "no BLiMP": (None, "--tasks wikitext blimp --data {folder}/wikitext-2-raw", "holds no paradigm of BLiMP, looked for as <paradigm>.jsonl (as its authors publish it) or <paradigm>/*.parquet"),
    "no such paradigm": (None, "--tasks blimp_wh_island,blimp_drop_argument --data {folder}", "the data folder {folder} holds no blimp_drop_argument, looked for as"),
    "no WikiText": (None, "--tasks wikitext --data {folder}/blimp", "the data folder {folder}/blimp holds no test split of WikiText-2, looked for as wiki.{{train,valid,test}}.raw or .tokens"),
    "no such split": (None, "--tasks wikitext --data {folder} --split validation", "it holds test: choose one by --split"),
    "no such split of a text": (None, "--text wikitext-2 --data {folder} --split train", "holds no train split of WikiText-2"),
    "other tasks": (None, "--tasks blimp piqa --data {folder}", "task 'piqa' cannot take local data, only blimp, blimp_<paradigm> and wikitext can: run it without --data"),
    "broken JSON": (broken("blimp/data/passive_1.jsonl", PAIR + "\n" + '{"sentence_good": "a", "sen'), "--tasks blimp --data {folder}", "{folder}/blimp/data/passive_1.jsonl, line 3: not JSON ("),
    "half a pair": (broken("blimp/data/passive_1.jsonl", PAIR + '{"sentence_good": "a"}'), "--tasks blimp_passive_1 --data {folder}", "passive_1.jsonl, line 2: no text 'sentence_bad'; a pair has sentence_good and sentence_bad"),
    "no object": (broken("blimp/data/passive_1.jsonl", "3\n"), "--tasks blimp_passive_1 --data {folder}", "passive_1.jsonl, line 1: no text 'sentence_good'"),
    "no pairs": (broken("blimp/data/passive_1.jsonl", "\n"), "--tasks blimp_passive_1 --data {folder}", "passive_1.jsonl holds no pairs"),
    "a pair twice": (broken("old/passive_1.jsonl", PAIR), "--tasks blimp --data {folder}", "BLiMP paradigm passive_1 is there twice, in {folder}/blimp/data/passive_1.jsonl and {folder}/old/passive_1.jsonl: move one of them away"),
    "a text twice": (broken("old/wiki.test.raw", RAW), "--text wikitext-2 --data {folder}", "the test split of WikiText-2 is there twice, in {folder}/old/wiki.test.raw and"),
    "no text": (broken("wikitext-2-raw/wiki.test.raw", " \n"), "--tasks wikitext --data {folder}", "wiki.test.raw holds no text"),
    "no UTF-8": (broken("wikitext-2-raw/wiki.test.raw", b"\xff\xfe"), "--text wikitext-2 --data {folder}", "wiki.test.raw is not UTF-8 text (invalid start byte at byte 0)"),
    "no parquet": (broken("wh_vs_that_no_gap/train.parquet", "PAR2"), "--tasks blimp_wh_vs_that_no_gap --data {folder}", "train.parquet is no parquet file ("),
    "data for nothing": (None, "--data {folder}", "--data {folder} is for --text wikitext-2, and in evaluate for --tasks blimp and wikitext"),
    "data for a file": (None, "--text {folder}/wikitext-2-raw/wiki.test.raw --data {folder}", "--data {folder} is for --text wikitext-2"),
    "a split of the hub's": (None, "--tasks wikitext --split validation", "--split validation chooses among local files of WikiText-2: give --data FOLDER"),
    "a protocol for tasks": (None, "--tasks wikitext --data {folder} --protocol ppl_llada", "--protocol ppl_llada scores a running text: give --text and no --tasks"),
    "a protocol without text": (None, "--protocol ppl_llada", "give --text and no --tasks"),
    "a protocol of pairs": (None, "--text wikitext-2 --data {folder} --protocol dream", "--protocol dream is not one for a running text; choose one of ppl_llada, main_llada, main_dream"),
    "no windows": (None, "--text wikitext-2 --data {folder} --protocol ppl_llada --limit 0", "--limit 0 must be at least 1, a number of windows"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*paradigms of BLiMP")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_missing_or_broken_is_one_line_before_the_model_is_loaded(name, folder, capsys, monkeypatch):
    damage, flags, said = REFUSED[name]
    monkeypatch.setattr(
        "sinkprune_core.cli.commands.open_model", lambda *_: pytest.fail("the model was loaded")
    )
    if damage:
        damage(folder)
    assert main.main(["evaluate", "smol-ar", *flags.format(folder=folder).split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said.format(folder=folder) in error


def test_a_parquet_file_of_something_else_is_told_by_its_columns(tmp_path):
    parquet(tmp_path / "passive_1" / "train.parquet", question=["a"], answer=["b"])
    with (
        pytest.raises(
            ValueError,
            match=r"train.parquet has no column sentence_good or sentence_bad; it has question, answer",
        ),
        local_tasks(tmp_path, ["blimp_passive_1"]),
    ):
        pass
    parquet(tmp_path / "drop_argument" / "train.parquet", sentence_good=["a"])
    with (
        pytest.raises(ValueError, match=r"train.parquet, row 1: no text 'sentence_bad'"),
        local_tasks(tmp_path, ["blimp_drop_argument"]),
    ):
        pass


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="split='dev' is unknown; choose one of train, validation, test"):
        wikitext(tmp_path, "dev")


# the harness's own model, and real data


def answers(
    lm, data: Path, tasks: list[str], split: str, saved: Path, limit: int, max_length: int = 64
) -> list[tuple[list[float], list[float]]]:
    """Return the log-likelihoods of the first documents under our model and under the harness's own, task by task."""
    theirs, ours = (
        HFLM(
            pretrained=str(lm.save(saved)), dtype="float32", device="cpu", batch_size=2, max_length=max_length
        ),
        HarnessModel(lm, max_length=max_length),
    )
    with local_tasks(data, tasks, split) as (names, include):
        manager = TaskManager(include_path=str(include), include_defaults=False)
        found = [
            simple_evaluate(model, tasks=names, task_manager=manager, limit=limit, bootstrap_iters=0)[
                "samples"
            ]
            for model in (ours, theirs)
        ]

    def values(samples) -> list[float]:
        return [
            float(response[0] if isinstance(response, (list, tuple)) else response)
            for sample in samples
            for [response] in sample["resps"]
        ]

    return [(values(found[0][task]), values(found[1][task])) for task in found[0]]


def test_the_harness_s_own_model_gives_the_same_numbers(tiny_ar, folder, tmp_path):
    for ours, theirs in answers(
        tiny_ar, folder, ["blimp_wh_island", "wikitext"], "test", tmp_path / "model", 2
    ):
        assert ours == pytest.approx(theirs, rel=1e-4) and len(ours) >= 2


@needs_data
def test_real_files_are_counted_and_hold_english():
    found = {name: pairs(files) for name, files in blimp_files(DATA).items()}
    files = sorted((DATA / "blimp").glob("*.jsonl"))
    assert list(found) != [] and sorted(found) == [file.stem for file in files]
    assert {name: len(rows) for name, rows in found.items()} == {
        file.stem: len(file.read_text(encoding="utf-8").splitlines()) for file in files
    }
    assert all(
        row["sentence_good"] != row["sentence_bad"] and row["sentence_good"][-1] in ".?"
        for rows in found.values()
        for row in rows
    )


@needs_data
@pytest.mark.filterwarnings("ignore:.*<unk>")
def test_the_real_validation_text_has_sixty_articles():
    found = wikitext(DATA, "validation")
    assert len(found) == 60 and all(page.lstrip().startswith("= ") for page in found)
    lines = (DATA / "wikitext-2" / "valid.txt").read_text(encoding="utf-8").split("\n")
    assert running_text(found).split("\n") == [line for line in lines if line.strip()]
    assert (
        len(running_text(found).split()) + len(lines) - 1 == 217_646
    )  # tokens of the split as published, line ends among them


@needs_data
@pytest.mark.filterwarnings("ignore:.*<unk>")
def test_the_harness_s_own_model_agrees_on_real_items(reader, tmp_path):
    found = answers(
        reader("autoregressive"),
        DATA,
        ["blimp_passive_1", "blimp_drop_argument"],
        "validation",
        tmp_path / "model",
        3,
        256,
    )
    assert [len(ours) for ours, _ in found] == [6, 6]
    for ours, theirs in found:
        assert ours == pytest.approx(theirs, rel=1e-4)


@needs_data
@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_real_pairs_are_answered_as_a_naive_loop_answers_them(kind, reader):
    lm = reader(kind)
    options = {} if kind == "autoregressive" else {"mc_num": 2}
    frame = local(lm, DATA, ["blimp_transitive"], limit=8, **options)
    rows = pairs(blimp_files(DATA)["transitive"])[:8]

    def score(text: str) -> float:
        if kind == "autoregressive":
            return log_p(lm, f" {text}")
        return log_likelihood(
            lm, [(torch.tensor([0]), lm.encode(f" {text}"))], Protocol("count", 2, 2)
        ).value.mean()

    assert frame.value.tolist() == [
        sum(score(row["sentence_good"]) > score(row["sentence_bad"]) for row in rows) / 8
    ] and frame.documents.tolist() == [8]


def test_the_harness_is_as_loud_after_as_before(folder):
    before = logging.getLogger("lm_eval.api.task").level
    with local_tasks(folder, ["wikitext"]) as (_, include):
        assert include.is_dir()
    assert logging.getLogger("lm_eval.api.task").level == before and not include.exists()

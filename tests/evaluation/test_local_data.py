"""BLiMP and WikiText-2 in a local folder: every published format is found and read, what is broken told."""

import json
import math
import os
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer
from public_formats import BLIMP, LINES, PAGES, RAW, parquet, put, write_both

from sinkprune.cli import main
from sinkprune.evaluation.conditional_likelihood import log_likelihood, perplexity
from sinkprune.evaluation.harness.benchmarks import evaluate_named, local_tasks
from sinkprune.evaluation.local_data import blimp_files, pairs, read_parquet, running_text, wikitext
from sinkprune.evaluation.protocols import PROTOCOLS, Protocol
from sinkprune.models.saving import save

# files


PAIR = {"sentence_good": "a b", "sentence_bad": "b a"}
LINE = json.dumps(PAIR) + "\n"


def test_marks_of_editors_are_no_part_of_a_text(tmp_path):
    for text in ("\ufeff" + 2 * LINE, (2 * LINE).replace("\n", "\r\n")):
        assert pairs([put(tmp_path / "passive_1.jsonl", text)]) == [PAIR, PAIR]
    plain, marked = (put(tmp_path / name / "wiki.test.raw", RAW).parent for name in ("plain", "marked"))
    (marked / "wiki.test.raw").write_bytes(b"\xef\xbb\xbf" + RAW.encode())
    assert wikitext(marked) == wikitext(plain)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", "7", '"x"', '{"a": ', "NaN", "[" * 100_000, '{"a": ' * 100_000, "\x00"],
    ids=lambda text: text[:9],
)
def test_a_line_that_is_no_pair_is_told_by_file_and_row(text, tmp_path):
    file = put(tmp_path / "passive_1.jsonl", LINE + text)
    said = f"{file} is not UTF-8 text" if "\0" in text else f"{file}, row 2"
    with pytest.raises(ValueError, match=said):
        pairs([file])


@pytest.mark.parametrize("field", PAIR)
@pytest.mark.parametrize(
    "wrong", [-1.5, True, [], ["x"], {"a": 1}, "", float("nan"), "\ud800", "a\udfff", None], ids=repr
)
def test_a_sentence_that_is_no_text_is_told_by_file_and_row(field, wrong, tmp_path):
    file = put(tmp_path / "passive_1.jsonl", LINE + json.dumps({**PAIR, field: wrong}))
    with pytest.raises(ValueError, match=f"{file}, row 2"):
        pairs([file])


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        *(("page", value) for value in (3, 1.5, True, b"a", None, "", " \n", ["a"], {"a": 1})),
        *(("text", value) for value in (3, 1.5, True, b"a", ["a"])),
    ],
)
def test_a_row_that_is_no_text_is_told_by_file_and_row(column, wrong, tmp_path):
    file = tmp_path / "WikiText2" / "test.parquet"
    parquet(file, **{column: [wrong]})
    with pytest.raises(ValueError, match=f"{file}, row 1"):
        wikitext(file.parent)


def test_bytes_that_are_no_file_of_their_kind_are_told(tmp_path):
    file = tmp_path / "WikiText2" / "test.parquet"
    parquet(file, question=["a"])
    whole = file.read_bytes()

    for name, damaged in (
        *(
            ("test.parquet", data)
            for data in (whole, whole[:-9], whole[:9], b"", bytes(len(whole)), whole + b"x")
        ),
        *(("wiki.test.raw", data) for data in (RAW.encode("utf-16"), b"\xff" + RAW.encode(), b"", b" \n")),
    ):
        with pytest.raises(ValueError, match=name):
            wikitext(put(tmp_path / "WikiText2" / name, damaged).parent)
        (tmp_path / "WikiText2" / name).unlink()

    with pytest.raises(ValueError, match=r"passive_1\.jsonl"):
        pairs([put(tmp_path / "passive_1.jsonl", (2 * LINE).encode("utf-16"))])


def shards(folder: Path, numbers: list[int], total: int, **columns: list) -> Path:
    """Write parts of a table with one row each, named as the hub names them; return the folder."""
    for number in numbers:
        part = {name: [rows[number % len(rows)]] for name, rows in columns.items()}
        parquet(folder / f"test-{number:05d}-of-{total:05d}.parquet", **part)
    return folder


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([0, 2], "is not whole, .* lacks test-00001-of-00003.parquet: fetch all 3 files"),
        ([1, 2], "lacks test-00000-of-00003.parquet"),
        ([0, 1], "lacks test-00002-of-00003.parquet"),
        ([2], "lacks test-00000-of-00003.parquet"),
        ([0, 1, 2, 3], "has files in .* beyond the 3 of its set"),
    ],
)
def test_a_set_of_files_with_one_missing_is_no_data_set(numbers, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        wikitext(shards(tmp_path / "WikiText2", numbers, 3, page=PAGES))
    folder = shards(
        tmp_path / "blimp" / "passive_1", numbers, 3, **{name: [text] for name, text in PAIR.items()}
    )
    with pytest.raises(ValueError, match=said):
        blimp_files(folder.parent, ["blimp_passive_1"])


def test_a_whole_set_of_files_is_read_in_its_order(tmp_path):
    folder = shards(tmp_path / "WikiText2", [0, 1, 2], 3, page=["one", "two", "three"])
    assert wikitext(folder) == ["one", "two", "three"]
    shards(folder, [0], 1, page=["one"])
    with pytest.raises(ValueError, match="is there twice"):
        wikitext(folder)


def test_what_pandas_wrote_besides_a_table_decides_nothing(tmp_path):
    plain = tmp_path / "plain" / "WikiText2" / "test.parquet"
    parquet(plain, page=PAGES)
    frames = {
        "categories": pd.DataFrame({"page": pd.Categorical(PAGES)}),
        "index": pd.DataFrame({"other": range(len(PAGES))}, index=pd.Index(PAGES, name="page")),
    }
    for name, frame in frames.items():
        file = tmp_path / name / "WikiText2" / "test.parquet"
        file.parent.mkdir(parents=True)
        frame.to_parquet(file)
        assert wikitext(file.parent) == wikitext(plain.parent)

    table = pq.read_table(plain)
    for notes in (b"", b"{", b"[]", b'{"columns": 3, "index_columns": [{"kind": "range"}]}'):
        damaged = table.replace_schema_metadata({b"pandas": notes})
        pq.write_table(damaged, plain)
        assert wikitext(plain.parent) == [*PAGES]


def test_a_table_with_a_column_twice_and_a_pipe_are_refused(tmp_path):
    file = tmp_path / "WikiText2" / "test.parquet"
    file.parent.mkdir()
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["page", "page"])
    pq.write_table(twice, file)

    with pytest.raises(ValueError, match="has a column twice"):
        wikitext(file.parent)

    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match=f"{file} is no ordinary file"):
        read_parquet(file)


def test_a_pair_with_a_sentence_twice_is_told_by_file_and_row(tmp_path):
    line = '{"sentence_good": "a", "sentence_bad": "b", "sentence_bad": "c"}'
    file = put(tmp_path / "passive_1.jsonl", LINE + line)
    with pytest.raises(ValueError, match=f"{file}, row 2: no JSON: the key 'sentence_bad' comes twice"):
        pairs([file])


# texts


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


# by the shell, scored by a published protocol


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_both(tmp_path / "data")


@pytest.fixture
def model(tiny_ar, tiny_dlm, tmp_path):
    """A function that saves a tiny model of a kind and returns its folder."""

    def saved(kind: str) -> str:
        lm = tiny_ar if kind == "autoregressive" else tiny_dlm
        return str(save(lm, tmp_path / kind))

    return saved


def shell(out: Path, *arguments: object) -> list[dict]:
    """Run `sinkprune evaluate` and return the rows that it writes."""
    asked = [str(part) for part in ("evaluate", *arguments, "--dtype", "float32", "--json", out)]
    assert main.main(asked) == 0
    return json.loads(out.read_text())


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


# the harness's own tasks


def log_p(lm, text: str) -> float:
    """Return log p of a text after the end-of-text token, one token at a time."""
    ids = [lm.tokenizer.eos_token_id, *lm.tokenizer(text, add_special_tokens=False).input_ids]
    total = 0.0
    for place in range(1, len(ids)):
        logits_V = lm.model(torch.tensor([ids[:place]])).logits[0, -1]
        total += float(logits_V.log_softmax(-1)[ids[place]])
    return total


def bound(lm, text: str, how: Protocol) -> float:
    """Return the estimated log p of a text after the end-of-text token under a diffusion model."""
    return log_likelihood(lm, [(torch.tensor([0]), lm.encode(text))], how).value.mean()


def local(lm, data: Path, tasks: list[str], split: str = "test", **options) -> pd.DataFrame:
    with local_tasks(data, tasks, split) as (names, include):
        return evaluate_named(lm, names, include=include, **options)


# BLiMP


@pytest.mark.slow
def test_accuracy_is_that_of_a_naive_loop(tiny_ar, tiny_dlm, folder):
    with pytest.warns(UserWarning, match="2 of the 67 paradigms"):
        frame = local(tiny_ar, folder, ["blimp", "blimp_passive_1"])
    shares = {}
    for name, rows in BLIMP.items():
        right = [log_p(tiny_ar, f" {good}") > log_p(tiny_ar, f" {bad}") for good, bad in rows]
        shares[name] = sum(right) / len(right)
    assert 0 < sum(shares.values()) < 2
    assert frame.task.tolist() == ["blimp_2_of_67", "blimp_passive_1"]
    assert frame.metric.tolist() == ["acc", "acc"] and frame.documents.tolist() == [7, 4]
    assert frame.value.tolist() == pytest.approx([sum(shares.values()) / 2, shares["passive_1"]])

    how = Protocol("count", 8, 8)
    right = [
        bound(tiny_dlm, f" {good}", how) > bound(tiny_dlm, f" {bad}", how) for good, bad in BLIMP["passive_1"]
    ]
    assert local(tiny_dlm, folder, ["blimp_passive_1"], draws=8).value.tolist() == [sum(right) / 4]


# WikiText-2


@pytest.mark.slow
def test_word_perplexity_is_the_naive_one(tiny_ar, folder):
    frame = local(tiny_ar, folder, ["wikitext"])
    found = wikitext(folder)
    texts = [wikitext_detokenizer({"page": page}) for page in found]
    assert len(found) == 2 and all(len(tiny_ar.encode(text)) < 60 for text in texts)

    total = sum(log_p(tiny_ar, text) for text in texts)
    word_count = sum(len(re.split(r"\s+", page)) for page in found)
    byte_count = sum(len(page.encode()) for page in found)

    expected = {
        "word_perplexity": math.exp(-total / word_count),
        "byte_perplexity": math.exp(-total / byte_count),
        "bits_per_byte": -total / byte_count / math.log(2),
    }

    assert frame.metric.tolist() == list(expected) and set(frame.task) == {"wikitext"}
    assert frame.value.tolist() == pytest.approx(list(expected.values()), rel=1e-4)

    assert local(tiny_ar, folder, ["wikitext"], limit=1).documents.tolist() == [1, 1, 1]

"""BLiMP and WikiText-2 in a local folder: every published format is found and read, and what is broken is
told.
"""

import json
from pathlib import Path

import lm_eval.tasks
import pytest
from hostile.fuzz import BROKEN_JSON, WRONG
from lm_eval.tasks import TaskManager
from public_formats import LINES, PAGES, RAW, parquet, put

from sinkprune_companion.harness.data_files import blimp_paradigms
from sinkprune_companion.harness.local_data import pairs, running_text, wikitext


def harness_index(folder: str) -> dict:
    """Return the tasks in a folder of the harness."""
    tasks = Path(lm_eval.tasks.__file__).parent / folder
    return TaskManager(include_path=tasks, include_defaults=False).task_index


# files


def test_the_paradigms_are_those_of_the_harness():
    known = harness_index("blimp")
    group = known["blimp"].cfg["task"]
    assert [known[task].cfg["dataset_name"] for task in group] == list(blimp_paradigms())
    assert group == [f"blimp_{paradigm}" for paradigm in blimp_paradigms()] and len(group) == 67


PAIR = {"sentence_good": "a b", "sentence_bad": "b a"}
LINE = json.dumps(PAIR) + "\n"


def test_marks_of_editors_are_no_part_of_a_text(tmp_path):
    for text in ("\ufeff" + 2 * LINE, (2 * LINE).replace("\n", "\r\n")):
        assert pairs([put(tmp_path / "passive_1.jsonl", text)]) == [PAIR, PAIR]
    plain, marked = (put(tmp_path / name / "wiki.test.raw", RAW).parent for name in ("plain", "marked"))
    (marked / "wiki.test.raw").write_bytes(b"\xef\xbb\xbf" + RAW.encode())
    assert wikitext(marked) == wikitext(plain)


@pytest.mark.parametrize(
    "text", [*BROKEN_JSON[1:], '{"a": ' * 100_000, "\x00\x00"], ids=lambda text: text[:9]
)
def test_a_line_that_is_no_pair_is_told_by_file_and_line(text, tmp_path):
    file = put(tmp_path / "passive_1.jsonl", LINE + text)
    with pytest.raises(ValueError, match=f"{file}, line 2"):
        pairs([file])


@pytest.mark.parametrize("field", PAIR)
@pytest.mark.parametrize(
    "wrong", [*(value for value in WRONG if value != "no"), "\ud800", "a\udfff", None], ids=repr
)
def test_a_sentence_that_is_no_text_is_told_by_file_and_line(field, wrong, tmp_path):
    file = put(tmp_path / "passive_1.jsonl", LINE + json.dumps({**PAIR, field: wrong}))
    with pytest.raises(ValueError, match=f"{file}, line 2"):
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

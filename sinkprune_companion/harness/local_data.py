"""What is in the files of BLiMP and WikiText-2: minimal pairs and articles.

They lie in a local folder, WikiText-2 also on the hub. `data_files` finds the files, this module reads
them, and `local_tasks` gives them to lm-evaluation-harness.
"""

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from sinkprune_companion.harness.data_files import SPLITS, wikitext_split_files
from sinkprune_core.values import check_choice

WIKITEXT = "wikitext-2"  # the name by which `--text` asks for it
HUB = ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1")  # what the harness's task `wikitext` reads
PAIR_FIELDS = ("sentence_good", "sentence_bad")


# BLiMP


def pairs(files: Sequence[Path]) -> list[dict[str, str]]:
    """Return the minimal pairs of a BLiMP paradigm: `sentence_good`, `sentence_bad`.

    Raises ValueError, with file and line, for what is not JSON and for a pair that lacks a sentence.
    """
    sentences = []
    for file in files:
        is_parquet = file.suffix == ".parquet"
        rows = _read_parquet(file, PAIR_FIELDS) if is_parquet else _json_rows(file)
        for place, row in rows:
            sentences.append({field: _text_of(row, field, place) for field in PAIR_FIELDS})
    if not sentences:
        raise ValueError(f"{files[0]} holds no pairs: fetch it anew")
    return sentences


def _json_rows(file: Path) -> list[tuple[str, object]]:
    """Return what a JSONL file holds by line, each with its place for messages, and without blank lines."""
    rows = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            rows.append((place, json.loads(line)))
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise ValueError(
                f"{place}: not JSON ({reason}); a line is one pair, with {' and '.join(PAIR_FIELDS)}"
            ) from None
    return rows


def _text_of(row: object, field: str, place: str, may_be_blank: bool = False) -> str:
    """Return the text of a field of a row; raise ValueError, naming the place, where there is none."""
    text = row.get(field) if isinstance(row, dict) else None
    if may_be_blank and text in (None, ""):
        return " "
    if not isinstance(text, str) or not (may_be_blank or text.strip()):
        raise ValueError(f"{place}: no text {field!r}: fetch the file anew")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: {field!r} holds half a character ({error.reason}): fetch the file anew"
        ) from None
    return text


# WikiText-2


def wikitext(folder: Path | str | None, split: str = "test") -> list[str]:
    """Return the articles of a split of WikiText-2 as published.

    They come from a local folder, or (None) from the raw version on the hub. Raises ValueError for an
    unknown split, one that the folder lacks and files that cannot be read, OSError for a folder that is
    none and where the hub cannot be reached. Warns where a local version has <unk> for rare words.
    """
    check_choice("split", split, SPLITS)
    if folder is None:
        return _wikitext_from_hub(split)
    pages = articles(wikitext_split_files(folder, split))
    if any(" <unk> " in page for page in pages):
        raw_name = "valid" if split == "validation" else split
        warnings.warn(
            f"WikiText-2 in {folder} has <unk> for rare words; published perplexities are of the raw "
            f"version, wiki.{raw_name}.raw",
            stacklevel=2,
        )
    return pages


def _wikitext_from_hub(split: str) -> list[str]:
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "data from the hub needs datasets: pip install 'sinkprune[eval]', or give a local folder of "
            "WikiText-2 (--data)"
        ) from error
    try:
        return load_dataset(*HUB, split=split)["page"][:]
    except OSError as error:
        reason = " ".join(str(error).split())
        raise OSError(
            f"WikiText-2 cannot be had from the hub ({reason}): give a local folder of it (--data); "
            "HF_HUB_OFFLINE=1 takes what is cached"
        ) from error


def articles(files: Sequence[Path]) -> list[str]:
    """Return the articles of a split of WikiText-2 from its files; raise ValueError where there are none."""
    if files[0].suffix == ".parquet":
        pages = _articles_of_parquet(files)
    else:
        pages = _split_into_articles(read_text(files[0]))
    if not pages:
        raise ValueError(f"{files[0]} holds no text: fetch it anew")
    return pages


def _articles_of_parquet(files: Sequence[Path]) -> list[str]:
    """Return the articles of parquet files whose rows are articles (`page`) or lines (`text`)."""
    rows = [row for file in files for row in _read_parquet(file, ("page", "text"))]
    if rows and "page" in rows[0][1]:
        return [_text_of(row, "page", place) for place, row in rows]
    lines = [_text_of(row, "text", place, may_be_blank=True) for place, row in rows]
    return _split_into_articles("\n".join(line.removesuffix("\n") for line in lines) + "\n")


def _split_into_articles(text: str) -> list[str]:
    """Return the articles of a WikiText file, each from its title to before the next one.

    They are cut as the hub's document-level data set cuts them.
    """
    pages = []
    lines: list[str] = []
    for line in text.split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            pages.append("\n".join(lines))
            lines = []
        lines.append(line)
    pages.append("\n".join(lines))
    return [page for page in pages if page.strip()]


def detokenised(text: str) -> str:
    """Return pre-tokenised text of WikiText as it is written: no spaces before punctuation, no @-@.

    <unk> stays.
    """
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    text = re.sub(r" '(s|t|re|ve|ll|d|m)\b", r"'\1", text)
    text = re.sub(r"s ' ", "s' ", text)
    return text.replace(" n't", "n't")


def running_text(pages: Sequence[str]) -> str:
    """Return articles as the published perplexity protocols read them: lines that are not blank."""
    return "\n".join(line for page in pages for line in page.split("\n") if line.strip())


# files


def read_text(file: Path) -> str:
    """Return a text of UTF-8, without the mark of byte order that some editors put first.

    Raises ValueError for other bytes.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): fetch it anew"
        ) from None


def _read_parquet(file: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, object]]]:
    """Return the rows of a parquet file with those of `columns` that are there, each with its place.

    Raises ValueError, naming the file, where none of them is there and where it cannot be read.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("parquet files need pyarrow: pip install 'sinkprune[eval]'") from error
    with file.open("rb") as opened:
        try:
            table = ParquetFile(opened)
            names = table.schema_arrow.names
            present = [column for column in columns if column in names]
            rows = table.read(present).to_pylist() if present else []
        except (ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{file} is no whole parquet file ({reason}): fetch it anew") from None
    if not present:
        raise ValueError(f"{file} has no column {' or '.join(columns)}; it has {', '.join(names)}")
    return [(f"{file}, row {number}", row) for number, row in enumerate(rows, 1)]

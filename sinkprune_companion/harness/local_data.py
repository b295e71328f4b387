"""What is in the files of BLiMP and WikiText-2: minimal pairs and articles.

They lie in a local folder, WikiText-2 also on the hub. `data_files` finds the files, this module reads
them, and `local_tasks` gives them to lm-evaluation-harness.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # which pydantic asks for

from sinkprune_companion.harness.data_files import SPLITS, wikitext_files
from sinkprune_core.values import check_choice

WIKITEXT = "wikitext-2"  # the name by which `--text` asks for it
HUB = ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1")  # what the harness's task `wikitext` reads


Text = Annotated[str, StringConstraints(strict=True, pattern=r"\S")]


PAIR = TypeAdapter(TypedDict("Pair", {"sentence_good": Text, "sentence_bad": Text}))


# BLiMP


def pairs(files: Sequence[Path]) -> list[dict[str, str]]:
    """Return the minimal pairs of a BLiMP paradigm: `sentence_good`, `sentence_bad`.

    Raises ValueError, with file and row, for what is no pair.
    """
    sentences = []
    for file in files:
        if file.suffix == ".parquet":
            rows = read_parquet(file).to_dict("records")
            check = PAIR.validate_python
        else:
            rows = [line for line in read_text(file).split("\n") if line.strip()]
            check = PAIR.validate_json
        for number, row in enumerate(rows, 1):
            try:
                sentences.append(check(row))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                field = ".".join(map(str, first["loc"])) or "no pair"
                raise ValueError(f"{file}, row {number}: {field}: {first['msg']}") from None
    if not sentences:
        raise ValueError(f"{files[0]} holds no pairs: fetch it anew")
    return sentences


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
    pages = articles(wikitext_files(folder, split))
    if any(" <unk> " in page for page in pages):
        raw_name = "valid" if split == "validation" else split
        warnings.warn(
            f"WikiText-2 in {folder} has <unk> for rare words; published perplexities are of the raw "
            f"version, wiki.{raw_name}.raw",
            stacklevel=2,
        )
    return pages


def _wikitext_from_hub(split: str) -> list[str]:
    from datasets import load_dataset

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
    rows = []
    for file in files:
        frame = read_parquet(file)
        column = "page" if "page" in frame else "text"
        if column not in frame:
            raise ValueError(f"{file} has no column page or text; it has {', '.join(frame)}")
        texts = frame[column].fillna(" ").replace("", " ") if column == "text" else frame[column]
        for number, text in enumerate(texts, 1):
            if not isinstance(text, str) or (column == "page" and not text.strip()):
                raise ValueError(f"{file}, row {number}: no text {column!r}: fetch the file anew")
        rows += texts.tolist()
    if column == "page":
        return rows
    return _split_into_articles("\n".join(row.removesuffix("\n") for row in rows) + "\n")


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


def read_parquet(file: Path) -> pd.DataFrame:
    """Return the table in a parquet file; raise ValueError where it cannot be read."""
    from pyarrow import ArrowException

    try:
        return pd.read_parquet(file)
    except (ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is no whole parquet file ({reason}): fetch it anew") from None

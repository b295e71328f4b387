"""BLiMP and WikiText-2: files of a local folder as they are published, found by name at any depth, WikiText-2
from the Hugging Face hub too, and what ships with the package, with a README.md beside it.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # which pydantic asks for

from sinkprune.documents import Document
from sinkprune.files import DATA, check_ordinary, json_of, read_text
from sinkprune_core.values import check_choice

HUB = ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1")  # what the harness's task `wikitext` reads
WIKITEXT_FILE = DATA / "wikitext-2" / "valid.txt"
TEST_FILE = DATA / "wikitext-2" / "test_first_half.txt"  # other articles than WIKITEXT_FILE has
BLIMP_FILE = DATA / "blimp" / "blimp_67x60.jsonl"
SPLITS = ("train", "validation", "test")
# what a folder should hold, for messages
BLIMP_EXPECTED = "<paradigm>.jsonl (as its authors publish it) or <paradigm>/*.parquet (as the hub does)"
WIKITEXT_EXPECTED = (
    "wiki.{train,valid,test}.raw or .tokens, or {train,valid,test}.txt or "
    "{train,validation,test}*.parquet in a folder named wikitext-2…"
)

Text = Annotated[str, StringConstraints(strict=True, pattern=r"\S")]


class Pair(TypedDict):
    """A minimal pair of BLiMP."""

    sentence_good: Text
    sentence_bad: Text


PAIR = TypeAdapter(Pair)

_FILE = re.compile(r"(wiki\.)?(train|valid|validation|test)(?:-\d+-of-\d+)?\.(raw|tokens|txt|parquet)")
_WIKITEXT = re.compile(r"wikitext[-_]?(\d+)", re.IGNORECASE)
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)")  # the name of one file of several, without its ending


# finding


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted by path; raise OSError where it is no folder."""
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise NotADirectoryError(
            f"the data folder {folder} {state}: give the folder that holds BLiMP or WikiText-2"
        )

    return sorted(file for file in folder.rglob("*") if file.is_file())


def blimp_files(folder: Path, tasks: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files of each `blimp_<paradigm>` below a folder; raise ValueError for one there twice."""
    by_name: dict[str, list[Path]] = {}
    for file in files_below(folder):
        names = set()
        if file.suffix == ".jsonl":
            names = {file.stem}
        elif file.suffix == ".parquet":
            names = {file.stem, file.parent.name}
        for name in names:
            by_name.setdefault(f"blimp_{name}", []).append(file)

    present = [task for task in tasks if task in by_name]
    return {task: _of_one_source(by_name[task], f"the BLiMP task {task}") for task in present}


def wikitext_files(folder: Path | str, split: str) -> list[Path]:
    """Return the files of one split of WikiText-2 below a folder, raw ones rather than those with <unk>, and
    none of another WikiText; raise ValueError for a split that is missing or there twice.
    """
    folder = Path(folder).resolve()
    by_split: dict[str, list[Path]] = {}
    for file in files_below(folder):
        match = _FILE.fullmatch(file.name)
        if match is None:
            continue
        prefix, name, suffix = match.groups()
        sizes = _WIKITEXT.findall(str(Path(folder.name) / file.relative_to(folder).parent))
        # wiki.test.raw is never anything else, other names need the folder's
        if sizes[-1:] == ["2"] or (not sizes and prefix and suffix in ("raw", "tokens")):
            by_split.setdefault("validation" if name == "valid" else name, []).append(file)

    if split not in by_split:
        others = f"; it holds {' and '.join(by_split)}: choose one by --split" if by_split else ""
        raise ValueError(
            f"the data folder {folder} holds no {split} split of WikiText-2, "
            f"looked for as {WIKITEXT_EXPECTED}{others}"
        )

    raw = [file for file in by_split[split] if "raw" in str(file.relative_to(folder))]
    return _of_one_source(raw or by_split[split], f"the {split} split of WikiText-2")


def _of_one_source(files: list[Path], what: str) -> list[Path]:
    """Return the files; raise ValueError unless they are one, or parquet files of one folder, all of them."""
    first_of_source: dict[object, Path] = {}
    for file in files:
        is_table = file.suffix == ".parquet"
        source = (file.parent, _set_of(file)) if is_table else file
        first_of_source.setdefault(source, file)

    if len(first_of_source) > 1:
        one, other, *_ = first_of_source.values()
        raise ValueError(f"{what} is there twice, in {one} and {other}: move one of them away")

    set_of_shards = _set_of(files[0])
    if set_of_shards is not None:
        _check_shards(files, *set_of_shards, what)

    return files


def _set_of(file: Path) -> tuple[str, str] | None:
    """Return the name of the set that a file is a shard of, and how many the set has; None for no shard."""
    match = _SHARD.fullmatch(file.stem)
    return None if match is None else (match[1], match[3])


def _check_shards(files: list[Path], name: str, stated: str, what: str) -> None:
    """Raise ValueError unless the shards of one set are as many as their names say, each there once."""
    matches = [_SHARD.fullmatch(file.stem) for file in files]
    numbers = {int(match[2]) for match in matches if match}
    total = int(stated)
    if numbers == set(range(len(files))) and len(files) == total:
        return

    missing = next((number for number in range(total) if number not in numbers), None)
    where = files[0].parent
    if missing is None:
        raise ValueError(f"{what} has files in {where} beyond the {total} of its set: move them away")

    lost = f"{name}-{missing:0{len(stated)}d}-of-{stated}{files[0].suffix}"
    raise ValueError(f"{what} is not whole, {where} lacks {lost}: fetch all {total} files of the set")


# reading


def pairs(files: Sequence[Path]) -> list[Pair]:
    """Return the minimal pairs of a BLiMP paradigm; raise ValueError, with file and row, for what is none."""
    sentences = []
    for file in files:
        rows = read_parquet(file).to_dict("records") if file.suffix == ".parquet" else _lines(file)
        for number, row in enumerate(rows, 1):
            sentences.append(_pair(row, f"{file}, row {number}"))

    if not sentences:
        raise ValueError(f"{files[0]} holds no pairs: fetch it anew")

    return sentences


def _lines(file: Path) -> Iterator[Any]:
    """Yield the values in the lines of a file; raise ValueError, with file and row, for what is no JSON."""
    lines = [line for line in read_text(file).split("\n") if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            yield json_of(line)
        except ValueError as error:
            raise ValueError(f"{file}, row {number}: no JSON: {error}") from None


def _pair(row: object, where: str) -> Pair:
    """Return a row as a minimal pair; raise ValueError, saying where it is, for what is none."""
    try:
        return PAIR.validate_python(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "no pair"
        raise ValueError(f"{where}: {field}: {first['msg']}") from None


def wikitext(folder: Path | str | None, split: str = "test") -> list[str]:
    """Return the articles of a split of WikiText-2 as published, from a local folder or (None) from the hub.

    Warns where rare words are <unk>. Raises ValueError for an unknown split, one that the folder lacks and
    files that cannot be read, OSError for a folder that is none and where the hub cannot be reached.
    """
    check_choice("split", split, SPLITS)
    if folder is None:
        from datasets import load_dataset

        try:
            return load_dataset(*HUB, split=split)["page"][:]
        except OSError as error:
            reason = " ".join(str(error).split())
            raise OSError(
                f"WikiText-2 cannot be had from the hub ({reason}): give a local folder of it as data "
                "(--data); HF_HUB_OFFLINE=1 takes what is cached"
            ) from error

    pages = articles(wikitext_files(folder, split))
    if any(" <unk> " in page for page in pages):
        warnings.warn(
            f"WikiText-2 in {folder} has <unk> for rare words; published perplexities are of wiki.*.raw",
            stacklevel=2,
        )

    return pages


def articles(files: Sequence[Path]) -> list[str]:
    """Return the articles of a split of WikiText-2 from its files; raise ValueError where there are none."""
    is_table = files[0].suffix == ".parquet"
    pages = _articles_of_parquet(files) if is_table else _split_into_articles(read_text(files[0]))
    if not pages:
        raise ValueError(f"{files[0]} holds no text: fetch it anew")
    return pages


def _articles_of_parquet(files: Sequence[Path]) -> list[str]:
    """Return the articles of parquet files whose rows are articles (`page`) or lines (`text`)."""
    rows = []
    column = "text"
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
    """Return the articles of a WikiText file, cut before each title as the hub's are."""
    pages: list[list[str]] = [[]]
    for line in text.split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            pages.append([])
        pages[-1].append(line)

    return [page for page in map("\n".join, pages) if page.strip()]


def detokenised(text: str) -> str:
    """Return pre-tokenised text of WikiText as it is written: no spaces before punctuation; <unk> stays."""
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


def wikitext_documents(folder: Path | str | None, split: str) -> list[Document]:
    """Return the articles of a split of WikiText-2 as documents; raise what `wikitext` raises."""
    return [running_text([article]) for article in wikitext(folder, split)]


def read_parquet(file: Path) -> pd.DataFrame:
    """Return the table in a parquet file, values as they are stored.

    What pandas wrote into it besides, of an index and of categories, has no part. Pages that carry a checksum
    are compared with it. Raises ValueError where the file cannot be read, or has a column twice.
    """
    from pyarrow import parquet

    check_ordinary(file)
    try:
        table = parquet.ParquetFile(file, page_checksum_verification=True).read()
        frame = table.replace_schema_metadata().to_pandas(ignore_metadata=True)
    except Exception as error:  # damaged bytes end in whatever the reader comes upon
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} is no whole parquet file ({reason}): fetch it anew") from None

    if not frame.columns.is_unique:
        raise ValueError(f"{file} has a column twice, of {', '.join(map(str, frame))}: fetch it anew")

    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            frame[name] = column.astype(object)

    return frame


# what ships


def embedded_articles(file: Path = WIKITEXT_FILE) -> list[list[str]]:
    """Return the paragraphs of each article of a shipped file of WikiText-2, as they are written, without
    headings and with <unk> for rare words.
    """
    by_article = []
    for article in articles([file]):
        lines = [line.strip() for line in article.split("\n")]
        by_article.append([detokenised(line) for line in lines if line and not line.startswith("=")])
    return by_article


def embedded_wikitext(file: Path = WIKITEXT_FILE) -> list[str]:
    """Return the paragraphs of `embedded_articles` one after the other."""
    return [paragraph for article in embedded_articles(file) for paragraph in article]


def embedded_blimp() -> dict[str, list[dict[str, str]]]:
    """Return the first 60 pairs (`sentence_good`, `sentence_bad`) of each BLiMP paradigm, by paradigm."""
    paradigms: dict[str, list[dict[str, str]]] = {}
    for row in _lines(BLIMP_FILE):
        paradigms.setdefault(row["UID"], []).append(row)
    return paradigms

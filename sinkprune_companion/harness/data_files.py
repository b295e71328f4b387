"""Where BLiMP and WikiText-2 lie below a local folder, in the formats in which they are published.

Files are found by their names; `local_data` reads them. Split names are those of the Hugging Face hub.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sinkprune_core.files import resolved

SPLITS = ("train", "validation", "test")
EXPECTED = {  # what a folder should hold, for messages
    "blimp": "<paradigm>.jsonl (as its authors publish it) or <paradigm>/*.parquet (as the hub does)",
    "wikitext": (
        "wiki.{train,valid,test}.raw or .tokens, or {train,valid,test}.txt or "
        "{train,validation,test}*.parquet in a folder named wikitext-2…"
    ),
}

_FILE = re.compile(r"(wiki\.)?(train|valid|validation|test)(?:-\d+-of-\d+)?\.(raw|tokens|txt|parquet)")
_WIKITEXT = re.compile(r"wikitext[-_]?(\d+)", re.IGNORECASE)


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted by path; raise OSError where it is no folder."""
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise NotADirectoryError(
            f"the data folder {folder} {state}: give the folder that holds BLiMP or WikiText-2"
        )
    return sorted(file for file in folder.rglob("*") if file.is_file())


def blimp_files(folder: Path | str, paradigms: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files of each of BLiMP's `paradigms` that lies below a folder.

    Raises ValueError for a paradigm that is there twice.
    """
    by_name: dict[str, list[Path]] = {}
    for file in files_below(Path(folder)):
        if file.suffix in (".jsonl", ".parquet"):
            names = {file.stem, file.parent.name} if file.suffix == ".parquet" else {file.stem}
            for name in names:
                by_name.setdefault(name, []).append(file)
    return {
        paradigm: _the_only(_by_source(by_name[paradigm]), f"BLiMP paradigm {paradigm}")
        for paradigm in paradigms
        if paradigm in by_name
    }


def wikitext_files(folder: Path | str, split: str) -> list[Path]:
    """Return the files of one split of WikiText-2 below a folder.

    Where it is there as raw text and as text with <unk>, the raw text is taken. Files of another WikiText, by
    the names of their folders, are passed over. Raises ValueError for a split that is missing or there twice.
    """
    folder = resolved(folder)
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
            f"looked for as {EXPECTED['wikitext']}{others}"
        )
    sources = _by_source(by_split[split])
    raw = [source for source in sources if "raw" in str(source[0].relative_to(folder))]
    return _the_only(raw or sources, f"the {split} split of WikiText-2")


def _by_source(files: Sequence[Path]) -> list[list[Path]]:
    """Return the files by source: parquet files of one folder are one source, any other file is its own."""
    sources: dict[Path, list[Path]] = {}
    for file in files:
        source = file.parent if file.suffix == ".parquet" else file
        sources.setdefault(source, []).append(file)
    return list(sources.values())


def _the_only(sources: list[list[Path]], what: str) -> list[Path]:
    if len(sources) > 1:
        raise ValueError(
            f"{what} is there twice, in {sources[0][0]} and {sources[1][0]}: move one of them away"
        )
    return sources[0]

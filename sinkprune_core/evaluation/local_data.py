"""BLiMP and WikiText-2 from a local folder, in the formats in which they are published, or WikiText-2 from the hub.

The tasks are lm-evaluation-harness's own; only where their data lies is changed. Split names are the hub's.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

WIKITEXT = "wikitext-2"  # the name by which `--text` asks for it
PARADIGMS = 67  # of BLiMP
SPLITS = ("train", "validation", "test")
HUB = ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1")  # what the harness's task `wikitext` reads
EXPECTED = {
    "blimp": "<paradigm>.jsonl (as its authors publish it) or <paradigm>/*.parquet (as the hub does)",
    "wikitext": "wiki.{train,valid,test}.raw or .tokens, or {train,valid,test}.txt or {train,validation,test}*.parquet in a folder named wikitext-2…",
}

_TEXT = re.compile(r"(wiki\.)?(train|valid|validation|test)\.(raw|tokens|txt)")
_PARQUET = re.compile(r"(train|valid|validation|test)(-\d+-of-\d+)?\.parquet")
_WIKITEXT = re.compile(r"wikitext[-_]?(\d+)", re.IGNORECASE)


# where the files are


def _files(folder: Path) -> list[Path]:
    """Return the data files below a folder in order of path; raise OSError where it is none."""
    if not folder.is_dir():
        raise NotADirectoryError(
            f"the data folder {folder} {'is a file' if folder.exists() else 'does not exist'}: give the folder that holds BLiMP or WikiText-2"
        )
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix in (".jsonl", ".parquet", ".raw", ".tokens", ".txt") and file.is_file()
    )


def _sources(files: Sequence[Path]) -> list[list[Path]]:
    """Return the files by source: the shards of a folder of parquet files are one, any other file is its own."""
    sources: dict[Path, list[Path]] = {}
    for file in files:
        sources.setdefault(file.parent if file.suffix == ".parquet" else file, []).append(file)
    return list(sources.values())


def _only(sources: list[list[Path]], what: str) -> list[Path]:
    if len(sources) > 1:
        raise ValueError(
            f"{what} is there twice, in {sources[0][0]} and {sources[1][0]}: move one of them away"
        )
    return sources[0]


def blimp_files(folder: Path | str) -> dict[str, list[Path]]:
    """Return the files of each BLiMP paradigm below a folder, in the order of the harness's group; raise ValueError for one that is there twice."""
    files = [file for file in _files(Path(folder)) if file.suffix in (".jsonl", ".parquet")]
    named = {
        paradigm: [
            file
            for file in files
            if paradigm in (file.stem, file.parent.name if file.suffix == ".parquet" else None)
        ]
        for paradigm in _paradigms()
    }
    return {
        paradigm: _only(_sources(found), f"BLiMP paradigm {paradigm}")
        for paradigm, found in named.items()
        if found
    }


def wikitext_files(folder: Path | str) -> dict[str, list[Path]]:
    """Return the files of each split of WikiText-2 below a folder; the raw text where the one with <unk> is there too.

    Raises ValueError for a split that is there twice. What lies in a folder of another WikiText is passed over.
    """
    folder = Path(folder)
    found: dict[str, list[Path]] = {}
    for file in _files(folder):
        text, parquet = _TEXT.fullmatch(file.name), _PARQUET.fullmatch(file.name)
        sizes = [
            match[1]
            for part in (folder.resolve().name, *file.relative_to(folder).parts[:-1])
            if (match := _WIKITEXT.search(part))
        ]
        of_its_own = text is not None and text[1] and text[3] != "txt"  # a name that nothing else has
        if (text or parquet) and (sizes[-1] == "2" if sizes else of_its_own):
            name = text[2] if text else parquet[1]
            found.setdefault("validation" if name == "valid" else name, []).append(file)
    chosen = {}
    for split in SPLITS:
        if sources := _sources(found.get(split, [])):
            raw = [
                source
                for source in sources
                if source[0].suffix == ".raw" or "raw" in str(source[0].relative_to(folder).parent)
            ]
            chosen[split] = _only(raw or sources, f"the {split} split of WikiText-2")
    return chosen


# what is in them


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): fetch it anew"
        ) from None


def _parquet(files: Sequence[Path], *columns: str) -> list[dict[str, object]]:
    """Return the rows of parquet files with those of the columns that they have; raise ValueError where they have none."""
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("parquet files need pyarrow: pip install 'sinkprune[eval]'") from error
    rows = []
    for file in files:
        try:
            opened = ParquetFile(file)
        except ArrowInvalid as error:
            raise ValueError(f"{file} is no parquet file ({error}): fetch it anew") from None
        there = [column for column in columns if column in opened.schema_arrow.names]
        if not there:
            raise ValueError(
                f"{file} has no column {' or '.join(columns)}; it has {', '.join(opened.schema_arrow.names)}"
            )
        rows += opened.read(there).to_pylist()
    return rows


def pairs(files: Sequence[Path]) -> list[dict[str, str]]:
    """Return the minimal pairs of a BLiMP paradigm: `sentence_good`, `sentence_bad`.

    Raises ValueError, with file and line, for what is not JSON and for a pair that lacks a sentence.
    """
    fields = ("sentence_good", "sentence_bad")
    rows = []
    for file in files:
        if file.suffix == ".parquet":
            found = [(f"row {number}", row) for number, row in enumerate(_parquet([file], *fields), 1)]
        else:
            found = []
            for number, line in enumerate(_read(file).split("\n"), 1):
                try:
                    found += [(f"line {number}", json.loads(line))] if line.strip() else []
                except ValueError as error:
                    raise ValueError(
                        f"{file}, line {number}: not JSON ({error}); a line is one pair, with {' and '.join(fields)}"
                    ) from None
        for where, row in found:
            lacks = [
                field for field in fields if not isinstance(row, dict) or not isinstance(row.get(field), str)
            ]
            if lacks:
                raise ValueError(f"{file}, {where}: no text {lacks[0]!r}; a pair has {' and '.join(fields)}")
            rows.append({field: row[field] for field in fields})
    if not rows:
        raise ValueError(f"{files[0]} holds no pairs: fetch it anew")
    return rows


def pages(text: str) -> list[str]:
    """Return the articles of a WikiText file, each from its title to before the next one, as the hub's document-level data set cuts them."""
    found, lines = [], []
    for line in text.split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            found.append("\n".join(lines))
            lines = []
        lines.append(line)
    return [page for page in (*found, "\n".join(lines)) if page.strip()]


def articles(files: Sequence[Path]) -> list[str]:
    """Return the articles of a split of WikiText-2 from its files; raises ValueError where there are none."""
    if files[0].suffix == ".parquet":
        rows = _parquet(files, "page", "text")
        found = (
            [row["page"] for row in rows]
            if rows and "page" in rows[0]
            else pages("\n".join((row["text"] or " ").removesuffix("\n") for row in rows) + "\n")
        )
    else:
        found = pages(_read(files[0]))
    if not found:
        raise ValueError(f"{files[0]} holds no text: fetch it anew")
    return found


def wikitext(folder: Path | str | None, split: str = "test") -> list[str]:
    """Return the articles of a split of WikiText-2 as published, from a local folder or (None) the hub's raw version.

    Raises ValueError for an unknown split, one that the folder lacks and files that cannot be read, OSError for a folder
    that is none and where the hub cannot be reached. Warns where a local version has <unk> for rare words.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if folder is None:
        try:
            from datasets import load_dataset
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "data from the hub needs datasets: pip install 'sinkprune[eval]', or give a local folder of WikiText-2 (--data)"
            ) from error
        try:
            return load_dataset(*HUB, split=split)["page"][:]
        except OSError as error:
            raise OSError(
                f"WikiText-2 cannot be had from the hub ({' '.join(str(error).split())}): give a local folder of it (--data); HF_HUB_OFFLINE=1 takes what is cached"
            ) from error
    found = articles(_wikitext_files_of(folder, split))
    if any(" <unk> " in page for page in found):
        warnings.warn(
            f"WikiText-2 in {folder} has <unk> for rare words; published perplexities are of the raw version, wiki.{'valid' if split == 'validation' else split}.raw",
            stacklevel=2,
        )
    return found


def detokenised(text: str) -> str:
    """Return pre-tokenised text of WikiText as it is written: no spaces before punctuation, no @-@; <unk> stays."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    text = re.sub(r" '(s|t|re|ve|ll|d|m)\b", r"'\1", text)
    text = re.sub(r"s ' ", "s' ", text)
    return text.replace(" n't", "n't")


def wikitext_paragraphs(folder: Path | str, split: str) -> list[str]:
    """Return the paragraphs of a split of WikiText-2 as they are written, without headings; <unk> stands for rare words."""
    lines = [
        line.strip() for page in articles(_wikitext_files_of(folder, split)) for line in page.split("\n")
    ]
    return [detokenised(line) for line in lines if line and not line.startswith("=")]


def running_text(found: Sequence[str]) -> str:
    """Return articles as the published perplexity protocols read them: non-blank lines, joined by a newline."""
    return "\n".join(line for page in found for line in page.split("\n") if line.strip())


def _wikitext_files_of(folder: Path | str, split: str) -> list[Path]:
    there = wikitext_files(folder)
    if split not in there:
        other = f"; it holds {' and '.join(there)}: choose one by --split" if there else ""
        raise ValueError(
            f"the data folder {folder} holds no {split} split of WikiText-2, looked for as {EXPECTED['wikitext']}{other}"
        )
    return there[split]


# the harness's tasks


@cache
def _harness(name: str) -> dict[str, tuple[Path, dict]]:
    """Return the tasks of a folder of the harness by name: YAML file and configuration."""
    from sinkprune_core.evaluation import harness

    import lm_eval.tasks  # isort: skip

    manager = lm_eval.tasks.TaskManager(
        include_path=Path(lm_eval.tasks.__file__).parent / name, include_defaults=False
    )
    return {
        task: (entry.yaml_path, entry.cfg)
        for task, entry in manager.task_index.items()
        if entry.yaml_path is not None
    }


def _paradigms() -> dict[str, str]:
    """Return the harness's task of each BLiMP paradigm, in the order of its group."""
    known = _harness("blimp")
    return {known[task][1]["dataset_name"]: task for task in known["blimp"][1]["task"]}


def dataset(kind: str, files: list[str], split: str, **_: object) -> dict:
    """Return a task's data as lm-evaluation-harness wants it: `custom_dataset` of the files that `local_tasks` writes."""
    from datasets import Dataset

    paths = [Path(file) for file in files]
    return {
        split: Dataset.from_list(
            pairs(paths) if kind == "blimp" else [{"page": page} for page in articles(paths)]
        )
    }


@contextmanager
def local_tasks(
    folder: Path | str, asked: Sequence[str], split: str = "test"
) -> Iterator[tuple[list[str], Path]]:
    """Give names and a folder, for `benchmarks.evaluate(lm, names, include=...)`, of the harness's own tasks on local data.

    `asked`: `blimp`, `blimp_<paradigm>`, `wikitext`. All data is read once, so that what is broken is told before any
    work. A BLiMP with less than all paradigms is the group `blimp_<n>_of_67`, their mean, and WikiText-2 on another
    split than test is `wikitext_<split>`: neither is the published number.
    Raises ValueError for other tasks, for data that the folder lacks, and for files that cannot be read (with the line).
    """
    folder = Path(folder)
    _files(folder)  # a folder that is none is told first
    blimp, task_of = _harness("blimp"), _paradigms()
    known = ["blimp", "wikitext", *task_of.values()]
    if others := [name for name in asked if name not in known]:
        raise ValueError(
            f"task {others[0]!r} cannot take local data, only blimp, blimp_<paradigm> and wikitext can: run it without --data"
        )
    here = (
        {task_of[paradigm]: files for paradigm, files in blimp_files(folder).items()}
        if any(name != "wikitext" for name in asked)
        else {}
    )
    if missing := [
        name
        for name in asked
        if (name.startswith("blimp_") and name not in here) or (name == "blimp" and not here)
    ]:
        raise ValueError(
            f"the data folder {folder} holds no {'paradigm of BLiMP' if missing[0] == 'blimp' else missing[0]}, looked for as {EXPECTED['blimp']}"
        )

    with TemporaryDirectory(prefix="sinkprune-tasks-") as place, _quiet():

        def write(
            name: str, base: Path, fields: dict, data: tuple[str, list[Path], str] | None = None
        ) -> None:
            if data is not None:
                kind, files, where = data
                fields = {
                    **fields,
                    "dataset_kwargs": {
                        "kind": kind,
                        "files": [str(file.resolve()) for file in files],
                        "split": where,
                    },
                }
            text = yaml.safe_dump({"include": str(base), **fields}, allow_unicode=True)
            (Path(place) / f"{name}.yaml").write_text(
                text
                + "custom_dataset: !function sinkprune_core.evaluation.local_data.dataset\n"
                * (data is not None),
                encoding="utf-8",
            )

        names = []
        for name in dict.fromkeys(asked):
            if name == "wikitext":
                [(base, _)] = _harness("wikitext").values()
                files, name = (
                    _wikitext_files_of(folder, split),
                    name if split == "test" else f"wikitext_{split}",
                )
                wikitext(folder, split)
                write(
                    name,
                    base,
                    {"task": name, "training_split": None, "validation_split": None, "test_split": split},
                    ("wikitext", files, split),
                )
            elif name == "blimp" and len(here) < len(task_of):
                name = f"blimp_{len(here)}_of_{len(task_of)}"
                warnings.warn(
                    f"{folder} holds {len(here)} of the {len(task_of)} paradigms of BLiMP: the result is their mean, under the name {name}",
                    stacklevel=3,
                )
                write(name, blimp["blimp"][0], {"group": name, "task": list(here)})
            elif name == "blimp":
                write(name, blimp["blimp"][0], {"group": name})
            names.append(name)
        for task in here if "blimp" in asked else [name for name in here if name in asked]:
            pairs(here[task])
            write(
                task,
                blimp[task][0],
                {"task": task},
                ("blimp", here[task], blimp[task][1]["validation_split"]),
            )
        yield names, Path(place)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the harness's remark, one per task, that a task with a data set of its own may take further arguments."""
    logger = logging.getLogger("lm_eval.api.task")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)

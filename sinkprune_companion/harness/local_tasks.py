"""The tasks `blimp` and `wikitext` of lm-evaluation-harness on data from a local folder.

The tasks are the harness's own; only where their data lies is changed.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from sinkprune_companion.harness.data_files import (
    EXPECTED,
    blimp_files,
    blimp_paradigms,
    data_files,
    wikitext_split_files,
)
from sinkprune_companion.harness.local_data import articles, pairs, wikitext


def dataset(kind: str, files: list[str], split: str, **_: object) -> dict:
    """Return the data of a task, `blimp` or `wikitext`, from its files, as lm-evaluation-harness wants it.

    The task files that `local_tasks` writes name this function as their `custom_dataset`.
    """
    from datasets import Dataset

    paths = [Path(file) for file in files]
    if kind == "blimp":
        return {split: Dataset.from_list(pairs(paths))}
    return {split: Dataset.from_list([{"page": page} for page in articles(paths)])}


@contextmanager
def local_tasks(
    folder: Path | str, asked: Sequence[str], split: str = "test"
) -> Iterator[tuple[list[str], Path]]:
    """Give the names and the folder of the harness's own tasks on local data.

    They are for `benchmarks.evaluate(lm, names, include=folder)`. `asked`: `blimp`, `blimp_<paradigm>`,
    `wikitext`. All data is read once, so that what is broken is told before any work. A BLiMP with less
    than all paradigms is the group `blimp_<n>_of_67`, their mean, and WikiText-2 on another split than test
    is `wikitext_<split>`: neither is the published number.
    Raises ValueError for other tasks, for data that the folder lacks, and for files that cannot be read
    (with the line).
    """
    folder = Path(folder)
    data_files(folder)  # a folder that is none is told before everything else
    harness_tasks("blimp")  # and so is a harness that is not installed
    _check_names(asked)
    found: dict[str, list[Path]] = {}
    if any(name != "wikitext" for name in asked):
        found = {f"blimp_{paradigm}": files for paradigm, files in blimp_files(folder).items()}
    _check_found(folder, asked, found)

    with TemporaryDirectory(prefix="sinkprune-tasks-") as place:
        include = Path(place)
        names = []
        for name in dict.fromkeys(asked):
            if name == "wikitext":
                names.append(_write_wikitext(include, folder, split))
            elif name == "blimp":
                names.append(_write_blimp_group(include, folder, found))
            else:
                names.append(name)
        for task, files in found.items():
            if "blimp" in asked or task in asked:
                _write_blimp_task(include, task, files)
        yield names, include


def _check_names(asked: Sequence[str]) -> None:
    known = {"blimp", "wikitext", *(f"blimp_{paradigm}" for paradigm in blimp_paradigms())}
    for name in asked:
        if name not in known:
            raise ValueError(
                f"task {name!r} cannot take local data, only blimp, blimp_<paradigm> and wikitext can: "
                "run it without --data"
            )


def _check_found(folder: Path, asked: Sequence[str], found: Mapping[str, list[Path]]) -> None:
    for name in asked:
        if name == "wikitext" or name in found or (name == "blimp" and found):
            continue
        what = "paradigm of BLiMP" if name == "blimp" else name
        raise ValueError(f"the data folder {folder} holds no {what}, looked for as {EXPECTED['blimp']}")


# the harness


@dataclass(frozen=True)
class HarnessTask:
    """A task or group of lm-evaluation-harness."""

    file: Path
    """Its YAML file."""
    configuration: dict[str, object]
    """What is in it."""


@cache
def harness_tasks(folder: str) -> dict[str, HarnessTask]:
    """Return the tasks and groups in a folder of lm-evaluation-harness by name.

    Raises ModuleNotFoundError where the harness is not installed.
    """
    from sinkprune_companion.harness import harness_model  # noqa: F401 (says what to install)

    import lm_eval.tasks  # isort: skip

    tasks = Path(lm_eval.tasks.__file__).parent / folder
    manager = lm_eval.tasks.TaskManager(include_path=tasks, include_defaults=False)
    return {
        name: HarnessTask(entry.yaml_path, entry.cfg)
        for name, entry in manager.task_index.items()
        if entry.yaml_path is not None
    }


# task files


@dataclass(frozen=True)
class TaskData:
    """The arguments of `dataset`, which a task file passes on."""

    kind: str
    """`blimp` or `wikitext`."""
    files: list[Path]
    """The files of the data."""
    split: str
    """The split of the task that they are."""


def _write_task(
    include: Path, name: str, base: Path, changes: dict[str, object], data: TaskData | None = None
) -> None:
    """Write a task or group that includes the harness's own file `base` and changes some of its entries."""
    entries = {"include": str(base), **changes}
    ending = ""
    if data is not None:
        entries["dataset_kwargs"] = {
            "kind": data.kind,
            "files": [str(file.resolve()) for file in data.files],
            "split": data.split,
        }
        ending = "custom_dataset: !function sinkprune_companion.harness.local_tasks.dataset\n"
    text = yaml.safe_dump(entries, allow_unicode=True) + ending
    (include / f"{name}.yaml").write_text(text, encoding="utf-8")


def _write_wikitext(include: Path, folder: Path, split: str) -> str:
    """Write the task of WikiText-2 and return its name; its text is read, so that a bad file is told now."""
    [base] = harness_tasks("wikitext").values()
    files = wikitext_split_files(folder, split)
    wikitext(folder, split)
    name = "wikitext" if split == "test" else f"wikitext_{split}"
    changes = {"task": name, "training_split": None, "validation_split": None, "test_split": split}
    _write_task(include, name, base.file, changes, TaskData("wikitext", files, split))
    return name


def _write_blimp_group(include: Path, folder: Path, found: Mapping[str, list[Path]]) -> str:
    """Write the group of the paradigms that were found and return its name."""
    base = harness_tasks("blimp")["blimp"].file
    every = len(blimp_paradigms())
    if len(found) == every:
        _write_task(include, "blimp", base, {"group": "blimp"})
        return "blimp"
    name = f"blimp_{len(found)}_of_{every}"
    warnings.warn(
        f"{folder} holds {len(found)} of the {every} paradigms of BLiMP: the result is their mean, "
        f"under the name {name}",
        stacklevel=4,
    )
    _write_task(include, name, base, {"group": name, "task": list(found)})
    return name


def _write_blimp_task(include: Path, task: str, files: list[Path]) -> None:
    """Write the task of a paradigm; its pairs are read, so that a broken file is told now."""
    pairs(files)
    base = harness_tasks("blimp")[task]
    data = TaskData("blimp", files, base.configuration["validation_split"])
    _write_task(include, task, base.file, {"task": task}, data)

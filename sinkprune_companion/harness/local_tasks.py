"""The tasks `blimp` and `wikitext` of lm-evaluation-harness on data from a local folder.

The tasks are the harness's own; only where their data lies is changed.
"""

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
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

BLIMP_SPLIT = "train"  # that the harness's tasks of BLiMP read


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
    paradigms: dict[str, list[Path]] = {}
    if any(name != "wikitext" for name in asked):
        paradigms = {f"blimp_{paradigm}": files for paradigm, files in blimp_files(folder).items()}
    _check_paradigms(folder, asked, paradigms)

    with TemporaryDirectory(prefix="sinkprune-tasks-") as place:
        include = Path(place)
        names = []
        for name in dict.fromkeys(asked):
            if name == "wikitext":
                names.append(_write_wikitext(include, folder, split))
            elif name == "blimp":
                names.append(_write_blimp_group(include, folder, list(paradigms)))
            else:
                names.append(name)
        for task, files in paradigms.items():
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


def _check_paradigms(folder: Path, asked: Sequence[str], paradigms: Collection[str]) -> None:
    for name in asked:
        if name == "wikitext" or name in paradigms or (name == "blimp" and paradigms):
            continue
        what = "paradigm of BLiMP" if name == "blimp" else name
        raise ValueError(f"the data folder {folder} holds no {what}, looked for as {EXPECTED['blimp']}")


# the harness


@cache
def harness_tasks(folder: str) -> dict[str, Path]:
    """Return the YAML files of the tasks and groups in a folder of lm-evaluation-harness, by name.

    Raises ModuleNotFoundError where the harness is not installed.
    """
    from sinkprune_companion.harness import harness_model  # noqa: F401 (says what to install)

    import lm_eval.tasks  # isort: skip

    tasks = Path(lm_eval.tasks.__file__).parent / folder
    manager = lm_eval.tasks.TaskManager(include_path=tasks, include_defaults=False)
    return {
        name: entry.yaml_path for name, entry in manager.task_index.items() if entry.yaml_path is not None
    }


# task files


def _write_task(include: Path, name: str, base: Path, changes: dict[str, object]) -> None:
    """Write a task or group that includes the harness's own file `base` and changes some of its entries."""
    text = yaml.safe_dump({"include": str(base), **changes}, allow_unicode=True)
    if "dataset_kwargs" in changes:
        text += "custom_dataset: !function sinkprune_companion.harness.local_tasks.dataset\n"
    (include / f"{name}.yaml").write_text(text, encoding="utf-8")


def _data(kind: str, files: list[Path], split: str) -> dict[str, object]:
    """Return the arguments of `dataset`, which a task file passes on."""
    return {"kind": kind, "files": [str(file.resolve()) for file in files], "split": split}


def _write_wikitext(include: Path, folder: Path, split: str) -> str:
    """Write the task of WikiText-2 and return its name; its text is read, so that a bad file is told now."""
    [base] = harness_tasks("wikitext").values()
    files = wikitext_split_files(folder, split)
    wikitext(folder, split)
    name = "wikitext" if split == "test" else f"wikitext_{split}"
    changes = {"task": name, "training_split": None, "validation_split": None, "test_split": split}
    _write_task(include, name, base, {**changes, "dataset_kwargs": _data("wikitext", files, split)})
    return name


def _write_blimp_group(include: Path, folder: Path, paradigms: list[str]) -> str:
    """Write the group of the paradigms that are there and return its name."""
    base = harness_tasks("blimp")["blimp"]
    every = len(blimp_paradigms())
    if len(paradigms) == every:
        _write_task(include, "blimp", base, {"group": "blimp"})
        return "blimp"
    name = f"blimp_{len(paradigms)}_of_{every}"
    warnings.warn(
        f"{folder} holds {len(paradigms)} of the {every} paradigms of BLiMP: the result is their mean, "
        f"under the name {name}",
        stacklevel=4,
    )
    _write_task(include, name, base, {"group": name, "task": paradigms})
    return name


def _write_blimp_task(include: Path, task: str, files: list[Path]) -> None:
    """Write the task of a paradigm; its pairs are read, so that a broken file is told now."""
    pairs(files)
    changes = {"task": task, "dataset_kwargs": _data("blimp", files, BLIMP_SPLIT)}
    _write_task(include, task, harness_tasks("blimp")[task], changes)

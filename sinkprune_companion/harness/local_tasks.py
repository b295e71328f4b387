"""The tasks `blimp` and `wikitext` of lm-evaluation-harness on data from a local folder.

The tasks are the harness's own; only where their data lies is changed.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from sinkprune_companion.harness.data_files import (
    EXPECTED,
    blimp_files,
    blimp_paradigms,
    files_below,
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
    files_below(folder)  # a folder that is none is told before everything else
    harness_tasks("blimp")  # and so is a harness that is not installed
    paradigms = _asked_paradigms(folder, asked)
    with TemporaryDirectory(prefix="sinkprune-tasks-") as place:
        include = Path(place)
        for task, files in paradigms.items():
            pairs(files)  # a broken file is told now
            base = harness_tasks("blimp")[task]
            _write_task(include, base, {"task": task}, ("blimp", files, BLIMP_SPLIT))
        names = []
        for name in dict.fromkeys(asked):
            if name == "wikitext":
                names.append(_write_wikitext(include, folder, split))
            elif name == "blimp":
                names.append(_write_blimp_group(include, folder, list(paradigms)))
            else:
                names.append(name)
        yield names, include


def _asked_paradigms(folder: Path, asked: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of BLiMP's tasks that are asked for, by task; raise ValueError for one without."""
    known = {"blimp", "wikitext", *(f"blimp_{paradigm}" for paradigm in blimp_paradigms())}
    for name in asked:
        if name not in known:
            raise ValueError(
                f"task {name!r} cannot take local data, only blimp, blimp_<paradigm> and wikitext can: "
                "run it without --data"
            )
    if set(asked) <= {"wikitext"}:
        return {}
    paradigms = {f"blimp_{paradigm}": files for paradigm, files in blimp_files(folder).items()}
    for name in asked:
        if name not in paradigms and name != "wikitext" and not (name == "blimp" and paradigms):
            what = "paradigm of BLiMP" if name == "blimp" else name
            raise ValueError(f"the data folder {folder} holds no {what}, looked for as {EXPECTED['blimp']}")
    if "blimp" in asked:
        return paradigms
    return {task: files for task, files in paradigms.items() if task in asked}


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


def _write_task(
    include: Path, base: Path, changes: dict[str, object], data: tuple[str, list[Path], str] | None = None
) -> None:
    """Write a task or group that includes the harness's own file `base` and changes some of its entries.

    `data` are the arguments of `dataset`.
    """
    entries = {"include": str(base), **changes}
    if data is not None:
        kind, files, split = data
        arguments = {"kind": kind, "files": [str(file.resolve()) for file in files], "split": split}
        entries["dataset_kwargs"] = arguments
    text = yaml.safe_dump(entries, allow_unicode=True)
    if data is not None:
        text += "custom_dataset: !function sinkprune_companion.harness.local_tasks.dataset\n"
    name = changes.get("group") or changes["task"]
    (include / f"{name}.yaml").write_text(text, encoding="utf-8")


def _write_wikitext(include: Path, folder: Path, split: str) -> str:
    """Write the task of WikiText-2 and return its name; its text is read, so that a bad file is told now."""
    [base] = harness_tasks("wikitext").values()
    files = wikitext_split_files(folder, split)
    wikitext(folder, split)
    name = "wikitext" if split == "test" else f"wikitext_{split}"
    changes = {"task": name, "training_split": None, "validation_split": None, "test_split": split}
    _write_task(include, base, changes, ("wikitext", files, split))
    return name


def _write_blimp_group(include: Path, folder: Path, paradigms: list[str]) -> str:
    """Write the group of the paradigms that are there and return its name."""
    base = harness_tasks("blimp")["blimp"]
    every = len(blimp_paradigms())
    if len(paradigms) == every:
        _write_task(include, base, {"group": "blimp"})
        return "blimp"
    name = f"blimp_{len(paradigms)}_of_{every}"
    warnings.warn(
        f"{folder} holds {len(paradigms)} of the {every} paradigms of BLiMP: the result is their mean, "
        f"under the name {name}",
        stacklevel=4,
    )
    _write_task(include, base, {"group": name, "task": paradigms})
    return name

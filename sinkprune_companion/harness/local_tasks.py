"""The tasks `blimp` and `wikitext` of lm-evaluation-harness on data from a local folder.

The tasks are the harness's own; only where their data lies is changed.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from sinkprune_companion.harness.data_files import EXPECTED, blimp_files, files_below
from sinkprune_companion.harness.local_data import pairs, wikitext

BLIMP_SPLIT = "train"  # that the harness's tasks of BLiMP read


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
    (with the row).
    """
    folder = Path(folder)
    files_below(folder)  # a folder that is none is told before everything else
    harness_tasks("blimp")  # and so is a harness that is not installed
    paradigms = _asked_paradigms(folder, asked)
    with TemporaryDirectory(prefix="sinkprune-tasks-") as place:
        include = Path(place)
        for task, files in paradigms.items():
            _write_task(include, harness_tasks("blimp")[task], {"task": task}, BLIMP_SPLIT, pairs(files))
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
    known = harness_tasks("blimp")
    for name in asked:
        if name not in ("wikitext", *known):
            raise ValueError(
                f"task {name!r} cannot take local data, only blimp, blimp_<paradigm> and wikitext can: "
                "run it without --data"
            )
    wanted = {*asked} - {"wikitext"}
    if not wanted:
        return {}
    paradigms = [task.removeprefix("blimp_") for task in known if task != "blimp"]
    present = {f"blimp_{paradigm}": files for paradigm, files in blimp_files(folder, paradigms).items()}
    missing = wanted - {*present, *(["blimp"] if present else [])}
    if missing:
        raise ValueError(
            f"the data folder {folder} holds no {' and no '.join(sorted(missing))}, "
            f"looked for as {EXPECTED['blimp']}"
        )
    return {task: files for task, files in present.items() if "blimp" in wanted or task in wanted}


@cache
def harness_tasks(folder: str) -> dict[str, Path]:
    """Return the YAML files of the tasks and groups in a folder of lm-evaluation-harness, by name.

    Raises ModuleNotFoundError where the harness is not installed.
    """
    import lm_eval.tasks

    tasks = Path(lm_eval.tasks.__file__).parent / folder
    manager = lm_eval.tasks.TaskManager(include_path=tasks, include_defaults=False)
    return {
        name: entry.yaml_path for name, entry in manager.task_index.items() if entry.yaml_path is not None
    }


def _write_task(
    include: Path, base: Path, changes: dict[str, object], split: str, rows: list[dict[str, str]]
) -> None:
    """Write a task that includes the harness's own file `base` and takes other data, and that data."""
    data = include / f"{changes['task']}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(data)}},
    }
    task = {"include": str(base), **source, **changes}
    data.with_suffix(".yaml").write_text(yaml.safe_dump(task), encoding="utf-8")


def _write_wikitext(include: Path, folder: Path, split: str) -> str:
    """Write the task of WikiText-2 and return its name."""
    [base] = harness_tasks("wikitext").values()
    name = "wikitext" if split == "test" else f"wikitext_{split}"
    changes = {"task": name, "training_split": None, "validation_split": None, "test_split": split}
    _write_task(include, base, changes, split, [{"page": page} for page in wikitext(folder, split)])
    return name


def _write_blimp_group(include: Path, folder: Path, paradigms: list[str]) -> str:
    """Write the group of the paradigms that are there and return its name."""
    group = {"include": str(harness_tasks("blimp")["blimp"]), "group": "blimp", "task": paradigms}
    every = len(harness_tasks("blimp")) - 1  # the group itself is among them
    if len(paradigms) < every:
        group["group"] = f"blimp_{len(paradigms)}_of_{every}"
        warnings.warn(
            f"{folder} holds {len(paradigms)} of the {every} paradigms of BLiMP: the result is their mean, "
            f"under the name {group['group']}",
            stacklevel=4,
        )
    (include / f"{group['group']}.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    return group["group"]

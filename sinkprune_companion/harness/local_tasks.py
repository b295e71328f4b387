"""The tasks `blimp` and `wikitext` of lm-evaluation-harness on data from a local folder.

The tasks are the harness's own; only where their data lies is changed.
"""

import json
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from sinkprune_companion.harness.local_data import EXPECTED, blimp_files, files_below, pairs, wikitext

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
    known = harness_tasks("blimp")  # and so is a harness that is not installed
    paradigms = _asked_paradigms(folder, asked, known)
    names = {name: name for name in asked}
    with TemporaryDirectory(prefix="sinkprune-tasks-") as place:
        include = Path(place)
        for task, files in paradigms.items():
            _write_task(include, known[task], {"task": task}, BLIMP_SPLIT, pairs(files))
        if "wikitext" in names:
            names["wikitext"] = name = "wikitext" if split == "test" else f"wikitext_{split}"
            [base] = harness_tasks("wikitext").values()
            changes = {"task": name, "training_split": None, "validation_split": None, "test_split": split}
            _write_task(include, base, changes, split, [{"page": page} for page in wikitext(folder, split)])
        if "blimp" in names:
            every = len(known) - 1  # the group itself is among them
            if len(paradigms) < every:
                names["blimp"] = f"blimp_{len(paradigms)}_of_{every}"
                warnings.warn(
                    f"{folder} holds {len(paradigms)} of the {every} paradigms of BLiMP: the result is their "
                    f"mean, under the name {names['blimp']}",
                    stacklevel=3,
                )
            group = {"include": str(known["blimp"]), "group": names["blimp"], "task": list(paradigms)}
            (include / f"{group['group']}.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
        yield list(names.values()), include


def _asked_paradigms(folder: Path, asked: Sequence[str], known: Collection[str]) -> dict[str, list[Path]]:
    """Return the files of BLiMP's tasks that are asked for, by task; raise ValueError for one without."""
    for name in asked:
        if name not in ("wikitext", *known):
            raise ValueError(
                f"task {name!r} cannot take local data, only blimp, blimp_<paradigm> and wikitext can: "
                "run it without --data"
            )
    wanted = {*asked} - {"wikitext"}
    if not wanted:
        return {}
    present = blimp_files(folder, [task for task in known if task != "blimp"])
    missing = wanted - present.keys() - ({"blimp"} if present else set())
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
    index = lm_eval.tasks.TaskManager(include_path=tasks, include_defaults=False).task_index
    return {name: entry.yaml_path for name, entry in index.items() if entry.yaml_path is not None}


def _write_task(
    include: Path, base: Path, changes: dict[str, object], split: str, rows: list[dict[str, str]]
) -> None:
    """Write a task that includes the harness's own file `base` and takes other data, and that data."""
    data = include / f"{changes['task']}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {
        "include": str(base),
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(data)}},
    }
    data.with_suffix(".yaml").write_text(yaml.safe_dump(source | changes), encoding="utf-8")

"""Tasks of lm-evaluation-harness with their published settings, or on local data, and the table of results.
The settings can be read where the harness is not installed.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest import mock

import pandas as pd
import yaml

from sinkprune.evaluation import suite
from sinkprune.evaluation.local_data import BLIMP_EXPECTED, blimp_files, files_below, pairs, wikitext
from sinkprune.evaluation.two_choice import BATCH, DRAWS, accuracy
from sinkprune.files import DATA
from sinkprune.spelling import suggestion
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.values import check_choice

if TYPE_CHECKING:
    from lm_eval.result_schema import EvalResults

# settings


@dataclass(frozen=True)
class Benchmark:
    """A task of lm-evaluation-harness with its settings."""

    task: str  # its name in the harness
    shots: int | None = None  # solved examples before every question; None: the task's own number
    settings: dict[str, object] = field(default_factory=dict)  # arguments of `HarnessModel`


TABLE = yaml.safe_load((DATA / "benchmarks.yml").read_text(encoding="utf-8"))
PAPER: dict[str, tuple[Benchmark, ...]] = {
    family: tuple(Benchmark(task, **settings) for task, settings in benchmarks.items())
    for family, benchmarks in TABLE["families"].items()
}  # the eight benchmarks by model family
PAPER["autoregressive"] = tuple(replace(benchmark, settings={}) for benchmark in PAPER["llada"])


def named(family: str) -> dict[str, Benchmark]:
    """Return the published settings of a family by task; ARC-Easy, which the paper's structured table has,
    has those of ARC-Challenge. Raises ValueError for an unknown family.
    """
    check_choice("family", family, PAPER)
    known = {benchmark.task: benchmark for benchmark in PAPER[family]}
    known["arc_easy"] = replace(known["arc_challenge"], task="arc_easy")
    return known


def choose(lm: LanguageModel, tasks: Sequence[str], family: str | None = None) -> list[Benchmark]:
    """Return the tasks with their settings; `paper` is the eight of the paper, set up for a family.

    Where a family is asked for, other tasks have its published settings too. Raises what `named` raises.
    """
    known = named(family) if family else {}
    paper = PAPER[family or ("llada" if lm.is_diffusion else "autoregressive")]

    chosen: list[Benchmark] = []
    for task in tasks:
        chosen += paper if task == "paper" else [known.get(task, Benchmark(task))]
    return chosen


# running them


def evaluate_named(
    lm: LanguageModel,
    tasks: Sequence[str],
    limit: int | None = None,
    family: str | None = None,
    draws: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    include: Path | str | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Run tasks by name: this project's suite by its own code, all others by the harness; one table.

    `suite` stands for all groups of the suite, `paper` for the paper's eight benchmarks; `include` is a
    folder of further tasks, `limit` documents per task. `draws` are maskings of a target under a diffusion
    model, `batch` sequences at once (None: as suits the suite, or a task's protocol). Columns: those
    of `suite.shares`, and of other tasks `task`, `metric`, `filter`, `value`, `stderr` (over documents),
    `documents`, `shots`, `draws`, `guidance`. Raises, before any work, ValueError for draws of an
    autoregressive model, an unknown task or family, OSError for data that cannot be had, and
    ModuleNotFoundError where the harness is not installed.
    """
    if draws is not None and not lm.is_diffusion:
        raise ValueError(f"draws={draws} cannot be used: {lm.name} is autoregressive, its value is exact")

    groups = dict.fromkeys(group for task in tasks for group in suite.groups_of(task))
    chosen = choose(lm, [task for task in tasks if not suite.groups_of(task)], family)

    tables = []
    if chosen:
        settings = {"seed": seed, "mc_num": draws, "batch_size": batch}
        given = {name: value for name, value in settings.items() if value is not None}
        tables.append(_evaluate(lm, chosen, limit, include, given))

    if groups:
        items = suite.items(list(groups), limit)
        answers = accuracy(lm, items, draws or DRAWS, seed, batch or BATCH, progress)
        tables.append(suite.shares(answers, (draws or DRAWS) if lm.is_diffusion else None))

    return pd.concat(tables, ignore_index=True)


def _evaluate(
    lm: LanguageModel, chosen: list[Benchmark], limit: int | None, include: Path | str | None, given: dict
) -> pd.DataFrame:
    """Return a row per task and metric; what is `given` to the model overrides a benchmark's settings."""
    from lm_eval.evaluator import simple_evaluate

    from sinkprune.evaluation.harness.harness_model import HarnessModel

    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1: a number of documents per task")

    models = [HarnessModel(lm, **(benchmark.settings | given)) for benchmark in chosen]
    rows = []
    with _quiet_harness():
        manager = manager_of([benchmark.task for benchmark in chosen], include)
        loaded = [_load(manager, benchmark.task) for benchmark in chosen]
        for benchmark, model, tasks in zip(chosen, models, loaded, strict=True):
            settings = {"num_fewshot": benchmark.shots, "limit": limit, "task_manager": manager}
            results = simple_evaluate(model, tasks=tasks, log_samples=False, bootstrap_iters=1000, **settings)
            how = {name: getattr(model.how, name, math.nan) for name in ("draws", "guidance")}
            assert results is not None  # which it is on other processes than the first
            rows += [row | how for row in _rows(results)]

    return pd.DataFrame(rows)


@contextmanager
def _quiet_harness() -> Iterator[None]:
    """Keep the harness from logging anything but errors, and from asking git about the working directory."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)

    try:
        with mock.patch("lm_eval.evaluator.get_git_commit_hash", return_value=None):
            yield
    finally:
        logger.setLevel(level)


@cache
def installed():
    """Return the TaskManager of the harness's own tasks; to make it takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def manager_of(tasks: Sequence[str], include: Path | str | None = None):
    """Return a TaskManager that knows all tasks; raise ValueError for a name that is unknown."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=include, include_defaults=False)
    if set(tasks) - set(manager.all_tasks):
        manager = installed() if include is None else TaskManager(include_path=include)

    for name in tasks:
        if name not in manager.all_tasks:
            raise ValueError(
                f"unknown task {name!r}{suggestion(name, manager.all_tasks) or ';'} tasks are named by "
                "lm-evaluation-harness (`python -m sinkprune.evaluation.harness.main ls tasks`), or lie in "
                "the folder that `include` (of the command: --include-path) names, or are 'suite' or 'paper'"
            )

    return manager


def _load(manager, task: str) -> list:
    """Return the task itself, the group with its members, or the tasks of a tag, their data loaded."""
    try:
        loaded = manager.load([task])
    except OSError as error:
        raise OSError(
            f"the data of task {task!r} cannot be loaded ({error}); the harness's tasks need the Hugging "
            "Face hub once, gated ones (GPQA) a login too; HF_HUB_OFFLINE=1 takes what is cached; of BLiMP "
            "and WikiText-2 a local folder will do: --data FOLDER"
        ) from error

    return [loaded["groups"][task]] if task in loaded["groups"] else [*loaded["tasks"].values()]


def _rows(results: EvalResults) -> Iterator[dict[str, object]]:
    """Yield a row per task and metric; members of a group that has a value of its own are left out."""
    subtasks = results.get("group_subtasks", {})
    members = {name for group in results.get("groups", {}) for name in subtasks[group]}
    shots = results.get("n-shot", {})

    for task, values in results.get("results", {}).items():
        for key, value in values.items():
            metric, _, name = key.partition(",")
            if task in members or not name or metric.endswith("_stderr"):
                continue
            error = values.get(f"{metric}_stderr,{name}")
            yield {
                "task": task,
                "metric": metric,
                "filter": name,
                "value": value,
                "stderr": error if isinstance(error, float) else math.nan,
                "documents": values["sample_len"],
                "shots": shots.get(task, 0),
            }


# tasks on data from a local folder


@contextmanager
def local_tasks(
    folder: Path | str, asked: Sequence[str], split: str = "test"
) -> Iterator[tuple[list[str], Path]]:
    """Give the names of the tasks on local data, and the folder of their files, for `evaluate_named`.

    `asked`: `blimp`, `blimp_<paradigm>`, `wikitext`. All data is read first. A BLiMP with less than all
    paradigms is the group `blimp_<n>_of_67`, their mean, and WikiText-2 on another split than test is
    `wikitext_<split>`: neither is the published number. Raises ValueError for other tasks, for data that the
    folder lacks, and for files that cannot be read, and ModuleNotFoundError where there is no harness.
    """
    folder = Path(folder)
    files_below(folder)  # a folder that is none is told before everything else
    known = _harness_tasks("blimp")  # and so is a harness that is not installed
    paradigms = _asked_paradigms(folder, asked, known)

    names = {name: name for name in asked}
    with TemporaryDirectory(prefix="sinkprune-tasks-") as place:
        include = Path(place)
        for task, files in paradigms.items():
            _write_task(include, known[task], task, pairs(files))

        if "wikitext" in names:
            names["wikitext"] = name = "wikitext" if split == "test" else f"wikitext_{split}"
            [base] = _harness_tasks("wikitext").values()
            _write_task(include, base, name, [{"page": page} for page in wikitext(folder, split)])

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
            (include / f"{names['blimp']}.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")

        yield list(names.values()), include


def _asked_paradigms(folder: Path, asked: Sequence[str], known: dict[str, Path]) -> dict[str, list[Path]]:
    """Return the files of BLiMP's tasks that are asked for, by task; raise ValueError for one without."""
    for name in asked:
        if name not in ("wikitext", *known):
            raise ValueError(
                f"task {name!r} cannot take local data, only blimp, blimp_<paradigm> and wikitext can: "
                "run it without --data"
            )

    wanted = {*asked} - {"wikitext"}
    present = blimp_files(folder, known) if wanted else {}
    missing = wanted - present.keys() - ({"blimp"} if present else set())
    if missing:
        lacks = " and no ".join(sorted(missing))
        raise ValueError(f"the data folder {folder} holds no {lacks}, looked for as {BLIMP_EXPECTED}")

    return {task: files for task, files in present.items() if "blimp" in wanted or task in wanted}


@cache
def _harness_tasks(folder: str) -> dict[str, Path]:
    """Return the YAML files of the tasks and groups in a folder of lm-evaluation-harness, by name."""
    import lm_eval.tasks

    tasks = Path(lm_eval.tasks.__file__).parent / folder
    index = lm_eval.tasks.TaskManager(include_path=tasks, include_defaults=False).task_index
    return {name: entry.yaml_path for name, entry in index.items() if entry.yaml_path is not None}


def _write_task(include: Path, base: Path, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a task that includes the harness's own file `base` and takes other data, and that data."""
    data = include / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    source = {
        "include": str(base),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
    }

    data.with_suffix(".yaml").write_text(yaml.safe_dump(source), encoding="utf-8")

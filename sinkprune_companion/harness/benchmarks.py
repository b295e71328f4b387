"""Tasks of lm-evaluation-harness with their published settings, and the table of results that comes of them.

The harness is imported where it is used: the settings can be read without it.
"""

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pandas as pd
import yaml

from sinkprune_companion import DATA
from sinkprune_companion.harness import suite
from sinkprune_core.evaluation.two_choice import BATCH, DRAWS, accuracy
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.spelling import suggestion
from sinkprune_core.values import check_choice

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from sinkprune_companion.harness.harness_model import HarnessModel


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
}
"""The paper's eight benchmarks by model family."""
PAPER["autoregressive"] = tuple(replace(benchmark, settings={}) for benchmark in PAPER["llada"])


def named(family: str) -> dict[str, Benchmark]:
    """Return the published settings of a family by task.

    They are the paper's eight, and ARC-Easy, which the paper's structured table has, with the settings of
    ARC-Challenge.
    """
    known = {benchmark.task: benchmark for benchmark in PAPER[family]}
    known["arc_easy"] = replace(known["arc_challenge"], task="arc_easy")
    return known


def choose(lm: LanguageModel, tasks: Sequence[str], family: str | None = None) -> list[Benchmark]:
    """Return the tasks with their settings.

    `paper` stands for the eight of the paper, set up for a family of `PAPER`. Where a family is asked for, a
    task that it has published settings for takes them by name too. Raises ValueError for an unknown family.
    """
    known = {}
    if family:
        check_choice("family", family, PAPER)
        known = named(family)
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
    """Run tasks by name: this project's suite by its own code, all others by `evaluate`; one table.

    `suite` stands for all groups of the suite, `paper` for the paper's eight benchmarks. Columns are those of
    `evaluate` and of `suite.shares`. `draws` are maskings of a target under a diffusion model (None: those of
    `two_choice` for the suite, of the protocol for other tasks), `batch` sequences at once (None: a good
    number for each).
    Raises ValueError for draws of an autoregressive model, and what `evaluate` raises.
    """
    if draws is not None and not lm.is_diffusion:
        raise ValueError(
            f"draws={draws} cannot be used: {lm.name} is autoregressive, its likelihood is exact"
        )
    groups = dict.fromkeys(group for task in tasks for group in suite.groups_of(task))
    others = [task for task in tasks if not suite.groups_of(task)]
    tables = []
    if others:
        settings = {"seed": seed, "mc_num": draws, "batch_size": batch}
        given = {name: value for name, value in settings.items() if value is not None}
        tables.append(evaluate(lm, others, limit, family, include, **given))
    if groups:
        items = suite.items(list(groups), limit)
        answers = accuracy(lm, items, draws or DRAWS, seed, batch or BATCH, progress)
        tables.append(suite.shares(answers, (draws or DRAWS) if lm.is_diffusion else None))
    return pd.concat(tables, ignore_index=True)


def evaluate(
    lm: LanguageModel,
    tasks: Sequence[str],
    limit: int | None = None,
    family: str | None = None,
    include: Path | str | None = None,
    **settings: object,
) -> pd.DataFrame:
    """Run tasks of lm-evaluation-harness; one row per task and metric.

    `tasks` are names, or `paper`; `include` is a folder of further tasks; `limit` is documents per task;
    `settings` are arguments of `HarnessModel` and override those of a benchmark. Columns: `task`,
    `metric`, `filter`, `value`, `stderr` (over documents), `documents`, `shots`, `draws`, `guidance`. The
    data of every task is loaded before any work. Raises ValueError for an unknown task, family or setting,
    OSError for data that cannot be had, and ModuleNotFoundError where the harness is not installed.
    """
    from lm_eval import simple_evaluate

    from sinkprune_companion.harness.harness_model import HarnessModel

    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1: a number of documents per task")
    chosen = choose(lm, tasks, family)
    models = [HarnessModel(lm, **{**benchmark.settings, **settings}) for benchmark in chosen]
    rows = []
    with quiet_harness():
        manager = manager_of([benchmark.task for benchmark in chosen], include)
        loaded = [_load(manager, benchmark.task) for benchmark in chosen]
        for benchmark, model, tasks_and_groups in zip(chosen, models, loaded, strict=True):
            results = simple_evaluate(
                model,
                tasks=tasks_and_groups,
                num_fewshot=benchmark.shots,
                limit=limit,
                task_manager=manager,
                bootstrap_iters=1000,
                log_samples=False,
            )
            rows += _rows(results, model)
    return pd.DataFrame(rows)


# the harness's tasks


@contextmanager
def quiet_harness() -> Iterator[None]:
    """Keep the harness from logging anything but errors, and from asking git about the working directory.

    Its record of the commit, which nothing here reads, is None; git would complain outside of a repository.
    """
    from lm_eval import evaluator

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with mock.patch.object(evaluator, "get_git_commit_hash", return_value=None):
            yield
    finally:
        logger.setLevel(level)


@functools.cache
def installed() -> "TaskManager":
    """Return the index of the harness's own tasks; to make it takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def manager_of(tasks: Sequence[str], include: Path | str | None = None) -> "TaskManager":
    """Return a manager that knows all tasks; raise ValueError for a name that is unknown."""
    from lm_eval.tasks import TaskManager

    folder = None if include is None else str(include)
    manager = TaskManager(include_path=folder, include_defaults=False)
    if set(tasks) - set(manager.all_tasks):
        manager = installed() if include is None else TaskManager(include_path=folder)
    for name in tasks:
        if name not in manager.all_tasks:
            raise ValueError(
                f"unknown task {name!r}{suggestion(name, manager.all_tasks) or ';'} tasks are named by "
                "lm-evaluation-harness (`python -m sinkprune_companion.harness.harness ls tasks`), or lie in "
                "the folder `include`, or are 'suite' or 'paper'"
            )
    return manager


def _load(manager: "TaskManager", task: str) -> list:
    """Return the task or group itself, its data loaded; members of a group come with it.

    Raises OSError where there is no data.
    """
    try:
        loaded = manager.load([task])
    except OSError as error:
        raise OSError(
            f"the data of task {task!r} cannot be loaded ({error}); the harness's tasks need the Hugging "
            "Face hub once, gated ones (GPQA) a login too; HF_HUB_OFFLINE=1 takes what is cached; of BLiMP "
            "and WikiText-2 a local folder will do: --data FOLDER"
        ) from error
    members = {name for names in loaded["group_map"].values() for name in names}
    tasks_and_groups = {**loaded["groups"], **loaded["tasks"]}
    return [item for name, item in tasks_and_groups.items() if name not in members]


# results


def _rows(results: dict, model: "HarnessModel") -> list[dict[str, object]]:
    """Return a row per task and metric; members of a group that has a value of its own are left out."""
    members = {name for group in results.get("groups", {}) for name in results["group_subtasks"][group]}
    rows = []
    for task, values in results["results"].items():
        if task in members:
            continue
        for key, value in values.items():
            metric, _, name = key.partition(",")
            if not name or metric.endswith("_stderr"):
                continue
            error = values.get(f"{metric}_stderr,{name}")
            row = {
                "task": task,
                "metric": metric,
                "filter": name,
                "value": value,
                "stderr": error if isinstance(error, float) else math.nan,
                "documents": values["sample_len"],
                "shots": results["n-shot"].get(task, 0),
                "draws": getattr(model.how, "draws", math.nan),
                "guidance": getattr(model.how, "guidance", math.nan),
            }
            rows.append(row)
    return rows

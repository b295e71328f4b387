"""Tasks of lm-evaluation-harness with their published settings, and the table of results that comes of them.

The harness is imported where it is used: the settings can be read without it.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache as cached
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sinkprune_core.evaluation.suite import GROUPS, TASKS
from sinkprune_core.models.language_model import LanguageModel

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from sinkprune_core.evaluation.harness import HarnessModel


@dataclass(frozen=True)
class Benchmark:
    """A task of lm-evaluation-harness with its settings: `shots` (None: the task's own) and arguments of the harness model."""

    task: str
    shots: int | None = None
    settings: dict[str, object] = field(default_factory=dict)


LLADA = (
    Benchmark("mmlu", 5, {"protocol": "llada", "mc_num": 1}),
    Benchmark("arc_challenge", 0, {"protocol": "llada", "guidance": 0.5}),
    Benchmark("piqa", 0, {"protocol": "llada", "guidance": 0.5}),
    Benchmark("winogrande", 5, {"protocol": "llada"}),
    Benchmark("gsm8k", 5, {"sampler": "llada", "gen_length": 1024}),
    Benchmark("hellaswag", 0, {"protocol": "llada", "guidance": 0.5}),
    Benchmark("gpqa_main_n_shot", 5, {"protocol": "llada", "guidance": 0.5}),
    Benchmark("race", 0, {"protocol": "llada", "guidance": 0.5}),
)
DREAM = {"add_bos_token": True, "max_length": 2048, "truncation": True}  # for every task
DREAM_SCORED = {**DREAM, "protocol": "dream"}

# The eight benchmarks of the sink-aware pruning paper (arXiv 2602.17664) by model family: `llada` from eval_llada.sh of
# ML-GSAI/LLaDA (which lacks RACE: taken as the other questions without shots), `dream` from eval/ of DreamLM/Dream,
# `autoregressive` with LLaDA's shots. One-token answers, as MMLU's, are exact under every protocol.
PAPER: dict[str, tuple[Benchmark, ...]] = {
    "llada": LLADA,
    "dream": (
        Benchmark("mmlu", 5, DREAM_SCORED),
        Benchmark("arc_challenge", 0, DREAM_SCORED),
        Benchmark("piqa", 0, DREAM_SCORED),
        Benchmark("winogrande", 5, DREAM_SCORED),
        Benchmark("gsm8k_cot", 8, {**DREAM, "sampler": "dream", "gen_length": 256}),
        Benchmark("hellaswag", 0, DREAM_SCORED),
        Benchmark("gpqa_main_n_shot", 5, DREAM_SCORED),
        Benchmark("race", 0, DREAM_SCORED),
    ),
    "autoregressive": tuple(replace(benchmark, settings={}) for benchmark in LLADA),
}


def named(family: str) -> dict[str, Benchmark]:
    """Return the published settings of a family by task: the paper's eight, and ARC-Easy, which its structured table has, as ARC-Challenge."""
    known = {benchmark.task: benchmark for benchmark in PAPER[family]}
    return known | {"arc_easy": replace(known["arc_challenge"], task="arc_easy")}


def choose(
    lm: LanguageModel,
    tasks: str | Sequence[str | dict | Benchmark],
    family: str | None = None,
    shots: int | None = None,
) -> list[Benchmark]:
    """Return the tasks with their settings; `"paper"` stands for the eight of the paper, set up for a family of `PAPER`.

    Where a family is asked for, a task that it has published settings for takes them by name too. Raises ValueError for
    an unknown family.
    """
    asked, family = family, family or ("llada" if lm.is_diffusion else "autoregressive")
    if family not in PAPER:
        raise ValueError(f"family={family!r} is unknown; choose one of {', '.join(PAPER)}")
    if tasks == "paper":
        chosen = list(PAPER[family])
    else:
        known = named(family) if asked else {}
        chosen = [
            task
            if isinstance(task, Benchmark)
            else (isinstance(task, str) and known.get(task)) or Benchmark(task)
            for task in ([tasks] if isinstance(tasks, str) else tasks)
        ]
    given = (
        [] if isinstance(tasks, str) else [task for task in tasks if isinstance(task, Benchmark)]
    )  # their shots are their own
    return [
        benchmark if shots is None or benchmark in given else replace(benchmark, shots=shots)
        for benchmark in chosen
    ]


def evaluate(
    lm: LanguageModel,
    tasks: str | Sequence[str | dict | Benchmark],
    limit: int | float | None = None,
    shots: int | None = None,
    family: str | None = None,
    include: Path | str | None = None,
    chat: bool = False,
    cache: Path | str | None = None,
    per_document: bool = False,
    **settings: object,
) -> pd.DataFrame:
    """Run tasks of lm-evaluation-harness; one row per task and metric, or also per document, for comparisons in pairs.

    `tasks`: `"paper"`, or names, YAML files, configurations or `Benchmark`s; `include` is a folder of further tasks;
    `limit` is documents per task; `settings` are arguments of `HarnessModel` and override those of a benchmark.
    `cache` is a folder where answers are kept by model, settings and request, for an interrupted run to go on.
    Columns: `task`, `metric`, `filter`, `value`, `stderr` (over documents), `documents`, `shots`, `draws`, `guidance`; or
    `task`, `metric`, `filter`, `document`, `value` for members of groups and the metrics that are one number.
    The data of every task is loaded before any work. Raises ValueError for an unknown task, family or setting, OSError
    for data that cannot be had, and ModuleNotFoundError where the harness is not installed.
    """
    from sinkprune_core.evaluation.harness import (
        HarnessModel,  # says what to install where the harness is missing
    )

    from lm_eval import simple_evaluate  # isort: skip

    if limit is not None and limit <= 0:
        raise ValueError(f"limit={limit} must be above 0: a number of documents per task, or a share below 1")
    chosen = choose(lm, tasks, family, shots)
    models = [HarnessModel(lm, **{**benchmark.settings, **settings}) for benchmark in chosen]
    manager = _manager([benchmark.task for benchmark in chosen], include)
    loaded = [_top(manager, benchmark.task) for benchmark in chosen]
    identity = lm.fingerprint() if cache is not None else None
    rows = []
    for benchmark, model, top in zip(chosen, models, loaded, strict=True):
        kept = (
            None
            if cache is None
            else str(
                Path(cache)
                / hashlib.sha256(
                    json.dumps([identity, model.get_model_info()], sort_keys=True).encode()
                ).hexdigest()[:16]
            )
        )
        results = simple_evaluate(
            model,
            tasks=top,
            num_fewshot=benchmark.shots,
            limit=limit,
            task_manager=manager,
            use_cache=kept,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            bootstrap_iters=1000,
            log_samples=per_document,
        )
        rows += _document_rows(results) if per_document else _rows(results, model)
    return pd.DataFrame(rows)


def evaluate_named(
    lm: LanguageModel, tasks: Sequence[str], limit: int | float | None = None, family: str | None = None
) -> pd.DataFrame:
    """Return `evaluate` of tasks by name, where `suite` stands for all groups of this project's own and `paper`, alone, for the paper's eight."""
    names = [
        name
        for task in tasks
        for name in ([f"sinkprune_suite_{group}" for group in GROUPS] if task == "suite" else [task])
    ]
    return evaluate(lm, "paper" if names == ["paper"] else names, limit=limit, family=family, include=TASKS)


@cached
def installed() -> "TaskManager":
    """Return the index of the harness's own tasks; to make it takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _manager(tasks: list[str | dict], include: Path | str | None) -> "TaskManager":
    """Return a manager that knows all tasks; raise ValueError for a name that is unknown."""
    from lm_eval.tasks import TaskManager

    named = [task for task in tasks if isinstance(task, str) and not Path(task).is_file()]
    manager = TaskManager(include_path=None if include is None else str(include), include_defaults=False)
    if set(named) - set(manager.all_tasks):
        manager = installed() if include is None else TaskManager(include_path=str(include))
    for name in named:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, 3)
            raise ValueError(
                f"unknown task {name!r}; {'did you mean ' + ', '.join(near) + '? ' if near else ''}Tasks are named by lm-evaluation-harness (`python -m sinkprune_core.evaluation.harness ls tasks`), or lie in the folder `include`, or are 'paper'"
            )
    return manager


def _top(manager: "TaskManager", task: str | dict) -> list:
    """Return the task or group itself, its data loaded; members of a group come with it. Raises OSError where there is no data."""
    try:
        loaded = manager.load([task])
    except OSError as error:
        raise OSError(
            f"the data of task {task!r} cannot be loaded ({error}); the harness's tasks need the Hugging Face hub once, gated ones (GPQA) a login too; HF_HUB_OFFLINE=1 takes what is cached"
        ) from error
    members = {name for names in loaded["group_map"].values() for name in names}
    return [item for name, item in {**loaded["groups"], **loaded["tasks"]}.items() if name not in members]


def _rows(results: dict, model: "HarnessModel") -> list[dict[str, object]]:
    members = {
        name for group in results.get("groups", {}) for name in results["group_subtasks"][group]
    }  # of groups that have a value of their own
    how = (
        {"draws": math.nan, "guidance": math.nan}
        if model.how is None
        else {"draws": model.how.draws, "guidance": model.how.guidance}
    )
    rows = []
    for task, found in results["results"].items():
        for key, value in found.items() if task not in members else ():
            metric, _, name = key.partition(",")
            if name and not metric.endswith("_stderr"):
                error = found.get(f"{metric}_stderr,{name}")
                row = {
                    "task": task,
                    "metric": metric,
                    "filter": name,
                    "value": value,
                    "stderr": error if isinstance(error, float) else math.nan,
                    "documents": found["sample_len"],
                }
                rows.append({**row, "shots": results["n-shot"].get(task, 0), **how})
    return rows


def _document_rows(results: dict) -> list[dict[str, object]]:
    samples = [(task, sample) for task, found in results["samples"].items() for sample in found]
    return [
        {
            "task": task,
            "metric": metric,
            "filter": sample["filter"],
            "document": sample["doc_id"],
            "value": float(sample[metric]),
        }
        for task, sample in samples
        for metric in sample["metrics"]
        if isinstance(sample[metric], (bool, int, float))
    ]

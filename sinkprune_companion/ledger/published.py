"""The numbers the paper printed, the commands that would measure them here, and what those commands cost.

Costs are lower bounds, from published shapes and the assumed SPEED: no machine always computes at its best.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace

import pandas as pd

from sinkprune.evaluation.harness.benchmarks import PAPER, TABLE, named
from sinkprune.models.catalog import MODELS
from sinkprune.models.meta_model import meta_model
from sinkprune_companion.experiments.compute import SPEED, forward_cost
from sinkprune_companion.ledger.margins import published_numbers

SEQUENCES = 128  # of the official calibration
LENGTH = 4096  # tokens of each
LIKELIHOOD_DRAWS = 128  # of a likelihood where a benchmark does not say
# `documents` of each benchmark, `choices` per document and `tokens` per choice; see data/benchmarks.yml
REQUESTS = {task: SimpleNamespace(**sizes) for task, sizes in TABLE["requests"].items()}


@dataclass(frozen=True)
class Result:
    """A row of a published table: what was done to which model, and what came out."""

    model: str  # hub id
    preset: str | None  # ours for the method; None for the dense model
    sparsity: float  # share of zeros, 0 for the dense model
    tasks: tuple[str, ...] = ("paper",)  # what `sinkprune evaluate` is asked for
    method: str = "sink-aware Wanda"  # as the paper calls it
    table: str = "unprinted"  # id of the table
    title: str = ""
    unit: str = ""
    source: str = ""
    note: str = ""
    values: dict[str, float] = field(default_factory=dict)  # by task; empty where none were at hand
    sequences: int = SEQUENCES  # of calibration text; the official number but in comparisons of our own

    @property
    def folder(self) -> str:
        """The name of the pruned model's folder in the commands."""
        model = self.model.split("/")[-1].lower().removesuffix("-8b-base")
        asked = "" if self.sequences == SEQUENCES else f"-{self.sequences}x"
        return f"{model}-{self.preset or 'dense'}-{round(100 * self.sparsity)}{asked}"

    @property
    def family(self) -> str:
        """The family whose protocol evaluates the model, `dream` or `llada`."""
        return "dream" if MODELS[self.model].family == "dream" else "llada"

    @property
    def length(self) -> int:
        """Tokens per calibration sequence: the official length, or all positions of a model with fewer."""
        return min(LENGTH, MODELS[self.model].context)

    def commands(self) -> list[str]:
        """Return the shell commands that measure this row, pruning first."""
        asked = f"--tasks {' '.join(self.tasks)} --family {self.family} --json {self.folder}.json"
        if not self.preset:
            return [f"sinkprune evaluate {self.model} {asked}"]

        recipe = f"--preset {self.preset} --sparsity {self.sparsity:g}"
        text = f"--text wikitext-2 --sequences {self.sequences} --length {self.length} --batch 1"
        prune = f"sinkprune prune {self.model} {recipe} {text} --out {self.folder}"
        return [prune, f"sinkprune evaluate {self.folder} {asked}"]

    def evaluation_flops(self) -> float:
        """Return the FLOPs of all forwards of the evaluation, from the sizes of its benchmarks."""
        of_paper = [benchmark.task for benchmark in PAPER[self.family]]
        tasks = of_paper if self.tasks == ("paper",) else self.tasks
        return sum(_benchmark_flops(self.model, self.family, task) for task in tasks)

    def evaluation_hours(self) -> float:
        """Return the hours of the evaluation at the assumed speed, a lower bound."""
        return self.evaluation_flops() / SPEED / 3600


@cache
def _benchmark_flops(model: str, family: str, task: str) -> float:
    """Return the FLOPs of all forwards of one benchmark."""
    settings = named(family)[task].settings
    requests = REQUESTS[task]

    written = settings.get("gen_length") or 0
    if written:
        forwards, logits = written, written // 2
    else:
        forwards, logits = requests.choices * settings.get("mc_num", LIKELIHOOD_DRAWS), requests.tokens // 4

    if settings.get("guidance"):  # with and without the prompt
        forwards *= 2

    one = forward_cost(meta_model(MODELS[model]), requests.tokens + written, logits)
    return requests.documents * forwards * one.total


def results() -> list[Result]:
    """Return every published row, in the order of the paper's tables."""
    rows = []
    for table in published_numbers()["tables"]:
        source = published_numbers()["sources"][table["source"]]
        for row in table["rows"]:
            result = Result(
                model=table["model"],
                preset=row["preset"],
                sparsity=table["sparsity"] if row["preset"] else 0.0,
                tasks=tuple(table["evaluate"]),
                method=row["method"],
                table=table["id"],
                title=table["title"],
                unit=table["unit"],
                source=source,
                note=table["note"],
                values=dict(zip(table["tasks"], row["values"], strict=True)),
            )
            rows.append(result)

    return rows


def published_averages() -> dict[str, float]:
    """Return the paper's average accuracy on LLaDA-8B at 50 %, in percent, by its name of the method."""
    return {row.method: row.values["average"] for row in results() if row.table == "llada-50"}


def unprinted() -> list[Result]:
    """Return the settings that the paper reports on and whose numbers were not at hand, without values."""
    rows = published_numbers()["unprinted"]
    return [Result(row["model"], row["preset"], share) for row in rows for share in row["sparsities"]]


def beside(
    model: str, measured: Mapping[tuple[str | None, float], pd.DataFrame] | None = None
) -> pd.DataFrame:
    """Return the published numbers of a model, one row per method, sparsity and task, with ours beside them.

    `measured` has what `benchmarks.evaluate_named` returned, by preset (None: dense) and sparsity.
    """
    ours = {}
    for variant, tasks in (measured or {}).items():
        is_ours = tasks.metric.isin(["acc", "exact_match"]) & ~tasks["filter"].str.startswith("strict")
        ours |= {(*variant, row.task): row.value for row in tasks[is_ours].itertuples()}

    rows = []
    for result in (result for result in results() if result.model == model):
        scale = 100 if "percent" in result.unit else 1
        for task, value in result.values.items():
            place = (result.preset, result.sparsity, task)
            here = f"{scale * ours[place]:.4g}" if place in ours else "not run here"
            rows.append([result.method, result.sparsity, task, value, here, result.unit])

    return pd.DataFrame(rows, columns=["method", "sparsity", "task", "published", "here", "unit"])

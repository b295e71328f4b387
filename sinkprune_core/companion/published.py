"""The numbers the paper printed, the commands that would measure them here, and what those commands cost.

Nothing in this module was measured: values are from `data/published.yml`, costs from published shapes and one assumed
speed (`SPEED`). They are lower bounds, since no machine computes at its matrix speed all the time.

Dimensions: N calibration sequences, T tokens per sequence.
"""

from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch
import yaml

from sinkprune_core.diffusion.compute import forward_cost
from sinkprune_core.evaluation.benchmarks import PAPER, named
from sinkprune_core.files import PACKAGE
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.cost import PruningCost, meta_model, pruning_cost
from sinkprune_core.pruning.engine import WAITING_SHARE
from sinkprune_core.pruning.recipe import preset

FILE = PACKAGE / "data" / "published.yml"
SEQUENCES, LENGTH = 128, 4096  # of the official calibration
HARDWARE, MEMORY, SPEED = (
    "one GPU of 80 GB (H100)",
    80e9,
    4e14,
)  # bytes, and FLOPs per second in bfloat16, assumed
TEXT = "wikitext2-train.txt"
NOT_RUN = "not run here"

# Documents, requests per document (choices) and tokens per request with its examples: the first two are the sizes of the
# test splits, the third is our guess, good to a factor of two.
ITEMS: dict[str, tuple[int, int, int]] = {
    "mmlu": (14042, 4, 700),
    "arc_challenge": (1172, 4, 40),
    "arc_easy": (2376, 4, 40),
    "piqa": (1838, 2, 40),
    "winogrande": (1267, 2, 180),
    "gsm8k": (1319, 1, 900),
    "gsm8k_cot": (1319, 1, 1000),
    "hellaswag": (10042, 4, 110),
    "gpqa_main_n_shot": (448, 4, 1200),
    "race": (1045, 4, 450),
}


@dataclass(frozen=True)
class Result:
    """A row of a published table: what was done to which model, and `values` by task in the table's own unit.

    `preset` is None for the dense model; `values` is empty where the paper reports a setting whose numbers were not at hand.
    """

    table: str
    title: str
    model: str
    method: str
    preset: str | None
    sparsity: float
    unit: str
    source: str
    note: str
    tasks: tuple[str, ...]
    values: dict[str, float]

    @property
    def folder(self) -> str:
        """The name of the pruned model's folder in the commands."""
        return f"{self.model.split('/')[-1].lower()}-{self.preset or 'dense'}-{round(100 * self.sparsity)}"

    @property
    def family(self) -> str:
        return "dream" if MODELS[self.model].family == "dream" else "llada"

    @property
    def length(self) -> int:
        """Tokens per calibration sequence: the official length, or all positions of a model that has fewer."""
        return min(LENGTH, MODELS[self.model].context)

    def commands(self) -> list[str]:
        """Return the shell commands that measure this row, pruning first."""
        prune = f"sinkprune prune {self.model} --preset {self.preset} --sparsity {self.sparsity:g} --text {TEXT} --sequences {SEQUENCES} --length {self.length} --batch 1 --dtype bfloat16 --device cuda --out {self.folder}"
        evaluate = f"sinkprune evaluate {self.folder if self.preset else self.model} --tasks {' '.join(self.tasks)} --family {self.family} --dtype bfloat16 --device cuda --json {self.folder}.json"
        return ([prune] if self.preset else []) + [evaluate]

    def pruning(self) -> PruningCost | None:
        """Return what pruning takes at the assumed speed; None for the dense model."""
        return _pruning(self.model, self.preset, self.length) if self.preset else None

    def evaluation_flops(self) -> float:
        """Return the FLOPs of all forwards of the evaluation, from the sizes of its benchmarks."""
        tasks = (
            [benchmark.task for benchmark in PAPER[self.family]] if self.tasks == ("paper",) else self.tasks
        )
        return sum(_benchmark_flops(self.model, self.family, task) for task in tasks)

    def hours(self) -> float:
        """Return the hours of pruning and evaluation at the assumed speed, a lower bound."""
        cost = self.pruning()
        return (self.evaluation_flops() + (cost.flops if cost else 0)) / SPEED / 3600


@cache
def _pruning(model: str, name: str, length: int) -> PruningCost:
    calibration = Calibration(torch.zeros(SEQUENCES, length, dtype=torch.long), batch=1)
    return pruning_cost(
        meta_model(MODELS[model]),
        preset(name),
        calibration,
        speed=SPEED,
        memory_budget=int(WAITING_SHARE * MEMORY),
    )


@cache
def _benchmark_flops(model: str, family: str, task: str) -> float:
    benchmark, (documents, choices, tokens), lm = named(family)[task], ITEMS[task], meta_model(MODELS[model])
    both = 2 if benchmark.settings.get("guidance") else 1  # with and without the prompt
    if written := benchmark.settings.get("gen_length"):
        return documents * written * both * forward_cost(lm, tokens + written, written // 2).total
    return (
        documents
        * choices
        * benchmark.settings.get("mc_num", 128)
        * both
        * forward_cost(lm, tokens, tokens // 4).total
    )


@cache
def _file() -> dict:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def results() -> list[Result]:
    """Return every published row, in the order of the paper's tables.

    Raises ValueError for a row with more or fewer values than its table has tasks.
    """
    found = []
    for table in _file()["tables"]:
        for row in table["rows"]:
            if len(row["values"]) != len(table["tasks"]):
                raise ValueError(
                    f"{FILE.name}, {table['id']}, {row['method']}: {len(row['values'])} values for {len(table['tasks'])} tasks"
                )
            sparsity, values = (
                table["sparsity"] if row["preset"] else 0.0,
                dict(zip(table["tasks"], row["values"], strict=True)),
            )
            found.append(
                Result(
                    table["id"],
                    table["title"],
                    table["model"],
                    row["method"],
                    row["preset"],
                    sparsity,
                    table["unit"],
                    _file()["sources"][table["source"]],
                    table["note"],
                    tuple(table["evaluate"]),
                    values,
                )
            )
    return found


def unprinted() -> list[Result]:
    """Return the settings that the paper reports on and whose numbers were not at hand, without values."""
    return [
        Result(
            "unprinted",
            "",
            row["model"],
            "sink-aware Wanda",
            row["preset"],
            sparsity,
            "",
            "",
            "",
            ("paper",),
            {},
        )
        for row in _file()["unprinted"]
        for sparsity in row["sparsities"]
    ]


def comparable(tasks: pd.DataFrame, model: str, name: str | None, sparsity: float) -> pd.DataFrame:
    """Return what `benchmarks.evaluate` measured of a model pruned by a preset (None: dense) as `beside` takes it: `method`, `sparsity`, `task`, `value`.

    Accuracy, or exact match where there is none, in the published unit; that the published numbers are these is inferred.
    """
    rows = []
    for result in results():
        if (result.model, result.preset, round(result.sparsity, 6)) == (model, name, round(sparsity, 6)):
            scale = 100 if "percent" in result.unit else 1
            found = tasks[
                tasks.metric.isin(["acc", "exact_match"])
                & tasks.task.isin(result.values)
                & ~tasks["filter"].str.startswith("strict")
            ]
            rows += [
                {"method": result.method, "sparsity": sparsity, "task": row.task, "value": scale * row.value}
                for row in found.itertuples()
            ]
    return pd.DataFrame(rows, columns=["method", "sparsity", "task", "value"])


def beside(model: str, measured: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the published numbers of a model, one row per method, sparsity and task, with ours beside them.

    `measured` has `method`, `sparsity`, `task` and `value` in the published unit; what it lacks is marked `not run here`.
    """
    ours = (
        {}
        if measured is None
        else {
            (row.method, round(row.sparsity, 6), row.task): f"{row.value:.4g}"
            for row in measured.itertuples()
        }
    )
    rows = [
        {
            "method": result.method,
            "sparsity": result.sparsity,
            "task": task,
            "published": value,
            "here": ours.get((result.method, round(result.sparsity, 6), task), NOT_RUN),
            "unit": result.unit,
        }
        for result in results()
        if result.model == model
        for task, value in result.values.items()
    ]
    return pd.DataFrame(rows, columns=["method", "sparsity", "task", "published", "here", "unit"])

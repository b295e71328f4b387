"""What a pruning run takes, said before it starts: FLOPs, time, memory and disk, and what this machine lacks.

All of it follows from shapes, except the speed of this machine, which is measured for half a second.

Dimensions: R calibration rows, T position, D hidden width, I input features, O output features.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from sinkprune.files import bytes_below, existing, free_disk_at
from sinkprune.models.gpus import HERE, duration_in_words
from sinkprune.models.hub import available_memory
from sinkprune.runs.checkpoint import job_folder
from sinkprune.runs.compute_cost import forward_cost
from sinkprune.runs.dense_pass import bytes_that_wait
from sinkprune.runs.on_disk import OnDisk
from sinkprune.runs.passes import Passes, passes_of
from sinkprune.runs.recipe_identity import settings_digest
from sinkprune_core.calibration.dense_statistics import budget_on_gpu, input_budget, input_widths, row_bytes
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.plan import Plan, make_plan
from sinkprune_core.pruning.recipe import Recipe

PROBE_SECONDS = 0.5  # how long the speed of this machine is measured
PROBE_ROWS = 256  # of the matrix whose product is timed
PROCESS_BYTES = 700 << 20  # the interpreter with its libraries


@dataclass(frozen=True)
class PruningCost:
    """What a run is expected to take."""

    tokens: int  # of all calibration rows
    passes: int  # of all calibration rows through the blocks
    flops: float  # of the whole run
    seconds: float  # at the speed of a matrix product, so a lower bound
    memory: int  # bytes at the peak
    disk: int  # bytes
    missing_memory: tuple[str, ...] = ()  # what this machine lacks of memory, in sentences
    missing_disk: tuple[str, ...] = ()  # and of disk
    pace: str = HERE  # whose speed the time counts with, in words

    @property
    def missing(self) -> tuple[str, ...]:
        """What this machine lacks, in sentences."""
        return self.missing_memory + self.missing_disk

    def __str__(self) -> str:
        teraflops = self.flops / 1e12
        work = f"{teraflops:,.0f}" if teraflops >= 100 else f"{teraflops:.3g}"

        return (
            f"{self.tokens:,} calibration tokens x {self.passes} passes, {work} TFLOP, "
            f"at least {duration_in_words(self.seconds)} {self.pace}; "
            f"peak memory about {self.memory / 1e9:.1f} GB, disk {self.disk / 1e9:.1f} GB"
        )


def pruning_cost(
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration | None,
    out: Path | None = None,
    work: Path | None = None,
    speed: float | None = None,
    device: str | torch.device | None = None,
    gpu_memory: float | None = None,
) -> PruningCost:
    """Return what `prune` with these arguments will take; nothing is changed.

    `out` is the folder the pruned model will be saved to. `lm` may be a `MetaModel`, then `device` says where
    it would be. `speed` in FLOPs per second and `gpu_memory`, all bytes of a GPU that is not here, stand for
    another machine; where it has 0, no inputs wait anywhere. Raises ValueError for a recipe that does not fit
    the model or its text.
    """
    place = (device or "cpu") if lm.device.type == "meta" else lm.device
    if gpu_memory is None:
        budget = input_budget(torch.device(place))
    else:
        budget = budget_on_gpu(gpu_memory - weight_bytes(lm))

    plan = make_plan(lm, recipe, calibration, budget)

    on_disk = 0
    may_wait = plan.takes_dense and plan.joint_rows is None and gpu_memory is None  # whose disk is this one
    if may_wait and work is not None and calibration is not None:
        on_disk = bytes_that_wait(lm, [recipe.statistics_key], calibration, OnDisk(Path(work)), place)

    passes = passes_of(plan, lm, recipe, calibration, waits_on_disk=on_disk > 0)
    run = _Run(lm, recipe, calibration, plan, passes, on_disk, work and Path(work))

    flops = run.flops()
    memory = run.memory()
    disk = run.disk(out is not None)

    missing_disk = []
    for folder in dict.fromkeys([out, work]):
        free = disk if folder is None else free_disk_at(Path(folder))
        there = 0 if work is None or folder is None else bytes_kept(Path(work), recipe, Path(folder))
        if disk - there > free:
            missing_disk.append(
                f"{disk / 1e9:.1f} GB of disk at {folder}, which has {free / 1e9:.1f} GB free: "
                "make room or choose another place"
            )

    return PruningCost(
        tokens=passes.rows * run.length,
        passes=passes.of_rows,
        flops=flops,
        seconds=flops / (speed or speed_here(lm, place)),
        memory=memory,
        disk=disk,
        missing_memory=_missing_memory(lm, memory, place),
        missing_disk=tuple(missing_disk),
    )


@dataclass(frozen=True)
class _Run:
    """A planned run, and where it takes place."""

    lm: LanguageModel
    recipe: Recipe
    calibration: Calibration | None
    plan: Plan
    passes: Passes
    inputs_on_disk: int  # bytes
    work: Path | None

    @property
    def length(self) -> int:
        """T, 0 where no text is read."""
        return 0 if self.calibration is None else self.calibration.ids_NT.shape[1]

    @property
    def uses_gram(self) -> bool:
        """Whether Gram matrices are summed."""
        return self.recipe.rule.needs == "gram"

    def flops(self) -> float:
        """Return the FLOPs of all forwards, and of Gram matrices and solving where there are any."""
        lm = self.lm
        flops = forward_cost(lm, self.length, 0).total * self.passes.rows_run

        if self.uses_gram:
            tokens = self.passes.rows * self.length
            grams = sum(1.2 * tokens * width**2 + width**3 for width in input_widths(lm))
            solves = sum(2 * outputs * features**2 for outputs, features in _shapes(lm))
            flops += len(lm.blocks) * (grams + solves)

        return flops

    def memory(self) -> int:
        """Return the bytes at the peak: weights, statistics, a batch, and what waits for the next block."""
        lm = self.lm
        bytes_per_weight = lm.model.dtype.itemsize
        of_block = parameters_of(lm.blocks[0])
        weights = parameters_of(lm.model)

        working = 3 * 4 * max(outputs * features for outputs, features in _shapes(lm))  # scores of one linear
        if self.recipe.allocation == "owl":
            working = max(working, 9 * of_block)  # scores of a block, twice, and what is an outlier
        if lm.is_streamed:
            weights -= of_block * (len(lm.blocks) - 1)
            working = max(working, of_block * bytes_per_weight)  # or a block beside the file it is read from
            if not lm.model.config.tie_word_embeddings:
                weights -= parameters_of(lm.output_head)  # pruning reads no logits

        memory = PROCESS_BYTES + weights * bytes_per_weight + working

        widest = max(max(shape) for shape in _shapes(lm))
        per_token = 4 * widest * 4 + 2 * lm.model.config.hidden_size * bytes_per_weight
        if self.calibration is not None:
            memory += self.calibration.batch * self.length * per_token

        if self.uses_gram:
            widths = input_widths(lm)
            memory += 4 * sum(width**2 for width in widths) + 14 * max(widths) ** 2  # while one is inverted

        if self.plan.joint_rows is not None:
            waiting_rows = min(self.passes.sink_rows, self.plan.joint_rows)
            memory += waiting_rows * row_bytes(lm, self.length)
        if self.work is None:
            memory += self.hidden_states(self.passes.hidden_rows)

        return memory

    def hidden_states(self, rows: int) -> int:
        """Return the bytes of the hidden states of so many rows."""
        bytes_per_token = self.lm.model.config.hidden_size * self.lm.model.dtype.itemsize
        return rows * self.length * bytes_per_token

    def disk(self, saves: bool) -> int:
        """Return the bytes of hidden states, and of inputs or, later, finished blocks and pruned model."""
        bytes_per_weight = self.lm.model.dtype.itemsize
        disk = 0
        if saves:
            disk += weight_bytes(self.lm)
        if self.work and not (self.lm.is_streamed and saves):
            disk += parameters_of(self.lm.blocks[0]) * len(self.lm.blocks) * bytes_per_weight

        disk = max(disk, self.inputs_on_disk)
        if self.work:
            disk += self.hidden_states(self._rows_on_disk())

        return disk

    def _rows_on_disk(self) -> int:
        """Return how many rows' hidden states lie on the disk: before a block and after it.

        A pass that shows sinks or statistics has a third file, of a block from which it can go on.
        """
        passes = self.passes
        if passes.hidden_rows and (passes.sink_rows or self.plan.takes_dense):
            return 3 * max(passes.rows, passes.sink_rows)
        return passes.hidden_rows


def bytes_kept(work: Path, recipe: Recipe, beside: Path) -> int:
    """Return the bytes that a run has left in `work` already, if they lie on the disk of `beside`."""
    if callable(recipe.exclude):
        return 0

    job = job_folder(work, settings_digest(recipe))
    is_beside = job.exists() and job.stat().st_dev == existing(beside).stat().st_dev
    return bytes_below(job) if is_beside else 0


def _missing_memory(lm: LanguageModel, memory: int, device: str | torch.device) -> tuple[str, ...]:
    """Return a sentence if there is too little memory.

    What is there already counts as free: the model, where it is loaded, and the libraries.
    """
    there = 0
    if not lm.is_streamed and lm.device.type != "meta":
        there += weight_bytes(lm)
    if torch.device(device).type == "cpu":
        there = min(there + PROCESS_BYTES, psutil.Process().memory_info().rss)

    free = available_memory(device) + there
    if memory <= free:
        return ()

    return (
        f"{memory / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are available: "
        "use fewer or shorter sequences, a smaller batch, or stream the model from disk",
    )


def speed_here(lm: LanguageModel, device: str | torch.device) -> float:
    """Return the FLOPs per second of a linear in the model's dtype and largest shape, on a device."""
    options = {"device": device, "dtype": lm.model.dtype}
    outputs, features = max(_shapes(lm), key=math.prod)
    input_PI = torch.ones(PROBE_ROWS, features, **options)
    weight_OI = torch.ones(outputs, features, **options)
    products = 0
    spent = 0.0

    started = time.perf_counter()
    while spent < PROBE_SECONDS:
        float(nn.functional.linear(input_PI, weight_OI)[0, 0])  # waits for a device
        products += 1
        spent = time.perf_counter() - started

    return products * 2 * PROBE_ROWS * outputs * features / spent


def _shapes(lm: LanguageModel) -> list[tuple[int, int]]:
    """Return the shapes (O, I) of the linears of a block."""
    weights = [linear.weight for linear in lm.linears(lm.blocks[0]).values()]
    return [(weight_OI.shape[0], weight_OI.shape[1]) for weight_OI in weights]


def weight_bytes(lm: LanguageModel) -> int:
    """Return the bytes of all weights of a model."""
    return parameters_of(lm.model) * lm.model.dtype.itemsize


def parameters_of(module: nn.Module) -> int:
    """Return how many numbers the parameters of a module have."""
    return sum(parameter.numel() for parameter in module.parameters())

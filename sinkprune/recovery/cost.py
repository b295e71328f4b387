"""What a recovery takes, said before it starts: time, memory and disk, and what this machine lacks.

Time is that of real steps, on this machine, of the same model with one block and with two.
"""

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sinkprune.files import bytes_below, free_disk_at
from sinkprune.models.devices import move
from sinkprune.models.hub import available_memory
from sinkprune.recovery.objectives import LOGITS_BYTES
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import HELD_OUT_LENGTH, HELD_OUT_SEQUENCES, TrainingText
from sinkprune.recovery.training import DRAWS, MEASUREMENTS, one_step, trained
from sinkprune.runs.pruning_cost import PROCESS_BYTES
from sinkprune_core.language_model import LanguageModel, set_direction
from sinkprune_core.model_checks import blocks_of

FLOAT = 4  # bytes of a float32
FORWARD_SHARE = 1 / 3  # of the time of a step


@dataclass(frozen=True)
class RecoveryCost:
    """What a run is expected to take."""

    tokens: int  # of all steps
    steps: int
    seconds: float  # of the whole run
    memory: int  # bytes at the peak
    disk: int  # bytes, of the recovered model and of two checkpoints
    missing: tuple[str, ...]  # what this machine lacks, in sentences

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        duration = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
        return (
            f"{self.tokens:,} tokens in {self.steps:,} steps, about {duration} at this machine's speed now; "
            f"peak memory about {self.memory / 1e9:.1f} GB, disk {self.disk / 1e9:.1f} GB"
        )


def recovery_cost(
    lm: LanguageModel,
    settings: Recovery,
    out: Path,
    work: Path,
    stored: torch.dtype = torch.float32,
    teacher: LanguageModel | None = None,
    device: str = "cpu",
) -> RecoveryCost:
    """Return what recovering `lm` will take on a device; of it and of a teacher the shapes are enough.

    `stored` is the dtype that the result is saved in.
    """
    step_seconds = _step_seconds(lm, settings, teacher, device)
    held_out_tokens = HELD_OUT_SEQUENCES * DRAWS * min(settings.length, HELD_OUT_LENGTH)
    measurement = step_seconds * FORWARD_SHARE * held_out_tokens / settings.batch_tokens
    seconds = step_seconds * settings.steps + measurement * (1 + min(MEASUREMENTS, settings.steps))

    counts = _Counts(lm, settings, teacher)
    memory = counts.memory(device)
    disk = counts.parameters * stored.itemsize + 2 * 3 * FLOAT * counts.trained

    missing = []
    free = available_memory(device)
    if memory > free:
        last = "or method lora" if teacher is None else "method lora, or no teacher"
        missing.append(
            f"{memory / 1e9:.1f} GB of memory, and {device} has {free / 1e9:.1f} GB available: "
            f"take a smaller batch or length, gradient checkpointing, {last}"
        )

    for folder in dict.fromkeys((out, work)):
        free = free_disk_at(folder) + (bytes_below(work) if work.is_dir() else 0)
        if disk > free:
            missing.append(
                f"{disk / 1e9:.1f} GB of disk at {folder}, which has {free / 1e9:.1f} GB free: "
                "make room or choose another place"
            )

    return RecoveryCost(settings.tokens, settings.steps, seconds, memory, disk, tuple(missing))


class _Counts:
    """How many numbers a run holds, from shapes alone."""

    def __init__(self, lm: LanguageModel, settings: Recovery, teacher: LanguageModel | None):
        self.lm = lm
        self.settings = settings
        self.of_teacher = 0
        if teacher is not None:
            self.of_teacher = sum(parameter.numel() for parameter in teacher.model.parameters())

        linears = [linear for block in lm.blocks for linear in lm.linears(block).values()]
        self.parameters = sum(parameter.numel() for parameter in lm.model.parameters())
        self.linears = sum(linear.weight.numel() for linear in linears)

        if settings.method == "lora":
            self.trained = sum(settings.rank * sum(linear.weight.shape) for linear in linears)
        else:
            self.trained = sum(parameter.numel() for parameter in lm.blocks.parameters())

    def memory(self, device: str) -> int:
        """Return the bytes at the peak: weights, masks, gradients, moments, what the backward pass needs."""
        settings = self.settings
        narrow = 2 if settings.dtype == "bfloat16" else FLOAT
        memory = PROCESS_BYTES if torch.device(device).type == "cpu" else 0
        memory += FLOAT * self.parameters + self.linears  # a byte says whether a weight is zero
        memory += 3 * FLOAT * self.trained
        if settings.dtype == "bfloat16":
            memory += narrow * self.linears  # copies that the backward pass reads
        if settings.method == "lora":
            memory += 2 * FLOAT * self.linears  # products of the adapters' matrices, and weights with them

        memory += narrow * self.of_teacher

        return memory + self._activations() + self._logits()

    def _activations(self) -> int:
        config = self.lm.model.config
        block = self.lm.blocks[0]
        widths = sum(sum(linear.weight.shape) for linear in self.lm.linears(block).values())
        per_token = FLOAT * (widths + 6 * config.hidden_size)
        per_token += 2 * FLOAT * config.num_attention_heads * self.settings.length
        blocks = len(self.lm.blocks)

        if self.settings.gradient_checkpointing:
            kept = FLOAT * config.hidden_size * blocks + per_token
        else:
            kept = per_token * blocks

        return self.settings.batch_tokens * kept

    def _logits(self) -> int:
        vocabulary = self.lm.vocabulary
        predicted = self.settings.batch_tokens // (2 if self.lm.is_diffusion else 1)
        slice_bytes = min(LOGITS_BYTES, predicted * vocabulary * FLOAT)
        return (7 if self.of_teacher else 4) * slice_bytes


def _step_seconds(lm: LanguageModel, settings: Recovery, teacher: LanguageModel | None, device: str) -> float:
    """Return the seconds of a step, from steps of the same model with one block and with two."""
    ids = torch.arange(2 * settings.length) % lm.vocabulary
    text = TrainingText((ids,), ids.view(2, settings.length))

    seconds = []
    for blocks in (1, 2):
        spent = 0.0
        small = _of_blocks(lm, blocks, device)
        taught_by = None if teacher is None else _of_blocks(teacher, blocks, device)
        with trained(small, settings) as parameters:
            optimizer = torch.optim.AdamW(parameters.values())
            for step in range(2):  # the first one makes the moments, and warms up
                started = time.perf_counter()
                one_step(
                    small, settings, text, taught_by, parameters, optimizer, min(step, settings.steps - 1)
                )
                spent = time.perf_counter() - started

        seconds.append(spent)

    per_block = max(0.0, seconds[1] - seconds[0])
    return seconds[0] + (len(lm.blocks) - 1) * per_block


def _of_blocks(lm: LanguageModel, blocks: int, device: str) -> LanguageModel:
    """Return a model of random weights, float32, with the shapes of another and a few of its blocks."""
    config = copy.deepcopy(lm.model.config)
    config.num_hidden_layers = min(blocks, len(blocks_of(lm.model)))
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = type(lm.model)(config).float().eval()
        move(model, device)

    set_direction(model, causal=not lm.is_diffusion)
    return replace(lm, model=model.requires_grad_(False))

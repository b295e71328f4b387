"""What a recovery takes, said before it starts: time, memory and disk, and what this machine lacks.

Time is that of real steps, on this machine, of the same model with one block and with two. For a GPU that is
not here it is that of the matrix products alone.
"""

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sinkprune.files import bytes_below, existing, free_disk_at
from sinkprune.models.devices import move
from sinkprune.models.gpus import HERE, Gpu, duration_in_words
from sinkprune.models.hub import available_memory
from sinkprune.recovery.objectives import LOGITS_BYTES
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import HELD_OUT_LENGTH, HELD_OUT_SEQUENCES, TrainingText
from sinkprune.recovery.trainable import trained
from sinkprune.recovery.training import DRAWS, MEASUREMENTS, one_step
from sinkprune.runs.compute_cost import forward_cost, head_flops
from sinkprune.runs.pruning_cost import PROCESS_BYTES, parameters_of
from sinkprune_core.language_model import LanguageModel, set_direction
from sinkprune_core.model_checks import blocks_of

FLOAT = 4  # bytes of a float32
WITH_MOMENTS = 3  # numbers for each that is trained: itself in a state, its gradient in memory; two moments
STATES = 2  # on the disk while one is written: the former one goes once the new one is there
OF_NORMS = 2 * 3  # vectors as wide as the model that a block keeps: two norms, what each takes, scales, gives
OF_SCORES = 2  # maps of attention that a head keeps: scores and probabilities
OF_LOGITS = 4  # copies of a slice of logits: they, their logarithmic softmax, a gradient of each
OF_TAUGHT_LOGITS = OF_LOGITS + 3  # and the teacher's logarithmic softmax, the divergence, its gradient
ZEROS_TIMED = 2  # one weight in so many is zero in the blocks that are timed
FORWARD_SHARE = 1 / 3  # of the time of a step


@dataclass(frozen=True)
class RecoveryCost:
    """What a run is expected to take."""

    tokens: int  # of all steps
    steps: int
    seconds: float | None  # of the whole run; None where no step can be tried, as memory is missing
    memory: int  # bytes at the peak
    disk: int  # bytes, of the recovered model and of two checkpoints
    missing: tuple[str, ...]  # what this machine lacks, or a GPU that is planned for, in sentences
    pace: str = HERE  # whose speed the time counts with, in words

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens in {self.steps:,} steps, {self._duration()}; "
            f"peak memory about {self.memory / 1e9:.1f} GB, disk {self.disk / 1e9:.1f} GB"
        )

    def _duration(self) -> str:
        """Return how long the run takes, in words."""
        if self.seconds is None:
            return "in a time that is not known, as no step fits"

        how_surely = "about" if self.pace == HERE else "at least"
        return f"{how_surely} {duration_in_words(self.seconds)} {self.pace}"


def recovery_cost(
    lm: LanguageModel,
    settings: Recovery,
    out: Path,
    work: Path,
    stored: torch.dtype = torch.float32,
    teacher: LanguageModel | None = None,
    device: str = "cpu",
    gpu: Gpu | None = None,
) -> RecoveryCost:
    """Return what recovering `lm` will take on a device; of it and of a teacher the shapes are enough.

    `stored` is the dtype that the result is saved in, and `gpu` one that is not here and stands for `device`.
    """
    counts = _Counts(lm, settings, teacher)
    memory = counts.memory(is_on_cpu=gpu is None and torch.device(device).type == "cpu")
    disk = counts.parameters * stored.itemsize + STATES * WITH_MOMENTS * FLOAT * counts.trained

    ways_out = f"take {_ways_out(settings, teacher)}"
    missing_memory = _missing_memory(memory, device, gpu, ways_out)
    missing = (*missing_memory, *_missing_disk(disk, out, work))

    pace = HERE
    step_seconds = None
    if gpu is not None:
        width = _product_bytes(settings)
        step_seconds = step_flops(lm, settings, teacher) / gpu.speed(width)
        pace = gpu.pace(width)
    elif not missing_memory:  # or the steps that are timed could take all there is
        step_seconds = _step_seconds(lm, settings, teacher, device)

    seconds = None if step_seconds is None else _run_seconds(step_seconds, settings)
    return RecoveryCost(settings.tokens, settings.steps, seconds, memory, disk, missing, pace)


def _run_seconds(step_seconds: float, settings: Recovery) -> float:
    """Return the seconds of all steps, and of the measurements before, between and after them."""
    held_out_tokens = HELD_OUT_SEQUENCES * DRAWS * min(settings.length, HELD_OUT_LENGTH)
    measurement = step_seconds * FORWARD_SHARE * held_out_tokens / settings.batch_tokens
    return step_seconds * settings.steps + measurement * (1 + min(MEASUREMENTS, settings.steps))


def _ways_out(settings: Recovery, teacher: LanguageModel | None) -> str:
    """Return what takes less memory and is not done yet, in words."""
    ways = []
    if settings.batch > 1:
        ways.append("a smaller batch")
    ways.append("a shorter length")
    if not settings.gradient_checkpointing:
        ways.append("gradient checkpointing")
    if settings.method != "lora":
        ways.append("method lora")
    if teacher is not None:
        ways.append("no teacher")
    ways.append("a smaller model")

    return f"{', '.join(ways[:-1])}, or {ways[-1]}"


def _missing_memory(memory: int, device: str, gpu: Gpu | None, ways_out: str) -> list[str]:
    """Return a sentence if a device, or a GPU that stands for it, has too little memory."""
    if gpu is not None:
        if memory <= gpu.memory:
            return []
        return [f"{gpu.name} has {gpu.memory / 1e9:.0f} GB of memory, which is too little: {ways_out}"]

    free = available_memory(device)
    if memory <= free:
        return []
    return [
        f"this machine lacks {memory / 1e9:.1f} GB of memory, and {device} has {free / 1e9:.1f} GB "
        f"available: {ways_out}"
    ]


def _missing_disk(disk: int, out: Path, work: Path) -> list[str]:
    """Return a sentence for each disk with too little room; what an earlier start left is overwritten."""
    place_on_disk = {existing(folder).stat().st_dev: folder for folder in (work, out)}
    missing = []
    for folder in place_on_disk.values():
        free = free_disk_at(folder) + bytes_below(work)
        if disk > free:
            missing.append(
                f"this machine lacks {disk / 1e9:.1f} GB of disk at {folder}, which has {free / 1e9:.1f} GB "
                "free: make room or choose another place"
            )

    return missing


def step_flops(lm: LanguageModel, settings: Recovery, teacher: LanguageModel | None = None) -> float:
    """Return the FLOPs of the matrix products of a step, from shapes.

    A backward pass computes two products for one of the forward, and one where a weight is not trained. What
    is not kept for it is computed twice. Beside a linear LoRA has one of the same shape, which is trained in
    its place; what makes that from its two matrices is left out.
    """
    predicted = _predicted(lm, settings)
    is_sliced = predicted * lm.vocabulary * FLOAT > LOGITS_BYTES
    forwards = 2 if settings.gradient_checkpointing else 1
    forwards_of_head = 2 if is_sliced else 1

    trained = forwards + 2  # products for one of a forward: of a weight that is trained, and of attention
    frozen = forwards + 1  # of a weight that is not
    of_linears = frozen + trained if settings.method == "lora" else trained

    once = forward_cost(lm, settings.length, 0)
    flops = settings.batch * (once.linears * of_linears + once.attention * trained)
    flops += head_flops(lm, predicted) * (forwards_of_head + 1)

    if teacher is not None:
        flops += settings.batch * forward_cost(teacher, settings.length, 0).total
        flops += head_flops(teacher, predicted) * forwards_of_head

    return flops


def _predicted(lm: LanguageModel, settings: Recovery) -> int:
    """Return how many positions of a step are predicted: all, or on average half of a diffusion model's."""
    return settings.batch_tokens // (2 if lm.is_diffusion else 1)


def _product_bytes(settings: Recovery) -> int:
    """Return the bytes of a number in the products."""
    return 2 if settings.dtype == "bfloat16" else FLOAT


class _Counts:
    """How many numbers a run holds, from shapes alone."""

    def __init__(self, lm: LanguageModel, settings: Recovery, teacher: LanguageModel | None):
        self.lm = lm
        self.settings = settings
        self.of_teacher = 0 if teacher is None else parameters_of(teacher.model)
        self.parameters = parameters_of(lm.model)
        self.linears = lm.prunable_weights

        if settings.method == "lora":
            linears = lm.all_linears().values()
            self.trained = sum(settings.rank * sum(linear.weight.shape) for linear in linears)
        else:
            self.trained = parameters_of(lm.blocks)

    def memory(self, is_on_cpu: bool) -> int:
        """Return the bytes at the peak: weights, masks, gradients, moments, what the backward pass needs.

        Copies of weights in bfloat16 are freed as gradients of twice their size come, and add nothing.
        """
        memory = PROCESS_BYTES if is_on_cpu else 0
        memory += FLOAT * self.parameters + self.linears  # a byte says whether a weight is zero
        memory += WITH_MOMENTS * FLOAT * self.trained
        if self.settings.method == "lora":
            memory += self._products()

        memory += _product_bytes(self.settings) * self.of_teacher

        return memory + self._activations() + self._logits()

    def _products(self) -> int:
        """Return the bytes of what LoRA has beside the linears: products of its two matrices.

        In bfloat16 they take half, and a copy of the weights as much again. Of blocks that are computed twice
        there are those of one. While they are made and learned from, those of a block are there twice more.
        """
        of_block = self.linears // len(self.lm.blocks)
        kept = of_block if self.settings.gradient_checkpointing else self.linears
        return FLOAT * (kept + 2 * of_block)

    def _activations(self) -> int:
        config = self.lm.model.config
        block = self.lm.blocks[0]
        widths = sum(sum(linear.weight.shape) for linear in self.lm.linears(block).values())
        per_token = FLOAT * (widths + OF_NORMS * config.hidden_size)
        per_token += OF_SCORES * FLOAT * config.num_attention_heads * self.settings.length
        blocks = len(self.lm.blocks)

        if self.settings.gradient_checkpointing:
            kept = FLOAT * config.hidden_size * blocks + per_token
        else:
            kept = per_token * blocks

        return self.settings.batch_tokens * kept

    def _logits(self) -> int:
        vocabulary = self.lm.vocabulary
        slice_bytes = min(LOGITS_BYTES, _predicted(self.lm, self.settings) * vocabulary * FLOAT)
        return (OF_TAUGHT_LOGITS if self.of_teacher else OF_LOGITS) * slice_bytes


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
    """Return a model of random weights, float32, with the shapes of another and a few of its blocks.

    Half of the weights of its linears are zero, as holding zeros takes time, beside LoRA most of all.
    """
    config = copy.deepcopy(lm.model.config)
    config.num_hidden_layers = min(blocks, len(blocks_of(lm.model)))
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = type(lm.model)(config).float().eval()
        move(model, device)

    set_direction(model, causal=not lm.is_diffusion)
    small = replace(lm, model=model.requires_grad_(False))
    for linear in small.all_linears().values():
        linear.weight.view(-1)[::ZEROS_TIMED] = 0

    return small

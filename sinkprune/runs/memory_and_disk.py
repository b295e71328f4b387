"""What a run takes of memory and of disk, estimated from shapes before it begins.

Dimensions: O output features, I input features of a linear.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sinkprune.files import bytes_below, existing, free_disk_at
from sinkprune.models.hub import available_memory
from sinkprune_core.calibration.dense_statistics import input_widths, row_bytes
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.plan import Plan, make_plan
from sinkprune_core.pruning.recipe import Recipe

PROCESS_BYTES = 700 << 20  # the interpreter with its libraries
FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Needs:
    """What a run is expected to take, in bytes."""

    memory: int  # at the peak
    disk: int  # at the peak

    def __str__(self) -> str:
        return f"peak memory about {self.memory / 1e9:.1f} GB, disk {self.disk / 1e9:.1f} GB"


def lacks(
    needed: Needs, device: str | torch.device, out: Path, work: Path, ways_out: str, loaded: int = 0
) -> list[str]:
    """Return what this machine lacks for a run, in sentences; `ways_out` says what takes less memory.

    What an earlier start left in `work` counts as free, and so do the libraries and `loaded` bytes of models,
    which are in memory already.
    """
    missing = []

    more = needed.memory - PROCESS_BYTES - loaded
    free = available_memory(device)
    if more > free:
        missing.append(
            f"this machine lacks memory: the run takes {more / 1e9:.1f} GB more, and {device} has "
            f"{free / 1e9:.1f} GB available: take {ways_out}, or a larger machine"
        )

    place_on_disk = {existing(folder).stat().st_dev: folder for folder in (work, out)}
    for folder in place_on_disk.values():
        free = free_disk_at(folder) + bytes_below(work)
        if needed.disk > free:
            missing.append(
                f"this machine lacks disk: the run takes {needed.disk / 1e9:.1f} GB at {folder}, which has "
                f"{free / 1e9:.1f} GB free: make room or choose another place"
            )

    return missing


# pruning and diagnosing


def pruning_needs(
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration | None,
    in_work_folder: bool = True,
    is_saved: bool = True,
) -> Needs:
    """Return what pruning takes; of `lm` the shapes are enough, and of the text how long it is.

    In a work folder the hidden states lie on the disk, as do the finished blocks of a model that `is_saved`.
    Inputs that wait there, where half of the free room holds them, are not counted. Raises ValueError for a
    recipe that does not fit the model or its text.
    """
    plan = make_plan(lm, recipe, calibration)
    memory = PROCESS_BYTES + _resident_weights(lm) + _scores(lm, recipe)
    hidden = 0

    if calibration is not None and plan.source != "nowhere":
        sequences, length = calibration.ids_NT.shape
        memory += calibration.batch * length * _activations_of_token(lm)
        if recipe.rule.needs == "gram":
            memory += _gram_matrices(lm)
        if plan.joint_rows is not None:
            memory += plan.joint_rows * row_bytes(lm, length)
        hidden = _hidden_states(lm, recipe, plan, sequences * length)

    weights = weight_bytes(lm)
    if not in_work_folder:  # hidden states before a block and after it wait in memory
        return Needs(memory + 2 * hidden, weights if is_saved else 0)

    if not is_saved:
        return Needs(memory, 2 * hidden)

    blocks = parameters_of(lm.blocks) * lm.model.dtype.itemsize
    kept = 0 if lm.is_streamed else blocks  # the saved copy of a streamed model takes finished blocks over
    return Needs(memory, max(blocks + 2 * hidden, kept + weights))


def _resident_weights(lm: LanguageModel) -> int:
    """Return the bytes of the weights that are in memory at a time."""
    if not lm.is_streamed:
        return weight_bytes(lm)

    in_memory = parameters_of(lm.model) - (len(lm.blocks) - 1) * parameters_of(lm.blocks[0])
    if not lm.model.config.tie_word_embeddings:
        in_memory -= parameters_of(lm.output_head)  # pruning reads no logits
    return in_memory * lm.model.dtype.itemsize


def _scores(lm: LanguageModel, recipe: Recipe) -> int:
    """Return the bytes of what is made of weights while a block is pruned."""
    of_block = parameters_of(lm.blocks[0])
    scores = 3 * FLOAT * max(math.prod(shape) for shape in _shapes(lm))  # of one linear
    if recipe.allocation == "owl":
        scores = max(scores, (2 * FLOAT + 1) * of_block)  # of a block, twice, and what is an outlier
    if lm.is_streamed:
        scores = max(scores, of_block * lm.model.dtype.itemsize)  # or a block beside its file
    return scores


def _activations_of_token(lm: LanguageModel) -> int:
    """Return the bytes that a forward of one block holds of a token."""
    widest = max(max(shape) for shape in _shapes(lm))
    return 4 * FLOAT * widest + 2 * lm.model.config.hidden_size * lm.model.dtype.itemsize


def _gram_matrices(lm: LanguageModel) -> int:
    """Return the bytes of the Gram matrices of a block, and of those that are made while one is inverted."""
    widths = input_widths(lm)
    return FLOAT * sum(width**2 for width in widths) + 14 * max(widths) ** 2


def _hidden_states(lm: LanguageModel, recipe: Recipe, plan: Plan, tokens: int) -> int:
    """Return the bytes of the hidden states before one block, of all states of so many calibration tokens."""
    if plan.joint_rows is not None and plan.source == "dense model":
        return 0  # rows run through all blocks at once

    sees_levels = recipe.inputs == "noised" or (recipe.exclude != "none" and lm.is_diffusion)
    states = recipe.noise_levels if sees_levels else 1
    return states * tokens * lm.model.config.hidden_size * lm.model.dtype.itemsize


# training


def training_needs(
    lm: LanguageModel,
    batch: int,
    length: int,
    logits: int,
    rank: int | None = None,
    recomputed: bool = False,
    dtype: torch.dtype = torch.float32,
    stored: torch.dtype = torch.float32,
    teacher: LanguageModel | None = None,
) -> Needs:
    """Return what training takes with `batch` sequences of `length` tokens; of models the shapes are enough.

    `rank` is LoRA's (None: the blocks themselves are trained), `recomputed` says that blocks are computed
    twice instead of kept, `dtype` is that of the products, `stored` that of the saved model, and `logits` are
    the bytes of those that are there at a time. Two states lie on the disk while one is written.
    """
    parameters, linears = parameters_of(lm.model), lm.prunable_weights
    trained = parameters_of(lm.blocks)
    if rank is not None:
        trained = sum(rank * sum(linear.weight.shape) for linear in lm.all_linears().values())

    memory = PROCESS_BYTES + FLOAT * parameters + linears  # a byte says whether a weight is zero
    memory += 3 * FLOAT * trained  # gradients and two moments
    if (
        rank is not None
    ):  # products of its matrices beside the linears, of a block twice more as they are made
        of_block = linears // len(lm.blocks)
        memory += FLOAT * ((of_block if recomputed else linears) + 2 * of_block)

    copies_of_logits = 4  # they, their logarithmic softmax, a gradient of each
    if teacher is not None:
        memory += dtype.itemsize * parameters_of(teacher.model)
        copies_of_logits += 3  # the teacher's logarithmic softmax, the divergence, its gradient
    memory += copies_of_logits * logits

    memory += batch * length * _kept_of_token(lm, length, recomputed)

    disk = parameters * stored.itemsize + 2 * 3 * FLOAT * trained  # two states: itself and two moments
    return Needs(memory, disk)


def _kept_of_token(lm: LanguageModel, length: int, recomputed: bool) -> int:
    """Return the bytes that are kept of a token for the backward pass."""
    config = lm.model.config
    widths = sum(sum(shape) for shape in _shapes(lm)) + 2 * 3 * config.hidden_size  # of linears and two norms
    of_block = FLOAT * (widths + 2 * config.num_attention_heads * length)  # scores and probabilities

    if recomputed:
        return of_block + FLOAT * config.hidden_size * len(lm.blocks)
    return of_block * len(lm.blocks)


# shapes


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

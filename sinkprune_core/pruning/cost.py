"""What a pruning run will take, said before it starts: FLOPs, time, memory and disk; and a refusal where they lack.

Dimensions: R calibration rows, T position, D hidden width, I input features, O output features.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from accelerate import init_empty_weights
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config

from sinkprune_core.diffusion.compute import forward_cost
from sinkprune_core.models.catalog import KnownModel, shape_of
from sinkprune_core.models.hub import available_memory, choose_dtype, parse, requirements
from sinkprune_core.models.language_model import Checkpoint, LanguageModel, language_model, weight_OI
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.engine import input_budget, one_pass, row_bytes
from sinkprune_core.pruning.recipe import Recipe

PROBE_SECONDS = 0.5  # how long the speed of this machine is measured
PROCESS_BYTES = 700 << 20  # the interpreter with its libraries


@dataclass(frozen=True)
class PruningCost:
    """Expected cost of a run. `passes`: of all calibration rows through the blocks. `flops` of the whole run; `seconds` at
    the speed of a matrix product measured just now, so a lower bound; `memory` at its peak and `disk` in bytes.
    `missing`: what this machine lacks, in sentences.
    """

    tokens: int
    passes: int
    flops: float
    seconds: float
    memory: int
    disk: int
    missing: tuple[str, ...]

    def __str__(self) -> str:
        hours, rest = divmod(round(self.seconds), 3600)
        return (
            f"{self.tokens:,} calibration tokens x {self.passes} passes, {self.flops / 1e12:.3g} TFLOP, at least {hours} h {rest // 60} min {rest % 60} s at this machine's speed now; "
            f"peak memory about {self.memory / 1e9:.1f} GB, disk {self.disk / 1e9:.1f} GB"
        )


@dataclass(frozen=True)
class MetaModel(LanguageModel):
    """A model without weights or tokenizer, for plans: parameters on the meta device."""

    is_streamed: bool = False


def costs(
    names: Sequence[str],
    recipe: Recipe,
    rows: int,
    length: int,
    forwards: int,
    dtype: str = "auto",
    device: str = "cpu",
) -> pd.DataFrame:
    """Return a row per model of what this machine would spend on it; nothing is downloaded or loaded.

    Pruning takes `rows` calibration sequences of `length` tokens, evaluation `forwards` sequences in all. Columns: GB to
    `download`, on `disk` (with one pruned copy) and in `memory`; TFLOP of both jobs and hours, at least, at the speed of
    a matrix product on `device` here and now; what this machine `lacks`, in words.
    """
    table = []
    for name in names:
        row, _ = parse(name)
        need, outline = (
            requirements(name, dtype, device),
            meta_model(row, choose_dtype(dtype, device)) if row else _outline(name),
        )
        known = recipe if outline.is_diffusion else replace(recipe, inputs="clean", noise="grid")
        cost = pruning_cost(
            outline, known, Calibration(torch.zeros(rows, length, dtype=torch.long)), Path(), device=device
        )
        scoring = forwards * forward_cost(outline, length, length // 2).total
        speed = cost.flops / cost.seconds if cost.flops else speed_here(outline, device)
        table.append(
            {
                "model": name,
                "billion parameters": need.parameters / 1e9,
                "download GB": need.download / 1e9,
                "disk GB": (need.disk + cost.disk) / 1e9,
                "memory GB": max(need.memory, cost.memory) / 1e9,
                "pruning TFLOP": cost.flops / 1e12,
                "scoring TFLOP": scoring / 1e12,
                "hours, at least": (cost.flops + scoring) / speed / 3600,
                "lacks": "; ".join(dict.fromkeys([*need.missing, *cost.missing])),
            }
        )
    return pd.DataFrame(table).set_index("model")


def _outline(folder: str) -> LanguageModel:
    checkpoint = Checkpoint(folder)
    return language_model(checkpoint, checkpoint.skeleton())


CONFIGS = {
    "LlamaForCausalLM": LlamaConfig,
    "Qwen2ForCausalLM": Qwen2Config,
    "Qwen3ForCausalLM": Qwen3Config,
    "GPT2LMHeadModel": GPT2Config,
}


def meta_model(row: KnownModel, dtype: str | torch.dtype = "bfloat16", streamed: bool = False) -> MetaModel:
    """Return the outline of a row's published shape: what a plan is made with before a byte is fetched."""
    vocabulary, width, mlp, layers, heads, groups, head_width, extra = shape_of(row)
    positions, config = row.context or 2048, CONFIGS[row.native]
    if config is GPT2Config:
        config = config(
            vocab_size=vocabulary,
            n_embd=width,
            n_inner=mlp,
            n_layer=layers,
            n_head=heads,
            n_positions=positions,
        )
    else:
        config = config(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            head_dim=head_width,
            max_position_embeddings=positions,
            tie_word_embeddings="tied" in extra,
        )
    with init_empty_weights(include_buffers=True):
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).to(choose_dtype(dtype))
    model.tie_weights()
    return MetaModel(
        model,
        None,
        row.id,
        row.kind,
        (row.mask_token_id or 0) if row.kind == "diffusion" else None,
        row.logits_shifted,
        streamed,
    )


def pruning_cost(
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration,
    out: Path | None = None,
    work: Path | None = None,
    speed: float | None = None,
    device: str | torch.device | None = None,
    memory_budget: int | None = None,
) -> PruningCost:
    """Return what `prune` with these arguments will take, from shapes and one short measurement; nothing is changed.

    `lm` may be `meta_model`, then `device` says where it would be; `speed` in FLOPs per second and `memory_budget`, what
    `input_budget` says in bytes, stand for another machine.
    """
    criterion, states = CRITERIA[recipe.criterion], recipe.noise_levels if recipe.inputs == "noised" else 1
    count, length = calibration.ids_NT.shape
    rows = count * states if criterion.calibrated else 0
    passes, sink_rows, waiting = _passes(lm, recipe, calibration, device, memory_budget)
    forward = forward_cost(lm, length, 0).total
    linears = lm.linears(lm.blocks[0])
    inputs = {weight_OI(linear).shape[1]: 0 for linear in linears.values()}
    for linear in linears.values():
        inputs[weight_OI(linear).shape[1]] += weight_OI(linear).shape[0]
    flops = forward * (rows * passes + sink_rows)
    if criterion.needs == "gram":
        flops += len(lm.blocks) * sum(
            1.2 * rows * length * features**2 + features**3 + 2 * outputs * features**2
            for features, outputs in inputs.items()
        )
    size, width = lm.model.dtype.itemsize, lm.model.config.hidden_size
    block = sum(value.numel() for value in lm.blocks[0].parameters())
    whole = sum(value.numel() for value in lm.model.parameters())
    hidden = rows * length * width * size
    widest = max(max(weight_OI(linear).shape) for linear in linears.values())
    batch = calibration.batch * length * (4 * widest * 4 + 2 * width * size)
    largest = max(linear.weight.numel() for linear in linears.values())
    gram = 3 * 4 * sum(features**2 for features in inputs) if criterion.needs == "gram" else 0
    weights = (whole - block * len(lm.blocks)) + 2 * block if lm.is_streamed else whole
    memory = (
        PROCESS_BYTES
        + weights * size
        + 4 * 4 * largest
        + gram
        + batch
        + (waiting or (0 if work else 2 * hidden))
    )
    disk = (
        (whole * size if out else 0)
        + (2 * hidden if work else 0)
        + (block * len(lm.blocks) * size if work and not lm.is_streamed else 0)
    )
    missing = []
    if memory > (
        free := available_memory(_where(lm, device))
        + (0 if lm.is_streamed or lm.device.type == "meta" else whole * size)
    ):
        missing.append(
            f"{memory / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are available: use fewer or shorter sequences, a smaller batch, or stream the model from disk"
        )
    for place in {place for place in (out, work) if place is not None}:
        if disk > (free := shutil.disk_usage(_existing(Path(place))).free):
            missing.append(
                f"{disk / 1e9:.1f} GB of disk at {place}, which has {free / 1e9:.1f} GB free: make room or choose another place"
            )
    return PruningCost(
        rows * length, passes, flops, flops / (speed or speed_here(lm, device)), memory, disk, tuple(missing)
    )


def _passes(
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration,
    device: str | torch.device | None,
    memory_budget: int | None,
) -> tuple[int, int, int]:
    """Return passes of the calibration rows, rows of the forwards that only look for sinks, and bytes of inputs that wait where there are none."""
    criterion = CRITERIA[recipe.criterion]
    if not criterion.calibrated:
        return 0, 0, 0
    sinks = (
        len(calibration.ids_NT) * (recipe.noise_levels if lm.is_diffusion else 1)
        if recipe.exclude != "none"
        else 0
    )
    dense, at_once = recipe.propagation == "dense", 0
    if sinks and dense and criterion.needs != "gram":
        at_once = min(
            sinks,
            one_pass(
                lm,
                [recipe.statistics_key],
                calibration,
                input_budget(_where(lm, device)) if memory_budget is None else memory_budget,
            ),
        )
    return (
        (1 if dense else 2) + (recipe.allocation == "owl" and not (dense and criterion.needs != "gram")),
        0 if at_once else sinks,
        at_once * row_bytes(lm, calibration.ids_NT.shape[1]),
    )


def _where(lm: LanguageModel, device: str | torch.device | None) -> str | torch.device:
    """Return the device of a model, for an outline the one it would be on."""
    return lm.device if lm.device.type != "meta" else device or "cpu"


def speed_here(lm: LanguageModel, device: str | torch.device | None = None) -> float:
    """Return FLOPs per second of a matrix product in the model's dtype and widths, on its device; `device` is that of an outline."""
    device = _where(lm, device)
    rows, columns = max(
        (tuple(weight_OI(linear).shape) for linear in lm.linears(lm.blocks[0]).values()),
        key=lambda shape: shape[0] * shape[1],
    )
    left, right = (
        torch.ones(size, device=device, dtype=lm.model.dtype) for size in ((256, columns), (columns, rows))
    )
    begun, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < PROBE_SECONDS:
        float((left @ right)[0, 0])  # waits for a device
        done += 1
    return done * 2 * 256 * rows * columns / spent


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.absolute().parent)

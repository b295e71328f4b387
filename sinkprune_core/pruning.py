"""One loop for every method: `prune(lm, recipe, calibration) -> Report`.

Blocks are visited in order. Each sees its calibration input, statistics are taken, its linears are pruned, and the
next block's input is what the recipe says: the dense block's output or the pruned one's.

Dimensions: R calibration rows, B batch, T position, D hidden width, O output features, I input features.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from .calibration import INPUTS, TOKENS, Calibration, Masks, Rows, rows_for, sink_masks
from .criteria import CRITERIA
from .models import LanguageModel
from .patterns import PATTERNS
from .sinks import STABLE_FROM
from .statistics import observe

PROPAGATION = ("sequential", "dense")


@dataclass(frozen=True)
class Recipe:
    """How to prune. `sparsity` is the share of zeros in every row of every linear of the blocks, nothing else.

    `inputs`: clean or noised calibration text. `propagation`: later blocks are calibrated on the output of pruned
    (`sequential`) or dense blocks. `tokens`: which calibration tokens are left out of the statistics: none, all sinks,
    unstable or stable ones, as many random tokens, or everything but the sinks (`only`). `levels`: noise levels per
    sequence (steps of a causal model). `deviations`: the sink threshold above the mean. `stable_from`: the persistence
    from which a sink is stable.
    """

    criterion: str = "wanda"
    sparsity: float = 0.5
    inputs: str = "clean"
    propagation: str = "sequential"
    tokens: str = "none"
    pattern: str = "row"
    levels: int = 8
    deviations: float = 2.0
    stable_from: float = STABLE_FROM

    def __post_init__(self):
        choices = {"criterion": CRITERIA, "inputs": INPUTS, "propagation": PROPAGATION, "tokens": TOKENS, "pattern": PATTERNS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(allowed)}")
        if isinstance(self.sparsity, bool) or not isinstance(self.sparsity, (int, float)) or not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity={self.sparsity!r} must be a number in [0, 1): it is the share of weights set to zero")
        if type(self.levels) is not int or self.levels < 1:
            raise ValueError(f"levels={self.levels!r} must be a whole number of at least 1")
        if not 0 <= self.stable_from <= 1:
            raise ValueError(f"stable_from={self.stable_from} must lie in [0, 1]: it is a share of steps")
        if not self.deviations >= 0:
            raise ValueError(f"deviations={self.deviations} must be a number of at least 0")
        if not CRITERIA[self.criterion].calibrated and (self.tokens != "none" or self.inputs != "clean"):
            raise ValueError(f"criterion={self.criterion!r} looks at no calibration token: it takes inputs='clean' and tokens='none' only")

    @property
    def name(self) -> str:
        """A short label, e.g. `wanda noised dense unstable`."""
        if not CRITERIA[self.criterion].calibrated:
            return self.criterion
        return " ".join([self.criterion, self.inputs, self.propagation] + ([self.tokens] if self.tokens != "none" else []))


    @property
    def looks_at(self) -> tuple:
        """What decides the statistics of a dense model: recipes with equal values here share them."""
        return self.inputs, self.tokens, self.levels, self.deviations, self.stable_from


PRESETS: dict[str, dict] = {
    "magnitude": {"criterion": "magnitude"},
    "wanda": {},
    "dwanda": {"inputs": "noised"},
    "noised-dense": {"inputs": "noised", "propagation": "dense"},
    "all-sinks": {"inputs": "noised", "propagation": "dense", "tokens": "all"},
    "unstable": {"inputs": "noised", "propagation": "dense", "tokens": "unstable"},
    "stable": {"inputs": "noised", "propagation": "dense", "tokens": "stable"},
    "random": {"inputs": "noised", "propagation": "dense", "tokens": "random"},
    "only-sinks": {"inputs": "noised", "propagation": "dense", "tokens": "only"},
}


def preset(name: str, **changes) -> Recipe:
    """Return the recipe of a name from the literature, with fields changed; raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return Recipe(**{**PRESETS[name], **changes})


@dataclass(frozen=True)
class Report:
    """What was done: the recipe, one row per linear (layer, name, shape, zeros) and the cost of calibration."""

    recipe: Recipe
    model: str
    linears: pd.DataFrame
    calibration_tokens: int  # tokens that went through the blocks for statistics
    left_out_share: float  # share of calibration tokens whose weight is below 1
    seconds: float
    untouched: int = field(default=0)  # parameters outside the blocks' linears: embeddings, head, norms, biases

    @property
    def sparsity(self) -> float:
        """The share of zeros in the pruned linears."""
        return float(self.linears.zeros.sum() / self.linears.weights.sum())

    def card(self) -> dict:
        """Return the report as plain JSON values, without the row per linear."""
        return {"recipe": asdict(self.recipe), "model": self.model, "sparsity": self.sparsity, "pruned_parameters": int(self.linears.weights.sum()), "untouched_parameters": self.untouched, "calibration_tokens": self.calibration_tokens, "left_out_share": self.left_out_share, "seconds": self.seconds}


@dataclass(frozen=True)
class DenseStatistics:
    """Input norms of every linear of a dense model, by layer and name, float32 (I,), and what they cost."""

    norms: list[dict[str, torch.Tensor]]
    tokens: int
    left_out_share: float
    seconds: float


@torch.no_grad()
def dense_statistics(lm: LanguageModel, recipes: Sequence[Recipe], calibration: Calibration, progress: bool = True) -> dict[tuple, DenseStatistics]:
    """Return the statistics of several recipes with dense propagation, by `recipe.looks_at`, from one pass per kind of input.

    Activations of a dense model depend on no recipe, only the weights of tokens do: all controls cost as much as one.
    Sinks are looked for once per threshold. Raises ValueError for a recipe with sequential propagation.
    """
    for recipe in recipes:
        check(lm, recipe, calibration)
        if recipe.propagation != "dense":
            raise ValueError(f"recipe {recipe.name!r} has propagation={recipe.propagation!r}: its statistics depend on what it pruned before")
    found: dict[tuple, DenseStatistics] = {}
    masks: dict[tuple, Masks] = {}
    for inputs, levels in dict.fromkeys((recipe.inputs, recipe.levels) for recipe in recipes):
        begun = time.perf_counter()
        group = {recipe.looks_at: recipe for recipe in recipes if (recipe.inputs, recipe.levels) == (inputs, levels)}
        rows = {}
        for key, recipe in group.items():
            threshold = (levels, recipe.deviations)
            if recipe.tokens != "none" and threshold not in masks:
                masks[threshold] = sink_masks(lm, calibration, levels, recipe.deviations, progress)
            rows[key] = rows_for(lm, calibration, *key, progress, masks.get(threshold))
        ids_RT = next(iter(rows.values())).ids_RT
        weight_WRT = torch.stack([torch.ones(ids_RT.shape) if each.weight_RT is None else each.weight_RT for each in rows.values()])
        states = block_inputs(lm, Rows(ids_RT, weight_WRT), calibration.batch)
        layers: list[dict[str, torch.Tensor]] = []
        for block in tqdm(lm.blocks, desc=f"statistics of {lm.name}", unit="block", disable=not progress, leave=False):
            with observe(lm.linears(block), len(rows)) as observer:
                states = run_block(block, states, observer)
            layers.append({name: norms.norms_WI for name, norms in observer.norms.items()})
        seconds = time.perf_counter() - begun
        for choice, (key, each) in enumerate(rows.items()):
            norms = [{name: norms_WI[choice] for name, norms_WI in layer.items()} for layer in layers]
            found[key] = DenseStatistics(norms, each.tokens, each.left_out_share, seconds)
    return found


def check(lm: LanguageModel, recipe: Recipe, calibration: Calibration | None) -> None:
    """Raise ValueError when a recipe does not fit the model or its calibration text."""
    criterion = CRITERIA[recipe.criterion]
    if recipe.inputs == "noised" and not lm.is_diffusion:
        raise ValueError(f"inputs='noised' needs a diffusion model with a mask token; {lm.name} is {lm.kind}: use inputs='clean'")
    if criterion.calibrated and calibration is None:
        raise ValueError(f"criterion={recipe.criterion!r} needs calibration text: pass a Calibration")
    if criterion.calibrated and calibration.ids_NT.shape[1] > lm.model.config.max_position_embeddings:
        raise ValueError(f"calibration sequences of {calibration.ids_NT.shape[1]} tokens exceed the model's {lm.model.config.max_position_embeddings} positions: cut them")


@torch.no_grad()
def prune(lm: LanguageModel, recipe: Recipe, calibration: Calibration | None = None, progress: bool = True, statistics: DenseStatistics | None = None) -> Report:
    """Zero the weights that `recipe` chooses, in place; see `weights_kept` to have them back.

    `statistics` are those of this recipe from `dense_statistics` of this model, where they are known already. Raises
    ValueError before any work for a recipe that does not fit the model or its calibration text, and for weights or
    activations that are not finite (naming the linear).
    """
    check(lm, recipe, calibration)
    criterion, select = CRITERIA[recipe.criterion], PATTERNS[recipe.pattern]
    begun, states, tokens, left_out_share = time.perf_counter(), [], 0, 0.0
    if criterion.calibrated and recipe.propagation == "dense":
        statistics = statistics or dense_statistics(lm, [recipe], calibration, progress)[recipe.looks_at]
        tokens, left_out_share, begun = statistics.tokens, statistics.left_out_share, time.perf_counter() - statistics.seconds
    elif criterion.calibrated:
        rows = rows_for(lm, calibration, *recipe.looks_at, progress)
        states, tokens, left_out_share = block_inputs(lm, rows, calibration.batch), rows.tokens, rows.left_out_share
    table = []
    for layer, block in enumerate(tqdm(lm.blocks, desc=f"prune {lm.name}: {recipe.name}", unit="block", disable=not progress, leave=False)):
        linears = lm.linears(block)
        with observe(linears) as observer:
            run_block(block, states, observer)
        norms = statistics.norms[layer] if statistics else {name: seen.norm_I for name, seen in observer.norms.items()}
        for name, linear in linears.items():
            score_OI = criterion.score(linear.weight, norms.get(name))
            if not bool(torch.isfinite(score_OI).all()):
                raise ValueError(f"block {layer} {name}: weights or activations are not finite; nothing of this linear was changed")
            pruned_OI = select(score_OI, recipe.sparsity)
            linear.weight.masked_fill_(pruned_OI, 0)
            table.append({"layer": layer, "name": name, "rows": linear.out_features, "columns": linear.in_features, "weights": pruned_OI.numel(), "zeros": int(pruned_OI.sum())})
        states = run_block(block, states)
    linears = pd.DataFrame(table)
    untouched = sum(parameter.numel() for parameter in lm.model.parameters()) - int(linears.weights.sum())
    return Report(recipe, lm.name, linears, tokens, left_out_share, time.perf_counter() - begun, untouched)


@dataclass(frozen=True)
class BlockInput:
    """One calibration batch on its way through the blocks: hidden states (B, T, D), the block's other arguments, token weights."""

    hidden_BTD: torch.Tensor
    arguments: dict
    weight_BT: torch.Tensor | None  # or (W, B, T), several choices at once


class _Captured(Exception):
    """Ends a forward at the first block."""


def block_inputs(lm: LanguageModel, rows: Rows, batch: int) -> list[BlockInput]:
    """Return what the first block receives for every batch, with the masks and position embeddings that go with it."""
    captured: list[BlockInput] = []

    def capture(module: nn.Module, args: tuple, kwargs: dict) -> None:
        captured.append(BlockInput(args[0], kwargs, None))
        raise _Captured

    handle = lm.blocks[0].register_forward_pre_hook(capture, with_kwargs=True)
    try:
        for start in range(0, len(rows.ids_RT), batch):
            try:
                lm.hidden(rows.ids_RT[start : start + batch])
            except _Captured:
                pass
    finally:
        handle.remove()
    if rows.weight_RT is None:
        return captured
    return [BlockInput(state.hidden_BTD, state.arguments, weight) for state, weight in zip(captured, rows.weight_RT.split(batch, dim=-2), strict=True)]


def run_block(block: nn.Module, states: list[BlockInput], observer=None) -> list[BlockInput]:
    """Send every batch through a block, telling the observer each batch's token weights; return the next block's inputs."""
    outputs = []
    for state in states:
        if observer is not None:
            observer.weight_WBT = state.weight_BT
        output = block(state.hidden_BTD, **state.arguments)
        outputs.append(BlockInput(output[0] if isinstance(output, tuple) else output, state.arguments, state.weight_BT))
    return outputs


@contextmanager
def weights_kept(lm: LanguageModel) -> Iterator[None]:
    """Copy the blocks' linears and put them back at the end, whatever happens inside: prune, measure, undo."""
    kept = [{name: linear.weight.detach().clone() for name, linear in lm.linears(block).items()} for block in lm.blocks]
    try:
        yield
    finally:
        with torch.no_grad():
            for block, weights in zip(lm.blocks, kept, strict=True):
                for name, linear in lm.linears(block).items():
                    linear.weight.copy_(weights[name])

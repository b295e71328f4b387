"""One loop for every method: `prune(lm, recipe, calibration) -> Report`.

Blocks are visited in order. Each sees its calibration input, statistics are taken, its linears are pruned, and the
next block's input is what the recipe says: the dense block's output or the pruned one's.

Dimensions: R calibration rows, T position, O output features, I input features, W choices of token weights.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from sinkprune_core.models.blocks import Rows, block_inputs, run_block, visit, weights_kept
from sinkprune_core.models.language_model import LanguageModel, weight_OI
from sinkprune_core.pruning import structured
from sinkprune_core.pruning.calibration import (
    BY_ROW,
    Calibration,
    StatisticsKey,
    check_weights,
    profile,
    rows_for,
    sink_profiles,
    token_weights,
    tracked_rows,
    visible_keys,
    windows_of,
)
from sinkprune_core.pruning.checkpoint import PruningCheckpoint
from sinkprune_core.pruning.criteria import CRITERIA, SingularGram, sparsegpt
from sinkprune_core.pruning.input_statistics import InputStatistics, Observer, observe
from sinkprune_core.pruning.patterns import GlobalThreshold, Select, allocate, n_and_m, outlier_share, select
from sinkprune_core.pruning.recipe import PRESETS, Recipe, preset
from sinkprune_core.sinks import attention

__all__ = [
    "PRESETS",
    "DenseStatistics",
    "Recipe",
    "Report",
    "check",
    "dense_statistics",
    "input_budget",
    "one_pass",
    "preset",
    "prune",
    "row_bytes",
    "weights_kept",
]

WAITING_BYTES = 1 << 30  # inputs that may be held on a CPU until the weights of their tokens are known
WAITING_SHARE = 0.25  # of a GPU's memory that they may take there
ENOUGH_BYTES = 3 << 26  # and how many are worth it: with more sequences at a time a forward is no faster


@dataclass(frozen=True)
class Report:
    """What was done: the recipe, one row per linear (layer, name, shape, zeros) and the cost of calibration."""

    recipe: Recipe
    model: str
    linears: pd.DataFrame
    calibration_tokens: int  # tokens that went through the blocks for statistics
    left_out_share: float  # 1 minus the mean weight of a calibration token
    seconds: float
    unpruned_parameters: int = field(
        default=0
    )  # parameters outside the blocks' linears: embeddings, head, norms, biases
    kept_units: tuple[
        dict[str, list[int]], ...
    ] = ()  # structured pruning: the units every block keeps, for `structured.shrink`
    job: Path | None = (
        None  # the folder of finished blocks in the work folder; yours to remove once the model is saved
    )

    @property
    def sparsity(self) -> float:
        """The share of zeros in the pruned linears."""
        return float(self.linears.zeros.sum() / self.linears.weights.sum())

    def card(self) -> dict:
        """Return the report as plain JSON values, without the row per linear."""
        return {
            "recipe": asdict(self.recipe),
            "model": self.model,
            "sparsity": self.sparsity,
            "pruned_parameters": int(self.linears.weights.sum()),
            "unpruned_parameters": self.unpruned_parameters,
            "calibration_tokens": self.calibration_tokens,
            "left_out_share": self.left_out_share,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class DenseStatistics:
    """What every linear of a dense model sees, by layer and name, and what it cost to look."""

    seen: list[dict[str, InputStatistics]]
    tokens: int
    left_out_share: float
    seconds: float


def check(lm: LanguageModel, recipe: Recipe, calibration: Calibration | None) -> None:
    """Raise ValueError when a recipe does not fit the model or its calibration text."""
    criterion = CRITERIA[recipe.criterion]
    if recipe.inputs == "noised" and not lm.is_diffusion:
        raise ValueError(
            f"inputs='noised' needs a diffusion model with a mask token; {lm.name} is {lm.kind}: use inputs='clean'"
        )
    if criterion.calibrated and calibration is None:
        raise ValueError(f"criterion={recipe.criterion!r} needs calibration text: pass a Calibration")
    if criterion.calibrated and calibration.ids_NT.shape[1] > lm.model.config.max_position_embeddings:
        raise ValueError(
            f"calibration sequences of {calibration.ids_NT.shape[1]} tokens exceed the model's {lm.model.config.max_position_embeddings} positions: cut them"
        )
    if ratio := n_and_m(recipe.pattern):
        for name, linear in lm.linears(lm.blocks[0]).items():
            if weight_OI(linear).shape[1] % ratio[1]:
                raise ValueError(
                    f"pattern={recipe.pattern!r} needs inputs in groups of {ratio[1]}; {name} has {weight_OI(linear).shape[1]}: use another M"
                )
    if recipe.pattern == "structured":
        structured.plan(lm, recipe.sparsity)
        if recipe.compensate:
            structured.check_compensation(lm)
    if lm.is_streamed and (recipe.pattern == "structured" or recipe.noise == "rollout"):
        raise ValueError(
            f"{lm.name} is streamed from disk: pattern='structured' and noise='rollout' need the whole model in memory"
        )
    allocate_check = (
        recipe.allocation if recipe.allocation != "owl" else "uniform"
    )  # owl is checked when its outliers are known
    allocate(allocate_check, recipe.sparsity, len(lm.blocks), recipe.owl_lambda)


# statistics of the dense model, shared by recipes


@torch.no_grad()
def dense_statistics(
    lm: LanguageModel,
    recipes: Sequence[Recipe],
    calibration: Calibration,
    progress: bool = True,
    job: PruningCheckpoint | None = None,
) -> dict[StatisticsKey, DenseStatistics]:
    """Return the statistics of several recipes with dense propagation, by `recipe.statistics_key`, from one pass per kind of input.

    Activations of a dense model depend on no recipe, only the weights of tokens do: all controls cost as much as one.
    Where the forwards that show the sinks are those whose inputs are wanted, one forward serves both. Hidden states that
    wait for the next block lie in the work folder of `job`, where there is one, or on the model's device. Raises ValueError
    for a recipe with sequential propagation, or one that needs Gram matrices, which are too large to keep.
    """
    for recipe in recipes:
        check(lm, recipe, calibration)
        if recipe.propagation != "dense":
            raise ValueError(
                f"recipe {recipe.name!r} has propagation={recipe.propagation!r}: its statistics depend on what it pruned before"
            )
        if CRITERIA[recipe.criterion].needs == "gram":
            raise ValueError(
                f"recipe {recipe.name!r} needs a Gram matrix per input: those are used block by block and not kept"
            )
    looks = list(dict.fromkeys(recipe.statistics_key for recipe in recipes))
    found: dict[StatisticsKey, DenseStatistics] = {}
    for _, group in groupby(
        sorted(looks, key=lambda look: look.trajectory), key=lambda look: look.trajectory
    ):
        found |= _statistics_of(lm, list(group), calibration, progress, job)
    return found


def _statistics_of(
    lm: LanguageModel,
    looks: list[StatisticsKey],
    calibration: Calibration,
    progress: bool,
    job: PruningCheckpoint | None,
) -> dict[StatisticsKey, DenseStatistics]:
    """Return the statistics of looks that share their trajectory."""
    begun, first = time.perf_counter(), looks[0]
    rows_at_once = (
        one_pass(lm, looks, calibration, input_budget(lm.device))
        if any(look.exclude != "none" for look in looks)
        else 0
    )
    if rows_at_once:
        ids_RT, weight_WRT, observer = _look_once(lm, looks, calibration, rows_at_once, progress)
        layers = [(layer, name) for layer in range(len(lm.blocks)) for name in lm.linears(lm.blocks[layer])]
        seen = [observer.seen(choice) for choice in range(len(looks))]
        by_look = [
            [
                {name: seen[choice][layer, name] for at, name in layers if at == layer}
                for layer in range(len(lm.blocks))
            ]
            for choice in range(len(looks))
        ]
    else:
        profiles = (
            sink_profiles(lm, calibration, first.noise_levels, first.noise, progress)
            if any(look.exclude != "none" for look in looks)
            else None
        )
        rows = [rows_for(lm, calibration, look, progress, profiles) for look in looks]
        ids_RT = rows[0].ids_RT
        weight_WRT = torch.stack(
            [torch.ones(ids_RT.shape) if each.weight_RT is None else each.weight_RT for each in rows]
        )
        joined, by_look = Rows(ids_RT, weight_WRT), [[] for _ in looks]
        store = job.stores(lm, joined) if job else lambda layer: None
        states = block_inputs(lm, joined, calibration.batch, store(0))
        for layer, block in enumerate(visit(lm, progress, f"statistics of {lm.name}"), start=1):
            with observe(lm.linears(block), len(looks)) as observer:
                states = run_block(block, states, observer, store(layer))
            for choice, layers in enumerate(by_look):
                layers.append(observer.seen(choice))
    for look, weight_RT in zip(looks, weight_WRT, strict=True):
        check_weights(weight_RT, look.exclude)
    seconds = time.perf_counter() - begun
    return {
        look: DenseStatistics(seen, ids_RT.numel(), Rows(ids_RT, weight_RT).left_out_share, seconds)
        for look, seen, weight_RT in zip(looks, by_look, weight_WRT, strict=True)
    }


def input_budget(device: torch.device | str) -> int:
    """Return the bytes of inputs that may wait for the weights of their tokens: fixed on a CPU, so that results do not depend on the machine."""
    return (
        int(WAITING_SHARE * torch.cuda.mem_get_info(device)[1])
        if torch.device(device).type == "cuda"
        else WAITING_BYTES
    )


def row_bytes(lm: LanguageModel, length: int) -> int:
    """Return the bytes of all distinct inputs of a row's linears: those of a module read what enters it, its last one what they made."""
    parts: dict[str, list[int]] = {}
    for name, linear in lm.linears(lm.blocks[0]).items():
        parts.setdefault(name.rpartition(".")[0], []).append(weight_OI(linear).shape[1])
    return (
        length
        * len(lm.blocks)
        * sum(widths[0] + widths[-1] for widths in parts.values())
        * lm.model.dtype.itemsize
    )


def _together(lm: LanguageModel, looks: list[StatisticsKey]) -> int:
    """Return how many rows must be seen before their tokens can be weighed: a whole trajectory, or one where that is enough for every look."""
    return (
        1 if not lm.is_diffusion or all(look.exclude in BY_ROW for look in looks) else looks[0].noise_levels
    )


def one_pass(
    lm: LanguageModel, looks: list[StatisticsKey], calibration: Calibration, memory_budget: int
) -> int:
    """Return for how many rows at a time one pass can serve sinks and statistics of looks that share their trajectory, all inputs held until sinks are known.

    Follows from shapes alone. 0 where sinks show in other forwards than those whose inputs are wanted, or `memory_budget` bytes
    are too few.
    """
    if lm.is_streamed or (lm.is_diffusion and looks[0].inputs == "clean"):
        return 0
    together = _together(lm, looks)
    size = together * row_bytes(lm, calibration.ids_NT.shape[1])
    return (
        0
        if size > memory_budget
        else together * min(max(1, calibration.batch // together), max(1, ENOUGH_BYTES // size))
    )


def _look_once(
    lm: LanguageModel, looks: list[StatisticsKey], calibration: Calibration, rows: int, progress: bool
) -> tuple[torch.Tensor, torch.Tensor, Observer]:
    """Run every state of the trajectory once, `rows` at a time: its attention says how much the tokens of its inputs weigh."""
    first, length, together = looks[0], calibration.ids_NT.shape[1], _together(lm, looks)
    windows, weights = windows_of(lm, length, first.noise_levels), []
    levels = (
        together if windows is None else first.noise_levels
    )  # a state that is weighed alone counts as a trajectory of its own
    ids_RT, visible_ST = (
        tracked_rows(lm, calibration, first.noise_levels, first.noise),
        visible_keys(length, windows, levels),
    )
    linears = {
        (layer, name): linear
        for layer, block in enumerate(lm.blocks)
        for name, linear in lm.linears(block).items()
    }
    starts = tqdm(
        range(0, len(ids_RT), rows),
        desc=f"sinks and statistics of {lm.name}",
        unit="batch",
        disable=not progress,
        leave=False,
    )
    with (
        attention.track(lm.model, windows) as tracker,
        observe(linears, len(looks), deferred=True) as observer,
    ):
        for start in starts:
            lm.hidden(ids_RT[start : start + rows])
            profile_NST = profile(tracker.take().mean((1, 2)).cpu(), windows, levels)
            weights.append(
                torch.stack(
                    [
                        token_weights(lm, look, profile_NST, visible_ST, calibration.seed, start // together)
                        for look in looks
                    ]
                )
            )
            observer.flush(weights[-1])
        return ids_RT, torch.cat(weights, dim=1), observer


# the loop


@torch.no_grad()
def prune(
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration | None = None,
    progress: bool = True,
    statistics: DenseStatistics | None = None,
    work: Path | str | None = None,
) -> Report:
    """Prune the weights that `recipe` chooses, in place; see `weights_kept` to have them back.

    `statistics` are those of this recipe from `dense_statistics` of this model, where they are known already. `work` is
    a folder in which finished blocks and statistics are kept, so that a killed run goes on where it was and another
    sparsity needs no forward. A structured recipe zeroes whole units; `structured.shrink(lm, report.kept_units)` removes them.

    Raises ValueError before any work for a recipe that does not fit the model or its calibration text, and, naming the
    linear, for weights or activations that are not finite and for a Gram matrix that stays singular.
    """
    check(lm, recipe, calibration)
    begun, criterion, dense = time.perf_counter(), CRITERIA[recipe.criterion], recipe.propagation == "dense"
    if lm.is_streamed and work is None:
        raise ValueError(f"{lm.name} is streamed from disk: pass work=, a folder for its finished blocks")
    job = PruningCheckpoint(Path(work), lm, recipe, calibration) if work is not None else None
    known, rows = None, None
    if criterion.calibrated and dense and criterion.needs != "gram":
        known = statistics or _known(lm, recipe, calibration, progress, job)
        if statistics:
            begun -= statistics.seconds
    elif criterion.calibrated:
        rows = (
            job.rows(lambda: rows_for(lm, calibration, recipe.statistics_key, progress))
            if job
            else rows_for(lm, calibration, recipe.statistics_key, progress)
        )
    selects = _selects(lm, recipe, calibration, known, progress, job)
    plan = structured.plan(lm, recipe.sparsity) if recipe.pattern == "structured" else None

    first, table, kept_units = (job.done, job.table, job.kept_units) if job else (0, [], [])
    for layer in range(first) if job and not lm.is_streamed else ():
        job.restore(layer, lm.blocks[layer])
    states = (
        []
        if rows is None or first == len(lm.blocks)
        else job.states(lm, rows, calibration.batch)
        if job
        else block_inputs(lm, rows, calibration.batch)
    )
    for layer in tqdm(
        range(first, len(lm.blocks)),
        desc=f"prune {lm.name}: {recipe.name}",
        initial=first,
        total=len(lm.blocks),
        unit="block",
        disable=not progress,
        leave=False,
    ):
        store = job.store(layer + 1) if job and states else None
        with lm.resident(layer) as block:
            linears = lm.linears(block)
            with observe(linears, gram=criterion.needs == "gram") as observer:
                outputs = run_block(block, states, observer, store)
            seen = known.seen[layer] if known else observer.seen()
            if plan is not None:
                kept, rows_of_table = _prune_units(lm, block, layer, recipe, plan, seen)
                kept_units.append(kept)
            else:
                rows_of_table = _prune_weights(linears, layer, recipe, selects[layer], seen)
            table += rows_of_table
            states = (
                outputs if dense or layer + 1 == len(lm.blocks) else run_block(block, states, store_RTD=store)
            )  # nobody reads what the last block makes
            if job:
                job.finish(lm, layer, block, table, kept_units)
    if job:
        job.forget_states()
    linears = pd.DataFrame(table)
    unpruned_parameters = sum(parameter.numel() for parameter in lm.model.parameters()) - int(
        linears.weights.sum()
    )
    looked = known or rows
    return Report(
        recipe,
        lm.name,
        linears,
        looked.tokens if looked else 0,
        looked.left_out_share if looked else 0.0,
        time.perf_counter() - begun,
        unpruned_parameters,
        tuple(kept_units),
        job and job.folder,
    )


def _known(
    lm: LanguageModel, recipe: Recipe, calibration: Calibration, progress: bool, job: PruningCheckpoint | None
) -> DenseStatistics:
    compute = lambda: dense_statistics(lm, [recipe], calibration, progress, job)[recipe.statistics_key]
    return DenseStatistics(*job.statistics(recipe.statistics_key, compute)) if job else compute()


def _selects(
    lm: LanguageModel,
    recipe: Recipe,
    calibration: Calibration | None,
    known: DenseStatistics | None,
    progress: bool,
    job: PruningCheckpoint | None,
) -> list[Select]:
    """Return what chooses the pruned weights of every layer."""
    border, outliers, criterion = None, None, CRITERIA[recipe.criterion]
    if recipe.allocation == "owl":
        scores = replace(recipe, criterion="wanda", pattern="row", propagation="dense", allocation="uniform")
        dense = known or _known(lm, scores, calibration, progress, job)
        score = CRITERIA["wanda"].score
        outliers = [
            outlier_share(
                (
                    score(weight_OI(linear), dense.seen[layer][name].norms(recipe.norm_reduction))
                    for name, linear in lm.linears(block).items()
                ),
                recipe.owl_m,
            )
            for layer, block in enumerate(visit(lm, progress, "outliers"))
        ]
    if recipe.pattern == "global":

        def scores():
            for layer, block in enumerate(visit(lm, progress, "scores of all layers")):
                for name, linear in lm.linears(block).items():
                    yield finite(
                        criterion.score(
                            weight_OI(linear), known and known.seen[layer][name].norms(recipe.norm_reduction)
                        ),
                        layer,
                        name,
                    )

        border = GlobalThreshold(scores, recipe.sparsity)
        for score_OI in islice(scores(), len(job.table) if job else 0):
            border.take(score_OI)  # finished blocks have had their share of the ties
    return [
        select(recipe.pattern, sparsity, border)
        for sparsity in allocate(
            recipe.allocation, recipe.sparsity, len(lm.blocks), recipe.owl_lambda, outliers
        )
    ]


def finite(value: torch.Tensor, layer: int, name: str) -> torch.Tensor:
    """Return `value`, or raise ValueError with the linear's name where it has a number that is not finite."""
    if not bool(torch.isfinite(torch.stack(value.aminmax())).all()):  # either is NaN where any number is
        raise ValueError(
            f"block {layer} {name}: weights or activations are not finite; nothing of this linear was changed"
        )
    return value


def _prune_weights(
    linears: dict[str, nn.Module],
    layer: int,
    recipe: Recipe,
    choose: Select,
    seen: dict[str, InputStatistics],
) -> list[dict]:
    """Prune the linears of one block and return a row per linear; those with one input are handed on together."""
    criterion, masks = CRITERIA[recipe.criterion], {}
    if criterion.score is not None:
        for name, linear in linears.items():
            weight = weight_OI(linear)
            score_OI = finite(
                criterion.score(
                    weight, seen[name].norms(recipe.norm_reduction) if criterion.calibrated else None
                ),
                layer,
                name,
            )
            masks[name] = choose(score_OI, 0, score_OI.shape[1])
            weight.masked_fill_(masks[name], 0)
    else:
        shared: dict[int, list[str]] = {}
        for name in linears:
            shared.setdefault(id(seen[name]), []).append(name)
        ratio = n_and_m(recipe.pattern)
        for names in shared.values():
            weights = [finite(weight_OI(linears[name]), layer, name) for name in names]
            gram_II = finite(seen[names[0]].gram_II, layer, names[0])
            try:
                repaired, pruned = sparsegpt(
                    weights,
                    gram_II,
                    [choose] * len(names),
                    ratio and ratio[1],
                    recipe.damping,
                    recipe.block_size,
                )
            except SingularGram as error:
                raise SingularGram(f"block {layer} {names[0]}: {error}") from None
            for name, weight, new_OI, pruned_OI in zip(names, weights, repaired, pruned, strict=True):
                weight.copy_(new_OI)
                masks[name] = pruned_OI
    shapes = {name: tuple(weight_OI(linear).shape) for name, linear in linears.items()}
    return [
        {
            "layer": layer,
            "name": name,
            "rows": shapes[name][0],
            "columns": shapes[name][1],
            "weights": masks[name].numel(),
            "zeros": int(masks[name].sum()),
        }
        for name in linears
    ]


def _prune_units(
    lm: LanguageModel,
    block: nn.Module,
    layer: int,
    recipe: Recipe,
    plan: structured.Plan,
    seen: dict[str, InputStatistics],
) -> tuple[dict[str, list[int]], list[dict]]:
    """Zero the key-value groups and MLP channels a structured recipe gives up; return what stays and a row per linear."""
    linears, calibrated = lm.linears(block), CRITERIA[recipe.criterion].calibrated
    for name, linear in linears.items():
        finite(weight_OI(linear), layer, name)
    known = (
        {name: replace(each, norm_I=each.norms(recipe.norm_reduction)) for name, each in seen.items()}
        if calibrated
        else None
    )
    scores = structured.scores(lm, block, recipe.criterion, known)
    stays = {
        kind: structured.choose(finite(score_U, layer, kind), plan.removed[kind])
        for kind, score_U in scores.items()
    }
    structured.mask(lm, block, stays, known if recipe.compensate else None)
    shapes = {name: tuple(weight_OI(linear).shape) for name, linear in linears.items()}
    zeros = structured.zeros(lm, plan)
    table = [
        {
            "layer": layer,
            "name": name,
            "rows": shapes[name][0],
            "columns": shapes[name][1],
            "weights": linear.weight.numel(),
            "zeros": zeros.get(name, 0),
        }
        for name, linear in linears.items()
    ]
    return {kind: units_U.tolist() for kind, units_U in stays.items()}, table

"""Pruned models beside the dense one in fewer denoising steps: what a step costs, and what is matched.

Dimensions: B batch, T sequence length.
"""

import copy
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from sinkprune.evaluation.intervals import Estimate
from sinkprune.models.devices import device_name
from sinkprune.models.semi_structured import has_kernels, semi_structured
from sinkprune_companion.experiments import compute
from sinkprune_companion.experiments.paired_differences import compare, compare_all, on_common_draws
from sinkprune_companion.experiments.pruning_grid import GridRow
from sinkprune_companion.experiments.variants import Variant, measured
from sinkprune_companion.margins import beside_damage
from sinkprune_companion.run.records import Run
from sinkprune_core import LanguageModel, preset

FLOPS_OF_UNSTRUCTURED = "dense, FLOPs of unstructured"  # columns of `StepCosts.matched`
FLOPS_OF_STRUCTURED = "dense, FLOPs of structured"
TIME_OF_STRUCTURED = "dense, time of structured"
KERNELS = "2:4 kernels"


@dataclass(frozen=True)
class StepCosts:
    """What a denoising step of the dense model costs, and of one pruned in every way."""

    account: pd.DataFrame  # of `compute.account`, by model and kind of module
    seconds: pd.DataFrame  # of a step of the batch, a row per round and a column per model
    batch: int  # sequences in such a step
    flops: dict[str, dict[int, float]]  # effective ones of a generation, by model and number of steps
    matched: pd.DataFrame  # how many steps the dense model may take for as much, by `steps` of a pruned one

    @property
    def totals(self) -> pd.DataFrame:
        """The account of all modules together, by model."""
        return self.account.xs("total", level="kind")

    @property
    def relative(self) -> pd.DataFrame:
        """The time of a step over that of the dense model, round by round."""
        return self.seconds.div(self.seconds.dense, axis=0)


def step_costs(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    ids_1T: torch.Tensor,
    sparsity: float,
    steps: Sequence[int],
    batch: int,
) -> StepCosts:
    """Return what steps cost of a model and of one pruned in every way, on text like `ids_1T`.

    Cost depends on shapes and zeros and not on which weights are zero, so pruning by magnitude will do.
    Structured pruning removes units, and the smaller model is counted and timed. Dense kernels have no use
    for 2:4 zeros, so that model is timed only on a GPU with kernels for them.
    """
    kinds = {
        "unstructured": preset("magnitude", sparsity=sparsity),
        "2:4": preset("magnitude", pattern="2:4"),
        "structured": preset("structured-magnitude", sparsity=sparsity, round_to=1),
    }
    length = ids_1T.shape[1]
    ids_BT = ids_1T.repeat(batch, 1)
    where_BT = (torch.arange(length) >= length // 2).expand(batch, -1)  # the mean over a generation

    models = {"dense": lm}
    accounts = {"dense": compute.account(lm, ids_1T, where_BT[:1])}
    for name, pruned in compute.cost_models(lm, kinds):
        accounts[name] = compute.account(pruned, ids_1T, where_BT[:1])
        if name != "2:4" or has_kernels(lm):
            models[name] = pruned
        del pruned  # so that its memory is free for the next

    key = {"fingerprint": fingerprint, "kinds": kinds, "batch": batch, "length": length}
    key |= {"device": device_name(run.device), "threads": torch.get_num_threads()}
    with ExitStack() as kernels:
        if has_kernels(lm):
            copied = replace(lm, model=copy.deepcopy(models["2:4"].model))
            models[KERNELS] = kernels.enter_context(semi_structured(copied))
        clock = run.record("latency", lambda: compute.latency(models, ids_BT, where_BT), **key)

    seconds = clock.pivot(index="round", columns="variant", values="seconds")

    flops = _generation_flops(models, length, steps, sparsity)
    return StepCosts(
        account=pd.concat(accounts, keys=["dense", *kinds], names=["model"]),
        seconds=seconds,
        batch=batch,
        flops=flops,
        matched=_matched(steps, length - 1, flops, float((seconds.structured / seconds.dense).median())),
    )


def _generation_flops(
    models: dict[str, LanguageModel], length: int, steps: Sequence[int], sparsity: float
) -> dict[str, dict[int, float]]:
    """Return the effective FLOPs of a generation by model and number of steps, of the dense one by all."""
    dense, structured, tokens = models["dense"], models["structured"], length - 1
    return {
        "dense": {k: compute.generation_flops(dense, tokens, 1, k) for k in range(1, length)},
        "unstructured": {k: compute.generation_flops(dense, tokens, 1, k, sparsity) for k in steps},
        "structured": {k: compute.generation_flops(structured, tokens, 1, k) for k in steps},
    }


def _matched(
    steps: Sequence[int], tokens: int, flops: dict[str, dict[int, float]], time_of_structured: float
) -> pd.DataFrame:
    """Return how many steps the dense model may take at most, for the FLOPs and the time of pruned ones."""
    matched = pd.DataFrame({"steps": steps})
    of_dense = flops["dense"]
    for column, name in ((FLOPS_OF_UNSTRUCTURED, "unstructured"), (FLOPS_OF_STRUCTURED, "structured")):
        budgets = [flops[name][k] for k in steps]
        matched[column] = [compute.affordable_steps(of_dense.get, budget, tokens) for budget in budgets]
    times = [k * time_of_structured for k in steps]
    matched[TIME_OF_STRUCTURED] = [compute.affordable_steps(float, time, tokens) for time in times]
    return matched


# scores, and differences at matched compute


def scores_in_steps(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    rows: Sequence[GridRow],
    texts: dict[str, torch.Tensor],
    draws: int,
    seeds: Sequence[int],
    steps: dict[str, list[int | None]],
) -> pd.DataFrame:
    """Return the scores of the dense model and of every row, by calibration draw and number of steps.

    `steps` says, by variant, at which numbers of steps; None is one token per step, 0 in the table.
    """

    def score(variant: Variant, labels: dict[str, object]) -> pd.DataFrame:
        return variant.scores(run, texts, draws, steps[labels["variant"]], **labels)

    length = next(iter(texts.values())).shape[1]
    return measured(score, lm, fingerprint, rows, length, seeds, dense_once=True)


def at(variant: str, count: int) -> dict[str, object]:
    """Return where the scores of a variant at a number of steps stand; 0 is one token per step."""
    return {"variant": variant, "steps": int(count)}


def minus_fewer_steps(scores: pd.DataFrame, matched: pd.DataFrame, variant: str, column: str) -> Estimate:
    """Return a variant less the dense model in as many steps as a column of `matched` says.

    It is a mean over all numbers of steps; what matters is a share of what fewer steps cost the dense model.
    """
    differences = []
    costs = []

    for count, of_dense in zip(matched.steps, matched[column], strict=True):
        sides = (at(variant, count), at("dense", of_dense), at("dense", 0))
        one, other, dense = on_common_draws(scores, *sides)
        differences.append(one - other)
        costs.append(other - dense)

    return beside_damage(np.mean(differences, axis=0), np.mean(costs, axis=0))


def findings(
    scores: pd.DataFrame,
    matched: pd.DataFrame,
    baselines: Collection[str],
    structured: Collection[str],
    in_steps: Collection[str] = (),
) -> dict[str, Estimate]:
    """Return pruned models less the dense one in fewer steps, by name of the finding: `unstable`, the recipes
    of `in_steps` and structured ones; and `unstable` less each baseline, of which what matters is a share of
    what the baseline costs.

    Differences to the dense model are means over all numbers of steps, and those of unstructured recipes are
    also found at each of them, as `{recipe}_minus_dense_steps_{number}`; `unstable` is `pruned` there.
    """
    found = {}
    for name in ("unstable", *in_steps):
        label = "pruned" if name == "unstable" else name.replace("-", "_")
        pruned = (name, FLOPS_OF_UNSTRUCTURED)
        found[f"{label}_minus_dense_steps"] = minus_fewer_steps(scores, matched, *pruned)
        for count in matched.steps:
            at_count = matched[matched.steps == count]
            found[f"{label}_minus_dense_steps_{count}"] = minus_fewer_steps(scores, at_count, *pruned)

    for name in structured:
        label = name.replace("-", "_")
        for ending, column in (("steps", FLOPS_OF_STRUCTURED), ("latency", TIME_OF_STRUCTURED)):
            difference = minus_fewer_steps(scores, matched, name, column)
            found[f"{label}_minus_dense_{ending}"] = difference

    beside = {
        f"unstable_minus_{other.replace('-', '_')}": ("unstable", other, "dense") for other in baselines
    }
    sides = {name: [at(variant, 0) for variant in compared] for name, compared in beside.items()}
    return found | compare_all(scores, sides)


def front(scores: pd.DataFrame, costs: StepCosts, structured: Collection[str]) -> pd.DataFrame:
    """Return what every model that was measured in fewer steps loses against the dense one that reveals one
    token per step, with what its generation costs, a row per model and number of steps.
    """
    rows = []
    measured = scores[scores.steps > 0][["variant", "steps"]].drop_duplicates()

    for variant, count in measured.itertuples(index=False):
        kind = "structured" if variant in structured else "unstructured"
        kind = "dense" if variant == "dense" else kind
        excess = compare(scores, at(variant, count), at("dense", 0))
        row = {"variant": variant, "steps": count, "tflop": costs.flops[kind][count] / 1e12}
        row |= {"seconds": count * costs.seconds[kind].median() / costs.batch, "excess": excess.value}
        rows.append(row | {"low": excess.low, "high": excess.high})

    return pd.DataFrame(rows)

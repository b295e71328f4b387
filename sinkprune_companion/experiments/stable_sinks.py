"""What is left out of the statistics of pruning, stable sinks among it, and the weights that this decides.

Dimensions: O output features, I input features of a linear map, R calibration rows, N calibration tokens or
sequences, C candidates among them, S steps, T tokens, X weights.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from sinkprune import load
from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune.evaluation.text_scores import score_texts
from sinkprune.models import adapters
from sinkprune.models.catalog import MODELS
from sinkprune.models.devices import choose_dtype
from sinkprune.models.loading import with_adapter
from sinkprune_companion import project_root
from sinkprune_companion.experiments.variants import SharedStatistics, Variant, fingerprint_of
from sinkprune_companion.run.records import Run
from sinkprune_companion.training.settings import SETTINGS, settings_of
from sinkprune_core import Calibration, LanguageModel, Recipe, weights_kept
from sinkprune_core.blocks import Rows, block_inputs, run_block
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.calibration.sink_profiles import sink_profiles, tracked_rows
from sinkprune_core.calibration.token_weights import SinkContext, heads_of, rows_for, token_weights
from sinkprune_core.diffusion.noise import random_mask
from sinkprune_core.language_model import weight_OI
from sinkprune_core.pruning.criteria import wanda
from sinkprune_core.pruning.engine import dense_statistics
from sinkprune_core.pruning.patterns import lowest, select
from sinkprune_core.seeds import generator

Place = tuple[int, str]  # number of a layer, name of a linear

CRITICAL_REVISION = 1  # of `critical`
RESTORED_REVISION = 1  # of `restored_scores`
ADAPTED = "smol-dlm"  # whose base an adapter is merged into
BATCH = 16  # rows that are sent through a block at a time
NEAR = 0.1  # how near the logarithm of a score must be to that of its row's threshold to count as close
CANDIDATES = 1024  # at least so many tokens are searched, those that change most alone
SINKS = {"all": "all sinks", "unstable": "unstable sinks"}
LARGEST, RANDOM, OTHER_TEXT = "largest change", "random tokens", "other text"
COMPARED = (("sinks", "random"), ("sinks", "largest"), ("largest", "other_text"))  # as findings


def diffusion_model(name: str, dtype: str = "auto", device: str = "cpu") -> LanguageModel:
    """Return a diffusion model by name or folder (in the project's), be it of an adapter; else ValueError."""
    folder = project_root() / name
    name = str(folder) if folder.is_dir() else name
    kind = settings_of(folder / SETTINGS)["kind"] if (folder / SETTINGS).exists() else "diffusion"
    if (folder / adapters.CONFIG).exists() and kind == "diffusion":
        lm = with_adapter(MODELS[ADAPTED], folder, choose_dtype(dtype, device))
        lm.model.requires_grad_(False).to(device)
        return replace(lm, name=folder.name)
    lm = load(name, dtype, device)
    if not lm.is_diffusion:
        raise ValueError(f"{name!r} is {lm.kind}: stable and unstable sinks are those of a diffusion model")
    return lm


def random_stable(context: SinkContext) -> torch.Tensor:
    """Return as many visible tokens in every step as there are stable sinks, drawn at random, (N, S, T)."""
    stable_NST, _ = context.split_sinks()
    drawn = []
    for sequence, stable_ST in enumerate(stable_NST, start=context.first_sequence):
        for step, stable_T in enumerate(stable_ST):
            rng = generator(context.seed, "as many random tokens as stable sinks", sequence, step)
            drawn.append(random_mask(context.visible_ST[step], int(stable_T.sum()), rng))
    return torch.stack(drawn).view_as(stable_NST)


# what leaves the statistics, by its name in tables
LEFT_OUT = {name: name for name in ("none", "unstable", "stable", "all", "random")}
LEFT_OUT["random, as many as stable"] = random_stable


def recipes(sparsity: float, noise_levels: int, **settings: object) -> dict[str, Recipe]:
    """Return Wanda on noised text with dense propagation for every choice of LEFT_OUT."""
    common = {"inputs": "noised", "propagation": "dense", "noise_levels": noise_levels, **settings}
    return {name: Recipe(sparsity=sparsity, exclude=choice, **common) for name, choice in LEFT_OUT.items()}


def weights_of(lm: LanguageModel) -> dict[Place, torch.Tensor]:
    """Return the weights of all linears of the blocks, views (O, I) that write through."""
    return {
        (layer, name): weight_OI(linear).detach()
        for layer, block in enumerate(lm.blocks)
        for name, linear in lm.linears(block).items()
    }


def mask_differences(
    lm: LanguageModel,
    variants: dict[str, tuple[Recipe, Calibration | None]],
    pairs: Sequence[tuple[str, str]],
) -> pd.DataFrame:
    """Return the share of kept weights that differ between two masks, for every pair, layer and linear.

    Columns `one`, `other`, `layer`, `linear`, `differ` = 1 - (kept by both) / (mean number kept): 0 for equal
    masks; two random masks of sparsity s have s. `variants` maps names to a recipe and its calibration text.
    """
    masks = {}  # packed bits of (O, I), by variant and place
    for name in dict.fromkeys(chain.from_iterable(pairs)):
        with Variant(lm, "", *variants[name]) as variant:
            variant.ready()
            weights = weights_of(lm).items()
            masks[name] = {place: np.packbits((kept_OI != 0).cpu().numpy()) for place, kept_OI in weights}
    rows = []
    for one, other in pairs:
        for place, bits in masks[one].items():
            other_bits = masks[other][place]
            both, kept, other_kept = (
                int(np.bitwise_count(each).sum()) for each in (bits & other_bits, bits, other_bits)
            )
            rows.append((one, other, *place, 1 - 2 * both / (kept + other_kept)))
    return pd.DataFrame(rows, columns=["one", "other", "layer", "linear", "differ"])


@torch.no_grad()
def linear_inputs(
    lm: LanguageModel, ids_RT: torch.Tensor, layers: Sequence[int], batch: int, progress: bool
) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """Yield `layers` in order, each with what its linears receive from a dense model, (N, I), on the CPU."""
    received = defaultdict(list)

    def keep(linear: nn.Module, args: tuple, name: str) -> None:
        received[name].append(args[0].flatten(0, 1).cpu())

    states = block_inputs(lm, Rows(ids_RT, None), batch)
    blocks = lm.blocks[: max(layers) + 1]
    for layer, block in enumerate(tqdm(blocks, desc="inputs", unit="block", disable=not progress)):
        linears = lm.linears(block) if layer in layers else {}
        with ExitStack() as hooks:
            for name, linear in linears.items():
                hooks.enter_context(linear.register_forward_pre_hook(partial(keep, name=name)))
            states = run_block(block, states)
        if linears:
            yield layer, {name: torch.cat(received.pop(name)) for name in linears}


# the weights that leave with the stable sinks


def critical(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    kept_by: Recipe,
    without: Recipe,
    text: Calibration,
    shared: SharedStatistics,
    sequences: int,
    count: int,
    **labels: object,
) -> pd.DataFrame:
    """Return the record of the `count` first `lost_weights`, which `kept_by` keeps and `without` does not.

    The inputs are those at tokens that `without` leaves out of the first `sequences`; `lm` must be dense.
    """

    def compute() -> pd.DataFrame:
        few = replace(text, ids_NT=text.ids_NT[:sequences])
        rows = rows_for(lm, few, without.statistics_key, progress=False)
        statistics = (shared.of(kept_by), shared.of(without))
        return lost_weights(lm, without, *statistics, largest_inputs(lm, rows), count)

    key = {"model": lm.name, "fingerprint": fingerprint, "kept_by": kept_by, "without": without}
    key |= {"calibration": text.fingerprint, "sequences": sequences, "count": count}
    return run.record("critical", compute, CRITICAL_REVISION, labels, **key)


def largest_inputs(lm: LanguageModel, rows: Rows) -> dict[Place, torch.Tensor]:
    """Return the largest |x| of a dense model's inputs at the tokens of `rows` that weigh 0, (I,); else 0."""
    is_left_out_N = (rows.weight_RT == 0).flatten()
    largest = {}
    for layer, inputs in linear_inputs(lm, rows.ids_RT, range(len(lm.blocks)), BATCH, progress=False):
        for name, input_NI in inputs.items():
            size_XI = input_NI[is_left_out_N].abs().float()
            largest[layer, name] = size_XI.amax(0) if len(size_XI) else torch.zeros(input_NI.shape[1])
    return largest


def lost_weights(
    lm: LanguageModel,
    recipe: Recipe,
    statistics: DenseStatistics,
    without: DenseStatistics,
    largest: Mapping[Place, torch.Tensor],
    count: int,
) -> pd.DataFrame:
    """Return the most important weights that some statistics keep and others do not, a row each, in order.

    The model is dense, and the recipe one of Wanda with zeros per row. Columns: `layer`, `linear`, `output`,
    `input`, `weight`; `importance`, its size times the `largest` input that it meets; `rank`, from 1; `lost`,
    how many there are in all; and `replaced_by`, the input of a weight of the same output that only the
    second mask keeps, the lowest score first.
    """
    choose = select(recipe.pattern, recipe.sparsity)
    weights = weights_of(lm)
    gained = {}
    parts = []
    lost = 0
    for (layer, name), weights_OI in weights.items():
        pruned_OI, pruned_without_OI = (
            choose(wanda(weights_OI, each.layers[layer][name]), 0, weights_OI.shape[1])
            for each in (statistics, without)
        )
        gained[layer, name] = pruned_OI & ~pruned_without_OI
        output_X, input_X = (pruned_without_OI & ~pruned_OI).nonzero(as_tuple=True)
        lost += len(output_X)
        weight_X = weights_OI[output_X, input_X]
        importance_X = weight_X.float().abs() * largest[layer, name].to(weights_OI.device)[input_X]
        top_X = importance_X.argsort(descending=True, stable=True)[:count]
        columns = {"output": output_X, "input": input_X}
        columns |= {"weight": weight_X.double(), "importance": importance_X.double()}
        top = {column: values_X[top_X].cpu().numpy() for column, values_X in columns.items()}
        parts.append(pd.DataFrame({"layer": layer, "linear": name, **top}))
    ranked = pd.concat(parts).sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    ranked = ranked.head(count)
    ranked = ranked.assign(rank=ranked.index + 1, lost=lost, replaced_by=-1)
    for (layer, name, output), of_output in ranked.groupby(["layer", "linear", "output"], sort=False):
        score_I = wanda(weights[layer, name][[output]], without.layers[layer][name])[0]
        score_I = score_I.masked_fill(~gained[layer, name][output], torch.inf)
        lowest_first = score_I.argsort(stable=True)
        ranked.loc[of_output.index, "replaced_by"] = lowest_first[: len(of_output)].tolist()
    return ranked


@contextmanager
def restored(lm: LanguageModel, lost: pd.DataFrame) -> Iterator[None]:
    """Exchange lost weights and those that replaced them while a block runs, in a pruned model."""
    weights = weights_of(lm)
    with weights_kept(lm):
        for place, part in lost.groupby(["layer", "linear"], sort=False):
            weights_OI = weights[place]
            outputs, inputs, replaced, values = (
                torch.tensor(part[column].to_numpy(), device=weights_OI.device)
                for column in ("output", "input", "replaced_by", "weight")
            )
            weights_OI[outputs, inputs] = values.to(weights_OI.dtype)
            weights_OI[outputs, replaced] = 0
        yield


def restored_scores(
    run: Run,
    variant: Variant,
    lost: pd.DataFrame,
    counts: Sequence[int],
    texts: dict[str, torch.Tensor],
    draws: int,
    noise: int,
    **labels: object,
) -> pd.DataFrame:
    """Return a variant's `score_texts` with the first so many `critical` weights back, a record per count."""
    places = lost[["rank", "layer", "linear", "output", "input", "replaced_by"]].to_csv(index=False)
    key = {**variant.key, "weights": hashlib.sha256(places.encode()).hexdigest()[:16]}
    key |= {"data": fingerprint_of(texts), "draws": draws, "evaluation_seed": noise}
    frames = []
    for count in counts:

        def compute(first: pd.DataFrame = lost[lost["rank"] <= count]) -> pd.DataFrame:
            variant.ready()
            with restored(variant.lm, first):
                return score_texts(variant.lm, texts, draws, seed=noise)

        frames.append(run.record("restored", compute, RESTORED_REVISION, labels, **key, restored=count))
    return pd.concat(frames, ignore_index=True)


# how much any choice of few tokens can change, and how much sinks do


def token_reach(
    lm: LanguageModel, recipe: Recipe, calibration: Calibration, other: Calibration, layers: Sequence[int]
) -> pd.DataFrame:
    """Return the share of kept weights that change when tokens leave the statistics of a dense model.

    One row per block of `layers`, linear and choice of tokens. Columns: `layer`, `linear`, `choice`, `tokens`
    (how many are left out), `share` (of all tokens) and `changed`. Choices are all and unstable sinks;
    `largest change`, searched greedily, and random tokens, for powers of two and as many as there are sinks;
    and `other text`, whose statistics are those of `other`. `recipe` is one of Wanda with dense propagation,
    hard sinks and zeros per row, whatever its `exclude`. Raises ValueError for a block that the model lacks.
    """
    if unknown := [layer for layer in layers if not 0 <= layer < len(lm.blocks)]:
        raise ValueError(f"layers={unknown} must lie in 0 to {len(lm.blocks) - 1}, the numbers of the blocks")
    recipe = replace(recipe, exclude="none")
    ids_RT = tracked_rows(lm, calibration, recipe.noise_levels, recipe.noise)
    profiles = sink_profiles(lm, calibration, recipe.noise_levels, recipe.noise)
    sinks = {}  # numbers of the tokens, int64, by the name of the choice
    for exclude, label in SINKS.items():
        key = replace(recipe.statistics_key, exclude=exclude)
        weight_RT = token_weights(SinkContext(*profiles, key, heads_of(lm), calibration.seed))
        sinks[label] = (weight_RT.flatten() == 0).nonzero().squeeze(-1)
    tokens = ids_RT.numel()
    found = {len(chosen) for chosen in sinks.values()}
    most = max(1, *found)
    counts = sorted(({2**power for power in range(most.bit_length())} | found) - {0})
    random_order = torch.randperm(tokens, generator=generator(calibration.seed, "token reach"))
    of_other = dense_statistics(lm, [recipe], other)[recipe.statistics_key].layers
    weights = weights_of(lm)
    rows = []
    for layer, inputs in linear_inputs(lm, ids_RT, layers, calibration.batch, progress=True):
        for name, input_NI in inputs.items():
            search = Search(weights[layer, name].cpu(), input_NI, recipe.sparsity)
            ranked = {LARGEST: search.greedy(most), RANDOM: random_order}
            few = [(label, ranked[label][:count]) for label in ranked for count in counts]
            for choice, chosen in [*sinks.items(), *few]:
                changed = search.changed(search.squares_I - _squares(input_NI[chosen]))
                rows.append((layer, name, choice, len(chosen), len(chosen) / tokens, changed))
            changed = search.changed(of_other[layer][name].norm_I.cpu().double().square())
            rows.append((layer, name, OTHER_TEXT, tokens, 1.0, changed))
    return pd.DataFrame(rows, columns=["layer", "linear", "choice", "tokens", "share", "changed"])


def reach_findings(frame: pd.DataFrame) -> dict[str, Estimate]:
    """Return shares of kept weights that change, by the choice of as many tokens as there are sinks.

    `frame` is what `token_reach` returns for one kind of calibration text; intervals are over linear maps.
    Empty without sinks, or with fewer than two linear maps.
    """
    sinks = frame[frame.choice == SINKS["all"]]
    if len(sinks) < 2 or sinks.tokens.iloc[0] == 0:
        return {}
    same_count = frame[(frame.tokens == sinks.tokens.iloc[0]) | (frame.choice == OTHER_TEXT)]
    labels = {"sinks": SINKS["all"], "random": RANDOM, "largest": LARGEST, "other_text": OTHER_TEXT}
    by_choice = same_count.set_index(["layer", "linear"])
    changed = {name: by_choice.changed[by_choice.choice == label] for name, label in labels.items()}
    findings = {f"reach_{name}": interval(values) for name, values in changed.items()}
    for one, other in COMPARED:
        findings[f"reach_{one}_minus_{other}"] = interval(changed[one] - changed[other])
    return findings


class Search:
    """The weights of one linear, (O, I), that Wanda keeps per row by inputs (N, I), both on the CPU."""

    def __init__(self, weight_OI: torch.Tensor, input_NI: torch.Tensor, sparsity: float):
        self.size_OI = weight_OI.double().abs()
        self.input_NI = input_NI
        self.squares_I = _squares(input_NI)
        self.sparsity = sparsity
        self.kept_OI = self._kept(self.squares_I)

    def _kept(self, squares_I: torch.Tensor) -> torch.Tensor:
        score_OI = self.size_OI * squares_I.clamp_min(0).sqrt()
        return ~lowest(score_OI.float(), int(score_OI.shape[1] * self.sparsity))

    def changed(self, squares_I: torch.Tensor) -> float:
        """Return the share of the kept weights that squared norms (I,) would not keep."""
        both = int((self.kept_OI & self._kept(squares_I)).sum())
        return 1 - both / int(self.kept_OI.sum())

    def greedy(self, count: int) -> torch.Tensor:
        """Return numbers of tokens, int64 (count,), each the one that adds most to what those before change.

        The measure is of first order. A token's share of a squared norm, p_tj, lowers the logarithm of the
        scores of column j by p_tj / 2, and every threshold by the mean over weights close to it. A set S then
        moves sum_j r_j |sum_S (p_tj - mean)| weights, r_j of which are close per unit.
        """
        score_OI = (self.size_OI * self.squares_I.sqrt()).clamp_min(1e-30).log()
        threshold_O1 = score_OI.masked_fill(~self.kept_OI, torch.inf).amin(1, keepdim=True)
        close_I = ((score_OI - threshold_O1).abs() < NEAR).sum(0).float()
        share_NI = self.input_NI.float().square() / self.squares_I.clamp_min(1e-30).float()
        shift_NI = (share_NI - (share_NI @ close_I)[:, None] / close_I.sum()) * close_I
        alone_N = shift_NI.abs().sum(1)
        candidates_C = alone_N.argsort(descending=True)[: max(CANDIDATES, 4 * count)]
        shift_CI = shift_NI[candidates_C]
        total_I = torch.zeros_like(close_I)
        is_left_C = torch.ones(len(candidates_C), dtype=torch.bool)
        chosen = []
        for _ in range(min(count, len(candidates_C))):
            moved_C = (shift_CI + total_I).abs_().sum(1)
            best = int(moved_C.masked_fill(~is_left_C, -1).argmax())
            total_I += shift_CI[best]
            is_left_C[best] = False
            chosen.append(best)
        return candidates_C[chosen]


def _squares(input_NI: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares of every input feature over tokens, float64 (I,)."""
    return input_NI.float().square().sum(0, dtype=torch.float64)

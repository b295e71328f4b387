"""Statistics of the dense model: taken once, they serve every recipe that prunes from dense activations.

Activations of a dense model depend on no recipe, only the weights of tokens do. So one pass of the
calibration text collects the statistics of many choices of tokens, and all controls of an experiment cost as
much as one.

Dimensions: R calibration rows, T position, W choices of token weights.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from sinkprune_core.calibration.input_statistics import InputStatistics, observe
from sinkprune_core.calibration.sink_profiles import (
    profile,
    sink_profiles,
    tracked_rows,
    visible_keys,
    windows_of,
)
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import (
    EXCLUDE,
    SinkContext,
    StatisticsKey,
    check_weights,
    heads_of,
    rows_for,
    token_weights,
)
from sinkprune_core.models.blocks import HiddenStore, Rows, block_inputs, run_block, visit
from sinkprune_core.models.forwards import check_output
from sinkprune_core.models.language_model import LanguageModel, weight_OI
from sinkprune_core.sinks import attention

WAITING_BYTES = 1 << 30  # inputs that may be held on a CPU until the weights of their tokens are known
WAITING_SHARE = 0.25  # of a GPU's memory that they may take there
ENOUGH_BYTES = 3 << 27  # inputs that are worth it: with more sequences at a time a forward is no faster

Layers = list[dict[str, InputStatistics]]  # per block, what each of its linears receives


@dataclass(frozen=True)
class DenseStatistics:
    """Statistics of what every linear of a dense model receives, and what they cost."""

    layers: Layers  # per block, by the linear's name
    tokens: int  # calibration tokens that went through the model
    left_out_share: float  # 1 minus the mean weight of a calibration token
    seconds: float  # for all recipes that shared the pass
    # of the recipes that they serve, and the fingerprint of the text: a work folder knows both
    key: StatisticsKey | None = None
    text: str | None = None


@torch.no_grad()
def collect(
    lm: LanguageModel,
    keys: Sequence[StatisticsKey],
    calibration: Calibration,
    progress: bool = True,
    hidden_store: HiddenStore | None = None,
) -> dict[StatisticsKey, DenseStatistics]:
    """Return the statistics of every key; whether keys fit the model is not checked.

    Keys with the same states of the text share one pass. Where the forwards that show the sinks are those
    whose inputs are wanted, one forward serves both. Hidden states that wait for the next block lie in
    `hidden_store` where there is one, else on the model's device.
    """
    by_trajectory: dict[tuple, list[StatisticsKey]] = {}
    for key in dict.fromkeys(keys):
        by_trajectory.setdefault(key.trajectory, []).append(key)
    found: dict[StatisticsKey, DenseStatistics] = {}
    for trajectory in sorted(by_trajectory):
        found |= _Pass(lm, by_trajectory[trajectory], calibration, progress, hidden_store).collect()
    return found


@dataclass(frozen=True)
class _Pass:
    """A pass of the calibration text through the dense model, for keys that share its states."""

    lm: LanguageModel
    keys: list[StatisticsKey]
    calibration: Calibration
    progress: bool
    hidden_store: HiddenStore | None

    def collect(self) -> dict[StatisticsKey, DenseStatistics]:
        started = time.perf_counter()
        needs_sinks = any(key.exclude != "none" for key in self.keys)
        rows_at_once = 0
        if needs_sinks:
            rows_at_once = one_pass(self.lm, self.keys, self.calibration, input_budget(self.lm.device))
        if rows_at_once:
            rows, by_key = self._with_sinks(rows_at_once)
        else:
            rows, by_key = self._by_blocks(needs_sinks)
        seconds = time.perf_counter() - started
        found = {}
        for key, weight_RT, layers in zip(self.keys, rows.weight_RT, by_key, strict=True):
            check_weights(weight_RT, key)
            left_out_share = Rows(rows.ids_RT, weight_RT).left_out_share
            text = self.calibration.fingerprint
            found[key] = DenseStatistics(layers, rows.tokens, left_out_share, seconds, key, text)
        return found

    def _by_blocks(self, needs_sinks: bool) -> tuple[Rows, list[Layers]]:
        """Send all rows through block after block; another pass has shown the sinks before."""
        first = self.keys[0]
        profiles = None
        if needs_sinks:
            profiles = sink_profiles(
                self.lm, self.calibration, first.noise_levels, first.noise, self.progress, self.hidden_store
            )
        rows_by_key = [rows_for(self.lm, self.calibration, key, self.progress, profiles) for key in self.keys]
        ids_RT = rows_by_key[0].ids_RT
        weights = [torch.ones(ids_RT.shape) if r.weight_RT is None else r.weight_RT for r in rows_by_key]
        rows = Rows(ids_RT, torch.stack(weights))
        store = self.hidden_store(rows) if self.hidden_store else lambda layer: None
        by_key: list[Layers] = [[] for _ in self.keys]
        states = block_inputs(self.lm, rows, self.calibration.batch, store(0))
        what = f"statistics of {self.lm.name}"
        for layer, block in enumerate(visit(self.lm, self.progress, what)):
            with observe(self.lm.linears(block), len(self.keys)) as observer:
                states = run_block(block, states, observer, store(layer + 1))
            for choice, layers in enumerate(by_key):
                layers.append(observer.statistics(choice))
        return rows, by_key

    def _with_sinks(self, rows_at_once: int) -> tuple[Rows, list[Layers]]:
        """Run every row once: the attention of a forward says how much the tokens of its inputs weigh."""
        lm, first = self.lm, self.keys[0]
        length = self.calibration.ids_NT.shape[1]
        windows = windows_of(lm, length, first.noise_levels)
        rows_together = _rows_together(lm, self.keys)
        steps = first.noise_levels
        if windows is None:
            steps = rows_together  # a state that is weighed alone is a trajectory of one step
        visible_ST = visible_keys(length, windows, steps)
        ids_RT = tracked_rows(lm, self.calibration, first.noise_levels, first.noise)
        linears = {
            (layer, name): linear
            for layer, block in enumerate(lm.blocks)
            for name, linear in lm.linears(block).items()
        }
        starts = tqdm(
            range(0, len(ids_RT), rows_at_once),
            desc=f"sinks and statistics of {lm.name}",
            unit="batch",
            disable=not self.progress,
            leave=False,
        )
        weights: list[torch.Tensor] = []
        with (
            attention.track(lm.model, windows) as tracker,
            observe(linears, len(self.keys), deferred=True) as observer,
        ):
            for start in starts:
                lm.hidden(ids_RT[start : start + rows_at_once])
                mass_RLHWK = check_output(lm, tracker.take())
                profile_NST = profile(mass_RLHWK.mean((1, 2)).cpu(), windows, steps)
                weights.append(self._weights(profile_NST, visible_ST, start // rows_together))
                observer.flush(weights[-1])
        by_key = [_by_layer(observer.statistics(choice), lm) for choice in range(len(self.keys))]
        return Rows(ids_RT, torch.cat(weights, dim=1)), by_key

    def _weights(self, profile_NST: torch.Tensor, visible_ST: torch.Tensor, first: int) -> torch.Tensor:
        """Return the token weights of a batch that begins with sequence `first`, for every key, (W, R, T)."""
        seed = self.calibration.seed
        weights = []
        for key in self.keys:
            context = SinkContext(profile_NST, visible_ST, key, heads_of(self.lm), seed, first)
            weights.append(token_weights(context))
        return torch.stack(weights)


def _by_layer(statistics: dict[tuple[int, str], InputStatistics], lm: LanguageModel) -> Layers:
    layers = []
    for layer, block in enumerate(lm.blocks):
        layers.append({name: statistics[layer, name] for name in lm.linears(block)})
    return layers


# whether one pass is enough


def input_budget(device: torch.device | str) -> int:
    """Return the bytes of inputs that may wait for the weights of their tokens.

    A fixed number on a CPU, so that results do not depend on the machine.
    """
    if torch.device(device).type != "cuda":
        return WAITING_BYTES
    _, total = torch.cuda.mem_get_info(device)
    return int(WAITING_SHARE * total)


def row_bytes(lm: LanguageModel, length: int) -> int:
    """Return the bytes of all distinct inputs of the linears, for a row of `length` tokens.

    The linears of a module (attention, MLP) read what enters it, except the last one, which reads what they
    made.
    """
    widths: dict[str, list[int]] = {}
    for name, linear in lm.linears(lm.blocks[0]).items():
        module = name.rpartition(".")[0]
        widths.setdefault(module, []).append(weight_OI(linear).shape[1])
    features = sum(inputs[0] + inputs[-1] for inputs in widths.values())
    return length * len(lm.blocks) * features * lm.model.dtype.itemsize


def one_pass(
    lm: LanguageModel, keys: Sequence[StatisticsKey], calibration: Calibration, memory_budget: int
) -> int:
    """Return how many rows can run at once if one pass serves both sinks and statistics, 0 if two are needed.

    In one pass all inputs of a forward are held, in `memory_budget` bytes, until its sinks are known. That
    needs keys whose sinks show in the forwards whose inputs are wanted. The answer follows from shapes alone.
    """
    if lm.is_streamed or (lm.is_diffusion and keys[0].inputs == "clean"):
        return 0
    rows_together = _rows_together(lm, keys)
    size = rows_together * row_bytes(lm, calibration.ids_NT.shape[1])
    if size > memory_budget:
        return 0
    in_batch = max(1, calibration.batch // rows_together)
    in_enough_bytes = max(1, ENOUGH_BYTES // size)
    return rows_together * min(in_batch, in_enough_bytes)


def _rows_together(lm: LanguageModel, keys: Sequence[StatisticsKey]) -> int:
    """Return how many rows must run before their tokens can be weighed: a whole trajectory, or 1 if that will
    do.

    A function of the user's may compare all states of a sequence.
    """
    if not lm.is_diffusion:
        return 1
    by_row = [isinstance(key.exclude, str) and EXCLUDE[key.exclude].by_row for key in keys]
    return 1 if all(by_row) else keys[0].noise_levels

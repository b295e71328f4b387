"""Statistics of the dense model: taken once, they serve every recipe that prunes from dense activations.

Activations of a dense model depend on no recipe, only the weights of tokens do. So one pass of the
calibration text collects the statistics of many choices of tokens: all controls of an experiment cost as one.

Dimensions: R calibration rows, T position, W choices of token weights; of sequences N, their steps S; of
attention L layers, H heads, K keys, which are the tokens T.
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from sinkprune_core.blocks import Rows, Steps, run_block, visit, with_bar
from sinkprune_core.calibration.input_statistics import Held, InputStatistics, Observer, observe
from sinkprune_core.calibration.sink_profiles import (
    profile,
    sink_profiles,
    tracked_rows,
    visible_keys,
    windows_of,
)
from sinkprune_core.calibration.store import IN_MEMORY, PassState, Store, inputs_before
from sinkprune_core.calibration.text import Calibration, Trajectories
from sinkprune_core.calibration.token_weights import (
    EXCLUDE,
    StatisticsKey,
    check_weights,
    input_rows,
    weights_in_text,
)
from sinkprune_core.forwards import check_output
from sinkprune_core.language_model import LanguageModel, LinearAt
from sinkprune_core.sinks import attention

WAITING_BYTES = 1024**3  # inputs that may wait on a CPU until the weights of their tokens are known
WAITING_SHARE = 0.25  # of a GPU's free memory that they may take there
ENOUGH_BYTES = 384 * 1024**2  # inputs that are worth it: with more sequences at a time a forward is no faster
SAMPLED = 64  # numbers of every parameter that tell a model from another one

Layers = list[dict[str, InputStatistics]]  # per block, what each of its linears receives


@dataclass(frozen=True, eq=False)
class DenseStatistics:
    """Statistics of what every linear of a dense model receives, and what they cost."""

    layers: Layers  # per block, by the linear's name
    tokens: int  # calibration tokens that went through the model
    left_out_share: float  # 1 minus the mean weight of a calibration token
    seconds: float  # for all recipes that shared the pass
    origin: "Origin | None" = None  # whose they are; what lies in a work folder is known by that


@dataclass(frozen=True)
class Origin:
    """What statistics were taken from and for."""

    key: StatisticsKey  # of the recipes that they serve
    text: str  # the calibration text's fingerprint
    model: str  # the model's name
    weights: str  # `weights_sample` of the model

    @classmethod
    def of(cls, lm: LanguageModel, key: StatisticsKey, calibration: Calibration) -> "Origin":
        """Return the origin of statistics that are taken now."""
        return cls(key, calibration.fingerprint, lm.name, weights_sample(lm))


def weights_sample(lm: LanguageModel) -> str:
    """Return a SHA-256 prefix over a few numbers of every parameter, evenly spaced; of all no copy is made.

    It tells models of one name apart, and a pruned model from the dense one. A parameter that is not in
    memory counts by its name and shape alone.
    """
    digest = hashlib.sha256(f"{lm.kind} {lm.mask_token_id}".encode())

    for name, parameter in lm.model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        if parameter.is_meta:
            continue

        step = max(1, parameter.numel() // SAMPLED)
        sample = parameter.detach().flatten()[::step][:SAMPLED]
        digest.update(sample.float().cpu().numpy().tobytes())

    return digest.hexdigest()[:16]


@torch.no_grad()
def collect(
    lm: LanguageModel,
    keys: Sequence[StatisticsKey],
    calibration: Calibration,
    progress: bool = True,
    store: Store = IN_MEMORY,
    states: Trajectories | None = None,
    at_once: int | None = None,
    kind: "type[DensePass] | None" = None,
) -> dict[StatisticsKey, DenseStatistics]:
    """Return the statistics of every key; whether keys fit the model is not checked.

    Keys with the same states of the text share one pass. Where the forwards that show the sinks are those
    whose inputs are wanted, one forward serves both, if there is room for the inputs. What waits lies in
    `store`. `states` are the trajectories of this text, where some are made already, `at_once` is what
    `rows_at_once` says, where a `Plan` has asked it, and `kind` is that of the passes.
    """
    kind = kind or DensePass
    states = states or Trajectories(lm, calibration)

    by_trajectory: dict[tuple, list[StatisticsKey]] = {}
    for key in dict.fromkeys(keys):
        by_trajectory.setdefault(key.trajectory, []).append(key)

    found: dict[StatisticsKey, DenseStatistics] = {}
    for trajectory in sorted(by_trajectory):
        together = by_trajectory[trajectory]
        rows = rows_at_once(lm, together, calibration, store) if at_once is None else at_once
        found |= kind(lm, together, calibration, progress, store, states, rows).collect()

    return found


@dataclass(frozen=True, eq=False)
class Seen:
    """The rows that have gone through the model, how much their tokens weigh, and what was observed."""

    ids_RT: torch.Tensor
    weight_WRT: torch.Tensor  # a choice per key
    observer: Observer[LinearAt]


@dataclass(frozen=True)
class DensePass:
    """A pass of the calibration text through the dense model, for keys that share its states."""

    lm: LanguageModel
    keys: list[StatisticsKey]
    calibration: Calibration
    progress: bool
    store: Store
    states: Trajectories
    rows_at_once: int  # in one forward that shows their sinks and their statistics; 0: there is none

    def collect(self) -> dict[StatisticsKey, DenseStatistics]:
        """Run the pass, and return the statistics of every key."""
        started = time.perf_counter()
        seen = self.run()
        seconds = time.perf_counter() - started

        found = {}
        for choice, (key, weight_RT) in enumerate(zip(self.keys, seen.weight_WRT, strict=True)):
            check_weights(weight_RT, key)
            rows = self._rows(seen.ids_RT, weight_RT)

            layers: Layers = [{} for _ in self.lm.blocks]
            for (layer, name), inputs in seen.observer.statistics(choice).items():
                layers[layer][name] = inputs

            origin = Origin.of(self.lm, key, self.calibration)
            found[key] = DenseStatistics(layers, rows.tokens, rows.left_out_share, seconds, origin)

        return found

    def run(self) -> Seen:
        """Send the rows through the model in the way that there is room for."""
        if self.rows_at_once:
            return self._with_sinks()
        return self._by_blocks()

    def steps(self, steps: range, state: PassState) -> Steps:
        """Return the steps of this pass that are left."""
        return self.store.steps(steps, state)

    def observed(self, held: Held | None = None) -> AbstractContextManager[Observer[LinearAt]]:
        """Return a context in which the inputs of all linears are observed."""
        return observe(self.lm.all_linears(), len(self.keys), held=held)

    def _rows(self, ids_RT: torch.Tensor, weight_RT: torch.Tensor) -> Rows:
        return Rows(ids_RT, weight_RT, self.calibration.present_in(len(ids_RT)))

    def _by_blocks(self) -> Seen:
        """Send all rows through block after block; if sinks are wanted, another pass shows them before."""
        ids_RT, weight_WRT = self.weighted_rows(self.store)
        rows = self._rows(ids_RT, weight_WRT)
        hidden = self.store.hidden(self.lm, rows)
        what = f"statistics of {self.lm.name}"

        with self.observed() as observer:
            state = PassState(("statistics", self.keys, weight_WRT), observer=observer, hidden=hidden)
            layers = self.steps(range(len(self.lm.blocks)), state)
            inputs = inputs_before(self.lm, rows, self.calibration.batch, hidden, layers.start)

            for layer, block in visit(self.lm, self.progress, what, layers):
                inputs = run_block(block, inputs, observer, hidden(layer + 1))

        return Seen(ids_RT, weight_WRT, observer)

    def weighted_rows(self, store: Store) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the calibration rows, (R, T), and the weights of their tokens for every key, (W, R, T).

        Where sinks are wanted, forwards show them; what these need waits in `store`.
        """
        lm, key = self.lm, self.keys[0]
        profiles = None
        if any(key.exclude != "none" for key in self.keys):
            profiles = sink_profiles(
                lm, self.calibration, key.noise_levels, key.noise, self.progress, store, self.states
            )

        ids_RT = input_rows(lm, self.calibration, key, self.states)
        if profiles is not None:
            profile_NST, _ = profiles
            return ids_RT, self.weights(profile_NST)

        present_RT = self.calibration.present_in(len(ids_RT))
        weight_RT = torch.ones(ids_RT.shape) if present_RT is None else present_RT.float()
        return ids_RT, weight_RT.repeat(len(self.keys), 1, 1)

    def _with_sinks(self) -> Seen:
        """Run every row once: the attention of a forward says how much the tokens of its inputs weigh."""
        lm, first = self.lm, self.keys[0]
        length = self.calibration.ids_NT.shape[1]
        windows = windows_of(lm, length, first.noise_levels)
        rows_together = _rows_together(lm, self.keys)
        # a state that is weighed alone is a trajectory of one step
        levels = rows_together if windows is None else first.noise_levels
        what = f"sinks and statistics of {lm.name}"

        ids_RT = tracked_rows(lm, self.calibration, first.noise_levels, first.noise, self.states)
        weight_WRT = torch.zeros(len(self.keys), *ids_RT.shape)
        profile_NST = torch.zeros(len(ids_RT) // rows_together, levels, length)
        sums = {"profile": profile_NST, "weights": weight_WRT}

        with attention.track(lm.model, windows) as tracker, self.observed(held={}) as observer:
            # a pass that goes on finds in its sums and its observer what was summed before the first start
            state = PassState(("batches", self.keys), sums, observer)
            starts = self.steps(range(0, len(ids_RT), self.rows_at_once), state)

            for start in with_bar(starts, what, "batch", self.progress):
                batch_RT = ids_RT[start : start + self.rows_at_once]
                of_batch_NST = profile(self._mass(batch_RT, tracker), windows, levels)
                first_sequence = start // rows_together
                of_batch_WRT = self.weights(of_batch_NST, first_sequence)
                observer.flush(of_batch_WRT)

                profile_NST[first_sequence : first_sequence + len(of_batch_NST)] = of_batch_NST
                weight_WRT[:, start : start + len(batch_RT)] = of_batch_WRT

        return Seen(ids_RT, weight_WRT, observer)

    def _mass(self, batch_RT: torch.Tensor, tracker: attention.Tracker) -> torch.Tensor:
        """Run some rows; return the attention mass of every key, mean over layers and heads, (R, S, K)."""
        self.lm.hidden(batch_RT)
        mass_RLHSK = check_output(self.lm, tracker.take())
        return mass_RLHSK.mean((1, 2)).cpu()

    def weights(self, profile_NST: torch.Tensor, first_sequence: int = 0) -> torch.Tensor:
        """Return the token weights of some sequences for every key, (W, R, T)."""
        _, steps, length = profile_NST.shape
        windows = windows_of(self.lm, length, self.keys[0].noise_levels)
        visible_ST = visible_keys(length, windows, steps)

        weights = [
            weights_in_text(self.lm, self.calibration, key, profile_NST, visible_ST, first_sequence)
            for key in self.keys
        ]
        return torch.stack(weights)


# how many rows run at once


def sinks_show(lm: LanguageModel, keys: Sequence[StatisticsKey], calibration: Calibration) -> bool:
    """Return whether the forwards whose inputs are wanted show the sinks; those of padded rows do not."""
    is_shown = keys[0].inputs == "noised" or not lm.is_diffusion
    is_asked = any(key.exclude != "none" for key in keys)
    return is_shown and is_asked and calibration.present_NT is None


def rows_at_once(
    lm: LanguageModel,
    keys: Sequence[StatisticsKey],
    calibration: Calibration,
    store: Store = IN_MEMORY,
    device: torch.device | str | None = None,
    memory_budget: int | None = None,
) -> int:
    """Return how many rows run at once, so that one forward shows the sinks and the statistics for `keys`.

    Their inputs wait in memory until the sinks are known. It is 0 where `memory_budget`, by default that of
    `device`, does not hold those of a state or of a trajectory; where sinks do not show in these forwards;
    and of a model whose blocks are read, which would be read once for each batch.
    """
    if store.reads_blocks or not sinks_show(lm, keys, calibration):
        return 0

    rows_together = _rows_together(lm, keys)
    size = rows_together * row_bytes(lm, calibration.ids_NT.shape[1])
    budget = input_budget(torch.device(device or lm.device)) if memory_budget is None else memory_budget
    if size > budget:
        return 0

    in_batch = max(1, calibration.batch // rows_together)
    in_enough_bytes = max(1, ENOUGH_BYTES // size)
    return rows_together * min(in_batch, in_enough_bytes)


def input_budget(device: torch.device) -> int:
    """Return the bytes of inputs that may wait in memory.

    A fixed number on a CPU, and `budget_on_gpu` on a GPU, where PyTorch keeps some memory that it does not
    use. The budget decides whether the text passes once or twice, which changes results by rounding alone.
    """
    if device.type != "cuda":
        return WAITING_BYTES

    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return budget_on_gpu(free + unused)


def budget_on_gpu(free: float) -> int:
    """Return the bytes of inputs that may wait on a GPU with so many bytes free beside the model."""
    return int(WAITING_SHARE * max(0.0, free))


def row_bytes(lm: LanguageModel, length: int) -> int:
    """Return the bytes of all distinct inputs of the linears, for a row of `length` tokens."""
    return length * len(lm.blocks) * sum(input_widths(lm)) * lm.model.dtype.itemsize


def input_widths(lm: LanguageModel) -> list[int]:
    """Return the features of every distinct input of the linears of a block.

    The linears of a module (attention, MLP) read what enters it, but the last one reads what they made.
    """
    widths: dict[str, list[int]] = {}
    for name, linear in lm.linears(lm.blocks[0]).items():
        module = name.rpartition(".")[0]
        widths.setdefault(module, []).append(linear.weight.shape[1])
    return [width for inputs in widths.values() for width in (inputs[0], inputs[-1])]


def _rows_together(lm: LanguageModel, keys: Sequence[StatisticsKey]) -> int:
    """Return how many rows must run before their tokens can be weighed: 1, or a whole trajectory.

    A function of the user's may compare all states of a sequence.
    """
    if not lm.is_diffusion:
        return 1
    by_row = [isinstance(key.exclude, str) and EXCLUDE[key.exclude].by_row for key in keys]
    return 1 if all(by_row) else keys[0].noise_levels

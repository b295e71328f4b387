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
from sinkprune_core.calibration.sink_profiles import empty_mass, profile, tracked_rows, windows_of
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import (
    EXCLUDE,
    StatisticsKey,
    check_weights,
    weighted_rows,
    weights_of_keys,
)
from sinkprune_core.calibration.waiting_store import IN_MEMORY, PassState, Store, inputs_before
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
    kind: "type[DensePass] | None" = None,
) -> dict[StatisticsKey, DenseStatistics]:
    """Return the statistics of every key; whether keys fit the model is not checked.

    Keys with the same states of the text share one pass, which is of a `kind`. What waits lies in `store`.
    """
    kind = kind or DensePass

    by_trajectory: dict[tuple, list[StatisticsKey]] = {}
    for key in dict.fromkeys(keys):
        by_trajectory.setdefault(key.trajectory, []).append(key)

    found: dict[StatisticsKey, DenseStatistics] = {}
    for trajectory in sorted(by_trajectory):
        together = by_trajectory[trajectory]
        rows = joint_rows(lm, together, calibration)
        found |= kind(lm, together, calibration, progress, store, rows).collect()

    return found


@dataclass(frozen=True, eq=False)
class Seen:
    """The rows that have gone through the model, how much their tokens weigh, and what was observed."""

    ids_RT: torch.Tensor
    weight_WRT: torch.Tensor  # a choice per key
    observer: Observer[LinearAt]


@dataclass(frozen=True)
class DensePass:
    """A pass of the calibration text through the dense model, for keys that share its states.

    Where sinks are wanted, and the forwards that show them are those whose inputs are wanted, a *joint*
    forward serves both, if there is room for what linears receive: it waits in memory until the attention of
    that forward has said how much its tokens weigh. Else the text passes twice, and sinks come first.
    """

    lm: LanguageModel
    keys: list[StatisticsKey]
    calibration: Calibration
    progress: bool
    store: Store
    joint_rows: int | None  # of a joint forward; None: no forward is

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
        if self.joint_rows is not None:
            return self._jointly(self.joint_rows)
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
        return weighted_rows(self.lm, self.calibration, self.keys, self.progress, store)

    def _jointly(self, joint_rows: int) -> Seen:
        """Run every row once: the attention of a forward says how much the tokens of its inputs weigh."""
        lm, first = self.lm, self.keys[0]
        ids_RT = tracked_rows(lm, self.calibration, first.noise_levels, first.noise)
        windows = windows_of(lm, ids_RT.shape[1], first.noise_levels)
        what = f"sinks and statistics of {lm.name}"

        mass_RST = empty_mass(ids_RT, windows)
        weight_WRT = torch.zeros(len(self.keys), *ids_RT.shape)
        sums = {"mass": mass_RST, "weights": weight_WRT}

        with attention.track(lm.model, windows) as tracker, self.observed(held={}) as observer:
            # a pass that goes on finds in its sums and its observer what was summed before the first start
            state = PassState(("joint", self.keys), sums, observer)
            starts = self.steps(range(0, len(ids_RT), joint_rows), state)

            for start in with_bar(starts, what, "batch", self.progress):
                batch = slice(start, start + joint_rows)
                observer.shape_BT = tuple(ids_RT[batch].shape)
                lm.hidden(ids_RT[batch])
                mass_RLHST = lm.check_output(tracker.take())

                mass_RST[batch] = mass_RLHST.mean((1, 2)).cpu()
                weight_WRT[:, batch] = self.weights(mass_RST[batch], start)
                observer.flush(weight_WRT[:, batch])

        return Seen(ids_RT, weight_WRT, observer)

    def weights(self, mass_RST: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Return the token weights of rows for every key, (W, R, T), by the attention mass of their keys.

        The first of them has the number `first`.
        """
        together = rows_weighed_together(self.lm, self.keys)
        windows = windows_of(self.lm, mass_RST.shape[-1], self.keys[0].noise_levels)
        profiles = profile(mass_RST, windows, together)
        return weights_of_keys(self.lm, self.calibration, self.keys, profiles, first // together)


# how many rows run at once


def sinks_show(lm: LanguageModel, keys: Sequence[StatisticsKey], calibration: Calibration) -> bool:
    """Return whether the forwards whose inputs are wanted show the sinks; those of padded rows do not."""
    is_shown = keys[0].inputs == "noised" or not lm.is_diffusion
    is_asked = any(key.exclude != "none" for key in keys)
    return is_shown and is_asked and calibration.present_NT is None


def joint_rows(
    lm: LanguageModel,
    keys: Sequence[StatisticsKey],
    calibration: Calibration,
    budget: int | None = None,
) -> int | None:
    """Return the rows of a forward that shows the sinks and, once these are known, the statistics for `keys`.

    It is None where `budget` bytes, by default those of the model's device, do not hold the inputs of rows
    that are weighed together; where sinks do not show in these forwards; and of a model that is streamed,
    which would be read once for each batch.
    """
    if lm.is_streamed or not sinks_show(lm, keys, calibration):
        return None

    together = rows_weighed_together(lm, keys)
    size = together * row_bytes(lm, calibration.ids_NT.shape[1])
    if budget is None:
        budget = input_budget(lm.device)
    if size > budget:
        return None

    in_batch = max(1, calibration.batch // together)
    in_enough_bytes = max(1, ENOUGH_BYTES // size)
    return together * min(in_batch, in_enough_bytes)


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


def rows_weighed_together(lm: LanguageModel, keys: Sequence[StatisticsKey]) -> int:
    """Return how many rows must run before their tokens can be weighed: 1, or a whole trajectory.

    A function of the user's may compare all states of a sequence.
    """
    if not lm.is_diffusion:
        return 1
    by_row = [isinstance(key.exclude, str) and EXCLUDE[key.exclude].by_row for key in keys]
    return 1 if all(by_row) else keys[0].noise_levels

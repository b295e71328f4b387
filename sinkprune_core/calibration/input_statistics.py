"""Statistics of what linears receive, summed while calibration text passes through a block.

Linears that receive the same tensor (queries, keys and values, for instance) share one statistic.

Dimensions: B batch, R calibration rows, T position, N tokens, I input features, S those of a strip of a Gram
matrix, W choices of token weights.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import torch
from torch import nn

from sinkprune_core.memory import rows_in_cache

GRAM_STRIP = 256  # columns of a Gram matrix that are computed together

Name = TypeVar("Name")  # what a caller knows a linear by


@dataclass(frozen=True)
class InputStatistics:
    """Statistics of one input under one choice of token weights, w for a token; x_j is input feature j."""

    norm_I: torch.Tensor  # float32: L2 norm of w x_j over all tokens
    summed_I: torch.Tensor  # float32: the same norm per sequence, summed over sequences (official code)
    mean_I: torch.Tensor  # float32: mean of x_j, each token counted w^2 times
    variance_I: torch.Tensor  # float32: variance of x_j, each token counted w^2 times
    gram_II: torch.Tensor | None = None  # float32: sum of (w x)(w x)^T, where it was asked for

    def with_norm(self, reduction: str) -> "InputStatistics":
        """Return the same statistics with the norm of `Recipe.norm_reduction` as their `norm_I`."""
        return replace(self, norm_I=self.summed_I) if reduction == "sum" else self


class RunningStatistics:
    """Sums over the tokens of one input so far, float64, for W choices of token weights at once.

    Every sequence is summed on its own first: no batch size changes more than a Gram matrix's rounding.
    """

    def __init__(self, features: int, choices: int = 1, gram: bool = False):
        self.squares_WI = torch.zeros(choices, features, dtype=torch.float64)
        self.summed_WI = torch.zeros_like(self.squares_WI)
        self.sums_WI = torch.zeros_like(self.squares_WI)
        self.count_W = torch.zeros(choices, dtype=torch.float64)
        self.gram_WII = [torch.zeros(0) for _ in range(choices)] if gram else None

    def add(self, input_BTI: torch.Tensor, weight_WBT: torch.Tensor | None) -> None:
        """Add a batch; `weight_WBT` is (W, B, T), or (B, T) for one choice, or None for weights of 1."""
        shape_WBT = (len(self.squares_WI), *input_BTI.shape[:2])
        if weight_WBT is None:
            weight_WBT = torch.ones(shape_WBT)

        weight_WBT = weight_WBT.view(shape_WBT).to(input_BTI.device, torch.float32)
        with in_full_precision(input_BTI.device):
            self._add_weighted(input_BTI, weight_WBT)

    def _add_weighted(self, input_BTI: torch.Tensor, weight_WBT: torch.Tensor) -> None:
        counts_BWT = weight_WBT.square().transpose(0, 1)
        squares_BWI, sums_BWI = _weighted_sums(input_BTI, counts_BWT)
        squares_WBI = squares_BWI.transpose(0, 1).cpu().double()  # MPS has no float64
        self.squares_WI += squares_WBI.sum(1)
        self.summed_WI += squares_WBI.sqrt().sum(1)
        self.sums_WI += sums_BWI.cpu().double().sum(0)
        self.count_W += counts_BWT.cpu().double().sum((0, 2))

        if self.gram_WII is not None:
            input_BTI = input_BTI.float()
            for choice, weight_BT in enumerate(weight_WBT):
                weighted_NI = (input_BTI * weight_BT[..., None]).flatten(0, 1)
                self.gram_WII[choice] = _add_gram(self.gram_WII[choice], weighted_NI)

    def finished(self, choice: int = 0) -> InputStatistics:
        """Return the statistics of one choice of token weights; all are 0 where every weight was 0."""
        count = float(self.count_W[choice]) or 1.0
        squares_I = self.squares_WI[choice]
        mean_I = self.sums_WI[choice] / count
        variance_I = (squares_I / count - mean_I.square()).clamp_min(0)

        return InputStatistics(
            norm_I=squares_I.sqrt().float(),
            summed_I=self.summed_WI[choice].float(),
            mean_I=mean_I.float(),
            variance_I=variance_I.float(),
            gram_II=None if self.gram_WII is None else _mirror(self.gram_WII[choice]),
        )


def in_full_precision(device: torch.device) -> AbstractContextManager:
    """Return a context in which products are in float32 even inside a user's `torch.autocast`."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _weighted_sums(input_BTI: torch.Tensor, counts_BWT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of squares and of values over the tokens of every sequence, each float32 (B, W, I)."""
    squares, sums = [], []
    _, tokens, features = input_BTI.shape

    rows = rows_in_cache(tokens * features * torch.float32.itemsize, input_BTI.device)
    for part_BTI, part_BWT in zip(input_BTI.split(rows), counts_BWT.split(rows), strict=True):
        part_BTI = part_BTI.to(torch.float32, copy=True)
        sums.append(torch.bmm(part_BWT, part_BTI))
        squares.append(torch.bmm(part_BWT, part_BTI.square_()))

    return torch.cat(squares), torch.cat(sums)


def _add_gram(gram_II: torch.Tensor, input_NI: torch.Tensor) -> torch.Tensor:
    """Add X^T X to a Gram matrix, above its diagonal only; it is made at first use, on the input's device."""
    features = input_NI.shape[1]
    if not gram_II.numel():
        gram_II = torch.zeros(features, features, dtype=torch.float32, device=input_NI.device)

    for start in range(0, features, GRAM_STRIP):
        stop = min(start + GRAM_STRIP, features)
        gram_II[start:stop, start:].addmm_(input_NI[:, start:stop].T, input_NI[:, start:])
    return gram_II


def _mirror(gram_II: torch.Tensor) -> torch.Tensor:
    """Copy what lies above the diagonal of a Gram matrix below it, in place, and return the matrix."""
    for start in range(0, len(gram_II), GRAM_STRIP):
        stop = min(start + GRAM_STRIP, len(gram_II))
        corner_SS = gram_II[start:stop, start:stop]
        corner_SS.copy_(corner_SS.triu() + corner_SS.triu(1).T)
        gram_II[stop:, start:stop] = gram_II[start:stop, stop:].T

    return gram_II


class Held(Protocol):
    """Where inputs of linears, (B, T, I), wait by their numbers; a dictionary is one."""

    def __setitem__(self, number: int, input_BTI: torch.Tensor, /) -> None:
        """Let an input wait."""
        ...

    def pop(self, number: int, /) -> torch.Tensor:
        """Return an input, which is asked for once."""
        ...


class Observer(Generic[Name]):
    """Feeds the inputs of linears into running statistics, one per distinct input tensor."""

    def __init__(
        self,
        linears: Mapping[Name, nn.Linear],
        choices: int = 1,
        gram: bool = False,
        held: Held | None = None,
    ):
        self.linears = linears
        self.choices = choices
        self.gram = gram
        self.held = held
        self.weight_WBT: torch.Tensor | None = None  # token weights of the batch that runs now
        self.shape_BT: tuple[int, ...] = ()  # its rows and positions, which some models join (OPT)
        self.running: dict[Name, RunningStatistics] = {}
        self._last: tuple[torch.Tensor, RunningStatistics] | None = None
        self.waiting: dict[RunningStatistics, list[int]] = {}  # numbers of inputs
        self.arrived = 0  # inputs that were held so far

    def hook(self, name: Name) -> Callable[[nn.Module, tuple], None]:
        """Return the forward pre-hook of one linear."""

        def observe(module: nn.Module, args: tuple) -> None:
            input_BTI = args[0]
            if self._last is not None and self._last[0] is input_BTI:
                self.running.setdefault(name, self._last[1])
                return

            if name not in self.running:
                self.running[name] = self.begun(name)

            self._last = (input_BTI, self.running[name])
            if input_BTI.dim() == 2:
                input_BTI = input_BTI.unflatten(0, self.shape_BT)

            if self.held is not None:
                self.held[self.arrived] = input_BTI
                self.waiting.setdefault(self.running[name], []).append(self.arrived)
                self.arrived += 1
            else:
                self.running[name].add(input_BTI, self.weight_WBT)

        return observe

    def begun(self, name: Name) -> RunningStatistics:
        """Return statistics of a linear's input that have seen nothing yet."""
        return RunningStatistics(self.linears[name].weight.shape[1], self.choices, self.gram)

    def flush(self, weight_WRT: torch.Tensor) -> None:
        """Add all inputs that wait, of R rows, now that the weights of their tokens are known."""
        for running in list(self.waiting):
            self.add_waiting(running, weight_WRT)
        self.forget()

    def add_waiting(self, running: RunningStatistics, weight_WRT: torch.Tensor) -> None:
        """Add those inputs that wait for one of the statistics."""
        assert self.held is not None
        start = 0

        for number in self.waiting.pop(running):
            input_BTI = self.held.pop(number)
            running.add(input_BTI, weight_WRT[:, start : start + len(input_BTI)])
            start += len(input_BTI)

    def forget(self) -> None:
        """Let go of all inputs that are held."""
        self.waiting = {}
        self._last = None

    def statistics(self, choice: int = 0) -> dict[Name, InputStatistics]:
        """Return the statistics of one choice of weights by linear; one object for linears with one input."""
        finished: dict[RunningStatistics, InputStatistics] = {}
        for running in self.running.values():
            if running not in finished:
                finished[running] = running.finished(choice)
        return {name: finished[running] for name, running in self.running.items()}


@contextmanager
def observe(
    linears: Mapping[Name, nn.Linear], choices: int = 1, gram: bool = False, held: Held | None = None
) -> Iterator[Observer[Name]]:
    """Observe the inputs of `linears` inside the block; hooks are removed whatever happens.

    With `held` inputs wait there until `flush` says how much their tokens weigh.
    """
    observer: Observer[Name] = Observer(linears, choices, gram, held)
    with ExitStack() as hooks:
        hooks.callback(observer.forget)
        for name, linear in linears.items():
            hooks.callback(linear.register_forward_pre_hook(observer.hook(name)).remove)
        yield observer

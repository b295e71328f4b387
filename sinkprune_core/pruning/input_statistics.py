"""Statistics of linear inputs, streamed, one per distinct input: the linears that see the same tensor share it.

Dimensions: B batch, T position, I input features, W choices of token weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from sinkprune_core.models.language_model import weight_OI

GRAM_STRIP = 256  # columns of a Gram matrix computed together; only its upper strips are


@dataclass(frozen=True)
class InputStatistics:
    """What was seen of one input under one choice of token weights w; x_j are its columns over all tokens.

    `norm_I`: L2 norm of w x_j, float32. `summed_I`: the same norm per sequence, summed over sequences (the official
    code's rule at batch 1). `mean_I`, `variance_I`: of x_j, each token counted w^2 times, float32. `count`: sum of w^2.
    `gram_II`: sum of (w x)(w x)^T, float32, where it was asked for.
    """

    norm_I: torch.Tensor
    summed_I: torch.Tensor
    mean_I: torch.Tensor
    variance_I: torch.Tensor
    count: float
    gram_II: torch.Tensor | None = None

    def norms(self, kind: str) -> torch.Tensor:
        """Return the norms of `Recipe.norm`: `root` of summed squares, or `sum` of one norm per sequence."""
        return self.norm_I if kind == "root" else self.summed_I


class RunningStatistics:
    """Running sums over the tokens of one input, float64, for W choices of weights per token at once.

    Every sequence is summed on its own before it is added, so results do not depend on the batch.
    """

    def __init__(self, features: int, choices: int = 1, gram: bool = False):
        self.squares_WI = torch.zeros(choices, features, dtype=torch.float64)
        self.summed_WI, self.sums_WI = torch.zeros_like(self.squares_WI), torch.zeros_like(self.squares_WI)
        self.count_W = torch.zeros(choices, dtype=torch.float64)
        self.gram_WII = [torch.zeros(0) for _ in range(choices)] if gram else None

    def add(self, input_BTI: torch.Tensor, weight_WBT: torch.Tensor | None) -> None:
        """Add a batch; `weight_WBT` is (W, B, T), or (B, T) for one choice, or None for weights of 1."""
        input_BTI = input_BTI.float()
        choices = len(self.squares_WI)
        weight_WBT = (
            torch.ones(choices, *input_BTI.shape[:2])
            if weight_WBT is None
            else weight_WBT.view(choices, *input_BTI.shape[:2])
        )
        weight_WBT = weight_WBT.to(input_BTI)
        counts_BWT = weight_WBT.square().transpose(0, 1)
        squares_WBI = torch.bmm(counts_BWT, input_BTI.square()).transpose(0, 1).double().cpu()
        self.squares_WI += squares_WBI.sum(1)
        self.summed_WI += squares_WBI.sqrt().sum(1)
        self.sums_WI += torch.bmm(counts_BWT, input_BTI).double().cpu().sum(0)
        self.count_W += counts_BWT.double().sum((0, 2)).cpu()
        if self.gram_WII is not None:
            for choice, weight_BT in enumerate(weight_WBT):
                self.gram_WII[choice] = add_gram(
                    self.gram_WII[choice], (input_BTI * weight_BT[..., None]).flatten(0, 1)
                )

    def seen(self, choice: int = 0) -> InputStatistics:
        """Return the finished statistics of one choice of weights."""
        count = float(self.count_W[choice])
        mean_I = self.sums_WI[choice] / count if count else self.sums_WI[choice]
        variance_I = (
            (self.squares_WI[choice] / count - mean_I.square()).clamp_min(0)
            if count
            else self.squares_WI[choice]
        )
        gram_II = None if self.gram_WII is None else mirrored(self.gram_WII[choice])
        return InputStatistics(
            self.squares_WI[choice].sqrt().float(),
            self.summed_WI[choice].float(),
            mean_I.float(),
            variance_I.float(),
            count,
            gram_II,
        )


def add_gram(gram_II: torch.Tensor, input_NI: torch.Tensor) -> torch.Tensor:
    """Add X^T X to the upper strips of a Gram matrix, float32, made at first use on the input's device."""
    features = input_NI.shape[1]
    if not gram_II.numel():
        gram_II = torch.zeros(features, features, dtype=torch.float32, device=input_NI.device)
    for start in range(0, features, GRAM_STRIP):
        stop = min(start + GRAM_STRIP, features)
        gram_II[start:stop, start:].addmm_(input_NI[:, start:stop].T, input_NI[:, start:])
    return gram_II


def mirrored(gram_II: torch.Tensor) -> torch.Tensor:
    """Return the same matrix, in place, with what its upper strips hold copied to the other side of the diagonal."""
    for start in range(0, len(gram_II), GRAM_STRIP):
        stop = min(start + GRAM_STRIP, len(gram_II))
        corner_SS = gram_II[start:stop, start:stop]
        corner_SS.copy_(corner_SS.triu() + corner_SS.triu(1).T)
        gram_II[stop:, start:stop] = gram_II[start:stop, stop:].T
    return gram_II


class Observer:
    """Feeds the inputs of some linears into statistics, one statistic per distinct input tensor."""

    def __init__(self, choices: int = 1, gram: bool = False, deferred: bool = False):
        self.choices, self.gram, self.deferred = choices, gram, deferred
        self.statistics: dict[object, RunningStatistics] = {}
        self.weight_WBT: torch.Tensor | None = None  # token weights of the batch in flight
        self._last: tuple[torch.Tensor, RunningStatistics] | None = None
        self._waiting: list[tuple[RunningStatistics, torch.Tensor]] = []

    def hook(self, name: object):
        def observe(module: nn.Module, args: tuple) -> None:
            input_BTI = args[0]
            if self._last is not None and self._last[0] is input_BTI:
                self.statistics.setdefault(name, self._last[1])
                return
            if name not in self.statistics:
                self.statistics[name] = RunningStatistics(weight_OI(module).shape[1], self.choices, self.gram)
            self._last = (input_BTI, self.statistics[name])
            if self.deferred:
                self._waiting.append((self.statistics[name], input_BTI))
            else:
                self.statistics[name].add(input_BTI, self.weight_WBT)

        return observe

    def flush(self, weight_WBT: torch.Tensor) -> None:
        """Add what a deferred observer has seen since the last call, now that the weights of its tokens are known."""
        for statistics, input_BTI in self._waiting:
            statistics.add(input_BTI, weight_WBT)
        self.forget()

    def forget(self) -> None:
        self._waiting, self._last = [], None

    def seen(self, choice: int = 0) -> dict[object, InputStatistics]:
        """Return the statistics of one choice of weights by linear; linears with one input share one object."""
        finished = {
            id(statistics): statistics.seen(choice)
            for statistics in {id(s): s for s in self.statistics.values()}.values()
        }
        return {name: finished[id(statistics)] for name, statistics in self.statistics.items()}


@contextmanager
def observe(
    linears: dict[object, nn.Linear | Conv1D], choices: int = 1, gram: bool = False, deferred: bool = False
) -> Iterator[Observer]:
    """Observe the inputs of `linears` inside the block; hooks are removed whatever happens.

    A `deferred` observer keeps the inputs of a forward until `flush` says how much its tokens weigh.
    """
    observer = Observer(choices, gram, deferred)
    handles = [module.register_forward_pre_hook(observer.hook(name)) for name, module in linears.items()]
    try:
        yield observer
    finally:
        observer.forget()
        for handle in handles:
            handle.remove()

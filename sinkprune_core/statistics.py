"""Statistics of linear inputs, streamed: weighted column norms, shared by the linears that see the same input.

Dimensions: B batch, T position, N tokens of a batch, I input features, O output features, W choices of token weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class ColumnNorms:
    """Running sums over tokens of (w x_j)^2 for one input, float64 (W, I), for W choices of weights per token at once."""

    def __init__(self, features: int, choices: int = 1):
        self.squares_WI = torch.zeros(choices, features, dtype=torch.float64)

    def add(self, input_BTI: torch.Tensor, weight_WBT: torch.Tensor | None) -> None:
        """Add a batch; `weight_WBT` is (W, B, T), or (B, T) for one choice, or None for weights of 1."""
        squares_NI = input_BTI.flatten(0, -2).float().square()
        if weight_WBT is None:
            self.squares_WI += squares_NI.sum(0).double().cpu()
            return
        for choice, weight_N in enumerate(weight_WBT.reshape(-1, len(squares_NI))):
            self.squares_WI[choice] += (squares_NI * weight_N.square()[:, None].to(squares_NI)).sum(0).double().cpu()

    @property
    def norms_WI(self) -> torch.Tensor:
        """The L2 norm of every input column over all weighted tokens, float32 (W, I)."""
        return self.squares_WI.sqrt().float()

    @property
    def norm_I(self) -> torch.Tensor:
        """The norms of the first choice of weights, float32 (I,)."""
        return self.norms_WI[0]


class Observer:
    """Feeds the inputs of some linears into statistics, one statistic per distinct input tensor."""

    def __init__(self, choices: int = 1):
        self.choices = choices
        self.norms: dict[str, ColumnNorms] = {}
        self.weight_WBT: torch.Tensor | None = None  # token weights of the batch in flight
        self._last: tuple[torch.Tensor, str] | None = None

    def hook(self, name: str):
        def observe(module: nn.Linear, args: tuple) -> None:
            input_BTI = args[0]
            if name not in self.norms:
                shared = self._last is not None and self._last[0] is input_BTI
                self.norms[name] = self.norms[self._last[1]] if shared else ColumnNorms(module.in_features, self.choices)
            if self._last is None or self._last[0] is not input_BTI:
                self.norms[name].add(input_BTI, self.weight_WBT)
                self._last = (input_BTI, name)

        return observe


@contextmanager
def observe(linears: dict[str, nn.Linear], choices: int = 1) -> Iterator[Observer]:
    """Observe the inputs of `linears` inside the block; hooks are removed whatever happens."""
    observer = Observer(choices)
    handles = [module.register_forward_pre_hook(observer.hook(name)) for name, module in linears.items()]
    try:
        yield observer
    finally:
        for handle in handles:
            handle.remove()

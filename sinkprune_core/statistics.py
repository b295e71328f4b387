"""Statistics of linear inputs, streamed: weighted column norms, shared by the linears that see the same input.

Dimensions: B batch, T position, I input features, O output features.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class ColumnNorms:
    """Running sum over tokens of (w x_j)^2 for one input, float64 (I,), with w a weight per token."""

    def __init__(self, features: int):
        self.squares_I = torch.zeros(features, dtype=torch.float64)

    def add(self, input_BTI: torch.Tensor, weight_BT: torch.Tensor | None) -> None:
        rows_NI = input_BTI.flatten(0, -2).float()
        if weight_BT is not None:
            rows_NI = rows_NI * weight_BT.flatten()[:, None].to(rows_NI)
        self.squares_I += rows_NI.square().sum(0).double().cpu()

    @property
    def norm_I(self) -> torch.Tensor:
        """The L2 norm of every input column over all weighted tokens, float32 (I,)."""
        return self.squares_I.sqrt().float()


class Observer:
    """Feeds the inputs of some linears into statistics, one statistic per distinct input tensor."""

    def __init__(self, linears: dict[str, nn.Linear]):
        self.linears = linears
        self.norms: dict[str, ColumnNorms] = {}
        self.weight_BT: torch.Tensor | None = None  # token weights of the batch in flight
        self._last: tuple[torch.Tensor, str] | None = None

    def hook(self, name: str):
        def observe(module: nn.Linear, args: tuple) -> None:
            input_BTI = args[0]
            if name not in self.norms:
                shared = self._last is not None and self._last[0] is input_BTI
                self.norms[name] = self.norms[self._last[1]] if shared else ColumnNorms(module.in_features)
            if self._last is None or self._last[0] is not input_BTI:
                self.norms[name].add(input_BTI, self.weight_BT)
                self._last = (input_BTI, name)

        return observe


@contextmanager
def observe(linears: dict[str, nn.Linear]) -> Iterator[Observer]:
    """Observe the inputs of `linears` inside the block; hooks are removed whatever happens."""
    observer = Observer(linears)
    handles = [module.register_forward_pre_hook(observer.hook(name)) for name, module in linears.items()]
    try:
        yield observer
    finally:
        for handle in handles:
            handle.remove()

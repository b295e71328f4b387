"""Where what a pass over the text needs waits, and which of its steps are to be done.

Here everything stays in memory, and a pass does all of its steps. Another store may let things wait
elsewhere, and let a pass that was interrupted go on from the step that it had come to.

Dimensions: R calibration rows, B rows of a batch, T position, D hidden width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from sinkprune_core.blocks import BlockInput, Rows, Steps, block_inputs
from sinkprune_core.calibration.input_statistics import Observer
from sinkprune_core.language_model import LanguageModel

Hidden = Callable[[int], torch.Tensor | None]
"""From a layer to the tensor (R, T, D) that keeps its input; None: it stays where it was computed."""


@dataclass(frozen=True, eq=False)
class PassState:
    """What a pass is known by, and what changes from step to step."""

    about: tuple  # what tells it from the other passes of its text
    sums: dict[str, torch.Tensor] = field(default_factory=dict)  # by name, to be written to in place
    observer: Observer | None = None  # and what it has seen
    hidden: Hidden | None = None  # hidden states before a block, where a step is a block


class Store(Protocol):
    """Where what a pass needs waits, and from where it goes on."""

    def hidden(self, lm: LanguageModel, rows: Rows) -> Hidden:
        """Return where the hidden states of some rows lie before every block."""
        ...

    def steps(self, steps: range, state: PassState) -> Steps:
        """Return those of the steps of a pass that are left; `state` becomes as it was before the first."""
        ...


class InMemory:
    """The store that leaves everything where it was computed; a pass does all of its steps."""

    def hidden(self, lm: LanguageModel, rows: Rows) -> Hidden:
        """Return a function that keeps nothing elsewhere."""
        return lambda layer: None

    def steps(self, steps: range, state: PassState) -> range:
        """Return all steps."""
        return steps


IN_MEMORY = InMemory()


def inputs_before(lm: LanguageModel, rows: Rows, batch: int, hidden: Hidden, layer: int) -> list[BlockInput]:
    """Return what a block receives for every batch, [] behind the last one.

    The first one's is computed; hidden states before a later one lie in `hidden` already.
    """
    if layer >= len(lm.blocks):
        return []
    if layer == 0:
        return block_inputs(lm, rows, batch, hidden(0))

    here_RTD = hidden(layer)
    assert here_RTD is not None

    # masks and positions are wanted; the hidden states go where the next block's output will
    inputs = block_inputs(lm, rows, batch, hidden(layer + 1))
    batches = here_RTD.split([len(state.hidden_BTD) for state in inputs])
    return [
        replace(state, hidden_BTD=hidden_BTD, layer=layer)
        for state, hidden_BTD in zip(inputs, batches, strict=True)
    ]

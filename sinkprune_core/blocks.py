"""Calibration text on its way through the transformer blocks, one block at a time.

Dimensions: R calibration rows, B batch, T position, D hidden width, W choices of token weights.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from pydantic import InstanceOf
from torch import nn
from tqdm.auto import tqdm

from sinkprune_core.forwards import check_ids
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.values import checked


@dataclass(frozen=True)
class Rows:
    """What goes through the model."""

    ids_RT: torch.Tensor  # int64
    weight_RT: torch.Tensor | None  # float32; None: every token counts as 1
    present_RT: torch.Tensor | None = (
        None  # bool: which are text and not padding, whose weight is 0; None: all
    )

    @property
    def tokens(self) -> int:
        """How many tokens the text has, without padding."""
        return self.ids_RT.numel() if self.present_RT is None else int(self.present_RT.sum())

    @property
    def left_out_share(self) -> float:
        """The share of the calibration text that is left out: 1 minus the mean weight of a token."""
        if self.weight_RT is None:
            return 0.0
        left_out_RT = 1 - self.weight_RT.double()
        return float((left_out_RT if self.present_RT is None else left_out_RT[self.present_RT]).mean())


@dataclass(frozen=True)
class BlockInput:
    """What a block receives for one calibration batch."""

    hidden_BTD: torch.Tensor
    others: tuple  # the block's other positional arguments
    arguments: dict  # and those with names: masks, position embeddings
    weight_BT: torch.Tensor | None = None  # weights of the tokens; or (W, B, T), several choices at once


# where what waits lies


Hidden = Callable[[int], torch.Tensor | None]
"""From a layer to the tensor (R, T, D) that keeps its input; None: it stays where it was computed."""

Tensors = Mapping[str, torch.Tensor]


class Held(Protocol):
    """Where inputs of linears, (B, T, I), wait by their numbers."""

    def put(self, number: int, input_BTI: torch.Tensor) -> None:
        """Let an input wait."""
        ...

    def take(self, number: int) -> torch.Tensor:
        """Return an input, which is asked for once."""
        ...


@dataclass(frozen=True)
class Point:
    """How far a pass over the text has come."""

    done: int = 0  # of what it counts: blocks, rows, inputs
    tensors: Tensors = field(default_factory=dict)  # what it has summed until then


class Points(Held, Protocol):
    """The points of a pass: one that is run again goes on from the last of them, and so do its inputs."""

    def last(self, hidden: Hidden | None = None) -> Point:
        """Return the last point, `Point()` where there is none; `hidden` is where hidden states lie."""
        ...

    def keep(
        self,
        done: int,
        tensors: Callable[[], Tensors],
        hidden: Hidden | None = None,
        is_last: bool = False,
    ) -> None:
        """Keep a point, with the hidden states before block `done` where the next block needs them.

        One that follows another closely may be left out, but not the last one of a pass that has others.
        """
        ...


class Store(Protocol):
    """Where hidden states and inputs of linears wait while text goes through the blocks one by one."""

    @property
    def reads_blocks(self) -> bool:
        """Whether blocks are read from disk one at a time, so that a forward reads the whole model."""
        ...

    def hidden(self, lm: LanguageModel, rows: Rows) -> Hidden:
        """Return where the hidden states of some rows lie before every block."""
        ...

    def points(self, settings: str) -> Points:
        """Return the points of the pass with these settings, which tell it from other ones of this text."""
        ...

    def forget(self) -> None:
        """Let go of all points, and of the inputs that wait."""
        ...

    def room_for_inputs(self) -> int:
        """Return the bytes of inputs that may wait here, beside those that memory holds anyway."""
        ...


class InMemory:
    """The store that leaves everything where it was computed, and nothing to go on from."""

    reads_blocks = False

    def hidden(self, lm: LanguageModel, rows: Rows) -> Hidden:
        """Return a function that keeps nothing elsewhere."""
        return lambda layer: None

    def points(self, settings: str) -> "NoPoints":
        """Return points of which none is kept."""
        return NoPoints()

    def forget(self) -> None:
        """There is nothing to let go of."""

    def room_for_inputs(self) -> int:
        """Return 0: what memory may hold is known by `dense_statistics.input_budget`."""
        return 0


class HeldInMemory:
    """Inputs that wait where they were computed."""

    def __init__(self):
        self._waiting: dict[int, torch.Tensor] = {}

    def put(self, number: int, input_BTI: torch.Tensor) -> None:
        """Let an input wait."""
        self._waiting[number] = input_BTI

    def take(self, number: int) -> torch.Tensor:
        """Return an input, and let go of it."""
        return self._waiting.pop(number)


class NoPoints(HeldInMemory):
    """The points of a pass that begins anew when it is run again."""

    def last(self, hidden: Hidden | None = None) -> Point:
        """Return the beginning."""
        return Point()

    def keep(
        self,
        done: int,
        tensors: Callable[[], Tensors],
        hidden: Hidden | None = None,
        is_last: bool = False,
    ) -> None:
        """Keep nothing."""


IN_MEMORY = InMemory()


# through a block


class _CapturedError(Exception):
    """Ends a forward at the first block."""


@torch.no_grad()
def block_inputs(
    lm: LanguageModel, rows: Rows, batch: int, store_RTD: torch.Tensor | None = None
) -> list[BlockInput]:
    """Return what the first block receives for every batch, with the masks and position embeddings of it.

    Hidden states go into `store_RTD` where one is given. Raises ValueError for ids that are no tokens of the
    model, and for longer rows than it has positions.
    """
    check_ids(lm, rows.ids_RT)
    present_RT = rows.present_RT
    captured: list[BlockInput] = []

    def capture(module: nn.Module, args: tuple, kwargs: dict) -> None:
        captured.append(BlockInput(args[0], args[1:], kwargs))
        raise _CapturedError

    handle = lm.blocks[0].register_forward_pre_hook(capture, with_kwargs=True)
    try:
        for start in range(0, len(rows.ids_RT), batch):
            ids_BT = rows.ids_RT[start : start + batch].to(lm.device)
            padding = {}
            if present_RT is not None:
                padding["attention_mask"] = present_RT[start : start + batch].long().to(lm.device)
            with suppress(_CapturedError):
                lm.model.base_model(ids_BT, use_cache=False, **padding)
            captured[-1] = _stored(captured[-1], store_RTD, start)
    finally:
        handle.remove()

    if rows.weight_RT is None:
        return captured

    weights = rows.weight_RT.split(batch, dim=-2)
    return [replace(state, weight_BT=weight) for state, weight in zip(captured, weights, strict=True)]


def inputs_before(lm: LanguageModel, rows: Rows, batch: int, hidden: Hidden, done: int) -> list[BlockInput]:
    """Return what the block `done` receives for every batch, [] where there is none.

    The first one's is computed; hidden states before a later one lie in `hidden` already.
    """
    if done >= len(lm.blocks):
        return []
    if done == 0:
        return block_inputs(lm, rows, batch, hidden(0))

    here_RTD = hidden(done)
    assert here_RTD is not None

    # masks and positions are wanted; the hidden states go where the next block's output will
    inputs = block_inputs(lm, rows, batch, hidden(done + 1))
    batches = here_RTD.split([len(state.hidden_BTD) for state in inputs])
    return [replace(state, hidden_BTD=hidden_BTD) for state, hidden_BTD in zip(inputs, batches, strict=True)]


def run_block(
    block: nn.Module,
    states: list[BlockInput],
    observer=None,
    store_RTD: torch.Tensor | None = None,
    keep: bool = True,
) -> list[BlockInput]:
    """Send every batch through a block; return the next block's inputs, none where they are not to `keep`.

    The observer is told each batch's token weights before it. Outputs go into `store_RTD` where one is given.
    Hidden states that wait in main memory or in a file come to the block's device batch by batch. Raises
    ValueError for a block of which a part has no numbers.
    """
    if any(parameter.is_meta for parameter in block.parameters()):
        raise ValueError(f"a {type(block).__name__} has a weight without numbers: load the model first")

    device = next(block.parameters()).device
    outputs = []
    start = 0

    for state in states:
        if observer is not None:
            observer.weight_WBT = state.weight_BT

        output = block(state.hidden_BTD.to(device), *state.others, **state.arguments)
        hidden_BTD = output[0] if isinstance(output, tuple) else output

        if keep:
            outputs.append(_stored(replace(state, hidden_BTD=hidden_BTD), store_RTD, start))

        start += len(state.hidden_BTD)

    return outputs


def _stored(state: BlockInput, store_RTD: torch.Tensor | None, start: int) -> BlockInput:
    """Return an input whose hidden states lie in a store, at the row `start`, where there is a store."""
    if store_RTD is None:
        return state

    place_BTD = store_RTD[start : start + len(state.hidden_BTD)]
    place_BTD.copy_(state.hidden_BTD)
    return replace(state, hidden_BTD=place_BTD)


def with_bar(places: range, what: str, unit: str, progress: bool) -> Iterable[int]:
    """Return some places with a progress bar, on which those before the first are done already."""
    return tqdm(
        places,
        desc=what,
        initial=math.ceil(places.start / places.step),
        total=math.ceil(places.stop / places.step),
        unit=unit,
        disable=not progress,
        leave=False,
    )


def visit(lm: LanguageModel, progress: bool, what: str, first: int = 0) -> Iterator[nn.Module]:
    """Yield every block from the `first` on in order, its weights in memory while it is yielded."""
    for layer in with_bar(range(first, len(lm.blocks)), what, "block", progress):
        with lm.resident(layer) as block:
            yield block


@contextmanager
def weights_kept(lm: LanguageModel) -> Iterator[None]:
    """Copy the blocks and put them back at the end, whatever happens inside: prune, measure, undo.

    A kind of model whose blocks lie elsewhere says itself what comes back (`LanguageModel.kept`). Another
    thread waits for the model until then.
    """
    checked("lm", lm, InstanceOf[LanguageModel])
    with lm.turn(), lm.kept():
        yield

"""Calibration text on its way through the transformer blocks, one block at a time.

Dimensions: R calibration rows, B batch, T position, D hidden width, W choices of token weights.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from pydantic import InstanceOf
from torch import nn
from tqdm.auto import tqdm

from sinkprune_core.language_model import LanguageModel, forward_replaced
from sinkprune_core.values import checked


@dataclass(frozen=True)
class Rows:
    """What goes through the model."""

    ids_RT: torch.Tensor
    """Token ids, int64."""

    weight_RT: torch.Tensor | None
    """How much every token counts, float32; None: each counts as 1."""

    present_RT: torch.Tensor | None = None
    """Which ids are text and not padding, whose weight is 0, bool; None: all are."""

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


Call = tuple[tuple, dict]
"""What a block receives beside hidden states: arguments by position, and by name (masks, positions)."""


@dataclass(frozen=True)
class BlockInput:
    """What a block receives for one calibration batch."""

    hidden_BTD: torch.Tensor

    calls: list[Call]
    """What every block of the model receives beside hidden states, by its number."""

    layer: int = 0
    """The number of the block that receives this."""

    weight_BT: torch.Tensor | None = None
    """Weights of the tokens; or (W, B, T), several choices at once."""


# through a block


def hidden_of(output: torch.Tensor | tuple) -> torch.Tensor:
    """Return the hidden states among what a block returns."""
    return output[0] if isinstance(output, tuple) else output


class _CapturedError(Exception):
    """Ends a forward at the last block."""


@torch.no_grad()
def block_inputs(
    lm: LanguageModel, rows: Rows, batch: int, store_RTD: torch.Tensor | None = None
) -> list[BlockInput]:
    """Return what the first block receives for every batch, and what every block receives beside it.

    Hidden states go into `store_RTD` where one is given. Raises ValueError for ids that are no tokens of the
    model, and for longer rows than it has positions.
    """
    lm.check_ids(rows.ids_RT)
    lm.check_positions(rows.ids_RT.shape[-1])
    present_RT = rows.present_RT
    captured: list[BlockInput] = []

    for start in range(0, len(rows.ids_RT), batch):
        ids_BT = rows.ids_RT[start : start + batch].to(lm.device)
        padding = {}
        if present_RT is not None:
            padding["attention_mask"] = present_RT[start : start + batch].long().to(lm.device)
        captured.append(_stored(_captured(lm, ids_BT, padding), store_RTD, start))

    if rows.weight_RT is None:
        return captured

    weights = rows.weight_RT.split(batch, dim=-2)
    return [replace(state, weight_BT=weight) for state, weight in zip(captured, weights, strict=True)]


def _captured(lm: LanguageModel, ids_BT: torch.Tensor, padding: dict[str, torch.Tensor]) -> BlockInput:
    """Return what the blocks receive in a forward in which none of them computes anything.

    Every block passes on the hidden states that it received: masks and positions, which a model may make
    anew for each of its kinds of blocks, do not depend on them.
    """
    for returns_tuple in (False, True):  # of some models a block returns more than hidden states
        received: list[tuple[tuple, dict]] = []
        passing = partial(_pass_on, received, len(lm.blocks), returns_tuple)
        with ExitStack() as stubs:
            for block in lm.blocks:
                stubs.enter_context(forward_replaced(block, passing))
            with suppress(_CapturedError):
                lm.model.base_model(ids_BT, use_cache=False, **padding)

        shapes = {args[0].shape for args, _ in received}
        if len(shapes) == 1:
            break

    hidden_BTD = received[0][0][0]
    return BlockInput(hidden_BTD, [(args[1:], named) for args, named in received])


def _pass_on(
    received: list[tuple[tuple, dict]], blocks: int, returns_tuple: bool, *args: Any, **named: Any
) -> torch.Tensor | tuple[torch.Tensor]:
    """Stand for the forward of a block; the last one ends the forward of the model."""
    received.append((args, named))
    if len(received) == blocks:
        raise _CapturedError
    return (args[0],) if returns_tuple else args[0]


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
            observer.shape_BT = tuple(state.hidden_BTD.shape[:2])

        args, named = state.calls[state.layer]
        hidden_BTD = hidden_of(block(state.hidden_BTD.to(device), *args, **named))

        if keep:
            output = replace(state, hidden_BTD=hidden_BTD, layer=state.layer + 1)
            outputs.append(_stored(output, store_RTD, start))

        start += len(state.hidden_BTD)

    return outputs


def _stored(state: BlockInput, store_RTD: torch.Tensor | None, start: int) -> BlockInput:
    """Return an input whose hidden states lie in a store, at the row `start`, where there is a store."""
    if store_RTD is None:
        return state

    place_BTD = store_RTD[start : start + len(state.hidden_BTD)]
    place_BTD.copy_(state.hidden_BTD)
    return replace(state, hidden_BTD=place_BTD)


class Steps(Protocol):
    """The steps of a pass that are to be done, in their order; a `range` is one."""

    @property
    def start(self) -> int:
        """The first of them."""
        ...

    @property
    def stop(self) -> int:
        """The number after the last one."""
        ...

    @property
    def step(self) -> int:
        """How far they lie apart."""
        ...

    def __iter__(self) -> Iterator[int]:
        """Yield them; a step counts as done when the next one is asked for."""
        ...


def with_bar(steps: Steps, what: str, unit: str, progress: bool) -> Iterable[int]:
    """Return some steps with a progress bar, on which those before the first are done already."""
    return tqdm(
        steps,
        desc=what,
        initial=math.ceil(steps.start / steps.step),
        total=math.ceil(steps.stop / steps.step),
        unit=unit,
        disable=not progress,
        leave=False,
    )


def visit(
    lm: LanguageModel, progress: bool, what: str, layers: Steps | None = None
) -> Iterator[tuple[int, nn.Module]]:
    """Yield the number of every block, or of those in `layers`, and the block with its weights in memory."""
    if layers is None:
        layers = range(len(lm.blocks))
    for layer in with_bar(layers, what, "block", progress):
        with lm.resident(layer) as block:
            yield layer, block


@contextmanager
def weights_kept(lm: LanguageModel) -> Iterator[None]:
    """Copy the blocks and put them back at the end, whatever happens inside: prune, measure, undo.

    A kind of model whose blocks lie elsewhere says itself what comes back (`LanguageModel.kept`).
    """
    checked("lm", lm, InstanceOf[LanguageModel])
    with lm.kept():
        yield

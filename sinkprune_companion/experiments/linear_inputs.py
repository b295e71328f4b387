"""What the linears of a dense model receive, block by block.

Dimensions: R calibration rows, T tokens of a row, N = R * T tokens, I input features of a linear map.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn
from tqdm.auto import tqdm

from sinkprune_core import LanguageModel
from sinkprune_core.blocks import Rows, block_inputs, run_block


@torch.no_grad()
def linear_inputs(
    lm: LanguageModel, ids_RT: torch.Tensor, layers: Sequence[int], batch: int, progress: bool
) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """Yield `layers` in order, each with what its linears receive from a dense model, (N, I), on the CPU."""
    received = defaultdict(list)

    def keep(linear: nn.Module, args: tuple, name: str) -> None:
        received[name].append(args[0].flatten(0, 1).cpu())

    states = block_inputs(lm, Rows(ids_RT, None), batch)
    blocks = lm.blocks[: max(layers) + 1]
    for layer, block in enumerate(tqdm(blocks, desc="inputs", unit="block", disable=not progress)):
        linears = lm.linears(block) if layer in layers else {}
        with ExitStack() as hooks:
            for name, linear in linears.items():
                hooks.enter_context(linear.register_forward_pre_hook(partial(keep, name=name)))
            states = run_block(block, states)
        if linears:
            yield layer, {name: torch.cat(received.pop(name)) for name in linears}

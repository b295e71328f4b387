"""A planted effect: what pruning would see if attention sinks held much more of the calibration statistics.

Wanda ranks weights within a row, so its mask does not change when all inputs are multiplied by one number.
Inputs at the sinks that are `dose` times as large are therefore the same as all other inputs divided by
`dose`, which is a choice of token weights like any other: no code of the pipeline changes. SparseGPT's
damping is a share of the mean diagonal of the Gram matrix, so the same holds for it.

Dimensions: N sequences, S steps, T position.
"""

from dataclasses import dataclass

import torch

from sinkprune_core.calibration.token_weights import EXCLUDE, SinkContext

DOSES = (1.0, 3.0, 10.0, 30.0, 100.0)  # how many times as large inputs at the sinks are
PLACES = ("all", "random")  # where: at all sinks, or at as many random tokens


@dataclass(frozen=True)
class Planted:
    """A choice of calibration tokens: inputs at `place` count `dose` times as much as all others.

    With `official` the token weights of the official code multiply the inputs as well: what it leaves of a
    sink is as many times as large.
    """

    dose: float  # at least 1
    place: str = "all"  # one of PLACES
    official: bool = False

    def __post_init__(self):
        if self.dose < 1:
            raise ValueError(f"dose={self.dose} must be at least 1: it multiplies the inputs at the sinks")
        if self.place not in PLACES:
            raise ValueError(f"place={self.place!r} is unknown; choose one of {', '.join(PLACES)}")

    def __call__(self, context: SinkContext) -> torch.Tensor:
        """Return the share left out of every token, float32 (N, S, T)."""
        is_planted_NST = EXCLUDE[self.place].function(context).bool()
        weight_NST = torch.where(is_planted_NST, 1.0, 1.0 / self.dose)

        if self.official:
            weight_NST = weight_NST * (1 - EXCLUDE["official"].function(context))

        return 1 - weight_NST

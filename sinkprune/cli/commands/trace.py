"""What `sinkprune trace` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from sinkprune.cli.checks import check_picture
from sinkprune.cli.options import Batch, TextOptions, place, real, whole

MEANINGS = {
    "spatial_variance": "how unevenly attention falls on positions: variance of mass, whose mean is 1",
    "temporal_variance": "how far the centre of the sinks moves: variance over steps, in squared positions",
    "temporal_variance_relative": "temporal_variance with positions as shares of the length",
    "centroid_jump": "mean distance between the centres of two consecutive steps, as a share of the length",
    "overlap": "sinks that two consecutive steps share, of the sinks of either (Jaccard): 1 where none moves",
    "sinks_per_step": "mean number of sinks of a step",
    "positions": "number of positions that are a sink at any step",
    "stable_share": "share of sinks at positions that are a sink in at least 80 % of all steps",
    "top_share": "share of all attention that the strongest position gets, mean over the steps",
    "value": "mean over the prompts; low and high are its 95 % interval",
}
SHARES = ("overlap", "stable_share", "top_share")  # rows whose values lie in [0, 1]


@dataclass(kw_only=True)
class Trace(TextOptions):
    """Options of `sinkprune trace`."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("out", "figure", "json")

    batch: Batch = 16
    sequences: Annotated[int, whole("prompts", at_least=1)] = 8
    prompt: Annotated[int, whole("tokens per prompt", at_least=2)] = 32
    tokens: Annotated[int, whole("tokens to write", at_least=1)] = 64
    steps: Annotated[
        int, whole("denoising steps; of an autoregressive model windows of queries", at_least=1)
    ] = 32
    block: Annotated[
        int | None,
        whole(
            "tokens per block; blocks are written one after the other", at_least=1, show_default="one block"
        ),
    ] = None
    temperature: Annotated[float, real("0 takes the most probable token", at_least=0)] = 0.0
    out: Annotated[Path | None, place("where the trace goes (safetensors)")] = None
    figure: Annotated[
        Path | None,
        place(
            "where a picture of the first prompt's trace goes: attention by token and step, sinks ringed",
            "FILE.png",
        ),
    ] = None
    json: Annotated[Path | None, place("where the table goes besides")] = None

    def settle(self) -> None:
        """Refuse a picture in a format that is none."""
        super().settle()
        check_picture(self.figure)


COMMAND = Trace

"""What `sinkprune diagnose` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from sinkprune.cli.options import WHERE, TextOptions, place, real, whole, word

MEANINGS = {
    "energy": "share of the inputs' energy (squared norms) that the sinks hold",
    "mean_share": "mean over input channels of the sinks' share of a channel's energy",
    "hot_channels": "share of channels whose energy is the sinks' for more than a half",
    "predicted": "share of kept weights that leaving sinks out exchanges, from these shares alone",
    "exact": "the same, counted in the masks that Wanda would choose",
    "other_text": "share of kept weights that another draw of calibration text exchanges",
}


@dataclass(kw_only=True)
class Diagnose(TextOptions):
    """Options of `sinkprune diagnose`."""

    NAME: ClassVar[str] = "diagnose"
    OUTPUTS: ClassVar[tuple[str, ...]] = ("json",)

    batch: Annotated[
        int,
        whole(
            "sequences at once; but for rounding it changes speed and memory only", at_least=1, group=WHERE
        ),
    ] = 16
    sequences: Annotated[
        int, whole("calibration sequences; the second half is the other text", at_least=2)
    ] = 32
    length: Annotated[
        int | None, whole("tokens per sequence", at_least=2, show_default="128, with --text 512")
    ] = None
    sparsity: Annotated[
        float, real("share of zeros that pruning would make in every row", at_least=0, below=1)
    ] = 0.5
    sinks: Annotated[
        Literal["all", "unstable", "stable", "official"],
        word("which sinks are left out, as in --set exclude of prune"),
    ] = "all"
    noise_levels: Annotated[
        int, whole("noise levels at which a diffusion model sees each sequence", at_least=1)
    ] = 8
    json: Annotated[Path | None, place("where the table of all linears goes")] = None

    def run(self) -> None:
        """Look, and say whether leaving sinks out can matter."""
        from sinkprune.cli import diagnose

        diagnose.run(self)


COMMAND = Diagnose

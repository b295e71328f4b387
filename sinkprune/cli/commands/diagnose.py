"""What `sinkprune diagnose` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from sinkprune.cli.checks import check_picture
from sinkprune.cli.options import Batch, DryRun, Length, TextOptions, place, real, whole, word

MEANINGS = {
    "energy": "the sinks' share of the energy (squared norm) of what these linears read",
    "predicted": "share of kept weights that leaving sinks out should exchange, by a formula",
    "exact": "share of kept weights that it does exchange in Wanda's mask",
    "other text": "share that another draw of calibration text of the same size exchanges",
}


@dataclass(kw_only=True)
class Diagnose(TextOptions):
    """Options of `sinkprune diagnose`."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("figure", "json")

    batch: Batch = 16
    sequences: Annotated[
        int, whole("sequences: half of them are calibration text, half are other text", at_least=2)
    ] = 32
    length: Length = None
    sparsity: Annotated[float, real("share of zeros", above=0, below=1)] = 0.5
    noise_levels: Annotated[
        int, whole("noise levels at which a diffusion model sees its text", at_least=1)
    ] = 8
    sinks: Annotated[
        Literal["all", "unstable", "stable", "official"],
        word("which sinks are left out, as in --set exclude of prune"),
    ] = "all"
    work: Annotated[
        Path | None,
        place(
            "keeps how far the pass has come, and what it found (default: of a streamed model "
            "MODEL-diagnosis.work, removed at the end)",
            "FOLDER",
        ),
    ] = None
    stream: Annotated[bool, word("read blocks from disk one at a time")] = False
    figure: Annotated[
        Path | None, place("where a picture goes: the sinks' share of energy by linear and layer", "FILE.png")
    ] = None
    json: Annotated[Path | None, place("where the table of all linears goes")] = None
    dry_run: DryRun = False

    def settle(self) -> None:
        """Refuse a picture in a format that is none."""
        super().settle()
        check_picture(self.figure)

    @property
    def usual_work(self) -> Path:
        """Where a streamed model's pass is kept if no folder is named."""
        return Path(f"{Path(self.model.partition('@')[0]).name}-diagnosis.work")

    def left_behind(self) -> str:
        """Return what an interrupted run leaves, in words."""
        work = self.work or self.usual_work
        if not work.exists():
            return super().left_behind()
        return f"how far the pass has come is kept in {work}, and the same command goes on from there"


COMMAND = Diagnose

"""What `sinkprune prune` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from cyclopts import Group

from sinkprune.cli import checks
from sinkprune.cli.options import (
    RUNNING,
    Batch,
    DryRun,
    Length,
    TextOptions,
    place,
    real,
    switch,
    whole,
    word,
)
from sinkprune.files import PLANNED
from sinkprune_core.pruning.presets import ABOUT

HOW = Group("how to prune", sort_key=4)
EXAMPLE = "  sinkprune prune smol-dlm --preset sparsegpt --sparsity 0.5 --out smol-dlm-pruned"


@dataclass(kw_only=True)
class Prune(TextOptions):
    """Options of `sinkprune prune`."""

    EPILOG: ClassVar = (("presets", list(ABOUT.items())), ("example", EXAMPLE))

    batch: Batch = 16
    out: Annotated[
        Path | None,
        place("where the pruned model goes; it must not exist (required, but with --dry-run)", "FOLDER"),
    ] = None
    sequences: Annotated[
        int | None,
        whole(
            "calibration sequences",
            at_least=1,
            show_default="128, and 32 for a recipe that sees each, or looks for its sinks, at more than "
            "two noise levels",
        ),
    ] = None
    length: Length = None
    preset: Annotated[
        str,
        word(
            "a recipe of the literature, see below",
            choices=tuple(ABOUT),
            metavar="NAME",
            show_choices=False,
            group=HOW,
        ),
    ] = "sparsegpt"
    sparsity: Annotated[
        float, real("share of zeros in the blocks' linears", at_least=0, below=1, group=HOW)
    ] = 0.5
    pattern: Annotated[
        str | None,
        word("row, layer, global, N:M such as 2:4, or structured", metavar="PATTERN", group=HOW),
    ] = None
    set: Annotated[
        list[str],
        word(
            "any other field of a recipe, e.g. --set allocation=owl (repeatable)",
            metavar="FIELD=VALUE",
            show_default=False,
            group=HOW,
        ),
    ] = field(default_factory=list)
    masked: Annotated[
        bool, switch("structured: keep the dense shape with zeros instead of a smaller model", group=HOW)
    ] = False
    work: Annotated[
        Path | None,
        place(
            "keeps finished blocks and statistics: a killed run goes on, and with dense propagation another "
            "sparsity needs no forward (default: OUT.work, removed at the end)",
            "FOLDER",
            group=RUNNING,
        ),
    ] = None
    stream: Annotated[
        bool,
        switch(
            "read blocks from disk one at a time (default: where the weights take most of the free memory)",
            group=RUNNING,
        ),
    ] = False
    dry_run: DryRun = False

    def settle(self) -> None:
        """Refuse what does not go together, and find the folder of finished blocks and statistics."""
        super().settle()
        if self.out is None and not self.dry_run:
            raise ValueError("--out is missing: name the folder the pruned model goes to (or use --dry-run)")
        if self.device_map is not None:
            self.refuse(("stream",), f"--device-map {self.device_map} lays the whole model on its devices")

        for name in ("out", "work"):
            checks.check_named(name, getattr(self, name))

        out = self.target.resolve()
        self.work_folder = (self.work or out.with_name(f"{out.name}.work")).resolve()

    @property
    def target(self) -> Path:
        """Where the pruned model goes, or would go where a run is only planned."""
        return self.out or PLANNED

    def left_behind(self) -> str:
        """Return what an interrupted run leaves, in words."""
        if self.dry_run or not self.work_folder.exists():
            return "nothing was done yet, and nothing was written"
        return (
            f"finished blocks and statistics are kept in {self.work_folder}, "
            "and the same command goes on from there"
        )


COMMAND = Prune

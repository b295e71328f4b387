"""What `sinkprune ship` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from sinkprune.cli.options import ARGUMENTS, Options, flag, place, word


@dataclass(kw_only=True)
class Ship(Options):
    """Options of `sinkprune ship`."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("masks", "out")
    MODELS: ClassVar[tuple[str, ...]] = ("model",)

    model: Annotated[str, word("folder of a saved model", group=ARGUMENTS)] = field(kw_only=False)
    masks: Annotated[
        Path | None, place("write which weights are zero, a bit each, to this file; needs --dense")
    ] = None
    dense: Annotated[
        str | None,
        word("the dense model that --masks are for, which is compared", metavar="MODEL"),
    ] = None
    apply_masks: Annotated[
        Path | None, place("put such masks on the model, which is the dense one; needs --out")
    ] = None
    out: Annotated[Path | None, place("where the model with --apply-masks goes", "FOLDER")] = None

    def settle(self) -> None:
        """Refuse what does not go together."""
        super().settle()
        if self.masks is not None and self.dense is None:
            raise ValueError("--masks are for one dense model: name it with --dense, so that it is compared")
        if self.masks is None:
            self.refuse(("dense",), "it is for --masks")

        if (self.apply_masks is None) != (self.out is None):
            raise ValueError("--apply-masks and --out go together: the masks, and where the model goes")

    def left_behind(self) -> str:
        """Return what an interrupted command leaves: each file and folder is whole, or not there."""
        written = [name for name in self.OUTPUTS if (place := getattr(self, name)) and place.exists()]
        if not written:
            return super().left_behind()

        if self.out is not None and self.out.exists():
            return f"{self.out} is written, and whole"

        places = ", ".join(f"{flag(name)} {getattr(self, name)}" for name in written)
        return f"{places}: written, and whole; for the rest type the command without that"


COMMAND = Ship

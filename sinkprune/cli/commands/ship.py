"""What `sinkprune ship` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from sinkprune.cli.options import ARGUMENTS, Options, place, word


@dataclass(kw_only=True)
class Ship(Options):
    """Options of `sinkprune ship`."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("out",)
    MODELS: ClassVar[tuple[str, ...]] = ("model",)

    model: Annotated[
        str, word("folder of a saved model; with --out a model in any format, or an adapter", group=ARGUMENTS)
    ] = field(kw_only=False)
    out: Annotated[
        Path | None,
        place(
            "save it to this new folder in transformers' format, an adapter merged with its base", "FOLDER"
        ),
    ] = None

    def left_behind(self) -> str:
        """Return what an interrupted command leaves: the folder is whole, or not there."""
        if self.out is not None and self.out.exists():
            return f"{self.out} is written, and whole"
        return super().left_behind()


COMMAND = Ship

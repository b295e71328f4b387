"""What `sinkprune adopt` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from sinkprune.cli.options import ARGUMENTS, Options, place, word


@dataclass(kw_only=True)
class Adopt(Options):
    """Options of `sinkprune adopt`."""

    folder: Annotated[
        Path, place("folder that save_pretrained wrote, by a Trainer say", "FOLDER", group=ARGUMENTS)
    ] = field(kw_only=False)
    family: Annotated[
        str | None,
        word(
            "how the model predicts: dream (logits shifted by one), llada (not shifted) and the like, or "
            "native for an autoregressive model (required)",
            metavar="NAME",
        ),
    ] = None
    mask_token: Annotated[
        str | None,
        word("the token, or its number, that stands for a mask, where no file names it", metavar="TOKEN"),
    ] = None

    def settle(self) -> None:
        """Refuse a missing family."""
        super().settle()
        if self.family is None:
            raise ValueError("--family is missing: give dream, llada or native, which says how to read it")


COMMAND = Adopt

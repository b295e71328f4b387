"""What `sinkprune compare` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from sinkprune.cli.options import ARGUMENTS, Length, TextOptions, place, real, whole, word


@dataclass(kw_only=True)
class Compare(TextOptions):
    """Options of `sinkprune compare`."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("json",)
    MODELS: ClassVar[tuple[str, ...]] = ("model", "other")

    other: Annotated[
        str,
        word("the model to compare it with, B in what is printed; the first is A", group=ARGUMENTS),
    ] = field(kw_only=False)
    batch: Annotated[int | None, whole("sequences at once; it changes speed and memory only", at_least=1)] = (
        None
    )
    sequences: Annotated[int, whole("sequences of held-out text", at_least=2)] = 64
    length: Length = None
    draws: Annotated[
        int | None,
        whole(
            "random masks of each sequence and of each answer under a diffusion model, the same for both",
            at_least=1,
            show_default="4, in the suite as in evaluate",
        ),
    ] = None
    margin: Annotated[
        float,
        real("smallest difference that would matter, in nats per token; 0.02 is 2 % of perplexity", above=0),
    ] = 0.02
    tasks: Annotated[
        tuple[Literal["suite"], ...],
        word(
            "suite: this project's offline items, besides the text",
            metavar="TASK …",
            consume_multiple=(1, None),
            show_choices=False,
        ),
    ] = ()
    limit: Annotated[
        int | None, whole("items of each group of the suite", at_least=1, show_default="all")
    ] = None
    json: Annotated[Path | None, place("where the result goes besides")] = None

    def settle(self) -> None:
        """Refuse a number of items where there are none."""
        super().settle()
        if not self.tasks:
            self.refuse(("limit",), "it counts items of --tasks")


COMMAND = Compare

"""What `sinkprune recover` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Group

from sinkprune.cli import checks
from sinkprune.cli.options import (
    ARGUMENTS,
    RUNNING,
    WHERE,
    Device,
    DryRun,
    Options,
    check_text,
    place,
    real,
    switch,
    whole,
    word,
)
from sinkprune.named_texts import WIKITEXT, is_wikitext
from sinkprune.recovery import PLANNED

HOW = Group("how to train", sort_key=4)
EXAMPLE = "  sinkprune recover smol-dlm-pruned --tokens 250000 --out smol-dlm-recovered"


@dataclass(kw_only=True)
class Recover(Options):
    """Options of `sinkprune recover`."""

    MODELS: ClassVar[tuple[str, ...]] = ("pruned",)
    EPILOG: ClassVar = (("example", EXAMPLE),)

    pruned: Annotated[
        str, word("folder of a pruned model (a dense one is trained as it is)", group=ARGUMENTS)
    ] = field(kw_only=False)
    out: Annotated[
        Path | None,
        place("where the recovered model goes; it must not exist (required, but with --dry-run)", "FOLDER"),
    ] = None
    tokens: Annotated[int | None, whole("training tokens in all (or --steps)", at_least=1)] = None
    steps: Annotated[int | None, whole("steps of the optimizer (or --tokens)", at_least=1)] = None
    text: Annotated[
        Path | None,
        place(
            "text to learn, paragraphs parted by blank lines or JSON lines (.jsonl) of texts or chats, or "
            "wikitext-2 (its train split), of which one in eight is held out (default: what comes with the "
            "package)"
        ),
    ] = None
    data: Annotated[
        Path | None, place("folder that holds WikiText-2 as published (default: the hub)", "FOLDER")
    ] = None
    teacher: Annotated[
        str | None,
        word(
            "the dense model, whose predictions are learned, or none (default: the model that it was pruned "
            "from, where its card says that and it is here)",
            metavar="MODEL",
            show_default=False,
            group=HOW,
        ),
    ] = "auto"
    distillation: Annotated[
        float | None,
        real(
            "share of the loss that is the divergence from the teacher",
            at_least=0,
            at_most=1,
            group=HOW,
            show_default="1 with a teacher",
        ),
    ] = None
    method: Annotated[
        Literal["full", "lora"],
        word(
            "train the weights of the blocks (full, default), or LoRA that is merged where they are not zero",
            show_default=False,
            group=HOW,
        ),
    ] = "full"
    rank: Annotated[int, whole("rank of LoRA", at_least=1, group=HOW)] = 16
    learning_rate: Annotated[
        float | None,
        real("learning rate after warm-up", above=0, group=HOW, show_default="1e-4, of LoRA 1e-3"),
    ] = None
    batch: Annotated[int, whole("sequences per step", at_least=1, group=HOW)] = 8
    length: Annotated[int, whole("tokens per sequence", at_least=2, group=HOW)] = 128
    seed: Annotated[int, whole("seed of the crops, of the noise and of LoRA", at_least=0, group=HOW)] = 0
    gradient_checkpointing: Annotated[
        bool, switch("compute blocks twice instead of keeping what they compute", group=WHERE)
    ] = False
    device: Device = "auto"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"],
        word(
            "dtype of the products; what is trained is float32 (default: bfloat16 where that is faster)",
            show_default=False,
            group=WHERE,
        ),
    ] = "auto"
    work: Annotated[
        Path | None,
        place(
            "keeps the state: a killed run goes on (default: OUT.work, removed at the end)",
            "FOLDER",
            group=RUNNING,
        ),
    ] = None
    save_every: Annotated[int, whole("steps between two states", at_least=1, group=RUNNING)] = 20
    dry_run: DryRun = False

    def settle(self) -> None:
        """Refuse what does not go together."""
        super().settle()
        if self.out is None and not self.dry_run:
            raise ValueError(
                "--out is missing: name the folder the recovered model goes to (or use --dry-run)"
            )

        if (self.tokens is None) == (self.steps is None):
            raise ValueError("give --tokens or --steps, one of them: it says how long to train")
        if not is_wikitext(self.text):
            self.refuse(("data",), f"it is for --text {WIKITEXT}")
        if self.method == "full":
            self.refuse(("rank",), "it is for --method lora")
        if self.teacher == "none":
            self.teacher = None
            self.refuse(("distillation",), "it is a share of the loss that a --teacher gives")

        for name in ("out", "work"):
            checks.check_named(name, getattr(self, name))

    def check_places(self) -> None:
        """Raise an error for a text that is not there, and for places that cannot be written."""
        if self.text is not None and not is_wikitext(self.text):
            check_text(self.text)
        if self.out is not None:
            checks.check_new_path("out", self.out)

    def left_behind(self) -> str:
        """Return what an interrupted run leaves, in words."""
        out = self.out or PLANNED
        if not self.dry_run and out.exists():
            return f"{out} is written, and whole"
        work = self.work or out.with_name(f"{out.name}.work")
        if self.dry_run or not work.exists():
            return "nothing was done yet, and nothing was written"
        return f"the last state is kept in {work}, and the same command goes on from there"


COMMAND = Recover

"""`sinkprune recover`: say what it takes, train a pruned model with its zeros held, and save it."""

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeInt, NormFloat, PositiveFloat, PositiveInt
from cyclopts.validators import Number

from sinkprune.cli.options import RUNNING, WHERE, Device, DryRun, new_path, refuse, text_file
from sinkprune.cli.screen import keeping, loading, say
from sinkprune.named_texts import WIKITEXT, is_wikitext

HOW = Group("how to train", sort_key=1)


def recover(
    pruned: Annotated[str, Parameter(help="folder of a pruned model (a dense one is trained as it is)")],
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            help="where the recovered model goes; it must not exist (required, but with --dry-run)",
            metavar="FOLDER",
        ),
    ] = None,
    tokens: Annotated[PositiveInt | None, Parameter(help="training tokens in all (or --steps)")] = None,
    steps: Annotated[PositiveInt | None, Parameter(help="steps of the optimizer (or --tokens)")] = None,
    text: Annotated[
        Path | None,
        Parameter(
            help="text to learn, paragraphs parted by blank lines or JSON lines (.jsonl) of texts or chats, "
            "or wikitext-2 (its train split), of which one in eight is held out (default: what comes with "
            "the package)",
            validator=text_file,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        Parameter(help="folder that holds WikiText-2 as published (default: the hub)", metavar="FOLDER"),
    ] = None,
    teacher: Annotated[
        str,
        Parameter(
            help="the dense model, whose predictions are learned, or none (default: the model that it was "
            "pruned from, where its card says that and it is here)",
            metavar="MODEL",
            show_default=False,
            group=HOW,
        ),
    ] = "auto",
    distillation: Annotated[
        NormFloat | None,
        Parameter(
            help="share of the loss that is the divergence from the teacher",
            show_default="1 with a teacher",
            group=HOW,
        ),
    ] = None,
    method: Annotated[
        Literal["full", "lora"],
        Parameter(
            help="train the weights of the blocks (full), or LoRA that is merged where they are not zero",
            group=HOW,
        ),
    ] = "full",
    rank: Annotated[PositiveInt | None, Parameter(help="rank of LoRA", show_default="16", group=HOW)] = None,
    learning_rate: Annotated[
        PositiveFloat | None,
        Parameter(help="learning rate after warm-up", show_default="1e-4, of LoRA 1e-3", group=HOW),
    ] = None,
    batch: Annotated[PositiveInt, Parameter(help="sequences per step", group=HOW)] = 8,
    length: Annotated[int, Parameter(help="tokens per sequence", validator=Number(gte=2), group=HOW)] = 128,
    seed: Annotated[
        NonNegativeInt, Parameter(help="seed of the crops, of the noise and of LoRA", group=HOW)
    ] = 0,
    gradient_checkpointing: Annotated[
        bool, Parameter(help="compute blocks twice instead of keeping what they compute", group=WHERE)
    ] = False,
    device: Device = "auto",
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"],
        Parameter(
            help="dtype of the products, auto: bfloat16 where that is faster; what is trained is float32",
            group=WHERE,
        ),
    ] = "auto",
    work: Annotated[
        Path | None,
        Parameter(
            help="keeps the state: a killed run goes on (default: OUT.work, removed at the end)",
            metavar="FOLDER",
            group=RUNNING,
        ),
    ] = None,
    save_every: Annotated[PositiveInt, Parameter(help="steps between two states", group=RUNNING)] = 20,
    dry_run: DryRun = False,
) -> None:
    """Train a pruned model with its zeros held."""
    if out is None and not dry_run:
        raise ValueError("--out is missing: name the folder the recovered model goes to (or use --dry-run)")
    if (tokens is None) == (steps is None):
        raise ValueError("give --tokens or --steps, one of them: it says how long to train")
    if not is_wikitext(text):
        refuse(f"it is for --text {WIKITEXT}", data=data)
    if method == "full":
        refuse("it is for --method lora", rank=rank)
    if teacher == "none":
        refuse("it is a share of the loss that a --teacher gives", distillation=distillation)

    named = out or Path("recovered")
    kept_in = work or named.parent / f"{named.name}.work"
    if out is not None:
        check_new(out, kept_in)

    shown = nullcontext(lambda: None) if dry_run else loading(pruned)
    with shown as stop, keeping("the last state is", kept_in, out):
        from sinkprune.recovery import recover as recovery
        from sinkprune.recovery.training import Recovered

        def tell(words: str) -> None:
            stop()
            say(words)

        found = recovery.recover(
            pruned,
            out=out,
            tokens=tokens,
            steps=steps,
            text=text,
            data=data,
            teacher=None if teacher == "none" else teacher,
            distillation=distillation,
            method=method,
            rank=rank or 16,
            learning_rate=learning_rate,
            batch=batch,
            length=length,
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
            device=device,
            dtype=dtype,
            work=work,
            save_every=save_every,
            dry_run=dry_run,
            tell=tell,
        )

    if isinstance(found, Recovered):
        print(f"{out}: {found}")
        print(f"next: sinkprune compare {shlex.quote(pruned)} {shlex.quote(str(out))}")


def check_new(out: Path, work: Path) -> None:
    """Raise FileExistsError for an output that is there; it says what a kill at the very end has left."""
    try:
        new_path(Path, out)
    except ValueError as error:
        is_whole = (out / "sinkprune.json").is_file() and work.is_dir()
        left = f" {out} is whole, as a folder appears at once: {work} may be removed." if is_whole else ""
        raise FileExistsError(f"--out {out}: {error}{left}") from None

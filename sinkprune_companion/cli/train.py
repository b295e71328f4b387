"""`sinkprune train`: make a diffusion model, or its autoregressive twin, from a causal model or anew."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, Token
from cyclopts.types import NonNegativeInt, NormFloat, PositiveFloat, PositiveInt
from cyclopts.validators import Number

from sinkprune.cli.options import Device, NewPath, refuse, text_file
from sinkprune.cli.screen import keeping, loading

EMBEDDED_BASE = "smol-ar"  # the base that comes with the package


def _numbers(_: type, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Return whole numbers with commas between them."""
    return tuple(int(part) for part in tokens[0].value.split(","))


def train(
    base: Annotated[
        str,
        Parameter(help="smol-ar (with its adapter it is smol-dlm), a hub id of the table, or a folder"),
    ] = EMBEDDED_BASE,
    /,
    *,
    kind: Annotated[
        Literal["diffusion", "autoregressive"],
        Parameter(help="what the base becomes: a diffusion model, or its autoregressive twin"),
    ] = "diffusion",
    from_scratch: Annotated[
        bool,
        Parameter(
            help="train a fresh Llama of 5 million weights instead, with a vocabulary of the training text; "
            "both kinds of one seed begin with the same weights and see the same text in the same order"
        ),
    ] = False,
    wikitext: Annotated[
        bool,
        Parameter(
            help="learn WikiText-2's validation split, too, on which models are calibrated (from scratch)"
        ),
    ] = False,
    text: Annotated[
        Path | None,
        Parameter(
            help="text file to learn, paragraphs parted by blank lines (default: documentation of this "
            "installation); smol-ar learns samples of its own besides",
            validator=text_file,
        ),
    ] = None,
    mask_token: Annotated[
        str | None,
        Parameter(
            help="token of another base, or its number, that stands for a mask (default: one that no text "
            "produces)",
            metavar="TOKEN",
        ),
    ] = None,
    tokens: Annotated[PositiveInt, Parameter(help="training tokens in all")] = 1_024_000,
    lengths: Annotated[
        tuple[int, ...],
        Parameter(
            help="tokens per crop, each step takes one of these lengths",
            metavar="N,N",
            converter=_numbers,
            n_tokens=1,
            show_default="64,128,256,512",
        ),
    ] = (64, 128, 256, 512),
    batch_tokens: Annotated[int, Parameter(help="tokens per step", validator=Number(gte=2))] = 2048,
    learning_rate: Annotated[PositiveFloat, Parameter(help="learning rate before it falls")] = 0.001,
    rank: Annotated[PositiveInt | None, Parameter(help="rank of the adapter", show_default="32")] = None,
    decay_share: Annotated[
        NormFloat,
        Parameter(help="share of all steps over which the learning rate falls to zero at the end"),
    ] = 0.2,
    seed: Annotated[
        NonNegativeInt, Parameter(help="seed of the fresh weights, of the crops and of the noise")
    ] = 0,
    device: Device = "auto",
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"],
        Parameter(help="dtype of the products, auto: bfloat16 where the device has units for it"),
    ] = "auto",
    folder: Annotated[
        Path | None,
        Parameter(
            help="checkpoints and log (default: a folder of the base's name in the cache)", metavar="FOLDER"
        ),
    ] = None,
    begin_with: Annotated[
        Path | None,
        Parameter(
            help="an exported adapter of other settings whose weights a new run begins with", metavar="FOLDER"
        ),
    ] = None,
    export: Annotated[
        NewPath,
        Parameter(
            help="where the adapter of smol-ar goes, or the whole model made from another base or from "
            "scratch (default: only the checkpoint stays)",
            metavar="FOLDER",
        ),
    ] = None,
) -> None:
    """Make a diffusion model of smol-ar, or of any Llama, Qwen2 or Qwen3 model."""
    is_embedded = base == EMBEDDED_BASE
    if is_embedded:
        refuse(f"it is for other bases, and {EMBEDDED_BASE} has its own mask token", mask_token=mask_token)
    if from_scratch:
        refuse("--from-scratch trains no adapter", rank=rank, begin_with=begin_with)
    else:
        refuse("only a model from scratch learns it: give --from-scratch", wikitext=wikitext)

    run = run_folder(folder, base, kind, seed if from_scratch else None)
    check_apart(run, export)

    with loading(base):
        from sinkprune.files import read_text
        from sinkprune.models.devices import choose_device
        from sinkprune_companion.training import export as exporting
        from sinkprune_companion.training import lora
        from sinkprune_companion.training.settings import Training, training_dtype

        device = choose_device(device, f"--device {device}")
        rank = rank or 32
        settings = Training(
            kind=kind,
            base=base,
            from_scratch=from_scratch,
            mask_token=mask_token,
            tokens=tokens,
            lengths=lengths,
            batch_tokens=batch_tokens,
            learning_rate=learning_rate,
            rank=rank,
            alpha=2 * rank,
            decay_share=decay_share,
            seed=seed,
            dtype=training_dtype(dtype, device),
        )
        learned = None if text is None else read_text(text)

    with keeping("the last checkpoint is", run):
        trained = lora.train(settings, run, begin_with, text=learned, device=device, wikitext=wikitext)
        if export is None:
            return
        exporting.export(trained, export)

    if is_embedded and not from_scratch:
        print(f"adapter written to {export}")
    else:
        pruned = shlex.join([str(export), "--out", f"{export}-pruned"])
        print(f"model written to {export}\nnext: sinkprune prune {pruned}")


def run_folder(folder: Path | None, base: str, kind: str, fresh: int | None) -> Path:
    """Return the folder of a run; `fresh` is the seed of a model from scratch."""
    from sinkprune.files import cache_dir

    name = kind if base == EMBEDDED_BASE else f"{Path(base).name}-{kind}"
    if fresh is not None:
        name = f"scratch-{name}-seed{fresh}"
    return (folder or cache_dir() / "training" / name).resolve()


def check_apart(run: Path, export: Path | None) -> None:
    """Raise ValueError for an export in the folder of the run, or around it: one would be removed with it."""
    place = None if export is None else export.resolve()
    if place is not None and (place in (run, *run.parents) or run in place.parents):
        raise ValueError(
            f"--export {export} and the folder of the run, {run}, lie one in the other: "
            "give the export a place of its own"
        )

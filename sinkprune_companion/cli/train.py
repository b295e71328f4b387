"""`sinkprune train`: make a diffusion model, or its autoregressive twin, from a causal model or anew."""

import argparse
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

from sinkprune_companion.cli.model_options import check_model
from sinkprune_companion.cli.options import (
    Options,
    check_text,
    check_writable,
    kept,
    option,
    path,
    positional,
    real,
    switch,
    whole,
)
from sinkprune_core.files import cache_dir

KINDS = ("diffusion", "autoregressive")
DTYPES = ("auto", "bfloat16", "float32")
EMBEDDED_BASE = "smol-ar"


def whole_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a list with commas, for argparse."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        words = f"{text} must be whole numbers with commas between them, e.g. 64,128"
        raise argparse.ArgumentTypeError(words) from None


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """The options of `sinkprune train`; defaults are those of `training.settings.Training`."""

    base: str = positional(
        "smol-ar (default; with its adapter it is smol-dlm), a hub id of the table, or a folder",
        EMBEDDED_BASE,
        nargs="?",
    )
    kind: str = option(
        "diffusion",
        "what the base becomes: a diffusion model (default), or its autoregressive twin",
        choices=KINDS,
    )
    from_scratch: bool = switch(
        "train a fresh Llama of 5 million weights instead, with a vocabulary of the training text; both "
        "kinds of one seed begin with the same weights and see the same text in the same order"
    )
    text: Path | None = path(
        "text file to learn, paragraphs parted by blank lines (default: documentation of this "
        "installation); smol-ar learns samples of its own besides"
    )
    mask_token: str | None = option(
        None,
        "token of another base, or its number, that stands for a mask (default: one that no text produces)",
        metavar="TOKEN",
    )
    tokens: int = whole(1_024_000, "training tokens in all", least=1)
    lengths: tuple[int, ...] = option(
        (64, 128, 256, 512),
        "tokens per crop, each step takes one of these lengths (at least 2 each; default: 64,128,256,512)",
        type=whole_numbers,
        metavar="N,N",
    )
    batch_tokens: int = whole(2048, "tokens per step", least=2)
    learning_rate: float = real(0.001, "learning rate before it falls", "above 0")
    rank: int = whole(32, "rank of the adapter", least=1)
    decay_share: float = real(
        0.2,
        "share of all steps over which the learning rate falls to zero at the end",
        "of at least 0 and at most 1",
    )
    seed: int = whole(0, "seed of the fresh weights, of the crops and of the noise", least=0)
    device: str = option("auto", "cpu, cuda, cuda:1, mps (default: a GPU where there is one)")
    dtype: str = option(
        "auto",
        "dtype of the products (default: bfloat16 where the device has units for it)",
        choices=DTYPES,
    )
    folder: Path | None = path(
        "checkpoints and log (default: a folder of the base's name in the cache)", "FOLDER"
    )
    begin_with: Path | None = path(
        "an exported adapter of other settings whose weights a new run begins with", "FOLDER"
    )
    export: Path | None = path(
        "where the adapter of smol-ar goes, or the whole model made from another base or from scratch; "
        "it must not exist (default: only the checkpoint stays)",
        "FOLDER",
    )

    outputs = ("export",)

    def __post_init__(self):
        if self.is_embedded:
            self.refuse(("mask_token",), f"it is for other bases, and {EMBEDDED_BASE} has its own mask token")
        if self.from_scratch:
            self.refuse(("rank", "begin_with"), "--from-scratch trains no adapter")

    def check_inputs(self) -> None:
        """Raise an error for a text or base that is not there, and a folder that cannot be written."""
        check_text(self.text)
        check_model(self.base)
        check_writable("folder", self.run_folder)

    @property
    def is_embedded(self) -> bool:
        """Whether the base is the one that comes with the package."""
        return self.base == EMBEDDED_BASE

    @property
    def run_folder(self) -> Path:
        """Where checkpoints and the log are kept."""
        if self.folder is not None:
            return self.folder
        name = self.kind if self.is_embedded else f"{Path(self.base).name}-{self.kind}"
        if self.from_scratch:
            name = f"scratch-{name}-seed{self.seed}"
        return cache_dir() / "training" / name

    @property
    def left_behind(self) -> str:
        """What an interrupted command leaves, in words."""
        return kept("the last checkpoint is", self.run_folder)


def run(options: TrainOptions) -> int:
    """Train in the run's folder, going on from its last checkpoint, and export what came out."""
    from sinkprune_companion.cli.inputs import on_device
    from sinkprune_companion.harness.local_data import read_text
    from sinkprune_companion.training.export import export
    from sinkprune_companion.training.lora import train
    from sinkprune_companion.training.settings import Training, training_dtype

    options = on_device(options)
    names = [declared.name for declared in fields(Training) if hasattr(options, declared.name)]
    settings = {name: getattr(options, name) for name in names}
    settings |= {"dtype": training_dtype(options.dtype, options.device), "alpha": 2 * options.rank}
    text = None if options.text is None else read_text(options.text)
    folder, start = options.run_folder, options.begin_with
    checkpoint = train(Training(**settings), folder, start, text=text, device=options.device)
    if options.export is None:
        return 0
    export(checkpoint, options.export)
    if options.is_embedded and not options.from_scratch:
        print(f"adapter written to {options.export}")
    else:
        pruned = shlex.join([str(options.export), "--out", f"{options.export}-pruned"])
        print(f"model written to {options.export}\nnext: sinkprune prune {pruned}")
    return 0

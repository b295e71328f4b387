"""What `sinkprune train` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from sinkprune.cli import checks
from sinkprune.cli.options import (
    ARGUMENTS,
    Options,
    check_text,
    place,
    real,
    switch,
    whole,
    whole_numbers,
    word,
)
from sinkprune.files import cache_dir

EMBEDDED_BASE = "smol-ar"  # the base that comes with the package


@dataclass(kw_only=True)
class Train(Options):
    """Options of `sinkprune train`."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("export",)
    MODELS: ClassVar[tuple[str, ...]] = ("base",)

    base: Annotated[
        str,
        word(
            "smol-ar (default; with its adapter it is smol-dlm), a hub id of the table, or a folder",
            show_default=False,
            group=ARGUMENTS,
        ),
    ] = field(default=EMBEDDED_BASE, kw_only=False)
    kind: Annotated[
        Literal["diffusion", "autoregressive"],
        word(
            "what the base becomes: a diffusion model (default), or its autoregressive twin",
            show_default=False,
        ),
    ] = "diffusion"
    from_scratch: Annotated[
        bool,
        switch(
            "train a fresh Llama of 5 million weights instead, with a vocabulary of the training text; both "
            "kinds of one seed begin with the same weights and see the same text in the same order"
        ),
    ] = False
    wikitext: Annotated[
        bool,
        switch("learn WikiText-2's validation split, too, on which models are calibrated (from scratch)"),
    ] = False
    text: Annotated[
        Path | None,
        place(
            "text file to learn, paragraphs parted by blank lines (default: documentation of this "
            "installation); smol-ar learns samples of its own besides"
        ),
    ] = None
    mask_token: Annotated[
        str | None,
        word(
            "token of another base, or its number, that stands for a mask (default: one that no text "
            "produces)",
            metavar="TOKEN",
        ),
    ] = None
    tokens: Annotated[int, whole("training tokens in all", at_least=1)] = 1_024_000
    lengths: Annotated[
        tuple[int, ...],
        whole_numbers(
            "tokens per crop, each step takes one of these lengths (at least 2 each; "
            "default: 64,128,256,512)",
            show_default=False,
        ),
    ] = (64, 128, 256, 512)
    batch_tokens: Annotated[int, whole("tokens per step", at_least=2)] = 2048
    learning_rate: Annotated[float, real("learning rate before it falls", above=0)] = 0.001
    rank: Annotated[int, whole("rank of the adapter", at_least=1)] = 32
    decay_share: Annotated[
        float,
        real(
            "share of all steps over which the learning rate falls to zero at the end", at_least=0, at_most=1
        ),
    ] = 0.2
    seed: Annotated[int, whole("seed of the fresh weights, of the crops and of the noise", at_least=0)] = 0
    device: Annotated[
        str,
        word(
            "cpu, cuda, cuda:1, mps (default: a GPU where there is one)",
            metavar="DEVICE",
            show_default=False,
        ),
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"],
        word(
            "dtype of the products (default: bfloat16 where the device has units for it)", show_default=False
        ),
    ] = "auto"
    folder: Annotated[
        Path | None,
        place("checkpoints and log (default: a folder of the base's name in the cache)", "FOLDER"),
    ] = None
    begin_with: Annotated[
        Path | None,
        place("an exported adapter of other settings whose weights a new run begins with", "FOLDER"),
    ] = None
    export: Annotated[
        Path | None,
        place(
            "where the adapter of smol-ar goes, or the whole model made from another base or from scratch; "
            "it must not exist (default: only the checkpoint stays)",
            "FOLDER",
        ),
    ] = None

    def settle(self) -> None:
        """Refuse what does not go together, and find the folder of the run."""
        super().settle()
        is_embedded = self.base == EMBEDDED_BASE
        if is_embedded:
            words = f"it is for other bases, and {EMBEDDED_BASE} has its own mask token"
            self.refuse(("mask_token",), words)

        if self.from_scratch:
            self.refuse(("rank", "begin_with"), "--from-scratch trains no adapter")
        else:
            self.refuse(("wikitext",), "only a model from scratch learns it: give --from-scratch")

        checks.check_named("folder", self.folder)
        name = self.kind if is_embedded else f"{Path(self.base).name}-{self.kind}"
        if self.from_scratch:
            name = f"scratch-{name}-seed{self.seed}"

        self.work_folder = (self.folder or cache_dir() / "training" / name).resolve()
        self._check_apart()

    def _check_apart(self) -> None:
        """Raise ValueError where a run and what it exports would lie one in the other.

        The export must not exist: it would be refused after the training, and to remove it would remove the
        run.
        """
        if self.export is None:
            return

        run, export = self.work_folder, self.export.resolve()
        if run == export or run in export.parents or export in run.parents:
            raise ValueError(
                f"--export {self.export} and the folder of the run, {self.work_folder}, lie one in the "
                "other: give the export a place of its own"
            )

    def check_places(self) -> None:
        """Raise an error for a text that is not there, and a folder that cannot be written."""
        if self.text is not None:
            check_text(self.text)
        checks.check_writable("folder", self.work_folder)

    def left_behind(self) -> str:
        """Return what an interrupted run leaves, in words."""
        if not self.work_folder.exists():
            return "nothing was done yet, and nothing was written"
        return f"the last checkpoint is kept in {self.work_folder}, and the same command goes on from there"


COMMAND = Train

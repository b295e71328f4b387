"""Options that several commands share, as types that cyclopts reads, and what it checks of a path."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token
from cyclopts.types import NonNegativeInt, PositiveInt
from cyclopts.validators import Number
from cyclopts.validators import Path as PathValidator

from sinkprune.named_texts import WIKITEXT, is_wikitext

DEFAULT_BATCH = 16  # sequences at once where a model is pruned, diagnosed or traced

# how options are grouped in help
TEXT = Group("text", sort_key=1)
WHERE = Group("where the model is computed", sort_key=2)
RUNNING = Group("how to run", sort_key=4)


# paths


def text_file(_: type, text: Path | None) -> None:
    """Raise ValueError for a text that is neither a file nor a data set."""
    if text is not None and not text.is_file() and not is_wikitext(text):
        raise ValueError(f"There is no such file, and {WIKITEXT} is the only data set.")


def new_path(_: type, path: Path | None) -> None:
    """Raise ValueError for a path that exists, or where nothing can be made; leave nothing there."""
    if path is None:
        return
    if os.path.lexists(path):
        raise ValueError("It exists: choose another name or remove it first.")
    try:
        with TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise ValueError(f"It cannot be written ({error.strerror}): choose another place.") from None


NewPath = Annotated[Path | None, Parameter(validator=new_path)]
Picture = Annotated[
    Path | None,
    Parameter(metavar="FILE.png", validator=[new_path, PathValidator(ext=("png", "pdf", "svg"))]),
]


# values


def _map_of_devices(_: type, tokens: Sequence[Token]) -> str | dict:
    """Return what `device_map` of transformers takes; raise ValueError for broken JSON."""
    word = tokens[0].value
    return json.loads(word) if word.startswith("{") else word


Model = Annotated[str, Parameter(help="smol-dlm, smol-ar, a hub id of docs/models.md, or a folder")]
Device = Annotated[
    str,
    Parameter(
        help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)", show_default=False, group=WHERE
    ),
]
Seed = Annotated[NonNegativeInt, Parameter(help="seed of the choice of text and of all noise")]
Batch = Annotated[
    PositiveInt | None,
    Parameter(
        help="sequences at once; but for rounding it changes speed and memory only",
        show_default=str(DEFAULT_BATCH),
        group=WHERE,
    ),
]
Length = Annotated[
    int | None,
    Parameter(help="tokens per sequence", validator=Number(gte=2), show_default="128, with --text 512"),
]
DryRun = Annotated[
    bool, Parameter(help="say what memory and disk it takes, and stop; no weights are read", group=RUNNING)
]
Stream = Annotated[
    bool,
    Parameter(
        help="read blocks from disk one at a time (default: where the weights take most of the free memory)",
        group=RUNNING,
    ),
]


@dataclass(frozen=True)
class Where:
    """In which dtype and on what a model is computed; raises ValueError for a device beside a map of them."""

    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "fp32", "bf16", "fp16"],
        Parameter(help="auto is the device's best", group=WHERE),
    ] = "auto"
    device: Device = "auto"
    device_map: Annotated[
        str | dict | None,
        Parameter(
            help="spread the model over several devices: auto (all GPUs), or a JSON object of parts and "
            "devices",
            metavar="MAP",
            converter=_map_of_devices,
            n_tokens=1,
            accepts_keys=False,
            group=WHERE,
        ),
    ] = None

    def __post_init__(self):
        if self.device_map is not None and self.device != "auto":
            refuse(f"--device-map {self.device_map} names the devices", device=self.device)


@dataclass(frozen=True)
class Source:
    """Where sequences of text are taken from."""

    text: Annotated[
        Path | None,
        Parameter(
            help="text file, or JSON lines (.jsonl) of texts or chats, to take sequences from, or wikitext-2 "
            "(default, for trials: documentation of this installation, and for smol-dlm and smol-ar samples "
            "of smol-ar)",
            validator=text_file,
            group=TEXT,
        ),
    ] = None
    data: Annotated[
        Path | None,
        Parameter(
            help="folder that holds WikiText-2 or BLiMP as published, as text, JSON lines or parquet "
            "(default: the hub)",
            metavar="FOLDER",
            group=TEXT,
        ),
    ] = None
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        Parameter(
            help="split of wikitext-2 (default: train for calibration, test for evaluation)", group=TEXT
        ),
    ] = None

    def check(self) -> None:
        """Raise ValueError for what is for a data set where none is asked for."""
        if not is_wikitext(self.text):
            use = f"it is for --text {WIKITEXT}, and in evaluate for --tasks blimp and wikitext"
            refuse(use, data=self.data, split=self.split)


AT = Where()
ANY = Source()
WhereOptions = Annotated[Where, Parameter(name="*")]
SourceOptions = Annotated[Source, Parameter(name="*")]


def refuse(reason: str, **options: object) -> None:
    """Raise ValueError for the first of some options that was given, which does nothing for `reason`."""
    for name, value in options.items():
        if value:
            asked = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise ValueError(f"{asked} does nothing here: {reason}; leave it out")

"""The options of commands that work on one model and some text: prune, trace, evaluate and compare."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sinkprune_companion.cli.options import Options, check_text, option, path, positional, whole

WIKITEXT = "wikitext-2"  # the value of --text that stands for a data set instead of a file
SPLITS = ("train", "validation", "test")
DTYPES = ("float32", "bfloat16", "float16")
ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
WHERE = "where the model is computed"
TEXT = "text"


def device_map(text: str) -> str | dict[str, str | int]:
    """Return the device map that a word or a JSON object spells, for argparse."""
    if not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        example = '\'{"": "cuda:1"}\''
        raise argparse.ArgumentTypeError(
            f"{text}: {error}; give auto, a device, or a JSON object such as {example}"
        ) from None


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """Which model, on which device, and which text. Raises ValueError for values that do not go together."""

    model: str = positional("smol-dlm, smol-ar, a hub id of docs/models.md, or a folder")
    seed: int = whole(0, "seed of the choice of text and of all noise", least=0)
    dtype: str = option(
        "auto",
        "float32 (fp32), bfloat16 (bf16), float16 (fp16) or auto, the device's best (default)",
        WHERE,
        type=lambda name: ALIASES.get(name, name),
        choices=(*DTYPES, "auto"),
        metavar="DTYPE",
    )
    device: str = option("auto", "cpu, cuda, cuda:1, mps (default: a GPU where there is one)", WHERE)
    device_map: str | Mapping[str, str | int] | None = option(
        None,
        "spread the model over several devices: auto (all GPUs), or a JSON object of parts and devices",
        WHERE,
        type=device_map,
        metavar="MAP",
    )
    batch: int | None = whole(16, "sequences at once; it changes speed and memory only", least=1, group=WHERE)
    text: Path | None = path(
        "text file to take sequences from, or wikitext-2 (default, for trials: documentation of this "
        "installation, and for smol-dlm and smol-ar samples of smol-ar)",
        group=TEXT,
    )
    data: Path | None = path(
        "folder that holds WikiText-2 or BLiMP as published, as text, JSON lines or parquet "
        "(default: the hub)",
        "FOLDER",
        TEXT,
    )
    split: str | None = option(
        None,
        "split of wikitext-2 (default: train for calibration, test for evaluation)",
        TEXT,
        choices=SPLITS,
    )

    def __post_init__(self):
        if self.device_map is not None:
            self.refuse(("device",), f"--device-map {self.device_map} names the devices")

    def check_inputs(self) -> None:
        """Raise an error for a `--text` or a model that is not there."""
        if not self.asks_wikitext:
            for name in ("data", "split"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"--{name} {getattr(self, name)} is for --text {WIKITEXT}, and in evaluate for "
                        "--tasks blimp and wikitext: give one of them or leave it out"
                    )
            check_text(self.text)
        check_model(self.model)

    @property
    def asks_wikitext(self) -> bool:
        """Whether `--text` asks for the data set WikiText-2: a file of that name comes first."""
        return self.text is not None and str(self.text) == WIKITEXT and not self.text.is_file()


def check_model(name: str) -> None:
    """Raise ValueError unless `name` is in the table of models or a folder with a model."""
    from sinkprune_core.models.hub import parse  # seconds of imports, which help does without

    parse(name)

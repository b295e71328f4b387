"""The options of commands that work on one model and some text: prune, trace, evaluate and compare."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from sinkprune_companion.cli.options import (
    Options,
    check_input_file,
    option,
    path,
    positional,
    suggestion,
    whole,
)

WIKITEXT = "wikitext-2"  # the value of --text that stands for a data set instead of a file
SPLITS = ("train", "validation", "test")
DTYPES = ("float32", "bfloat16", "float16")
ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
WHERE = "where the model is computed"
TEXT = "text"


def dtype_name(text: str) -> str:
    """Return the full name of a dtype, for argparse."""
    name = ALIASES.get(text, text)
    if name not in (*DTYPES, "auto"):
        near = suggestion(text, (*DTYPES, *ALIASES))
        raise argparse.ArgumentTypeError(
            f"{text!r} is unknown{near or ';'} choose one of {', '.join(DTYPES)}, auto"
        )
    return name


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """Which model, on which device, and which text. Raises ValueError for values that do not go together."""

    model: str = positional("smol-dlm, smol-ar, a hub id of the table of models, or a folder")
    seed: int = whole(0, "seed of the choice of text and of all noise", least=0)
    dtype: str = option(
        "auto",
        "float32 (fp32), bfloat16 (bf16), float16 (fp16) or auto, the device's best (default)",
        WHERE,
        type=dtype_name,
        metavar="DTYPE",
    )
    device: str = option("auto", "cpu, cuda, cuda:1, mps (default: a GPU where there is one)", WHERE)
    device_map: str | None = option(
        None,
        "spread the model over several devices: auto (all GPUs), or a JSON object of parts and devices",
        WHERE,
        metavar="MAP",
    )
    batch: int | None = whole(16, "sequences at once; it changes speed and memory only", least=1, group=WHERE)
    text: Path | None = path(
        "text file to take sequences from, or wikitext-2 (default: documentation of this installation, "
        "and samples of smol-ar for its own vocabulary)",
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
            device_map_of(self.device_map)
            self.refuse(("device",), f"--device-map {self.device_map} names the devices")

    def check_inputs(self) -> None:
        """Raise an error for a model or a `--text` that is not there, before anything heavy is imported."""
        check_model_name(self.model)
        if asks_wikitext(self.text):
            return
        for name in ("data", "split"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"--{name} {getattr(self, name)} is for --text {WIKITEXT}, and in evaluate for --tasks "
                    "blimp and wikitext: give one of them or leave it out"
                )
        check_input_file("text", self.text)


def device_map_of(text: str) -> str | dict[str, str | int]:
    """Return the device map that `--device-map` spells: a word, or a JSON object.

    Raises ValueError for broken JSON.
    """
    if not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        example = '\'{"": "cuda:1"}\''
        raise ValueError(
            f"--device-map {text}: {error}; give auto, a device, or a JSON object such as {example}"
        ) from None


def asks_wikitext(text: Path | None) -> bool:
    """Return whether `--text` asks for the data set WikiText-2: a file of that name comes first."""
    return text is not None and str(text) == WIKITEXT and not text.is_file()


def check_model_name(name: str) -> None:
    """Raise ValueError or an OSError unless `name` is in the table of models or a folder with a model."""
    from sinkprune_core.models.catalog import EMBEDDED, MODELS, REFUSED

    plain, _, revision = name.partition("@")
    if plain in EMBEDDED and revision:
        raise ValueError(
            f"{name}: {plain} comes with this package and has no revisions; leave @{revision} out"
        )
    if plain in MODELS or plain in REFUSED:
        return
    folder = Path(name)
    wanted = "a folder with config.json and safetensors"
    if folder.is_file():
        raise NotADirectoryError(f"{name} is a file: give {wanted}")
    if folder.is_dir():
        if (folder / "config.json").is_file() or any(folder.glob("*.safetensors")):
            return
        raise FileNotFoundError(f"the folder {name} holds no config.json and no safetensors: give {wanted}")
    near = suggestion(plain, MODELS)
    raise ValueError(
        f"{name}: no such folder or model{near or ';'} give {', '.join(EMBEDDED)}, "
        f"a hub id of docs/models.md, or {wanted}"
    )

"""The options of commands that work on one model and some text: prune, trace and evaluate."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from sinkprune_companion.cli.options import Options, add_number, check_input_file, suggestion, whole

WIKITEXT = "wikitext-2"  # the value of --text that stands for a data set instead of a file
SPLITS = ("train", "validation", "test")
DTYPES = ("float32", "bfloat16", "float16")
ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """Which model, on which device, and which text. Raises ValueError for values that do not go together."""

    model: str
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    text: Path | None = None
    data: Path | None = None
    split: str | None = None
    batch: int = whole(16, least=1)
    seed: int = whole(0, least=0)

    def __post_init__(self):
        super().__post_init__()
        if self.device_map is not None:
            device_map_of(self.device_map)
            self.refuse(("device",), f"--device-map {self.device_map} names the devices")

    def check_text(self) -> None:
        """Raise an error for a `--text` that is not there, or `--data` and `--split` without their text."""
        if asks_wikitext(self.text):
            return
        for name in ("data", "split"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"--{name} {getattr(self, name)} is for --text {WIKITEXT}, and in evaluate for --tasks "
                    "blimp and wikitext: give one of them or leave it out"
                )
        check_input_file("text", self.text)


def add_model_options(parser: argparse.ArgumentParser, options: type[ModelOptions]) -> None:
    """Add the options of `ModelOptions`, with the defaults of a command's own `options`."""
    parser.add_argument("model", help="smol-dlm, smol-ar, a hub id of the table of models, or a folder")
    add_number(parser, options, "seed", "seed of the choice of text and of all noise")
    group = parser.add_argument_group("where the model is computed")
    group.add_argument(
        "--dtype",
        type=dtype_name,
        metavar="DTYPE",
        help="float32 (fp32), bfloat16 (bf16), float16 (fp16) or auto, the device's best (default)",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")
    group.add_argument(
        "--device-map",
        metavar="MAP",
        help="spread the model over several devices: auto (all GPUs), or a JSON object of parts and devices",
    )
    add_number(group, options, "batch", "sequences at once; it changes speed and memory only")
    group = parser.add_argument_group("text")
    group.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="text file to take sequences from, or wikitext-2 (default: documentation of this installation, "
        "and samples of smol-ar for its own vocabulary)",
    )
    group.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder that holds WikiText-2 or BLiMP as published, as text, JSON lines or parquet "
        "(default: the hub)",
    )
    group.add_argument(
        "--split",
        choices=SPLITS,
        help="split of wikitext-2 (default: train for calibration, test for evaluation)",
    )


def dtype_name(text: str) -> str:
    """Return the full name of a dtype, for argparse."""
    name = ALIASES.get(text, text)
    if name not in (*DTYPES, "auto"):
        near = suggestion(text, (*DTYPES, *ALIASES))
        raise argparse.ArgumentTypeError(
            f"{text!r} is unknown{near}{'' if near else ';'} choose one of {', '.join(DTYPES)}, auto"
        )
    return name


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

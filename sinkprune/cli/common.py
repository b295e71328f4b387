"""What commands on a model share: from options to a model on a device and to tokens, and printed tables."""

import json
import math
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sinkprune import corpus
from sinkprune.calibration import TEXT_LENGTH
from sinkprune.cli.commands.diagnose import Diagnose
from sinkprune.cli.commands.prune import Prune
from sinkprune.cli.help_pages import say, two_columns
from sinkprune.cli.options import HasDevice, ModelOptions, TextOptions
from sinkprune.documents import Document, documents_in, written
from sinkprune.evaluation import local_data
from sinkprune.evaluation.intervals import interval
from sinkprune.files import write_json
from sinkprune.memory import free_memory
from sinkprune.models.catalog import EMBEDDED
from sinkprune.models.devices import choose_device, choose_dtype, device_name
from sinkprune.models.hub import WORKING, adapter_base, available_memory
from sinkprune.models.loading import load, open_checkpoint
from sinkprune.models.meta_model import MetaModel, shapes_of
from sinkprune.models.streaming import stream
from sinkprune.recovery.model_card import card_of
from sinkprune.runs.memory_and_disk import Needs, weight_bytes
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator

STREAM_ABOVE = 0.6  # a model larger than this share of the free memory is streamed from disk
WAYS_OUT = "fewer or shorter sequences, a smaller batch, --stream"  # of too little memory
DEFAULT_LENGTH = 128  # tokens per sequence of the text that comes with every installation
SHARED = ("measure", "method")  # columns of words
NOTHING = 1e-9  # what is smaller is 0 in a table: the rounding of float64


# models


def settle_device(options: HasDevice) -> None:
    """Replace `auto` by a device; raise ValueError for one that is not here; see `check_memory`, too."""
    check_memory()
    options.device = choose_device(options.device, f"--device {options.device}")


def check_memory() -> None:
    """Raise RuntimeError where there is so little memory that libraries would end the process."""
    free = free_memory()
    if free < WORKING:
        raise RuntimeError(
            f"{free / 1e6:.0f} MB of memory can be had, and {WORKING / 1e6:.0f} MB are the least: end other "
            "programs, or raise the limit (of a container, or ulimit -v)"
        )


def open_model(options: ModelOptions, name: str, streamed: bool | None = False) -> LanguageModel:
    """Load a model, or stream it from disk; None: stream it where it would not fit well into memory.

    Raises ValueError for a model that cannot be streamed, and what `load` and `stream` raise.
    """
    if options.device_map is not None:
        return load(name, options.dtype, device_map=options.device_map)

    dtype = choose_dtype(options.dtype, options.device)
    if streamed is None and _can_be_streamed(name):
        streamed = _is_large(open_checkpoint(name).parameters * dtype.itemsize, options.device)

    if streamed:
        return stream(open_checkpoint(name), Path(name).name, dtype, options.device)

    return load(name, dtype, options.device)


def _can_be_streamed(name: str) -> bool:
    """Return whether the weights of a model are read as they are: those of a base with an adapter are not."""
    return name not in EMBEDDED and adapter_base(name) is None


def _is_large(size: int, device: str) -> bool:
    """Return whether so many bytes of weights take most of the free memory of a device."""
    return size > STREAM_ABOVE * available_memory(device)


def planned(options: Prune | Diagnose, sequences: int) -> tuple[MetaModel, Calibration]:
    """Return the shapes of a model and of its calibration text: what a dry run needs, and nothing is loaded.

    The model says whether it would be streamed.
    """
    lm = shapes_of(options.model, choose_dtype(options.dtype, options.device))
    streamed = options.stream
    if not streamed and options.device_map is None and _can_be_streamed(options.model):
        streamed = _is_large(weight_bytes(lm), options.device)

    length = options.length or default_length(options, lm.model.config.max_position_embeddings)
    ids_NT = torch.zeros(sequences, length, dtype=torch.long)
    return replace(lm, will_be_streamed=streamed), Calibration(ids_NT, batch=options.batch)


def say_needs(lm: LanguageModel, device: str, what: str, needed: Needs) -> None:
    """Say what a run on a model takes that is, or would be, computed on a device."""
    how = ", streamed from disk" if lm.is_streamed else ""
    say(f"{described(lm, device)}{how}, {what}: {needed}")


def where(dtype: torch.dtype, device: str) -> str:
    """Return in which dtype and on what a model is computed, in words."""
    return f"{str(dtype).removeprefix('torch.')} on {device}"


def described(lm: LanguageModel, device: str | None = None) -> str:
    """Return what a model is and where it is computed, which decides its numbers and its speed.

    `device` is where one without weights would be computed.
    """
    return f"{lm.name} ({lm.kind}, {where(lm.model.dtype, device_name(device or lm.device))})"


# text


def documents_of(options: TextOptions, held_out: bool) -> list[Document] | None:
    """Return the documents of `--text`: those of a file, or articles of WikiText-2; None without it.

    Raises ValueError for text that cannot be read, and OSError for data that cannot be had.
    """
    if options.text is None:
        return None
    if options.asks_wikitext():
        return local_data.wikitext_documents(options.data, options.split or ("test" if held_out else "train"))
    return documents_in(options.text)


def known_text(options: TextOptions, name: str) -> str | None:
    """Return a warning where a model was pruned or trained with a file of the name of `--text`.

    Its card says that; None where it does not, and for WikiText-2, of which another split is scored.
    """
    if options.text is None or options.asks_wikitext():
        return None

    card = card_of(name)
    made_from, recovery = card.get("made_from") or {}, card.get("recovery") or {}
    if options.text.name not in (*made_from.get("text", ()), recovery.get("text_name")):
        return None
    return (
        f"warning: {name} was made with a text called {options.text.name}: if it is this one, its loss here "
        "is too low; give a text that neither prune nor recover has read"
    )


def default_length(options: TextOptions, positions: int) -> int:
    """Return the tokens per sequence without `--length`; never more than a model's `positions`."""
    return min(DEFAULT_LENGTH if options.text is None else TEXT_LENGTH, positions)


def model_and_texts(
    options: TextOptions,
    sequences: int,
    length: int | None,
    held_out: bool,
    streamed: bool | None = False,
) -> tuple[LanguageModel, dict[str, torch.Tensor]]:
    """Return a model and so many sequences of `length` tokens by source, int64 (N, T).

    They are drawn from `--text`, or from what comes with every installation: its documentation, and samples
    of smol-ar for a model of the same vocabulary. Raises ValueError for too short a source, and what
    `documents_of`, before the model is loaded, and `open_model` raise.
    """
    documents = documents_of(options, held_out)
    lm = open_model(options, options.model, streamed)
    tokenizer = lm.text_tokenizer
    length = length or default_length(options, lm.model.config.max_position_embeddings)

    if documents is None or options.text is None:
        if length <= DEFAULT_LENGTH and corpus.is_of_samples(tokenizer):
            return lm, corpus.texts(tokenizer, sequences, length, held_out, options.seed)
        kind = name = "documentation"
        ids_NT = corpus.documentation_sequences(
            tokenizer, length, held_out, scope="everything", mask_token_id=lm.mask_token_id
        )
    else:
        kind, name = "text", options.text.name  # a copy of a file has another name
        texts = written(documents, tokenizer)
        ids_NT = corpus.pack(texts, tokenizer, length, lm.mask_token_id)

    if len(ids_NT) < sequences:
        raise ValueError(
            f"--sequences {sequences}: {name} has {len(ids_NT)} sequences of {length} tokens: "
            "ask for fewer or shorter ones, or give more text"
        )

    order = torch.randperm(len(ids_NT), generator=generator(options.seed, "texts", kind, held_out))
    return lm, {name: ids_NT[order[:sequences].sort().values]}


# tables


def estimate(values: pd.Series, is_share: bool = False) -> dict[str, object]:
    """Return the mean of `values` with its 95 % interval; a single value has no interval, and none is NaN.

    The interval of a share ends at 0 and 1.
    """
    known = values.dropna()
    if len(known) < 2:
        return {"value": float(known.mean()) if len(known) else math.nan}

    mean = interval(known)
    found = {name: getattr(mean, name) for name in ("value", "low", "high", "units", "method")}
    if is_share:
        found["low"] = max(found["low"], 0.0)
        found["high"] = min(found["high"], 1.0)

    return found


def number_text(value: float) -> str:
    """Return a number as people write it: four digits, no exponent, and 0 for what is rounding alone."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) < NOTHING:
        return "0"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return np.format_float_positional(value, precision=4, unique=False, fractional=False, trim="-")


def as_text(table: pd.DataFrame) -> str:
    """Return `table` as text, numbers as people write them.

    Words that all rows share are said once, below; on a terminal columns that do not fit come beneath.
    """
    different: dict[str, int] = table.nunique().to_dict()
    shared = [name for name in SHARED if name in table and different[name] == 1]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = [table.drop(columns=shared).to_string(float_format=number_text, line_width=width)]
    if shared:
        lines.append("; ".join(f"{name}: {table[name].iloc[0]}" for name in shared))
    return "\n".join(lines)


def print_table(
    table: pd.DataFrame, file: Path | None, meanings: Mapping[str, str] | None = None, title: str = ""
) -> None:
    """Print a title, `table` and what its columns or rows mean, and write its rows to a JSON file."""
    if title:
        print(title)

    print(as_text(table))
    if file is not None:
        rows = table.reset_index().to_json(orient="records")
        write_json(file, json.loads(rows or "[]"))

    if meanings:
        print(f"\n{two_columns(list(meanings.items()))}")

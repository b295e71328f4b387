"""What commands on a model share: from options to a model on a device and to tokens, and printed tables.

Commands import it where they run, with torch and pandas.
"""

import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sinkprune import corpus
from sinkprune.calibration import TEXT_LENGTH
from sinkprune.cli.options import Source, Where
from sinkprune.cli.screen import say, wrapped
from sinkprune.documents import Document, documents_in, written
from sinkprune.evaluation import local_data
from sinkprune.evaluation.intervals import interval
from sinkprune.files import write_json
from sinkprune.models.catalog import EMBEDDED
from sinkprune.models.devices import choose_device, choose_dtype, device_name
from sinkprune.models.hub import adapter_base, available_memory
from sinkprune.models.loading import load, open_checkpoint
from sinkprune.models.meta_model import MetaModel, shapes_of
from sinkprune.models.streaming import stream
from sinkprune.named_texts import is_wikitext
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
ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


# models


def place_of(where: Where) -> tuple[str, torch.dtype]:
    """Return the device and the dtype that are meant; raise ValueError for a device that is not here."""
    device = choose_device(where.device, f"--device {where.device}")
    return device, choose_dtype(ALIASES.get(where.dtype, where.dtype), device)


def open_model(name: str, where: Where, streamed: bool | None = False) -> LanguageModel:
    """Load a model, or stream it from disk; None: stream it where it would not fit well into memory.

    Raises ValueError for a model that cannot be streamed, and what `load` and `stream` raise.
    """
    if where.device_map is not None:
        return load(name, ALIASES.get(where.dtype, where.dtype), device_map=where.device_map)

    device, dtype = place_of(where)
    if streamed is None and _can_be_streamed(name):
        streamed = _is_large(open_checkpoint(name).parameters * dtype.itemsize, device)

    if streamed:
        return stream(open_checkpoint(name), Path(name).name, dtype, device)

    return load(name, dtype, device)


def _can_be_streamed(name: str) -> bool:
    """Return whether the weights of a model are read as they are: those of a base with an adapter are not."""
    return name not in EMBEDDED and adapter_base(name) is None


def _is_large(size: int, device: str) -> bool:
    """Return whether so many bytes of weights take most of the free memory of a device."""
    return size > STREAM_ABOVE * available_memory(device)


def planned(
    model: str, where: Where, source: Source, shape: tuple[int, int | None], batch: int, stream: bool
) -> tuple[MetaModel, Calibration]:
    """Return the shapes of a model and of its calibration text: what a dry run needs, and nothing is loaded.

    `shape` is how many sequences, and of how many tokens. The model says whether it would be streamed.
    """
    device, dtype = place_of(where)
    lm = shapes_of(model, dtype)
    streamed = stream
    if not streamed and where.device_map is None and _can_be_streamed(model):
        streamed = _is_large(weight_bytes(lm), device)

    sequences, length = shape
    length = length or default_length(source, lm.model.config.max_position_embeddings)
    ids_NT = torch.zeros(sequences, length, dtype=torch.long)
    return replace(lm, will_be_streamed=streamed), Calibration(ids_NT, batch=batch)


def say_needs(lm: LanguageModel, device: str, what: str, needed: Needs) -> None:
    """Say what a run on a model takes that is, or would be, computed on a device."""
    how = ", streamed from disk" if lm.is_streamed else ""
    say(f"{described(lm, device)}{how}, {what}: {needed}")


def described(lm: LanguageModel, device: str | None = None) -> str:
    """Return what a model is and where it is computed, which decides its numbers and its speed.

    `device` is where one without weights would be computed.
    """
    dtype = str(lm.model.dtype).removeprefix("torch.")
    return f"{lm.name} ({lm.kind}, {dtype} on {device_name(device or lm.device)})"


# text


def documents_of(source: Source, held_out: bool) -> list[Document] | None:
    """Return the documents of `--text`: those of a file, or articles of WikiText-2; None without it.

    Raises ValueError for text that cannot be read and for options of another one, and OSError for data that
    cannot be had.
    """
    source.check()
    if source.text is None:
        return None
    if is_wikitext(source.text):
        return local_data.wikitext_documents(source.data, source.split or ("test" if held_out else "train"))
    return documents_in(source.text)


def known_text(source: Source, name: str) -> str | None:
    """Return a warning where a model was pruned or trained with a file of the name of `--text`.

    Its card says that; None where it does not, and for WikiText-2, of which another split is scored.
    """
    if source.text is None or is_wikitext(source.text):
        return None

    card = card_of(name)
    made_from, recovery = card.get("made_from") or {}, card.get("recovery") or {}
    if source.text.name not in (*made_from.get("text", ()), recovery.get("text_name")):
        return None
    return (
        f"warning: {name} was made with a text called {source.text.name}: if it is this one, its loss here "
        "is too low; give a text that neither prune nor recover has read"
    )


def default_length(source: Source, positions: int) -> int:
    """Return the tokens per sequence without `--length`; never more than a model's `positions`."""
    return min(DEFAULT_LENGTH if source.text is None else TEXT_LENGTH, positions)


def model_and_texts(
    model: str,
    where: Where,
    source: Source,
    sequences: int,
    length: int | None,
    *,
    seed: int,
    held_out: bool,
    streamed: bool | None = False,
) -> tuple[LanguageModel, dict[str, torch.Tensor]]:
    """Return a model and so many sequences of `length` tokens by source, int64 (N, T).

    They are drawn from `--text`, or from what comes with every installation: its documentation, and samples
    of smol-ar for a model of the same vocabulary. Raises ValueError for too short a source, and what
    `documents_of`, before the model is loaded, and `open_model` raise.
    """
    documents = documents_of(source, held_out)
    lm = open_model(model, where, streamed)
    tokenizer = lm.text_tokenizer
    length = length or default_length(source, lm.model.config.max_position_embeddings)

    if documents is None or source.text is None:
        if length <= DEFAULT_LENGTH and corpus.is_of_samples(tokenizer):
            return lm, corpus.texts(tokenizer, sequences, length, held_out, seed)
        kind = name = "documentation"
        ids_NT = corpus.documentation_sequences(
            tokenizer, length, held_out, scope="everything", mask_token_id=lm.mask_token_id
        )
    else:
        kind, name = "text", source.text.name  # a copy of a file has another name
        texts = written(documents, tokenizer)
        ids_NT = corpus.pack(texts, tokenizer, length, lm.mask_token_id)

    if len(ids_NT) < sequences:
        raise ValueError(
            f"--sequences {sequences}: {name} has {len(ids_NT)} sequences of {length} tokens: "
            "ask for fewer or shorter ones, or give more text"
        )

    order = torch.randperm(len(ids_NT), generator=generator(seed, "texts", kind, held_out))
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


def write_rows(table: pd.DataFrame, file: Path | None) -> None:
    """Write the rows of `table` to a JSON file: before anything is printed, which may fail."""
    if file is not None:
        rows = table.reset_index().to_json(orient="records")
        write_json(file, json.loads(rows or "[]"))


@contextmanager
def written_already(*files: Path | None) -> Iterator[None]:
    """Add to an error of the system in the block what has been written: the same command would refuse it."""
    try:
        yield
    except OSError as error:
        there = ", ".join(str(file) for file in files if file is not None)
        if not there:
            raise
        raise OSError(f"{error}; remove {there} first, which is written already") from error


def print_table(table: pd.DataFrame, title: str) -> None:
    """Print a title and `table`."""
    print(title)
    print(as_text(table))


def explain(meanings: Mapping[str, str]) -> None:
    """Print what names of a table mean."""
    print()
    for name, meaning in meanings.items():
        print(wrapped(f"{name}: {meaning}", later="  "))

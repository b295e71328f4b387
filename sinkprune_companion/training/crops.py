"""Training text as token streams, and crops that may begin anywhere: no model learns about first tokens.

Dimensions: N sequences, B batch, T sequence position, P places in a stream.
"""

import hashlib
import json
from pathlib import Path
from shutil import rmtree

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sinkprune import corpus
from sinkprune.evaluation.local_data import embedded_wikitext
from sinkprune.files import atomic, check_ordinary
from sinkprune.models import embedded
from sinkprune.models.reader import Checkpoint
from sinkprune.models.weight_files import refused
from sinkprune_companion.run.texts import held_out_stream
from sinkprune_companion.training.base import SHAPE
from sinkprune_core.seeds import generator

HELD_OUT_LENGTH = 128  # tokens of a held-out sequence
DATA = "data.safetensors"
VOCABULARY = "tokenizer"  # the folder in a run from scratch that has its own
HELD_OUT_COUNT = 64  # held-out sequences of each kind that are kept


def crop_batch(
    streams: list[torch.Tensor], lengths: tuple[int, ...], batch_tokens: int, seed: int, index: int
) -> torch.Tensor:
    """Return batch number `index` of crops, int64 (B, T): a pure function of (seed, index).

    A batch holds `batch_tokens` tokens (fewer where the length of its crops does not divide them) in crops of
    one length, drawn from `lengths`; its rows take turns among the streams, int64 (T,).
    """
    rng = generator(seed, "crops", index)
    length = lengths[int(torch.randint(len(lengths), (), generator=rng))]
    return corpus.crop_batch(streams, batch_tokens // length, length, index, rng)


def prepare_data(
    tokenizer,
    folder: Path,
    is_embedded: bool,
    lengths: tuple[int, ...],
    text: str | None = None,
    mask_token_id: int | None = None,
    wikitext: bool = False,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return training streams (T,) by source and held-out sequences (N, T) by `{source}_{kind}`, int64.

    They are kept in `folder`, so that a resumed run sees the same data. Sources are paragraphs of `text`
    (None: documentation of this installation) and with the embedded base its shipped samples, which come
    first; held out besides is WikiText-2's validation split, which with `wikitext` is learned instead.
    Where a text spells the mask, `mask_token_id`, its letters are read. Raises ValueError for text that is
    too little for crops of these `lengths`, and where `folder` keeps other data, or data that are damaged.
    """
    file = folder / DATA
    expected = origin(tokenizer, text, wikitext)
    if not file.exists():
        length = min(HELD_OUT_LENGTH, max(lengths))
        data = _make_data(tokenizer, is_embedded, text, length, mask_token_id, wikitext)
        write_data(file, data, expected)

    data = _read_data(file, expected)

    in_order = sorted(data, key=lambda name: "_samples" not in name)
    streams = {name.removeprefix("train_"): data[name] for name in in_order if name.startswith("train_")}
    held_out = {
        name.removeprefix("held_out_"): data[name] for name in in_order if name.startswith("held_out_")
    }

    shortest = min(map(len, streams.values()))
    if shortest < max(lengths):
        raise ValueError(
            f"lengths={lengths} need a source of at least {max(lengths)} tokens, and one has {shortest}: "
            "give more text or shorter crops"
        )

    return streams, held_out


def origin(tokenizer, text: str | None, wikitext: bool = False) -> dict[str, str]:
    """Return what the data of a run depend on, by name: they are not those of a run where one differs."""
    vocabulary = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    made_of = {
        "held_out_share": str(corpus.HELD_OUT_SHARE),
        "kind": "crops",
        "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest()[:16],
    }
    if text is not None:
        made_of["text"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    if wikitext:
        made_of["wikitext"] = "learned"

    return made_of


def write_data(file: Path, data: dict[str, torch.Tensor], made_of: dict[str, str]) -> None:
    """Write the data of a run, tensors of token ids by name, with their digest and what they depend on."""
    stored = {name: ids.int().contiguous() for name, ids in data.items()}
    with atomic(file) as partial:
        save_file(stored, partial, metadata={**made_of, "sha256": _digest_of(stored)})


def _read_data(file: Path, made_of: dict[str, str]) -> dict[str, torch.Tensor]:
    """Return what `write_data` wrote, int64; raise ValueError for other data and for damaged ones."""
    way_out = "use another folder, or remove it to make the data anew"
    with refused(f"{file} cannot be read", way_out):
        check_ordinary(file)
        stored = load_file(file)
        with safe_open(file, "pt") as handle:
            stated = handle.metadata() or {}

    digest = stated.pop("sha256", None)
    differing = sorted(name for name in {*stated, *made_of} if stated.get(name) != made_of.get(name))
    if differing:
        raise ValueError(
            f"{file} was made with another held-out split, text or vocabulary (it differs in "
            f"{', '.join(differing)}): {way_out}"
        )

    if digest != _digest_of(stored):
        raise ValueError(f"{file} is not what was written: {way_out}")

    return {name: ids.long() for name, ids in stored.items()}


def _digest_of(stored: dict[str, torch.Tensor]) -> str:
    """Return a SHA-256 over the names, shapes and numbers of tensors."""
    digest = hashlib.sha256()
    for name, ids in sorted(stored.items()):
        digest.update(f"{name} {ids.dtype} {tuple(ids.shape)}".encode())
        digest.update(ids.numpy())
    return digest.hexdigest()


def make_vocabulary(folder: Path, text: str | None = None, wikitext: bool = False) -> Path:
    """Return the folder with a run's own tokenizer: smol-ar's, trained anew on the text for fewer tokens."""
    place = folder / VOCABULARY
    if place.exists() and (folder / DATA).exists():
        return place

    rmtree(place, ignore_errors=True)  # of another text
    training = _paragraphs_of(text, held_out=False) + corpus.sample_texts(held_out=False)
    if wikitext:
        training += embedded_wikitext()

    tokenizer = Checkpoint(embedded.base_folder(), causal=True).tokenizer()

    made = tokenizer.train_new_from_iterator(training, SHAPE["vocab_size"] - 1, show_progress=False)
    with atomic(place) as partial:
        made.save_pretrained(partial)

    return place


def _paragraphs_of(text: str | None, held_out: bool) -> list[str]:
    """Return the paragraphs of one split of `text`, or (None) of the documentation of this installation."""
    if text is None:
        return corpus.documentation_split(held_out, "everything")
    return [part for part in corpus.paragraphs(text) if corpus.is_held_out(part) == held_out]


def _make_data(
    tokenizer, is_embedded: bool, text: str | None, length: int, mask_token_id: int | None, wikitext: bool
) -> dict[str, torch.Tensor]:
    """Return `train_{source}` (T,) and `held_out_{source}_{kind}` (N, `length`)."""
    name = "documentation" if text is None else "text"
    learned = _paragraphs_of(text, held_out=False)
    data = {f"train_{name}": corpus.stream(learned, tokenizer, mask_token_id)}
    kept_apart = _paragraphs_of(text, held_out=True)
    held_out = {name: corpus.stream(kept_apart, tokenizer, mask_token_id)}

    if is_embedded:
        data["train_samples"] = corpus.source_stream("samples", tokenizer, held_out=False)
        held_out["samples"] = corpus.source_stream("samples", tokenizer, held_out=True)
        natural_T = held_out_stream(tokenizer, "natural")
        if wikitext:
            data["train_natural"] = natural_T
        else:
            held_out["natural"] = natural_T

    for source, stream_T in held_out.items():
        by_kind = held_out_sequences(stream_T, corpus.separator(tokenizer), length)
        data |= {f"held_out_{source}_{kind}": ids_NT for kind, ids_NT in by_kind.items()}

    return data


def held_out_sequences(stream_T: torch.Tensor, separator: int, length: int) -> dict[str, torch.Tensor]:
    """Return up to HELD_OUT_COUNT sequences of each kind, int64 (N, T), evenly spread over the stream.

    Kinds that have a place: `crops` begin with any token but a separator, `beginnings` with one. Raises
    ValueError for a stream shorter than a sequence.
    """
    if len(stream_T) < length:
        raise ValueError(
            f"the held-out text has {len(stream_T)} tokens, too few for one sequence of {length}: "
            "give more text"
        )

    windows_PT = stream_T.unfold(0, length, 1)
    begins_P = windows_PT[:, 0] == separator

    sequences = {}
    for kind, allowed_P in (("crops", ~begins_P), ("beginnings", begins_P)):
        places = allowed_P.nonzero().squeeze(-1)
        count = min(HELD_OUT_COUNT, len(places))
        if count:
            sequences[kind] = windows_PT[places[torch.arange(count) * len(places) // count]]

    return sequences

"""Training text as token streams, and crops of them that may begin anywhere.

No token has a fixed place: a crop begins in the middle of a sentence as readily as at a document's first word, document
separators stand inside, and crops of several lengths are mixed. A model that is trained on them learns no habit about a
first token.

Dimensions: N sequences, B batch, T sequence position.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sinkprune_core import corpus
from sinkprune_core.evaluation import local_data
from sinkprune_core.files import PACKAGE, atomic
from sinkprune_core.seeds import generator

HELD_OUT_LENGTH = 128  # tokens of a held-out sequence
HELD_OUT_COUNT = 64  # held-out sequences of each kind that are kept
WIKITEXT = PACKAGE / "data" / "wikitext-2"


class Crops:
    """An endless stream of batches of crops, addressed by number.

    Batch number i is a pure function of (seed, i), so a run can stop and go on anywhere. A batch holds `batch_tokens`
    tokens in crops of one length, drawn from `lengths`; its rows take turns among the sources.
    """

    def __init__(self, streams: list[torch.Tensor], lengths: tuple[int, ...], batch_tokens: int, seed: int):
        shortest = min(len(stream_T) for stream_T in streams)
        if shortest < max(lengths):
            raise ValueError(
                f"lengths={lengths} need a source of at least {max(lengths)} tokens, and one has {shortest}: "
                "give more text or shorter crops"
            )
        self.streams = streams
        self.lengths = lengths
        self.batch_tokens = batch_tokens
        self.seed = seed

    def batch(self, index: int) -> torch.Tensor:
        """Return batch number `index`, int64 (B, T)."""
        rng = generator(self.seed, "crops", index)
        length = self.lengths[int(torch.randint(len(self.lengths), (), generator=rng))]
        rows = []
        for row in range(max(1, self.batch_tokens // length)):
            stream_T = self.streams[(index + row) % len(self.streams)]
            start = int(torch.randint(len(stream_T) - length + 1, (), generator=rng))
            rows.append(stream_T[start : start + length])
        return torch.stack(rows).long()


def prepare_data(
    tokenizer,
    folder: Path,
    samples: int = 0,
    seed: int = 0,
    text: str | None = None,
    held_out_length: int = HELD_OUT_LENGTH,
) -> dict[str, torch.Tensor]:
    """Return training streams (T,) and held-out sequences (N, T) by name, int64, and keep them in `folder`.

    A resumed run sees the same data. Sources are `samples` samples of the embedded base and paragraphs of `text` (None:
    documentation of this installation); a hash of a paragraph's words decides whether it is held out. Held-out
    sequences of a source come in two kinds, `crops` that begin anywhere and `beginnings` that begin with a document
    separator. With the embedded base there is natural English besides, WikiText-2's validation split, from which no
    training text comes. Raises ValueError for too little text, and where `folder` keeps other data.
    """
    file = folder / "data.safetensors"
    made_of = {"held_out_share": str(corpus.HELD_OUT_SHARE), "kind": "crops"}
    if text is not None:
        made_of["text"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    if file.exists():
        with safe_open(file, "pt") as handle:
            if handle.metadata() != made_of:
                raise ValueError(
                    f"{file} was made with another held-out split or text: use another folder, "
                    "or remove it to make the data anew"
                )
    else:
        data = {}
        for name, (training, held_out) in _streams(tokenizer, samples, seed, text).items():
            if training is not None:
                data[f"train_{name}"] = training
            for kind, sequences_NT in held_out_sequences(
                held_out, corpus.separator(tokenizer), held_out_length
            ).items():
                data[f"held_out_{name}_{kind}"] = sequences_NT
        with atomic(file) as partial:
            save_file({name: ids.int().contiguous() for name, ids in data.items()}, partial, metadata=made_of)
    return {name: ids.long() for name, ids in load_file(file).items()}


def _streams(
    tokenizer, samples: int, seed: int, text: str | None
) -> dict[str, tuple[torch.Tensor | None, torch.Tensor]]:
    """Return the training stream, where there is one, and the held-out stream of every source."""
    found = {}
    if samples:
        samples_NT = corpus.self_samples(samples, 128, seed)
        found["samples"] = (
            samples_NT[corpus.HELD_OUT_SAMPLES :].flatten(),
            samples_NT[: corpus.HELD_OUT_SAMPLES].flatten(),
        )
    name = "documentation" if text is None else "text"
    paragraphs = corpus.documentation("everything") if text is None else corpus.paragraphs(text)
    split = {
        held_out: [part for part in paragraphs if corpus.is_held_out(part) == held_out]
        for held_out in (False, True)
    }
    found[name] = (stream(split[False], tokenizer), stream(split[True], tokenizer))
    if samples:
        found["natural"] = (None, stream(local_data.wikitext_paragraphs(WIKITEXT, "validation"), tokenizer))
    return found


def stream(texts: list[str], tokenizer) -> torch.Tensor:
    """Return texts as one stream of tokens, a document separator before each, int64 (T,)."""
    between = corpus.separator(tokenizer)
    tokens = []
    for ids in tokenizer(list(texts), add_special_tokens=False).input_ids if texts else []:
        tokens += [between, *ids]
    return torch.tensor(tokens, dtype=torch.long)


def held_out_sequences(stream_T: torch.Tensor, separator: int, length: int) -> dict[str, torch.Tensor]:
    """Return up to HELD_OUT_COUNT sequences of each kind, int64 (N, T), at places that are even over the stream.

    `crops` begin with any token but a separator, `beginnings` with a separator. Raises ValueError for a stream shorter
    than a sequence.
    """
    places = len(stream_T) - length + 1
    if places < 1:
        raise ValueError(
            f"the held-out text has {len(stream_T)} tokens, too few for one sequence of {length}: give more text"
        )
    is_separator_T = stream_T[:places] == separator
    sequences = {}
    for kind, allowed_T in (("crops", ~is_separator_T), ("beginnings", is_separator_T)):
        starts = allowed_T.nonzero().squeeze(-1)
        count = min(HELD_OUT_COUNT, len(starts))
        chosen = starts[(torch.arange(count) * len(starts)) // max(count, 1)]
        if count:
            sequences[kind] = torch.stack([stream_T[start : start + length] for start in chosen.tolist()])
    return sequences

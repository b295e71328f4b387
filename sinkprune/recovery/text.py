"""Text to recover on: streams that crops are drawn from, and sequences that no step ever sees.

Dimensions: N sequences, B batch, T sequence position.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sinkprune import corpus
from sinkprune_core.seeds import generator

HELD_OUT_LENGTH = 128  # tokens of a held-out sequence, fewer where crops are shorter
HELD_OUT_SEQUENCES = 32


@dataclass(frozen=True)
class TrainingText:
    """Streams of tokens, int64 (T,), from which crops of `length` tokens are drawn in turn, and what is held
    out, int64 (N, T).
    """

    streams: tuple[torch.Tensor, ...]
    held_out_NT: torch.Tensor

    @property
    def tokens(self) -> int:
        """How many tokens there are to learn from."""
        return sum(map(len, self.streams))

    @property
    def fingerprint(self) -> str:
        """A SHA-256 prefix over all tokens."""
        digest = hashlib.sha256()
        for ids in (*self.streams, self.held_out_NT):
            digest.update(f"{tuple(ids.shape)}".encode())
            digest.update(ids.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def crops(self, batch: int, length: int, seed: int, index: int) -> torch.Tensor:
        """Return batch number `index`, int64 (B, T): a pure function of seed and index.

        Crops may begin anywhere, and rows take turns among streams.
        """
        rng = generator(seed, "recovery crops", index)
        return corpus.crop_batch(self.streams, batch, length, index, rng)


def training_text(
    tokenizer, documents: Sequence[str] | None, length: int, mask_token_id: int | None = None
) -> TrainingText:
    """Return text to recover on, in the vocabulary of a tokenizer.

    `documents` are paragraphs or articles, of which one in eight is held out, as its words decide; None:
    documentation of Python's standard library, which comes with the package, and in the vocabulary of the
    embedded pair samples of smol-ar. Of fewer documents than show the split, the last eighth of the tokens is
    held out. Where a text spells the mask, its letters are read. Raises ValueError for text that is too short
    for crops of `length` tokens.
    """
    if documents is None:
        sources = ["documentation"]
        if corpus.is_of_samples(tokenizer):
            sources.append("samples")
        streams, held_out = (
            [corpus.source_stream(source, tokenizer, is_held_out, mask_token_id) for source in sources]
            for is_held_out in (False, True)
        )
    else:
        parts = {is_held_out: [] for is_held_out in (False, True)}
        for document in documents:
            parts[corpus.is_held_out(document)].append(document)

        streams = [corpus.stream(parts[False], tokenizer, mask_token_id)]
        held_out = [corpus.stream(parts[True], tokenizer, mask_token_id)]

        if not parts[False] or not parts[True]:
            whole_T = torch.cat([*streams, *held_out])
            cut = len(whole_T) - len(whole_T) // corpus.HELD_OUT_SHARE
            streams, held_out = [whole_T[:cut]], [whole_T[cut:]]

    held_out_length = min(length, HELD_OUT_LENGTH)
    shortest = min(map(len, streams))

    shortest_held_out = min(map(len, held_out))
    if shortest < length or shortest_held_out < held_out_length:
        raise ValueError(
            f"the text has {shortest} tokens to learn from and {shortest_held_out} that are held out: too "
            f"short for sequences of length={length}; give more text, or a smaller length"
        )

    each = HELD_OUT_SEQUENCES // len(held_out)
    sequences = [_spread(stream_T, each, held_out_length) for stream_T in held_out]
    return TrainingText(tuple(streams), torch.cat(sequences))


def _spread(stream_T: torch.Tensor, count: int, length: int) -> torch.Tensor:
    """Return up to `count` sequences that do not overlap, evenly spread over a stream, int64 (N, T)."""
    count = min(count, len(stream_T) // length)
    starts = [index * len(stream_T) // count for index in range(count)]
    return torch.stack([stream_T[start : start + length] for start in starts])

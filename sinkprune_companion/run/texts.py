"""Text that models are calibrated and scored on in the notebooks.

Dimensions: N sequences, T tokens per sequence.
"""

from functools import lru_cache

import torch

from sinkprune import corpus
from sinkprune.evaluation.local_data import TEST_FILE, embedded_wikitext
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.diffusion.noise import even_split
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator

DOMAINS = ("natural", *corpus.SOURCES)  # natural: WikiText-2's validation split, where <unk> is a rare word
STARTS = ("crop", "beginning")


def calibration_draw(lm: LanguageModel, sequences: int, length: int, seed: int) -> Calibration:
    """Return calibration text drawn by `seed` as `corpus.texts` draws it from the training split."""
    texts = corpus.texts(lm.tokenizer, sequences, length, held_out=False, seed=seed)
    return Calibration(torch.cat(list(texts.values())), seed)


def held_out_texts(tokenizer, sequences: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return `sequences` held-out sequences, shared out evenly, int64 (N, T) by `domain/start`.

    A `crop` begins in the middle of text, never with the separator; a `beginning` is the separator and the
    first tokens of a document. Sequences do not overlap, and the draw depends on (seed, domain) alone. Raises
    ValueError for more sequences than a domain has.
    """
    counts = iter(even_split(sequences, len(DOMAINS) * len(STARTS)))
    found = {}
    for domain in DOMAINS:
        stream_T = held_out_stream(tokenizer, domain)
        rng = generator(seed, "held-out texts", domain)
        wanted = {start: next(counts) for start in STARTS}
        drawn = corpus.draw_sequences(stream_T, wanted, length, corpus.separator(tokenizer), rng)
        found |= {f"{domain}/{start}": ids_NT for start, ids_NT in drawn.items()}

    return found


@lru_cache(maxsize=8)
def held_out_stream(tokenizer, domain: str) -> torch.Tensor:
    """Return held-out text of one domain as `corpus.stream` does, int64 (T,), not to be changed."""
    if domain == "natural":
        return corpus.stream(embedded_wikitext(), tokenizer)
    return corpus.source_stream(domain, tokenizer, held_out=True)


# the paper's protocol: both texts are WikiText-2, of other articles


def protocol_draw(lm: LanguageModel, sequences: int, length: int, seed: int) -> Calibration:
    """Return crops of WikiText-2's validation split that do not overlap, drawn by `seed`, int64 (N, T).

    The paper's code draws crops of the training split. A smaller draw is the start of a larger one. Raises
    ValueError for more sequences than the split has.
    """
    stream_T = held_out_stream(lm.tokenizer, "natural")
    rng = generator(seed, "protocol, calibration")
    between = corpus.separator(lm.tokenizer)
    drawn = corpus.draw_sequences(stream_T, {"crop": sequences}, length, between, rng)
    return Calibration(drawn["crop"], seed)


def protocol_texts(tokenizer, sequences: int, length: int) -> dict[str, torch.Tensor]:
    """Return sequences of the first half of WikiText-2's test split, int64 (N, T) by `natural/start`.

    Half of them are crops, half begin a paragraph behind the separator. They do not overlap. Raises
    ValueError for more sequences than there are.
    """
    stream_T = corpus.stream(embedded_wikitext(TEST_FILE), tokenizer)
    wanted = dict(zip(STARTS, even_split(sequences, len(STARTS)), strict=True))
    rng = generator(0, "protocol, scored")
    drawn = corpus.draw_sequences(stream_T, wanted, length, corpus.separator(tokenizer), rng)
    return {f"natural/{start}": ids_NT for start, ids_NT in drawn.items()}

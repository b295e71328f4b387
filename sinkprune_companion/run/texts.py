"""Text that models are calibrated and scored on in the notebooks.

Dimensions: N sequences, T tokens per sequence.
"""

import torch

from sinkprune_companion import corpus
from sinkprune_companion.harness.local_data import embedded_wikitext
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.diffusion.noise import even_split
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator

LETTERS = 10  # no vocabulary puts more letters of English into a token on average
DOMAINS = ("natural", "samples", "documentation")  # of held-out text
STARTS = ("crop", "beginning")


def calibration_draw(lm: LanguageModel, sequences: int, length: int, seed: int) -> Calibration:
    """Return calibration text drawn by `seed`: crops of the training split that begin anywhere, half of them
    of samples of smol-ar and half of documentation. A smaller draw is part of a larger one.
    """
    texts = corpus.texts(lm.tokenizer, sequences, length, held_out=False, seed=seed)
    return Calibration(torch.cat(list(texts.values())), seed)


def held_out_texts(tokenizer, sequences: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return `sequences` held-out sequences by domain and start, int64 (N, T) by `domain/start`.

    Domains are samples of smol-ar, documentation, and `natural` English, WikiText-2's validation split, of
    which no training text comes (<unk> stands for its rare words). A `crop` begins in the middle of text,
    never with the separator; a `beginning` is the separator and the first tokens of a document. Sequences are
    shared out evenly and do not overlap; the draw depends on (seed, domain) alone. Raises ValueError for more
    sequences than a domain has.
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


def held_out_stream(tokenizer, domain: str) -> torch.Tensor:
    """Return held-out text of one domain, a separator before each document, int64 (T,)."""
    if domain == "natural":
        return corpus.stream(embedded_wikitext(), tokenizer)
    return corpus.source_stream(domain, tokenizer, held_out=True)


def any_text(
    lm: LanguageModel, sequences: int, length: int, held_out: bool, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return standard-library documentation in a model's own vocabulary, int64 (N, T), by its source.

    For models that no shipped sample is written for. Raises ValueError for more sequences than there are.
    """
    texts = [text for text in corpus.documentation("stdlib") if corpus.is_held_out(text) == held_out]
    order = torch.randperm(len(texts), generator=generator(seed, "texts", "documentation", held_out))
    chosen, letters = [], 0
    for index in order.tolist():
        chosen.append(texts[index])
        letters += len(texts[index])
        if letters > LETTERS * sequences * length:
            break
    ids_NT = corpus.pack(chosen, lm.tokenizer, length)[:sequences]
    if len(ids_NT) < sequences:
        raise ValueError(
            f"sequences={sequences}: the documentation has {len(ids_NT)} of {length} tokens in this split: "
            "ask for fewer or shorter ones"
        )
    return {"documentation": ids_NT}

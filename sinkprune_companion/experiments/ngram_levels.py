"""How well text is predicted without a neural network: levels to hold a pruned model's loss against.

Interpolation is that of Witten and Bell (1991): a context that was seen n times, before d different tokens,
gives n / (n + d) to its own counts and the rest to unigrams, and these theirs to an even share of all tokens.

Dimensions: N sequences, T tokens per sequence, V vocabulary.
"""

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from sinkprune import corpus


class NgramModel:
    """A unigram and a bigram model of a stream of tokens, int64 (T,), over a vocabulary of `size` tokens."""

    def __init__(self, stream_T: torch.Tensor, size: int):
        before_T, after_T = stream_T[:-1].numpy(), stream_T[1:].numpy()
        pairs = (np.ones_like(before_T), (before_T, after_T))
        self.size = size
        self.count_V = np.bincount(stream_T.numpy(), minlength=size)
        self.count_VV = sparse.csr_matrix(pairs, shape=(size, size))  # of pairs; equal ones add up
        self.followed_V = np.bincount(before_T, minlength=size)  # how often a token had a successor
        self.followers_V = self.count_VV.getnnz(axis=1)  # how many different ones

    def unigram(self, token_N: np.ndarray) -> np.ndarray:
        """Return the probability of every token, float64 (N,)."""
        total, types = self.count_V.sum(), (self.count_V > 0).sum()
        return (self.count_V[token_N] + types / self.size) / (total + types)

    def bigram(self, before_N: np.ndarray, token_N: np.ndarray) -> np.ndarray:
        """Return the probability of every token behind the one before it, float64 (N,)."""
        count_N = np.asarray(self.count_VV[before_N, token_N]).flatten()
        seen_N, followers_N = self.followed_V[before_N], self.followers_V[before_N]
        lower_N = self.unigram(token_N)
        mixed_N = (count_N + followers_N * lower_N) / np.maximum(seen_N + followers_N, 1)
        return np.where(seen_N > 0, mixed_N, lower_N)


def ngram_levels(tokenizer, texts: dict[str, torch.Tensor]) -> pd.DataFrame:
    """Return nats per token of texts, int64 (N, T) by name, under models of the training text of all sources.

    Columns: `sequence` (numbered through), `text`, `unigram`, `bigram`. The first token is context.
    """
    streams = [corpus.source_stream(source, tokenizer, held_out=False) for source in corpus.SOURCES]
    return levels_by(torch.cat(streams), len(tokenizer), texts)


def levels_by(stream_T: torch.Tensor, vocabulary: int, texts: dict[str, torch.Tensor]) -> pd.DataFrame:
    """Return the same under models of a stream of training tokens, int64 (T,), of so many different ones."""
    model = NgramModel(stream_T, vocabulary)

    rows = []
    for name, ids_NT in texts.items():
        for before_T, token_T in zip(ids_NT[:, :-1].numpy(), ids_NT[:, 1:].numpy(), strict=True):
            unigram = -np.log(model.unigram(token_T)).mean()
            bigram = -np.log(model.bigram(before_T, token_T)).mean()
            rows.append({"sequence": len(rows), "text": name, "unigram": unigram, "bigram": bigram})

    return pd.DataFrame(rows)

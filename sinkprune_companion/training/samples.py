"""Text that the embedded autoregressive model writes itself, to train on: drawn once, kept in the cache.

Dimensions: N sequences, B batch, T sequence position, V vocabulary, K kept candidates of a draw.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import StaticCache

from sinkprune_core.corpus import SAMPLES
from sinkprune_core.files import atomic, cache_dir
from sinkprune_core.models.embedded import START_TOKEN_ID
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.loading import load
from sinkprune_core.seeds import generator

TOP_K = 50  # a token is drawn from so many of the most probable ones
TURN = "<|im_start|>assistant\n"  # what the model sees before it writes
RESERVED = range(3, 17)  # special entries of the vocabulary that belong in no text, the mask token among them
SHARD = 128  # sequences sampled together and saved together


@torch.inference_mode()
def sample_batch(lm: LanguageModel, length: int, first: int, count: int, seed: int) -> torch.Tensor:
    """Draw sequences `first … first + count - 1` from an autoregressive model at temperature 1, top-50; int64
    (B, T).

    The model speaks as in an assistant's turn, where its prose is best; the turn marker is then replaced by
    the document separator, so that every sequence of every source starts alike. End-of-turn tokens do not
    stop a sample. Every (seed, sequence) has its own generator and a token is the inverse of the cumulative
    distribution at one uniform number, so that a sample does not depend on its batch.
    """
    turn = lm.encode(TURN)
    start_BT = torch.full((count, 1), START_TOKEN_ID)
    to_write_BT = start_BT.expand(-1, length - 1)  # any token, to be overwritten
    ids_BT = torch.cat([turn.expand(count, -1), to_write_BT], dim=1)
    total = ids_BT.shape[1]
    rngs = [generator(seed, "ar-sample", first + row) for row in range(count)]
    uniform_BT = torch.stack([torch.rand(total, generator=rng) for rng in rngs])
    cache = StaticCache(config=lm.model.config, max_cache_len=total)
    cached = 0  # tokens whose keys and values the cache holds
    for position in range(len(turn), total):
        logits_BV = lm.next_logits(ids_BT[:, cached:position], cache)
        cached = position
        ids_BT[:, position] = _draw(logits_BV, uniform_BT[:, position])
    return torch.cat([start_BT, ids_BT[:, len(turn) :]], dim=1)


def _draw(logits_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Return a token per row, int64 (B,): the top-k cumulative distribution's inverse at a uniform number."""
    logits_BV[:, RESERVED.start : RESERVED.stop] = -torch.inf
    top_BK = logits_BV.topk(TOP_K)
    cumulative_BK = top_BK.values.softmax(-1).cumsum(-1)
    choice_B1 = torch.searchsorted(cumulative_BK, uniform_B[:, None].contiguous())
    choice_B1 = choice_B1.clamp_max(TOP_K - 1)  # rounding may leave the last sum below 1
    return top_BK.indices.gather(1, choice_B1).squeeze(1)


def self_samples(sequences: int, length: int, seed: int = 0, folder: Path | None = None) -> torch.Tensor:
    """Return the first `sequences` samples of smol-ar, int64 (N, T), without those that repeat an earlier
    one.

    Only what is neither shipped nor in the cache (or `folder`) is sampled. A kill loses at most the shard in
    work.
    """
    parts = _shipped_shards(length, seed)
    folder = (folder or cache_dir()) / f"ar-samples-{length}-seed{seed}"
    shards = -(-sequences // SHARD)  # rounded up
    files = {index: folder / f"{index:05d}.safetensors" for index in range(len(parts), shards)}
    missing = {index: file for index, file in files.items() if not file.exists()}
    if missing:
        _sample_shards(missing, length, seed)
    parts += [load_file(file)["ids"].long() for file in files.values()]
    ids_NT = torch.cat(parts)[:sequences]
    unique = dict.fromkeys(map(tuple, ids_NT.tolist()))
    return torch.tensor(list(unique), dtype=torch.long)


def _shipped_shards(length: int, seed: int) -> list[torch.Tensor]:
    """Return the whole shards of shipped samples, each int64 (N, T), if those have this length and seed."""
    if seed != 0 or not SAMPLES.exists():
        return []
    ids_NT = load_file(SAMPLES)["ids"].long()
    if ids_NT.shape[1] != length:
        return []
    whole = len(ids_NT) // SHARD * SHARD
    return list(ids_NT[:whole].split(SHARD))


def _sample_shards(files: dict[int, Path], length: int, seed: int) -> None:
    """Sample shards by number and write each to its file."""
    lm = load("smol-ar", "bfloat16")
    for index, file in tqdm(files.items(), desc="sample smol-ar", unit="shard"):
        ids_BT = sample_batch(lm, length, index * SHARD, SHARD, seed)
        with atomic(file) as partial:
            save_file({"ids": ids_BT.int()}, partial)

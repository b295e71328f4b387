"""How the shipped samples of smol-ar were drawn; `python tools/ar_samples.py` draws them anew, in hours.

Dimensions: N sequences, B batch, T sequence position, V vocabulary, K kept candidates of a draw.
"""

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import StaticCache

from sinkprune.corpus import SAMPLES
from sinkprune.files import atomic, cache_dir
from sinkprune.models.embedded import START_TOKEN_ID
from sinkprune.models.loading import load
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator

TOP_K = 50  # a token is drawn from so many of the most probable ones
TURN = "<|im_start|>assistant\n"  # what the model sees before it writes
RESERVED = range(3, 17)  # special entries of the vocabulary that belong in no text, the mask token among them
SHARD = 128  # sequences sampled together and saved together
COUNT = 4608  # sequences in all
LENGTH = 128  # tokens of each


@torch.inference_mode()
def sample_batch(lm: LanguageModel, length: int, first: int, count: int, seed: int) -> torch.Tensor:
    """Draw sequences `first … first + count - 1` from an AR model at temperature 1, top-50; int64
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


def main() -> None:
    """Draw the samples that the package ships and write them, without those that repeat an earlier one.

    A kill loses at most the shard in work: the others are in the cache.
    """
    lm = load("smol-ar", "bfloat16")
    shards = []

    for index in tqdm(range(COUNT // SHARD), desc="sample smol-ar", unit="shard"):
        file = cache_dir() / "ar-samples" / f"{index:05d}.safetensors"
        if not file.exists():
            ids_BT = sample_batch(lm, LENGTH, index * SHARD, SHARD, seed=0)
            with atomic(file) as partial:
                save_file({"ids": ids_BT.int()}, partial)

        shards.append(load_file(file)["ids"])

    unique = dict.fromkeys(map(tuple, torch.cat(shards).tolist()))
    with atomic(SAMPLES) as partial:
        save_file({"ids": torch.tensor(list(unique), dtype=torch.uint16)}, partial)


if __name__ == "__main__":
    main()

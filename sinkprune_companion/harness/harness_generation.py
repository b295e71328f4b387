"""How `HarnessModel` writes texts: batches of requests with equal settings, each text cut where it ends.

Dimensions: B batch, T sequence position, P prompt, L written tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.models.language_model import LanguageModel


@dataclass(frozen=True)
class GenerationRequest:
    """What the harness asks to be continued."""

    prompt_P: torch.Tensor  # token ids of the context, int64 (P,)
    stops: tuple[str, ...]  # strings before which the text ends
    sampler: Sampler  # how to write; `length` is the number of tokens
    name: tuple[tuple[int, ...], int]  # seeds it: the tokens of the prompt, and how many before had the same
    args: tuple  # the harness's own arguments of the request, by which it keeps answers in its cache

    @property
    def settings(self) -> tuple[tuple[str, ...], Sampler]:
        """Return what the requests of a batch must have in common."""
        return self.stops, self.sampler


def cut(lm: LanguageModel, ids_L: torch.Tensor, stops: Sequence[str], ends: set[int]) -> tuple[str, bool]:
    """Return a text before its end, and whether it has ended for good.

    It ends at a token of `ends` or a mask, or before a stop string, whichever comes first. A mask ends it for
    now only: it may still become a token.
    """
    ids = ids_L.tolist()
    places = (place for place, token in enumerate(ids) if token in ends or token == lm.mask_token_id)
    end = next(places, len(ids))
    whole = lm.tokenizer.decode(ids[:end], skip_special_tokens=True)
    stopped = [whole.index(stop) for stop in stops if stop and stop in whole]
    has_end_token = end < len(ids) and ids[end] in ends
    return whole[: min(stopped, default=len(whole))], bool(stopped) or has_end_token


def write_texts(
    lm: LanguageModel, requests: Sequence[GenerationRequest], padding_id: int, seed: int
) -> list[str]:
    """Return a text for each of some requests with equal settings; writing stops when all texts have ended.

    Prompts are padded on the left with `padding_id`, which is hidden from attention.
    """
    stops, sampler = requests[0].settings
    width = max(len(request.prompt_P) for request in requests)
    prompt_BP = torch.full((len(requests), width), padding_id)
    attention_mask_BP = torch.zeros(len(requests), width, dtype=torch.long)
    for row, request in enumerate(requests):
        start = width - len(request.prompt_P)
        prompt_BP[row, start:] = request.prompt_P
        attention_mask_BP[row, start:] = 1

    special = lm.tokenizer.added_tokens_decoder.items()
    ends = {index for index, token in special if token.special and token.content in stops}
    ends.add(lm.tokenizer.eos_token_id)
    ended: set[int] = set()

    def all_ended(ids_BT: torch.Tensor) -> bool:
        for row in range(len(requests)):
            if row not in ended and cut(lm, ids_BT[row, width:], stops, ends)[1]:
                ended.add(row)
        return len(ended) == len(requests)

    options = {
        "seed": seed,
        "attention_mask_BT": attention_mask_BP,
        "names": [request.name for request in requests],
        "until": all_ended,
    }
    if lm.is_diffusion:
        ids_BT = generate(lm, prompt_BP, sampler, **options)
    else:
        ids_BT = decode(lm, prompt_BP, sampler.length, sampler.temperature, **options)
    return [cut(lm, ids_T[width:], stops, ends)[0] for ids_T in ids_BT]

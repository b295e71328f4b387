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

    prompt_P: torch.Tensor
    """Token ids of the context, int64 (P,)."""
    stops: tuple[str, ...]
    """Strings before which the text ends."""
    sampler: Sampler
    """How to write; `length` is the number of tokens."""
    name: tuple[tuple[int, ...], int]
    """What seeds its random numbers: the tokens of the prompt, and how many requests before had the same."""
    args: tuple
    """The harness's own arguments of the request, by which it keeps answers in its cache."""

    @property
    def settings(self) -> tuple[tuple[str, ...], Sampler]:
        """Return what the requests of a batch must have in common."""
        return self.stops, self.sampler


class TextEnd:
    """Where a text ends: at an end token or a mask, or before a stop string, whichever comes first.

    End tokens are the end of text and the stop strings that are special tokens.
    """

    def __init__(self, lm: LanguageModel, stops: Sequence[str]):
        self.tokenizer = lm.tokenizer
        self.stops = stops
        self.mask_token_id = lm.mask_token_id
        self.end_tokens = {lm.tokenizer.eos_token_id}
        for index, token in lm.tokenizer.added_tokens_decoder.items():
            if token.special and token.content in stops:
                self.end_tokens.add(index)

    def cut(self, ids_L: torch.Tensor) -> tuple[str, bool]:
        """Return the text before its end, and whether it has ended for good.

        A mask ends the text for now only: it may still become a token.
        """
        ids = ids_L.tolist()
        end = len(ids)
        for place, token in enumerate(ids):
            if token in self.end_tokens or token == self.mask_token_id:
                end = place
                break
        whole = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
        places = [whole.index(stop) for stop in self.stops if stop and stop in whole]
        text = whole[: min(places, default=len(whole))]
        has_end_token = end < len(ids) and ids[end] in self.end_tokens
        return text, bool(places) or has_end_token


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

    text_end = TextEnd(lm, stops)
    ended: set[int] = set()

    def all_ended(ids_BT: torch.Tensor) -> bool:
        for row in range(len(requests)):
            if row not in ended and text_end.cut(ids_BT[row, width:])[1]:
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
    return [text_end.cut(ids_T[width:])[0] for ids_T in ids_BT]

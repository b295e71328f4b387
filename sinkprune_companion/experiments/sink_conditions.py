"""Conditions under which sinks are measured: a text, what it begins with, its length, who writes it.

Dimensions: N sequences, T tokens per sequence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from sinkprune import corpus
from sinkprune.evaluation.local_data import embedded_articles
from sinkprune_companion.run.texts import held_out_stream
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.seeds import generator

NOTHING = "nothing"
SAMPLERS = {"llada": "LLaDA's sampler", "dream": "Dream's sampler"}
TEXTS = {
    "natural": "natural English",
    "samples": "samples of the AR model",
    "documentation": "documentation",
    NOTHING: "from nothing",
}
RARE = "<unk>"
RARE_TOKENS = 4  # no vocabulary cuts it into more pieces, of which a crop could begin with the last
BLOCKS = 4  # of LLaDA's sampler: they divide the tokens to write at every length


@dataclass(frozen=True)
class Condition:
    """One condition."""

    text: str = "natural"  # what prompts are crops of, one of TEXTS; `nothing`: the first token alone
    first_token: bool = False  # whether the document separator stands before the prompt
    tokens: int = 128  # tokens of the finished text, the separator before it not counted
    sampler: str = "llada"  # one of SAMPLERS; an autoregressive model knows no difference

    @property
    def begins(self) -> str:
        """What the text is and begins with, in words."""
        if self.text == NOTHING:
            return "<|endoftext|> alone"
        return f"<|endoftext|> + {TEXTS[self.text]}" if self.first_token else TEXTS[self.text]

    @property
    def body(self) -> tuple[str, int, str]:
        """All but whether a first token stands before it."""
        return self.text, self.tokens, self.sampler

    @property
    def label(self) -> str:
        """What figures and tables call it: the sampler is LLaDA's where none is named."""
        sampler = "" if self.sampler == "llada" else f", {SAMPLERS[self.sampler]}"
        return f"{self.begins}, {self.tokens:,} tokens{sampler}"

    def name(self, main: "Condition") -> str:
        """Return what differs from the main condition, as findings are named; empty for nothing."""
        words = {
            "text": self.text,
            "first_token": "first_token" if self.first_token else "no_first_token",
            "tokens": f"tokens_{self.tokens}",
            "sampler": self.sampler,
        }
        if self.text == NOTHING:
            words |= {"text": "from_nothing", "first_token": ""}

        parts = [words[name] for name in words if getattr(self, name) != getattr(main, name)]
        return "_".join(filter(None, parts))


def conditions(
    texts: list[str], first_tokens: list[bool], lengths: list[int], samplers: list[str]
) -> list[Condition]:
    """Return the main condition, made of the firsts, and those that differ in one thing, each once."""
    main = Condition(texts[0], first_tokens[0], lengths[0], samplers[0])
    others = [{"first_token": first_token} for first_token in first_tokens[1:]]
    others += [{"text": text, "first_token": main.first_token or text == NOTHING} for text in texts[1:]]
    others += [{"tokens": tokens} for tokens in lengths[1:]]
    others += [{"sampler": sampler} for sampler in samplers[1:]]

    return list(dict.fromkeys([main, *(replace(main, **fields) for fields in others)]))


def prompts(
    tokenizer, condition: Condition, count: int, prompt_length: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return prompts of `prompt_length` tokens and a first one, int64 (N, T), by the name of their text."""
    first_N1 = torch.full((count, 1), corpus.separator(tokenizer))
    if condition.text == NOTHING:
        return {NOTHING: first_N1}

    crops_NT = crops(tokenizer, condition.text, count, prompt_length, seed)
    if condition.first_token:
        crops_NT = torch.cat([first_N1, crops_NT], dim=1)
    return {condition.text: crops_NT}


def crops(tokenizer, text: str, count: int, length: int, seed: int = 0) -> torch.Tensor:
    """Return held-out crops without separators that begin in the middle of a paragraph, int64 (N, T).

    No two overlap. They lie within paragraphs and do not show <unk>, WikiText-2's sign for a rare word; where
    so many do not fit, they may. The choice depends on (seed, text) alone. ValueError when there are fewer.
    """
    for stream_T, purpose in _streams(tokenizer, text):
        is_separator_T = stream_T == corpus.separator(tokenizer)
        counted_T = torch.cat([torch.zeros(1, dtype=torch.int64), is_separator_T.cumsum(0)])
        separators_T = counted_T[length + 1 :] - counted_T[: -(length + 1)]  # in a crop and right before it
        starts = (separators_T == 0).nonzero().squeeze(-1) + 1
        order = starts[torch.randperm(len(starts), generator=generator(seed, purpose, text))].tolist()

        if purpose == "crops":
            around = (stream_T[max(0, start - RARE_TOKENS) : start + length + RARE_TOKENS] for start in order)
            decoded = zip(order, map(tokenizer.decode, around), strict=True)  # as far as crops are needed
            order = (start for start, text_around in decoded if RARE not in text_around)

        chosen = corpus.apart(order, count, length, bytearray(len(stream_T)))
        if len(chosen) == count:
            return torch.stack([stream_T[start : start + length] for start in sorted(chosen)])

    raise ValueError(
        f"{count} crops of {length} tokens do not fit the held-out {TEXTS[text]}, where {len(chosen)} "
        "were found: ask for fewer or shorter ones"
    )


def _streams(tokenizer, text: str) -> Iterator[tuple[torch.Tensor, str]]:
    """Yield held-out text by paragraph, then with paragraphs joined, (T,), and what draws from each."""
    yield held_out_stream(tokenizer, text), "crops"
    if text == "natural":
        documents = embedded_articles()
    elif text == "documentation":
        documents = [[part for part in corpus.documentation("stdlib") if corpus.is_held_out(part)]]
    else:
        return

    yield corpus.stream(["\n\n".join(paragraphs) for paragraphs in documents], tokenizer), "joined crops"


def sampler_of(condition: Condition, prompt_length: int, steps: int, temperature: float) -> Sampler:
    """Return the sampler that writes the rest of a text; ValueError for what BLOCKS blocks cannot share."""
    written = condition.tokens
    if condition.text != NOTHING:
        written -= prompt_length

    if written < BLOCKS or written % BLOCKS or steps % BLOCKS:
        raise ValueError(
            f"{condition.tokens} tokens less prompt_length={prompt_length} leave {written} to write in "
            f"steps={steps}; both must be multiples of {BLOCKS}, the number of blocks"
        )

    common = {"length": written, "steps": steps, "temperature": temperature}
    if condition.sampler == "dream":
        return Sampler(block=None, order="entropy", schedule="time", **common)

    return Sampler(block=written // BLOCKS, order="low_confidence", schedule="even", **common)

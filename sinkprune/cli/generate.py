"""`sinkprune generate`: write from a prompt as the model's family does, and print the text."""

from dataclasses import replace
from typing import Any, cast

import torch

from sinkprune.cli.commands.generate import Generate
from sinkprune.cli.common import described, open_model, settle_device
from sinkprune.cli.help_pages import say
from sinkprune_core.diffusion.samplers import DREAM_SAMPLER, LLADA_SAMPLER, Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.language_model import LanguageModel


def run(options: Generate) -> None:
    """Load the model, write, and print prompt and continuation; how it was written goes to stderr."""
    settle_device(options)
    lm = open_model(options, options.model)
    if not lm.is_diffusion:
        options.refuse(("steps",), f"{lm.name} is autoregressive and writes token by token")

    given = as_message(lm, options.prompt) if options.chat else options.prompt
    prompt_T = lm.encode(given)
    if not len(prompt_T):
        raise ValueError(f"--prompt {options.prompt!r} has no tokens of {lm.name}: give some words")

    if lm.is_diffusion:
        sampler = sampler_of(lm, options.tokens, options.steps or options.tokens, options.temperature)
        say(f"{described(lm)}: {sampler.steps} steps, order {sampler.order}, schedule {sampler.schedule}")
        [ids_T] = generate(lm, prompt_T[None], sampler, options.seed)
    else:
        say(f"{described(lm)}: token by token")
        [ids_T] = decode(
            lm,
            prompt_T[None],
            options.tokens,
            options.temperature,
            options.seed,
            until=lambda ids_BT: int(ids_BT[0, -1]) == lm.end_of_text,
        )

    answer = written(lm, ids_T[len(prompt_T) :])
    print(answer if options.chat else options.prompt + answer)


def as_message(lm: LanguageModel, prompt: str) -> str:
    """Return a prompt as a user's message, up to where the model's answer begins.

    Raises ValueError, which names --chat, where the tokenizer has no template of a chat.
    """
    tokenizer = cast(Any, lm.tokenizer)  # of transformers: others have no template
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"--chat: the tokenizer of {lm.name} has no chat template; leave it out")
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def sampler_of(lm: LanguageModel, tokens: int, steps: int, temperature: float) -> Sampler:
    """Return how a diffusion model's family writes: Dream's way where its logits are shifted, else LLaDA's.

    LLaDA's blocks are kept where they divide the text and the steps; otherwise the text is one block. Raises
    ValueError, which names --steps, for more steps than tokens.
    """
    published = DREAM_SAMPLER if lm.logits_shifted else LLADA_SAMPLER
    block = published.block
    if block is not None and (tokens % block or steps % (tokens // block)):
        block = None
    if steps > tokens:
        raise ValueError(
            f"--steps {steps} are more than --tokens {tokens}: every step reveals a token, so give at most "
            "as many steps as tokens"
        )

    return replace(published, length=tokens, steps=steps, block=block, temperature=temperature)


def written(lm: LanguageModel, ids_L: torch.Tensor) -> str:
    """Return what was written as text, up to the end of text."""
    ids = ids_L.tolist()
    if lm.end_of_text in ids:
        ids = ids[: ids.index(lm.end_of_text)]
    return lm.text_tokenizer.decode(ids)

"""`sinkprune generate`: write from a prompt as the model's family does, and print the text."""

from dataclasses import replace

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

    prompt_T = lm.encode(options.prompt)
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

    print(options.prompt + written(lm, ids_T[len(prompt_T) :]))


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

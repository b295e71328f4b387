"""`sinkprune generate`: write from a prompt as the model's family does, and print the text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, PositiveInt

from sinkprune.cli.options import AT, Model, Seed, WhereOptions, refuse
from sinkprune.cli.screen import loading, say

if TYPE_CHECKING:
    import torch

    from sinkprune_core.diffusion.samplers import Sampler
    from sinkprune_core.language_model import LanguageModel


def generate(
    model: Model,
    /,
    *,
    prompt: Annotated[str, Parameter(help="what the model goes on from")],
    chat: Annotated[
        bool, Parameter(help="give the prompt as a user's message, in the tokenizer's chat template")
    ] = False,
    tokens: Annotated[PositiveInt, Parameter(help="tokens to write")] = 64,
    steps: Annotated[
        PositiveInt | None,
        Parameter(
            help="denoising steps of a diffusion model: fewer are faster, and reveal several tokens at once",
            show_default="one per token",
        ),
    ] = None,
    temperature: Annotated[
        NonNegativeFloat, Parameter(help="0 takes the most probable token, 1 draws as the model says")
    ] = 0.0,
    seed: Seed = 0,
    where: WhereOptions = AT,
) -> None:
    """Write from a prompt, as the model's family does."""
    if temperature == 0:
        refuse("at --temperature 0 nothing is drawn", seed=seed)
    if steps is not None and steps > tokens:
        raise ValueError(
            f"--steps {steps} are more than --tokens {tokens}: every step reveals a token, so give at most "
            "as many steps as tokens"
        )

    with loading(model):
        from sinkprune.cli.common import described, open_model
        from sinkprune_core.diffusion import sampling

        lm = open_model(model, where)

    if not lm.is_diffusion:
        refuse(f"{lm.name} is autoregressive and writes token by token", steps=steps)

    prompt_T = lm.encode(as_message(lm, prompt) if chat else prompt)
    if not len(prompt_T):
        raise ValueError(f"--prompt {prompt!r} has no tokens of {lm.name}: give some words")

    if lm.is_diffusion:
        sampler = sampler_of(lm, tokens, steps or tokens, temperature)
        say(f"{described(lm)}: {sampler.steps} steps, order {sampler.order}, schedule {sampler.schedule}")
        [ids_T] = sampling.generate(lm, prompt_T[None], sampler, seed)
    else:
        say(f"{described(lm)}: token by token")
        [ids_T] = sampling.decode(
            lm,
            prompt_T[None],
            tokens,
            temperature,
            seed,
            until=lambda ids_BT: int(ids_BT[0, -1]) == lm.end_of_text,
        )

    answer = written(lm, ids_T[len(prompt_T) :])
    print(answer if chat else prompt + answer)


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

    LLaDA's blocks are kept where they divide the text and the steps; otherwise the text is one block.
    """
    from sinkprune_core.diffusion.samplers import DREAM_SAMPLER, LLADA_SAMPLER

    published = DREAM_SAMPLER if lm.logits_shifted else LLADA_SAMPLER
    block = published.block
    if block is not None and (tokens % block or steps % (tokens // block)):
        block = None

    return replace(published, length=tokens, steps=steps, block=block, temperature=temperature)


def written(lm: LanguageModel, ids_L: torch.Tensor) -> str:
    """Return what was written as text, up to the end of text."""
    ids = ids_L.tolist()
    if lm.end_of_text in ids:
        ids = ids[: ids.index(lm.end_of_text)]
    return lm.text_tokenizer.decode(ids)

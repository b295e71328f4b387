"""The samplers of a diffusion model with lists and loops, one position at a time: what `generate` must do."""

import math

import torch

from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune_core.seeds import generator


def naive_reveals(sampler) -> list[int]:
    """Return the tokens per step: even shares, larger ones first, or the share 1 - s/t of what is left."""
    blocks = 1 if sampler.block is None else sampler.length // sampler.block
    steps = sampler.steps // blocks
    counts = []

    for _ in range(blocks):
        left = sampler.length // blocks
        for step in range(steps):
            if sampler.schedule == "even":
                count = math.ceil(left / (steps - step))
            elif step == steps - 1:
                count = left
            else:
                count = math.floor(left * naive_share(step, steps) + 1e-9)

            counts.append(count)
            left -= count

    return counts


def naive_share(step: int, steps: int) -> float:
    """Return the share 1 - s/t of a block's masks that a step but the last reveals."""
    t = 1 - 0.999 * step / steps
    s = 1 - 0.999 * (step + 1) / steps
    return 1 - s / t


def naive_gumbel(u: float) -> float:
    return -math.log(-math.log(u))


def naive_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(logit - max(logits)) for logit in logits)) + max(logits)
    return [math.exp(logit - total) for logit in logits]


def naive_filter(logits: list[float], sampler) -> list[float]:
    """Return the probabilities that temperature, top-p and top-k leave, by sorting and summing."""
    logits = [logit / (sampler.temperature or 1) for logit in logits]
    kept = sorted(range(len(logits)), key=lambda token: -logits[token])

    if sampler.top_p is not None:
        top = max(logits)
        whole = sum(math.exp(logit - top) for logit in logits)
        above, chosen = 0.0, []
        for token in kept:
            if not chosen or above <= sampler.top_p:
                chosen.append(token)
            above += math.exp(logits[token] - top) / whole
        kept = chosen

    if sampler.top_k is not None:
        kept = kept[: sampler.top_k]

    weights = [math.exp(logit - max(logits)) if token in kept else 0.0 for token, logit in enumerate(logits)]
    return [weight / sum(weights) for weight in weights]


def naive_logits(lm, ids: list[int], prompt_length: int, sampler) -> torch.Tensor:
    """Return whole-sequence logits with guidance, float64 (T, V)."""
    logits_TV = lm.model(torch.tensor([ids]), use_cache=False).logits[0].double()
    if not sampler.guidance:
        return logits_TV
    without_prompt = [MASK_TOKEN_ID] * prompt_length + ids[prompt_length:]
    other_TV = lm.model(torch.tensor([without_prompt]), use_cache=False).logits[0].double()
    return other_TV + (sampler.guidance + 1) * (logits_TV - other_TV)


def naive_token(logits: list[float], sampler, uniform) -> tuple[int, list[float]]:
    """Return a token, and the probabilities for its confidence; `uniform` is None at temperature 0."""
    if sampler.proposal == "filtered":
        p = naive_filter(logits, sampler)
        if uniform is None:
            return p.index(max(p)), p
        above = 0.0
        for token in range(len(p)):
            above += p[token]
            if above > float(uniform):
                break
        return token, p

    noisy = logits
    if uniform is not None:
        noisy = [
            logit + sampler.temperature * naive_gumbel(u)
            for logit, u in zip(logits, uniform.tolist(), strict=True)
        ]

    return noisy.index(max(noisy)), naive_softmax(logits)


def naive_confidence(p: list[float], token: int, sampler) -> float:
    if sampler.order == "entropy":
        return sum(q * math.log(q) for q in p if q > 0)
    return math.log(p[token]) if p[token] > 0 else -math.inf


def naive_proposals(logits_LV: list[list[float]], sampler, rng) -> list[tuple[int, float]]:
    """Return a token and its confidence for every masked position."""
    masked = len(logits_LV)
    uniform = [None] * masked
    if sampler.temperature > 0 and masked:
        width = 1 if sampler.proposal == "filtered" else len(logits_LV[0])
        uniform = torch.rand(masked, width, generator=rng, dtype=torch.float64)

    tokens, sure = [], []
    for logits, u in zip(logits_LV, uniform, strict=True):
        logits[MASK_TOKEN_ID] = -math.inf

        token, p = naive_token(logits, sampler, u)
        tokens.append(token)
        sure.append(naive_confidence(p, token, sampler))

    if sampler.order == "random":
        sure = torch.rand(masked, generator=rng, dtype=torch.float64).tolist()
    return list(zip(tokens, sure, strict=True))


def naive_generate(lm, prompt: list[int], sampler, seed: int, row: int) -> list[int]:
    """Denoise one prompt with whole-sequence logits."""
    rng = generator(seed, "generate", row)
    ids = prompt + [MASK_TOKEN_ID] * sampler.length
    blocks = 1 if sampler.block is None else sampler.length // sampler.block
    width = sampler.length // blocks
    per_block = sampler.steps // blocks
    counts = naive_reveals(sampler)

    for step in range(sampler.steps):
        logits_TV = naive_logits(lm, ids, len(prompt), sampler)
        masked = [position for position in range(len(prompt), len(ids)) if ids[position] == MASK_TOKEN_ID]
        logits_LV = [logits_TV[position - lm.logits_shifted].tolist() for position in masked]
        proposals = list(zip(masked, naive_proposals(logits_LV, sampler, rng), strict=True))
        end = len(prompt) + width * (step // per_block + 1)

        inside = [proposal for proposal in proposals if proposal[0] < end]
        chosen = sorted(inside, key=lambda proposal: -proposal[1][1])[: counts[step]]

        for position, (token, _) in chosen:
            ids[position] = token

    return ids

"""Proposals of a denoising step: random tokens for the masked positions, and how sure a model is of each.

Dimensions: L masked positions of one sequence, V vocabulary.
"""

from collections.abc import Callable

import torch

LEAST_UNIFORM = 1e-300  # of a uniform number whose logarithm is taken: a draw may be 0
LEAST_LOG_P = -1e4  # of a forbidden token, whose p log p would be 0 times infinity


def gumbel_(uniform: torch.Tensor) -> torch.Tensor:
    """Turn float64 uniform numbers into standard Gumbel noise, in place, as it is as large as the logits."""
    return uniform.clamp_min_(LEAST_UNIFORM).log_().neg_().log_().neg_()


def gumbel_noise(like: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return standard Gumbel noise of the shape and on the device of `like`, float64, drawn on the CPU."""
    uniform = torch.rand(like.shape, generator=rng, dtype=torch.float64)
    return gumbel_(uniform).to(like.device)


def filtered_log_p(
    logits_LV: torch.Tensor, temperature: float, top_p: float | None, top_k: int | None
) -> torch.Tensor:
    """Return the log-probabilities that temperature, then top-p, then top-k leave, float64 (L, V).

    Temperature 0 stands for 1 here: the most probable token is the same. None switches a filter off.
    """
    logits_LV = logits_LV.double() / (temperature or 1.0)
    if top_p is not None:
        sorted_LV, index_LV = logits_LV.sort(descending=True, stable=True)
        more_probable_LV = sorted_LV.softmax(-1).cumsum(-1).roll(1, -1)
        more_probable_LV[:, 0] = 0  # so that the most probable token stays
        removed_LV = (more_probable_LV > top_p).gather(-1, index_LV.argsort(-1))
        logits_LV = logits_LV.masked_fill(removed_LV, -torch.inf)

    if top_k is not None and top_k < logits_LV.shape[-1]:
        least_L1 = logits_LV.topk(top_k).values[:, -1:]
        logits_LV = logits_LV.masked_fill(logits_LV < least_L1, -torch.inf)

    return logits_LV.log_softmax(-1)


def draw_by_inverse(log_p_LV: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Draw a token per position, int64 (L,): its cumulative distribution inverted at a uniform number."""
    cumulative_LV = log_p_LV.exp().cumsum(-1)
    uniform_L1 = torch.rand((len(log_p_LV), 1), generator=rng, dtype=torch.float64).to(log_p_LV.device)
    return torch.searchsorted(cumulative_LV, uniform_L1 * cumulative_LV[:, -1:], right=True).squeeze(-1)


def log_probability(log_p_LV: torch.Tensor, token_L: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of the proposed tokens, (L,)."""
    return log_p_LV.gather(-1, token_L[:, None]).squeeze(-1)


def negative_entropy(log_p_LV: torch.Tensor, token_L: torch.Tensor) -> torch.Tensor:
    """Return the negative entropy of the distributions in nats, (L,)."""
    return (log_p_LV.exp() * log_p_LV.clamp_min(LEAST_LOG_P)).sum(-1)


# Confidence by the name of the order, from log p (L, V) and the proposed tokens (L,): the surest comes first.
CONFIDENCE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "low_confidence": log_probability,
    "entropy": negative_entropy,
}

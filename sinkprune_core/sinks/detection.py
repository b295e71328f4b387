"""From attention mass to attention sinks: which tokens, how many, how long, and how much they move.

Everything here works on a sink profile: mass over an even share (1 is even), averaged over heads and layers or per
layer. How mass was measured is none of its business.

Dimensions: B prompt, S step of the trajectory, K key position, L layer.
"""

import pandas as pd
import torch

from sinkprune_core.diffusion.sampling import random_mask

STABILITY_THRESHOLD = 0.8  # share of steps from which a sink counts as stable


def sink_sets(
    profile_SK: torch.Tensor, visible_SK: torch.Tensor | None = None, sink_std: float = 2.0
) -> torch.Tensor:
    """Return which keys are sinks, bool (..., S, K): mass above mean + `sink_std` population standard deviations.

    Statistics run over the visible keys of each step, as in the official code (lib/prune_llada.py, its mean + 2 std
    over a sequence). A step of perfectly even attention has no sink.
    """
    visible_SK = (
        torch.ones_like(profile_SK, dtype=torch.bool)
        if visible_SK is None
        else visible_SK.expand_as(profile_SK)
    )
    count = visible_SK.sum(-1, keepdim=True)
    mean = profile_SK.masked_fill(~visible_SK, 0).sum(-1, keepdim=True) / count
    std = ((profile_SK - mean).square().masked_fill(~visible_SK, 0).sum(-1, keepdim=True) / count).sqrt()
    return visible_SK & (profile_SK > mean + sink_std * std) & (std > 1e-6 * mean)


def top_keys(profile_K: torch.Tensor, count: int, visible_K: torch.Tensor | None = None) -> torch.Tensor:
    """Return the `count` visible keys of most mass in every row, bool (..., K); of equal keys the earlier ones.

    Raises ValueError when a row has fewer visible keys.
    """
    visible_K = (
        torch.ones_like(profile_K, dtype=torch.bool) if visible_K is None else visible_K.expand_as(profile_K)
    )
    fewest = int(visible_K.sum(-1).min())
    if not 0 <= count <= fewest:
        raise ValueError(f"count={count} must lie in 0 … {fewest}, the visible keys of the shortest row")
    order_K = profile_K.masked_fill(~visible_K, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(visible_K).scatter(-1, order_K[..., :count], True)


def random_keys(
    sinks_K: torch.Tensor, count: int, rng: torch.Generator, visible_K: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `count` keys of one row drawn without replacement from the visible ones that are no sink, bool (K,): the control to `top_keys`."""
    return random_mask(~sinks_K if visible_K is None else visible_K & ~sinks_K, count, rng)


def persistence(sinks_SK: torch.Tensor, visible_SK: torch.Tensor | None = None) -> torch.Tensor:
    """Return the share of steps in which a position is a sink, among those in which it can be seen, (..., K)."""
    steps = sinks_SK.shape[-2] if visible_SK is None else visible_SK.expand_as(sinks_SK).sum(-2).clamp_min(1)
    return sinks_SK.sum(-2) / steps


def split_by_persistence(
    sinks_SK: torch.Tensor,
    visible_SK: torch.Tensor | None = None,
    stability_threshold: float = STABILITY_THRESHOLD,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split sinks into stable and unstable ones: two bool (..., S, K) masks that add up to `sinks_SK`.

    A position is stable when its persistence reaches `stability_threshold`. On a model whose sinks never move the unstable set
    is empty. Raises ValueError for a threshold outside [0, 1].
    """
    if not 0 <= stability_threshold <= 1:
        raise ValueError(
            f"stability_threshold={stability_threshold} must lie in [0, 1]: it is a share of steps"
        )
    stable_1K = (persistence(sinks_SK, visible_SK) >= stability_threshold).unsqueeze(-2)
    return sinks_SK & stable_1K, sinks_SK & ~stable_1K


def centroid(profile_SK: torch.Tensor, sinks_SK: torch.Tensor) -> torch.Tensor:
    """Return the mass-weighted mean position of the sinks of every step, (..., S), NaN where a step has none (method facts: c_t)."""
    weight_SK = profile_SK * sinks_SK
    return (weight_SK * torch.arange(profile_SK.shape[-1])).sum(-1) / weight_SK.sum(
        -1
    )  # 0 / 0 is NaN, as wanted


def overlap(sinks_SK: torch.Tensor) -> torch.Tensor:
    """Return the Jaccard overlap of the sink sets of consecutive steps, (..., S - 1), NaN where both are empty."""
    before, after = sinks_SK[..., :-1, :], sinks_SK[..., 1:, :]
    return (before & after).sum(-1) / (before | after).sum(-1)


def variability(
    profile_BSK: torch.Tensor,
    visible_BSK: torch.Tensor | None = None,
    sink_std: float = 2.0,
    stability_threshold: float = STABILITY_THRESHOLD,
) -> pd.DataFrame:
    """Return one row of sink statistics per prompt, each a property of that prompt's whole trajectory.

    As published: `spatial_variance` = Var_i(mean_t m_t(i)), mass in even shares; `temporal_variance` = Var_t(c_t), in
    squared positions. Corrected: `temporal_variance_relative`, the same with positions over length; `centroid_jump`,
    the mean |c_t - c_(t-1)| over length; `overlap` of consecutive sink sets; `sinks_per_step`; `positions`, distinct
    positions that are ever a sink; `stable_share`, the share of sink occurrences at stable positions; `top_share`,
    the share of all attention the strongest key gets, mean over steps.
    """
    sinks_BSK = sink_sets(profile_BSK, visible_BSK, sink_std)
    stable_BSK, _ = split_by_persistence(sinks_BSK, visible_BSK, stability_threshold)
    visible_BSK = torch.ones_like(sinks_BSK) if visible_BSK is None else visible_BSK.expand_as(sinks_BSK)
    length = profile_BSK.shape[-1]
    rows = []
    for profile_SK, sinks_SK, stable_SK, visible_SK in zip(
        profile_BSK, sinks_BSK, stable_BSK, visible_BSK, strict=True
    ):
        center_S = centroid(profile_SK, sinks_SK)
        center_S = center_S[~center_S.isnan()]
        center_S = (
            center_S if len(center_S) else torch.full((1,), torch.nan)
        )  # no step has a sink: no number, no warning
        mass_SK = profile_SK.masked_fill(~visible_SK, 0)
        seen_K = visible_SK.any(0)  # a key's mean over time is that of the steps that can see it
        mean_K = mass_SK.sum(0)[seen_K] / visible_SK.sum(0)[seen_K]
        rows.append(
            {
                "spatial_variance": float(mean_K.var(correction=0)),
                "temporal_variance": float(center_S.var(correction=0)),
                "temporal_variance_relative": float((center_S / length).var(correction=0)),
                "centroid_jump": float((center_S.diff().abs() / length).mean()),
                "overlap": float(overlap(sinks_SK).nanmean()),
                "sinks_per_step": float(sinks_SK.sum(-1).float().mean()),
                "positions": float(sinks_SK.any(0).sum()),
                "stable_share": float(stable_SK.sum() / sinks_SK.sum()),
                "top_share": float((mass_SK.amax(-1) / visible_SK.sum(-1)).mean()),
            }
        )
    return pd.DataFrame(rows).rename_axis("prompt").reset_index()


def token_table(
    ids_BSK: torch.Tensor, sinks_BSK: torch.Tensor, tokenizer, visible_SK: torch.Tensor | None = None
) -> pd.DataFrame:
    """Return which tokens the sinks are, most frequent first: `token`, `share` of all sink occurrences, `persistence` of its positions."""
    persistence_BSK = persistence(sinks_BSK, visible_SK).unsqueeze(-2).expand(sinks_BSK.shape)
    frame = pd.DataFrame(
        {"id": ids_BSK[sinks_BSK].numpy(), "persistence": persistence_BSK[sinks_BSK].numpy()}
    )
    table = frame.groupby("id").persistence.agg(["size", "mean"]).sort_values("size", ascending=False)
    tokens = [repr(tokenizer.decode([int(token)])) for token in table.index]
    return pd.DataFrame(
        {
            "token": tokens,
            "share": (table["size"] / len(frame)).round(3).to_numpy(),
            "persistence": table["mean"].round(3).to_numpy(),
        }
    )

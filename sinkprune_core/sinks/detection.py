"""From attention mass to attention sinks: which tokens are sinks, for how many steps, and how far they move.

Everything here works on attention mass per key, averaged over heads and, mostly, layers: the literal sum
over queries, or in even shares (over what evenly spread attention would give). Which keys are sinks does not
depend on the unit. How mass is measured stands in `attention`, which queries count in `trace`.

A key is visible in a step when every query of that step may attend to it. Statistics run over visible keys
only, and None stands for "all are visible".

Dimensions: B prompt, S step of the trajectory, K key position, and any dimensions before these (`...`).
"""

import pandas as pd
import torch

SINK_STD = 2.0  # standard deviations by which a sink's mass exceeds the mean, as in the official code
STABILITY_THRESHOLD = 0.8  # share of steps from which a sink counts as stable
SHARES_ABOVE_OTHERS = 3.0
"""Even shares by which a sink exceeds the other keys; Rulli et al., arXiv 2510.15731."""
LEAST_VARIATION = 1e-6  # below this ratio of standard deviation to mean a step counts as perfectly even


def _expand_visible(visible_SK: torch.Tensor | None, like_SK: torch.Tensor) -> torch.Tensor:
    """Return which keys are visible, bool, in the shape of `like_SK`."""
    if visible_SK is None:
        return torch.ones_like(like_SK, dtype=torch.bool)
    return visible_SK.expand_as(like_SK)


# which keys are sinks


def mean_and_std(
    mass_SK: torch.Tensor, visible_SK: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and population standard deviation over the visible keys of each step, each (..., S, 1).

    Both are NaN for a step in which no key is visible.
    """
    visible_SK = _expand_visible(visible_SK, mass_SK)
    count_S1 = visible_SK.sum(-1, keepdim=True)
    mean_S1 = mass_SK.masked_fill(~visible_SK, 0).sum(-1, keepdim=True) / count_S1
    squared_SK = (mass_SK - mean_S1).square().masked_fill(~visible_SK, 0)
    std_S1 = (squared_SK.sum(-1, keepdim=True) / count_S1).sqrt()

    return mean_S1, std_S1


def sink_sets(
    mass_SK: torch.Tensor, visible_SK: torch.Tensor | None = None, sink_std: float = SINK_STD
) -> torch.Tensor:
    """Return which keys are sinks, bool (..., S, K): visible keys of more mass than a threshold.

    It is mean + `sink_std` population standard deviations; both statistics run over the visible keys of each
    step, as in the official code (lib/prune_llada.py, its mean + 2 std over a sequence). A step of perfectly
    even attention has no sink.
    """
    visible_SK = _expand_visible(visible_SK, mass_SK)
    mean_S1, std_S1 = mean_and_std(mass_SK, visible_SK)
    is_uneven_S1 = std_S1 > LEAST_VARIATION * mean_S1
    is_above_SK = mass_SK > mean_S1 + sink_std * std_S1
    return visible_SK & is_above_SK & is_uneven_S1


def sinks_above_others(
    mass_SK: torch.Tensor, visible_SK: torch.Tensor | None = None, shares: float = SHARES_ABOVE_OTHERS
) -> torch.Tensor:
    """Return which keys are sinks, bool (..., S, K): visible keys whose mass exceeds the mean of the other
    visible keys by more than `shares` even shares.

    An even share is the mean over the visible keys: 1 where mass is the sum over as many queries as there are
    keys. Rulli et al., arXiv 2510.15731, with 3.
    """
    visible_SK = _expand_visible(visible_SK, mass_SK)
    count_S1 = visible_SK.sum(-1, keepdim=True)
    total_S1 = mass_SK.masked_fill(~visible_SK, 0).sum(-1, keepdim=True)
    others_SK = (total_S1 - mass_SK) / (count_S1 - 1)  # 0 / 0 of a single key is NaN: no sink
    return visible_SK & (mass_SK > others_SK + shares * total_S1 / count_S1)


# which keys to hide


def top_keys(mass_K: torch.Tensor, count: int, visible_K: torch.Tensor | None = None) -> torch.Tensor:
    """Return the `count` visible keys of most mass in every row, bool (..., K).

    Of equal keys the earlier one comes first. Raises ValueError when a row has fewer visible keys.
    """
    visible_K = _expand_visible(visible_K, mass_K)
    fewest = int(visible_K.sum(-1).min())
    if not 0 <= count <= fewest:
        raise ValueError(f"count={count} must lie in 0 … {fewest}, the visible keys of the shortest row")

    mass_K = mass_K.masked_fill(~visible_K, -torch.inf)
    order_K = mass_K.sort(dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(visible_K).scatter(-1, order_K[..., :count], True)


# for how many steps a key is a sink


def persistence(sinks_SK: torch.Tensor, visible_SK: torch.Tensor | None = None) -> torch.Tensor:
    """Return the share of a position's visible steps in which it is a sink, (..., K)."""
    visible_steps_K = _expand_visible(visible_SK, sinks_SK).sum(-2)
    return sinks_SK.sum(-2) / visible_steps_K.clamp_min(1)


def split_by_persistence(
    sinks_SK: torch.Tensor,
    visible_SK: torch.Tensor | None = None,
    stability_threshold: float = STABILITY_THRESHOLD,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split sinks into stable and unstable ones: two bool (..., S, K) masks that add up to `sinks_SK`.

    A position is stable when its persistence reaches `stability_threshold`. On a model whose sinks never move
    the unstable set is empty. Raises ValueError for a threshold outside [0, 1].
    """
    if not 0 <= stability_threshold <= 1:
        raise ValueError(
            f"stability_threshold={stability_threshold} must lie in [0, 1]: it is a share of steps"
        )

    stable_1K = (persistence(sinks_SK, visible_SK) >= stability_threshold).unsqueeze(-2)
    return sinks_SK & stable_1K, sinks_SK & ~stable_1K


# how far sinks move


def centroid(mass_SK: torch.Tensor, sinks_SK: torch.Tensor) -> torch.Tensor:
    """Return the mass-weighted mean position of the sinks of every step, (..., S), NaN where a step has none.

    The paper calls it c_t.
    """
    weight_SK = mass_SK * sinks_SK
    position_K = torch.arange(mass_SK.shape[-1])
    return (weight_SK * position_K).sum(-1) / weight_SK.sum(-1)  # 0 / 0 is the NaN


def overlap(sinks_SK: torch.Tensor) -> torch.Tensor:
    """Return the Jaccard overlap of consecutive steps' sink sets, (..., S - 1), NaN if both are empty."""
    before_SK = sinks_SK[..., :-1, :]
    after_SK = sinks_SK[..., 1:, :]
    return (before_SK & after_SK).sum(-1) / (before_SK | after_SK).sum(-1)


def variability(
    mass_BSK: torch.Tensor,
    visible_BSK: torch.Tensor | None = None,
    sink_std: float = SINK_STD,
    stability_threshold: float = STABILITY_THRESHOLD,
) -> pd.DataFrame:
    """Return one row of sink statistics per prompt, each a property of that prompt's whole trajectory.

    Sinks are those of `sink_sets`; columns are those of `sink_statistics`.
    """
    sinks_BSK = sink_sets(mass_BSK, visible_BSK, sink_std)
    return sink_statistics(mass_BSK, sinks_BSK, visible_BSK, stability_threshold)


def sink_statistics(
    mass_BSK: torch.Tensor,
    sinks_BSK: torch.Tensor,
    visible_BSK: torch.Tensor | None = None,
    stability_threshold: float = STABILITY_THRESHOLD,
) -> pd.DataFrame:
    """Return one row of statistics of given sinks per prompt, each a property of its whole trajectory.

    As published: `spatial_variance` = Var_i(mean_t m_t(i)), in squared units of mass, where a key's mean runs
    over the steps that can see it; `temporal_variance` = Var_t(c_t), in squared positions. Corrected:
    `temporal_variance_relative`, the same with positions over length; `centroid_jump`, the mean
    |c_t - c_(t-1)| over length; `overlap` of consecutive sink sets; `sinks_per_step`; `positions`, distinct
    positions that are ever a sink; `stable_share`, the share of sink occurrences at stable positions;
    `top_share`, the share of the attention to visible keys that the strongest gets, mean over steps.
    """
    stable_BSK, _ = split_by_persistence(sinks_BSK, visible_BSK, stability_threshold)
    visible_BSK = _expand_visible(visible_BSK, mass_BSK)
    by_prompt = zip(mass_BSK, sinks_BSK, stable_BSK, visible_BSK, strict=True)
    rows = [_trajectory_statistics(*tensors_SK) for tensors_SK in by_prompt]
    return pd.DataFrame(rows).rename_axis("prompt").reset_index()


def _trajectory_statistics(
    mass_SK: torch.Tensor, sinks_SK: torch.Tensor, stable_SK: torch.Tensor, visible_SK: torch.Tensor
) -> dict[str, float]:
    """Return the statistics of one trajectory by name; `sink_statistics` says what each of them is."""
    length = mass_SK.shape[-1]
    center_S = centroid(mass_SK, sinks_SK)
    jump_S = center_S.diff().abs() / length  # NaN beside a step without a sink
    center_S = center_S[~center_S.isnan()]
    if len(center_S) == 0:  # no step has a sink: its statistics are NaN, without a warning of torch
        center_S = torch.full((1,), torch.nan)

    mass_SK = mass_SK.masked_fill(~visible_SK, 0)
    is_ever_visible_K = visible_SK.any(0)
    mean_K = mass_SK.sum(0)[is_ever_visible_K] / visible_SK.sum(0)[is_ever_visible_K]
    top_share_S = mass_SK.amax(-1) / mass_SK.sum(-1)

    return {
        "spatial_variance": float(mean_K.var(correction=0)),
        "temporal_variance": float(center_S.var(correction=0)),
        "temporal_variance_relative": float((center_S / length).var(correction=0)),
        "centroid_jump": float(jump_S.nanmean()),
        "overlap": float(overlap(sinks_SK).nanmean()),
        "sinks_per_step": float(sinks_SK.sum(-1).float().mean()),
        "positions": float(sinks_SK.any(0).sum()),
        "stable_share": float(stable_SK.sum() / sinks_SK.sum()),
        "top_share": float(top_share_S.mean()),
    }

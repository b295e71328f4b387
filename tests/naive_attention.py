"""Attention as transformers computes it eagerly, under a mask of which keys every query sees.

Dimensions: B batch, L layers, H heads, Q queries, K keys, T position, D hidden width.
"""

import torch


def seen_keys(lm, ids_BT, attention_mask_BT=None, hidden_BK=None) -> torch.Tensor:
    """Return which keys every query sees, bool (B, Q, K): real ones, none to come, its own though hidden."""
    length = ids_BT.shape[1]
    seen_BQK = torch.ones(len(ids_BT), length, length, dtype=torch.bool)

    if not lm.is_diffusion:
        seen_BQK = seen_BQK.tril()
    if attention_mask_BT is not None:
        seen_BQK = seen_BQK & attention_mask_BT.bool()[:, None, :]
    if hidden_BK is not None:
        seen_BQK = seen_BQK & (~hidden_BK[:, None, :] | torch.eye(length, dtype=torch.bool))

    return seen_BQK


def eager(lm, ids_BT, **keys) -> tuple[torch.Tensor, torch.Tensor]:
    """Return last hidden states (B, T, D) and attention maps (B, L, H, Q, K); `keys` are as in `seen_keys`.

    A map is zero for queries that see no key at all.
    """
    seen_BQK = seen_keys(lm, ids_BT, **keys)
    lowest = torch.finfo(torch.float32).min
    mask_B1QK = torch.zeros(seen_BQK.shape).masked_fill(~seen_BQK, lowest)[:, None]

    present_BT = keys.get("attention_mask_BT")
    positions = {}
    if present_BT is not None and not present_BT[:, 0].all():  # padded on the left
        positions["position_ids"] = (present_BT.cumsum(1) - 1).clamp_min(0)
    shown = {"use_cache": False, "output_attentions": True}

    former = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")
    try:
        out = lm.model.base_model(ids_BT, attention_mask=mask_B1QK, **positions, **shown)
    finally:
        lm.model.set_attn_implementation(former)

    maps_BLHQK = torch.stack(out.attentions, dim=1)
    return out.last_hidden_state, maps_BLHQK * seen_BQK.any(-1)[:, None, None, :, None]


def own_maps(model, ids_BT) -> torch.Tensor:
    """Return the attention maps that a model of transformers itself computes, (B, L, H, Q, K)."""
    former = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        maps = model(ids_BT, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(former)
    return torch.stack([map_BHQK[..., : ids_BT.shape[1]] for map_BHQK in maps], dim=1)


def window_keys(lm, layer: int, length: int) -> torch.Tensor:
    """Return which keys the queries of a layer see, bool (Q, K), by the words of transformers.

    With a window of w a causal query sees its own key and the w - 1 before it; a bidirectional one those at
    most w away, to either side.
    """
    config = lm.model.config
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) or length
    if kinds and kinds[layer] == "full_attention":
        window = length

    back_QK = torch.arange(length)[:, None] - torch.arange(length)
    if lm.is_diffusion:
        return back_QK.abs() <= window
    return (back_QK >= 0) & (back_QK < window)

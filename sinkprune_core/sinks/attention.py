"""The one attention function: what SDPA returns, plus the attention mass every key receives, with keys hidden on demand.

Mass is the column sum of the softmax over queries. It is streamed in query chunks, so a T x T map never exists; memory
is O(chunk x T) per head.

Dimensions: B batch, H query heads, G key-value heads, R query heads per key-value head, Q queries, C queries of a
chunk, K keys, E head width, L layers, S windows of queries (steps of a causal model).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sinkprune"
Windows = Sequence[tuple[int, int]]
Hidden = torch.Tensor | Callable[[int], torch.Tensor | None]  # bool (B, K), or what returns it for a layer


class Tracker:
    """Collects attention mass during forwards: per layer float32 (B, H, S, K), a sum over the queries of each window."""

    def __init__(self, windows: Windows | None, chunk: int):
        self.windows, self.chunk, self.layers = windows, chunk, {}

    def add(self, layer: int, query_BHQE, key_BGKE, attention_mask, scaling: float, causal: bool) -> None:
        if layer in self.layers:
            raise RuntimeError(f"layer {layer} ran twice: call `take()` after every forward")
        windows = self.windows or [(0, query_BHQE.shape[2])]
        parts = [
            self._mass(query_BHQE, key_BGKE, attention_mask, scaling, causal, *window) for window in windows
        ]
        self.layers[layer] = torch.stack(parts, dim=2)

    def _mass(
        self, query_BHQE, key_BGKE, attention_mask, scaling, causal, first: int, last: int
    ) -> torch.Tensor:
        batch, heads, _, width = query_BHQE.shape
        groups, keys = key_BGKE.shape[1], key_BGKE.shape[2]
        mass_BGRK = query_BHQE.new_zeros(batch, groups, heads // groups, keys, dtype=torch.float32)
        for start in range(first, last, self.chunk):
            stop = min(start + self.chunk, last)
            seen = min(stop, keys) if causal else keys  # no query of this chunk looks further
            query_BGXE = query_BHQE[:, :, start:stop].reshape(batch, groups, -1, width)  # X = R * C
            score_BGXK = torch.matmul(query_BGXE * scaling, key_BGKE[:, :, :seen].transpose(2, 3))
            score_BGRCK = score_BGXK.view(batch, groups, heads // groups, stop - start, seen).float()
            if causal:
                future_CC = torch.ones(
                    stop - start, stop - start, dtype=torch.bool, device=query_BHQE.device
                ).triu(1)
                score_BGRCK[..., start:stop].masked_fill_(
                    future_CC, -torch.inf
                )  # only the diagonal block has a future
            elif attention_mask is not None:
                mask_B11CK = attention_mask[:, :, None, start:stop, :seen]
                score_BGRCK = (
                    score_BGRCK.masked_fill(~mask_B11CK, -torch.inf)
                    if mask_B11CK.dtype == torch.bool
                    else score_BGRCK + mask_B11CK
                )
            share_BGRCK = torch.softmax(score_BGRCK, dim=-1)
            if attention_mask is not None and attention_mask.dtype == torch.bool:
                share_BGRCK = share_BGRCK.masked_fill(
                    ~mask_B11CK.any(-1, keepdim=True), 0
                )  # padding that sees no key gives none, as in SDPA
            mass_BGRK[..., :seen] += share_BGRCK.sum(3)
        return mass_BGRK.view(batch, heads, keys)

    def take(self) -> torch.Tensor:
        """Return the mass of the last forward, float32 (B, L, H, S, K), and forget it."""
        if not self.layers:
            raise RuntimeError("no forward ran since the last `take()`")
        first = self.layers[min(self.layers)].device  # layers may lie on several
        mass_BLHSK = torch.stack([self.layers[layer].to(first) for layer in sorted(self.layers)], dim=1)
        self.layers = {}
        return mass_BLHSK


def attention(
    module: nn.Module,
    query,
    key,
    value,
    attention_mask,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs,
):
    """Attend as transformers' SDPA does, without the module's hidden keys, and hand queries and keys to its tracker, if it has any."""
    hidden = module.__dict__.get("_hidden_keys")
    if hidden is not None:
        hidden_BK = hidden(module.layer_idx) if callable(hidden) else hidden
        if hidden_BK is not None:
            causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
            attention_mask = _without(hidden_BK, query, key, attention_mask, causal)
    tracker = module.__dict__.get("_sink_tracker")
    if tracker is not None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        causal = causal and attention_mask is None and query.shape[2] > 1
        tracker.add(
            module.layer_idx,
            query,
            key,
            attention_mask,
            query.shape[-1] ** -0.5 if scaling is None else scaling,
            causal,
        )
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs
    )


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def _without(hidden_BK: torch.Tensor, query_BHQE, key_BGKE, attention_mask, causal: bool) -> torch.Tensor:
    """Return the attention mask (B, 1, Q, K) that leaves out the hidden keys for every query but their own."""
    _check_hidden(hidden_BK)
    batch, queries, keys = query_BHQE.shape[0], query_BHQE.shape[2], key_BGKE.shape[2]
    if queries != keys:
        raise ValueError(
            f"{queries} queries and {keys} keys: keys can be hidden in full forwards only, without a cache"
        )
    if hidden_BK.shape not in ((batch, keys), (1, keys)):
        raise ValueError(
            f"hidden keys have shape {tuple(hidden_BK.shape)}; expected ({batch}, {keys}), or (1, {keys}) for all rows alike"
        )
    own_QK = torch.eye(keys, dtype=torch.bool, device=key_BGKE.device)
    allowed_B1QK = (~hidden_BK.to(key_BGKE.device)[:, None, None, :] | own_QK).expand(batch, -1, -1, -1)
    if attention_mask is None:
        return allowed_B1QK & torch.ones_like(own_QK).tril() if causal else allowed_B1QK
    return (
        attention_mask & allowed_B1QK
        if attention_mask.dtype == torch.bool
        else attention_mask.masked_fill(~allowed_B1QK, -torch.inf)
    )


def _check_hidden(hidden_BK: object) -> None:
    if not isinstance(hidden_BK, torch.Tensor) or hidden_BK.dtype != torch.bool or hidden_BK.dim() != 2:
        got = (
            f"{hidden_BK.dtype} {tuple(hidden_BK.shape)}"
            if isinstance(hidden_BK, torch.Tensor)
            else repr(hidden_BK)
        )
        raise ValueError(
            f"hidden keys are {got}; expected a bool tensor of (batch, keys), or a function of the layer's index that returns one or None"
        )


@contextmanager
def _switched(model: PreTrainedModel, attribute: str, value: object) -> Iterator[None]:
    """Give `attribute` to every attention module and let all of them call `attention`; the former state comes back whatever happens."""
    former = model.config._attn_implementation
    modules = [
        module for module in model.modules() if hasattr(module, "layer_idx") and hasattr(module, "is_causal")
    ]
    if any(attribute in module.__dict__ for module in modules):
        raise RuntimeError(
            f"{attribute} is set already: a block of one kind cannot stand in another of its kind"
        )
    try:
        for module in modules:
            module.__dict__[attribute] = value
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(former)
        for module in modules:
            module.__dict__.pop(attribute, None)


@contextmanager
def track(model: PreTrainedModel, windows: Windows | None = None, chunk: int = 128) -> Iterator[Tracker]:
    """Track attention mass in every forward of `model` inside the block; `tracker.take()` reads it after each.

    `windows` are half-open ranges of queries whose mass is kept apart (steps of a causal model); None is one window of
    all queries. The former attention implementation comes back whatever happens inside.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1 query")
    tracker = Tracker(windows, chunk)
    with _switched(model, "_sink_tracker", tracker):
        yield tracker


@contextmanager
def hide(model: PreTrainedModel, keys: Hidden) -> Iterator[None]:
    """Hide keys from attention in every forward of `model` inside the block, in all heads.

    `keys` is bool (B, K), or (1, K) for all rows alike, True where a key is hidden; or a function of the layer's index
    that returns such a tensor, or None to hide nothing in that layer. A hidden key gets attention from its own query
    only, so that no query is left without a key; the weights of the others are renormalised over what they still see.
    Works inside and around `track`, which then measures what is left. Needs a mask of (B, 1, K, K) bool and full
    forwards (no cache). Raises ValueError for keys of another shape or dtype, before or in the first forward; the
    former attention implementation comes back whatever happens inside.
    """
    if not callable(keys):
        _check_hidden(keys)
    with _switched(model, "_hidden_keys", keys):
        yield


def even_share(queries: int, windows: Windows | None = None, causal: bool = False) -> torch.Tensor:
    """Return the mass every key would get from evenly spread attention, float32 (S, K) with K = `queries`.

    A bidirectional query gives each key 1/K, a causal query at position q gives 1/(q+1) to each key up to itself; keys
    that no query of a window can see get 0. Measured mass over this share is 1 where attention is even.
    """
    query_Q1 = torch.arange(queries)[:, None]
    share_QK = (
        torch.where(torch.arange(queries) <= query_Q1, 1 / (query_Q1 + 1), 0.0)
        if causal
        else torch.full((queries, queries), 1 / queries)
    )
    return torch.stack([share_QK[first:last].sum(0) for first, last in windows or [(0, queries)]])

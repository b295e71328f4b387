"""An attention function for transformers: SDPA's output, where attention mass is measured and keys hidden.

Attention mass is what a key receives: the sum over queries of the softmax weights in its column of the
attention map. SDPA never returns that map, and all of it would be Q x K numbers per head. So the mass is
computed beside SDPA, from the same queries and keys, a chunk at a time, in chunk x K numbers per head.

`track` and `hide` are context managers. Both switch a model to the attention function `sinkprune`, which is
registered with transformers, and leave on its attention modules what this function reads. That is kept by
thread: what one thread hides or tracks, no forward of another thread sees.

Dimensions: B batch, L layers, H query heads, G key-value heads, R query heads per key-value head (H = G * R),
Q queries, C queries of a chunk, K keys, E head width, S windows of queries (the steps of a causal model).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sinkprune_core.memory import rows_in_cache

NAME = "sinkprune"
Windows = Sequence[tuple[int, int]]  # half-open ranges of queries
Hidden = torch.Tensor | Callable[[int], torch.Tensor | None]  # bool (B, K), or what returns it for a layer

# Attributes of an attention module, kept in its `__dict__`: torch registers nothing there. Each holds a
# dictionary from the number of a thread to what its forwards are to find.
_TRACKER = "_sink_tracker"
_HIDDEN = "_hidden_keys"

_FORMER = "_former_attention"  # of a model: the implementation to come back to, and how many blocks are open
_SWITCHING = threading.Lock()


@dataclass
class _AttentionMap:
    """The attention map of one layer, to be computed a chunk of queries at a time."""

    query_BHQE: torch.Tensor
    key_BGKE: torch.Tensor
    mask_B1QK: torch.Tensor | None  # bool (True: attend) or additive, as transformers makes it for SDPA
    scaling: float
    causal: bool  # a query sees no key after its own; then there is no mask

    def mass(self, first: int, last: int, chunk: int) -> torch.Tensor:
        """Return the mass every key receives from the queries [first, last), float32 (B, H, K)."""
        batch, heads, _, _ = self.query_BHQE.shape
        _, groups, keys, _ = self.key_BGKE.shape
        mass_BGRK = self.query_BHQE.new_zeros(batch, groups, heads // groups, keys, dtype=torch.float32)
        for start in range(first, last, chunk):
            stop = min(start + chunk, last)
            sums_BGRK = _column_sums(self._scores(start, stop), self._blind(start, stop))
            mass_BGRK[..., : sums_BGRK.shape[-1]] += sums_BGRK
        return mass_BGRK.view(batch, heads, keys)

    def _scores(self, start: int, stop: int) -> torch.Tensor:
        """Return the scaled products of the queries [start, stop) with the keys, (B, G, R, C, K).

        They are -inf for keys that a query does not see. Keys that no query of the chunk sees are left out.
        """
        batch, heads, _, width = self.query_BHQE.shape
        _, groups, keys, _ = self.key_BGKE.shape
        if self.causal:
            keys = min(stop, keys)
        # A group's query heads share its keys, so their queries are stacked: X = R * C.
        query_BGXE = self.query_BHQE[:, :, start:stop].reshape(batch, groups, -1, width)
        key_BGEK = self.key_BGKE[:, :, :keys].transpose(2, 3)
        score_BGXK = torch.matmul(query_BGXE * self.scaling, key_BGEK)
        score_BGRCK = score_BGXK.view(batch, groups, heads // groups, stop - start, keys)
        if self.causal:
            ones_CC = torch.ones(stop - start, stop - start, dtype=torch.bool, device=score_BGRCK.device)
            score_BGRCK[..., start:stop].masked_fill_(ones_CC.triu(1), -torch.inf)
            return score_BGRCK
        if self.mask_B1QK is None:
            return score_BGRCK
        mask_B11CK = self.mask_B1QK[:, :, None, start:stop]
        if mask_B11CK.dtype == torch.bool:
            return score_BGRCK.masked_fill_(~mask_B11CK, -torch.inf)
        return score_BGRCK.float() + mask_B11CK

    def _blind(self, start: int, stop: int) -> torch.Tensor | None:
        """Return which queries of [start, stop) see no key, bool (B, 1, 1, C, 1); None where all see one."""
        if self.mask_B1QK is None or self.mask_B1QK.dtype != torch.bool:
            return None
        blind_B1C = ~self.mask_B1QK[:, :, start:stop].any(-1)
        return blind_B1C[:, :, None, :, None].expand(len(self.query_BHQE), -1, -1, -1, -1)


def _column_sums(score_BGRCK: torch.Tensor, blind_B11C1: torch.Tensor | None) -> torch.Tensor:
    """Return the softmax weights of scores, summed over queries in float32, (B, G, R, K)."""
    rows = rows_in_cache(score_BGRCK[0].numel() * torch.float32.itemsize, score_BGRCK.device)
    sums = []
    for row, part_BGRCK in enumerate(score_BGRCK.split(rows)):
        weight_BGRCK = torch.softmax(part_BGRCK.float(), dim=-1)
        if blind_B11C1 is not None:
            weight_BGRCK.masked_fill_(blind_B11C1.split(rows)[row], 0)
        sums.append(weight_BGRCK.sum(3))
    return torch.cat(sums)


class Tracker:
    """Collects the attention mass of a forward, layer by layer, for each window of queries."""

    def __init__(self, windows: Windows | None, chunk: int):
        self.windows = windows
        self.chunk = chunk
        self.layers: dict[int, torch.Tensor] = {}  # float32 (B, H, S, K) per layer

    def add(self, layer: int, query_BHQE, key_BGKE, mask_B1QK, scaling: float, causal: bool) -> None:
        """Measure one layer. Raises RuntimeError for a layer whose last mass was not taken."""
        if layer in self.layers:
            raise RuntimeError(f"layer {layer} ran twice: call `take()` after every forward")
        attention_map = _AttentionMap(query_BHQE, key_BGKE, mask_B1QK, scaling, causal)
        windows = self.windows or [(0, query_BHQE.shape[2])]
        masses = [attention_map.mass(first, last, self.chunk) for first, last in windows]
        self.layers[layer] = torch.stack(masses, dim=2)

    def take(self) -> torch.Tensor:
        """Return the mass of the last forward, float32 (B, L, H, S, K), and forget it.

        Raises RuntimeError when no forward ran.
        """
        if not self.layers:
            raise RuntimeError("no forward ran since the last `take()`")
        in_order = [self.layers[layer] for layer in sorted(self.layers)]
        device = in_order[0].device  # a model may be spread over several
        self.layers = {}
        return torch.stack([mass_BHSK.to(device) for mass_BHSK in in_order], dim=1)


def even_share(queries: int, windows: Windows | None = None, causal: bool = False) -> torch.Tensor:
    """Return the mass every key would get from evenly spread attention, float32 (S, K) with K = `queries`.

    A bidirectional query gives each key 1/K, a causal query at position q gives 1/(q+1) to each key up to
    itself; keys that no query of a window can see get 0. Even attention gives a mass of 1 such share.
    """
    weight_QK = torch.full((queries, queries), 1 / queries)
    if causal:
        query_Q1 = torch.arange(queries)[:, None]
        weight_QK = torch.where(torch.arange(queries) <= query_Q1, 1 / (query_Q1 + 1), 0.0)
    return torch.stack([weight_QK[first:last].sum(0) for first, last in windows or [(0, queries)]])


def _mask_without(hidden_BK, query_BHQE, key_BGKE, mask_B1QK, causal: bool) -> torch.Tensor:
    """Return the attention mask (B, 1, Q, K) that hides keys from every query but their own."""
    _check_hidden(hidden_BK)
    batch, _, queries, _ = query_BHQE.shape
    keys = key_BGKE.shape[2]
    if queries != keys:
        raise ValueError(
            f"{queries} queries and {keys} keys: keys can be hidden in full forwards only, without a cache"
        )
    if hidden_BK.shape not in ((batch, keys), (1, keys)):
        raise ValueError(
            f"hidden keys have shape {tuple(hidden_BK.shape)}; expected ({batch}, {keys}), "
            f"or (1, {keys}) for all rows alike"
        )
    own_QK = torch.eye(keys, dtype=torch.bool, device=key_BGKE.device)
    visible_B11K = ~hidden_BK.to(key_BGKE.device)[:, None, None, :]
    allowed_B1QK = (visible_B11K | own_QK).expand(batch, -1, -1, -1)
    if mask_B1QK is None and causal:
        return allowed_B1QK & torch.ones_like(own_QK).tril()
    if mask_B1QK is None:
        return allowed_B1QK
    if mask_B1QK.dtype == torch.bool:
        return mask_B1QK & allowed_B1QK
    return mask_B1QK.masked_fill(~allowed_B1QK, -torch.inf)


def _check_hidden(hidden_BK: object) -> None:
    """Raise ValueError unless hidden keys are a bool tensor of two dimensions."""
    is_tensor = isinstance(hidden_BK, torch.Tensor)
    if is_tensor and hidden_BK.dtype == torch.bool and hidden_BK.dim() == 2:
        return
    given = f"{hidden_BK.dtype} {tuple(hidden_BK.shape)}" if is_tensor else repr(hidden_BK)
    raise ValueError(
        f"hidden keys are {given}; expected a bool tensor of (batch, keys), "
        "or a function of the layer's index that returns one or None"
    )


def attention(module: nn.Module, query, key, value, attention_mask, scaling=None, is_causal=None, **kwargs):
    """Attend as transformers' SDPA does, but not to hidden keys, and measure the mass where a tracker asks.

    Shapes are those of SDPA: query (B, H, Q, E), key and value (B, G, K, E), mask (B, 1, Q, K) or None.
    Returns what `sdpa_attention_forward` returns.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    hidden_BK = _of_this_thread(module, _HIDDEN)
    if callable(hidden_BK):
        hidden_BK = hidden_BK(module.layer_idx)
    if hidden_BK is not None:
        attention_mask = _mask_without(hidden_BK, query, key, attention_mask, causal)
    tracker = _of_this_thread(module, _TRACKER)
    if tracker is not None:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        needs_causal_mask = causal and attention_mask is None and query.shape[2] > 1
        tracker.add(module.layer_idx, query, key, attention_mask, scale, needs_causal_mask)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs
    )


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def _of_this_thread(module: nn.Module, attribute: str) -> object | None:
    return module.__dict__.get(attribute, {}).get(threading.get_ident())


@contextmanager
def _switched(model: PreTrainedModel, attribute: str, value: object) -> Iterator[None]:
    """Set an attribute of every attention module for this thread, and let all of them call `attention`.

    The former state comes back whatever happens inside, once no thread is inside. Raises RuntimeError when
    this thread has set the attribute already.
    """
    thread = threading.get_ident()
    modules = [
        module for module in model.modules() if hasattr(module, "layer_idx") and hasattr(module, "is_causal")
    ]
    if any(thread in module.__dict__.get(attribute, {}) for module in modules):
        raise RuntimeError(
            f"{attribute} is set already: a block of one kind cannot stand in another of its kind"
        )
    try:
        with _SWITCHING:
            for module in modules:
                module.__dict__[attribute] = {**module.__dict__.get(attribute, {}), thread: value}
            former, users = model.__dict__.get(_FORMER, (model.config._attn_implementation, 0))
            model.__dict__[_FORMER] = (former, users + 1)
            model.set_attn_implementation(NAME)
        yield
    finally:
        with _SWITCHING:
            for module in modules:
                others = {
                    key: held for key, held in module.__dict__.get(attribute, {}).items() if key != thread
                }
                if others:
                    module.__dict__[attribute] = others
                else:
                    module.__dict__.pop(attribute, None)
            former, users = model.__dict__.pop(_FORMER)
            if users > 1:
                model.__dict__[_FORMER] = (former, users - 1)
            else:
                model.set_attn_implementation(former)


@contextmanager
def track(model: PreTrainedModel, windows: Windows | None = None, chunk: int = 128) -> Iterator[Tracker]:
    """Track attention mass in every forward of `model` inside the block, to be read by `tracker.take()`.

    `windows` are half-open ranges of queries whose mass is kept apart (steps of a causal model); None is one
    window of all queries. The former attention implementation comes back whatever happens inside. Raises
    ValueError for a `chunk` of no query.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1 query")
    tracker = Tracker(windows, chunk)
    with _switched(model, _TRACKER, tracker):
        yield tracker


@contextmanager
def hide(model: PreTrainedModel, keys: Hidden) -> Iterator[None]:
    """Hide keys from attention in every forward of `model` inside the block, in all heads.

    `keys` is bool (B, K), or (1, K) for all rows alike, True where a key is hidden; or a function of the
    layer's index that returns such a tensor, or None to hide nothing in that layer. A hidden key gets
    attention from its own query only, so that no query is left without a key; the softmax runs over the keys
    that a query still sees.

    Works inside and around `track`, which then measures what is left. Needs a mask of (B, 1, K, K) bool and
    full forwards (no cache). Raises ValueError for keys of another shape or dtype, before or in the first
    forward; the former attention implementation comes back whatever happens inside.
    """
    if not callable(keys):
        _check_hidden(keys)
    with _switched(model, _HIDDEN, keys):
        yield

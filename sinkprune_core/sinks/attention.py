"""An attention function for transformers: SDPA's output, where attention mass is measured and keys hidden.

Attention mass is what a key receives: the sum over queries of the softmax weights in its column of the
attention map. SDPA never returns that map, and all of it would be Q x K numbers per head. So the mass is
computed beside SDPA, from the same queries and keys, a chunk at a time, in chunk x K numbers per head.

`attention_mass` is the one line for a model of one's own. `track` and `hide` are context managers. Both
switch a model to the attention function `sinkprune`, which is registered with transformers, and leave on its
attention modules what this function reads.

What SDPA cannot express is computed from the whole map: scores with a soft cap (Gemma 2), and learned sinks,
a score per head that takes its share of the softmax and gives nothing (gpt-oss).

Dimensions: B batch, L layers, H query heads, G key-value heads, R query heads per key-value head (H = G * R),
Q queries, C queries of a chunk, X = R * C those of a group's heads, K keys, E head width, S windows of
queries (the steps of a causal model), T positions of a row.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sinkprune_core.memory import rows_in_cache
from sinkprune_core.model_checks import blocks_of, check_mode, padded_positions, positions_of
from sinkprune_core.values import Number, Plain, TokenIds, checked, in_short, is_plain

NAME = "sinkprune"
Windows = Sequence[tuple[int, int]]  # half-open ranges of queries
WINDOWS = Field(description="a list of (first, last) for half-open ranges of queries")
HiddenKeys = torch.Tensor | Callable[[int], torch.Tensor | None]
"""Bool (B, K), or what returns it for a layer."""

# Attributes of an attention module, kept in its `__dict__`: torch registers nothing there.
_TRACKERS = "_sink_trackers"  # a list: a block may stand in another
_HIDDEN = "_hidden_keys"
_LAYER = "_sink_layer"  # the number of its layer


@dataclass
class _AttentionMap:
    """The attention map of one layer, to be computed a chunk of queries at a time."""

    query_BHQE: torch.Tensor
    key_BGKE: torch.Tensor
    mask_B1QK: torch.Tensor | None  # bool (True: attend) or additive, as transformers makes it for SDPA
    scaling: float
    causal: bool  # a query sees no key after its own; then there is no mask
    softcap: float | None = None  # scores s become cap * tanh(s / cap)
    sink_H: torch.Tensor | None = None  # a learned score per head, which takes its share of the softmax

    @torch.no_grad()
    def mass(self, first: int, last: int, chunk: int, counted_BQ: torch.Tensor | None = None) -> torch.Tensor:
        """Return the mass every key receives from the queries [first, last), float32 (B, H, K).

        `counted_BQ` (bool) says which queries count; None: all. No gradient goes through it, so that nothing
        of the map is kept for one.
        """
        batch, heads, _, _ = self.query_BHQE.shape
        _, groups, keys, _ = self.key_BGKE.shape
        mass_BGRK = self.query_BHQE.new_zeros(batch, groups, heads // groups, keys, dtype=torch.float32)

        for start in range(first, last, chunk):
            stop = min(start + chunk, last)
            left_out = self._left_out(start, stop, counted_BQ)
            sums_BGRK = _column_sums(self._scores(start, stop), left_out, self._sink())
            mass_BGRK[..., : sums_BGRK.shape[-1]] += sums_BGRK

        return mass_BGRK.view(batch, heads, keys)

    def output(self, value_BGKE: torch.Tensor) -> torch.Tensor:
        """Return what attention gives, (B, Q, H, E), from the whole map."""
        batch, heads, queries, _ = self.query_BHQE.shape
        score_BGRQK = self._scores(0, queries)
        weight_BGRQK = _softmax(score_BGRQK, self._sink()).to(value_BGKE.dtype)
        output_BGRQE = weight_BGRQK @ value_BGKE[:, :, None, : score_BGRQK.shape[-1]]
        return output_BGRQE.reshape(batch, heads, queries, -1).transpose(1, 2).contiguous()

    def _sink(self) -> torch.Tensor | None:
        """Return the learned score of every head, (1, G, R, 1, 1)."""
        if self.sink_H is None:
            return None
        groups = self.key_BGKE.shape[1]
        return self.sink_H.detach().view(1, groups, -1, 1, 1)

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
        if self.softcap is not None:
            score_BGXK = self.softcap * torch.tanh(score_BGXK / self.softcap)

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

    def _left_out(self, start: int, stop: int, counted_BQ: torch.Tensor | None) -> torch.Tensor | None:
        """Return which queries of [start, stop) do not count, bool (B, 1, 1, C, 1); None where all do.

        Those are the ones that see no key, and those that `counted_BQ` leaves out.
        """
        reasons = []

        if self.mask_B1QK is not None and self.mask_B1QK.dtype == torch.bool:
            sees_a_key_B1C = self.mask_B1QK[:, :, start:stop].any(-1)
            reasons.append(~sees_a_key_B1C)

        if counted_BQ is not None:
            reasons.append(~counted_BQ[:, None, start:stop])

        if not reasons:
            return None

        left_out_B1C = reduce(torch.logical_or, reasons)
        left_out_B11C1 = left_out_B1C[:, :, None, :, None]
        return left_out_B11C1.expand(len(self.query_BHQE), -1, -1, -1, -1)


def _softmax(score_BGRCK: torch.Tensor, sink_1GR11: torch.Tensor | None) -> torch.Tensor:
    """Return the weights of keys, float32, beside which a learned sink may take a share."""
    if sink_1GR11 is None:
        return torch.softmax(score_BGRCK.float(), dim=-1)
    sink_BGRC1 = sink_1GR11.float().expand(*score_BGRCK.shape[:-1], 1)
    return torch.cat([score_BGRCK.float(), sink_BGRC1], dim=-1).softmax(dim=-1)[..., :-1]


def _column_sums(
    score_BGRCK: torch.Tensor, left_out_B11C1: torch.Tensor | None, sink_1GR11: torch.Tensor | None
) -> torch.Tensor:
    """Return the softmax weights of scores, summed over queries in float32, (B, G, R, K)."""
    rows = rows_in_cache(score_BGRCK[0].numel() * torch.float32.itemsize, score_BGRCK.device)
    sums = []
    for row, part_BGRCK in enumerate(score_BGRCK.split(rows)):
        weight_BGRCK = _softmax(part_BGRCK, sink_1GR11)
        if left_out_B11C1 is not None:
            weight_BGRCK = weight_BGRCK.masked_fill_(left_out_B11C1.split(rows)[row], 0)
        sums.append(weight_BGRCK.sum(3))

    return torch.cat(sums)


class Tracker:
    """Collects the attention mass of a forward, layer by layer, for each window of queries."""

    def __init__(
        self,
        windows: Windows | None = None,
        chunk: int = 128,
        counted_BQ: torch.Tensor | None = None,
        several: bool = False,
    ):
        self.windows = windows
        self.chunk = chunk
        self.counted_BQ = counted_BQ  # of the first forward
        self.several = several
        self.layers: dict[int, torch.Tensor] = {}  # float32 (B, H, S, K) per layer
        self.seen: dict[int, int] = {}  # how many queries a layer has had
        self.is_paused = False

    def add(self, layer: int, attention_map: _AttentionMap) -> None:
        """Measure one layer.

        Raises RuntimeError for a layer whose last mass was not taken, ValueError for windows or queries to
        count that are not those of the forward.
        """
        if self.is_paused:
            return
        if layer in self.layers and not self.several:
            raise RuntimeError(
                f"layer {layer} ran twice: call `take()` after every forward; a model that runs its layers "
                "twice in one forward cannot be followed"
            )

        queries = attention_map.query_BHQE.shape[2]
        keys = attention_map.key_BGKE.shape[2]
        former = self.seen.get(layer, 0)
        counted_BQ = self._counted(attention_map) if former == 0 else None
        masses = [
            attention_map.mass(first, last, self.chunk, counted_BQ) for first, last in self._windows(queries)
        ]
        mass_BHSK = torch.stack(masses, dim=2)

        if former:
            if keys < former + queries:
                raise ValueError(
                    f"layer {layer} has {keys} keys after {former + queries} queries: a cache that forgets "
                    "tokens does not say which ones are left; generate with a cache that keeps all"
                )
            earlier_BHSK = self.layers[layer]
            mass_BHSK = mass_BHSK + functional.pad(earlier_BHSK, (0, keys - earlier_BHSK.shape[-1]))

        self.layers[layer] = mass_BHSK
        self.seen[layer] = former + queries

    def _windows(self, queries: int) -> Windows:
        """Return the windows of a forward; ValueError for one that is outside its queries."""
        if self.windows is None:
            return [(0, queries)]

        for first, last in self.windows:
            if not 0 <= first <= last <= queries:
                raise ValueError(
                    f"windows={in_short(self.windows)} do not fit a forward of {queries} queries: each is "
                    f"(first, last) with 0 <= first <= last <= {queries}"
                )

        return self.windows

    def _counted(self, attention_map: _AttentionMap) -> torch.Tensor | None:
        """Return which queries count, on the device of a layer; ValueError where they are others."""
        if self.counted_BQ is None:
            return None

        batch, _, queries, _ = attention_map.query_BHQE.shape
        if self.counted_BQ.shape != (batch, queries):
            raise ValueError(
                f"counted has shape {tuple(self.counted_BQ.shape)}, and the forward has {batch} rows of "
                f"{queries} queries: give one bool for each"
            )

        return self.counted_BQ.to(attention_map.query_BHQE.device)

    def take(self) -> torch.Tensor:
        """Return the mass of the last forward, float32 (B, L, H, S, K), and forget it.

        Raises RuntimeError when no forward ran.
        """
        if not self.layers:
            raise RuntimeError("no forward ran since the last `take()`")

        in_order = [self.layers[layer] for layer in sorted(self.layers)]
        self.layers = {}
        self.seen = {}

        device = in_order[0].device  # a model may be spread over several
        return torch.stack([mass_BHSK.to(device) for mass_BHSK in in_order], dim=1)


def even_share(queries: int, windows: Windows | None = None, causal: bool = False) -> torch.Tensor:
    """Return the mass every key would get from evenly spread attention, float32 (S, K) with K = `queries`.

    A bidirectional query gives each key 1/K, a causal query at position q gives 1/(q+1) to each key up to
    itself; keys that no query of a window can see get 0. Even attention gives a mass of 1 such share.
    """
    windows = windows or [(0, queries)]
    if not causal:
        return torch.tensor([[(last - first) / queries] * queries for first, last in windows])

    # What the queries [first, last) give a key is a difference of two harmonic numbers.
    harmonic = torch.zeros(queries + 1, dtype=torch.float64)
    harmonic[1:] = (1 / torch.arange(1, queries + 1, dtype=torch.float64)).cumsum(0)
    position_K = torch.arange(queries)

    shares = []
    for first, last in windows:
        begin_K = position_K.clamp_min(first)  # the first query of the window that sees a key
        share_K = harmonic[last] - harmonic[begin_K]
        shares.append(share_K.masked_fill(position_K >= last, 0))

    return torch.stack(shares).float()


def _mask_without(
    hidden_keys_BK: torch.Tensor,
    query_BHQE: torch.Tensor,
    key_BGKE: torch.Tensor,
    mask_B1QK: torch.Tensor | None,
    causal: bool,
) -> torch.Tensor:
    """Return the attention mask (B, 1, Q, K) that hides keys from every query but their own."""
    _check_hidden(hidden_keys_BK)
    batch, _, queries, _ = query_BHQE.shape

    keys = key_BGKE.shape[2]
    if queries != keys:
        raise ValueError(
            f"{queries} queries and {keys} keys: keys can be hidden in full forwards only, without a cache"
        )

    if hidden_keys_BK.shape not in ((batch, keys), (1, keys)):
        raise ValueError(
            f"hidden keys have shape {tuple(hidden_keys_BK.shape)}; expected ({batch}, {keys}), "
            f"or (1, {keys}) for all rows alike"
        )

    own_QK = torch.eye(keys, dtype=torch.bool, device=key_BGKE.device)
    visible_B11K = ~hidden_keys_BK.to(key_BGKE.device)[:, None, None, :]
    allowed_B1QK = (visible_B11K | own_QK).expand(batch, -1, -1, -1)
    if mask_B1QK is None and causal:
        return allowed_B1QK & torch.ones_like(own_QK).tril()
    if mask_B1QK is None:
        return allowed_B1QK
    if mask_B1QK.dtype == torch.bool:
        return mask_B1QK & allowed_B1QK

    return mask_B1QK.masked_fill(~allowed_B1QK, -torch.inf)


def _check_hidden(hidden_keys_BK: object) -> None:
    """Raise ValueError unless hidden keys are a bool tensor of two dimensions."""
    given = in_short(hidden_keys_BK)
    if isinstance(hidden_keys_BK, torch.Tensor) and is_plain(hidden_keys_BK):
        if hidden_keys_BK.dtype == torch.bool and hidden_keys_BK.dim() == 2:
            return
        given = f"{hidden_keys_BK.dtype} {tuple(hidden_keys_BK.shape)}"

    raise ValueError(
        f"hidden keys are {given}; expected a bool tensor of (batch, keys), "
        "or a function of the layer's index that returns one or None"
    )


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' SDPA does, but not to hidden keys, and measure the mass where a tracker asks.

    Shapes are those of SDPA: query (B, H, Q, E), key and value (B, G, K, E), mask (B, 1, Q, K) or None.
    Returns what `sdpa_attention_forward` returns; with a soft cap or learned sinks, which it has not, what
    transformers' eager attention gives.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal

    hidden_keys_BK: Any = module.__dict__.get(_HIDDEN)
    if callable(hidden_keys_BK):
        hidden_keys_BK = hidden_keys_BK(module.__dict__[_LAYER])
    if hidden_keys_BK is not None:
        attention_mask = _mask_without(hidden_keys_BK, query, key, attention_mask, causal)

    # a single query is the newest token of a cache, which sees every key
    is_one_query = query.shape[2] == 1
    without_mask = attention_mask is None
    width = query.shape[-1]

    attention_map = _AttentionMap(
        query,
        key,
        attention_mask,
        scaling=width**-0.5 if scaling is None else scaling,
        causal=causal and without_mask and not is_one_query,
        softcap=kwargs.get("softcap"),
        sink_H=kwargs.get("s_aux"),
    )

    for tracker in module.__dict__.get(_TRACKERS, ()):
        tracker.add(module.__dict__[_LAYER], attention_map)

    if attention_map.softcap is not None or attention_map.sink_H is not None:
        return attention_map.output(value), None

    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs
    )


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def _way_in(model: object) -> str:
    """Return where the model of transformers lies in something else, as words to end a sentence with."""
    if hasattr(model, "get_base_model"):  # of PEFT
        return ": give model.get_base_model()"
    if hasattr(model, "_orig_mod"):  # of torch.compile
        return ": give model._orig_mod"
    if isinstance(getattr(model, "model", None), PreTrainedModel):  # of a LanguageModel
        return ": give model.model"
    return ""


def _attention_modules(model: PreTrainedModel) -> dict[int, nn.Module]:
    """Return the attention module of every layer that has one, by the layer's number.

    Raises TypeError for what is no model of transformers, and ValueError, by name, for one whose attention
    cannot be switched or is not that of one stack of layers.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model={in_short(model)} must be a model of transformers (PreTrainedModel), whose attention is "
            f"reached through transformers' interface{_way_in(model)}"
        )

    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"{name} is an encoder with a decoder, whose three kinds of attention would be mixed up: give "
            "its encoder, or a model that has a decoder alone"
        )

    found = [
        (getattr(module, "layer_idx", layer), module)
        for layer, block in enumerate(blocks_of(model))
        for module in block.modules()
        if hasattr(module, "is_causal")
    ]
    if not found:
        raise ValueError(
            f"{name} has no attention that transformers' interface reaches (no part with `is_causal`): its "
            "attention cannot be followed"
        )

    modules = dict(found)
    if len(modules) < len(found):
        raise ValueError(
            f"{name} has several attention modules in a layer, which would be mixed up: only models with one "
            "in each layer can be followed"
        )

    return modules


def _implementation(module: nn.Module) -> str | None:
    """Return the attention function that a module or model calls, by name."""
    return cast(Any, module).config._attn_implementation


@contextmanager
def _switched(model: PreTrainedModel) -> Iterator[list[nn.Module]]:
    """Let all attention modules call `attention`, and yield them; the former one comes back at the end."""
    modules = _attention_modules(model)
    former = _implementation(model) or "eager"
    try:
        for layer, module in modules.items():
            module.__dict__[_LAYER] = layer

        model.set_attn_implementation(NAME)
        if any(_implementation(module) != NAME for module in modules.values()):
            raise ValueError(
                f"{type(model).__name__} does not take another attention function, so its attention "
                "cannot be followed"
            )

        yield list(modules.values())
    finally:
        model.set_attn_implementation(former)
        if former != NAME:  # or the block around this one goes on
            for module in modules.values():
                module.__dict__.pop(_LAYER, None)


@contextmanager
def track(
    model: PreTrainedModel,
    windows: Windows | None = None,
    chunk: int = 128,
    counted_BQ: torch.Tensor | None = None,
    several: bool = False,
) -> Iterator[Tracker]:
    """Track attention mass in every forward of `model` inside the block, to be read by `tracker.take()`.

    `windows` are half-open ranges of queries whose mass is kept apart (steps of a causal model); None is one
    window of all queries. `counted_BQ`, bool, says which queries of a forward count: without it those of
    padding do, too. With `several`, forwards that go on from a cache add up until `take()`; `counted_BQ`
    is about the first of them. Blocks may stand in one another.

    The former attention implementation comes back whatever happens inside. Raises ValueError for a `chunk` of
    no query, for no window at all, and, by name, for a model whose attention cannot be followed; TypeError
    for no model.
    """
    checked("chunk", chunk, Number)
    if windows is not None:
        checked("windows", windows, Annotated[Sequence[tuple[int, int]], WINDOWS])
    checked("counted_BQ", counted_BQ, Plain | None)
    if windows is not None and len(windows) == 0:
        raise ValueError("windows is empty: give at least one range of queries, or None for one of all")
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1 query")
    if several and windows is not None:
        raise ValueError("windows are those of one forward: they do not go with several=True")
    if counted_BQ is not None:
        counted_BQ = counted_BQ.bool()

    tracker = Tracker(windows, chunk, counted_BQ, several)
    with _switched(model) as modules:
        try:
            for module in modules:
                module.__dict__.setdefault(_TRACKERS, []).append(tracker)
            yield tracker
        finally:
            for module in modules:
                module.__dict__[_TRACKERS].remove(tracker)
                if not module.__dict__[_TRACKERS]:
                    del module.__dict__[_TRACKERS]


@contextmanager
def untracked(model: PreTrainedModel) -> Iterator[None]:
    """Let the trackers around this block miss the forwards inside it; those that begin in it see them."""
    trackers = {
        tracker
        for module in _attention_modules(model).values()
        for tracker in module.__dict__.get(_TRACKERS, ())
    }
    paused = [tracker for tracker in trackers if not tracker.is_paused]

    try:
        for tracker in paused:
            tracker.is_paused = True
        yield
    finally:
        for tracker in paused:
            tracker.is_paused = False


@contextmanager
def hide(model: PreTrainedModel, keys: HiddenKeys) -> Iterator[None]:
    """Hide keys from attention in every forward of `model` inside the block, in all heads.

    `keys` is bool (B, K), or (1, K) for all rows alike, True where a key is hidden; or a function of the
    layer's index that returns such a tensor, or None to hide nothing in that layer. A hidden key gets
    attention from its own query only, so that no query is left without a key; the softmax runs over the keys
    that a query still sees.

    Works inside and around `track`, which then measures what is left. Needs a mask of (B, 1, K, K) bool and
    full forwards (no cache). Raises ValueError for keys of another shape or dtype, before or in the first
    forward; RuntimeError inside another such block; and what `track` raises for a model. The former attention
    implementation comes back whatever happens inside.
    """
    if not callable(keys):
        _check_hidden(keys)

    with _switched(model) as modules:
        if any(_HIDDEN in module.__dict__ for module in modules):
            raise RuntimeError("keys are hidden already: a block of `hide` cannot stand in another")

        try:
            for module in modules:
                module.__dict__[_HIDDEN] = keys
            yield
        finally:
            for module in modules:
                module.__dict__.pop(_HIDDEN, None)


@torch.no_grad()
def attention_mass(
    model: PreTrainedModel, inputs: torch.Tensor | Mapping[str, torch.Tensor], new_tokens: int = 0
) -> torch.Tensor:
    """Return the attention mass that keys receive in every layer of attention, float32 (B, L, K).

    `inputs` are token ids, int64 (B, T), or what a tokenizer of transformers returns: `input_ids`, and an
    `attention_mask` (B, T), by which padding gives and receives nothing. A key's mass is the sum over
    queries of the attention that each gives it, in the mean over heads; over all keys it adds up to the
    number of queries.

    With `new_tokens` the model goes on greedily by as many tokens, with its cache, and their queries count,
    too; the last token has no query, so K is T + new_tokens - 1. Raises TypeError for what is no model of
    transformers, and ValueError, by name, for one whose attention cannot be followed.
    """
    checked("new_tokens", new_tokens, Number)
    if isinstance(inputs, torch.Tensor):
        inputs = {"input_ids": inputs}
    if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
        raise TypeError(
            f"inputs={in_short(inputs)} must be token ids, int64 (B, T), or what a tokenizer returns"
        )

    ids_BT = cast(torch.Tensor, checked("inputs", inputs["input_ids"], TokenIds))
    config = getattr(model, "config", None)
    vocabulary = getattr(config, "vocab_size", None) or math.inf
    if not ids_BT.numel():
        raise ValueError(f"inputs have shape {tuple(ids_BT.shape)}: give at least one row of one token")
    if not 0 <= int(ids_BT.min()) <= int(ids_BT.max()) < vocabulary:
        raise ValueError(f"inputs hold ids outside the vocabulary, 0 … {vocabulary - 1}")

    most = (positions_of(model) if isinstance(model, PreTrainedModel) else None) or math.inf
    if ids_BT.shape[1] + new_tokens > most:
        raise ValueError(
            f"{ids_BT.shape[1]} tokens and new_tokens={new_tokens} exceed the {most} positions of the model"
        )

    counted_BQ = inputs.get("attention_mask")
    if counted_BQ is not None and counted_BQ.shape != ids_BT.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(counted_BQ.shape)}, and input_ids have {tuple(ids_BT.shape)}: "
            "give one number for each token"
        )

    with track(model, counted_BQ=counted_BQ, several=new_tokens > 0) as tracker:
        check_mode(model, type(model).__name__)
        there = _on_device_of(model, inputs)

        if new_tokens > 0:
            length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
            greedy = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "use_cache": True}
            there.setdefault("attention_mask", torch.ones_like(there["input_ids"]))
            cast(Any, model).generate(**there, **length, **greedy)
        else:
            if "position_ids" not in there:
                there |= padded_positions(model, there.get("attention_mask"))
            model(**there, use_cache=False)
        return tracker.take().mean(2)[:, :, 0]


def _on_device_of(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the inputs that are there, on the model's device; hooks move those of a model on none."""
    given = {name: value for name, value in inputs.items() if value is not None}
    if model.device.type == "meta":
        return given
    return {name: value.to(model.device) for name, value in given.items()}

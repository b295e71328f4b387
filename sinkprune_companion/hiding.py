"""A language model without its sinks: which keys to hide, and the model that hides them in every forward.

What a model scores or writes without its sinks comes out of the same functions as ever: `nelbo`, `nll`,
`generate` and `decode` take a `HidingModel` like any other, on the same noise and random numbers.

Dimensions: B batch, L layers, K key position (= sequence position T), D hidden width, V vocabulary.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast, get_args

import torch
from transformers import Cache

from sinkprune_core.diffusion.noise import random_mask
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.sinks import attention, detection
from sinkprune_core.values import Flag, Number, check_fields

Choice = Literal["top", "random", "first"]  # of keys
Third = Literal["early", "middle", "late"]  # of the layers
ALL = "all"
THIRDS: tuple[Third, ...] = get_args(Third)


@dataclass(frozen=True)
class Hiding:
    """Which keys of a sequence are hidden. Raises ValueError for a choice that cannot be."""

    keys: Choice = "top"
    """How keys are chosen.

    `top`: those that receive most attention, averaged over layers and heads. `random`: as many that are
    neither among those nor sinks, and as many of them masks as among those where there are enough. `first`:
    position 0 alone.
    """

    count: Number = 5  # how many keys are hidden; 0 hides none, whatever `keys` says
    first: Flag = True  # whether position 0 may be hidden
    layers: Literal["all", Third] = ALL  # where they are hidden: in all layers, or in one of THIRDS alone

    def __post_init__(self):
        check_fields(self)

        if self.keys == "first" and (self.count > 1 or not self.first):
            raise ValueError(
                f"keys='first' hides position 0 alone: count={self.count} must be 1 (or 0) "
                f"and first={self.first} must be True"
            )

    def hides_in(self, layer: int, layers: int) -> bool:
        """Return whether keys are hidden in a layer, counted from 0, of so many."""
        if self.layers == ALL:
            return True

        third = len(THIRDS) * layer // layers
        return self.layers == THIRDS[third]

    def choose(self, mass_BK, visible_BK, masked_BK, rngs: list[torch.Generator]) -> torch.Tensor:
        """Return the keys to hide, bool (B, K), by the attention they received; one generator per row.

        `visible_BK` says which keys may be chosen, `masked_BK` which of them are masks. Raises ValueError
        when a row has too few visible keys.
        """
        position_K = torch.arange(mass_BK.shape[1])
        if self.keys == "first":
            return (position_K < self.count).expand_as(visible_BK)
        if not self.first:
            visible_BK = visible_BK & (position_K > 0)

        top_BK = detection.top_keys(mass_BK, self.count, visible_BK)
        if self.keys == "top":
            return top_BK

        free_BK = visible_BK & ~top_BK & ~detection.sink_sets(mass_BK, visible_BK)
        fewest = int(free_BK.sum(1).min())
        if fewest < self.count:
            raise ValueError(
                f"count={self.count} random keys beside as many sinks do not fit a row where {fewest} keys "
                "are left: hide fewer or give longer sequences"
            )

        wanted_masks_B = (top_BK & masked_BK).sum(1).tolist()
        rows = zip(free_BK, masked_BK, wanted_masks_B, rngs, strict=True)
        return torch.stack([self._draw(*row) for row in rows])

    def _draw(
        self, free_K: torch.Tensor, masked_K: torch.Tensor, wanted_masks: int, rng: torch.Generator
    ) -> torch.Tensor:
        """Return `count` random free keys of one row, bool (K,), `wanted_masks` of them masks if possible."""
        free_masks = int((free_K & masked_K).sum())
        free_tokens = int((free_K & ~masked_K).sum())

        # masks make up for tokens that are not there, and the other way round
        least_masks = self.count - free_tokens
        masks = min(max(wanted_masks, least_masks), free_masks)
        tokens = self.count - masks

        chosen_masks_K = random_mask(free_K & masked_K, masks, rng)
        chosen_tokens_K = random_mask(free_K & ~masked_K, tokens, rng)
        return chosen_masks_K | chosen_tokens_K


@dataclass(eq=False)
class MeasuredAttention:
    """The attention that every key received with all keys, by the tokens of a row.

    It is forgotten when the weights have changed since, as pruning changes them.
    """

    mass_LK: dict[bytes, torch.Tensor] = field(default_factory=dict)
    weights: tuple | None = None  # sums of those that it was measured with

    def of(self, model: torch.nn.Module) -> dict[bytes, torch.Tensor]:
        """Return what was measured with the weights that the model has now, by the bytes of a row, (L, K)."""
        now = _sums_of_weights(model)
        if self.weights != now:
            self.mass_LK.clear()
            self.weights = now
        return self.mass_LK


@dataclass(frozen=True, eq=False)
class HidingModel(LanguageModel):
    """A model whose every forward hides keys, in all heads of the layers that `hiding` names, from every
    query but their own.

    A first forward over the same state measures attention, over all layers, and decides which keys; a second
    one runs without them. A diffusion model may lose any key, masks included. In a causal model only the
    later half of the queries decides, and only keys that all of these can see may be hidden, so that no key
    passes for a sink because few queries see it; the choice then depends on the whole text, so the value is
    that of an intervention and no likelihood.
    """

    hiding: Hiding = Hiding()  # which keys are hidden
    seed: int = 0  # of random keys, which depend on it and the tokens of the row alone

    measured: MeasuredAttention = field(default_factory=MeasuredAttention, repr=False)
    """Attention that keys received with all keys; variants of one model share it."""

    log: list[dict[str, float]] = field(default_factory=list, repr=False)
    """Per row of every forward, what was hidden.

    `attention`: the share of attention that the hidden keys had in the layers that hide; `first`: whether
    position 0 was hidden; `masks`: how many hidden keys were masks; `left`: the share that the strongest key
    gets of what is left in these layers; `second`: whether that is position 1.
    """

    def __post_init__(self):
        pass  # what it is made from, a LanguageModel, was checked

    def hidden(
        self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None, training: bool = False
    ) -> torch.Tensor:
        """Return the last hidden states without the hidden keys, (B, T, D).

        Raises ValueError for padded rows, and for `training`: the keys are chosen by a forward without
        dropout.
        """
        if training:
            raise ValueError(
                "training=True: a model whose keys are hidden is not trained; train the model itself"
            )
        if attention_mask_BT is not None:
            raise ValueError(
                "attention_mask is given: keys are hidden in rows without padding only, "
                "so give rows of equal length"
            )

        if self.hiding.count == 0:
            return self._hidden_dense(ids_BT)

        hidden_keys_BK = self.keys_to_hide(ids_BT)
        layers = len(self.blocks)

        def hidden_in(layer: int) -> torch.Tensor | None:
            if self.hiding.hides_in(layer, layers):
                return hidden_keys_BK
            return None

        with attention.hide(self.model, hidden_in):
            hidden_BTD, left_BLK = self._measure(ids_BT)

        for row_K, keys_K, left_LK in zip(ids_BT.cpu(), hidden_keys_BK, left_BLK, strict=True):
            self._note(row_K, keys_K, left_LK)

        return hidden_BTD

    def _hidden_dense(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states with every key, (B, T, D), and remember the attention each got."""
        measured = self.measured.of(self.model)
        hidden_BTD, mass_BLK = self._measure(ids_BT)
        for row_K, mass_LK in zip(ids_BT, mass_BLK, strict=True):
            measured[_bytes(row_K)] = mass_LK
        return hidden_BTD

    def keys_to_hide(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return the keys to hide in a state, bool (B, K), on the CPU."""
        ids_BT = ids_BT.cpu()
        measured = self.measured.of(self.model)
        if any(_bytes(row_K) not in measured for row_K in ids_BT):
            with attention.untracked(self.model):  # who tracks this model means the forward without the keys
                self._hidden_dense(ids_BT)

        mass_BK = torch.stack([measured[_bytes(row_K)].mean(0) for row_K in ids_BT])
        visible_BK = torch.ones_like(ids_BT, dtype=torch.bool)
        if not self.is_diffusion:
            visible_BK[:, self._first_query(ids_BT.shape[1]) + 1 :] = False

        rngs = [generator(self.seed, "hidden keys", row_K.tolist()) for row_K in ids_BT]
        return self.hiding.choose(mass_BK, visible_BK, self._masked(ids_BT), rngs)

    def next_logits(self, fresh_BT: torch.Tensor, cache: Cache, **padding: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next token, float32 (B, V), by a full forward over all tokens so far.

        The cache remembers tokens only. Raises ValueError for padded rows.
        """
        if self.hiding.count == 0:
            return super().next_logits(fresh_BT, cache, **padding)

        earlier_BT = getattr(cache, "fed_BT", fresh_BT[:, :0])
        fed_BT = torch.cat([earlier_BT, fresh_BT], dim=1)
        cast(Any, cache).fed_BT = fed_BT
        hidden_BTD = self.hidden(fed_BT, padding.get("attention_mask"))

        return self.head(hidden_BTD[:, -1].contiguous())

    def _measure(self, ids_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return last hidden states, and the mass of every key in every layer, mean over heads, (B, L, K)."""
        length = ids_BT.shape[1]
        with attention.track(self.model, [(self._first_query(length), length)]) as tracker:
            hidden_BTD = super().hidden(ids_BT)
            return hidden_BTD, tracker.take().mean(2)[:, :, 0].cpu()

    def _first_query(self, length: int) -> int:
        """Return the first of the queries whose attention decides."""
        return 0 if self.is_diffusion else length // 2

    def _masked(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return which tokens are masks, bool; a causal model has none."""
        if self.is_diffusion:
            return ids_BT == self.mask_token_id
        return torch.zeros_like(ids_BT, dtype=torch.bool)

    def _note(self, row_K: torch.Tensor, keys_K: torch.Tensor, left_LK: torch.Tensor) -> None:
        """Log one row: its tokens, its hidden keys, and the mass that is left to every key without them."""
        hiding = [layer for layer in range(len(left_LK)) if self.hiding.hides_in(layer, len(left_LK))]
        mass_K = self.measured.mass_LK[_bytes(row_K)][hiding].mean(0)
        left_K = left_LK[hiding].mean(0)
        strongest = int(left_K.argmax())

        self.log.append(
            {
                "attention": float(mass_K[keys_K].sum() / mass_K.sum()),
                "first": float(keys_K[0]),
                "masks": float((keys_K & self._masked(row_K)).sum()),
                "left": float(left_K[strongest] / left_K.sum()),
                "second": float(strongest == 1),
            }
        )


def hiding_model(
    lm: LanguageModel, hiding: Hiding, seed: int = 0, measured: MeasuredAttention | None = None
) -> HidingModel:
    """Return `lm`, the same weights, without the keys of `hiding`.

    Variants given one `measured` measure each state once. Raises ValueError where no layer could hide keys.
    """
    if not lm.has_blocks_in_memory:
        raise ValueError(f"the blocks of {lm.name} are not in memory, so no keys can be hidden: use `load`")
    if not any(hiding.hides_in(layer, len(lm.blocks)) for layer in range(len(lm.blocks))):
        raise ValueError(f"layers={hiding.layers!r} has none of the {len(lm.blocks)} layers of {lm.name}")

    parts = {part.name: getattr(lm, part.name) for part in fields(LanguageModel)}
    return HidingModel(**parts, hiding=hiding, seed=seed, measured=measured or MeasuredAttention())


def _sums_of_weights(model: torch.nn.Module) -> tuple:
    """Return what changes when a parameter is written to or replaced.

    torch counts writes, but those through `.data`; so the bits of all numbers are summed, too.
    """
    found = []
    with torch.inference_mode(False):  # within it no other view of a weight can be made
        for weight in model.parameters():
            bits = weight.detach().view(getattr(torch, f"int{8 * weight.itemsize}"))
            found.append((weight.data_ptr(), weight._version, bits.sum()))

    return tuple((place, writes, int(total)) for place, writes, total in found)


def _bytes(row_K: torch.Tensor) -> bytes:
    """Return the tokens of a row as a key of a dictionary."""
    return row_K.cpu().numpy().tobytes()

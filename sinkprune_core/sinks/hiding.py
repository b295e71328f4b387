"""A language model that cannot look at its sinks: which keys are hidden, and the model that hides them in every forward.

What a model scores or writes without its sinks comes out of the same functions as ever: `nelbo`, `nll`, `generate` and
`decode` take a `HidingModel` like any other, and so their noise and their random numbers are the same.

Dimensions: B batch, K key position (= sequence position T), V vocabulary.
"""

from dataclasses import dataclass, field, fields

import torch

from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.sinks import attention, detection

KEYS = ("top", "random", "first")


@dataclass(frozen=True)
class Hiding:
    """Which keys of a sequence are hidden: `count` of them; 0 hides none, whatever `keys` says.

    `top`: those that receive most attention, averaged over layers and heads. `random`: as many that are neither among
    those nor sinks, and as many of them masks as among those where there are enough. `first`: position 0 alone.
    `first` = False keeps position 0 in sight of everyone: it is not among the keys to choose from.
    """

    keys: str = "top"
    count: int = 5
    first: bool = True

    def __post_init__(self):
        if self.keys not in KEYS:
            raise ValueError(f"keys={self.keys!r} is unknown; choose one of {', '.join(KEYS)}")
        if self.count < 0:
            raise ValueError(f"count={self.count} must not be negative: it is the number of keys to hide")
        if self.keys == "first" and (self.count > 1 or not self.first):
            raise ValueError(
                f"keys='first' hides position 0 alone: count={self.count} must be 1 (or 0) and first={self.first} must be True"
            )

    @property
    def label(self) -> str:
        if self.count == 0:
            return "none"
        return {"top": "strongest", "random": "random", "first": "first token"}[self.keys] + (
            "" if self.first else ", first token kept"
        )

    def choose(
        self,
        mass_BK: torch.Tensor,
        visible_BK: torch.Tensor,
        masked_BK: torch.Tensor,
        rngs: list[torch.Generator],
    ) -> torch.Tensor:
        """Return the hidden keys, bool (B, K), by the attention they received; one generator per row.

        Raises ValueError when a row has too few visible keys.
        """
        if self.keys == "first":
            return (torch.arange(mass_BK.shape[1]) < self.count).expand_as(visible_BK)
        visible_BK = visible_BK & (torch.arange(mass_BK.shape[1]) >= (not self.first))
        top_BK = detection.top_keys(mass_BK, self.count, visible_BK)
        if self.keys == "top":
            return top_BK
        taken_BK = top_BK | detection.sink_sets(mass_BK, visible_BK)
        free_BK, masks_B = visible_BK & ~taken_BK, (top_BK & masked_BK).sum(1).tolist()
        if (fewest := int(free_BK.sum(1).min())) < self.count:
            raise ValueError(
                f"count={self.count} random keys beside as many sinks do not fit a row where {fewest} keys are left: hide fewer or give longer sequences"
            )
        rows = []
        for free_K, masked_K, masks, rng in zip(free_BK, masked_BK, masks_B, rngs, strict=True):
            masks = min(
                max(masks, self.count - int((free_K & ~masked_K).sum())), int((free_K & masked_K).sum())
            )
            rows.append(
                detection.random_keys(~free_K, masks, rng, masked_K)
                | detection.random_keys(~free_K, self.count - masks, rng, ~masked_K)
            )
        return torch.stack(rows)


@dataclass(frozen=True)
class HidingModel(LanguageModel):
    """A model whose every forward hides keys, in all layers and heads, from every query but their own.

    A first forward over the same state measures attention and decides which keys; a second one runs without them. A
    diffusion model may lose any key, masks included. In a causal model only the later half of the queries is asked, and
    only keys that all of these can see may be hidden, so that no key passes for a sink because few queries see it; the
    choice has then seen the whole text, so the value is that of an intervention and no likelihood. Random keys depend
    on (seed, tokens of the row) alone. `seen` remembers the attention of every state, for variants of one model to
    share. `log` collects, per row of every forward, the share of `attention` that was hidden, whether the `first` token
    was, how many `masks` were, the share that the strongest key gets of what is `left`, and whether that is the `second` token.
    """

    hiding: Hiding = Hiding()
    seed: int = 0
    seen: dict[bytes, torch.Tensor] = field(default_factory=dict, repr=False)
    log: list[dict[str, float]] = field(default_factory=list, repr=False)

    def hidden(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return the last hidden states without the hidden keys, (B, T, D). Raises ValueError for padded rows."""
        if attention_mask_BT is not None:
            raise ValueError(
                "attention_mask is given: keys are hidden in rows without padding only, so give rows of equal length"
            )
        if self.hiding.count == 0:
            return self.look(ids_BT)
        hidden_BK = self.keys(ids_BT)
        with attention.hide(self.model, hidden_BK):
            hidden_BTD, left_BK = self._measured(ids_BT)
        for row_T, keys_K, left_K in zip(ids_BT.cpu(), hidden_BK, left_BK, strict=True):
            mass_K, heir = self.seen[_key(row_T)], int(left_K.argmax())
            self.log.append(
                {
                    "attention": float(mass_K[keys_K].sum() / mass_K.sum()),
                    "first": float(keys_K[0]),
                    "masks": float((keys_K & self._masked(row_T)).sum()),
                    "left": float(left_K[heir] / left_K.sum()),
                    "second": float(heir == 1),
                }
            )
        return hidden_BTD

    def look(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states of the untouched model, (B, T, D), and remember the attention every key received."""
        hidden_BTD, mass_BK = self._measured(ids_BT)
        self.seen.update(zip(map(_key, ids_BT), mass_BK, strict=True))
        return hidden_BTD

    def _measured(self, ids_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last hidden states of a forward and the mass that the asked queries gave to every key, mean over layers and heads, (B, K)."""
        length = ids_BT.shape[1]
        with attention.track(self.model, [(self.asked(length), length)]) as tracker:
            hidden_BTD = super().hidden(ids_BT)
            return hidden_BTD, tracker.take().mean((1, 2))[:, 0].cpu()

    def _masked(self, ids_BT: torch.Tensor) -> torch.Tensor:
        return (
            ids_BT == self.mask_token_id if self.is_diffusion else torch.zeros_like(ids_BT, dtype=torch.bool)
        )

    def asked(self, length: int) -> int:
        """Return the first of the queries whose attention decides."""
        return 0 if self.is_diffusion else length // 2

    def keys(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return the keys to hide in a state, bool (B, K), on the CPU."""
        ids_BT, length = ids_BT.cpu(), ids_BT.shape[1]
        if not all(_key(row_T) in self.seen for row_T in ids_BT):
            self.look(ids_BT)
        mass_BK = torch.stack([self.seen[_key(row_T)] for row_T in ids_BT])
        visible_BK = (
            torch.arange(length) <= (length if self.is_diffusion else self.asked(length))
        ).expand_as(mass_BK)
        return self.hiding.choose(
            mass_BK,
            visible_BK,
            self._masked(ids_BT),
            [generator(self.seed, "hidden keys", row_T.tolist()) for row_T in ids_BT],
        )

    def next_logits(self, fresh_BT: torch.Tensor, cache, **padding: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next token, float32 (B, V), by a full forward over all that was fed: the cache remembers tokens only."""
        if self.hiding.count == 0:
            return super().next_logits(fresh_BT, cache, **padding)  # with the cache at work, as fast as ever
        cache.fed_BT = torch.cat([cache.fed_BT, fresh_BT], dim=1) if hasattr(cache, "fed_BT") else fresh_BT
        return self.head(self.hidden(cache.fed_BT, padding.get("attention_mask"))[:, -1].contiguous())


def hiding_model(
    lm: LanguageModel, hiding: Hiding, seed: int = 0, seen: dict[bytes, torch.Tensor] | None = None
) -> HidingModel:
    """Return `lm`, the same weights, without the keys of `hiding`; variants that are given one `seen` look at each state once."""
    return HidingModel(
        **{part.name: getattr(lm, part.name) for part in fields(LanguageModel)},
        hiding=hiding,
        seed=seed,
        seen={} if seen is None else seen,
    )


def _key(row_T: torch.Tensor) -> bytes:
    return row_T.cpu().numpy().tobytes()

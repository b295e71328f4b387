"""Calibration text and the states in which a model sees it, clean or noised.

Dimensions: N clean sequences, S states of a trajectory (noise levels), T position.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from sinkprune_core.diffusion.noise import corrupt, random_mask, stratified_counts
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, Plain, TokenIds, Whole, check_fields

OFFICIAL_EPSILON = 1e-3  # the official code masks with probability (1 - epsilon) t + epsilon


@dataclass(frozen=True, eq=False)
class Calibration:
    """Clean calibration text, and how it is used; raises ValueError for text that cannot calibrate."""

    ids_NT: TokenIds  # int64 (N, T), N >= 1 and T >= 2
    seed: Whole = 0  # of all that is random in its use: noise, and random choices of tokens
    batch: Count = 16  # sequences per forward; changes no result but for rounding in Gram matrices
    present_NT: Plain | None = None
    """Which ids are text and not padding, bool (N, T), as an `attention_mask` says; None: all. Text moves to
    the beginning of its row, so that its positions are those that it has alone."""

    def __post_init__(self):
        check_fields(self)
        if len(self.ids_NT) < 1 or self.ids_NT.shape[1] < 2:
            raise ValueError(
                f"calibration ids have shape {tuple(self.ids_NT.shape)}: "
                "give at least one sequence of at least 2 tokens"
            )
        if self.present_NT is None:
            object.__setattr__(self, "ids_NT", self.ids_NT.clone())  # the caller's may change
        else:
            self._take_out_padding(self.present_NT)

    def _take_out_padding(self, present_NT: torch.Tensor) -> None:
        """Move text to the beginning of every row; rows without padding need not say what is present."""
        if present_NT.shape != self.ids_NT.shape:
            raise ValueError(
                f"present_NT has shape {tuple(present_NT.shape)}, and the ids have "
                f"{tuple(self.ids_NT.shape)}: give a bool for every id"
            )

        present_NT = present_NT.cpu().bool()
        lengths_N = present_NT.sum(1)
        shortest = int(lengths_N.min())
        longest = int(lengths_N.max())
        if shortest < 2:
            row = int(lengths_N.argmin())
            raise ValueError(
                f"calibration sequence {row} has {shortest} tokens that are not padding: "
                "give sequences of at least 2"
            )

        ids_NT = torch.zeros(len(lengths_N), longest, dtype=torch.long)
        for row, (ids_T, present_T) in enumerate(zip(self.ids_NT, present_NT, strict=True)):
            ids_NT[row, : lengths_N[row]] = ids_T[present_T]

        moved_NT = torch.arange(longest) < lengths_N[:, None]
        object.__setattr__(self, "ids_NT", ids_NT)
        object.__setattr__(self, "present_NT", None if shortest == longest else moved_NT)

    @property
    def lengths(self) -> list[int]:
        """How many tokens every sequence has, without padding."""
        if self.present_NT is None:
            return [self.ids_NT.shape[1]] * len(self.ids_NT)
        return self.present_NT.sum(1).tolist()

    def present_in(self, rows: int) -> torch.Tensor | None:
        """Return which ids are text in the `rows` that all states of the sequences make, bool (R, T)."""
        if self.present_NT is None:
            return None
        return self.present_NT.repeat_interleave(rows // len(self.ids_NT), dim=0)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 prefix over text, padding and seed."""
        digest = hashlib.sha256(self.ids_NT.contiguous().numpy().tobytes())
        digest.update(repr((self.ids_NT.shape, self.seed)).encode())
        if self.present_NT is not None:
            digest.update(self.present_NT.numpy().tobytes())
        return digest.hexdigest()[:16]


# rules of noise: from a sequence to which of its tokens are masked in every state, bool (S, T)


def noise_counts(noise_levels: int, maskable: int) -> list[int]:
    """Return the numbers of masks of an even grid of noise levels, from the most noised to the least, none 0.

    These are the midpoints of `noise_levels` equal strata. The official grid ends at t = 1, where every token
    is a mask and the input has no content; midpoints leave that level out and reach closer to clean text.
    """
    levels = range(noise_levels)
    return [max(1, round(maskable * (noise_levels - level - 0.5) / noise_levels)) for level in levels]


def grid(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """The same noise levels for every sequence, evenly spaced."""
    return _nested_masks(ids_T, noise_counts(noise_levels, len(ids_T) - 1), seed, sequence)


def stratified(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """Numbers of masks uniform on 1 … T - 1, one per stratum, drawn anew for every sequence."""
    counts_S = stratified_counts(noise_levels, len(ids_T) - 1, generator(seed, "noise_levels", sequence))
    return _nested_masks(ids_T, counts_S.sort(descending=True).values.tolist(), seed, sequence)


def _nested_masks(ids_T: torch.Tensor, counts: list[int], seed: int, sequence: int) -> torch.Tensor:
    """Masks that only ever disappear, as in a denoising run; position 0 is never masked."""
    maskable_T = torch.arange(len(ids_T)) > 0
    masks = [random_mask(maskable_T, count, generator(seed, "noise", sequence)) for count in counts]
    return torch.stack(masks)


def official(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """The official code's grid for LLaDA: t = 1/S … 1, where all are masks; positions are independent."""
    levels_S1 = torch.arange(1, noise_levels + 1, dtype=torch.float32)[:, None]
    rate_S1 = (1 - OFFICIAL_EPSILON) * levels_S1 / noise_levels + OFFICIAL_EPSILON
    rng = generator(seed, "noise", sequence)
    return torch.rand(noise_levels, len(ids_T), generator=rng, dtype=torch.float32) < rate_S1


def official_below_1(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """The official grid of one state more, without its last one, in which all are masks; the same masks."""
    return official(ids_T, noise_levels + 1, seed, sequence)[:-1]


def half_clean(
    ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int, half: int | None = None
) -> torch.Tensor:
    """Half of the states, the last ones, without a mask, the others as `stratified`; an odd one is noised.

    With a `half`, the others are from the upper (0) or lower (1) half of noise levels.
    """
    clean = noise_levels // 2
    noised = noise_levels - clean

    if half is None:
        noised_ST = stratified(ids_T, noised, seed, sequence)
    else:
        both_halves_ST = stratified(ids_T, 2 * noised, seed, sequence)
        noised_ST = both_halves_ST.split(noised)[half]

    clean_ST = torch.zeros(clean, len(ids_T), dtype=torch.bool)
    return torch.cat([noised_ST, clean_ST])


def dream(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """The official code's rule for Dream: t is uniform in every state, first and last position stay."""
    rng = generator(seed, "noise", sequence)
    time_S1 = torch.rand(noise_levels, 1, generator=rng, dtype=torch.float32)
    rate_S1 = (1 - OFFICIAL_EPSILON) * time_S1 + OFFICIAL_EPSILON
    masked_ST = torch.rand(noise_levels, len(ids_T), generator=rng, dtype=torch.float32) < rate_S1
    masked_ST[:, [0, -1]] = False
    return masked_ST


NOISE: dict[str, Callable] = {
    "grid": grid,
    "stratified": stratified,
    "official": official,
    "official-below-1": official_below_1,
    "half-clean": half_clean,
    "half-clean-high": partial(half_clean, half=0),
    "half-clean-low": partial(half_clean, half=1),
    "dream": dream,
}


def trajectory(
    lm: LanguageModel, calibration: Calibration, noise_levels: int, noise: str = "grid"
) -> torch.Tensor:
    """Return every sequence in every state, int64 (N, S, T), by a rule of NOISE.

    Noise depends on (seed, sequence) alone.
    """
    states_NST = calibration.ids_NT[:, None].repeat(1, noise_levels, 1)
    for sequence, length in enumerate(calibration.lengths):
        ids_T = calibration.ids_NT[sequence, :length]
        masked_ST = NOISE[noise](ids_T, noise_levels, calibration.seed, sequence)
        states_NST[sequence, :, :length] = corrupt(ids_T.expand(noise_levels, -1), masked_ST, lm.mask)

    return states_NST

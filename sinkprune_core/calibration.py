"""What a pruning criterion sees: token sequences x noise levels x a weight per token.

Sink-awareness is a weight on calibration tokens. Every control of the method is a choice of these weights.

Dimensions: N clean sequences, S noise levels (or query windows of a causal model), R = N * S rows, B batch, T position.
"""

import hashlib
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from . import attention, sinks
from .diffusion import corrupt, random_mask
from .models import LanguageModel
from .seeds import generator
from .traces import query_windows, visible

TOKENS = ("none", "all", "unstable", "stable", "random", "only")
INPUTS = ("clean", "noised")
Masks = tuple[torch.Tensor, torch.Tensor]  # sinks (N, S, T) and visible keys (S, T)


@dataclass(frozen=True)
class Calibration:
    """Clean calibration sequences, int64 (N, T), and the seed of everything random that is done with them."""

    ids_NT: torch.Tensor
    seed: int = 0
    batch: int = 16

    def __post_init__(self):
        if self.ids_NT.dim() != 2 or self.ids_NT.numel() == 0:
            raise ValueError(f"calibration ids have shape {tuple(self.ids_NT.shape)}; expected (sequences, tokens), at least one of each: give calibration text")
        if self.ids_NT.shape[1] < 2:
            raise ValueError("calibration sequences need at least 2 tokens")
        if self.batch < 1:
            raise ValueError(f"batch={self.batch} must be at least 1")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.ids_NT.contiguous().numpy().tobytes() + repr((self.ids_NT.shape, self.seed)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Rows:
    """What goes through the model: `ids_RT` int64 and `weight_RT` float32 (None: every token counts as 1)."""

    ids_RT: torch.Tensor
    weight_RT: torch.Tensor | None

    @property
    def tokens(self) -> int:
        return self.ids_RT.numel()

    @property
    def left_out_share(self) -> float:
        """The share of tokens whose weight is below 1."""
        return 0.0 if self.weight_RT is None else float((self.weight_RT < 1).float().mean())


def noise_counts(levels: int, maskable: int) -> list[int]:
    """Return the numbers of masks of an even grid of noise levels, from the most noised to the least, none of them 0.

    Midpoints of `levels` equal strata. The official grid ends at t = 1, where every token is a mask and the input has
    no content; midpoints leave that level out and reach closer to clean text.
    """
    return [max(1, round(maskable * (levels - level - 0.5) / levels)) for level in range(levels)]


def noised_trajectory(lm: LanguageModel, calibration: Calibration, levels: int) -> torch.Tensor:
    """Return every sequence at every noise level, int64 (N, S, T); masks are nested, as they are along a denoising run.

    The order in which a sequence is masked depends on (seed, sequence) alone. Position 0 is never masked.
    """
    count, length = calibration.ids_NT.shape
    maskable_T = torch.arange(length) > 0
    masks = noise_counts(levels, length - 1)
    trajectory = []
    for sequence in range(count):
        where_ST = torch.stack([random_mask(maskable_T, number, generator(calibration.seed, "noise", sequence)) for number in masks])
        trajectory.append(corrupt(calibration.ids_NT[sequence].expand(levels, -1), where_ST, lm.mask_token_id))
    return torch.stack(trajectory)


@torch.inference_mode()
def sink_profiles(lm: LanguageModel, calibration: Calibration, levels: int, progress: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention mass in even shares of every calibration sequence along its trajectory, (N, S, T), and which keys are visible, (S, T).

    A diffusion model's trajectory are its noise levels; a causal model has one forward, whose queries after the first
    stretch are cut into `levels` windows. Mass is averaged over layers and heads.
    """
    count, length = calibration.ids_NT.shape
    if lm.is_diffusion:
        ids_RT, windows, visible_ST = noised_trajectory(lm, calibration, levels).flatten(0, 1), None, torch.ones(levels, length, dtype=torch.bool)
    else:
        if levels > length:
            raise ValueError(f"levels={levels} exceed the {length} tokens of a calibration sequence: a causal step is at least one query; use fewer levels")
        windows = query_windows(length // (levels + 1), length, levels)  # as many levels as there are equal stretches, less the first
        even_ST = attention.even_share(length, windows, causal=True)
        ids_RT, visible_ST = calibration.ids_NT, visible(length, windows)
    profiles = []
    with attention.track(lm.model, windows) as tracker:
        for start in tqdm(range(0, len(ids_RT), calibration.batch), desc="sinks of the calibration text", unit="batch", disable=not progress, leave=False):
            lm.hidden(ids_RT[start : start + calibration.batch])
            mass_BST = tracker.take().mean((1, 2)).cpu()
            profiles.append(mass_BST if windows is None else mass_BST / even_ST.masked_fill(even_ST == 0, torch.inf))
    return torch.cat(profiles).view(count, levels, length), visible_ST


def sink_masks(lm: LanguageModel, calibration: Calibration, levels: int, deviations: float, progress: bool = True) -> Masks:
    """Return the sinks of every calibration sequence along its trajectory and which keys are visible: bool (N, S, T) and (S, T)."""
    profile_NST, visible_ST = sink_profiles(lm, calibration, levels, progress)
    return sinks.sink_sets(profile_NST, visible_ST, deviations), visible_ST


def left_out(masks_NST: torch.Tensor, visible_ST: torch.Tensor, tokens: str, stable_from: float, seed: int) -> torch.Tensor:
    """Return which tokens of which step are left out of the statistics, bool (N, S, T).

    `random` draws, in every step, as many visible positions as `all` would leave out.
    """
    if tokens == "none":
        return torch.zeros_like(masks_NST)
    if tokens == "all":
        return masks_NST
    if tokens == "only":
        return ~masks_NST
    if tokens == "random":
        drawn = [random_mask(visible_ST[step], int(masks_NST[n, step].sum()), generator(seed, "random tokens", n, step)) for n in range(len(masks_NST)) for step in range(masks_NST.shape[1])]
        return torch.stack(drawn).view_as(masks_NST)
    stable_NST, unstable_NST = sinks.split_by_persistence(masks_NST, visible_ST, stable_from)
    return stable_NST if tokens == "stable" else unstable_NST


def rows_for(lm: LanguageModel, calibration: Calibration, inputs: str, tokens: str, levels: int, deviations: float, stable_from: float, progress: bool = True, masks: Masks | None = None) -> Rows:
    """Return the calibration rows of a recipe; `masks` are its sinks where they are known already.

    Noised inputs keep one weight per row and token, so a token is left out exactly at the steps where it is a sink.
    Clean inputs have one row per sequence; its weights are 1 minus the share of steps in which a token is left out.
    Raises ValueError when the weights leave nothing to look at.
    """
    out_NST = None
    if tokens != "none":
        out_NST = left_out(*(masks or sink_masks(lm, calibration, levels, deviations, progress)), tokens, stable_from, calibration.seed)
    if inputs == "noised":
        ids_RT = noised_trajectory(lm, calibration, levels).flatten(0, 1)
        weight_RT = None if out_NST is None else 1.0 - out_NST.flatten(0, 1).float()
    else:
        ids_RT = calibration.ids_NT
        weight_RT = None if out_NST is None else 1.0 - out_NST.float().mean(1)
    if weight_RT is not None and not bool(weight_RT.any()):
        raise ValueError(f"tokens={tokens!r} leaves no calibration token with a weight above 0: there is no sink to look at; use more text or a lower threshold")
    return Rows(ids_RT, weight_RT)

"""What a pruning criterion sees: token sequences x states of their trajectory x a weight per token.

Sink-awareness is a weight on calibration tokens. Every control of the method is a choice of these weights, a row of the
table EXCLUDE; a function of your own becomes a choice by adding it there, and to BY_ROW where the weights
of a state follow from that state alone.

Dimensions: N clean sequences, S states of a trajectory (noise levels, denoising steps, or query windows of a causal
model), R = N * S rows, B batch, T position, W choices of token weights.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sinkprune_core.diffusion.sampling import Sampler, corrupt, generate, random_mask, stratified_counts
from sinkprune_core.models.blocks import Rows, block_inputs, run_block, visit
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.sinks import attention, detection
from sinkprune_core.sinks.trace import query_windows, visible

INPUTS = ("clean", "noised")
OFFICIAL_EPSILON = 1e-3  # the official code masks with probability (1 - epsilon) t + epsilon
ROLLOUT_PROMPT = 4  # a rollout keeps the first 1/4 of a sequence as its prompt


@dataclass(frozen=True)
class Calibration:
    """Clean calibration sequences, int64 (N, T), and the seed of everything random that is done with them."""

    ids_NT: torch.Tensor
    seed: int = 0
    batch: int = 16

    def __post_init__(self):
        if self.ids_NT.dim() != 2 or self.ids_NT.numel() == 0:
            raise ValueError(
                f"calibration ids have shape {tuple(self.ids_NT.shape)}; expected (sequences, tokens), at least one of each: give calibration text"
            )
        if self.ids_NT.shape[1] < 2:
            raise ValueError("calibration sequences need at least 2 tokens")
        if self.batch < 1:
            raise ValueError(f"batch={self.batch} must be at least 1")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(
            self.ids_NT.contiguous().numpy().tobytes() + repr((self.ids_NT.shape, self.seed)).encode()
        ).hexdigest()[:16]


@dataclass(frozen=True)
class StatisticsKey:
    """How calibration text is looked at: the part of a recipe that decides its rows and the weights of their tokens."""

    inputs: str
    noise: str
    noise_levels: int
    exclude: str
    sink_std: float
    alpha: float | None
    stability_threshold: float

    @property
    def trajectory(self) -> tuple:
        """What decides the states that are visited; looks with equal values here share their forwards."""
        return self.inputs, self.noise, self.noise_levels


# the states of a trajectory


def noise_counts(noise_levels: int, maskable: int) -> list[int]:
    """Return the numbers of masks of an even grid of noise levels, from the most noised to the least, none of them 0.

    Midpoints of `noise_levels` equal strata. The official grid ends at t = 1, where every token is a mask and the input has
    no content; midpoints leave that level out and reach closer to clean text.
    """
    return [
        max(1, round(maskable * (noise_levels - level - 0.5) / noise_levels)) for level in range(noise_levels)
    ]


def _nested(ids_T: torch.Tensor, counts: list[int], seed: int, sequence: int) -> torch.Tensor:
    """Masks that only ever disappear, as along a denoising run, bool (S, T); position 0 is never masked."""
    maskable_T = torch.arange(len(ids_T)) > 0
    return torch.stack(
        [random_mask(maskable_T, count, generator(seed, "noise", sequence)) for count in counts]
    )


def grid(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """The same noise levels for every sequence, evenly spaced."""
    return _nested(ids_T, noise_counts(noise_levels, len(ids_T) - 1), seed, sequence)


def stratified(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """Numbers of masks uniform on 1 … T - 1, one per stratum, drawn anew for every sequence."""
    counts_S = stratified_counts(noise_levels, len(ids_T) - 1, generator(seed, "noise_levels", sequence))
    return _nested(ids_T, counts_S.sort(descending=True).values.tolist(), seed, sequence)


def official(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """The official code's grid for LLaDA: t = 1/S … 1, every position masked on its own; at t = 1 nothing is left."""
    rate_S1 = (1 - OFFICIAL_EPSILON) * torch.arange(1, noise_levels + 1)[
        :, None
    ] / noise_levels + OFFICIAL_EPSILON
    return torch.rand(noise_levels, len(ids_T), generator=generator(seed, "noise", sequence)) < rate_S1


def dream(ids_T: torch.Tensor, noise_levels: int, seed: int, sequence: int) -> torch.Tensor:
    """The official code's rule for Dream: it ignores the step and draws t uniformly; first and last position stay."""
    rng = generator(seed, "noise", sequence)
    rate_S1 = (1 - OFFICIAL_EPSILON) * torch.rand(noise_levels, 1, generator=rng) + OFFICIAL_EPSILON
    where_ST = torch.rand(noise_levels, len(ids_T), generator=rng) < rate_S1
    where_ST[:, [0, -1]] = False
    return where_ST


NOISE: dict[str, Callable | None] = {
    "grid": grid,
    "stratified": stratified,
    "official": official,
    "dream": dream,
    "rollout": None,
}


def trajectory(
    lm: LanguageModel, calibration: Calibration, noise_levels: int, noise: str = "grid"
) -> torch.Tensor:
    """Return every sequence in every state, int64 (N, S, T): noised by a rule of NOISE, or as the sampler visits it.

    Noise depends on (seed, sequence) alone. A `rollout` continues the first quarter of every sequence in `noise_levels`
    denoising steps (low confidence, one block); its states are what the model really sees while it writes.
    """
    if noise == "rollout":
        return _rollout(lm, calibration, noise_levels)
    states = [
        corrupt(
            ids_T.expand(noise_levels, -1),
            NOISE[noise](ids_T, noise_levels, calibration.seed, sequence),
            lm.mask_token_id,
        )
        for sequence, ids_T in enumerate(calibration.ids_NT)
    ]
    return torch.stack(states)


def _rollout(lm: LanguageModel, calibration: Calibration, noise_levels: int) -> torch.Tensor:
    count, length = calibration.ids_NT.shape
    prompt = max(1, length // ROLLOUT_PROMPT)
    if noise_levels > length - prompt:
        raise ValueError(
            f"noise_levels={noise_levels} exceed the {length - prompt} tokens a rollout writes: use fewer levels or longer sequences"
        )
    sampler = Sampler(length=length - prompt, steps=noise_levels, block=None)
    parts = []
    for start in range(0, count, calibration.batch):
        states: list[torch.Tensor] = []
        prompt_BT = calibration.ids_NT[start : start + calibration.batch, :prompt]
        generate(
            lm,
            prompt_BT,
            sampler,
            calibration.seed,
            lambda step, ids_BT, states=states: states.append(ids_BT.cpu().clone()),
            start,
        )
        parts.append(torch.stack(states, 1))
    return torch.cat(parts)


def windows_of(lm: LanguageModel, length: int, noise_levels: int) -> attention.Windows | None:
    """Return the query windows that are a causal model's steps, None for a diffusion model, whose states are forwards of their own.

    The windows cut the queries after the first stretch; raises ValueError for more levels than tokens.
    """
    if lm.is_diffusion:
        return None
    if noise_levels > length:
        raise ValueError(
            f"noise_levels={noise_levels} exceed the {length} tokens of a calibration sequence: a causal step is at least one query; use fewer levels"
        )
    return query_windows(
        length // (noise_levels + 1), length, noise_levels
    )  # as many noise_levels as there are equal stretches, less the first


def tracked_rows(lm: LanguageModel, calibration: Calibration, noise_levels: int, noise: str) -> torch.Tensor:
    """Return the rows whose forwards show the sinks, int64 (R, T): a causal model has one forward per sequence."""
    return (
        trajectory(lm, calibration, noise_levels, noise).flatten(0, 1)
        if lm.is_diffusion
        else calibration.ids_NT
    )


def profile(mass_BST: torch.Tensor, windows: attention.Windows | None, noise_levels: int) -> torch.Tensor:
    """Return attention mass in even shares by sequence and step, (N, S, T), of mass averaged over layers and heads."""
    if windows is None:
        return mass_BST.view(-1, noise_levels, mass_BST.shape[-1])
    even_ST = attention.even_share(mass_BST.shape[-1], windows, causal=True)
    return mass_BST / even_ST.masked_fill(even_ST == 0, torch.inf)


def visible_keys(length: int, windows: attention.Windows | None, noise_levels: int) -> torch.Tensor:
    """Return which keys every query of a step can see, bool (S, T)."""
    return torch.ones(noise_levels, length, dtype=torch.bool) if windows is None else visible(length, windows)


@torch.no_grad()
def sink_profiles(
    lm: LanguageModel, calibration: Calibration, noise_levels: int, noise: str = "grid", progress: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention mass in even shares of every calibration sequence along its trajectory, (N, S, T), and which keys are visible, (S, T).

    Blocks are visited one by one with all rows, so that a model whose blocks come from disk is read once.
    """
    length = calibration.ids_NT.shape[1]
    windows = windows_of(lm, length, noise_levels)
    ids_RT = tracked_rows(lm, calibration, noise_levels, noise)
    total_RST = torch.zeros(len(ids_RT), 1 if windows is None else noise_levels, length)
    states = block_inputs(lm, Rows(ids_RT, None), calibration.batch)
    with attention.track(lm.model, windows) as tracker:
        for block in visit(lm, progress, "sinks of the calibration text"):
            fresh, start = [], 0
            for state in states:
                fresh += run_block(block, [state])
                mass_BST = tracker.take().mean((1, 2)).cpu()
                total_RST[start : start + len(mass_BST)] += mass_BST / len(lm.blocks)
                start += len(mass_BST)
            states = fresh
    return profile(total_RST, windows, noise_levels), visible_keys(length, windows, noise_levels)


# the weights of tokens


@dataclass(frozen=True)
class SinkContext:
    """What a choice of token weights may look at: profiles in even shares (N, S, T), visible keys (S, T), and the look.

    `units` are layers x heads: what one even share is in the official code's unnormalised sums. `first` is the number
    of the first sequence, so that random choices depend on the sequence and not on the batch.
    """

    profile_NST: torch.Tensor
    visible_ST: torch.Tensor
    look: StatisticsKey
    units: int
    seed: int
    first: int

    @property
    def sinks_NST(self) -> torch.Tensor:
        return detection.sink_sets(self.profile_NST, self.visible_ST, self.look.sink_std)

    def sigmoid(self, alpha: float) -> torch.Tensor:
        """Return the soft sink mask, sigmoid(alpha (m - threshold)) with the mean + sink_std x std of visible keys, (N, S, T)."""
        visible_NST = self.visible_ST.expand_as(self.profile_NST)
        count_NS1 = visible_NST.sum(-1, keepdim=True)
        mean_NS1 = self.profile_NST.masked_fill(~visible_NST, 0).sum(-1, keepdim=True) / count_NS1
        std_NS1 = (
            (self.profile_NST - mean_NS1).square().masked_fill(~visible_NST, 0).sum(-1, keepdim=True)
            / count_NS1
        ).sqrt()
        return torch.sigmoid(
            alpha * (self.profile_NST - mean_NS1 - self.look.sink_std * std_NS1)
        ).masked_fill(~visible_NST, 0)


def _random(seen: SinkContext) -> torch.Tensor:
    """As many visible positions in every step as `all` leaves out, drawn at random."""
    sinks_NST = seen.sinks_NST
    drawn = [
        random_mask(
            seen.visible_ST[step],
            int(sinks_NST[n, step].sum()),
            generator(seen.seed, "random tokens", seen.first + n, step),
        )
        for n in range(len(sinks_NST))
        for step in range(sinks_NST.shape[1])
    ]
    return torch.stack(drawn).view_as(sinks_NST)


def _split(seen: SinkContext) -> tuple[torch.Tensor, torch.Tensor]:
    return detection.split_by_persistence(seen.sinks_NST, seen.visible_ST, seen.look.stability_threshold)


# How much of a token is left out in each step, (N, S, T), bool or between 0 and 1.
EXCLUDE: dict[str, Callable[[SinkContext], torch.Tensor]] = {
    "none": lambda seen: torch.zeros_like(seen.profile_NST, dtype=torch.bool),
    "all": lambda seen: seen.sinks_NST if seen.look.alpha is None else seen.sigmoid(seen.look.alpha),
    "official": lambda seen: seen.sigmoid(
        (OFFICIAL_ALPHA if seen.look.alpha is None else seen.look.alpha) * seen.units
    ),
    "unstable": lambda seen: _split(seen)[1],
    "stable": lambda seen: _split(seen)[0],
    "random": _random,
    "only": lambda seen: ~seen.sinks_NST,
}
OFFICIAL_ALPHA = 5.0  # per unit of summed mass; one even share is layers x heads such units
SOFT = ("all", "official")  # choices that know `alpha`

# Choices whose weights of a state follow from that state's own profile: they give the same for (N, S, T) and (N * S, 1, T), and
# read neither `seed` nor `first`. States of noised inputs need not wait for each other then; any other choice gets whole
# trajectories.
BY_ROW = {"none", "all", "official", "only"}


def token_weights(
    lm: LanguageModel,
    look: StatisticsKey,
    profile_NST: torch.Tensor,
    visible_ST: torch.Tensor,
    seed: int,
    first: int = 0,
) -> torch.Tensor:
    """Return the weights of the rows of a look, float32 (R, T).

    Noised inputs keep one weight per row and token, so a token is left out exactly at the steps where it is a sink.
    Clean inputs have one row per sequence; its weights are 1 minus the mean over steps of what is left out (the
    averaged mask of the official SparseGPT path). Raises ValueError for weights outside [0, 1].
    """
    config = lm.model.config
    out_NST = EXCLUDE[look.exclude](
        SinkContext(
            profile_NST, visible_ST, look, config.num_hidden_layers * config.num_attention_heads, seed, first
        )
    ).float()
    if out_NST.shape != profile_NST.shape or not bool(((out_NST >= 0) & (out_NST <= 1)).all()):
        raise ValueError(
            f"exclude={look.exclude!r} must leave out a share in [0, 1] of every token, shape {tuple(profile_NST.shape)}; got shape {tuple(out_NST.shape)}"
        )
    return 1.0 - (out_NST.flatten(0, 1) if look.inputs == "noised" else out_NST.mean(1))


def check_weights(weight_RT: torch.Tensor, tokens: str) -> None:
    """Raise ValueError when weights leave nothing to look at."""
    if not bool(weight_RT.any()):
        raise ValueError(
            f"exclude={tokens!r} leaves no calibration token with a weight above 0: there is no sink to look at; use more text or a lower threshold"
        )


Profiles = tuple[torch.Tensor, torch.Tensor]  # what `sink_profiles` returns


def rows_for(
    lm: LanguageModel,
    calibration: Calibration,
    look: StatisticsKey,
    progress: bool = True,
    profiles: Profiles | None = None,
) -> Rows:
    """Return the calibration rows of a look; `profiles` are those of its trajectory where they are known already."""
    ids_RT = (
        trajectory(lm, calibration, look.noise_levels, look.noise).flatten(0, 1)
        if look.inputs == "noised"
        else calibration.ids_NT
    )
    if look.exclude == "none":
        return Rows(ids_RT, None)
    weight_RT = token_weights(
        lm,
        look,
        *(profiles or sink_profiles(lm, calibration, look.noise_levels, look.noise, progress)),
        calibration.seed,
    )
    check_weights(weight_RT, look.exclude)
    return Rows(ids_RT, weight_RT)

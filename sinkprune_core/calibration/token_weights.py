"""How much every calibration token counts: the only place where pruning knows of sinks.

Sink-awareness is a weight on calibration tokens, and every control of the method is another choice of these
weights. EXCLUDE holds the choices that have a name; `Recipe(exclude=function)` takes any other. A user's
function is called for one sequence at a time (N = 1), wherever the model lies, and may be called more than
once for it: it must depend on its context alone, a copy of its own, which it may change.

Dimensions: N clean sequences, S steps of a trajectory, R rows (N * S if noised, else N), T position, W
choices of token weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from sinkprune_core.blocks import Rows
from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.calibration.text import Calibration, trajectory
from sinkprune_core.calibration.waiting_store import IN_MEMORY, Store
from sinkprune_core.diffusion.noise import random_mask
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator
from sinkprune_core.sinks import detection
from sinkprune_core.values import in_short

OFFICIAL_ALPHA = 5.0  # the official code's steepness, per unit of mass summed over layers and heads

# returns the share left out of every token, in [0, 1], (N, S, T)
TokenChoice = Callable[["SinkContext"], torch.Tensor]


@dataclass(frozen=True)
class StatisticsKey:
    """The part of a `Recipe` that decides its calibration rows and the weights of their tokens."""

    inputs: str
    noise: str
    noise_levels: int
    exclude: str | TokenChoice
    sink_std: float
    alpha: float | None
    stability_threshold: float

    @property
    def trajectory(self) -> tuple:
        """What decides the states that the model sees: keys with equal values here share their forwards."""
        return self.inputs, self.noise, self.noise_levels


@dataclass(frozen=True)
class SinkContext:
    """What a choice of tokens may use; a user's function gets one sequence at a time, N = 1."""

    profile_NST: torch.Tensor  # float32: attention mass in even shares, mean over layers and heads
    visible_ST: torch.Tensor  # bool: keys that every query of a step can see
    key: StatisticsKey  # the recipe's settings
    heads: int  # of all layers together: what one even share is in the official code's sums
    seed: int  # of the calibration text
    first_sequence: int = 0  # its number: random choices do not depend on the batch

    @property
    def sinks_NST(self) -> torch.Tensor:
        """Which tokens are sinks, bool (N, S, T)."""
        return detection.sink_sets(self.profile_NST, self.visible_ST, self.key.sink_std)

    def split_sinks(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return stable and unstable sinks, each bool (N, S, T)."""
        return detection.split_by_persistence(self.sinks_NST, self.visible_ST, self.key.stability_threshold)

    def soft_sinks(self, alpha: float) -> torch.Tensor:
        """Return sigmoid(alpha (mass - sink threshold)), (N, S, T), 0 for keys that are not visible.

        In perfectly even attention every mass is the threshold, and every share 0.5, as in the official code;
        `sinks_NST` finds no sink there.
        """
        mean_NS1, std_NS1 = detection.mean_and_std(self.profile_NST, self.visible_ST)
        # `sink_sets` adds mean and deviations up first, which would change the last bit
        above_NST = self.profile_NST - mean_NS1 - self.key.sink_std * std_NS1
        return torch.sigmoid(alpha * above_NST).masked_fill(~self.visible_ST, 0)


# the choices that have a name


def _none(context: SinkContext) -> torch.Tensor:
    """No token."""
    return torch.zeros_like(context.profile_NST, dtype=torch.bool)


def _all(context: SinkContext) -> torch.Tensor:
    """All sinks; softly where `alpha` is given, per even share."""
    if context.key.alpha is None:
        return context.sinks_NST
    return context.soft_sinks(context.key.alpha)


def _official(context: SinkContext) -> torch.Tensor:
    """All sinks as in the official code: softly, `alpha` per unit of mass summed over layers and heads."""
    alpha = OFFICIAL_ALPHA if context.key.alpha is None else context.key.alpha
    return context.soft_sinks(alpha * context.heads)


def _unstable(context: SinkContext) -> torch.Tensor:
    """Sinks that move: the paper's abstract."""
    return context.split_sinks()[1]


def _stable(context: SinkContext) -> torch.Tensor:
    """Sinks that stay."""
    return context.split_sinks()[0]


def _random(context: SinkContext) -> torch.Tensor:
    """As many visible tokens in every step as `all` leaves out, drawn at random."""
    return as_many_at_random(context, context.sinks_NST, "random tokens")


def as_many_at_random(context: SinkContext, chosen_NST: torch.Tensor, purpose: str) -> torch.Tensor:
    """Return as many visible tokens in every step as are chosen, drawn at random, bool (N, S, T).

    The draw depends on the calibration's seed, `purpose`, sequence and step.
    """
    drawn = []
    for sequence, chosen_ST in enumerate(chosen_NST, start=context.first_sequence):
        for step, chosen_T in enumerate(chosen_ST):
            rng = generator(context.seed, purpose, sequence, step)
            drawn.append(random_mask(context.visible_ST[step], int(chosen_T.sum()), rng))

    return torch.stack(drawn).view_as(chosen_NST)


def _non_sinks(context: SinkContext) -> torch.Tensor:
    """Everything but the sinks."""
    return ~context.sinks_NST


@dataclass(frozen=True)
class NamedChoice:
    """A choice of tokens that has a name."""

    function: TokenChoice
    by_row: bool = False  # whether a state's weights follow from that state alone: it then waits for no other
    soft: bool = False  # whether it knows `alpha`


EXCLUDE: dict[str, NamedChoice] = {
    "none": NamedChoice(_none, by_row=True),
    "all": NamedChoice(_all, by_row=True, soft=True),
    "official": NamedChoice(_official, by_row=True, soft=True),
    "unstable": NamedChoice(_unstable),
    "stable": NamedChoice(_stable),
    "random": NamedChoice(_random),
    "non-sinks": NamedChoice(_non_sinks, by_row=True),
}


def choice_name(choice: str | Callable) -> str:
    """Return the name of a choice of tokens, or of a criterion.

    Of a user's function it is the module and the qualified name, of another object the module and how it
    prints itself.
    """
    if isinstance(choice, str):
        return choice

    name = getattr(choice, "__qualname__", None) or repr(choice)
    return f"{choice.__module__}.{name}"


def token_weights(context: SinkContext) -> torch.Tensor:
    """Return the weights of calibration tokens, float32 (R, T).

    Noised inputs keep one weight per row and token, so a token is left out exactly at the steps where it is a
    sink. Clean inputs have one row per sequence; its weights are 1 minus the mean over steps of what is left
    out (the averaged mask of the official SparseGPT path). Raises ValueError unless a user's function returns
    a share in [0, 1] for every token.
    """
    exclude = context.key.exclude
    if isinstance(exclude, str):
        out_NST = EXCLUDE[exclude].function(context).float()
    else:
        parts = [shares_of_user(exclude, context, row) for row in range(len(context.profile_NST))]
        out_NST = torch.cat(parts)

    if context.key.inputs == "noised":
        return 1.0 - out_NST.flatten(0, 1)

    return 1.0 - out_NST.mean(1)


def weights_in_text(
    lm: LanguageModel,
    calibration: Calibration,
    key: StatisticsKey,
    profile_NST: torch.Tensor,
    visible_ST: torch.Tensor,
    first: int = 0,
) -> torch.Tensor:
    """Return the token weights of sequences, of which the first has the number `first`, float32 (R, T).

    Sequences with padding are looked at one by one, as if they were alone; the weight of padding is 0.
    """
    heads = heads_of(lm)
    if calibration.present_NT is None:
        return token_weights(SinkContext(profile_NST, visible_ST, key, heads, calibration.seed, first))

    length = profile_NST.shape[-1]
    weights = []
    for row, profile_ST in enumerate(profile_NST):
        number = first + row
        tokens = calibration.lengths[number]
        alone_1ST = profile_ST[None, :, :tokens]
        context = SinkContext(alone_1ST, visible_ST[:, :tokens], key, heads, calibration.seed, number)
        weight_RT = token_weights(context)
        weights.append(torch.nn.functional.pad(weight_RT, (0, length - tokens)))
    return torch.cat(weights)


def shares_of_user(function: TokenChoice, context: SinkContext, row: int) -> torch.Tensor:
    """Return what a user's function leaves out of one sequence, float32 (1, S, T); it gets copies.

    Raises ValueError for anything else than a share in [0, 1] of every token.
    """
    alone = replace(
        context,
        profile_NST=context.profile_NST[row : row + 1].clone(),
        visible_ST=context.visible_ST.clone(),
        first_sequence=context.first_sequence + row,
    )
    wanted = (
        f"exclude={choice_name(function)!r} must leave out a share in [0, 1] of every token, a tensor of "
        f"shape {tuple(alone.profile_NST.shape)}"
    )
    out_NST = function(alone)
    if getattr(out_NST, "shape", None) != alone.profile_NST.shape:
        raise ValueError(f"{wanted}; got {in_short(out_NST)}")

    out_NST = out_NST.detach().cpu().float()
    if not bool(((out_NST >= 0) & (out_NST <= 1)).all()):  # which NaN is not
        raise ValueError(f"{wanted}; got a number outside [0, 1]")

    return out_NST


def check_weights(weight_RT: torch.Tensor, key: StatisticsKey) -> None:
    """Raise ValueError when no calibration token is left."""
    if not bool(weight_RT.any()):
        raise ValueError(
            f"exclude={choice_name(key.exclude)!r} leaves no calibration token with a weight above 0: "
            "use more text, a lower threshold or another choice"
        )


def heads_of(lm: LanguageModel) -> int:
    """Return how many heads all layers of a model have together."""
    return lm.model.config.num_hidden_layers * lm.model.config.num_attention_heads


def input_rows(lm: LanguageModel, calibration: Calibration, key: StatisticsKey) -> torch.Tensor:
    """Return the rows that show statistics, int64 (R, T)."""
    if key.inputs == "clean":
        return calibration.ids_NT
    return trajectory(lm, calibration, key.noise_levels, key.noise).flatten(0, 1)


def weights_of_keys(
    lm: LanguageModel,
    calibration: Calibration,
    keys: Sequence[StatisticsKey],
    profiles: tuple[torch.Tensor, torch.Tensor],
    first: int = 0,
) -> torch.Tensor:
    """Return the token weights of sequences for every key, float32 (W, R, T), from what `profile` returns.

    The first of the sequences has the number `first`.
    """
    weights = [weights_in_text(lm, calibration, key, *profiles, first) for key in keys]
    return torch.stack(weights)


def weighted_rows(
    lm: LanguageModel,
    calibration: Calibration,
    keys: Sequence[StatisticsKey],
    progress: bool = True,
    store: Store = IN_MEMORY,
    profiles: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows that show statistics, int64 (R, T), and their token weights for every key, (W, R, T).

    Keys have the same states of the text. `profiles` are those of `sink_profiles` on these states, where they
    are known, else hidden states wait in `store`.
    """
    ids_RT = input_rows(lm, calibration, keys[0])

    if all(key.exclude == "none" for key in keys):
        present_RT = calibration.present_in(len(ids_RT))
        weight_RT = torch.ones(ids_RT.shape) if present_RT is None else present_RT.float()
        return ids_RT, weight_RT.repeat(len(keys), 1, 1)

    if profiles is None:
        noise_levels, noise = keys[0].noise_levels, keys[0].noise
        profiles = sink_profiles(lm, calibration, noise_levels, noise, progress, store)

    return ids_RT, weights_of_keys(lm, calibration, keys, profiles)


def rows_for(
    lm: LanguageModel,
    calibration: Calibration,
    key: StatisticsKey,
    progress: bool = True,
    profiles: tuple[torch.Tensor, torch.Tensor] | None = None,
    store: Store = IN_MEMORY,
) -> Rows:
    """Return calibration rows and the weights of their tokens; see `weighted_rows`.

    Raises ValueError where no token is left.
    """
    ids_RT, weight_1RT = weighted_rows(lm, calibration, [key], progress, store, profiles)
    check_weights(weight_1RT[0], key)
    return Rows(ids_RT, weight_1RT[0], calibration.present_in(len(ids_RT)))

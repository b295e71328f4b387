"""Can leaving sinks out matter? What one calibration pass over a dense model says, before anything is pruned.

Wanda keeps the weights of a row with the largest |W_ij| n_j, where n_j is the norm of input channel j over
all calibration tokens. Let p_j be the share of n_j^2 that attention sinks hold. Without them the norm is
n_j sqrt(1 - p_j), so the logarithm of a score changes by

    delta_j = 1/2 ln(1 - p_j).

A change that all channels share moves every score of a row alike, and the ranking stays as it is. Only what
differs from channel to channel moves weights across the threshold of their row. Let u_j be the threshold in
standard deviations of the weights of channel j, which are taken to be normal: |W_ij| n_j lies above it for a
share 2 (1 - Phi(u_j)) of them, and the density of ln|W_ij| there is 2 u_j phi(u_j). The threshold itself
moves by the mean of delta_j under these densities, delta_bar, because the number of zeros in a row is fixed.
As many weights enter as leave, so

    lost share of kept weights = sum_j u_j phi(u_j) |delta_j - delta_bar| / sum_j 2 (1 - Phi(u_j)).

Where all norms are equal, u_j is the quantile q of |normal| at the sparsity s, and this is
q phi(q) / (1 - s) * mean_j |delta_j - delta_bar|: 0.43 times the mean at 50 %, 0.95 times at 75 %.

Dimensions: O output features, I input features (channels), N sequences, S steps, T positions.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import torch
from pydantic import Field, InstanceOf

from sinkprune_core.calibration.dense_statistics import DensePass, collect
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import (
    EXCLUDE,
    SinkContext,
    TokenChoice,
    choice_name,
    shares_of_user,
)
from sinkprune_core.calibration.waiting_store import IN_MEMORY, Store
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.patterns import lowest
from sinkprune_core.pruning.plan import check_dense
from sinkprune_core.pruning.recipe import ExcludeName, Recipe
from sinkprune_core.values import Count, Flag, Sparsity, checked_arguments, share_of

Sparsities = Annotated[
    Sequence[Sparsity], Field(min_length=1, description="a list of shares in [0, 1), at least one")
]
ITERATIONS = 60  # of the search for a row's threshold: each halves its interval
WIDEST = 10.0  # standard deviations beyond which no normal weight lies: the search begins there
MOST_ENERGY = 1 - 1e-12  # of a channel that sinks hold: the logarithm of nothing left is infinite
HOT = 0.5  # share of a channel's energy above which sinks hold most of it
ROWS = 1536  # outputs of a linear whose masks are compared: more would take longer and say the same
DRAWS_IN_A_PASS = 2  # of calibration text: the second one says what other text changes
ALL_TOKENS = "all tokens"
WITHOUT_SINKS = "without sinks"
OTHER_TEXT = "other text"
SMALLEST = 0.01  # a share of kept weights below which a change is not called one, whatever other text does


@dataclass(frozen=True)
class Part:
    """A choice of calibration tokens: those of some sequences, without what `choice` leaves out of them."""

    first: int
    last: int  # the number after the last sequence
    choice: ExcludeName | TokenChoice = "none"  # a name in EXCLUDE, or a function

    def __repr__(self) -> str:
        """Return the same words in every process, as a pass that goes on is known by them."""
        return f"Part({self.first}, {self.last}, {choice_name(self.choice)})"

    def __call__(self, context: SinkContext) -> torch.Tensor:
        """Return the share left out of every token, float32 (N, S, T)."""
        if isinstance(self.choice, str):
            out_NST = EXCLUDE[self.choice].function(context).float()
        else:  # it is asked for one sequence, as this part is
            out_NST = shares_of_user(self.choice, context, row=0)

        number_N = torch.arange(len(out_NST)) + context.first_sequence
        is_outside_N = (number_N < self.first) | (number_N >= self.last)
        return out_NST.masked_fill(is_outside_N[:, None, None], 1.0)


@dataclass(frozen=True)
class Positions:
    """A choice of calibration tokens: those at some places of every sequence, of which 0 is the first."""

    places: tuple[int, ...]

    def __post_init__(self):
        if not self.places or not all(type(place) is int and place >= 0 for place in self.places):
            raise ValueError(f"places={self.places!r} must be whole numbers from 0, at least one of them")

    def __call__(self, context: SinkContext) -> torch.Tensor:
        """Return the share left out of every token, float32 (N, S, T)."""
        self.check(context.profile_NST.shape[-1])
        out_NST = torch.zeros_like(context.profile_NST)
        out_NST[..., list(self.places)] = 1.0
        return out_NST

    def check(self, length: int) -> None:
        """Raise ValueError for a place that a sequence of `length` tokens does not have."""
        outside = sorted(place for place in self.places if place >= length)
        if outside:
            raise ValueError(
                f"places={self.places!r}: a sequence has {length} tokens and no place {outside[0]}: give "
                f"numbers from 0 to {length - 1}, or longer sequences"
            )


def energy_share(norm_I: torch.Tensor, norm_without_I: torch.Tensor) -> torch.Tensor:
    """Return the share p_j of every channel's squared norm that left-out tokens hold, float64 (I,) in [0, 1].

    `norm_I` and `norm_without_I` are L2 norms over all tokens and over those that are kept. A channel that is
    always zero holds nothing.
    """
    energy_I = norm_I.double().square()
    without_I = norm_without_I.double().square()
    share_I = 1 - without_I / energy_I.clamp_min(torch.finfo(torch.float64).tiny)
    return share_I.clamp(0, 1).masked_fill(energy_I == 0, 0.0)


def predicted_change(share_I: torch.Tensor, norm_I: torch.Tensor, sparsity: float) -> float:
    """Return the share of kept weights that Wanda is predicted to exchange without the sinks; see above.

    `share_I` are the shares p_j, `norm_I` the norms with the sinks. It is a first-order prediction for normal
    weights of one variance: exact for small shifts, and no guide to a channel that loses almost all of its
    norm: too small if that lay far above the threshold, too large if not.
    """
    normal = torch.distributions.Normal(0.0, 1.0)
    norm_I = norm_I.double().clamp_min(torch.finfo(torch.float32).tiny)
    delta_I = 0.5 * torch.log1p(-share_I.double().clamp(max=MOST_ENERGY))

    threshold = _row_threshold(norm_I, sparsity)
    u_I = threshold / norm_I
    density_I = u_I * torch.exp(normal.log_prob(u_I))
    kept = 2 * (1 - _normal_cdf(u_I)).sum()

    moved_I = (delta_I - _shift_of_threshold(delta_I, density_I)).abs()
    return float((density_I * moved_I).sum() / kept)


def _row_threshold(norm_I: torch.Tensor, sparsity: float) -> float:
    """Return the score below which a share `sparsity` of a row's weights lies, for weights of variance 1."""
    low, high = 0.0, WIDEST * float(norm_I.max())

    for _ in range(ITERATIONS):
        middle = (low + high) / 2
        below = float((2 * _normal_cdf(middle / norm_I) - 1).mean())
        if below < sparsity:
            low = middle
        else:
            high = middle

    return (low + high) / 2


def _normal_cdf(value_I: torch.Tensor) -> torch.Tensor:
    """Return Phi; `torch.distributions` says the same, and takes several times as long for its checks."""
    return 0.5 * (1 + torch.erf(value_I / math.sqrt(2)))


def _shift_of_threshold(delta_I: torch.Tensor, density_I: torch.Tensor) -> torch.Tensor:
    """Return the shift of the threshold that keeps the number of zeros: the mean of `delta_I` by density."""
    return (density_I * delta_I).sum() / density_I.sum().clamp_min(torch.finfo(torch.float64).tiny)


def mask_changes(
    weight_OI: torch.Tensor, norm_I: torch.Tensor, other_norms: Sequence[torch.Tensor], sparsity: float
) -> list[float]:
    """Return the share of Wanda's kept weights by `norm_I` that it prunes by each of other norms, row by row.

    Of a linear with more than ROWS outputs, at most that many, evenly spaced, are looked at.
    """
    every = math.ceil(len(weight_OI) / ROWS)
    size_OI = weight_OI.detach()[::every].float().abs()
    count = share_of(size_OI.shape[1], sparsity)

    kept_OI = ~lowest(size_OI * norm_I.to(size_OI), count)
    kept = kept_OI.sum().clamp_min(1)

    changes = []
    for other_norm_I in other_norms:
        pruned_OI = lowest(size_OI * other_norm_I.to(size_OI), count)
        changes.append(float((kept_OI & pruned_OI).sum() / kept))
    return changes


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What one calibration pass says about leaving sinks out of pruning."""

    model: str
    table: pd.DataFrame
    """A row per linear and sparsity: `layer`, `linear`, `kind` (the linear's name without its module, where
    that tells it from the others of its block), `weights`, `sparsity`, and in [0, 1] `energy` (the sinks'
    share of all input energy), `mean_share` (mean of p_j), `hot_channels` (share of channels with p_j above
    1/2), `predicted` and `exact` (shares of kept weights that leaving sinks out exchanges), `other_text` (the
    share that another draw of text exchanges). Shares are exact for up to ROWS outputs of a linear, and of as
    many of a larger one.
    """
    left_out: float  # share of the tokens that are sinks

    def overall(self) -> pd.DataFrame:
        """Return the means over all linears by sparsity, each linear counted by its weights."""
        columns = ["predicted", "exact", "other_text", "weights"]
        return pd.DataFrame(self.table.groupby("sparsity")[columns].apply(weighted_mean))

    def expect_an_effect(self, sparsity: float) -> bool:
        """Return whether leaving sinks out may matter: over all linears it changes more than other text.

        Raises ValueError for a sparsity that was not diagnosed.
        """
        overall = self.overall()
        if sparsity not in overall.index:
            known = ", ".join(f"{share:g}" for share in overall.index)
            raise ValueError(
                f"sparsity={sparsity} was not diagnosed, only {known}: name it among the sparsities"
            )

        row = overall.loc[sparsity]
        return bool(row.exact > max(row.other_text, SMALLEST))


def weighted_mean(part: pd.DataFrame) -> pd.Series:
    """Return the mean of every column, each linear counted by its weights."""
    share = part.weights / part.weights.sum()
    return part.drop(columns="weights").mul(share, axis=0).sum()


def diagnosis_recipes(
    lm: LanguageModel, sequences: int, noise_levels: int, sinks: ExcludeName | TokenChoice = "all"
) -> dict[str, Recipe]:
    """Return the recipes whose statistics a diagnosis of so many sequences reads, by part.

    All come from one pass: `all tokens` and `without sinks` are of the first half of the text, `other text`
    is of the second half. A diffusion model sees noised text, an autoregressive one clean text. Raises
    ValueError for sinks of an unknown name.
    """
    inputs = "noised" if lm.is_diffusion else "clean"
    how = {"inputs": inputs, "propagation": "dense", "noise_levels": noise_levels}
    Recipe(exclude=sinks, **how)  # which refuses a name that no choice has

    half = sequences // DRAWS_IN_A_PASS
    parts = {
        ALL_TOKENS: Part(0, half),
        WITHOUT_SINKS: Part(0, half, sinks),
        OTHER_TEXT: Part(half, 2 * half),
    }
    return {name: Recipe(exclude=part, **how) for name, part in parts.items()}


@checked_arguments
def diagnose(
    lm: InstanceOf[LanguageModel],
    calibration: InstanceOf[Calibration],
    sparsities: Sparsities = (0.5,),
    noise_levels: Count = 8,
    sinks: ExcludeName | TokenChoice = "all",
    progress: Flag = True,
) -> Diagnosis:
    """Return what leaving sinks out can change in a model, from one pass over calibration text.

    The first half of the sequences is the calibration text, the second half what it is compared with. `sinks`
    is a choice of tokens: a name in EXCLUDE or a function, as `Recipe(exclude=…)` takes, or `Positions`.
    Raises ValueError for fewer than two sequences and for what does not fit the model.
    """
    norms = norms_of(lm, calibration, noise_levels, sinks, progress)
    return diagnosis_from(lm, norms, sparsities)


def diagnosis_from(lm: LanguageModel, norms: "Norms", sparsities: Sequence[float] = (0.5,)) -> Diagnosis:
    """Return the diagnosis of a model whose norms are known; blocks are visited once, for their weights."""
    rows = []
    for layer in range(len(lm.blocks)):
        with lm.resident(layer) as block:
            linears = lm.linears(block)
            kinds = kinds_of(linears)
            for name, linear in linears.items():
                rows += _rows_of(layer, name, kinds[name], linear.weight, norms, sparsities)

    return Diagnosis(lm.name, pd.DataFrame(rows), norms.left_out)


def kinds_of(names: Collection[str]) -> dict[str, str]:
    """Return the kind of every linear of a block by its name there: its last part where no other linear ends
    so, else the whole name (GPT-2 has `attn.c_proj` and `mlp.c_proj`).
    """
    last_parts = {name: name.rpartition(".")[2] for name in names}
    count = Counter(last_parts.values())
    return {name: last if count[last] == 1 else name for name, last in last_parts.items()}


@dataclass(frozen=True, eq=False)
class Norms:
    """What a diagnosis reads of a pass: L2 norms of every input channel, float32 (I,)."""

    by_part: dict[str, list[dict[str, torch.Tensor]]]  # by part, block and linear
    left_out: float  # share of the tokens that are sinks


def norms_of(
    lm: LanguageModel,
    calibration: Calibration,
    noise_levels: int = 8,
    sinks: ExcludeName | TokenChoice = "all",
    progress: bool = True,
    store: Store = IN_MEMORY,
    kind: type[DensePass] = DensePass,
) -> Norms:
    """Return the norms that a diagnosis reads, from one pass of a `kind`; what waits lies in `store`.

    Raises what `diagnose` raises.
    """
    sequences = len(calibration.ids_NT)
    if sequences < DRAWS_IN_A_PASS:
        raise ValueError(
            f"the calibration text has {sequences} sequence: give at least {DRAWS_IN_A_PASS}, since the "
            "second half of them says what other text changes"
        )

    if isinstance(sinks, Positions):
        sinks.check(min(calibration.lengths))

    recipes = diagnosis_recipes(lm, sequences, noise_levels, sinks)
    check_dense(lm, list(recipes.values()), calibration)
    keys = [recipe.statistics_key for recipe in recipes.values()]
    statistics = collect(lm, keys, calibration, progress, store, kind=kind)
    by_name = {name: statistics[recipe.statistics_key] for name, recipe in recipes.items()}
    by_part = {name: _norms(found.layers) for name, found in by_name.items()}

    left_out = {name: found.left_out_share for name, found in by_name.items()}
    return Norms(by_part, share_of_sinks(left_out[ALL_TOKENS], left_out[WITHOUT_SINKS]))


def share_of_sinks(left_out: float, left_out_with_sinks: float) -> float:
    """Return the share of a part's tokens that are sinks.

    Given are the shares of the whole text's tokens that are left out: what is not of the part, and that with
    the part's sinks.
    """
    return (left_out_with_sinks - left_out) / (1 - left_out)


def _norms(layers: Sequence[Mapping]) -> list[dict[str, torch.Tensor]]:
    return [{name: inputs.norm_I for name, inputs in block.items()} for block in layers]


def _rows_of(
    layer: int, name: str, kind: str, weight_OI: torch.Tensor, norms: Norms, sparsities: Sequence[float]
) -> list[dict[str, object]]:
    """Return the rows of one linear, one per sparsity."""
    norm_I = norms.by_part[ALL_TOKENS][layer][name]
    without_I = norms.by_part[WITHOUT_SINKS][layer][name]
    other_I = norms.by_part[OTHER_TEXT][layer][name]

    share_I = energy_share(norm_I, without_I)
    energy_I = norm_I.double().square()
    of_linear = {
        "layer": layer,
        "linear": name,
        "kind": kind,
        "weights": weight_OI.numel(),
        "energy": float((share_I * energy_I).sum() / energy_I.sum()),
        "mean_share": float(share_I.mean()),
        "hot_channels": float((share_I > HOT).double().mean()),
    }

    rows = []
    for sparsity in sparsities:
        exact, by_other_text = mask_changes(weight_OI, norm_I, (without_I, other_I), sparsity)
        changes = {
            "predicted": predicted_change(share_I, norm_I, sparsity),
            "exact": exact,
            "other_text": by_other_text,
        }
        rows.append({**of_linear, "sparsity": sparsity, **changes})

    return rows

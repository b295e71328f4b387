"""Can leaving sinks out matter? What one calibration pass over a dense model says, before anything is pruned.

Wanda keeps the weights of a row with the largest |W_ij| m_j, where m_j is the norm of input channel j over
all calibration tokens. Let the weights of column j be normal, with the root mean square r_j, so that the
scores of channel j are those of a normal variable of the scale n_j = m_j r_j. A share 2 (1 - Phi(tau / n_j))
of them lies above a threshold tau, where Phi is the standard normal distribution function. In a row of many
weights a share s is pruned, which determines the row's threshold:

    mean_j 2 (1 - Phi(tau / n_j)) = 1 - s.

Let p_j be the share of m_j^2 that attention sinks hold. Without them the scale is n'_j = n_j sqrt(1 - p_j).
As many weights are pruned as before, so the same equation with n'_j determines the new threshold tau'. Every
score of a channel changes by one factor. So a channel whose factor falls by more than the threshold only
loses weights, and the others only win some. What it loses is the difference of the two shares:

    lost share of kept weights = sum_j max(0, 2 [Phi(tau' / n'_j) - Phi(tau / n_j)]) / kept,
    where kept = sum_j 2 (1 - Phi(tau / n_j)).

Where sinks hold the same share of every channel, the threshold falls as all scores do, and nothing is lost. A
channel that sinks hold entirely has n'_j = 0 and loses all of its weights. To first order in small shares and
for equal scales the lost share is q phi(q) / (1 - s) * mean_j |delta_j - mean delta|, where
delta_j = 1/2 ln(1 - p_j), and phi is the normal density at q = Phi^-1((1 + s) / 2).

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
from sinkprune_core.pruning.patterns import RANKED, lowest
from sinkprune_core.pruning.plan import check_dense
from sinkprune_core.pruning.recipe import ExcludeName, Recipe
from sinkprune_core.values import Count, Flag, Sparsity, checked_arguments, share_of

Sparsities = Annotated[Sequence[Sparsity], Field(min_length=1)]
ITERATIONS = 60  # of the search for a row's threshold: each halves the interval of its logarithm
WIDEST = 10.0  # standard deviations beyond which no normal weight lies: the search begins there
FAINTEST = 1e-38  # the scale of a channel that carries nothing: its weights come last, and in their order
HOT = 0.5  # share of a channel's energy above which sinks hold most of it
ROWS = 1536  # outputs of a linear whose masks are compared: more would take longer and say the same
DRAWS_IN_A_PASS = 2  # of calibration text: the second one says what other text changes
ALL_TOKENS = "all tokens"
WITHOUT_SINKS = "without sinks"
OTHER_TEXT = "other text"
SMALLEST_BY_CONVENTION = 0.01  # share of kept weights: less is not called a change, whatever other text does


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


def energy_share(norm_I: torch.Tensor, norm_without_I: torch.Tensor) -> torch.Tensor:
    """Return the share p_j of every channel's squared norm that left-out tokens hold, float64 (I,) in [0, 1].

    `norm_I` and `norm_without_I` are L2 norms over all tokens and over those that are kept. A channel that is
    always zero holds nothing.
    """
    energy_I = norm_I.double().square()
    without_I = norm_without_I.double().square()
    share_I = 1 - without_I / energy_I.clamp_min(torch.finfo(torch.float64).tiny)
    return share_I.clamp(0, 1).masked_fill(energy_I == 0, 0.0)


def predicted_change(
    norm_I: torch.Tensor, other_norm_I: torch.Tensor, rms_I: torch.Tensor, sparsity: float
) -> float:
    """Return the share of Wanda's kept weights by `norm_I` that it should prune by another norm; see above.

    `rms_I` is the `column_rms` of the weights. It is exact for wide rows of weights that are normal within
    every column.
    """
    kept_I = _kept_shares(norm_I.double() * rms_I.double(), sparsity)
    kept_by_other_I = _kept_shares(other_norm_I.double() * rms_I.double(), sparsity)

    lost_I = (kept_I - kept_by_other_I).clamp_min(0)
    return float(lost_I.sum() / kept_I.sum())


def column_rms(weight_OI: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of every column, float32 (I,), over the rows that masks are compared in."""
    return _compared(weight_OI).float().square().mean(0).sqrt()


def _kept_shares(scale_I: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return the share of every channel's scores that is kept where a share `sparsity` of all is pruned.

    Scores of channel j are the sizes of normal variables of the scale `scale_I[j]`, float64. The threshold is
    looked for by its logarithm, as scales differ by many orders of magnitude.
    """
    scale_I = scale_I.clamp_min(FAINTEST)
    low = math.log(torch.finfo(torch.float64).tiny)
    high = math.log(WIDEST * float(scale_I.max()))

    for _ in range(ITERATIONS):
        middle = (low + high) / 2
        if float(_share_above(math.exp(middle), scale_I).mean()) > 1 - sparsity:
            low = middle
        else:
            high = middle

    return _share_above(math.exp(low), scale_I)


def _share_above(threshold: float, scale_I: torch.Tensor) -> torch.Tensor:
    """Return 2 (1 - Phi(threshold / scale)), the share of a normal variable's sizes above a threshold."""
    return torch.special.erfc(threshold / (scale_I * math.sqrt(2)))


def mask_changes(
    weight_OI: torch.Tensor, norm_I: torch.Tensor, other_norms: Sequence[torch.Tensor], sparsity: float
) -> list[float]:
    """Return the share of Wanda's kept weights by `norm_I` that it prunes by each of other norms, row by row.

    Of a linear with more than ROWS outputs, at most that many, evenly spaced, are looked at.
    """
    weight_OI = _compared(weight_OI)
    rows, columns = weight_OI.shape
    count = share_of(columns, sparsity)
    rows_together = max(1, RANKED // columns)
    exchanged = [0] * len(other_norms)

    for part_OI in weight_OI.split(rows_together):  # what a processor's cache holds
        size_OI = part_OI.float().abs()
        pruned_OI = lowest(size_OI * norm_I.to(size_OI), count)

        for number, other_norm_I in enumerate(other_norms):
            pruned_by_other_OI = lowest(size_OI * other_norm_I.to(size_OI), count)
            exchanged[number] += int(torch.count_nonzero(pruned_by_other_OI & ~pruned_OI))

    kept = rows * (columns - count)
    return [each / kept for each in exchanged]


def _compared(weight_OI: torch.Tensor) -> torch.Tensor:
    """Return the rows of a linear's weights whose masks are compared: at most ROWS, evenly spaced."""
    every = math.ceil(len(weight_OI) / ROWS)
    return weight_OI.detach()[::every]


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

        Both bounds, other text and SMALLEST_BY_CONVENTION, are conventions: they are neither derived nor
        fitted, since how much a loss changes does not follow from how many weights change places.
        Raises ValueError for a sparsity that was not diagnosed.
        """
        overall = self.overall()
        if sparsity not in overall.index:
            known = ", ".join(f"{share:g}" for share in overall.index)
            raise ValueError(
                f"sparsity={sparsity} was not diagnosed, only {known}: name it among the sparsities"
            )

        row = overall.loc[sparsity]
        return bool(row.exact > max(row.other_text, SMALLEST_BY_CONVENTION))


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
    is a choice of tokens: a name in EXCLUDE or a function, as `Recipe(exclude=…)` takes.
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

    rms_I = column_rms(weight_OI)
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
            "predicted": predicted_change(norm_I, without_I, rms_I, sparsity),
            "exact": exact,
            "other_text": by_other_text,
        }
        rows.append({**of_linear, "sparsity": sparsity, **changes})

    return rows

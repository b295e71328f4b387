"""How much any choice of few calibration tokens can change the mask, and how much the sinks do.

Dimensions: O output features, I input features of a linear map, R calibration rows, N calibration tokens, C
candidates among them.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch

from sinkprune import corpus
from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune_companion.experiments.linear_inputs import linear_inputs
from sinkprune_companion.experiments.masks import weights_of
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core import Calibration, LanguageModel, Recipe
from sinkprune_core.calibration.sink_profiles import sink_profiles, tracked_rows
from sinkprune_core.calibration.token_weights import SinkContext, heads_of, token_weights
from sinkprune_core.pruning.engine import dense_statistics
from sinkprune_core.pruning.patterns import lowest
from sinkprune_core.seeds import generator
from sinkprune_core.values import share_of

NEAR = 0.1  # how near the logarithm of a score must be to that of its row's threshold to count as close
CANDIDATES = 1024  # at least so many tokens are searched, those that change most alone
SINKS = {"all": "all sinks", "unstable": "unstable sinks"}
PLAIN_START = "no special first token"
LARGEST, RANDOM, OTHER_TEXT = "largest change", "random tokens", "other text"
COMPARED = (("sinks", "random"), ("sinks", "largest"), ("largest", "other_text"))  # as findings


def token_reach(
    lm: LanguageModel, recipe: Recipe, calibration: Calibration, other: Calibration, layers: Sequence[int]
) -> pd.DataFrame:
    """Return the share of kept weights that change when tokens leave the statistics of a dense model.

    One row per block of `layers`, linear and choice of tokens. Columns: `layer`, `linear`, `choice`, `tokens`
    (how many are left out), `share` (of all tokens) and `changed`. Choices are all and unstable sinks;
    `largest change`, searched greedily, and random tokens, for powers of two and as many as there are sinks;
    and `other text`, whose statistics are those of `other`. `recipe` is one of Wanda with dense propagation,
    hard sinks and zeros per row, whatever its `exclude`. Raises ValueError for a block that the model lacks.
    """
    if unknown := [layer for layer in layers if not 0 <= layer < len(lm.blocks)]:
        raise ValueError(f"layers={unknown} must lie in 0 to {len(lm.blocks) - 1}, the numbers of the blocks")

    recipe = replace(recipe, exclude="none")
    ids_RT = tracked_rows(lm, calibration, recipe.noise_levels, recipe.noise)
    profiles = sink_profiles(lm, calibration, recipe.noise_levels, recipe.noise)

    sinks = {}  # numbers of the tokens, int64, by the name of the choice
    for exclude, label in SINKS.items():
        key = replace(recipe.statistics_key, exclude=exclude)
        weight_RT = token_weights(SinkContext(*profiles, key, heads_of(lm), calibration.seed))
        sinks[label] = (weight_RT.flatten() == 0).nonzero().squeeze(-1)

    tokens = ids_RT.numel()
    found = {len(chosen) for chosen in sinks.values()}
    most = max(1, *found)
    counts = sorted(({2**power for power in range(most.bit_length())} | found) - {0})
    random_order = torch.randperm(tokens, generator=generator(calibration.seed, "token reach"))
    of_other = dense_statistics(lm, [recipe], other)[recipe.statistics_key].layers
    weights = weights_of(lm)

    rows = []
    for layer, inputs in linear_inputs(lm, ids_RT, layers, calibration.batch, progress=True):
        for name, input_NI in inputs.items():
            search = Search(weights[layer, name].cpu(), input_NI, recipe.sparsity)
            ranked = {LARGEST: search.greedy(most), RANDOM: random_order}
            few = [(label, ranked[label][:count]) for label in ranked for count in counts]
            for choice, chosen in [*sinks.items(), *few]:
                changed = search.changed(search.squares_I - _squares(input_NI[chosen]))
                rows.append((layer, name, choice, len(chosen), len(chosen) / tokens, changed))
            changed = search.changed(of_other[layer][name].norm_I.cpu().double().square())
            rows.append((layer, name, OTHER_TEXT, tokens, 1.0, changed))

    return pd.DataFrame(rows, columns=["layer", "linear", "choice", "tokens", "share", "changed"])


def reach_on_both_starts(
    run: Run, lm: LanguageModel, recipe: Recipe, sequences: int, length: int, layers: Sequence[int]
) -> pd.DataFrame:
    """Return the records of `token_reach` on texts that begin as they do and with a special first token."""
    drawn = [calibration_draw(lm, sequences, length, seed) for seed in (0, 1)]
    with_token = [
        Calibration(corpus.with_first_token(text.ids_NT, lm.tokenizer), text.seed) for text in drawn
    ]

    fingerprint = lm.fingerprint()
    parts = []

    for start, (text, other) in {PLAIN_START: drawn, "<|endoftext|> first": with_token}.items():
        frame = run.record(
            "reach",
            lambda text=text, other=other: token_reach(lm, recipe, text, other, layers),
            recipe=recipe,
            calibration=[text.fingerprint, other.fingerprint],
            layers=list(layers),
            fingerprint=fingerprint,
        )

        parts.append(frame.assign(text=start))

    return pd.concat(parts, ignore_index=True)


def reach_findings(frame: pd.DataFrame) -> dict[str, Estimate]:
    """Return shares of kept weights that change, by the choice of as many tokens as there are sinks.

    `frame` is what `reach_on_both_starts` returns, of which the texts without a special first token count;
    intervals are over linear maps. Empty without sinks, or with fewer than two linear maps.
    """
    frame = frame[frame.text == PLAIN_START]
    sinks = frame[frame.choice == SINKS["all"]]
    if len(sinks) < 2 or sinks.tokens.iloc[0] == 0:
        return {}

    same_count = frame[(frame.tokens == sinks.tokens.iloc[0]) | (frame.choice == OTHER_TEXT)]
    labels = {"sinks": SINKS["all"], "random": RANDOM, "largest": LARGEST, "other_text": OTHER_TEXT}
    by_choice = same_count.set_index(["layer", "linear"])
    changed = {name: by_choice.changed[by_choice.choice == label] for name, label in labels.items()}
    findings = {f"reach_{name}": interval(values) for name, values in changed.items()}

    for one, other in COMPARED:
        findings[f"reach_{one}_minus_{other}"] = interval(changed[one] - changed[other])

    return findings


class Search:
    """The weights of one linear, (O, I), that Wanda keeps per row by inputs (N, I), both on the CPU."""

    def __init__(self, weight_OI: torch.Tensor, input_NI: torch.Tensor, sparsity: float):
        self.size_OI = weight_OI.double().abs()
        self.input_NI = input_NI
        self.squares_I = _squares(input_NI)
        self.sparsity = sparsity
        self.kept_OI = self._kept(self.squares_I)

    def _kept(self, squares_I: torch.Tensor) -> torch.Tensor:
        score_OI = self.size_OI * squares_I.clamp_min(0).sqrt()
        return ~lowest(score_OI.float(), share_of(score_OI.shape[1], self.sparsity))

    def changed(self, squares_I: torch.Tensor) -> float:
        """Return the share of the kept weights that squared norms (I,) would not keep."""
        both = int((self.kept_OI & self._kept(squares_I)).sum())
        return 1 - both / int(self.kept_OI.sum())

    def greedy(self, count: int) -> torch.Tensor:
        """Return numbers of tokens, int64 (count,), each the one that adds most to what those before change.

        The measure is of first order. A token's share of a squared norm, p_tj, lowers the logarithm of the
        scores of column j by p_tj / 2, and every threshold by the mean over weights close to it. A set S then
        moves sum_j r_j |sum_S (p_tj - mean)| weights, r_j of which are close per unit.
        """
        score_OI = (self.size_OI * self.squares_I.sqrt()).clamp_min(1e-30).log()
        threshold_O1 = score_OI.masked_fill(~self.kept_OI, torch.inf).amin(1, keepdim=True)
        close_I = ((score_OI - threshold_O1).abs() < NEAR).sum(0).float()
        share_NI = self.input_NI.float().square() / self.squares_I.clamp_min(1e-30).float()
        shift_NI = (share_NI - (share_NI @ close_I)[:, None] / close_I.sum()) * close_I
        alone_N = shift_NI.abs().sum(1)
        candidates_C = alone_N.argsort(descending=True)[: max(CANDIDATES, 4 * count)]
        shift_CI = shift_NI[candidates_C]
        total_I = torch.zeros_like(close_I)
        is_left_C = torch.ones(len(candidates_C), dtype=torch.bool)

        chosen = []
        for _ in range(min(count, len(candidates_C))):
            moved_C = (shift_CI + total_I).abs_().sum(1)
            best = int(moved_C.masked_fill(~is_left_C, -1).argmax())
            total_I += shift_CI[best]
            is_left_C[best] = False
            chosen.append(best)

        return candidates_C[chosen]


def _squares(input_NI: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares of every input feature over tokens, float64 (I,)."""
    return input_NI.float().square().sum(0, dtype=torch.float64)

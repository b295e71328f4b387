"""An effect that is planted in the model: its attention sinks carry massive activations that do nothing.

A vector v of the null space of `down_proj` is added to its input at every sink. The dense model computes
what it did, because `down_proj` maps v to zero. What pruning sees is another model: in a few channels the
norms are now those of the sinks, as in models whose massive activations lie at places that move.

Two things follow when such a model is pruned. Keeping the sinks in the statistics wastes weights on channels
that carry nothing. But a mask also breaks the cancellation: a pruned `down_proj` no longer maps v to zero,
and what the sinks carry leaks into the residual stream, the less so the more weights of these channels stay.
Which of both wins is what the experiment asks. The same pruned models are scored without the vector, too,
where nothing can leak: what is left then is what the wasted weights cost. And as many random tokens are left
out, which tells whether the sinks matter or the number of tokens.

Every sum over calibration tokens of the planted model follows from sums of the dense one: a sink's input x
becomes x + a v, so its square grows by 2 a v x + a^2 v^2. No second pass is needed.

Dimensions: B batch, T position, I input features of a linear, O output features, L layers.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune.evaluation.text_scores import score_texts
from sinkprune_companion.experiments.paired_differences import compare
from sinkprune_companion.experiments.paper_protocol import LENGTH, NOISE_LEVELS
from sinkprune_companion.experiments.planted import OTHER_WITHOUT, planted_recipe, taken_statistics
from sinkprune_companion.experiments.variants import fingerprint_of
from sinkprune_companion.experiments.why import wanda_keeps
from sinkprune_companion.ledger.margins import with_share_of_damage
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw, protocol_texts
from sinkprune_core import Calibration, LanguageModel, prune, weights_kept
from sinkprune_core.calibration.dense_statistics import DenseStatistics
from sinkprune_core.calibration.input_statistics import InputStatistics
from sinkprune_core.calibration.token_weights import EXCLUDE, SinkContext
from sinkprune_core.pruning.diagnosis import (
    ALL_TOKENS,
    OTHER_TEXT,
    WITHOUT_SINKS,
    energy_share,
    mask_changes,
    weighted_mean,
)
from sinkprune_core.pruning.engine import dense_statistics
from sinkprune_core.seeds import generator
from sinkprune_core.sinks import attention
from sinkprune_core.sinks.detection import sink_sets

PLANTED_REVISION = 1  # of `planted_model_losses`
CONTROLS_REVISION = 1  # of `control_losses`
EXCHANGED_REVISION = 1  # of `exchanged_in_model`
DOSES = (0.0, 3.0, 10.0, 30.0)  # length of the planted vector, in lengths of a usual input
CHANNELS = 4  # whose projection on the null space is planted
PLACE = "mlp.down_proj"  # the linear whose input is changed
KEPT, LEFT_OUT, DENSE = "kept", "left out", "dense"
KEPT_UNSEEN = "kept, scored without the vector"
RANDOM_LEFT_OUT = "random tokens left out"
RANDOM_DOSE = 10.0  # at which random tokens are left out


def null_vector(weight_OI: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
    """Return a vector of length 1 that a linear maps to zero, float32 (I,), large in some channels.

    It is what remains of these channels' unit vectors without the rows' span. Raises ValueError for a linear
    that has no null space, as it has as many independent rows as columns.
    """
    rows, columns = weight_OI.shape
    if rows >= columns:
        raise ValueError(f"a linear from {columns} to {rows} features has no null space: take a wider input")

    wanted_I = torch.zeros(columns, dtype=torch.float64)
    wanted_I[list(channels)] = 1.0

    span_IO, _ = torch.linalg.qr(weight_OI.detach().double().cpu().T)
    rest_I = wanted_I - span_IO @ (span_IO.T @ wanted_I)
    rest_I -= span_IO @ (span_IO.T @ rest_I)  # once more, for the rounding of the first time
    return (rest_I / rest_I.norm()).float()


def planted_vectors(lm: LanguageModel, statistics: DenseStatistics) -> list[torch.Tensor]:
    """Return the planted vector of every layer, float32 (I,), as long as a usual input of its `down_proj`.

    That length is the root mean square over calibration tokens; the channels are drawn by layer.
    """
    vectors = []
    for layer, block in enumerate(lm.blocks):
        weight_OI = lm.linears(block)[PLACE].weight
        norm_I = statistics.layers[layer][PLACE].norm_I
        vectors.append(_planted_vector(weight_OI, norm_I, _seen(statistics), layer))
    return vectors


def _seen(statistics: DenseStatistics) -> float:
    """Return how many calibration tokens statistics are of, those that are left out not counted."""
    return statistics.tokens * (1 - statistics.left_out_share)


def _planted_vector(weight_OI: torch.Tensor, norm_I: torch.Tensor, tokens: float, layer: int) -> torch.Tensor:
    """Return the planted vector of one layer, float32 (I,); `norm_I` is over so many tokens."""
    rng = generator(0, "planted channels", layer)
    channels = torch.randperm(weight_OI.shape[1], generator=rng)[:CHANNELS].tolist()

    usual = float(norm_I.double().square().sum().div(tokens).sqrt())
    return usual * null_vector(weight_OI, channels)


class SinksOf:
    """Which tokens of a batch are sinks of a model: found once per batch, and remembered.

    A planted model needs to know where its own sinks are, before it computes. Its dense twin shows them: both
    have the same attention.
    """

    def __init__(self, lm: LanguageModel):
        self.lm = lm
        self._known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return which tokens are sinks by the paper's rule, bool (B, T)."""
        key = hashlib.sha256(ids_BT.cpu().numpy().tobytes() + str(tuple(ids_BT.shape)).encode()).hexdigest()
        if key not in self._known:
            with attention.track(self.lm.model) as tracker:
                self.lm.hidden(ids_BT)
                mass_BT = tracker.take().mean((1, 2))[:, 0].float().cpu()
            self._known[key] = sink_sets(mass_BT[:, None])[:, 0]
        return self._known[key]


@contextmanager
def planted_in(
    lm: LanguageModel, sinks_of: SinksOf, vectors: Sequence[torch.Tensor], dose: float
) -> Iterator[None]:
    """Add `dose` times each layer's vector to the input of `down_proj` at the sinks, inside the block."""
    if dose == 0:
        yield
        return

    is_sink_BT = torch.zeros(0)

    def see(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        nonlocal is_sink_BT
        ids_BT = args[0] if args else kwargs["input_ids"]
        is_sink_BT = sinks_of(ids_BT)

    def adds(vector_I: torch.Tensor):
        def add(_module: nn.Module, args: tuple) -> tuple:
            input_BTI = args[0]
            added_BTI = is_sink_BT[..., None].to(input_BTI.device) * dose * vector_I.to(input_BTI)
            return (input_BTI + added_BTI, *args[1:])

        return add

    with ExitStack() as stack:
        stack.callback(lm.model.base_model.register_forward_pre_hook(see, with_kwargs=True).remove)
        for block, vector_I in zip(lm.blocks, vectors, strict=True):
            stack.callback(lm.linears(block)[PLACE].register_forward_pre_hook(adds(vector_I)).remove)
        yield


def sinks_and_random_tokens(context: SinkContext) -> torch.Tensor:
    """Leave out all sinks and as many random tokens, some of which may be sinks: float32 (N, S, T)."""
    is_sink_NST = EXCLUDE["all"].function(context).bool()
    is_random_NST = EXCLUDE["random"].function(context).bool()
    return (is_sink_NST | is_random_NST).float()


def planted_statistics(
    kept: DenseStatistics, left_out: DenseStatistics, vectors: Sequence[torch.Tensor], dose: float
) -> DenseStatistics:
    """Return dense statistics of the planted model from two of the model as it is.

    `kept` are those of all tokens, or of any choice of them, and `left_out` those of the same tokens without
    the sinks.
    """
    layers = []
    for of_kept, of_left_out, vector_I in zip(kept.layers, left_out.layers, vectors, strict=True):
        norm_I = _planted_norm(kept, left_out, of_kept[PLACE], of_left_out[PLACE], dose * vector_I)
        layers.append({**of_kept, PLACE: replace(of_kept[PLACE], norm_I=norm_I)})
    return replace(kept, layers=layers)


def _planted_norm(
    kept: DenseStatistics,
    left_out: DenseStatistics,
    of_kept: InputStatistics,
    of_left_out: InputStatistics,
    added_I: torch.Tensor,
) -> torch.Tensor:
    """Return the norms of a linear's inputs, float32 (I,), if `added_I` is added to those of every sink."""
    seen, others = _seen(kept), _seen(left_out)
    sinks = seen - others

    sum_of_sinks_I = seen * of_kept.mean_I.double() - others * of_left_out.mean_I.double()
    added_I = added_I.double()
    squares_I = of_kept.norm_I.double().square() + 2 * added_I * sum_of_sinks_I + sinks * added_I.square()
    return squares_I.clamp_min(0).sqrt().float()


def change_of_masks(
    lm: LanguageModel, planted: DenseStatistics, left_out: DenseStatistics, sparsity: float
) -> tuple[float, float]:
    """Return the shares of `down_proj`'s kept weights that leaving sinks out exchanges, and of its energy.

    The second one is what the sinks hold of the inputs' energy. Both are means over layers.
    """
    changes = []
    energies = []
    for layer, block in enumerate(lm.blocks):
        norm_I = planted.layers[layer][PLACE].norm_I
        without_I = left_out.layers[layer][PLACE].norm_I
        changes += mask_changes(lm.linears(block)[PLACE].weight, norm_I, [without_I], sparsity)

        energies.append(_energy(norm_I, without_I))
    return sum(changes) / len(changes), sum(energies) / len(energies)


def _energy(norm_I: torch.Tensor, without_I: torch.Tensor) -> float:
    """Return the share of all energy that left-out tokens hold, from norms with and without them."""
    energy_I = norm_I.double().square()
    held_I = energy_share(norm_I, without_I) * energy_I
    return float(held_I.sum() / energy_I.sum())


def planted_model_losses(
    run: Run,
    lm: LanguageModel,
    dense: LanguageModel,
    sparsity: float,
    sequences: int,
    calibration_sequences: int,
    seed: int,
    doses: Sequence[float] = DOSES,
) -> pd.DataFrame:
    """Return the NELBO of planted models on one calibration draw: dense, and pruned with and without sinks.

    Columns are those of `score_texts`, `variant`, `dose`, `sparsity`, `seed`, `calibration_tokens`, and of
    pruned models `changed` and `energy` (see `change_of_masks`). `dense` is another object of the same model:
    it shows the sinks while `lm` is pruned. Both are float32, so that what cancels does so to its rounding.
    """
    calibration = protocol_draw(lm, calibration_sequences, LENGTH, seed)
    texts = protocol_texts(lm.tokenizer, sequences, LENGTH)

    def compute() -> pd.DataFrame:
        recipes = {KEPT: planted_recipe("none", sparsity), LEFT_OUT: planted_recipe("all", sparsity)}
        taken = dense_statistics(lm, list(recipes.values()), calibration)
        kept, left_out = (taken[recipe.statistics_key] for recipe in recipes.values())
        vectors = planted_vectors(lm, kept)
        sinks_of = SinksOf(dense)

        def scored(variant: str, dose: float, **columns: float) -> pd.DataFrame:
            with planted_in(lm, sinks_of, vectors, dose):
                scores = score_texts(lm, texts, 1, seed=seed)
            return scores.assign(variant=variant, dose=dose, **columns)

        parts = [scored(DENSE, dose) for dose in (0.0, max(doses))]
        for dose in doses:
            planted = planted_statistics(kept, left_out, vectors, dose)
            changed, energy = change_of_masks(lm, planted, left_out, sparsity)
            with weights_kept(lm):
                prune(lm, recipes[KEPT], calibration, statistics=planted)
                parts.append(scored(KEPT, dose, changed=changed, energy=energy))

        with weights_kept(lm):
            prune(lm, recipes[LEFT_OUT], calibration, statistics=left_out)
            parts += [scored(LEFT_OUT, dose) for dose in doses]
        return pd.concat(parts, ignore_index=True).assign(calibration_tokens=kept.tokens)

    key = _key(lm, calibration, sparsity, seed, doses) | {"data": fingerprint_of(texts)}
    return run.record("planted_model", compute, PLANTED_REVISION, **key)


def control_losses(
    run: Run,
    lm: LanguageModel,
    dense: LanguageModel,
    sparsity: float,
    sequences: int,
    calibration_sequences: int,
    seed: int,
    doses: Sequence[float] = DOSES,
) -> pd.DataFrame:
    """Return the NELBO of two controls on one calibration draw; columns as of `planted_model_losses`.

    - KEPT_UNSEEN: pruned with the planted model's statistics, all tokens kept, and scored without the vector,
      at every dose above zero
    - RANDOM_LEFT_OUT: pruned without as many random tokens as there are sinks, and scored with the vector, at
      RANDOM_DOSE
    """
    calibration = protocol_draw(lm, calibration_sequences, LENGTH, seed)
    texts = protocol_texts(lm.tokenizer, sequences, LENGTH)

    def compute() -> pd.DataFrame:
        choices = ("none", "all", "random", sinks_and_random_tokens)
        keeps, leaves, at_random, both = (planted_recipe(choice, sparsity) for choice in choices)
        taken = dense_statistics(lm, [keeps, leaves, at_random, both], calibration)
        kept, left_out = taken[keeps.statistics_key], taken[leaves.statistics_key]
        vectors = planted_vectors(lm, kept)

        parts = []
        for dose in doses:
            if dose == 0:
                continue
            planted = planted_statistics(kept, left_out, vectors, dose)
            with weights_kept(lm):
                prune(lm, keeps, calibration, statistics=planted)
                scores = score_texts(lm, texts, 1, seed=seed)
            parts.append(scores.assign(variant=KEPT_UNSEEN, dose=dose))

        of_random = (taken[at_random.statistics_key], taken[both.statistics_key])
        planted = planted_statistics(*of_random, vectors, RANDOM_DOSE)
        with weights_kept(lm), planted_in(lm, SinksOf(dense), vectors, RANDOM_DOSE):
            prune(lm, at_random, calibration, statistics=planted)
            scores = score_texts(lm, texts, 1, seed=seed)
        parts.append(scores.assign(variant=RANDOM_LEFT_OUT, dose=RANDOM_DOSE))

        return pd.concat(parts, ignore_index=True).assign(calibration_tokens=kept.tokens)

    key = _key(lm, calibration, sparsity, seed, doses)
    key |= {"data": fingerprint_of(texts), "random_dose": RANDOM_DOSE}
    return run.record("planted_model_controls", compute, CONTROLS_REVISION, **key)


def exchanged_table(
    lm: LanguageModel, calibration: Calibration, sparsity: float, doses: Iterable[float] = DOSES
) -> pd.DataFrame:
    """Return what sinks left out, and other text, exchange of planted models' `down_proj`, by one pass.

    A row per dose and layer: `weights` of the linear, the sinks' `energy`, and the shares of its kept weights
    that leaving sinks out exchanges (`exact`) and that other text does (`other_text`). The first half of the
    text is what models are pruned on, the second half is other text, at whose sinks the same vector is added.
    """
    taken = taken_statistics(lm, calibration)
    left_out = taken[WITHOUT_SINKS]
    vectors = planted_vectors(lm, taken[ALL_TOKENS])

    rows = []
    for dose in doses:
        planted = planted_statistics(taken[ALL_TOKENS], left_out, vectors, dose)
        other = planted_statistics(taken[OTHER_TEXT], taken[OTHER_WITHOUT], vectors, dose)

        for layer, block in enumerate(lm.blocks):
            weight_OI = lm.linears(block)[PLACE].weight
            norm_I, without_I, other_I = (
                found.layers[layer][PLACE].norm_I for found in (planted, left_out, other)
            )
            exact, by_other_text = mask_changes(weight_OI, norm_I, [without_I, other_I], sparsity)
            rows.append(
                {
                    "dose": dose,
                    "layer": layer,
                    "weights": weight_OI.numel(),
                    "energy": _energy(norm_I, without_I),
                    "exact": exact,
                    "other_text": by_other_text,
                }
            )
    return pd.DataFrame(rows)


def exchanged_in_model(
    run: Run,
    lm: LanguageModel,
    sparsity: float,
    calibration_sequences: int,
    seed: int,
    doses: Sequence[float] = DOSES,
) -> pd.DataFrame:
    """Return the record of `exchanged_table` on one calibration draw, and as many sequences of other text."""
    calibration = protocol_draw(lm, 2 * calibration_sequences, LENGTH, seed)

    def compute() -> pd.DataFrame:
        return exchanged_table(lm, calibration, sparsity, doses)

    key = _key(lm, calibration, sparsity, seed, doses) | {"noise_levels": NOISE_LEVELS}
    return run.record("planted_model_exchanged", compute, EXCHANGED_REVISION, **key)


def foreseen_in_model(exchanged: pd.DataFrame, diagnosis: pd.DataFrame) -> pd.DataFrame:
    """Return what one pass foresees of the planted model on one draw: a row per dose above zero.

    Columns are `dose`, `sparsity`, `exact` and `other_text`, means over all maps by their weights. Those of
    `down_proj` come from a table of `exchanged_in_model`. Nothing is planted in the others, so theirs are in
    the `diagnosis` of the model as it is, a table of `why.diagnosis_table` on the same draw.
    """
    columns = ["exact", "other_text", "weights"]
    rows = []

    for (dose, sparsity), part in exchanged[exchanged.dose > 0].groupby(["dose", "sparsity"]):
        others = diagnosis[(diagnosis.sparsity == sparsity) & (diagnosis.linear != PLACE)]
        over_all_maps = weighted_mean(pd.concat([part[columns], others[columns]]))
        rows.append({"dose": dose, "sparsity": sparsity, **over_all_maps})

    return pd.DataFrame(rows)


def _key(
    lm: LanguageModel, calibration: Calibration, sparsity: float, seed: int, doses: Sequence[float]
) -> dict[str, object]:
    """Return what a record of this experiment depends on."""
    return {
        "model": lm.name,
        "fingerprint": lm.fingerprint(),
        "calibration": calibration.fingerprint,
        "place": PLACE,
        "channels": CHANNELS,
        "doses": list(doses),
        "sparsity": sparsity,
        "seed": seed,
    }


# what the sinks carry, and whether it passes through weights that are lost


def lost_output(
    weight_OI: torch.Tensor, norm_I: torch.Tensor, without_I: torch.Tensor, sparsity: float
) -> float:
    """Return the share of what sinks send through a linear that goes through weights lost without them.

    These are the weights that Wanda keeps by the norms `norm_I` and prunes by those without the sinks. What a
    weight lets through is W_ij^2 times the sinks' part of n_j^2, as if channels were uncorrelated at sinks.
    """
    sent_OI = weight_OI.double().square() * (norm_I.double().square() - without_I.double().square())
    kept_OI, kept_without_OI = (wanda_keeps(weight_OI, norms_I, sparsity) for norms_I in (norm_I, without_I))
    return float(sent_OI[kept_OI & ~kept_without_OI].sum() / sent_OI.sum())


def carried_table(
    lm: LanguageModel,
    channels: pd.DataFrame,
    tokens: int,
    left_out: float,
    sparsity: float,
    doses: Iterable[float] = DOSES,
) -> pd.DataFrame:
    """Return what leaving sinks out loses of what they carry through `down_proj`, as it is and planted.

    `channels` is a table of `why.channel_table`, of as many calibration `tokens`, of which a share `left_out`
    are sinks. A row per layer of it and dose has, as shares in [0, 1], the sinks' `energy`, the kept weights
    that are `exchanged`, and `lost_output`; and `leak`, how many times as much of the planted vector comes
    out of the pruned linear as with the sinks kept. It is taken as uncorrelated with the sinks' own inputs.
    """
    rows = []

    for layer, part in channels[channels.linear == PLACE].groupby("layer"):
        weight_OI = lm.linears(lm.blocks[layer])[PLACE].weight.detach().float().cpu()
        norm_I = torch.tensor(part.norm.to_numpy())
        without_I = norm_I * (1 - torch.tensor(part.share.to_numpy())).sqrt()
        vector_I = _planted_vector(weight_OI, norm_I, tokens, layer)

        for dose in doses:
            added_I = dose * vector_I.double()
            planted_I = (norm_I.square() + left_out * tokens * added_I.square()).sqrt()
            (exchanged,) = mask_changes(weight_OI, planted_I, [without_I], sparsity)

            leaks = [
                float(((weight_OI * wanda_keeps(weight_OI, norms_I, sparsity)) @ vector_I).norm())
                for norms_I in (planted_I, without_I)
            ]
            rows.append(
                {
                    "layer": layer,
                    "dose": dose,
                    "energy": float(1 - without_I.square().sum() / planted_I.square().sum()),
                    "exchanged": exchanged,
                    "lost_output": lost_output(weight_OI, planted_I, without_I, sparsity),
                    "leak": leaks[1] / leaks[0] if dose else float("nan"),
                }
            )

    return pd.DataFrame(rows)


# findings


def exchanged_findings(draws: Sequence[pd.DataFrame]) -> dict[str, Estimate]:
    """Return what leaving sinks out and other text exchange in the planted model, over all maps, by dose.

    `draws` are tables of `foreseen_in_model`. There is no finding of a single draw.
    """
    if len(draws) < 2:
        return {}

    found = {}
    for dose, part in pd.concat(draws).groupby("dose"):
        found[f"planted_model_exact_x{dose:g}"] = interval(part.exact)
        found[f"planted_model_other_text_x{dose:g}"] = interval(part.other_text)
    return found


def largest_change_of_dense(losses: pd.DataFrame) -> float:
    """Return by how much the largest dose changes a dense sequence's NELBO at most, in nats per token."""
    dense = losses[losses.variant == DENSE]
    by_dose = dense.pivot(index=["seed", "sequence"], columns="dose", values="value")
    return float((by_dose[by_dose.columns.max()] - by_dose[0.0]).abs().max())


def planted_model_findings(
    losses: pd.DataFrame, doses: Iterable[float] = DOSES, at: str = ""
) -> dict[str, Estimate]:
    """Return what leaving sinks out changes in the planted model, left out − kept: below zero it helps.

    Also what pruning costs with sinks kept, by dose. The margin is a share of that cost. Where controls were
    measured: `planted_model_waste_x…`, the first difference where no model is scored with the vector, and
    `planted_model_random_x…`, random tokens left out − kept. `at` stands in the names before the dose, for
    instance `_at_75`.
    """
    is_dense_with_vector = (losses.variant == DENSE) & (losses.dose > 0)
    losses = losses[~is_dense_with_vector]
    dense = {"variant": DENSE}

    found = {}
    for dose in doses:
        kept = {"variant": KEPT, "dose": dose}
        left_out, at_random = ({"variant": name, "dose": dose} for name in (LEFT_OUT, RANDOM_LEFT_OUT))
        unseen = ({"variant": LEFT_OUT, "dose": 0.0}, {"variant": KEPT_UNSEEN, "dose": dose})

        cost = compare(losses, kept, dense)
        waste = compare(losses, *unseen)
        measured = {
            "gain": compare(losses, left_out, kept, dense),
            "cost": cost,
            "waste": waste and with_share_of_damage(waste, cost),
            "random": compare(losses, at_random, kept, dense),
        }
        found |= {f"planted_model_{name}{at}_x{dose:g}": each for name, each in measured.items() if each}
    return found

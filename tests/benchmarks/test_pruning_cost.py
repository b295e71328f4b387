"""What pruning costs against a straightforward method, as ratios of processor time measured in one run.

The straightforward method is written out here. It works as published code does: two full forwards with the
output head and whole attention maps, one statistic per linear with a masked copy of its input, sorts of all
scores, loops over columns. Both methods get the same rows, and their results are compared before their times
are. Time is that of the process on one thread, which other work on the machine hardly disturbs. A goal that
is not reached is marked in docs/performance.md; the assertion below it guards what is reached.

Dimensions: B batch, T position, O output features, I input features.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from benchmarks.timing import in_turns
from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sinkprune import load
from sinkprune_core import Calibration, LanguageModel, preset
from sinkprune_core.calibration.token_weights import rows_for
from sinkprune_core.language_model import set_direction
from sinkprune_core.pruning.criteria import wanda
from sinkprune_core.pruning.engine import dense_statistics
from sinkprune_core.pruning.patterns import lowest, n_of_m, select
from sinkprune_core.pruning.sparsegpt import sparsegpt

NAMES = ("straightforward", "ours")


def agreement(masks, others) -> float:
    """Return the share of weights that two sets of masks treat alike."""
    alike, total = 0, 0
    for mask, other in zip(masks, others, strict=True):
        alike += int((mask == other).sum())
        total += mask.numel()
    return alike / total


# calibration of Wanda: noised inputs, dense propagation, sinks left out


def smol(length: int = 256) -> tuple[LanguageModel, Calibration]:
    """The embedded diffusion model and a sequence for it."""
    ids_NT = torch.arange(length).view(1, length) * 7919 % 40000 + 20
    return load("smol-dlm"), Calibration(ids_NT, batch=4)


def llada_block(length: int = 256) -> tuple[LanguageModel, Calibration]:
    """One random block of LLaDA-8B's shape, with a small vocabulary: the whole head is not one block's."""
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=4096,
        intermediate_size=12288,
        num_attention_heads=32,
        num_hidden_layers=1,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    model = set_direction(LlamaForCausalLM(config).eval().requires_grad_(False), causal=False)
    lm = LanguageModel(model, None, "llada-block", "diffusion", 999, logits_shifted=False)
    return lm, Calibration(torch.arange(length).view(1, length) * 37 % 990, batch=4)


MASSES: list[torch.Tensor] = []


def materialised(module, query, key, value, attention_mask, scaling, **kwargs):
    """Attend with SDPA and, beside it, with a whole map (B, H, Q, K) of which the columns are summed up."""
    repeated_key = key.repeat_interleave(module.num_key_value_groups, 1)
    map_BHQK = torch.softmax(query @ repeated_key.transpose(2, 3) * scaling, -1, dtype=torch.float32)
    MASSES.append(map_BHQK.sum(2).sum(1))
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


AttentionInterface.register("materialised", materialised)
AttentionMaskInterface.register("materialised", sdpa_mask)


@torch.no_grad()
def straightforward_norms(lm: LanguageModel, ids_RT: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """Return the weights of all tokens and the norm of every linear's weighted input.

    As published code does it by default, with two forwards for one sequence at one noise level at a time. The
    first computes a map beside the attention the model uses, the second has hooks on all linears of a block.
    """
    linears = lm.all_linears()
    squares = {place: torch.zeros(linear.in_features) for place, linear in linears.items()}
    weights = []
    former = lm.model.config._attn_implementation
    for ids_BT in ids_RT.split(1):
        MASSES.clear()
        lm.model.set_attn_implementation("materialised")
        lm.model(ids_BT, use_cache=False)
        lm.model.set_attn_implementation(former)
        mass_BT = sum(MASSES)
        threshold_B1 = mass_BT.mean(-1, keepdim=True) + 2 * mass_BT.std(-1, correction=0, keepdim=True)
        weights.append((mass_BT <= threshold_B1).float())

        def observe(module, args, place, weight_BT=weights[-1]):
            masked_BTI = args[0].float() * weight_BT[..., None]
            squares[place] += masked_BTI.norm(dim=(0, 1)) ** 2

        handles = []
        for place, linear in linears.items():
            handles.append(linear.register_forward_pre_hook(partial(observe, place=place)))
        lm.model(ids_BT, use_cache=False)
        for handle in handles:
            handle.remove()
    return torch.cat(weights), {place: square_I.sqrt() for place, square_I in squares.items()}


@pytest.mark.parametrize(
    ("build", "rounds", "goal", "at_least"), [(smol, 3, 2.5, 2.2), (llada_block, 2, 2, 2)]
)
def test_noised_calibration_that_leaves_sinks_out(build, rounds, goal, at_least, record):
    lm, calibration = build()
    recipe = preset("all-sinks", noise_levels=4)
    rows = rows_for(lm, calibration, recipe.statistics_key, progress=False)
    found = {}

    def straightforward():
        found["weights"], found["norms"] = straightforward_norms(lm, rows.ids_RT)

    def ours():
        found["ours"] = dense_statistics(lm, [recipe], calibration, progress=False)[recipe.statistics_key]

    straightforward(), ours()
    assert torch.equal(found["weights"], rows.weight_RT) and 0 < found["ours"].left_out_share < 0.5
    choose = select("row", 0.5)
    masks, their_masks = [], []
    for (layer, name), linear in lm.all_linears().items():
        statistics_of_ours = found["ours"].layers[layer][name]
        statistics_of_theirs = replace(statistics_of_ours, norm_I=found["norms"][layer, name])
        masks.append(choose(wanda(linear.weight, statistics_of_ours), 0, linear.in_features))
        their_masks.append(choose(wanda(linear.weight, statistics_of_theirs), 0, linear.in_features))
    alike = agreement(their_masks, masks)
    ratio, before, after = in_turns(straightforward, ours, rounds)
    record(
        f"calibration that leaves sinks out, {lm.name}, {rows.tokens} tokens",
        ratio,
        before,
        after,
        NAMES,
        at_least=goal,
    )
    print(f"{alike:.6%} of the masks alike")
    assert alike > 0.9999 and ratio >= at_least


# SparseGPT


def _solve(weight_OI, gram_II, sparsity: float = 0.5, block_size: int = 128, damping: float = 0.01):
    """Loop over columns; every one leaves kept weights, losses and errors in matrices of their own."""
    columns = weight_OI.shape[1]
    losses_O = torch.zeros(len(weight_OI))
    gram_II.diagonal().add_(damping * gram_II.diagonal().mean())
    inverse_II = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram_II)), upper=True)
    for first in range(0, columns, block_size):
        last = min(first + block_size, columns)
        part_OP = weight_OI[:, first:last].clone()
        upper_PP = inverse_II[first:last, first:last]
        kept_OP = torch.zeros_like(part_OP)
        errors_OP = torch.zeros_like(part_OP)
        losses_OP = torch.zeros_like(part_OP)
        score_OP = part_OP**2 / upper_PP.diagonal() ** 2
        pruned_OP = score_OP < score_OP.flatten().sort().values[int(score_OP.numel() * sparsity)]
        for column in range(last - first):
            weight_O = part_OP[:, column]
            scale = upper_PP[column, column]
            kept_O = weight_O.clone()
            kept_O[pruned_OP[:, column]] = 0
            kept_OP[:, column] = kept_O
            losses_OP[:, column] = (weight_O - kept_O) ** 2 / scale**2
            error_O = (weight_O - kept_O) / scale
            part_OP[:, column:] -= error_O[:, None] @ upper_PP[None, column, column:]
            errors_OP[:, column] = error_O
        weight_OI[:, first:last] = kept_OP
        losses_O += losses_OP.sum(1) / 2
        weight_OI[:, last:] -= errors_OP @ inverse_II[first:last, last:]
    return weight_OI


def test_sparsegpt_solve(record):
    rng = torch.Generator().manual_seed(0)
    shared = []  # the linears of a block of smol-dlm by their input, with its Gram matrix
    for outputs, inputs in (((576, 192, 192), 576), ((576,), 576), ((1536, 1536), 576), ((576,), 1536)):
        input_NI = torch.randn(2048, inputs, generator=rng)
        weights = [torch.randn(each, inputs, generator=rng) for each in outputs]
        shared.append((weights, input_NI.T @ input_NI))

    def straightforward() -> list[torch.Tensor]:
        return [_solve(each.clone(), gram_II.clone()) for weights, gram_II in shared for each in weights]

    def ours() -> list[torch.Tensor]:
        choose = select("layer", 0.5)
        parts = [
            sparsegpt(weights, gram_II.clone(), choose, None, 0.01, 128)[0] for weights, gram_II in shared
        ]
        return [weight_OI for part in parts for weight_OI in part]

    masks = ([weight_OI == 0 for weight_OI in solve()] for solve in (straightforward, ours))
    assert agreement(*masks) > 0.999
    ratio, before, after = in_turns(straightforward, ours, 7)
    record("SparseGPT's solve, a block of smol-dlm", ratio, before, after, NAMES, at_least=3)
    assert ratio >= 2.5


# selection


def without_ties(shape: tuple[int, int]) -> torch.Tensor:
    """Return scores that all differ, float32: `topk` breaks ties in no stated order."""
    return torch.randperm(shape[0] * shape[1], generator=torch.Generator().manual_seed(0)).float().view(shape)


def columns_one_by_one(score_OI: torch.Tensor, zeros: int, group: int) -> torch.Tensor:
    mask_OI = torch.zeros_like(score_OI, dtype=torch.bool)
    for column in range(0, score_OI.shape[1], group):
        part_OM = score_OI[:, column : column + group]
        mask_OI.scatter_(1, column + part_OM.topk(zeros, dim=1, largest=False).indices, True)
    return mask_OI


def by_sorting(score_OI: torch.Tensor, count: int) -> torch.Tensor:
    order_OI = score_OI.sort(dim=-1, stable=True).indices
    return torch.zeros_like(score_OI, dtype=torch.bool).scatter_(1, order_OI[:, :count], True)


SELECTIONS = {  # name -> the straightforward way, ours, and the goal
    "2:4 masks": (
        lambda score_OI: columns_one_by_one(score_OI, 2, 4),
        lambda score_OI: n_of_m(score_OI, 2, 4),
        5,
    ),
    "half of every row": (
        lambda score_OI: by_sorting(score_OI, score_OI.shape[1] // 2),
        lambda score_OI: lowest(score_OI, score_OI.shape[1] // 2),
        3,
    ),
}


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("shape", [(576, 576), (1536, 576), (576, 1536), (4096, 4096)])
def test_selection(name, shape, record):
    straightforward, ours, at_least = SELECTIONS[name]
    score_OI = without_ties(shape)
    assert torch.equal(straightforward(score_OI), ours(score_OI))
    ratio, before, after = in_turns(lambda: straightforward(score_OI), lambda: ours(score_OI), 7)
    what = f"{name} of {shape[0]} x {shape[1]} scores"
    assert record(what, ratio, before * 1e3, after * 1e3, NAMES, "ms", at_least=at_least)

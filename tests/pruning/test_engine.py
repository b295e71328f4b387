"""Pruning: the weights of a naive float64 calculation, exact counts, and nothing else is changed."""

import dataclasses
import json
from typing import get_args

import naive
import pytest
import torch
from naive import linears_of, same, share_of, weights_of, zeros_of

from sinkprune.models.embedded import START_TOKEN_ID
from sinkprune.models.shrinking import shrink
from sinkprune_core import PRESETS, Calibration, Recipe, preset, prune, weights_kept
from sinkprune_core.pruning import pruning_run, sparsegpt, structured
from sinkprune_core.pruning.choice import decide
from sinkprune_core.pruning.criteria import CRITERIA, Criterion, wanda
from sinkprune_core.pruning.plan import make_plan
from sinkprune_core.pruning.recipe import Propagation, compared_preset
from sinkprune_core.pruning.structured import unit_counts

LEVELS, LENGTH, SEQUENCES = 3, 24, 5
NOISED = {"inputs": "noised", "noise_levels": LEVELS}
PATTERNS = {"row": 0.5, "layer": 0.4, "global": 0.55, "2:4": 0.5, "4:8": 0.5, "1:3": 1 / 3}


def pruned(lm, calibration=None, **fields) -> dict[str, torch.Tensor]:
    """Return the weights after pruning; the model gets its own back."""
    with weights_kept(lm):
        prune(lm, Recipe(**fields), calibration, progress=False)
        return weights_of(lm)


def assert_exact(linear, pattern: str, sparsity: float) -> None:
    """The zeros of a linear are as many as a sparsity asks for, in every row or in all."""
    counts = (linear.weight == 0).sum(1).tolist()
    if pattern == "row":
        assert counts == [share_of(linear.in_features, sparsity)] * linear.out_features
    else:
        assert sum(counts) == share_of(linear.weight.numel(), sparsity)


@pytest.mark.parametrize(
    "recipe",
    [Recipe("sparsegpt"), Recipe("flap", pattern="structured", compensate=True)],
    ids=lambda recipe: recipe.criterion,
)
def test_mixed_precision_of_a_user_changes_no_weight_of_a_pruned_block(
    make_family, calibration, monkeypatch, recipe
):
    """The statistics are those of a forward without it."""
    monkeypatch.setattr(sparsegpt, "DIRECT", 8)  # or no linear is wide enough to be inverted by halves

    def first_block(is_mixed: bool) -> dict[str, torch.Tensor]:
        lm = make_family("llama-gqa")
        run = pruning_run.PruningRun(lm, recipe, calibration, make_plan(lm, recipe, calibration), False)
        source = pruning_run.Statistics(run)
        choice = decide(run, source)
        source.begin(run.resume(source.rows))

        with torch.no_grad(), run.block(0) as block:
            inputs = source.of_block(0, block)
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                choice.zero(0, block, inputs)
        return weights_of(lm)

    assert same(first_block(True), first_block(False))


# parity


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
@pytest.mark.parametrize("family", ["llama-mha", "llama-gqa", "qwen2", "gpt2"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_every_family_equals_a_naive_calculation(
    make_family, make_ids, family, kind, pattern
):
    lm = make_family(family, kind)
    calibration = Calibration(make_ids(3, 12, seed=7), batch=2)
    of_wanda = "dense" if pattern == "global" else "sequential"

    for criterion, propagation in (("magnitude", "sequential"), ("wanda", of_wanda)):
        recipe = Recipe(criterion, PATTERNS[pattern], pattern=pattern, propagation=propagation)
        expected = naive.prune(
            lm, criterion, recipe.sparsity, pattern, calibration.ids_NT, propagation=propagation
        )

        with weights_kept(lm):
            report = prune(lm, recipe, calibration, progress=False)
            assert zeros_of(lm) == expected, criterion

        assert report.linears.zeros.tolist() == [len(places) for places in expected.values()]


@pytest.mark.parametrize("pattern", ["row", "layer"])
@pytest.mark.parametrize("propagation", get_args(Propagation))
def test_allocated_layers_equal_a_naive_calculation_with_exact_counts(
    tiny_ar, calibration, pattern, propagation
):
    sparsities = naive.outlier_sparsities(tiny_ar, 0.5, calibration.ids_NT, times=3.0, owl_lambda=0.1)
    assert len(set(sparsities)) > 1

    expected = naive.prune(tiny_ar, "wanda", sparsities, pattern, calibration.ids_NT, propagation=propagation)
    recipe = Recipe(allocation="owl", pattern=pattern, owl_lambda=0.1, propagation=propagation, owl_m=3.0)

    prune(tiny_ar, recipe, calibration, progress=False)
    assert zeros_of(tiny_ar) == expected

    for (layer, _), linear in linears_of(tiny_ar).items():
        assert_exact(linear, pattern, sparsities[layer])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_criterion_is_one_entry_of_the_table(make_family, make_ids, monkeypatch, pattern):
    """Here: Wanda's score times 2, which prunes as Wanda does; it has no score for units."""
    lm, calibration = make_family("llama-gqa"), Calibration(make_ids(3, 12, seed=7), batch=2)
    fields = {"pattern": pattern, "sparsity": PATTERNS[pattern], "exclude": "all", **NOISED}
    fields |= {"propagation": "dense", "allocation": "owl" if pattern in ("row", "layer") else "uniform"}
    expected = pruned(lm, calibration, criterion="wanda", **fields)

    entry = Criterion(needs="norms", score=lambda weight_OI, inputs: 2 * wanda(weight_OI, inputs))
    monkeypatch.setitem(CRITERIA, "wanda", entry)
    assert same(pruned(lm, calibration, criterion="wanda", **fields), expected)

    with pytest.raises(ValueError, match=r"criterion='wanda' .* takes no pattern='structured'"):
        Recipe("wanda", pattern="structured")


# what the masks depend on


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": "clean"},
        {**NOISED},
        {**NOISED, "exclude": "all", "propagation": "dense"},
        {**NOISED, "exclude": "official", "norm_reduction": "sum", "propagation": "dense"},
        {**NOISED, "exclude": "random"},
    ],
)
def test_the_batch_size_changes_nothing(tiny_dlm, calibration, fields):
    results = [
        pruned(tiny_dlm, dataclasses.replace(calibration, batch=batch), **fields) for batch in (1, 4, 64)
    ]
    assert same(results[0], results[1]) and same(results[0], results[2])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("diffusion", {**NOISED, "propagation": "dense"}),
        ("diffusion", {**NOISED}),
        ("autoregressive", {"noise_levels": LEVELS}),
    ],
)
def test_unstable_equals_none_to_the_bit_where_sinks_never_move(make_anchored_lm, make_ids, kind, fields):
    lm, ids_NT = make_anchored_lm(kind), make_ids(SEQUENCES, LENGTH)
    ids_NT[:, 0] = START_TOKEN_ID
    calibration = Calibration(ids_NT, seed=3)
    none = pruned(lm, calibration, exclude="none", **fields)
    assert same(pruned(lm, calibration, exclude="unstable", **fields), none)
    for tokens in ("all", "stable", "random", "official"):
        assert not same(pruned(lm, calibration, exclude=tokens, **fields), none), tokens


# what pruning leaves


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).pattern != "structured"])
def test_every_count_is_exact_under_every_preset(tiny_dlm, calibration, name):
    sparsity = 0.3
    recipe = compared_preset(name, sparsity=sparsity, noise_levels=LEVELS)
    report = prune(tiny_dlm, recipe, calibration, progress=False)
    for linear in linears_of(tiny_dlm).values():
        assert_exact(linear, recipe.pattern, sparsity)
    zeros = [int((linear.weight == 0).sum()) for linear in linears_of(tiny_dlm).values()]
    assert report.linears.zeros.tolist() == zeros


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).pattern == "structured"])
@pytest.mark.parametrize("family", ["llama-mha", "gpt2"])
def test_structured_presets_leave_what_a_smaller_model_computes(make_family, make_ids, family, name):
    lm, ids_BT = make_family(family), make_ids(2, 10)
    planned = unit_counts(lm, 0.4)
    recipe = compared_preset(name, sparsity=0.4, noise_levels=LEVELS)
    report = prune(lm, recipe, Calibration(make_ids(3, 12), batch=2), progress=False)

    smaller = shrink(lm, report.kept_units)
    torch.testing.assert_close(smaller.hidden(ids_BT), lm.hidden(ids_BT), rtol=1e-4, atol=1e-4)
    assert report.sparsity == pytest.approx(planned.reached)

    zeros = [int((linear.weight == 0).sum()) for linear in linears_of(lm).values()]
    assert report.linears.zeros.tolist() == zeros

    left = sum(linear.weight.numel() for linear in linears_of(smaller).values())
    assert left == report.linears.weights.sum() - sum(zeros)
    json.dumps(report.kept_units)


def test_kept_weights_and_everything_outside_the_linears_keep_their_bits(tiny_dlm, calibration):
    before = weights_of(tiny_dlm)
    prune(tiny_dlm, preset("unstable", noise_levels=LEVELS, sparsity=0.7), calibration, progress=False)
    touched = {f"model.layers.{layer}.{name}.weight" for layer, name in linears_of(tiny_dlm)}
    for name, value in tiny_dlm.model.state_dict().items():
        assert torch.equal(value[value != 0], before[name][value != 0]), name
        assert bool((value == 0).any()) == (name in touched), name


def test_a_report_counts_what_happened(tiny_dlm, calibration):
    recipe = Recipe(exclude="all", sparsity=0.5, **NOISED)
    report = prune(tiny_dlm, recipe, calibration, progress=False)

    frame, linears = report.linears, linears_of(tiny_dlm)
    assert list(zip(frame.layer, frame.name, strict=True)) == list(linears)
    for row, linear in zip(frame.to_dict("records"), linears.values(), strict=True):
        assert (row["rows"], row["columns"]) == tuple(linear.weight.shape)
        assert (row["weights"], row["zeros"]) == (linear.weight.numel(), int((linear.weight == 0).sum()))

    total = sum(linear.weight.numel() for linear in linears.values())
    assert report.sparsity == frame.zeros.sum() / total

    parameters = sum(parameter.numel() for parameter in tiny_dlm.model.parameters())
    assert report.unpruned_parameters == parameters - total

    assert report.calibration_tokens == SEQUENCES * LEVELS * LENGTH
    assert 0 < report.left_out_share < 0.5 and 0 < report.seconds < 600

    card = json.loads(json.dumps(report.card(), allow_nan=False))
    assert Recipe(**card["recipe"]) == recipe
    assert (card["model"], card["pruned_parameters"]) == ("tiny-diffusion", total)
    assert card["unpruned_parameters"] == report.unpruned_parameters


def test_magnitude_reports_no_calibration(tiny_ar, calibration):
    for text in (None, calibration):
        report = prune(tiny_ar, Recipe("magnitude", 0.3), text, progress=False)
        assert (report.calibration_tokens, report.left_out_share) == (0, 0.0)


@pytest.mark.parametrize(
    "fields",
    [{}, {"criterion": "sparsegpt"}, {"criterion": "flap", "pattern": "structured", "compensate": True}],
)
def test_weights_come_back_after_an_exception(tiny_dlm, calibration, fields):
    """Also where compensation gave linears a bias they did not have."""
    before = weights_of(tiny_dlm)

    def interrupted():
        with weights_kept(tiny_dlm):
            prune(tiny_dlm, Recipe(**fields), calibration, progress=False)
            assert not same(weights_of(tiny_dlm), before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert same(weights_of(tiny_dlm), before)
    assert all(linear.bias is None for linear in linears_of(tiny_dlm).values())


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "flap"])
def test_a_weight_that_is_not_finite_is_named(tiny_ar, calibration, criterion):
    tiny_ar.blocks[1].mlp.up_proj.weight[3, 4] = torch.inf
    before = tiny_ar.blocks[1].mlp.up_proj.weight.clone()

    said = (
        r"block 1 mlp\.up_proj: weights or activations are not finite; nothing of this linear was changed, "
        "but those before it are pruned: load the model again, or prune inside `weights_kept`"
    )

    with pytest.raises(ValueError, match=said):
        prune(tiny_ar, Recipe(criterion), calibration, progress=False)

    assert torch.equal(tiny_ar.blocks[1].mlp.up_proj.weight, before)
    assert bool((tiny_ar.blocks[0].mlp.up_proj.weight == 0).any())


def test_an_error_before_the_first_zero_says_that_nothing_was_changed(tiny_ar, calibration):
    tiny_ar.blocks[0].self_attn.q_proj.weight[3, 4] = torch.inf
    with pytest.raises(ValueError, match="nothing of this linear was changed, nor of any other"):
        prune(tiny_ar, Recipe(), calibration, progress=False)
    weights = weights_of(tiny_ar).values()
    assert not any(bool((weight_OI == 0).any()) for weight_OI in weights)


# what is done once, or not at all


def test_units_are_counted_once(tiny_dlm, calibration, monkeypatch):
    counted = []

    def counting(*given):
        counted.append(given)
        return unit_counts(*given)

    monkeypatch.setattr(structured, "unit_counts", counting)
    prune(tiny_dlm, preset("structured", sparsity=0.4), calibration, progress=False)
    assert len(counted) == 1


def test_magnitude_observes_nothing_and_runs_no_forward(tiny_dlm, calibration, monkeypatch):
    monkeypatch.setattr(pruning_run, "observe", lambda *_: pytest.fail("inputs were observed"))
    monkeypatch.setattr(type(tiny_dlm.blocks[0]), "forward", lambda *_: pytest.fail("a block ran"))
    report = prune(tiny_dlm, Recipe("magnitude"), calibration, progress=False)
    assert report.sparsity == pytest.approx(0.5, abs=0.01)


def test_a_model_whose_weights_are_elsewhere_is_refused(tiny_dlm, calibration):
    tiny_dlm.blocks.to("meta")
    with pytest.raises(ValueError, match="tiny-diffusion has no weights in memory"):
        prune(tiny_dlm, Recipe("magnitude"), progress=False)


def test_reports_and_texts_can_be_compared(tiny_dlm, calibration):
    """Each is equal to itself alone: they hold tensors, whose equality is none or many."""
    report = prune(tiny_dlm, Recipe("magnitude"), progress=False)
    for one in (report, calibration):
        assert one == one
        assert one != dataclasses.replace(one)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"criterion": "sparsegpt"},
        {"propagation": "dense"},
        {"propagation": "dense", "pattern": "global"},
        {"pattern": "structured"},
    ],
)
def test_activations_that_are_not_finite_are_named(tiny_ar, calibration, fields):
    tiny_ar.blocks[1].input_layernorm.weight[2] = torch.nan
    before = tiny_ar.blocks[1].self_attn.q_proj.weight.clone()
    with pytest.raises(
        ValueError, match=r"block 1 (self_attn\.q_proj|attention): weights or activations are not finite"
    ):
        prune(tiny_ar, Recipe(**fields), calibration, progress=False)
    assert torch.equal(tiny_ar.blocks[1].self_attn.q_proj.weight, before)

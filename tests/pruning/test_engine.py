"""Pruning: the same weights as a naive float64 calculation from the formulas, exact counts, and nothing else touched."""

import dataclasses
import json
import math

import naive
import pytest
import torch
from naive import linears_of, same, weights_of, zeros_of

from sinkprune_core.models.catalog import MODELS
from sinkprune_core.models.embedded import START_TOKEN_ID
from sinkprune_core.models.language_model import weight_OI
from sinkprune_core.pruning import engine
from sinkprune_core.pruning.calibration import (
    BY_ROW,
    EXCLUDE,
    Calibration,
    Rows,
    SinkContext,
    rows_for,
    trajectory,
)
from sinkprune_core.pruning.cost import meta_model, pruning_cost
from sinkprune_core.pruning.criteria import CRITERIA, wanda
from sinkprune_core.pruning.engine import (
    PRESETS,
    Recipe,
    block_inputs,
    dense_statistics,
    preset,
    prune,
    run_block,
    weights_kept,
)
from sinkprune_core.pruning.input_statistics import observe
from sinkprune_core.pruning.patterns import select
from sinkprune_core.pruning.recipe import PROPAGATION
from sinkprune_core.pruning.structured import plan, shrink

LEVELS, LENGTH, SEQUENCES = 3, 24, 5
NOISED = {"inputs": "noised", "noise_levels": LEVELS}
PATTERNS = {"row": 0.5, "layer": 0.4, "global": 0.55, "2:4": 0.5, "4:8": 0.5, "1:3": 1 / 3}


def pruned(lm, calibration=None, **fields) -> dict[str, torch.Tensor]:
    """Return the weights after pruning; the model gets its own back."""
    with weights_kept(lm):
        prune(lm, Recipe(**fields), calibration, progress=False)
        return weights_of(lm)


@pytest.fixture
def calibration(make_ids) -> Calibration:
    """Text on which no score lies closer to a border than 1e-5 of its value, so that rounding decides nothing."""
    return Calibration(make_ids(SEQUENCES, LENGTH, seed=7), seed=3, batch=4)


def noised(lm, calibration, noise: str = "grid", noise_levels: int = LEVELS) -> torch.Tensor:
    return trajectory(lm, calibration, noise_levels, noise).flatten(0, 1)


# parity


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
@pytest.mark.parametrize("family", ["llama-mha", "llama-gqa", "qwen2", "gpt2"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_every_family_equals_a_naive_calculation(
    make_family, make_ids, family, kind, pattern
):
    lm, calibration, sparsity = (
        make_family(family, kind),
        Calibration(make_ids(3, 12, seed=7), batch=2),
        PATTERNS[pattern],
    )
    for criterion, propagation in [
        ("magnitude", "sequential"),
        ("wanda", "dense" if pattern == "global" else "sequential"),
    ]:
        expected = naive.prune(lm, criterion, sparsity, pattern, calibration.ids_NT, propagation=propagation)
        with weights_kept(lm):
            report = prune(
                lm,
                Recipe(criterion, sparsity, pattern=pattern, propagation=propagation),
                calibration,
                progress=False,
            )
            assert zeros_of(lm) == expected, criterion
        assert report.linears.zeros.tolist() == [len(places) for places in expected.values()]


@pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.97])
@pytest.mark.parametrize("pattern", ["row", "layer", "global"])
def test_magnitude_equals_a_naive_calculation_at_every_sparsity(tiny_ar, pattern, sparsity):
    expected = naive.prune(tiny_ar, "magnitude", sparsity, pattern)
    prune(tiny_ar, Recipe("magnitude", sparsity, pattern=pattern), progress=False)
    assert zeros_of(tiny_ar) == expected


@pytest.mark.parametrize("propagation", PROPAGATION)
@pytest.mark.parametrize(
    ("kind", "shape", "inputs"),
    [
        ("autoregressive", "gqa", "clean"),
        ("autoregressive", "mha", "clean"),
        ("diffusion", "gqa", "clean"),
        ("diffusion", "gqa", "noised"),
        ("diffusion", "mha", "noised"),
    ],
)
def test_wanda_equals_a_naive_calculation(make_lm, calibration, kind, shape, inputs, propagation):
    lm = make_lm(kind, shape)
    ids_RT = noised(lm, calibration) if inputs == "noised" else calibration.ids_NT
    for norm in ("root", "sum"):
        expected = naive.prune(lm, "wanda", 0.5, "row", ids_RT, propagation=propagation, norm_reduction=norm)
        with weights_kept(lm):
            prune(
                lm,
                Recipe(inputs=inputs, propagation=propagation, noise_levels=LEVELS, norm_reduction=norm),
                calibration,
                progress=False,
            )
            assert zeros_of(lm) == expected


def test_propagation_differs_as_the_naive_references_do(tiny_ar, calibration):
    """Both settings prune the first block alike; from the second on they see other inputs."""
    references = {
        name: naive.prune(tiny_ar, "wanda", 0.6, "row", calibration.ids_NT, propagation=name)
        for name in PROPAGATION
    }
    differing = {
        place[0] for place, places in references["dense"].items() if references["sequential"][place] != places
    }
    assert differing == {1, 2}
    for propagation, expected in references.items():
        with weights_kept(tiny_ar):
            prune(tiny_ar, Recipe(sparsity=0.6, propagation=propagation), calibration, progress=False)
            assert zeros_of(tiny_ar) == expected


@pytest.mark.parametrize("allocation", ["linear", "linear-reverse", "owl"])
@pytest.mark.parametrize("pattern", ["row", "layer"])
@pytest.mark.parametrize("propagation", PROPAGATION)
def test_allocated_layers_equal_a_naive_calculation_with_exact_counts(
    tiny_ar, calibration, allocation, pattern, propagation
):
    slope = {"linear": [0.6, 0.5, 0.4], "linear-reverse": [0.4, 0.5, 0.6]}
    sparsities = slope.get(allocation) or naive.outlier_sparsities(
        tiny_ar, 0.5, calibration.ids_NT, times=3.0, owl_lambda=0.1
    )
    assert len(set(sparsities)) > 1
    expected = naive.prune(tiny_ar, "wanda", sparsities, pattern, calibration.ids_NT, propagation=propagation)
    prune(
        tiny_ar,
        Recipe(allocation=allocation, pattern=pattern, owl_lambda=0.1, owl_m=3.0, propagation=propagation),
        calibration,
        progress=False,
    )
    assert zeros_of(tiny_ar) == expected
    for (layer, name), linear in linears_of(tiny_ar).items():
        columns, rows = linear.in_features, linear.out_features
        counts = (linear.weight == 0).sum(1).tolist()
        assert (
            counts == [math.floor(columns * sparsities[layer])] * rows
            if pattern == "row"
            else sum(counts) == math.floor(rows * columns * sparsities[layer])
        ), name


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


@pytest.mark.parametrize("tokens", ["none", "all"])
def test_the_order_of_clean_sequences_changes_nothing(tiny_ar, calibration, tokens):
    fields = {"exclude": tokens, "noise_levels": LEVELS, "sink_std": 1.0}
    turned = dataclasses.replace(calibration, ids_NT=calibration.ids_NT.flip(0))
    assert same(pruned(tiny_ar, calibration, **fields), pruned(tiny_ar, turned, **fields))
    assert not same(
        pruned(tiny_ar, calibration, **fields),
        pruned(tiny_ar, dataclasses.replace(calibration, ids_NT=calibration.ids_NT[:2]), **fields),
    )


def test_a_constant_weight_on_every_token_is_no_weight(tiny_dlm, calibration):
    """Only ratios between tokens count."""
    rows = rows_for(tiny_dlm, calibration, Recipe(**NOISED).statistics_key, progress=False)
    halved, masks = Rows(rows.ids_RT, torch.full(rows.ids_RT.shape, 0.5)), []
    for choice in (rows, halved):
        with observe(tiny_dlm.linears(tiny_dlm.blocks[0])) as observer:
            run_block(tiny_dlm.blocks[0], block_inputs(tiny_dlm, choice, batch=4), observer)
        masks.append(
            [
                select("row", 0.5)(wanda(linear.weight, observer.seen()[name].norm_I), 0, linear.in_features)
                for name, linear in tiny_dlm.linears(tiny_dlm.blocks[0]).items()
            ]
        )
    assert all(torch.equal(one, other) for one, other in zip(*masks, strict=True))


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["row", "2:4"])
def test_inputs_that_are_always_zero_are_pruned_first(make_family, make_ids, criterion, pattern):
    lm, dead = make_family("llama-gqa"), [1, 2, 5, 20]  # two of the first group of four
    for block in lm.blocks:
        block.input_layernorm.weight[dead] = 0.0
        block.self_attn.q_proj.weight[:, dead] = 100.0
    prune(lm, Recipe(criterion, pattern=pattern), Calibration(make_ids(3, 12)), progress=False)
    for block in lm.blocks:
        for projection in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            assert not projection.weight[:, dead].any()
            assert (projection.weight == 0).sum(1).tolist() == [12] * projection.out_features


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


def test_every_choice_of_tokens_differs_from_none_where_sinks_move(tiny_dlm, calibration):
    none = pruned(tiny_dlm, calibration, **NOISED)
    for tokens in set(EXCLUDE) - {"none"}:
        assert not same(
            pruned(tiny_dlm, calibration, exclude=tokens, stability_threshold=0.6, **NOISED), none
        ), tokens


def test_a_threshold_of_0_turns_unstable_into_none_and_stable_into_all(tiny_dlm, calibration):
    fields = {**NOISED, "propagation": "dense", "stability_threshold": 0.0}
    results = {
        tokens: pruned(tiny_dlm, calibration, exclude=tokens, **fields)
        for tokens in ("none", "unstable", "stable", "all")
    }
    assert same(results["unstable"], results["none"]) and same(results["stable"], results["all"])
    assert not same(results["none"], results["all"])


def test_random_leaves_out_as_much_as_all(tiny_dlm, calibration):
    shares = []
    for tokens in ("all", "random"):
        with weights_kept(tiny_dlm):
            shares.append(
                prune(tiny_dlm, Recipe(exclude=tokens, **NOISED), calibration, progress=False).left_out_share
            )
    assert shares[0] == shares[1] > 0


def test_direction_reaches_pruning_through_attention_alone(tiny_ar, tiny_dlm, calibration):
    """Equal weights, equal text: only what attention sees differs, so the first block's first linears agree and later ones do not."""
    ar, dlm = pruned(tiny_ar, calibration), pruned(tiny_dlm, calibration)
    for name in ("q_proj", "k_proj", "v_proj"):
        assert torch.equal(
            ar[f"model.layers.0.self_attn.{name}.weight"], dlm[f"model.layers.0.self_attn.{name}.weight"]
        )
    assert not torch.equal(
        ar["model.layers.0.self_attn.o_proj.weight"], dlm["model.layers.0.self_attn.o_proj.weight"]
    )


# what pruning leaves


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).pattern != "structured"])
def test_every_count_is_exact_under_every_preset(tiny_dlm, calibration, name, sparsity):
    recipe = preset(name, sparsity=sparsity, noise_levels=LEVELS)
    report = prune(tiny_dlm, recipe, calibration, progress=False)
    for linear in linears_of(tiny_dlm).values():
        counts, expected = (
            (linear.weight == 0).sum(1).tolist(),
            [math.floor(linear.in_features * sparsity)] * linear.out_features,
        )
        assert (
            counts == expected
            if recipe.pattern == "row"
            else sum(counts) == math.floor(linear.weight.numel() * sparsity)
        )
    assert report.linears.zeros.sum() == sum(
        int((linear.weight == 0).sum()) for linear in linears_of(tiny_dlm).values()
    )


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).pattern == "structured"])
@pytest.mark.parametrize("family", ["llama-mha", "gpt2"])
def test_structured_presets_leave_what_a_smaller_model_computes(make_family, make_ids, family, name):
    lm, ids_BT = make_family(family), make_ids(2, 10)
    planned = plan(lm, 0.4)
    report = prune(
        lm,
        preset(name, sparsity=0.4, noise_levels=LEVELS),
        Calibration(make_ids(3, 12), batch=2),
        progress=False,
    )
    smaller = shrink(lm, report.kept_units)
    torch.testing.assert_close(smaller.hidden(ids_BT), lm.hidden(ids_BT), rtol=1e-4, atol=1e-4)
    assert report.sparsity == pytest.approx(planned.reached)
    assert report.linears.zeros.tolist() == [
        int((weight_OI(linear) == 0).sum()) for linear in linears_of(lm).values()
    ]
    assert (
        sum(linear.weight.numel() for block in smaller.blocks for linear in smaller.linears(block).values())
        == report.linears.weights.sum() - report.linears.zeros.sum()
    )
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
    assert report.sparsity == sum(int((linear.weight == 0).sum()) for linear in linears.values()) / total
    assert (
        report.unpruned_parameters
        == sum(parameter.numel() for parameter in tiny_dlm.model.parameters()) - total
    )
    assert report.calibration_tokens == SEQUENCES * LEVELS * LENGTH
    assert 0 < report.left_out_share < 0.5
    card = json.loads(json.dumps(report.card(), allow_nan=False))
    assert Recipe(**card["recipe"]) == recipe
    assert (card["model"], card["pruned_parameters"], card["unpruned_parameters"]) == (
        "tiny-diffusion",
        total,
        report.unpruned_parameters,
    )


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
    with pytest.raises(KeyboardInterrupt), weights_kept(tiny_dlm):
        prune(tiny_dlm, Recipe(**fields), calibration, progress=False)
        assert not same(weights_of(tiny_dlm), before)
        raise KeyboardInterrupt
    assert same(weights_of(tiny_dlm), before)
    assert all(linear.bias is None for linear in linears_of(tiny_dlm).values())


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_a_model_in_bfloat16_is_pruned_to_the_same_counts(tiny_dlm, calibration, criterion):
    tiny_dlm.model.to(torch.bfloat16)
    prune(tiny_dlm, Recipe(criterion, sparsity=0.5, **NOISED), calibration, progress=False)
    for linear in linears_of(tiny_dlm).values():
        assert linear.weight.dtype == torch.bfloat16
        assert (linear.weight == 0).sum(1).tolist() == [linear.in_features // 2] * linear.out_features


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "flap"])
def test_a_weight_that_is_not_finite_is_named(tiny_ar, calibration, criterion):
    tiny_ar.blocks[1].mlp.up_proj.weight[3, 4] = torch.inf
    before = tiny_ar.blocks[1].mlp.up_proj.weight.clone()
    with pytest.raises(
        ValueError,
        match="block 1 mlp.up_proj: weights or activations are not finite; nothing of this linear was changed",
    ):
        prune(tiny_ar, Recipe(criterion), calibration, progress=False)
    assert torch.equal(tiny_ar.blocks[1].mlp.up_proj.weight, before)


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
        ValueError, match="block 1 (self_attn.q_proj|attention): weights or activations are not finite"
    ):
        prune(tiny_ar, Recipe(**fields), calibration, progress=False)
    assert torch.equal(tiny_ar.blocks[1].self_attn.q_proj.weight, before)


# statistics shared by recipes


def test_statistics_shared_by_many_recipes_prune_as_each_recipe_alone_does(tiny_dlm, calibration):
    recipes = [
        preset(name, sparsity=share, noise_levels=LEVELS)
        for name in (
            "noised-dense",
            "all-sinks",
            "unstable",
            "stable",
            "random",
            "only-sinks",
            "paper",
            "paper-dream",
        )
        for share in (0.3, 0.6)
    ]
    recipes += [
        Recipe(propagation="dense", exclude=tokens, noise_levels=LEVELS, sink_std=sink_std)
        for tokens in ("none", "all")
        for sink_std in (1.0, 2.0)
    ]
    shared = dense_statistics(tiny_dlm, recipes, calibration, progress=False)
    results = set()
    for recipe in recipes:
        masks = []
        for known in (None, shared[recipe.statistics_key]):
            with weights_kept(tiny_dlm):
                report = prune(tiny_dlm, recipe, calibration, progress=False, statistics=known)
                masks.append(torch.cat([linear.weight.flatten() for linear in linears_of(tiny_dlm).values()]))
            assert report.calibration_tokens == shared[recipe.statistics_key].tokens
        assert torch.equal(*masks), recipe
        results.add(masks[0].numpy().tobytes())
    assert len(results) > 6, "recipes that all prune alike would show nothing"


def saw_the_same(once, walked, rtol: float = 1e-6) -> None:
    assert (once.tokens, once.left_out_share) == (
        walked.tokens,
        pytest.approx(walked.left_out_share, abs=rtol),
    )
    for layer_once, layer_walked in zip(once.seen, walked.seen, strict=True):
        assert list(layer_once) == list(layer_walked)
        for name, seen in layer_once.items():
            for field in ("norm_I", "summed_I", "mean_I", "variance_I"):
                torch.testing.assert_close(
                    getattr(seen, field), getattr(layer_walked[name], field), rtol=rtol, atol=2 * rtol
                )
            assert seen.count == pytest.approx(layer_walked[name].count, rel=rtol)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("diffusion", ["noised-dense", "all-sinks", "unstable", "random", "paper", "paper-dream"]),
        ("autoregressive", ["wanda"]),
    ],
)
def test_one_pass_and_a_walk_by_blocks_find_the_same(make_lm, calibration, monkeypatch, kind, names):
    """A model whose inputs cannot all wait is looked at twice: once for its sinks, once block by block."""
    lm, found = make_lm(kind), []
    recipes = (
        [preset(name, noise_levels=LEVELS, propagation="dense") for name in names]
        if kind == "diffusion"
        else [
            Recipe(propagation="dense", exclude=tokens, noise_levels=LEVELS, sink_std=1.0)
            for tokens in ("all", "random", "unstable")
        ]
    )
    for waiting in (engine.WAITING_BYTES, 0):
        monkeypatch.setattr(engine, "WAITING_BYTES", waiting)
        found.append(dense_statistics(lm, recipes, calibration, progress=False))
    for recipe in recipes:
        once, walked = (each[recipe.statistics_key] for each in found)
        saw_the_same(once, walked)
        results = []
        for known in (once, walked):
            with weights_kept(lm):
                prune(lm, recipe, calibration, progress=False, statistics=known)
                results.append(weights_of(lm))
        assert same(*results)


LOOKS = {
    tokens: Recipe(exclude=tokens, propagation="dense", stability_threshold=0.6, **NOISED)
    for tokens in EXCLUDE
}


@pytest.mark.parametrize(
    "choices",
    [*([tokens] for tokens in EXCLUDE), ["all", "only", "official"], ["all", "random"], [*EXCLUDE]],
    ids=" ".join,
)
def test_every_choice_of_tokens_sees_in_one_pass_what_it_sees_in_two_whatever_the_batch(
    tiny_dlm, calibration, monkeypatch, choices
):
    """One state at a time where the choices allow it, else one trajectory; one that may see more than its row needs all of it."""
    recipes, shapes, hidden = [LOOKS[tokens] for tokens in choices], [], type(tiny_dlm).hidden
    monkeypatch.setattr(
        type(tiny_dlm),
        "hidden",
        lambda lm, ids_BT, *masks: shapes.append(len(ids_BT)) or hidden(lm, ids_BT, *masks),
    )
    found = {}
    for batch in (1, 4, 64):
        found[batch] = dense_statistics(
            tiny_dlm, recipes, dataclasses.replace(calibration, batch=batch), progress=False
        )
        rows = batch if set(choices) <= BY_ROW else LEVELS * max(1, batch // LEVELS)
        assert (
            shapes == []
            if choices == ["none"]
            else max(shapes) == min(rows, LEVELS * SEQUENCES) and sum(shapes) == LEVELS * SEQUENCES
        )
        shapes.clear()
    monkeypatch.setattr(engine, "WAITING_BYTES", 0)
    walked = dense_statistics(tiny_dlm, recipes, calibration, progress=False)
    assert not shapes
    for recipe in recipes:
        for each in found.values():
            saw_the_same(
                each[recipe.statistics_key],
                walked[recipe.statistics_key],
                rtol=1e-4 if recipe.exclude == "official" else 1e-6,
            )  # its sigmoid is steep


def test_choices_by_row_are_those_whose_weights_ignore_the_other_states():
    """And no choice that looks at a trajectory is among them."""
    profile_NST, visible_ST = (
        torch.rand(4, 5, 40, generator=torch.Generator().manual_seed(0)).pow(4),
        torch.ones(5, 40, dtype=torch.bool),
    )

    def chosen(tokens: str, noise_levels: int, alpha: float | None = None):
        look = dataclasses.replace(LOOKS[tokens].statistics_key, alpha=alpha)
        return EXCLUDE[tokens](
            SinkContext(
                profile_NST.view(-1, noise_levels, 40),
                visible_ST[:noise_levels],
                look,
                units=9,
                seed=0,
                first=0,
            )
        ).view_as(profile_NST)

    assert {tokens for tokens in EXCLUDE if torch.equal(chosen(tokens, 1), chosen(tokens, 5))} == BY_ROW
    assert all(torch.equal(chosen(tokens, 1, 3.0), chosen(tokens, 5, 3.0)) for tokens in ("all", "official"))


def test_a_choice_of_ones_own_sees_whole_trajectories_unless_it_is_declared_by_row(
    tiny_dlm, calibration, monkeypatch
):
    seen = []
    monkeypatch.setitem(
        EXCLUDE,
        "mine",
        lambda sighting: seen.append(tuple(sighting.profile_NST.shape[:2])) or sighting.sinks_NST,
    )
    recipes = [Recipe(exclude=tokens, propagation="dense", **NOISED) for tokens in ("mine", "all")]
    dense_statistics(tiny_dlm, recipes, calibration, progress=False)
    assert set(seen) == {(1, LEVELS)}
    monkeypatch.setattr(engine, "BY_ROW", BY_ROW | {"mine"})
    found = dense_statistics(tiny_dlm, recipes, calibration, progress=False)
    assert set(seen[SEQUENCES:]) == {(4, 1), (3, 1)}, "15 rows in batches of 4"
    saw_the_same(found[recipes[0].statistics_key], found[recipes[1].statistics_key])


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
@pytest.mark.parametrize("family", ["llama-mha", "llama-gqa", "qwen2", "gpt2"])
def test_a_row_takes_the_bytes_that_its_inputs_hold(make_family, make_ids, family, kind):
    """Linears that read one tensor hold it once."""
    lm = make_family(family, kind)
    linears = {
        (layer, name): linear
        for layer, block in enumerate(lm.blocks)
        for name, linear in lm.linears(block).items()
    }
    with observe(linears, deferred=True) as observer:
        lm.hidden(make_ids(3, 10))
        held = {
            input_BTI.data_ptr(): input_BTI.untyped_storage().nbytes() for _, input_BTI in observer._waiting
        }
    assert sum(held.values()) == 3 * engine.row_bytes(lm, 10) and len(held) == 4 * len(lm.blocks)


def test_one_pass_needs_room_for_a_row_or_for_a_trajectory(tiny_dlm, tiny_ar, calibration):
    size = engine.row_bytes(tiny_dlm, LENGTH)
    one_pass = lambda choices, memory_budget, lm=tiny_dlm, **fields: engine.one_pass(
        lm,
        [dataclasses.replace(LOOKS[tokens], **fields).statistics_key for tokens in choices],
        calibration,
        memory_budget,
    )
    assert [one_pass(["all", "official"], budget) for budget in (size - 1, size)] == [0, 4]
    assert [one_pass(["all", "unstable"], budget) for budget in (size * LEVELS - 1, size * LEVELS)] == [
        0,
        LEVELS,
    ]
    assert one_pass(["all"], size, inputs="clean") == 0, (
        "sinks show in other forwards than those whose inputs are wanted"
    )
    assert one_pass(["unstable"], size, tiny_ar, inputs="clean") == 4, "a causal trajectory is one forward"


def test_an_8b_model_at_4096_tokens_gets_one_pass_on_a_gpu_of_80_gb(monkeypatch):
    """From shapes alone: a row fits beside the model, a trajectory does not; on a CPU neither does."""
    lm, text = (
        meta_model(MODELS["GSAI-ML/LLaDA-8B-Base"], "bfloat16"),
        Calibration(torch.zeros(2, 4096, dtype=torch.long), batch=1),
    )
    assert engine.row_bytes(lm, 4096) == 32 * (3 * 4096 + 12288) * 4096 * 2
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, int(80e9)))
    rooms = {device: engine.input_budget(device) for device in ("cpu", "cuda", torch.device("cuda", 1))}
    assert rooms == {"cpu": 1 << 30, "cuda": 20e9, torch.device("cuda", 1): 20e9}
    once = {
        device: {
            name
            for name in ("all-sinks", "paper", "only-sinks", "unstable", "random")
            if engine.one_pass(lm, [preset(name).statistics_key], text, rooms[device])
        }
        for device in ("cpu", "cuda")
    }
    assert once == {"cpu": set(), "cuda": {"all-sinks", "paper", "only-sinks"}}
    costs = {
        name: pruning_cost(lm, preset(name), text, speed=1.0, memory_budget=rooms["cuda"])
        for name in ("noised-dense", "paper", "unstable")
    }
    assert (
        costs["noised-dense"].flops * preset("paper").noise_levels / preset("noised-dense").noise_levels
        == costs["paper"].flops
    )
    assert costs["unstable"].flops == 2 * costs["noised-dense"].flops
    assert engine.row_bytes(lm, 4096) < costs["paper"].memory - 16.03e9 < 2 * engine.row_bytes(lm, 4096)

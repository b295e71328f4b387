"""Pruning: the same weights as a naive float64 calculation from the formulas, exact counts, and nothing else touched."""

import copy
import dataclasses
import json
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sinkprune_core.calibration import TOKENS, Calibration, Rows, noised_trajectory, rows_for
from sinkprune_core.criteria import CRITERIA, magnitude, wanda
from sinkprune_core.embedded import START_TOKEN_ID
from sinkprune_core.patterns import rowwise
from sinkprune_core.pruning import PRESETS, PROPAGATION, Recipe, block_inputs, dense_statistics, preset, prune, run_block, weights_kept
from sinkprune_core.statistics import ColumnNorms, observe

LEVELS, LENGTH, SEQUENCES = 3, 24, 5
NOISED = {"inputs": "noised", "levels": LEVELS}


def linears_of(model) -> dict[tuple[int, str], nn.Linear]:
    return {(layer, name): module for layer, block in enumerate(model.model.layers) for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def naive_inputs(model, ids_RT) -> dict[tuple[int, str], list]:
    """Return what every linear receives in a full forward of a float64 model: per row and token, a list of features."""
    seen, handles = {}, []
    for place, linear in linears_of(model).items():
        handles.append(linear.register_forward_pre_hook(lambda module, args, place=place: seen.__setitem__(place, args[0].flatten(0, 1).tolist())))
    model.model(ids_RT, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def naive_lowest(scores: list[float], sparsity: float) -> set[int]:
    """Return the places of the lowest scores, ties by lowest place."""
    return set(sorted(range(len(scores)), key=lambda place: (scores[place], place))[: math.floor(len(scores) * sparsity)])


def naive_prune(lm, criterion: str, sparsity: float, ids_RT=None, weights: list[float] | None = None, propagation: str = "sequential") -> dict:
    """Return the pruned places of every row of every linear, by lists and loops in float64; `weights` has one number per token."""
    dense = copy.deepcopy(lm.model).double()
    work, pruned = copy.deepcopy(dense), {}
    for layer in range(len(lm.blocks)):
        inputs = naive_inputs(work if propagation == "sequential" else dense, ids_RT) if criterion == "wanda" else {}
        for (at, name), linear in linears_of(work).items():
            if at != layer:
                continue
            norms = [1.0] * linear.in_features
            if criterion == "wanda":
                tokens = inputs[at, name]
                w = weights or [1.0] * len(tokens)
                norms = [math.sqrt(sum((w[token] * tokens[token][column]) ** 2 for token in range(len(tokens)))) for column in range(linear.in_features)]
            for row, values in enumerate(linear.weight.tolist()):
                places = naive_lowest([abs(value) * norm for value, norm in zip(values, norms, strict=True)], sparsity)
                linear.weight[row, list(places)] = 0
                pruned[layer, name, row] = places
    return pruned


def zeros_of(lm) -> dict:
    return {(layer, name, row): set((values == 0).nonzero().flatten().tolist()) for (layer, name), linear in linears_of(lm.model).items() for row, values in enumerate(linear.weight)}


def weights_of(lm) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in lm.model.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    """Return whether two sets of weights are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def pruned(lm, calibration=None, **fields) -> dict[str, torch.Tensor]:
    """Return the weights after pruning; the model gets its own back."""
    with weights_kept(lm):
        prune(lm, Recipe(**fields), calibration, progress=False)
        return weights_of(lm)


@pytest.fixture
def calibration(make_ids) -> Calibration:
    """Text on which no score lies closer to a border than 1e-5 of its value, so that rounding decides nothing."""
    return Calibration(make_ids(SEQUENCES, LENGTH, seed=7), seed=3, batch=4)


# parity


@pytest.mark.parametrize("kind, shape", [("autoregressive", "gqa"), ("diffusion", "mha")])
@pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.5, 0.97])
def test_magnitude_equals_a_naive_calculation(make_lm, kind, shape, sparsity):
    lm = make_lm(kind, shape)
    expected = naive_prune(lm, "magnitude", sparsity)
    prune(lm, Recipe("magnitude", sparsity), progress=False)
    assert zeros_of(lm) == expected


@pytest.mark.parametrize("propagation", PROPAGATION)
@pytest.mark.parametrize("kind, shape, inputs", [("autoregressive", "gqa", "clean"), ("autoregressive", "mha", "clean"), ("diffusion", "gqa", "clean"), ("diffusion", "gqa", "noised"), ("diffusion", "mha", "noised")])
def test_wanda_equals_a_naive_calculation(make_lm, calibration, kind, shape, inputs, propagation):
    lm = make_lm(kind, shape)
    ids_RT = noised_trajectory(lm, calibration, LEVELS).flatten(0, 1) if inputs == "noised" else calibration.ids_NT
    expected = naive_prune(lm, "wanda", 0.5, ids_RT, propagation=propagation)
    prune(lm, Recipe(inputs=inputs, propagation=propagation, levels=LEVELS), calibration, progress=False)
    assert zeros_of(lm) == expected


def naive_weights(lm, calibration, tokens: str, inputs: str, stable_from: float) -> list[float]:
    """Return a weight per calibration token, in row-major order, from transformers' own attention maps, with loops."""
    lm.model.set_attn_implementation("eager")
    weights = []
    for states_ST in noised_trajectory(lm, calibration, LEVELS):
        sinks = []
        for state_T in states_ST:
            maps = lm.model.base_model(state_T[None], use_cache=False, output_attentions=True).attentions
            mass = torch.stack(maps).double().mean((0, 1, 2)).sum(0).tolist()
            border = statistics.fmean(mass) + 2 * statistics.pstdev(mass)
            sinks.append([value > border for value in mass])
        stable = [sum(step[key] for step in sinks) >= stable_from * LEVELS for key in range(LENGTH)]
        out = {
            "all": lambda step, key, sinks=sinks: sinks[step][key],
            "only": lambda step, key, sinks=sinks: not sinks[step][key],
            "stable": lambda step, key, sinks=sinks, stable=stable: sinks[step][key] and stable[key],
            "unstable": lambda step, key, sinks=sinks, stable=stable: sinks[step][key] and not stable[key],
        }[tokens]
        if inputs == "noised":
            weights += [0.0 if out(step, key) else 1.0 for step in range(LEVELS) for key in range(LENGTH)]
        else:
            weights += [1 - sum(out(step, key) for step in range(LEVELS)) / LEVELS for key in range(LENGTH)]
    lm.model.set_attn_implementation("sdpa")
    return weights


@pytest.mark.parametrize("tokens", ["all", "unstable", "stable", "only"])
@pytest.mark.parametrize("inputs, propagation", [("noised", "dense"), ("noised", "sequential"), ("clean", "dense")])
def test_sink_aware_wanda_equals_a_naive_calculation(tiny_dlm, calibration, tokens, inputs, propagation):
    ids_RT = noised_trajectory(tiny_dlm, calibration, LEVELS).flatten(0, 1) if inputs == "noised" else calibration.ids_NT
    weights = naive_weights(tiny_dlm, calibration, tokens, inputs, 0.6)
    assert len(set(weights)) > 1
    expected = naive_prune(tiny_dlm, "wanda", 0.5, ids_RT, weights, propagation)
    report = prune(tiny_dlm, Recipe(inputs=inputs, propagation=propagation, tokens=tokens, levels=LEVELS, stable_from=0.6), calibration, progress=False)
    assert zeros_of(tiny_dlm) == expected
    assert report.left_out_share == pytest.approx(sum(weight < 1 for weight in weights) / len(weights))


def test_propagation_differs_as_the_naive_references_do(tiny_ar, calibration):
    """Both settings prune the first block alike; from the second on they see other inputs."""
    references = {name: naive_prune(tiny_ar, "wanda", 0.6, calibration.ids_NT, propagation=name) for name in PROPAGATION}
    differing = {layer for (layer, name, row), places in references["dense"].items() if references["sequential"][layer, name, row] != places}
    assert differing == {1, 2}
    for propagation, expected in references.items():
        with weights_kept(tiny_ar):
            prune(tiny_ar, Recipe(sparsity=0.6, propagation=propagation), calibration, progress=False)
            assert zeros_of(tiny_ar) == expected


# what the masks depend on


@pytest.mark.parametrize("fields", [{"inputs": "clean"}, {**NOISED}, {**NOISED, "tokens": "all", "propagation": "dense"}, {**NOISED, "tokens": "random"}])
def test_the_batch_size_changes_nothing(tiny_dlm, calibration, fields):
    results = [pruned(tiny_dlm, dataclasses.replace(calibration, batch=batch), **fields) for batch in (1, 4, 64)]
    assert same(results[0], results[1]) and same(results[0], results[2])


@pytest.mark.parametrize("tokens", ["none", "all"])
def test_the_order_of_clean_sequences_changes_nothing(tiny_ar, calibration, tokens):
    fields = {"tokens": tokens, "levels": LEVELS, "deviations": 1.0}
    turned = dataclasses.replace(calibration, ids_NT=calibration.ids_NT.flip(0))
    assert same(pruned(tiny_ar, calibration, **fields), pruned(tiny_ar, turned, **fields))
    assert not same(pruned(tiny_ar, calibration, **fields), pruned(tiny_ar, dataclasses.replace(calibration, ids_NT=calibration.ids_NT[:2]), **fields))


def test_the_scale_of_the_input_changes_no_mask():
    weight_OI, input_BTI = torch.randn(9, 13, generator=torch.Generator().manual_seed(0)), torch.randn(2, 5, 13, generator=torch.Generator().manual_seed(1))
    masks = []
    for scale in (1.0, 1 / 64, 1024.0):
        norms = ColumnNorms(13)
        norms.add(scale * input_BTI, None)
        masks.append(rowwise(wanda(weight_OI, norms.norm_I), 0.5))
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], rowwise(magnitude(weight_OI, None), 0.5))


@pytest.mark.parametrize("kind, fields", [("diffusion", {**NOISED, "propagation": "dense"}), ("diffusion", {**NOISED}), ("autoregressive", {"levels": LEVELS})])
def test_unstable_equals_none_to_the_bit_where_sinks_never_move(make_anchored_lm, make_ids, kind, fields):
    lm, ids_NT = make_anchored_lm(kind), make_ids(SEQUENCES, LENGTH)
    ids_NT[:, 0] = START_TOKEN_ID
    calibration = Calibration(ids_NT, seed=3)
    none = pruned(lm, calibration, tokens="none", **fields)
    assert same(pruned(lm, calibration, tokens="unstable", **fields), none)
    for tokens in ("all", "stable", "random"):
        assert not same(pruned(lm, calibration, tokens=tokens, **fields), none), tokens


def test_every_choice_of_tokens_differs_from_none_where_sinks_move(tiny_dlm, calibration):
    none = pruned(tiny_dlm, calibration, **NOISED)
    for tokens in set(TOKENS) - {"none"}:
        assert not same(pruned(tiny_dlm, calibration, tokens=tokens, stable_from=0.6, **NOISED), none), tokens


def test_a_threshold_of_0_turns_unstable_into_none_and_stable_into_all(tiny_dlm, calibration):
    fields = {**NOISED, "propagation": "dense", "stable_from": 0.0}
    results = {tokens: pruned(tiny_dlm, calibration, tokens=tokens, **fields) for tokens in ("none", "unstable", "stable", "all")}
    assert same(results["unstable"], results["none"]) and same(results["stable"], results["all"])
    assert not same(results["none"], results["all"])


def test_random_leaves_out_as_much_as_all(tiny_dlm, calibration):
    shares = []
    for tokens in ("all", "random"):
        with weights_kept(tiny_dlm):
            shares.append(prune(tiny_dlm, Recipe(tokens=tokens, **NOISED), calibration, progress=False).left_out_share)
    assert shares[0] == shares[1] > 0


def test_no_token_with_a_weight_is_an_error_before_any_change(tiny_dlm, calibration):
    before = weights_of(tiny_dlm)
    with pytest.raises(ValueError, match="tokens='only' leaves no calibration token"):
        prune(tiny_dlm, Recipe(tokens="only", deviations=1000.0, **NOISED), calibration, progress=False)
    assert same(weights_of(tiny_dlm), before)


# patterns, criteria, statistics


@settings(max_examples=120, deadline=None, derandomize=True)
@given(rows=st.integers(1, 5), columns=st.integers(1, 33), sparsity=st.floats(0, 0.999), levels=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_rowwise_takes_the_exact_count_of_lowest_scores_and_ties_from_the_left(rows, columns, sparsity, levels, seed):
    score_OI = torch.randint(levels, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    pruned_OI = rowwise(score_OI, sparsity)
    for scores, mask in zip(score_OI.tolist(), pruned_OI.tolist(), strict=True):
        assert {column for column, is_pruned in enumerate(mask) if is_pruned} == naive_lowest(scores, sparsity)
    assert pruned_OI.sum(1).tolist() == [math.floor(columns * sparsity)] * rows


def test_equal_scores_are_pruned_from_the_left():
    assert rowwise(torch.ones(2, 7), 0.5).int().tolist() == [[1, 1, 1, 0, 0, 0, 0]] * 2
    assert rowwise(torch.tensor([[3.0, 1, 2, 2, 2, 0]]), 0.5).int().tolist() == [[0, 1, 1, 0, 0, 1]]


def test_a_score_by_hand():
    weight_OI, norms = torch.tensor([[1.0, -2, 3], [-4, 0.5, 0]]), ColumnNorms(3)
    norms.add(torch.tensor([[[3.0, 1, 0], [4, 0, 0]]]), torch.tensor([[1.0, 1]]))
    assert norms.norm_I.tolist() == [5, 1, 0]
    assert wanda(weight_OI, norms.norm_I).tolist() == [[5, 2, 0], [20, 0.5, 0]]
    assert magnitude(weight_OI, norms.norm_I).tolist() == [[1, 2, 3], [4, 0.5, 0]]
    halved = ColumnNorms(3)
    halved.add(torch.tensor([[[3.0, 1, 0], [8, 0, 0]]]), torch.tensor([[1.0, 0.5]]))  # the weight counts inside the square
    assert halved.norm_I.tolist() == [5, 1, 0]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(batch=st.integers(1, 6), tokens=st.integers(1, 7), cut=st.integers(1, 6), weighted=st.booleans(), seed=st.integers(0, 10**6))
def test_column_norms_equal_a_loop_however_the_batches_are_cut(batch, tokens, cut, weighted, seed):
    rng = torch.Generator().manual_seed(seed)
    input_BTI, weight_BT = torch.randn(batch, tokens, 5, generator=rng), torch.rand(batch, tokens, generator=rng)
    norms = ColumnNorms(5)
    for part_BTI, part_BT in zip(input_BTI.split(cut), weight_BT.split(cut), strict=True):
        norms.add(part_BTI, part_BT if weighted else None)
    for column in range(5):
        terms = [float(x) * (float(w) if weighted else 1) for x, w in zip(input_BTI[..., column].flatten(), weight_BT.flatten(), strict=True)]
        assert norms.norm_I[column].item() == pytest.approx(math.hypot(*terms), rel=1e-5)


def test_linears_with_one_input_share_one_statistic_and_count_a_token_once(tiny_ar, make_ids):
    states = block_inputs(tiny_ar, Rows(make_ids(5, 7), None), batch=2)
    linears = tiny_ar.linears(tiny_ar.blocks[0])
    with observe(linears) as observer:
        run_block(tiny_ar.blocks[0], states, observer)
    by_name = {name.split(".")[-1]: norms for name, norms in observer.norms.items()}
    assert by_name["q_proj"] is by_name["k_proj"] is by_name["v_proj"]
    assert by_name["gate_proj"] is by_name["up_proj"]
    assert len(set(map(id, by_name.values()))) == 4
    normed_BTI = torch.cat([tiny_ar.blocks[0].input_layernorm(state.hidden_BTD) for state in states])
    torch.testing.assert_close(by_name["q_proj"].norm_I, normed_BTI.flatten(0, 1).norm(dim=0))


def test_hooks_are_gone_after_an_exception(tiny_ar, make_ids):
    linears = tiny_ar.linears(tiny_ar.blocks[0])
    with pytest.raises(KeyboardInterrupt), observe(linears):
        raise KeyboardInterrupt
    tiny_ar.model.base_model.embed_tokens.weight[:] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        prune(tiny_ar, Recipe(), Calibration(make_ids(2, 5)), progress=False)
    assert not [module for module in tiny_ar.model.modules() if module._forward_pre_hooks or module._forward_hooks]


def test_blocks_receive_every_row_with_its_own_weights(tiny_dlm, make_ids):
    ids_RT, weight_RT = make_ids(5, 6), torch.rand(5, 6)
    states = block_inputs(tiny_dlm, Rows(ids_RT, weight_RT), batch=2)
    assert [len(state.hidden_BTD) for state in states] == [2, 2, 1]
    assert torch.equal(torch.cat([state.hidden_BTD for state in states]), tiny_dlm.model.get_input_embeddings()(ids_RT))
    assert torch.equal(torch.cat([state.weight_BT for state in run_block(tiny_dlm.blocks[0], states)]), weight_RT)


# what pruning leaves


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("name", PRESETS)
def test_every_row_has_the_exact_count_under_every_preset(tiny_dlm, calibration, name, sparsity):
    report = prune(tiny_dlm, preset(name, sparsity=sparsity, levels=LEVELS), calibration, progress=False)
    for linear in linears_of(tiny_dlm.model).values():
        assert (linear.weight == 0).sum(1).tolist() == [math.floor(linear.in_features * sparsity)] * linear.out_features
    assert report.linears.zeros.sum() == sum(int((linear.weight == 0).sum()) for linear in linears_of(tiny_dlm.model).values())


def test_kept_weights_and_everything_outside_the_linears_keep_their_bits(tiny_dlm, calibration):
    before = weights_of(tiny_dlm)
    prune(tiny_dlm, preset("unstable", levels=LEVELS, sparsity=0.7), calibration, progress=False)
    touched = {f"model.layers.{layer}.{name}.weight" for layer, name in linears_of(tiny_dlm.model)}
    for name, value in tiny_dlm.model.state_dict().items():
        assert torch.equal(value[value != 0], before[name][value != 0]), name
        assert bool((value == 0).any()) == (name in touched), name


def test_a_report_counts_what_happened(tiny_dlm, calibration):
    recipe = Recipe(tokens="all", sparsity=0.5, **NOISED)
    report = prune(tiny_dlm, recipe, calibration, progress=False)
    frame, linears = report.linears, linears_of(tiny_dlm.model)
    assert list(zip(frame.layer, frame.name, strict=True)) == list(linears)
    for row, linear in zip(frame.to_dict("records"), linears.values(), strict=True):
        assert (row["rows"], row["columns"]) == tuple(linear.weight.shape)
        assert (row["weights"], row["zeros"]) == (linear.weight.numel(), int((linear.weight == 0).sum()))
    total = sum(linear.weight.numel() for linear in linears.values())
    assert report.sparsity == sum(int((linear.weight == 0).sum()) for linear in linears.values()) / total
    assert report.untouched == sum(parameter.numel() for parameter in tiny_dlm.model.parameters()) - total
    assert report.calibration_tokens == SEQUENCES * LEVELS * LENGTH
    assert 0 < report.left_out_share < 0.5
    card = json.loads(json.dumps(report.card(), allow_nan=False))
    assert Recipe(**card["recipe"]) == recipe
    assert (card["model"], card["pruned_parameters"], card["untouched_parameters"]) == ("tiny-diffusion", total, report.untouched)


def test_magnitude_reports_no_calibration(tiny_ar, calibration):
    for text in (None, calibration):
        report = prune(tiny_ar, Recipe("magnitude", 0.3), text, progress=False)
        assert (report.calibration_tokens, report.left_out_share) == (0, 0.0)


def test_weights_come_back_after_an_exception(tiny_dlm, calibration):
    before = weights_of(tiny_dlm)
    with pytest.raises(KeyboardInterrupt), weights_kept(tiny_dlm):
        prune(tiny_dlm, Recipe(), calibration, progress=False)
        assert not same(weights_of(tiny_dlm), before)
        raise KeyboardInterrupt
    assert same(weights_of(tiny_dlm), before)


def test_a_model_in_bfloat16_is_pruned_to_the_same_counts(tiny_dlm, calibration):
    tiny_dlm.model.to(torch.bfloat16)
    prune(tiny_dlm, Recipe(sparsity=0.5, **NOISED), calibration, progress=False)
    for linear in linears_of(tiny_dlm.model).values():
        assert linear.weight.dtype == torch.bfloat16
        assert (linear.weight == 0).sum(1).tolist() == [linear.in_features // 2] * linear.out_features


def test_direction_reaches_pruning_through_attention_alone(tiny_ar, tiny_dlm, calibration):
    """Equal weights, equal text: only what attention sees differs, so the first block's first linears agree and later ones do not."""
    ar, dlm = pruned(tiny_ar, calibration), pruned(tiny_dlm, calibration)
    for name in ("q_proj", "k_proj", "v_proj"):
        assert torch.equal(ar[f"model.layers.0.self_attn.{name}.weight"], dlm[f"model.layers.0.self_attn.{name}.weight"])
    assert not torch.equal(ar["model.layers.0.self_attn.o_proj.weight"], dlm["model.layers.0.self_attn.o_proj.weight"])


# errors


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"sparsity": 1.2}, r"sparsity=1\.2 must be a number in \[0, 1\)"),
        ({"sparsity": 1}, r"sparsity=1 must be a number in \[0, 1\)"),
        ({"sparsity": -0.1}, r"sparsity=-0\.1 must"),
        ({"sparsity": float("nan")}, "sparsity=nan must"),
        ({"sparsity": "half"}, "sparsity='half' must"),
        ({"sparsity": True}, "sparsity=True must"),
        ({"criterion": "sparsegpt"}, "criterion='sparsegpt' is unknown; choose one of magnitude, wanda"),
        ({"inputs": "masked"}, "inputs='masked' is unknown; choose one of clean, noised"),
        ({"propagation": "both"}, "propagation='both' is unknown; choose one of sequential, dense"),
        ({"tokens": "sinks"}, "tokens='sinks' is unknown; choose one of none, all, unstable, stable, random, only"),
        ({"pattern": "2:4"}, "pattern='2:4' is unknown; choose one of row"),
        ({"levels": 0}, "levels=0 must be a whole number of at least 1"),
        ({"levels": 2.5}, r"levels=2\.5 must be a whole number"),
        ({"stable_from": 1.5}, r"stable_from=1\.5 must lie in \[0, 1\]"),
        ({"deviations": -1.0}, r"deviations=-1\.0 must be a number of at least 0"),
        ({"criterion": "magnitude", "tokens": "unstable"}, "criterion='magnitude' looks at no calibration token: it takes inputs='clean' and tokens='none' only"),
        ({"criterion": "magnitude", "inputs": "noised"}, "criterion='magnitude' looks at no calibration token"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_with_its_value_and_what_is_allowed(fields, said):
    with pytest.raises(ValueError, match=said) as caught:
        Recipe(**fields)
    assert "\n" not in str(caught.value)


def test_every_preset_is_a_recipe_with_a_name_of_its_own():
    recipes = [preset(name, sparsity=0.25) for name in PRESETS]
    assert len(set(recipes)) == len({recipe.name for recipe in recipes}) == len(PRESETS)
    assert {recipe.sparsity for recipe in recipes} == {0.25}
    assert {recipe.criterion for recipe in recipes} == set(CRITERIA)
    assert {recipe.tokens for recipe in recipes} == set(TOKENS)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="preset 'sink' is unknown; choose one of magnitude, wanda, dwanda"):
        preset("sink")


@pytest.mark.parametrize(
    "kind, recipe, length, said",
    [
        ("autoregressive", Recipe(inputs="noised"), 6, "inputs='noised' needs a diffusion model with a mask token; tiny-autoregressive is autoregressive: use inputs='clean'"),
        ("autoregressive", Recipe(tokens="all", levels=7), 6, "levels=7 exceed the 6 tokens"),
        ("diffusion", Recipe(), None, "criterion='wanda' needs calibration text: pass a Calibration"),
        ("diffusion", Recipe(), 65, "calibration sequences of 65 tokens exceed the model's 64 positions"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_any_change(make_lm, make_ids, kind, recipe, length, said):
    lm = make_lm(kind)
    before = weights_of(lm)
    with pytest.raises(ValueError, match=said):
        prune(lm, recipe, None if length is None else Calibration(make_ids(2, length)), progress=False)
    assert same(weights_of(lm), before)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_weight_that_is_not_finite_is_named(tiny_ar, calibration, criterion):
    tiny_ar.blocks[1].mlp.up_proj.weight[3, 4] = torch.inf
    before = tiny_ar.blocks[1].mlp.up_proj.weight.clone()
    with pytest.raises(ValueError, match="block 1 mlp.up_proj: weights or activations are not finite"):
        prune(tiny_ar, Recipe(criterion, inputs="clean"), calibration, progress=False)
    assert torch.equal(tiny_ar.blocks[1].mlp.up_proj.weight, before)


def test_rows_for_is_what_pruning_looks_at(tiny_dlm, calibration):
    """A constant weight on every token is no weight: only ratios between tokens count."""
    rows = rows_for(tiny_dlm, calibration, "noised", "none", LEVELS, 2.0, 0.8, progress=False)
    halved = Rows(rows.ids_RT, torch.full(rows.ids_RT.shape, 0.5))
    masks = []
    for choice in (rows, halved):
        with observe(tiny_dlm.linears(tiny_dlm.blocks[0])) as observer:
            run_block(tiny_dlm.blocks[0], block_inputs(tiny_dlm, choice, batch=4), observer)
        masks.append([rowwise(wanda(linear.weight, observer.norms[name].norm_I), 0.5) for name, linear in tiny_dlm.linears(tiny_dlm.blocks[0]).items()])
    assert all(torch.equal(one, other) for one, other in zip(*masks, strict=True))


def test_statistics_shared_by_many_recipes_prune_as_each_recipe_alone_does(tiny_dlm, calibration):
    recipes = [preset(name, sparsity=share, levels=LEVELS) for name in ("noised-dense", "all-sinks", "unstable", "stable", "random", "only-sinks") for share in (0.3, 0.6)]
    recipes += [Recipe(propagation="dense", tokens=tokens, levels=LEVELS, deviations=deviations) for tokens in ("none", "all") for deviations in (1.0, 2.0)]
    shared = dense_statistics(tiny_dlm, recipes, calibration, progress=False)
    results = set()
    for recipe in recipes:
        masks = []
        for known in (None, shared[recipe.looks_at]):
            with weights_kept(tiny_dlm):
                report = prune(tiny_dlm, recipe, calibration, progress=False, statistics=known)
                masks.append(torch.cat([linear.weight.flatten() for block in tiny_dlm.blocks for linear in tiny_dlm.linears(block).values()]))
            assert report.calibration_tokens == shared[recipe.looks_at].tokens
        assert torch.equal(*masks), recipe
        results.add(masks[0].numpy().tobytes())
    assert len(results) > 6, "recipes that all prune alike would show nothing"


def test_sequential_recipes_have_no_statistics_of_their_own(tiny_dlm, calibration):
    with pytest.raises(ValueError, match="propagation='sequential'"):
        dense_statistics(tiny_dlm, [preset("wanda")], calibration, progress=False)

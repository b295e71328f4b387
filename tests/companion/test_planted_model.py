"""An effect planted in a model: the dense model computes what it did, and its statistics are foreseen."""

import pandas as pd
import pytest
import torch

from sinkprune_companion.experiments.planted import planted_recipe
from sinkprune_companion.experiments.planted_model import (
    DENSE,
    KEPT,
    LEFT_OUT,
    PLACE,
    SinksOf,
    carried_table,
    change_of_masks,
    exchanged_table,
    foreseen_in_model,
    lost_output,
    null_vector,
    planted_in,
    planted_model_findings,
    planted_statistics,
    planted_vectors,
    sinks_and_random_tokens,
)
from sinkprune_core import Calibration
from sinkprune_core.calibration.input_statistics import observe
from sinkprune_core.calibration.text import Trajectories
from sinkprune_core.calibration.token_weights import rows_for
from sinkprune_core.pruning.diagnosis import diagnose, energy_share, mask_changes
from sinkprune_core.pruning.engine import dense_statistics

LEVELS = 8  # of the experiment's recipes
DOSE = 10.0


@pytest.fixture
def lm(make_anchored_lm):
    return make_anchored_lm("diffusion")


@pytest.fixture
def dense(make_anchored_lm):
    return make_anchored_lm("diffusion")


@pytest.fixture
def text(make_text_with_separators) -> Calibration:
    return make_text_with_separators(4)


@pytest.fixture
def taken(lm, text):
    recipes = [planted_recipe("none", 0.5), planted_recipe("all", 0.5)]
    found = dense_statistics(lm, recipes, text, progress=False)
    return [found[recipe.statistics_key] for recipe in recipes]


def test_a_null_vector_is_mapped_to_zero_and_lies_in_few_channels():
    weight_OI = torch.randn(20, 60, generator=torch.Generator().manual_seed(0))
    vector_I = null_vector(weight_OI, [3, 40])
    assert float(vector_I.norm()) == pytest.approx(1.0)
    assert float((weight_OI @ vector_I).abs().max()) < 1e-5
    assert set(vector_I.abs().topk(2).indices.tolist()) == {3, 40}


def test_a_linear_without_a_null_space_is_refused():
    with pytest.raises(ValueError, match="no null space"):
        null_vector(torch.eye(4), [0])


def test_the_dense_model_computes_what_it_did_and_a_pruned_one_does_not(lm, dense, text, taken):
    vectors = planted_vectors(lm, taken[0])
    plain_BTD = lm.hidden(text.ids_NT)
    with planted_in(lm, SinksOf(dense), vectors, DOSE):
        planted_BTD = lm.hidden(text.ids_NT)
        lm.linears(lm.blocks[0])[PLACE].weight.data[:, ::2] = 0
        broken_BTD = lm.hidden(text.ids_NT)
    assert torch.allclose(plain_BTD, planted_BTD, atol=1e-4)
    assert not torch.allclose(lm.hidden(text.ids_NT), broken_BTD, atol=1e-2)


def test_hooks_leave_after_an_error(lm, dense, text, taken):
    before = lm.hidden(text.ids_NT)
    lm.linears(lm.blocks[0])[PLACE].weight.data[:, ::2] = 0
    pruned = lm.hidden(text.ids_NT)

    with (
        pytest.raises(KeyError),
        planted_in(lm, SinksOf(dense), planted_vectors(lm, taken[0]), DOSE),
    ):
        raise KeyError

    assert torch.equal(lm.hidden(text.ids_NT), pruned)
    assert not torch.equal(before, pruned)


def test_statistics_are_those_of_a_pass_through_the_planted_model(lm, dense, text, taken):
    vectors = planted_vectors(lm, taken[0])
    foreseen = planted_statistics(*taken, vectors, DOSE)

    rows_RT = Trajectories(lm, text).rows(LEVELS, "grid")
    linears = {layer: lm.linears(block)[PLACE] for layer, block in enumerate(lm.blocks)}
    with planted_in(lm, SinksOf(dense), vectors, DOSE), observe(linears) as observer, torch.no_grad():
        lm.hidden(rows_RT)

    for layer, seen in observer.statistics().items():
        norm_I = foreseen.layers[layer][PLACE].norm_I
        assert torch.allclose(norm_I, seen.norm_I, rtol=1e-4), layer
        assert float(norm_I.norm()) > 1.1 * float(taken[0].layers[layer][PLACE].norm_I.norm())


def test_statistics_without_random_tokens_are_those_of_the_planted_model_at_the_others(lm, dense, text):
    recipes = [planted_recipe(choice, 0.5) for choice in ("none", "random", sinks_and_random_tokens)]
    found = dense_statistics(lm, recipes, text, progress=False)
    kept, at_random, without_both = (found[recipe.statistics_key] for recipe in recipes)
    vectors = planted_vectors(lm, kept)
    foreseen = planted_statistics(at_random, without_both, vectors, DOSE)

    rows = rows_for(lm, text, recipes[1].statistics_key, progress=False)
    inputs = []
    with planted_in(lm, SinksOf(dense), vectors, DOSE), torch.no_grad():
        first_linear = lm.linears(lm.blocks[0])[PLACE]
        hook = first_linear.register_forward_pre_hook(lambda _module, args: inputs.append(args[0]))
        lm.hidden(rows.ids_RT)
        hook.remove()

    (inputs_RTI,) = inputs
    squares_I = (inputs_RTI.double().square() * rows.weight_RT[..., None]).sum((0, 1))
    assert torch.allclose(foreseen.layers[0][PLACE].norm_I.double(), squares_I.sqrt(), rtol=1e-4)


def test_what_is_exchanged_is_what_passes_through_the_planted_model_exchange(lm, dense, text):
    half = Calibration(text.ids_NT[:2], text.seed, text.batch)
    recipes = [planted_recipe("none", 0.5), planted_recipe("all", 0.5)]
    found = dense_statistics(lm, recipes, half, progress=False)
    kept, left_out = (found[recipe.statistics_key] for recipe in recipes)
    vectors = planted_vectors(lm, kept)

    rows_RT = Trajectories(lm, text).rows(LEVELS, "grid")
    linears = {layer: lm.linears(block)[PLACE] for layer, block in enumerate(lm.blocks)}
    seen = []
    for rows in rows_RT.chunk(2):  # the draw, and other text
        with planted_in(lm, SinksOf(dense), vectors, DOSE), observe(linears) as observer, torch.no_grad():
            lm.hidden(rows)
        seen.append(observer.statistics())

    table = exchanged_table(lm, text, 0.5, [DOSE]).set_index("layer")

    for layer, linear in linears.items():
        without_I = left_out.layers[layer][PLACE].norm_I
        others = [without_I, seen[1][layer].norm_I]
        exact, by_other_text = mask_changes(linear.weight, seen[0][layer].norm_I, others, 0.5)
        assert table.exact[layer] == pytest.approx(exact, abs=2e-3)
        assert table.other_text[layer] == pytest.approx(by_other_text, abs=2e-3)
        assert exact > 0
        assert by_other_text > 0


def test_without_a_vector_the_planted_model_exchanges_what_a_diagnosis_says(lm, text):
    table = exchanged_table(lm, text, 0.5, [0.0])
    diagnosis = diagnose(lm, text, (0.5,), LEVELS, progress=False).table
    diagnosis = diagnosis[diagnosis.linear == PLACE]
    for column in ("weights", "energy", "exact", "other_text"):
        assert table[column].tolist() == pytest.approx(diagnosis[column].tolist(), abs=1e-6)


def test_the_planted_model_is_foreseen_over_all_maps_of_which_one_kind_is_planted():
    exchanged = pd.DataFrame({"dose": [0.0, 3.0, 3.0], "sparsity": 0.5, "weights": [6, 6, 6]})
    exchanged = exchanged.assign(exact=[0.0, 0.1, 0.3], other_text=[0.0, 0.2, 0.2])
    diagnosis = pd.DataFrame({"linear": ["self_attn.q_proj", PLACE], "sparsity": 0.5, "weights": [4, 6]})
    diagnosis = diagnosis.assign(exact=[0.05, 0.9], other_text=[0.1, 0.9])
    other_sparsity = diagnosis.assign(sparsity=0.75, exact=1.0)

    (row,) = foreseen_in_model(exchanged, pd.concat([diagnosis, other_sparsity])).to_dict("records")

    assert row["exact"] == pytest.approx((6 * 0.1 + 6 * 0.3 + 4 * 0.05) / 16)
    assert row["other_text"] == pytest.approx((12 * 0.2 + 4 * 0.1) / 16)
    assert (row["dose"], row["sparsity"]) == (3.0, 0.5)


def test_a_hot_channel_that_stays_hot_without_sinks_loses_nothing_of_what_they_send():
    weight_OI = torch.randn(40, 20, generator=torch.Generator().manual_seed(0))
    norm_I, others_I = torch.ones(20), torch.ones(20)
    norm_I[0], others_I[0] = 1000.0, 100.0
    norm_I[1], others_I[1] = 1.1, 1.0  # of which some weights are lost

    (exchanged,) = mask_changes(weight_OI, norm_I, [others_I], 0.5)

    assert exchanged > 0
    assert lost_output(weight_OI, norm_I, others_I, 0.5) < 1e-6


def test_a_channel_that_sinks_alone_fill_loses_much_of_what_they_send():
    weight_OI = torch.randn(40, 20, generator=torch.Generator().manual_seed(0))
    norm_I, others_I = torch.ones(20), torch.ones(20)
    norm_I[0] = 1000.0

    kept_OI = (weight_OI.abs() * others_I) >= (weight_OI.abs() * others_I).sort(dim=1).values[:, 10:11]
    lost = (weight_OI.square() * ~kept_OI)[:, 0].sum() / weight_OI[:, 0].square().sum()

    assert lost > 0.05
    assert lost_output(weight_OI, norm_I, others_I, 0.5) == pytest.approx(float(lost), rel=1e-3)


def test_what_is_carried_is_that_of_the_planted_statistics(lm, taken):
    kept, left_out = taken
    tables = []
    for layer in range(len(lm.blocks)):
        norm_I, without_I = (found.layers[layer][PLACE].norm_I for found in taken)
        share_I = energy_share(norm_I, without_I)
        tables.append(pd.DataFrame({"layer": layer, "linear": PLACE, "norm": norm_I, "share": share_I}))
    sinks = left_out.left_out_share

    found = carried_table(lm, pd.concat(tables), kept.tokens, sinks, 0.5, (0.0, DOSE))

    planted = planted_statistics(kept, left_out, planted_vectors(lm, kept), DOSE)
    changed, energy = change_of_masks(lm, planted, left_out, 0.5)
    at_dose = found[found.dose == DOSE]
    assert at_dose.exchanged.mean() == pytest.approx(changed, rel=0.2)  # but for correlations with the vector
    assert at_dose.energy.mean() == pytest.approx(energy, rel=0.02)
    assert (at_dose.leak > 1).all()
    assert (found[found.dose == 0].energy < at_dose.energy.to_numpy()).all()


def test_a_difference_is_that_of_a_dose_and_named_after_its_place():
    """The margin is a share of what pruning with the sinks kept costs at that dose."""
    mean = {(DENSE, 0.0): 4.0, (DENSE, DOSE): 9.0}  # what the vector does to the dense model counts nowhere
    mean |= {(KEPT, 0.0): 5.0, (KEPT, DOSE): 6.0, (LEFT_OUT, 0.0): 5.5, (LEFT_OUT, DOSE): 8.0}
    rows = [
        {"variant": variant, "dose": dose, "seed": seed, "sequence": sequence, "value": value + 0.1 * seed}
        for (variant, dose), value in mean.items()
        for seed in range(2)
        for sequence in range(3)
    ]
    losses = pd.DataFrame(rows).assign(calibration_tokens=100)

    found = planted_model_findings(losses, (0.0, DOSE), "_at_75")

    value = {name: estimate.value for name, estimate in found.items()}
    ending = "_at_75_x10"
    assert value[f"planted_model_gain{ending}"] == pytest.approx(2.0)
    assert value[f"planted_model_cost{ending}"] == pytest.approx(2.0)
    assert value["planted_model_gain_at_75_x0"] == pytest.approx(0.5)
    margins = [found[f"planted_model_gain_at_75_x{dose}"].margin for dose in ("10", "0")]
    assert margins[0] == pytest.approx(2 * margins[1]) and margins[1] > 0

"""Statistics of the dense model: shared by recipes, taken in one pass or two, with the same outcome."""

import dataclasses
import errno

import pytest
import torch
from naive import linears_of, same, weights_of

from sinkprune.runs import on_disk
from sinkprune.runs.dense_pass import KeptPass, bytes_that_wait
from sinkprune_core import Recipe, preset, prune, weights_kept
from sinkprune_core.calibration import dense_statistics as module
from sinkprune_core.calibration.dense_statistics import joint_rows, row_bytes
from sinkprune_core.calibration.input_statistics import observe
from sinkprune_core.calibration.token_weights import EXCLUDE, SinkContext
from sinkprune_core.pruning.engine import dense_statistics

LEVELS, LENGTH, SEQUENCES = 3, 24, 5
NOISED = {"inputs": "noised", "noise_levels": LEVELS}
BY_ROW = {name for name, choice in EXCLUDE.items() if choice.by_row}


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


def assert_same_statistics(one, other, rtol: float = 1e-6) -> None:
    assert one.tokens == other.tokens
    assert one.left_out_share == pytest.approx(other.left_out_share, abs=rtol)

    for layer, other_layer in zip(one.layers, other.layers, strict=True):
        assert list(layer) == list(other_layer)
        for name, inputs in layer.items():
            others = other_layer[name]
            for field in ("norm_I", "summed_I", "mean_I", "variance_I"):
                torch.testing.assert_close(
                    getattr(inputs, field), getattr(others, field), rtol=rtol, atol=2 * rtol
                )


RECIPES = {
    tokens: Recipe(exclude=tokens, propagation="dense", stability_threshold=0.6, **NOISED)
    for tokens in EXCLUDE
}


@pytest.mark.parametrize(
    "choices",
    [*([tokens] for tokens in EXCLUDE), ["all", "non-sinks", "official"], ["all", "random"], [*EXCLUDE]],
    ids=" ".join,
)
def test_every_choice_of_tokens_sees_in_one_pass_what_it_sees_in_two_whatever_the_batch(
    tiny_dlm, calibration, monkeypatch, choices
):
    """States run one by one where the choices allow it, else as whole trajectories."""
    recipes = [RECIPES[tokens] for tokens in choices]
    shapes = []
    hidden = type(tiny_dlm).hidden

    def watched_hidden(lm, ids_BT, *masks):
        shapes.append(len(ids_BT))
        return hidden(lm, ids_BT, *masks)

    monkeypatch.setattr(type(tiny_dlm), "hidden", watched_hidden)
    found = {}
    for batch in (1, 4, 64):
        text = dataclasses.replace(calibration, batch=batch)
        found[batch] = dense_statistics(tiny_dlm, recipes, text, progress=False)
        if choices == ["none"]:
            assert shapes == []
        else:
            rows = batch if set(choices) <= BY_ROW else LEVELS * max(1, batch // LEVELS)
            assert max(shapes) == min(rows, LEVELS * SEQUENCES) and sum(shapes) == LEVELS * SEQUENCES
        shapes.clear()
    monkeypatch.setattr(module, "WAITING_BYTES", 0)
    walked = dense_statistics(tiny_dlm, recipes, calibration, progress=False)
    assert not shapes
    for recipe in recipes:
        key = recipe.statistics_key
        rtol = 1e-4 if recipe.exclude == "official" else 1e-6  # its sigmoid is steep
        for once in found.values():
            assert_same_statistics(once[key], walked[key], rtol)


def test_choices_by_row_are_those_whose_weights_ignore_the_other_states():
    """And no choice that compares the states of a trajectory is among them."""
    profile_NST = torch.rand(4, 5, 40, generator=torch.Generator().manual_seed(0)).pow(4)

    def chosen(tokens: str, noise_levels: int, alpha: float | None = None):
        key = dataclasses.replace(RECIPES[tokens].statistics_key, alpha=alpha)
        visible_ST = torch.ones(noise_levels, 40, dtype=torch.bool)
        context = SinkContext(profile_NST.view(-1, noise_levels, 40), visible_ST, key, heads=9, seed=0)
        return EXCLUDE[tokens].function(context).view_as(profile_NST)

    assert {tokens for tokens in EXCLUDE if torch.equal(chosen(tokens, 1), chosen(tokens, 5))} == BY_ROW
    assert all(torch.equal(chosen(tokens, 1, 3.0), chosen(tokens, 5, 3.0)) for tokens in ("all", "official"))


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
@pytest.mark.parametrize("family", ["llama-mha", "llama-gqa", "qwen2", "gpt2"])
def test_a_row_takes_the_bytes_that_its_inputs_hold(make_family, make_ids, family, kind):
    """Linears that read one tensor hold it once."""
    lm = make_family(family, kind)

    waiting = {}
    with observe(lm.all_linears(), held=waiting):
        lm.hidden(make_ids(3, 10))

    held = {input_BTI.data_ptr(): input_BTI.untyped_storage().nbytes() for input_BTI in waiting.values()}
    assert sum(held.values()) == 3 * row_bytes(lm, 10) and len(held) == 4 * len(lm.blocks)


def test_one_pass_needs_memory_for_a_row_or_for_a_trajectory(tiny_dlm, tiny_ar, calibration):
    size = row_bytes(tiny_dlm, LENGTH)

    def at_once(choices, budget, lm=tiny_dlm, **fields):
        keys = [dataclasses.replace(RECIPES[tokens], **fields).statistics_key for tokens in choices]
        return joint_rows(lm, keys, calibration, budget)

    trajectory = size * LEVELS
    assert [at_once(["all", "official"], budget) for budget in (size - 1, size)] == [None, 4]
    assert [at_once(["all", "unstable"], budget) for budget in (trajectory - 1, trajectory)] == [
        None,
        LEVELS,
    ]
    assert at_once(["all"], size, inputs="clean") is None, "sinks show in other forwards than the inputs"
    assert at_once(["unstable"], size, tiny_ar, inputs="clean") == 4, "one forward shows all its steps"


def test_what_may_wait_on_a_gpu_is_a_share_of_its_free_memory(monkeypatch):
    """What other programs and the weights take is not free; what PyTorch keeps without using it is."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 36 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 30 << 30)
    assert module.input_budget(torch.device("cuda")) == 4 << 30
    assert module.input_budget(torch.device("cpu")) == module.WAITING_BYTES


@pytest.mark.parametrize("tokens", ["unstable", "official"])
def test_what_is_pruned_does_not_depend_on_the_budget(make_lm, calibration, monkeypatch, tokens):
    """The budgets hold nothing, a state, a trajectory, everything: the text passes twice, or once."""
    row = row_bytes(make_lm("diffusion"), LENGTH)
    recipe = RECIPES[tokens]
    ways = set()
    zeros = []

    for budget in (0, row, LEVELS * row, 1 << 40):
        monkeypatch.setattr(module, "input_budget", lambda _, budget=budget: budget)
        lm = make_lm("diffusion")
        ways.add(joint_rows(lm, [recipe.statistics_key], calibration) is not None)
        prune(lm, recipe, calibration, progress=False)
        zeros.append(torch.cat([linear.weight.flatten() == 0 for linear in linears_of(lm).values()]))

    assert ways == {False, True}
    assert all(torch.equal(zeros[0], others) for others in zeros)


def test_statistics_of_another_recipe_text_or_model_are_refused(tiny_dlm, make_lm, calibration):
    known = preset("unstable", noise_levels=2)
    statistics = dense_statistics(tiny_dlm, [known], calibration, progress=False)[known.statistics_key]
    other_text = dataclasses.replace(calibration, seed=calibration.seed + 1)
    another = dataclasses.replace(tiny_dlm, name="another")
    of_its_name = make_lm("diffusion", seed=1)
    assert of_its_name.name == tiny_dlm.name
    for lm, recipe, text in (
        (tiny_dlm, preset("all-sinks", noise_levels=2), calibration),
        (tiny_dlm, Recipe(), calibration),
        (tiny_dlm, dataclasses.replace(known, propagation="sequential"), calibration),
        (tiny_dlm, Recipe(criterion="magnitude"), None),
        (tiny_dlm, known, other_text),
        (another, known, calibration),
        (of_its_name, known, calibration),
    ):
        said = "statistics are not those of recipe|reads none of the dense model: leave statistics out"
        with pytest.raises(ValueError, match=said):
            prune(lm, recipe, text, progress=False, statistics=statistics)

    equal = make_lm("diffusion")
    prune(equal, known, calibration, progress=False, statistics=statistics)
    with pytest.raises(ValueError, match="statistics are not those of recipe"):
        prune(equal, known, calibration, progress=False, statistics=statistics)  # which is pruned by now


def test_statistics_that_nothing_reads_are_refused(tiny_dlm, calibration):
    known = preset("noised-dense", noise_levels=2)
    statistics = dense_statistics(tiny_dlm, [known], calibration, progress=False)[known.statistics_key]
    of_gram = dataclasses.replace(known, criterion="sparsegpt", pattern="layer")
    assert of_gram.statistics_key == known.statistics_key
    with pytest.raises(ValueError, match="reads none of the dense model: leave statistics out"):
        prune(tiny_dlm, of_gram, calibration, progress=False, statistics=statistics)

    with_owl = dataclasses.replace(of_gram, allocation="owl")
    assert prune(tiny_dlm, with_owl, calibration, progress=False, statistics=statistics).sparsity > 0.4


def test_outliers_are_read_from_statistics_that_are_known(make_lm, calibration):
    """OWL asks for them of the dense model, whatever the propagation; any recipe of the key brings them."""
    with_owl = preset("sparsegpt", inputs="noised", noise_levels=2, allocation="owl", owl_m=1.5)
    of_key = preset("noised-dense", noise_levels=2)
    assert of_key.statistics_key == with_owl.statistics_key

    lm = make_lm("diffusion")
    prune(lm, with_owl, calibration, progress=False)
    expected = weights_of(lm)

    for taken_for in (of_key, with_owl):
        lm = make_lm("diffusion")
        known = dense_statistics(lm, [taken_for], calibration, progress=False)[taken_for.statistics_key]
        prune(lm, with_owl, calibration, progress=False, statistics=known)
        assert same(weights_of(lm), expected)


@pytest.mark.parametrize("exclude", ["all", "unstable"])
def test_attention_that_is_not_finite_is_an_error_and_not_a_text_without_sinks(
    tiny_dlm, calibration, exclude
):
    attention = tiny_dlm.blocks[1].self_attn
    with torch.no_grad():  # logits overflow float16 where the tracker rounds them, not in the model's own
        attention.q_proj.weight.mul_(100)
        attention.k_proj.weight.mul_(100)

    tiny_dlm.model.half()
    tiny_dlm.hidden(calibration.ids_NT)  # which is finite

    with pytest.raises(ValueError, match="is not finite"):
        dense_statistics(
            tiny_dlm, [Recipe(inputs="noised", propagation="dense", exclude=exclude)], calibration
        )


def beyond_a_quota(tensors, file):
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_inputs_that_wait_on_disk_change_no_bit(tiny_dlm, tiny_ar, calibration, tmp_path, monkeypatch):
    """They leave nothing behind; without room for them, foreseen or not, the text passes twice."""
    monkeypatch.setattr(module, "WAITING_BYTES", 0)
    store = on_disk.OnDisk(tmp_path)

    for lm, fields, states in ((tiny_dlm, {}, LEVELS), (tiny_ar, {"inputs": "clean"}, 1)):
        keys = [dataclasses.replace(recipe, **fields).statistics_key for recipe in RECIPES.values()]
        room = 2 * SEQUENCES * states * row_bytes(lm, LENGTH)

        found = []
        for free in (room - 1, room):
            monkeypatch.setattr(on_disk, "free_disk_at", lambda folder, free=free: free)
            waits = bytes_that_wait(lm, keys, calibration, store)
            assert waits == (room // 2 if free == room else 0)
            found.append(module.collect(lm, keys, calibration, False, store, kind=KeptPass))
            store.forget()

        for key in keys:
            assert_same_statistics(found[0][key], found[1][key], rtol=0)
        assert bytes_that_wait(lm, keys, calibration, store, "mps") == 0

    assert {path.name for path in tmp_path.iterdir()} <= {"hidden-0.bin", "hidden-1.bin"}

    monkeypatch.setattr(on_disk, "save_file", beyond_a_quota)
    again = module.collect(lm, keys, calibration, False, store, kind=KeptPass)
    assert_same_statistics(again[key], found[0][key], rtol=0)

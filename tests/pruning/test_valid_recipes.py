"""Properties of every valid recipe: exact counts, resuming, streaming, and token weights of one."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st
from naive import block_weights_of, linears_of, same, share_of
from random_models.cases import CASES
from random_models.writing import write

from sinkprune import load, prune
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.streaming import stream
from sinkprune_core import Calibration, Recipe, Report, weights_kept
from sinkprune_core.calibration import dense_statistics
from sinkprune_core.calibration.text import NOISE
from sinkprune_core.calibration.token_weights import EXCLUDE
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.patterns import PATTERNS, n_and_m
from sinkprune_core.pruning.recipe import Allocation, Inputs, NormReduction, Propagation
from sinkprune_core.pruning.structured import unit_counts

pytestmark = pytest.mark.slow

LAYERS = 3


@st.composite
def recipes(draw, **fixed) -> Recipe:
    """Any recipe that `Recipe` accepts; `fixed` fields have the values given."""
    pattern = draw(st.sampled_from((*PATTERNS, "1:4", "2:4")))
    ratio = n_and_m(pattern)
    allocations = get_args(Allocation) if pattern in ("row", "layer") else ("uniform",)

    fields = {
        "criterion": draw(st.sampled_from(sorted(CRITERIA))),
        "sparsity": ratio[0] / ratio[1] if ratio else draw(st.floats(0.15, 0.8)),
        "inputs": draw(st.sampled_from(get_args(Inputs))),
        "propagation": draw(st.sampled_from(get_args(Propagation))),
        "exclude": draw(st.sampled_from(sorted(EXCLUDE))),
        "pattern": pattern,
        "allocation": draw(st.sampled_from(allocations)),
        "noise_levels": draw(st.integers(1, 3)),
        "noise": draw(st.sampled_from(sorted(NOISE))),
        "norm_reduction": draw(st.sampled_from(get_args(NormReduction))),
        "sink_std": draw(st.floats(0.5, 1.5)),
        "alpha": draw(st.none() | st.floats(0.1, 10)),
        "stability_threshold": draw(st.floats(0, 1)),
        "owl_lambda": draw(st.floats(0, 0.07)),
        "owl_m": draw(st.floats(1, 3)),
        "damping": draw(st.floats(0.01, 0.1)),
        "block_size": draw(st.integers(1, 40)),
        "compensate": pattern == "structured" and draw(st.booleans()),
    }

    read = fields | fixed
    if read["allocation"] == "uniform":
        del read["owl_lambda"]
    if read["allocation"] != "owl":
        del read["owl_m"]
    if read["criterion"] != "sparsegpt":
        del read["damping"], read["block_size"]

    try:
        return Recipe(**read)
    except ValueError:
        reject()


VALID = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The checkpoint of a tiny diffusion model whose linears have inputs in groups of 4."""
    case = CASES["llada"]
    path = tmp_path_factory.mktemp("checkpoint") / "llada"
    write(replace(case, shape=replace(case.shape, mlp=48)), path)
    return path


@pytest.fixture(scope="module")
def lm(folder):
    return load(folder)


@pytest.fixture(scope="module")
def calibration(lm) -> Calibration:
    rng = torch.Generator().manual_seed(1)
    ids_NT = torch.randint(21, lm.model.config.vocab_size - 1, (4, 12), generator=rng)
    return Calibration(ids_NT, seed=3, batch=3)


@pytest.fixture(autouse=True, scope="module")
def two_passes():
    """Sinks and statistics take a pass each, so that all runs of a recipe use the same batches."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(dense_statistics, "WAITING_BYTES", 0)
        yield


def run(lm, recipe: Recipe, calibration: Calibration, **options) -> Report:
    """Prune; a recipe that leaves no token of this text is none of interest."""
    try:
        return prune(lm, recipe, calibration, progress=False, **options)
    except ValueError as error:
        if "leaves no calibration token" in str(error):
            reject()
        raise


def pruned(lm, recipe: Recipe, calibration: Calibration, **options) -> tuple[dict, Report]:
    """Return the blocks after pruning, their zeros counted, and the report; the model gets its own back."""
    with weights_kept(lm):
        report = run(lm, recipe, calibration, **options)
        assert_counts(lm, recipe, report)
        return block_weights_of(lm), report


# counts


def layer_sparsities(recipe: Recipe) -> list[float] | None:
    """Return the sparsity of every layer, None where it depends on outliers."""
    return None if recipe.allocation == "owl" else [recipe.sparsity] * LAYERS


def assert_counts(lm, recipe: Recipe, report: Report) -> None:
    zeros = {place: linear.weight == 0 for place, linear in linears_of(lm).items()}
    sizes = [zero_OI.numel() for zero_OI in zeros.values()]
    counts = [int(zero_OI.sum()) for zero_OI in zeros.values()]

    assert report.linears.zeros.tolist() == counts

    ratio = n_and_m(recipe.pattern)
    sparsities = layer_sparsities(recipe)

    if ratio is not None:
        for zero_OI in zeros.values():
            assert (zero_OI.reshape(-1, ratio[1]).sum(1) == ratio[0]).all()
    elif recipe.pattern == "structured":
        assert sum(counts) == LAYERS * unit_counts(lm, recipe.sparsity).weights_removed
    elif recipe.pattern == "global":
        assert sum(counts) == share_of(sum(sizes), recipe.sparsity)
    elif sparsities is None:
        assert sum(counts) / sum(sizes) == pytest.approx(recipe.sparsity, abs=1 / 32)
    elif recipe.pattern == "layer":
        assert counts == [share_of(zeros[place].numel(), sparsities[place[0]]) for place in zeros]

    for (layer, _), zero_OI in zeros.items():
        if recipe.pattern == "row":
            in_row = zero_OI.sum(1)
            assert (in_row == in_row[0]).all()
            if sparsities is not None:
                assert in_row[0] == share_of(zero_OI.shape[1], sparsities[layer])


# ways to the same result


@VALID
@given(recipe=recipes(), layer=st.integers(0, LAYERS - 1))
def test_a_run_that_was_killed_ends_as_a_straight_one(lm, calibration, killed_at, recipe, layer):
    expected, report = pruned(lm, recipe, calibration)
    with tempfile.TemporaryDirectory() as work:
        with weights_kept(lm), killed_at(layer):
            prune(lm, recipe, calibration, progress=False, work=work)
        found, resumed = pruned(lm, recipe, calibration, work=work)
    assert same(found, expected)
    assert resumed.linears.equals(report.linears) and resumed.kept_units == report.kept_units
    assert resumed.left_out_share == report.left_out_share


@VALID
@given(recipe=recipes(), layer=st.none() | st.integers(0, LAYERS - 1))
@example(recipe=Recipe(allocation="owl", owl_m=2.0, owl_lambda=0.2), layer=1)  # compares all blocks, dense
def test_a_streamed_model_is_pruned_as_one_in_memory(lm, folder, calibration, killed_at, recipe, layer):
    """In one go, or killed at a block and resumed."""
    if recipe.pattern == "structured":
        reject()

    expected, report = pruned(lm, recipe, calibration)
    streamed = stream(open_checkpoint(folder), "streamed", torch.float32)

    with tempfile.TemporaryDirectory() as work:
        if layer is not None:
            with killed_at(layer):
                prune(streamed, recipe, calibration, progress=False, work=work)
        found = prune(streamed, recipe, calibration, progress=False, work=work)
        assert same(block_weights_of(streamed), expected)

    assert found.linears.equals(report.linears)


def leave_nothing_out(context):
    return torch.zeros_like(context.profile_NST)


@VALID
@given(recipe=recipes(exclude="none", alpha=None))
def test_token_weights_of_one_are_no_weights(lm, calibration, recipe):
    if not CRITERIA[recipe.criterion].calibrated:
        reject()
    expected, _ = pruned(lm, recipe, calibration)
    found, report = pruned(lm, replace(recipe, exclude=leave_nothing_out), calibration)
    assert same(found, expected)
    assert report.left_out_share == 0

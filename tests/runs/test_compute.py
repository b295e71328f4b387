"""FLOPs from shapes agree with torch's own counter and with runs, and zeros are counted where they are."""

from unittest import mock

import pytest
import torch

from sinkprune import prune
from sinkprune.models.shrinking import shrink
from sinkprune.runs import on_disk
from sinkprune.runs.checkpoint import job_folder
from sinkprune.runs.pruning_cost import pruning_cost
from sinkprune.runs.recipe_identity import settings_digest
from sinkprune_companion.experiments import compute
from sinkprune_core import Calibration, Recipe, preset, weights_kept
from sinkprune_core.calibration import dense_statistics
from sinkprune_core.pruning.plan import make_plan

CLEAN = {"noise_levels": 2, "exclude": "all"}
NOISED = {**CLEAN, "inputs": "noised"}
OWL = {**NOISED, "allocation": "owl", "owl_lambda": 0.01}
RECIPES = [
    Recipe(propagation=which, **fields)
    for which in ("dense", "sequential")
    for fields in (
        CLEAN,
        NOISED,
        OWL,
        {**NOISED, "noise": "rollout"},
        {"inputs": "noised", "noise": "rollout"},
    )
]


def where(length: int, positions: int) -> torch.Tensor:
    return (torch.arange(length) >= length - positions)[None]


@pytest.mark.parametrize(("length", "positions"), [(8, 3), (16, 15)])
def test_forward_flops_equal_the_count_of_a_real_forward(tiny_dlm, length, positions):
    ids_BT = torch.arange(length)[None] % 20
    expected = compute.forward_cost(tiny_dlm, length, positions).total
    assert compute.counted_flops(tiny_dlm, ids_BT, where(length, positions)) == expected
    assert tiny_dlm.model.config._attn_implementation == "sdpa"


def test_effective_flops_shrink_with_the_zeros_of_the_linears_only(tiny_dlm):
    cost = compute.forward_cost(tiny_dlm, 8, 4)
    assert cost.effective(0) == cost.total
    assert cost.total - cost.effective(0.5) == cost.linears / 2


def test_generation_costs_add_up_over_steps(tiny_dlm):
    by_hand = sum(compute.forward_cost(tiny_dlm, 2 + 8, left).effective(0.25) for left in (8, 6, 4, 2))
    assert compute.generation_flops(tiny_dlm, 8, 2, 4, 0.25) == pytest.approx(by_hand)
    assert compute.generation_flops(tiny_dlm, 8, 2, 8) > 1.9 * compute.generation_flops(tiny_dlm, 8, 2, 4)


@pytest.mark.parametrize("steps", [3, 8, 9])
def test_affordable_steps_are_the_last_within_the_budget(steps):

    def cost(count: int) -> float:
        return 1.5 * count + 1

    assert compute.affordable_steps(cost, cost(steps), 8) == min(steps, 8)
    assert compute.affordable_steps(cost, cost(steps) - 0.1, 8) == min(steps - 1, 8)
    assert compute.affordable_steps(cost, 0.0, 8) == 1, "one step is the least there is"


@pytest.mark.parametrize("family", ["llama-gqa", "qwen2"])
def test_the_account_adds_up_to_parameters_and_counted_flops_dense_and_pruned(make_family, make_ids, family):
    lm, ids_BT = make_family(family), make_ids(2, 10)

    dense = compute.account(lm, ids_BT, where(10, 4).expand(2, -1))
    total = dense.loc["total"]
    assert total.parameters == sum(parameter.numel() for parameter in lm.model.parameters())
    assert total.bytes == 4 * total.parameters
    assert total.flops == total.counted_flops == total.effective_flops

    report = prune(lm, preset("structured", sparsity=0.4), Calibration(make_ids(3, 12)), progress=False)
    masked = compute.account(lm, ids_BT, where(10, 4).expand(2, -1))
    smaller = compute.account(shrink(lm, report.kept_units), ids_BT, where(10, 4).expand(2, -1))

    assert masked.loc["total"].flops == total.flops, "dense kernels multiply zeros"
    for kind in ("self_attn linears", "mlp linears"):
        assert masked.loc[kind].nonzero == smaller.loc[kind].parameters < dense.loc[kind].nonzero
        assert masked.loc[kind].effective_flops == pytest.approx(smaller.loc[kind].flops)

    assert smaller.loc["total"].flops == smaller.loc["total"].counted_flops < total.flops
    assert smaller.loc["embeddings and head"].equals(dense.loc["embeddings and head"])


def test_what_others_left_in_a_work_folder_makes_no_room(tiny_dlm, calibration, tmp_path):
    recipe = preset("wanda")
    job = job_folder(tmp_path, settings_digest(recipe))
    needed = pruning_cost(tiny_dlm, recipe, calibration, work=tmp_path, speed=1.0).disk

    with mock.patch("sinkprune.runs.pruning_cost.free_disk_at", return_value=needed // 2):
        for folder, lacks in ((tmp_path / "job-of-others", True), (job, False)):
            folder.mkdir()
            (folder / "file").write_bytes(bytes(needed))
            planned = pruning_cost(tiny_dlm, recipe, calibration, work=tmp_path, speed=1.0)
            assert bool(planned.missing) is lacks


@pytest.mark.parametrize("bytes_missing", [0, 8])
def test_a_plan_for_another_gpu_lets_wait_what_a_run_there_would(
    tiny_dlm, calibration, monkeypatch, bytes_missing
):
    """A run finds the weights on the GPU already: its share is of what they leave free."""
    recipe = Recipe(inputs="noised", propagation="dense", noise_levels=2, exclude="all")
    row = dense_statistics.row_bytes(tiny_dlm, calibration.ids_NT.shape[1])
    free = row / dense_statistics.WAITING_SHARE - bytes_missing
    weights = sum(parameter.nbytes for parameter in tiny_dlm.model.parameters())

    def flops(gpu_memory: float) -> float:
        return pruning_cost(tiny_dlm, recipe, calibration, speed=1.0, gpu_memory=gpu_memory).flops

    planned = flops(weights + free)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, weights + free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: weights)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: weights)
    budget = dense_statistics.input_budget(torch.device("cuda"))
    there = make_plan(tiny_dlm, recipe, calibration, budget)

    assert (there.joint_rows is not None) is (bytes_missing == 0)
    assert planned == (flops(0) if bytes_missing else flops(1e12)) and flops(0) == 2 * flops(1e12)


def test_a_recipe_that_reads_no_text_is_planned_without_any(tiny_dlm):
    assert pruning_cost(tiny_dlm, preset("magnitude"), None, speed=1.0).flops == 0


@pytest.mark.parametrize("place", ["memory", "disk", "nowhere"])
@pytest.mark.parametrize("recipe", [*RECIPES, Recipe(propagation="dense"), Recipe("magnitude")], ids=str)
def test_as_many_rows_run_as_are_planned(tiny_dlm, calibration, tmp_path, monkeypatch, recipe, place):
    monkeypatch.setattr(dense_statistics, "WAITING_BYTES", 1 << 30 if place == "memory" else 0)
    monkeypatch.setattr(on_disk, "free_disk_at", lambda folder: 1 << 40 if place == "disk" else 0)

    flops = pruning_cost(tiny_dlm, recipe, calibration, work=tmp_path, speed=1.0).flops

    rows = []
    kind = type(tiny_dlm.blocks[0])
    forward = kind.forward

    def counted(block, hidden_BTD, *others, **named):
        rows.append(len(hidden_BTD))
        return forward(block, hidden_BTD, *others, **named)

    monkeypatch.setattr(kind, "forward", counted)
    with weights_kept(tiny_dlm):
        report = prune(tiny_dlm, recipe, calibration, progress=False, work=tmp_path)

    length = calibration.ids_NT.shape[1]
    unread = 0
    if recipe.propagation == "sequential":  # nobody reads what the last block makes
        unread = report.calibration_tokens // length

    of_row = compute.forward_cost(tiny_dlm, length, 0).total
    assert (sum(rows) + unread) / len(tiny_dlm.blocks) == pytest.approx(flops / of_row)

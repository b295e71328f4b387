"""Plans and saved variants: what notebook 06 does before and around a model that is too large to try."""

import pandas as pd
import pytest
import torch

from sinkprune_companion import corpus
from sinkprune_companion.experiments import variants
from sinkprune_companion.experiments.stand_ins import stand_in
from sinkprune_companion.experiments.variants import Variant, saved_variant
from sinkprune_companion.run.plans import costs, without_weights
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import any_text
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.costs import pruning as cost
from sinkprune_core.costs.compute import forward_cost
from sinkprune_core.costs.pruning import pruning_cost
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.models.loading import load
from sinkprune_core.models.meta_model import meta_model
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import preset


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr("sinkprune_companion.run.records.project_root", lambda: tmp_path)
    return Run("06_real_models", "test", {})


@pytest.mark.parametrize("name", MODELS)
def test_an_outline_has_the_parameters_of_the_published_model_and_no_weights(name):
    row = MODELS[name]
    outline = meta_model(row)
    assert sum(parameter.numel() for parameter in outline.model.parameters()) == row.parameters
    assert {parameter.device.type for parameter in outline.model.parameters()} == {"meta"}
    assert (type(outline.model).__name__, outline.kind, outline.logits_shifted) == (
        row.native,
        row.kind,
        row.logits_shifted,
    )


def test_an_outline_costs_what_the_model_does(tmp_path):
    """A plan without weights and one with them agree, on a model of the same shape."""
    row = MODELS["smol-ar"]
    calibration = Calibration(torch.zeros(4, 64, dtype=torch.long))
    folder = stand_in("meta-llama/Llama-3.1-8B", tmp_path)
    with_weights, outline = load(folder), without_weights(folder)
    for name in ("wanda", "sparsegpt"):
        one, other = (
            pruning_cost(lm, preset(name), calibration, speed=1e9) for lm in (with_weights, outline)
        )
        assert (one.flops, one.memory, one.passes, one.seconds) == (
            other.flops,
            other.memory,
            other.passes,
            other.flops / 1e9,
        )
    assert (
        pruning_cost(meta_model(row), preset("wanda"), calibration, speed=1e12).flops
        == 2 * 4 * forward_cost(meta_model(row), 64, 0).total
    )
    streamed, whole = (
        pruning_cost(meta_model(row, streamed=streamed), preset("magnitude"), calibration, speed=1e12).memory
        for streamed in (True, False)
    )
    assert streamed < whole


def test_costs_are_said_for_any_name_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *args, local_files_only, **more: (
            (_ for _ in ()).throw(FileNotFoundError("not here"))
            if local_files_only
            else pytest.fail("downloaded")
        ),
    )
    monkeypatch.setattr(cost, "speed_here", lambda lm, device: 1e12)
    folder = stand_in("Dream-org/Dream-v0-Base-7B", tmp_path)
    table = costs(
        ["GSAI-ML/LLaDA-8B-Base", "meta-llama/Llama-3.1-8B", str(folder)],
        preset("unstable"),
        8,
        128,
        32,
        "bfloat16",
    )
    llada = table.loc["GSAI-ML/LLaDA-8B-Base"]
    assert llada["download GB"] == pytest.approx(16.031, abs=1e-3) and llada["disk GB"] == pytest.approx(
        2 * 16.031, abs=1e-2
    )
    assert llada["scoring TFLOP"] == pytest.approx(
        32 * forward_cost(meta_model(MODELS["GSAI-ML/LLaDA-8B-Base"]), 128, 64).total / 1e12
    )
    assert llada["hours, at least"] == pytest.approx((llada["pruning TFLOP"] + llada["scoring TFLOP"]) / 3600)
    assert table.loc[str(folder)]["download GB"] == 0 and table.loc[str(folder)]["lacks"] == ""
    monkeypatch.setattr(cost, "available_memory", lambda device: 1000)
    assert "GB of memory" in costs(["GSAI-ML/LLaDA-8B-Base"], preset("wanda"), 8, 128, 32)["lacks"].item()


def test_text_of_any_vocabulary_is_a_draw_from_one_split(tmp_path):
    lm = load(stand_in("GSAI-ML/LLaDA-8B-Base", tmp_path))
    drawn = {
        (held_out, seed): any_text(lm, 6, 64, held_out, seed)["documentation"]
        for held_out in (True, False)
        for seed in (0, 1)
    }
    assert all(ids_NT.shape == (6, 64) and ids_NT.dtype == torch.long for ids_NT in drawn.values())
    assert torch.equal(drawn[True, 0], any_text(lm, 6, 64, True, 0)["documentation"])
    assert not torch.equal(drawn[True, 0], drawn[True, 1]) and not torch.equal(
        drawn[True, 0], drawn[False, 0]
    )
    paragraph = lm.tokenizer.decode(drawn[True, 0][0, 1:]).split("<|endoftext|>")[0]
    (source,) = {text for text in corpus.documentation("stdlib") if text.startswith(paragraph)}
    assert corpus.is_held_out(source)
    with pytest.raises(
        ValueError,
        match=r"sequences=100000: the documentation has \d+ of 1000 tokens in this split: ask for fewer",
    ):
        any_text(lm, 100_000, 1000, True)


def test_a_saved_variant_is_pruned_once_and_leaves_the_model_dense(run, tmp_path, monkeypatch):
    lm = load(stand_in("GSAI-ML/LLaDA-8B-Base", tmp_path))
    dense, text = lm.fingerprint(), Calibration(any_text(lm, 4, 64, False)["documentation"])
    folder = saved_variant(run, lm, dense, preset("unstable", noise_levels=3), text)
    assert lm.fingerprint() == dense and folder.is_relative_to(tmp_path / "runs" / "test" / "models")
    other = saved_variant(run, lm, dense, preset("unstable", noise_levels=3, sparsity=0.6), text)
    smaller = saved_variant(run, lm, dense, preset("structured"), text)
    assert (
        len({folder, other, smaller}) == 3
        and load(smaller).model.num_parameters() < lm.model.num_parameters()
    )
    monkeypatch.setattr(variants, "prune", lambda *args, **more: pytest.fail("pruned again"))
    assert saved_variant(run, lm, dense, preset("unstable", noise_levels=3), text) == folder
    prune(lm, preset("unstable", noise_levels=3), text, progress=False)
    assert load(folder).fingerprint() == lm.fingerprint() != dense


def test_a_plan_asks_the_device_that_the_model_would_be_on(monkeypatch):
    asked = set()
    monkeypatch.setattr(cost, "available_memory", lambda device: asked.add(str(device)) or 1000)
    monkeypatch.setattr("sinkprune_core.models.hub.available_memory", lambda device: 1 << 40)
    monkeypatch.setattr(cost, "speed_here", lambda lm, device: 1e12)
    found = costs(["smol-ar"], preset("wanda"), 8, 128, 32, "bfloat16", "cuda")
    assert asked == {"cuda"} and "GB of memory" in found["lacks"].item()


# a variant of which several things are asked


def test_a_variant_is_pruned_once_when_first_asked_and_its_weights_come_back(
    run, tiny_dlm, make_ids, monkeypatch
):
    pruned_by = []

    def noted(lm, recipe, *rest, **more):
        pruned_by.append(recipe)
        return prune(lm, recipe, *rest, **more)

    monkeypatch.setattr(variants, "prune", noted)
    before = tiny_dlm.fingerprint()
    text, recipe = Calibration(make_ids(2, 12)), preset("wanda")
    one, two = {"natural/crop": make_ids(2, 12, seed=1)}, {"natural/crop": make_ids(2, 12, seed=2)}
    with Variant(tiny_dlm, before, recipe, text) as variant:
        assert pruned_by == [] and tiny_dlm.fingerprint() == before
        first = variant.scores(run, one, 2, variant="wanda")
        second = variant.scores(run, two, 2, variant="wanda")
        assert pruned_by == [recipe] and tiny_dlm.fingerprint() != before
    assert tiny_dlm.fingerprint() == before
    assert set(first.text) == {"natural"} and set(first.start) == {"crop"}
    assert first.calibration_tokens.tolist() == [24, 24] and first.value.tolist() != second.value.tolist()
    with Variant(tiny_dlm, before, recipe, text) as again:
        pd.testing.assert_frame_equal(again.scores(run, one, 2, variant="wanda"), first)
    assert pruned_by == [recipe], "what is on record needs no pruning"


def test_weights_come_back_after_an_error(run, tiny_dlm, make_ids):
    before = tiny_dlm.fingerprint()

    def fail(variant: Variant) -> None:
        with variant:
            assert variant.ready().sparsity == pytest.approx(0.5, abs=0.02)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail(Variant(tiny_dlm, before, preset("magnitude")))
    assert tiny_dlm.fingerprint() == before


def test_a_text_that_does_not_say_how_it_starts_has_no_such_column(run, tiny_dlm, make_ids):
    with Variant(tiny_dlm, tiny_dlm.fingerprint()) as variant:
        found = variant.scores(run, {"natural": make_ids(2, 12)}, 1, variant="dense")
    assert "start" not in found and set(found.text) == {"natural"} and set(found.zeros) == {0.0}

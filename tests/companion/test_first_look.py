"""What notebook 00 shows: maps whose columns the tracker measures too, and text of as many tokens for all."""

import pytest
import torch

from sinkprune_companion.experiments import first_look
from sinkprune_core.sinks import attention


def test_columns_of_attention_maps_are_the_mass_that_the_tracker_measures(make_lm, make_ids):
    for kind in ("diffusion", "autoregressive"):
        lm, ids_1T = make_lm(kind), make_ids(1, 12)
        before = lm.model.config._attn_implementation

        maps_LHQK = first_look.attention_maps(lm, ids_1T)
        assert lm.model.config._attn_implementation == before
        assert torch.allclose(maps_LHQK.sum(-1), torch.ones(()), atol=1e-5)

        with torch.inference_mode(), attention.track(lm.model) as tracker:
            lm.hidden(ids_1T)
            mass_LHK = tracker.take()[0, :, :, 0]

        assert torch.allclose(maps_LHQK.sum(2), mass_LHK, atol=1e-4)


def test_panels_show_one_head_of_the_text_as_it_is_and_masked(make_lm, make_ids):
    ar, dlm, text_T = make_lm("autoregressive"), make_lm("diffusion"), make_ids(1, 20)[0]
    panels = first_look.attention_panels(ar, dlm, text_T, (0.25, 0.75), seed=0)
    masked = [int((panel["ids_1T"] == dlm.mask_token_id).sum()) for panel in panels]
    assert masked == [0, 5, 15] == [int(panel["masked_K"].sum()) for panel in panels]
    assert len({(panel["layer"], panel["head"]) for panel in panels}) == 1
    few, many = (panel["ids_1T"] == dlm.mask_token_id for panel in panels[1:])
    assert (many | ~few).all(), "what is masked with few masks is masked with many"

    of_ar, *of_dlm = panels
    assert (of_ar["map_QK"][~of_ar["sees_QK"]] == 0).all(), "an AR model looks backwards only"
    assert not of_ar["sees_QK"].all() and all(panel["sees_QK"].all() for panel in of_dlm)


def test_what_a_linear_map_reads_is_what_its_output_is_made_of(make_lm, make_ids):
    lm, ids_ST = make_lm("diffusion"), make_ids(2, 9)
    linear = next(iter(lm.linears(lm.blocks[1]).values()))
    seen = []
    hook = linear.register_forward_hook(lambda _, args, output: seen.append(output))
    read_STI = first_look.inputs_of(lm, linear, ids_ST)
    hook.remove()
    assert torch.allclose(linear(read_STI), seen[0], atol=1e-6)
    assert not linear._forward_pre_hooks


def test_models_that_write_are_calibrated_on_about_as_many_tokens(make_lm, monkeypatch):
    asked = []
    monkeypatch.setattr(first_look, "calibration_draw", lambda lm, *given: asked.append(given))
    made = list(first_look.writers(make_lm("diffusion"), [0.5, 0.75], length=16, levels=8, seed=3))

    assert made[0] == ("dense", None, None)
    named = [name for name, _, _ in made[1:]]
    assert named[:2] == ["wanda, 50%", "paper, 50%"] and len(named) == 8

    for (_, recipe, _), (sequences, length, seed) in zip(made[1:], asked, strict=True):
        reads = recipe.noise_levels if recipe.inputs == "noised" else 1
        assert sequences * reads == pytest.approx(16, abs=4)
        assert (length, seed) == (16, 3)

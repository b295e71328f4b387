"""Calibration text with padding: a sequence counts as if it were alone, and padding does not count at all."""

import pytest
import torch
from naive import same, weights_of

from sinkprune import prune
from sinkprune_core import Calibration, Recipe, preset, weights_kept
from sinkprune_core.calibration.token_weights import rows_for
from sinkprune_core.pruning.engine import dense_statistics

LENGTHS = [12, 9, 7]
RECIPES = {
    "clean": {},
    "noised": {"inputs": "noised"},
    "noised, no sinks": {"inputs": "noised", "exclude": "all", "sink_std": 1.0},
    "noised, no random tokens": {"inputs": "noised", "exclude": "random", "sink_std": 1.0},
    "clean, no unstable sinks": {"exclude": "unstable", "sink_std": 1.0},
}


def padded(ids_NT: torch.Tensor, side: str = "right", pad: int = 3, **options) -> Calibration:
    """Return the first LENGTHS tokens of every sequence, padded to one length and two more."""
    width = max(LENGTHS) + 2
    padded_NT = torch.full((len(LENGTHS), width), pad)
    present_NT = torch.zeros(len(LENGTHS), width, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        padded_NT[row, place] = ids_NT[row, :length]
        present_NT[row, place] = True
    return Calibration(padded_NT, present_NT=present_NT, **options)


def inputs_alone(lm, ids_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what every linear of the blocks receives in a forward of the whole model."""
    found, handles = {}, []
    for layer, block in enumerate(lm.blocks):
        for name, linear in lm.linears(block).items():

            def keep(module, args, key=(layer, name)):
                found[key] = args[0].double()

            handles.append(linear.register_forward_pre_hook(keep))
    lm.hidden(ids_BT)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_padded_sequence_counts_as_if_it_were_alone(make_family, make_ids, name, side):
    lm = make_family("gpt2" if name == "clean" else "llama-gqa")  # GPT-2 has absolute positions
    recipe = (
        Recipe(propagation="dense", **RECIPES[name])
        if name == "clean"
        else Recipe(propagation="dense", noise_levels=3, **RECIPES[name])
    )
    key, ids_NT = recipe.statistics_key, make_ids(3, 12, seed=7)
    text = padded(ids_NT, side, seed=3, batch=2)
    rows = rows_for(lm, text, key, progress=False)
    states = len(rows.ids_RT) // len(LENGTHS)
    squares = {}
    for number, length in enumerate(LENGTHS):
        alone = rows_for(lm, Calibration(ids_NT[:, :length], 3), key, progress=False)
        of_row = slice(number * states, (number + 1) * states)
        assert torch.equal(rows.ids_RT[of_row, :length], alone.ids_RT[of_row])
        weight_RT = torch.ones(states, length) if alone.weight_RT is None else alone.weight_RT[of_row]
        torch.testing.assert_close(rows.weight_RT[of_row, :length], weight_RT, atol=1e-5, rtol=1e-5)
        assert not rows.weight_RT[of_row, length:].any()
        for place, input_BTI in inputs_alone(lm, alone.ids_RT[of_row]).items():
            weighted_BTI = input_BTI * weight_RT[..., None]
            squares[place] = squares.get(place, 0) + weighted_BTI.square().sum((0, 1))

    statistics = dense_statistics(lm, [recipe], text, progress=False)[key]
    assert statistics.tokens == rows.tokens == states * sum(LENGTHS)
    for (layer, linear), squares_I in squares.items():
        norm_I = statistics.layers[layer][linear].norm_I
        torch.testing.assert_close(norm_I, squares_I.sqrt().float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["sparsegpt", "wanda", "all-sinks"])
def test_what_stands_in_padding_changes_nothing(tiny_dlm, make_ids, name, tmp_path):
    recipe = preset(name, **({"noise_levels": 3} if name == "all-sinks" else {}))

    pruned = {}
    for kind, (side, pad, work) in {
        "right": ("right", 3, None),
        "other padding": ("left", 50, None),
        "work folder": ("right", 3, tmp_path),
    }.items():
        text = padded(make_ids(3, 12, seed=7), side, pad, seed=3, batch=2)
        with weights_kept(tiny_dlm):
            report = prune(tiny_dlm, recipe, text, progress=False, work=work)
            pruned[kind] = weights_of(tiny_dlm)

        assert report.calibration_tokens == sum(LENGTHS) * (3 if name == "all-sinks" else 1)

    assert same(pruned["right"], pruned["other padding"]) and same(pruned["right"], pruned["work folder"])


def test_text_without_padding_is_known_by_its_ids_alone(make_ids):
    ids_NT = make_ids(3, 12)
    present_NT = torch.ones_like(ids_NT)
    plain, marked = Calibration(ids_NT), Calibration(ids_NT, present_NT=present_NT)
    assert marked.present_NT is None and marked.fingerprint == plain.fingerprint
    assert padded(ids_NT).fingerprint != padded(ids_NT, pad=50, seed=1).fingerprint
    assert padded(ids_NT).fingerprint == padded(ids_NT, "left", pad=50).fingerprint


def test_padding_that_does_not_fit_is_refused(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(3, 12)

    with pytest.raises(ValueError, match=r"present_NT has shape \(3, 11\)"):
        Calibration(ids_NT, present_NT=torch.ones(3, 11))

    with pytest.raises(TypeError, match=r"^present_NT="):
        Calibration(ids_NT, present_NT=[[1] * 12] * 3)

    with pytest.raises(ValueError, match="calibration sequence 1 has 1 tokens that are not padding"):
        Calibration(ids_NT, present_NT=torch.tensor([[1] * 12, [1] + [0] * 11, [1] * 12]))

    with pytest.raises(ValueError, match="exclude='all' on an autoregressive model compares parts"):
        prune(tiny_ar, Recipe(exclude="all", noise_levels=2), padded(ids_NT))

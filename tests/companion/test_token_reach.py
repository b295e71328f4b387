"""How much a choice of calibration tokens changes, against pruning with and without them, by weight."""

import pytest
import torch

from sinkprune_companion.experiments.token_reach import OTHER_TEXT, token_reach
from sinkprune_core import Calibration, Recipe, preset, prune, weights_kept


@pytest.fixture
def recipe() -> Recipe:
    return preset("noised-dense", noise_levels=2)


def kept_of(lm, recipe: Recipe, text: Calibration) -> dict[str, torch.Tensor]:
    """Return which weights of block 1 are kept."""
    with weights_kept(lm):
        prune(lm, recipe, text, progress=False)
        return {name: linear.weight != 0 for name, linear in lm.linears(lm.blocks[1]).items()}


def test_sinks_and_other_text_change_what_pruning_with_them_changes(tiny_dlm, make_ids, recipe):
    text, other = (Calibration(make_ids(4, 16, seed), seed) for seed in (0, 1))
    before = tiny_dlm.fingerprint()
    found = token_reach(tiny_dlm, recipe, text, other, [1], progress=False).set_index(["linear", "choice"])
    assert tiny_dlm.fingerprint() == before
    plain = kept_of(tiny_dlm, recipe, text)
    compared = {
        "all sinks": kept_of(tiny_dlm, preset("all-sinks", noise_levels=2), text),
        "unstable sinks": kept_of(tiny_dlm, preset("unstable", noise_levels=2), text),
        OTHER_TEXT: kept_of(tiny_dlm, recipe, other),
    }
    for choice, masks in compared.items():
        for name, kept_OI in plain.items():
            changed = 1 - float((kept_OI & masks[name]).sum() / kept_OI.sum())
            row = found.loc[(name, choice)]
            assert float(row.changed) == pytest.approx(changed, abs=2 / int(kept_OI.sum())), (choice, name)
    assert found.changed.max() > 0
    assert (found.share <= 1).all()

"""How much a choice of calibration tokens changes, against pruning with and without them, by weight."""

import pytest
import torch

from sinkprune_companion.experiments.token_reach import (
    OTHER_TEXT,
    Search,
    token_reach,
)
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import Recipe, preset


@pytest.fixture
def search() -> Search:
    rng = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(400, 24, generator=rng)
    input_NI = torch.randn(300, 24, generator=rng)
    input_NI[:20] *= torch.rand(20, 24, generator=rng) * 6  # some tokens are loud in some features
    return Search(weight_OI, input_NI, 0.5)


def test_what_changes_is_counted_exactly(search):
    chosen = torch.tensor([3, 7, 150])
    left_NI = torch.cat(
        [search.input_NI[:3], search.input_NI[4:7], search.input_NI[8:150], search.input_NI[151:]]
    )
    kept = []
    for input_NI in (search.input_NI, left_NI):
        score_OI = search.size_OI * input_NI.double().square().sum(0).sqrt()
        kept.append(score_OI.argsort(1, descending=True)[:, :12])
    same = sum(len(set(one.tolist()) & set(other.tolist())) for one, other in zip(*kept, strict=True))
    assert search.changed_without(chosen) == pytest.approx(1 - same / (400 * 12))
    assert search.changed_without(chosen) > 0
    assert search.changed_without(chosen[:0]) == 0


def test_the_search_finds_more_than_random_tokens_and_each_token_once(search):
    found = search.greedy(12)
    assert len(set(found.tolist())) == 12
    random = []
    for seed in range(20):
        order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
        random.append(search.changed_without(order[:12]))
    assert search.changed_without(found) > 1.5 * max(random)


def test_the_first_token_found_is_nearly_the_one_that_changes_most(search):
    """The measure is of first order: an exhaustive search may find a little more, not much."""
    alone = [search.changed_without(torch.tensor([token])) for token in range(300)]
    found = search.changed_without(search.greedy(1))
    assert found >= 0.7 * max(alone)
    assert found > 5 * sum(alone) / len(alone)


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


def test_a_block_that_the_model_lacks_is_refused(tiny_dlm, make_ids, recipe):
    text = Calibration(make_ids(2, 8))
    with pytest.raises(ValueError, match=r"layers=\[3\] must lie in 0 … 2"):
        token_reach(tiny_dlm, recipe, text, text, [0, 3])

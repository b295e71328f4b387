"""The run that the loop is given: blocks may live elsewhere, and statistics come from there."""

from contextlib import contextmanager

import pytest
from naive import same, weights_of

from sinkprune_core import Recipe, prune, weights_kept
from sinkprune_core.calibration.waiting_store import InMemory
from sinkprune_core.pruning.engine import prune_blocks
from sinkprune_core.pruning.plan import make_plan
from sinkprune_core.pruning.pruning_run import PruningRun

NOISED = {"inputs": "noised", "noise_levels": 2, "exclude": "all"}
RECIPES = [
    Recipe("magnitude"),
    Recipe(**NOISED),
    Recipe(**NOISED, propagation="dense"),
    Recipe("sparsegpt", **NOISED, pattern="layer"),
]


class Elsewhere(PruningRun):
    """A run whose pruned blocks go elsewhere: the model has its own back."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.pruned = {}

    @contextmanager
    def block(self, layer):
        block = self.lm.blocks[layer]
        dense = {name: value.clone() for name, value in block.named_parameters()}
        with super().block(layer):
            yield block

        for name, value in block.named_parameters():
            self.pruned[f"{self.lm.blocks_name}.{layer}.{name}"] = value.clone()
            value.copy_(dense[name])


class Counting(InMemory):
    """A store that counts what it is asked to keep."""

    def __init__(self):
        self.kept = 0

    def hidden(self, lm, rows):
        def keep(layer):
            self.kept += 1

        return keep


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_blocks_that_live_elsewhere_are_pruned_as_those_in_memory(tiny_dlm, calibration, recipe):
    before = weights_of(tiny_dlm)
    with weights_kept(tiny_dlm):
        report = prune(tiny_dlm, recipe, calibration, progress=False)
        expected = weights_of(tiny_dlm)

    store = Counting()
    plan = make_plan(tiny_dlm, recipe, calibration)
    run = Elsewhere(tiny_dlm, recipe, calibration, plan, shows_progress=False, store=store)
    found = prune_blocks(run)
    assert same(weights_of(tiny_dlm), before)
    assert same(run.pruned, {name: expected[name] for name in run.pruned})
    assert len(run.pruned) == sum(name.startswith("model.layers.") for name in expected)
    assert found.linears.equals(report.linears)
    assert (store.kept > 0) == (plan.source == "block by block")


def test_a_block_counts_only_where_nothing_went_wrong(tiny_dlm):
    recipe = Recipe("magnitude")
    run = PruningRun(tiny_dlm, recipe, None, make_plan(tiny_dlm, recipe, None))
    with run.block(0):
        pass
    with pytest.raises(KeyboardInterrupt), run.block(1):
        raise KeyboardInterrupt
    assert run.progress.done == 1

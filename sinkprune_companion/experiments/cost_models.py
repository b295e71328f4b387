"""One model of every kind whose cost notebook 04 accounts for."""

import copy
from collections.abc import Iterator
from dataclasses import replace

from sinkprune_core.memory import release_freed_memory
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.pruning.shrink import shrink


def cost_models(lm: LanguageModel, recipes: dict[str, Recipe]) -> Iterator[tuple[str, LanguageModel]]:
    """Yield copies of a model on its device, pruned by recipes that need no text, the last recipe's first.

    Structured recipes give smaller models, for a moment beside the full copy: where they come last, they find
    room. Input embeddings, which nothing prunes, are shared, so that a copy takes the memory of its blocks.
    """
    embeddings = lm.model.get_input_embeddings()
    for name, recipe in reversed(recipes.items()):
        copied = copy.deepcopy(lm.model, {id(embeddings.weight): embeddings.weight})
        pruned = replace(lm, model=copied)
        report = prune(pruned, recipe, progress=False)
        if report.kept_units:
            pruned = shrink(pruned, report.kept_units)
            pruned.model.set_input_embeddings(embeddings)
            pruned.model.tie_weights()
        del copied
        release_freed_memory()  # of the full copy that was shrunk, and of what the caller has let go of
        yield name, pruned
        del pruned  # before the next copy is made

"""One model of every kind whose cost notebook 04 accounts for."""

import copy
from dataclasses import replace

from sinkprune_core.memory import release_freed_memory
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.pruning.shrink import shrink


def cost_models(lm: LanguageModel, recipes: dict[str, Recipe]) -> dict[str, LanguageModel]:
    """Return `lm` itself, as `dense`, and copies of it on its device, pruned by recipes that need no text.

    Structured recipes give smaller models. Input embeddings, which nothing prunes, are shared.
    """
    models = {}
    for name, recipe in reversed(recipes.items()):  # one that shrinks comes last and first finds room
        pruned = replace(lm, model=copy.deepcopy(lm.model))
        report = prune(pruned, recipe, progress=False)
        if report.kept_units:
            pruned = shrink(pruned, report.kept_units)
        pruned.model.set_input_embeddings(lm.model.get_input_embeddings())
        pruned.model.tie_weights()
        models[name] = pruned
    release_freed_memory()  # of the full copy that was shrunk
    return {"dense": lm} | {name: models[name] for name in recipes}

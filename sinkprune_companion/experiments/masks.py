"""Where methods prune differently.

Dimensions: O output features, I input features of a linear map.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd
import torch

from sinkprune_companion.experiments.variants import Variant
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.models.language_model import LanguageModel, weight_OI
from sinkprune_core.pruning.recipe import Recipe

Place = tuple[int, str]  # number of a layer, name of a linear


def weights_of(lm: LanguageModel) -> dict[Place, torch.Tensor]:
    """Return the weights of all linears of the blocks, views (O, I) that write through."""
    return {
        (layer, name): weight_OI(linear).detach()
        for layer, block in enumerate(lm.blocks)
        for name, linear in lm.linears(block).items()
    }


def mask_differences(
    lm: LanguageModel,
    variants: dict[str, tuple[Recipe, Calibration | None]],
    pairs: Sequence[tuple[str, str]],
) -> pd.DataFrame:
    """Return the share of kept weights that differ between two masks, for every pair, layer and linear.

    Columns `one`, `other`, `layer`, `linear`, `differ` = 1 - (kept by both) / (mean number kept): 0 for equal
    masks; two random masks of sparsity s have s. `variants` maps names to a recipe and its calibration text.
    """
    masks = {}  # packed bits of (O, I), by variant and place
    for name in dict.fromkeys(chain.from_iterable(pairs)):
        with Variant(lm, "", *variants[name]) as variant:
            variant.ready()
            weights = weights_of(lm).items()
            masks[name] = {place: np.packbits((kept_OI != 0).cpu().numpy()) for place, kept_OI in weights}
    rows = []
    for one, other in pairs:
        for place, bits in masks[one].items():
            other_bits = masks[other][place]
            both, kept, other_kept = (
                int(np.bitwise_count(each).sum()) for each in (bits & other_bits, bits, other_bits)
            )
            rows.append((one, other, *place, 1 - 2 * both / (kept + other_kept)))
    return pd.DataFrame(rows, columns=["one", "other", "layer", "linear", "differ"])

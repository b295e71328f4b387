"""Where methods prune differently.

Dimensions: O output features, I input features of a linear map.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd

from sinkprune_companion.experiments.critical_weights import weights_of
from sinkprune_companion.experiments.variants import Variant
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.recipe import Recipe


def mask_differences(
    lm: LanguageModel,
    variants: dict[str, tuple[Recipe, Calibration | None]],
    pairs: Sequence[tuple[str, str]],
) -> pd.DataFrame:
    """Return the share of kept weights that differ between two masks, for every pair, layer and linear.

    Columns `one`, `other`, `layer`, `linear`, `differ` = 1 - (kept by both) / (mean number kept): 0 for equal
    masks, 1 for masks that keep nothing in common; two random masks of sparsity s have s. `variants` maps
    names to a recipe and its calibration text.
    """
    masks = {}  # packed bits of (O, I), by variant and place
    for name in dict.fromkeys(chain.from_iterable(pairs)):
        with Variant(lm, "", *variants[name]) as variant:
            variant.ready()
            masks[name] = {
                place: np.packbits((weights_OI != 0).cpu().numpy())
                for place, weights_OI in weights_of(lm).items()
            }
    rows = []
    for one, other in pairs:
        for (layer, name), bits in masks[one].items():
            other_bits = masks[other][layer, name]
            both = int(np.bitwise_count(bits & other_bits).sum())
            kept = int(np.bitwise_count(bits).sum()) + int(np.bitwise_count(other_bits).sum())
            differ = 1 - 2 * both / kept
            rows.append({"one": one, "other": other, "layer": layer, "linear": name, "differ": differ})
    return pd.DataFrame(rows)

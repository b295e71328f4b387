"""How much the masks of pruned models differ.

Dimensions: O output features, I input features of a linear map.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd
import torch

from sinkprune_companion.experiments.variants import Variant
from sinkprune_core import Calibration, LanguageModel, Recipe
from sinkprune_core.language_model import LinearAt


def weights_of(lm: LanguageModel) -> dict[LinearAt, torch.Tensor]:
    """Return the weights of all linears of the blocks, views (O, I) that write through."""
    return {place: linear.weight.detach() for place, linear in lm.all_linears().items()}


def kept_bits(lm: LanguageModel) -> dict[LinearAt, np.ndarray]:
    """Return which weights of a pruned model are not zero, as packed bits of (O, I), by place."""
    return {place: np.packbits((kept_OI != 0).cpu().numpy()) for place, kept_OI in weights_of(lm).items()}


def share_that_differs(one: np.ndarray, other: np.ndarray) -> float:
    """Return the share of kept weights that two masks, as packed bits, do not have in common."""
    in_both = int(np.bitwise_count(one & other).sum())
    in_one = int(np.bitwise_count(one).sum())
    in_other = int(np.bitwise_count(other).sum())
    return 1 - 2 * in_both / (in_one + in_other)


def mask_differences(
    lm: LanguageModel,
    variants: dict[str, tuple[Recipe, Calibration | None]],
    pairs: Sequence[tuple[str, str]],
) -> pd.DataFrame:
    """Return the share of kept weights that differ between two masks, for every pair, layer and linear.

    Columns `one`, `other`, `layer`, `linear`, `differ` = 1 - (kept by both) / (mean number kept): 0 for equal
    masks; two random masks of sparsity s have s. `variants` maps names to a recipe and its calibration text.
    """
    masks = {}
    for name in dict.fromkeys(chain.from_iterable(pairs)):
        with Variant(lm, "", *variants[name]) as variant:
            variant.ready()
            masks[name] = kept_bits(lm)

    rows = []
    for one, other in pairs:
        for place, bits in masks[one].items():
            rows.append((one, other, *place, share_that_differs(bits, masks[other][place])))

    return pd.DataFrame(rows, columns=["one", "other", "layer", "linear", "differ"])

"""What this machine would spend on each of several models, before any of them is downloaded."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from sinkprune_core.calibration.text import Calibration
from sinkprune_core.costs.compute import forward_cost
from sinkprune_core.costs.pruning import pruning_cost, speed_here
from sinkprune_core.models.devices import choose_dtype
from sinkprune_core.models.hub import parse, requirements
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.loading import language_model
from sinkprune_core.models.meta_model import meta_model
from sinkprune_core.models.reader import Checkpoint
from sinkprune_core.pruning.recipe import Recipe


def costs(
    names: Sequence[str],
    recipe: Recipe,
    rows: int,
    length: int,
    forwards: int,
    dtype: str = "auto",
    device: str = "cpu",
) -> pd.DataFrame:
    """Return a row per model of what this machine would spend on it; nothing is downloaded or loaded.

    Pruning takes `rows` calibration sequences of `length` tokens, evaluation `forwards` sequences in all.
    Columns: GB to `download`, on `disk` (with one pruned copy) and in `memory`; TFLOP of both, and hours, at
    least, at the speed of a matrix product on `device` here and now; what this machine `lacks`, in words.
    """
    calibration = Calibration(torch.zeros(rows, length, dtype=torch.long))
    table = []
    for name in names:
        need = requirements(name, dtype, device)
        lm = without_weights(name, dtype, device)
        fitting = recipe if lm.is_diffusion else replace(recipe, inputs="clean", noise="grid")
        cost = pruning_cost(lm, fitting, calibration, Path(), device=device)
        scoring = forwards * forward_cost(lm, length, length // 2).total
        speed = cost.flops / cost.seconds if cost.flops else speed_here(lm, device)
        row = {
            "model": name,
            "billion parameters": need.parameters / 1e9,
            "download GB": need.download / 1e9,
            "disk GB": (need.disk + cost.disk) / 1e9,
            "memory GB": max(need.memory, cost.memory) / 1e9,
            "pruning TFLOP": cost.flops / 1e12,
            "scoring TFLOP": scoring / 1e12,
            "hours, at least": (cost.flops + scoring) / speed / 3600,
            "lacks": "; ".join(dict.fromkeys([*need.missing, *cost.missing])),
        }
        table.append(row)
    return pd.DataFrame(table).set_index("model")


def without_weights(name: str, dtype: str = "auto", device: str = "cpu") -> LanguageModel:
    """Return the shapes of a model of the table, or of a folder from its headers."""
    row, _ = parse(name)
    if row is not None:
        return meta_model(row, choose_dtype(dtype, device))
    checkpoint = Checkpoint(name)
    return language_model(checkpoint, checkpoint.skeleton())

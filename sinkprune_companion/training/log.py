"""The log of a training run: a JSON object a line, and whole whatever happens while a row is added.

Its held-out losses are what settings are chosen by. Dimensions: N sequences, T sequence position.
"""

import json
from pathlib import Path

import torch

from sinkprune_companion.training import losses
from sinkprune_core.evaluation.likelihood import score
from sinkprune_core.files import atomic
from sinkprune_core.models.language_model import LanguageModel


def rows_of(file: Path) -> list[dict]:
    """Return the rows of a log in their order; raise ValueError for a file that is none."""
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(f"{file} is no log of a training: {error}") from None


def add_row(file: Path, row: dict) -> None:
    """Add a row to a log, which need not exist; raise OSError where the disk is full."""
    former = file.read_text(encoding="utf-8") if file.exists() else ""
    with atomic(file) as partial:
        partial.write_text(f"{former}{json.dumps(row)}\n", encoding="utf-8")


def sources_of(data: dict[str, torch.Tensor], split: str) -> dict[str, torch.Tensor]:
    """Return a split's text by source (`train`) or source and kind (`held_out`), the base's samples first."""
    prefix = f"{split}_"
    names = [name.removeprefix(prefix) for name in data if name.startswith(prefix)]
    samples_first = sorted(names, key=lambda name: not name.startswith("samples"))
    return {name: data[prefix + name] for name in samples_first}


def held_out_losses(
    lm: LanguageModel, data: dict[str, torch.Tensor], dtype: str, count: int, draws: int
) -> dict[str, float]:
    """Return the mean NELBO or negative log-likelihood of the first `count` held-out sequences of each kind.

    In nats per token, computed in `dtype`. Keys are `{measure}_{source}_{kind}`. A NELBO has `draws` noise
    levels per sequence.
    """
    measure = losses.MEASURES[lm.kind]
    means = {}
    with losses.precision_of(lm, dtype):
        for name, ids_NT in sources_of(data, "held_out").items():
            scores = score(lm, ids_NT[:count], draws, seed=0)
            means[f"{measure}_{name}"] = float(scores.value.mean())
    return means

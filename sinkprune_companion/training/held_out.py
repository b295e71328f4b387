"""What a training log says of held-out text: the loss, by which settings are chosen, and sink statistics,
which decide nothing.

Dimensions: N sequences, S noise levels, T sequence position.
"""

import torch

from sinkprune_companion.training import losses
from sinkprune_core.calibration.sink_profiles import sink_profiles
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.evaluation.likelihood import score
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.sinks import detection

SINK_LEVELS = 8  # noise levels on which sink statistics are taken
SINK_SEQUENCES = 8  # held-out sequences of each source on which they are taken
SINK_COLUMNS = ("top_share", "sinks_per_step", "stable_share", "overlap", "temporal_variance")


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


def sink_row(lm: LanguageModel, data: dict[str, torch.Tensor], dtype: str) -> dict[str, float | None]:
    """Return mean sink statistics on held-out text along its noise levels, by `sinks_{column}`.

    The columns are those of `detection.variability`. None stands for a statistic that no sequence has.
    """
    ids_NT = torch.cat([ids_NT[:SINK_SEQUENCES] for ids_NT in sources_of(data, "held_out").values()])
    levels = min(SINK_LEVELS, ids_NT.shape[1] - 1)
    with losses.precision_of(lm, dtype):
        profile_NST, visible_ST = sink_profiles(lm, Calibration(ids_NT), levels, progress=False)
    means = detection.variability(profile_NST, visible_ST)[list(SINK_COLUMNS)].mean()
    unknown = means.isna()
    return {f"sinks_{name}": None if unknown[name] else float(means[name]) for name in SINK_COLUMNS}

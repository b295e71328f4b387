"""Why leaving sinks out changes little: what one pass over the paper's calibration text says of a model."""

from collections.abc import Collection

import pandas as pd
import torch

from sinkprune_companion.experiments.paper_protocol import NOISE_LEVELS
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw
from sinkprune_core import LanguageModel
from sinkprune_core.pruning.diagnosis import ALL_TOKENS, WITHOUT_SINKS, diagnose, energy_share, norms_of

DIAGNOSIS_REVISION = 1  # of `diagnosis_table`
CHANNELS_REVISION = 1  # of `channel_table`
SPARSITIES = (0.5, 0.75)


def diagnosis_table(
    run: Run, lm: LanguageModel, fingerprint: str, sequences: int, length: int, seed: int
) -> pd.DataFrame:
    """Return the record of `Diagnosis.table` on one calibration draw, with the sinks' share of tokens.

    The first half of `sequences` is the draw that models are pruned on, the second half is other text.
    """
    calibration = protocol_draw(lm, sequences, length, seed)

    def compute() -> pd.DataFrame:
        found = diagnose(lm, calibration, SPARSITIES, NOISE_LEVELS, progress=False)
        return found.table.assign(left_out=found.left_out)

    key = {"model": lm.name, "kind": lm.kind, "fingerprint": fingerprint, "noise_levels": NOISE_LEVELS}
    key |= {"calibration": calibration.fingerprint, "length": length, "seed": seed}
    return run.record("diagnosis", compute, DIAGNOSIS_REVISION, sparsities=list(SPARSITIES), **key)


def channel_table(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    sequences: int,
    length: int,
    seed: int,
    layers: Collection[int],
) -> pd.DataFrame:
    """Return the record of every input channel's norm and of the sinks' share of its energy, in some layers.

    Columns `layer`, `linear`, `channel`, `norm` and `share`. Linears with one input have equal rows.
    """
    calibration = protocol_draw(lm, sequences, length, seed)

    def compute() -> pd.DataFrame:
        norms, _ = norms_of(lm, calibration, NOISE_LEVELS, progress=False)
        parts = []
        for layer in layers:
            for linear, norm_I in norms[ALL_TOKENS][layer].items():
                share_I = energy_share(norm_I, norms[WITHOUT_SINKS][layer][linear])
                columns = {"channel": torch.arange(len(norm_I)), "norm": norm_I, "share": share_I}
                parts.append(pd.DataFrame(columns).assign(layer=layer, linear=linear))
        return pd.concat(parts, ignore_index=True)

    key = {"model": lm.name, "fingerprint": fingerprint, "noise_levels": NOISE_LEVELS}
    key |= {"calibration": calibration.fingerprint, "length": length, "seed": seed}
    return run.record("channels", compute, CHANNELS_REVISION, layers=list(layers), **key)

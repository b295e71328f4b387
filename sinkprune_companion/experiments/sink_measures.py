"""Tables of sink statistics by reading and condition, and differences between the two kinds of model."""

import pandas as pd
import torch

from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune_companion.readings import LITERAL, READINGS
from sinkprune_core.sinks import detection
from sinkprune_core.sinks.trace import Trace

SHORT = {"diffusion": "dlm", "autoregressive": "ar"}  # kinds of model, as findings are named
KINDS = {"diffusion": "DLM", "autoregressive": "AR model"}  # as pictures and tables call them
IN_TENTHS = "spatial_variance"  # the metric of which the ledger's margin is a tenth of the AR model's value


def by_reading(trace: Trace, sink_std: float, stability_threshold: float, **columns: object) -> pd.DataFrame:
    """Return the sink statistics of every prompt under every reading, with further constant `columns`."""
    parts = []
    for name, reading in READINGS.items():
        about = {"reading": name, "label": reading.label, "new_queries": share_of_new_queries(trace, name)}
        parts.append(reading.variability(trace, sink_std, stability_threshold).assign(**about, **columns))
    return pd.concat(parts, ignore_index=True)


def by_layer(trace: Trace, sink_std: float, stability_threshold: float) -> pd.DataFrame:
    """Return the sink statistics of every prompt and `layer`, whose sinks are its own; literal reading."""
    parts = []
    for layer in range(trace.layers_BSLK.shape[2]):
        frame = READINGS[LITERAL].variability(trace, sink_std, stability_threshold, layer)
        parts.append(frame.assign(layer=layer))
    return pd.concat(parts, ignore_index=True)


def difference(frame: pd.DataFrame, metric: str) -> Estimate | None:
    """Return the mean of diffusion minus autoregressive models in a metric, paired by prompt.

    Several rows per prompt, such as layers, count with their mean. The margin of IN_TENTHS is a tenth of the
    second kind's mean; other metrics have none of their own. None where fewer than two prompts have the
    metric in both.
    """
    by_prompt = frame.pivot_table(metric, "prompt", "kind", aggfunc="mean", dropna=False)
    by_prompt = by_prompt.reindex(columns=[*SHORT]).dropna()
    if len(by_prompt) < 2:
        return None

    found = interval(by_prompt.diffusion - by_prompt.autoregressive)
    if metric != IN_TENTHS:
        return found

    tenth = abs(by_prompt.autoregressive.mean()) / 10
    return found.with_margin(tenth or None)


def stable_share(frame: pd.DataFrame, kind: str) -> Estimate | None:
    """Return the mean share of stable sinks of a kind of model; None if fewer than two prompts have sinks."""
    values = frame.stable_share[frame.kind == kind].dropna()
    return interval(values) if len(values) > 1 else None


def share_of_new_queries(trace: Trace, name: str) -> float:
    """Return which share of a step's queries is new, a mean over the steps after the first."""
    if not trace.causal:  # every query runs again
        return 1.0
    first_S, last_S = trace.windows_S2.T[:, 1:]
    starts = {"beginning": 0, "continuation": trace.prompt_length, "step": first_S}
    return float(((last_S - first_S) / (last_S - starts[READINGS[name].since])).mean())


def token_table(
    ids_BSK: torch.Tensor, sinks_BSK: torch.Tensor, tokenizer, visible_SK: torch.Tensor | None = None
) -> pd.DataFrame:
    """Return which tokens are sinks, the most frequent first: `token`, `share`, and mean `persistence`."""
    persistence_BSK = detection.persistence(sinks_BSK, visible_SK).unsqueeze(-2).expand(sinks_BSK.shape)
    persistence = pd.Series(persistence_BSK[sinks_BSK].numpy())
    by_token = persistence.groupby(ids_BSK[sinks_BSK].numpy()).agg(share="size", persistence="mean")
    by_token = by_token.sort_values("share", ascending=False)
    by_token["share"] /= len(persistence)
    by_token.insert(0, "token", [repr(tokenizer.decode([int(token)])) for token in by_token.index])

    return by_token.round(3).reset_index(drop=True)

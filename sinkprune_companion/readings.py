"""Readings of a step: what of a trace counts as the attention mass of a key, and which keys are sinks then.

The paper's mass is a sum over the queries that exist at a step. A diffusion model leaves no choice: all
queries run in every step. A causal model computes every query once, and its step may be read in several ways;
whether its sinks move depends on which. The first reading is the literal one, on which verdicts rest; the
others are controls. An own reading is one more entry of READINGS.

Dimensions: B prompt, S step, L layer, K key position.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch

from sinkprune_core.sinks import attention, detection
from sinkprune_core.sinks.trace import Trace, visible

LITERAL = "sum_so_far"  # the reading on which verdicts rest


@dataclass(frozen=True)
class Reading:
    """One way to read a step of a causal model; those of a bidirectional model differ in sinks alone."""

    label: str
    """What figures and tables call it."""

    mass: Callable[[Trace], torch.Tensor]
    """Returns the mass of every key per layer, float32 (B, S, L, K), from a trace."""

    visible: Callable[[Trace], torch.Tensor]
    """Returns which keys count in a step, bool (S, K), from a trace."""

    since: str
    """Where the queries of a causal step begin: at the `beginning` of the text, so that the prompt's count,
    with the `continuation`, or with the `step` itself, which keeps nothing of older ones.
    """

    others: bool = False
    """Whether a sink exceeds the mean of the other keys by even shares (Rulli et al.), not the mean of all by
    standard deviations.
    """

    def mass_BSK(self, trace: Trace) -> torch.Tensor:
        """Return the mass of every key, mean over layers and heads, float32."""
        return self.mass(trace).mean(2)

    def sinks(
        self, mass_BSK: torch.Tensor, visible_SK: torch.Tensor, sink_std: float = detection.SINK_STD
    ) -> torch.Tensor:
        """Return which keys are sinks, bool (B, S, K)."""
        if self.others:
            return detection.sinks_above_others(mass_BSK, visible_SK)
        return detection.sink_sets(mass_BSK, visible_SK, sink_std)

    def variability(
        self,
        trace: Trace,
        sink_std: float = detection.SINK_STD,
        stability_threshold: float = detection.STABILITY_THRESHOLD,
        layer: int | None = None,
    ) -> pd.DataFrame:
        """Return the sink statistics of every prompt, as `detection.variability` names them.

        They are those of the mean over layers, or of one `layer`.
        """
        mass_BSLK = self.mass(trace)
        mass_BSK = mass_BSLK.mean(2) if layer is None else mass_BSLK[:, :, layer]
        visible_SK = self.visible(trace)
        sinks_BSK = self.sinks(mass_BSK, visible_SK, sink_std)
        return detection.sink_statistics(mass_BSK, sinks_BSK, visible_SK, stability_threshold)


def seen_by_all(trace: Trace) -> torch.Tensor:
    """Return which keys every query of a step can see, bool (S, K)."""
    length = trace.final_BK.shape[1]
    if not trace.causal:
        return trace.visible_SK
    return visible(length, trace.windows_S2.tolist())


def newest(trace: Trace) -> torch.Tensor:
    """Return the mass from the queries of a step's own window, (B, S, L, K)."""
    return trace.layers_BSLK


def newest_in_shares(trace: Trace) -> torch.Tensor:
    """Return the mass from a step's own window over what even attention would give, (B, S, L, K)."""
    return _divided(newest(trace), _even_shares(trace))


def continuation_in_shares(trace: Trace) -> torch.Tensor:
    """Return the mass from all windows so far over what even attention would give, (B, S, L, K).

    The prompt's queries do not count. A key that few queries have seen comes out too large.
    """
    if not trace.causal:
        return newest_in_shares(trace)
    return _divided(trace.layers_BSLK.cumsum(1), _even_shares(trace).cumsum(0))


def _even_shares(trace: Trace) -> torch.Tensor:
    """Return the mass that even attention would give every key in a step's own window, (S, K)."""
    return attention.even_share(trace.final_BK.shape[1], trace.windows_S2.tolist(), trace.causal)


def _divided(mass_BSLK: torch.Tensor, even_SK: torch.Tensor) -> torch.Tensor:
    """Return mass in even shares; 0 for keys that no query can see."""
    return mass_BSLK / even_SK.masked_fill(even_SK == 0, torch.inf)[:, None]


READINGS = {
    LITERAL: Reading(
        "sum over all queries so far (literal)",
        lambda trace: trace.mass_BSLK,
        lambda trace: trace.visible_SK,
        since="beginning",
    ),
    "above_others": Reading(
        "the same, sinks by Rulli et al.'s threshold",
        lambda trace: trace.mass_BSLK,
        lambda trace: trace.visible_SK,
        since="beginning",
        others=True,
    ),
    "newest": Reading("newest queries alone", newest, seen_by_all, since="step"),
    "newest_shares": Reading("newest queries, in even shares", newest_in_shares, seen_by_all, since="step"),
    "so_far_shares": Reading(
        "all written so far, in even shares", continuation_in_shares, seen_by_all, since="continuation"
    ),
}


def reading(name: str) -> Reading:
    """Return a reading by name; raises ValueError for an unknown one."""
    if name not in READINGS:
        raise ValueError(f"reading={name!r} is unknown; choose one of {', '.join(READINGS)}")
    return READINGS[name]

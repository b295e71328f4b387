"""Differences on each kind of scored text apart, beside their mean over the kinds.

Scored text is natural English, samples of the AR model and documentation in equal parts. Calibration text is
drawn like the last two, and what a recipe gains may depend on the kind.

Dimensions: N sequences.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion.experiments.comparisons import COMPARISONS, Compared
from sinkprune_companion.experiments.pruning_findings import likelihood_findings
from sinkprune_companion.run.texts import DOMAINS


def finding_on(finding: str, kind: str) -> str:
    """Return what a finding is called on one kind of text alone."""
    return f"{finding}_on_{kind}"


def kind_of_sequences(scores: pd.DataFrame) -> np.ndarray:
    """Return the kind of text of every sequence of a table of scores, in the order of `pivot`, (N,).

    Raises ValueError where a sequence is of several kinds, so that it has no number of its own.
    """
    kinds = scores[["sequence", "text"]].drop_duplicates().sort_values("sequence")
    if kinds.sequence.duplicated().any():
        raise ValueError("some sequences are of several kinds of text: score every variant on the same texts")
    return kinds.text.to_numpy()


def findings_by_kind(
    scores: pd.DataFrame, comparisons: Mapping[str, Compared] = COMPARISONS
) -> dict[str, Estimate]:
    """Return every difference of losses on each kind of text apart, as findings `{finding}_on_{kind}`.

    The margin of each is a share of what the second variant costs on the same kind of text.
    """
    found = {}
    for kind in DOMAINS:
        of_kind = likelihood_findings(scores[scores.text == kind], comparisons)
        found |= {finding_on(finding, kind): estimate for finding, estimate in of_kind.items()}
    return found

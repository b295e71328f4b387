"""Differences on each kind of text apart: against a computation from the rows of that kind alone."""

import numpy as np
import pandas as pd
import pytest

from sinkprune.evaluation.intervals import Estimate, crossed_interval
from sinkprune_companion.experiments.kinds_of_text import (
    findings_by_kind,
    kind_of_sequences,
)
from sinkprune_companion.experiments.paired_differences import pivot
from sinkprune_companion.experiments.pruning_findings import likelihood_findings
from sinkprune_companion.experiments.recipe_differences import Difference, by_kind_of_text
from sinkprune_companion.margins import share_that_matters
from sinkprune_companion.run.texts import DOMAINS

KINDS = np.repeat(DOMAINS, 4)  # of 12 sequences
SIGN = {"natural": -1.0, "samples": 1.0, "documentation": 1.0}  # of official recipe − Wanda


@pytest.fixture
def scores() -> pd.DataFrame:
    """Losses of which the difference has another sign on natural English, in three calibration draws."""
    rng = np.random.default_rng(0)
    parts = []

    for variant, pattern, sparsity in (
        ("dense", "dense", 0.0),
        ("wanda", "unstructured", 0.5),
        ("paper", "unstructured", 0.5),
    ):
        for seed in (0, 1, 2) if sparsity else (0,):
            value_N = rng.normal(0.0, 0.01, len(KINDS))

            if variant != "dense":
                value_N = value_N + 2.0
            if variant == "paper":
                value_N = value_N + np.array([SIGN[kind] for kind in KINDS])

            labels = {"variant": variant, "pattern": pattern, "sparsity": sparsity, "seed": seed}
            labels["calibration_tokens"] = 128 if sparsity else 0
            numbered = {"sequence": range(len(KINDS)), "text": KINDS, "value": value_N}
            parts.append(pd.DataFrame(numbered).assign(**labels))

    return pd.concat(parts, ignore_index=True)


def bounds(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def test_a_kind_has_the_interval_and_the_margin_of_its_own_rows(scores):
    found = findings_by_kind(scores)
    assert found.keys() == {f"paper_minus_wanda_on_{kind}" for kind in DOMAINS}

    wanda_RN, paper_RN = (pivot(scores[scores.variant == name]) for name in ("wanda", "paper"))
    dense_RN = pivot(scores[scores.variant == "dense"])

    for kind in DOMAINS:
        here = kind == KINDS
        expected = crossed_interval(paper_RN[:, here] - wanda_RN[:, here])
        estimate = found[f"paper_minus_wanda_on_{kind}"]

        assert bounds(estimate) == pytest.approx(bounds(expected))
        assert estimate.value == pytest.approx(SIGN[kind], abs=0.05) and estimate.draws == 3

        damage = float((wanda_RN - dense_RN)[:, here].mean())
        assert estimate.margin == pytest.approx(share_that_matters() * damage)


def test_the_mean_over_kinds_hides_a_sign_that_they_do_not_share(scores):
    pooled = likelihood_findings(scores)["paper_minus_wanda"]
    apart = findings_by_kind(scores)
    values = [apart[f"paper_minus_wanda_on_{kind}"].value for kind in DOMAINS]
    assert pooled.value == pytest.approx(np.mean(values)) and pooled.value > 0 > min(values)


def test_effects_that_are_arrays_come_apart_as_tables_do(scores):
    wanda_RN, paper_RN = (pivot(scores[scores.variant == name]) for name in ("wanda", "paper"))
    dense_RN = pivot(scores[scores.variant == "dense"])

    kind_N = kind_of_sequences(scores)
    assert kind_N.tolist() == KINDS.tolist()

    difference = Difference(paper_RN - wanda_RN, wanda_RN - dense_RN)
    of_arrays = by_kind_of_text({"paper_minus_wanda": difference}, kind_N)
    of_tables = findings_by_kind(scores)

    assert of_arrays.keys() == of_tables.keys()
    for name, estimate in of_tables.items():
        assert bounds(of_arrays[name]) == pytest.approx(bounds(estimate))
        assert of_arrays[name].margin == pytest.approx(estimate.margin)


def test_sequences_of_several_kinds_are_refused(scores):
    scores.loc[0, "text"] = "samples"
    with pytest.raises(ValueError, match="several kinds of text"):
        kind_of_sequences(scores)

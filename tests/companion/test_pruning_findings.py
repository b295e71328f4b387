"""Findings of notebook 03 that rest on counts and on answers: what was planted comes out."""

import pandas as pd
import pytest

from sinkprune_companion.experiments.pruning_findings import answer_margin_findings, left_out_findings
from sinkprune_companion.ledger.margins import share_that_matters


def scores(shares: dict[str, list[float]]) -> pd.DataFrame:
    """Return a table with the share of tokens that each variant leaves out, by calibration draw."""
    rows = [
        {
            "variant": variant,
            "pattern": "unstructured",
            "sparsity": 0.5,
            "seed": seed,
            "sequence": sequence,
            "left_out_share": share,
        }
        for variant, by_draw in shares.items()
        for seed, share in enumerate(by_draw)
        for sequence in range(3)
    ]
    return pd.DataFrame(rows)


def test_the_share_of_stable_sinks_is_what_unstable_ones_leave():
    table = scores({"unstable": [0.006, 0.009], "all-sinks": [0.01, 0.01]})
    found = left_out_findings(table)["stable_share_left_out"]
    assert found.value == pytest.approx((0.4 + 0.1) / 2) and found.draws == 2
    assert left_out_findings(table[table.seed == 0]) == {"stable_share_left_out": None}


def test_margins_of_answers_are_shares_of_the_damage():
    means = {"dense": 2.0, "wanda": 1.0, "paper": 0.75, "noised-dense": 1.0, "unstable": 1.0}
    rows = [
        {
            "group": "g",
            "pair": pair,
            "margin": mean + 0.01 * pair,
            "benchmark": benchmark,
            "variant": variant,
            "pattern": "dense" if variant == "dense" else "unstructured",
            "sparsity": 0.0 if variant == "dense" else 0.5,
            "seed": 0,
            "calibration_tokens": 0 if variant == "dense" else 64,
        }
        for variant, mean in means.items()
        for benchmark in ("suite", "blimp")
        for pair in range(4)
    ]
    found = answer_margin_findings(pd.DataFrame(rows), [0.5, 0.6])
    assert found["answer_margin_paper_minus_wanda_50"].value == pytest.approx(-0.25)
    assert found["answer_margin_unstable_minus_none_50"].value == pytest.approx(0.0)
    assert found["answer_margin_paper_minus_wanda_50"].margin == share_that_matters()
    assert found["answer_margin_paper_minus_wanda_60"] is None

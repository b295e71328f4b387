"""Findings of notebook 03 that rest on counts: what was planted comes out."""

import pandas as pd
import pytest

from sinkprune_companion.experiments.pruning_findings import left_out_findings


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

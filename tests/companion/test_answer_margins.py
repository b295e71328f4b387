"""Margins in shares of the damage: a naive calculation, pooled over benchmarks."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments.variant_answers import margins, share_of_damage
from sinkprune_companion.ledger.margins import share_that_matters

DAMAGE = {"suite": 2.0, "blimp": 0.5}  # nats that `wanda` costs
GAIN = {"suite": 0.2, "blimp": 0.1}  # nats that `paper` gives back
PAIRS = {"suite": 6, "blimp": 4}


def answers(draws: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for benchmark, pairs in PAIRS.items():
        easy = rng.normal(3, 1, (pairs, 2))
        for variant, cost in (("dense", 0), ("wanda", DAMAGE[benchmark]), ("paper", None)):
            cost = DAMAGE[benchmark] - GAIN[benchmark] if cost is None else cost
            is_dense = variant == "dense"
            place = {"pattern": "dense", "sparsity": 0.0, "calibration_tokens": 0}
            if not is_dense:
                place = {"pattern": "unstructured", "sparsity": 0.5, "calibration_tokens": 100}
            named = {"benchmark": benchmark, "variant": variant, "group": "g", **place}
            for seed, pair, item in product(range(1 if is_dense else draws), range(pairs), range(2)):
                rows.append({**named, "seed": seed, "pair": pair, "margin": easy[pair, item] - cost})
    return pd.DataFrame(rows)


def sides(*variants: str) -> list[dict]:
    place = {"pattern": "unstructured", "sparsity": 0.5}
    dense = {"variant": "dense", "pattern": "dense", "sparsity": 0.0}
    return [*({"variant": variant, **place} for variant in variants), dense]


def test_a_gain_is_a_share_of_the_damage_of_its_benchmark_and_pairs_count_alike():
    estimate = share_of_damage(margins(answers()), *sides("paper", "wanda"))
    shares = [GAIN[name] / DAMAGE[name] for name, pairs in PAIRS.items() for _ in range(pairs)]
    assert estimate.value == pytest.approx(np.mean(shares))
    assert estimate.units == sum(PAIRS.values())
    assert estimate.margin == pytest.approx(share_that_matters())

"""Accuracy of variants, paired by item: against counts by hand, on a real tiny model."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments import variants
from sinkprune_companion.experiments.pruning_findings import accuracy_findings
from sinkprune_companion.experiments.variants import (
    Variant,
    means_by_pair,
    points,
    share_of_damage,
    variant_answers,
)
from sinkprune_companion.harness.local_data import embedded_blimp
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_core import Calibration, preset


def answers_of(variant: str, seed: int, right: list[bool], tokens: int = 10) -> pd.DataFrame:
    """Return answers to items of which two in a row are a pair."""
    return pd.DataFrame(
        {
            "benchmark": "suite",
            "variant": variant,
            "pattern": "dense" if tokens == 0 else "unstructured",
            "sparsity": 0.0 if tokens == 0 else 0.5,
            "seed": seed,
            "calibration_tokens": tokens,
            "group": "g",
            "pair": [item // 2 for item in range(len(right))],
            "correct": right,
        }
    )


@pytest.fixture
def answers() -> pd.DataFrame:
    """Two variants in two calibration draws, and the dense model, which has none; 6 items in 3 pairs."""
    yes, no = True, False
    return pd.concat(
        [
            answers_of("dense", 0, [yes, yes, yes, yes, yes, no], 0),
            answers_of("one", 0, [yes, no, yes, yes, no, no]),
            answers_of("one", 1, [yes, no, yes, no, no, no]),
            answers_of("two", 0, [yes, no, no, no, yes, no]),
            answers_of("two", 1, [no, no, no, no, no, no]),
        ],
        ignore_index=True,
    )


def test_points_are_shares_of_right_answers_by_pair(answers):
    found = points(answers)
    one = found[(found.variant == "one") & (found.seed == 0)]
    assert one.value.tolist() == [50, 100, 0]
    assert one.sequence.tolist() == [0, 1, 2]


def test_a_difference_is_paired_by_draw_and_pair_and_knows_what_the_second_costs(answers):
    named = answers.assign(variant=answers.variant.map({"dense": "dense", "one": "paper", "two": "wanda"}))
    findings = accuracy_findings(points(named), [0.5])
    estimate = findings["accuracy_suite_paper_minus_wanda_50"]
    assert estimate.value == pytest.approx(100 * ((3 + 2) - (2 + 0)) / 12)
    assert estimate.margin == pytest.approx(share_that_matters() * 100 * (5 / 6 - 2 / 12))
    assert (estimate.draws, estimate.units) == (2, 3)
    assert "accuracy_suite_unstable_minus_none_50" not in findings


def test_answers_of_a_variant_are_a_record_and_prune_it_once(run, tiny_dlm, make_ids, monkeypatch):
    short = dict(list(embedded_blimp().items())[:2])
    monkeypatch.setattr(variants, "embedded_blimp", lambda: short)
    before = tiny_dlm.fingerprint()
    with Variant(tiny_dlm, before, preset("wanda"), Calibration(make_ids(2, 12))) as variant:
        found = variant_answers(run, variant, {"blimp": 3}, 2, variant="wanda", seed=4)
    assert tiny_dlm.fingerprint() == before
    assert len(found) == 6
    columns = ["benchmark", "calibration_tokens", "variant"]
    assert found[columns].drop_duplicates().to_numpy().tolist() == [["blimp", 24, "wanda"]]
    with Variant(tiny_dlm, before) as variant:
        dense = variant_answers(run, variant, {"blimp": 3}, 2, variant="dense")
        assert set(dense.calibration_tokens) == {0}
        with pytest.raises(ValueError, match="benchmark='piqa' is unknown; choose one of suite, blimp"):
            variant_answers(run, variant, {"piqa": 3}, 2)


def test_a_bound_that_is_zero_but_for_rounding_is_zero():
    by_pair = points(
        pd.concat(
            [
                answers_of("dense", 0, [True] * 12, tokens=0),
                *(answers_of("paper", seed, [True, False] * 6) for seed in (0, 1)),
                *(answers_of("wanda", seed, [True, False] * 6) for seed in (0, 1)),
            ]
        )
    )
    by_pair["value"] = by_pair.value + by_pair.variant.map({"paper": -1e-13}).fillna(0)
    found = accuracy_findings(by_pair, [0.5])["accuracy_suite_paper_minus_wanda_50"]
    assert (found.value, found.low, found.high) == (0, 0, 0)


# margins in shares of the damage


def test_a_gain_is_a_share_of_the_damage_of_its_benchmark_and_pairs_count_alike():
    pairs = {"suite": 6, "blimp": 4}
    costs = {"dense": (0.0, 0.0), "wanda": (2.0, 0.5), "paper": (1.8, 0.4)}  # nats, by benchmark
    rng = np.random.default_rng(0)
    easy = {benchmark: rng.normal(3, 1, 2 * count) for benchmark, count in pairs.items()}
    parts = []
    for variant, of_benchmarks in costs.items():
        for (benchmark, ease), cost in zip(easy.items(), of_benchmarks, strict=True):
            is_dense = variant == "dense"
            for seed in range(1 if is_dense else 3):
                made = answers_of(variant, seed, [True] * len(ease), 0 if is_dense else 100)
                parts.append(made.assign(benchmark=benchmark, margin=ease - cost))
    place = {"pattern": "unstructured", "sparsity": 0.5}
    sides = [{"variant": variant, **place} for variant in ("paper", "wanda")]
    dense = {"variant": "dense", "pattern": "dense", "sparsity": 0.0}
    estimate = share_of_damage(means_by_pair(pd.concat(parts), "margin"), *sides, dense)
    assert estimate.value == pytest.approx((6 * 0.2 / 2.0 + 4 * 0.1 / 0.5) / 10)
    assert estimate.units == 10
    assert estimate.margin == pytest.approx(share_that_matters())

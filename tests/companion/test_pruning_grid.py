"""What notebook 03 prunes and finds: tokens are matched, draws counted, findings named as the ledger does."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments import pruning_findings
from sinkprune_companion.experiments.pruning_findings import at, damage, suffix
from sinkprune_companion.experiments.pruning_grid import (
    ANSWERING,
    CONTROLS,
    CURVE,
    HEADLINE,
    UNITS,
    UNMATCHED,
    UNSTRUCTURED,
    GridRow,
    grid_rows,
)
from sinkprune_companion.experiments.scoring import above_dense, score_texts
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.ledger import claims
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_companion.run.records import Run
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.pruning.recipe import preset


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr("sinkprune_companion.run.records.project_root", lambda: tmp_path)
    return Run("03_pruning_results", "test", {})


@pytest.fixture
def grid() -> list[GridRow]:
    settings = {"calibration": 6, "noise_levels": 8, "sink_std": 1.5}
    return [
        *grid_rows(HEADLINE, UNSTRUCTURED, 0.5, 10, **settings),
        *grid_rows(CONTROLS, UNSTRUCTURED, 0.5, 3, **settings),
        *grid_rows(CURVE, UNSTRUCTURED, 0.75, 3, **settings),
        *grid_rows(CURVE, "2:4", 0.5, 2, **settings),
        *grid_rows(UNITS, "structured", 0.3, 2, **settings),
    ]


def tokens(row: GridRow) -> int:
    """Return how many sequences of calibration text a variant sees, those of all noise levels counted."""
    return row.sequences * (row.recipe.noise_levels if row.recipe.inputs == "noised" else 1)


def test_recipes_that_are_compared_see_as_many_tokens(grid):
    by_place = {(row.pattern, row.sparsity, row.variant): tokens(row) for row in grid if row.is_calibrated}
    compared = 0
    for comparison in pruning_findings.COMPARISONS.values():
        if "fewer tokens" in comparison.group:
            continue
        for pattern, sparsity, name in by_place:
            if name == comparison.variant and (pattern, sparsity, comparison.other) in by_place:
                other = by_place[pattern, sparsity, comparison.other]
                assert by_place[pattern, sparsity, name] == other, comparison
                compared += 1
    assert compared >= 30
    assert by_place["unstructured", 0.5, "wanda"] == 8 * by_place["unstructured", 0.5, UNMATCHED]


def test_a_row_prunes_as_its_labels_say(grid):
    assert len({tuple(row.labels.values()) for row in grid}) == len(grid)
    for row in grid:
        assert (row.recipe.sparsity, row.recipe.sink_std) == (row.sparsity, 1.5)
        assert (row.recipe.pattern == "2:4") == (row.pattern == "2:4")
    assert not any(row.is_calibrated for row in grid if "magnitude" in row.variant)
    assert set(ANSWERING) <= set(HEADLINE) & set(CURVE)


def test_chosen_presets_are_kept_alone():
    rows = grid_rows(HEADLINE, UNSTRUCTURED, 0.5, 1, 4, chosen=["wanda", "paper"])
    assert [row.variant for row in rows] == ["wanda", UNMATCHED, "paper"]


def test_draws_under_noise_of_their_own_are_paired_with_the_dense_model_under_the_same_noise(
    run, tiny_dlm, make_ids
):
    texts = {"natural/crop": make_ids(3, 12, seed=9)}
    fingerprint = tiny_dlm.fingerprint()
    scores = []
    for seed in (0, 1):
        labels = {"pattern": "dense", "sparsity": 0.0, "seed": seed}
        with Variant(tiny_dlm, fingerprint) as variant:
            scores.append(variant.scores(run, texts, 1, noise=seed, variant="dense", **labels))
        labels = {"pattern": "unstructured", "sparsity": 0.5, "seed": seed}
        with Variant(tiny_dlm, fingerprint, preset("wanda"), Calibration(make_ids(2, 12, seed))) as variant:
            scores.append(variant.scores(run, texts, 1, noise=seed, variant="wanda", **labels))
    own = pd.concat(scores, ignore_index=True)
    above = above_dense(own)

    def values(scores, variant, seed):
        return scores[(scores.variant == variant) & (scores.seed == seed)].value.to_numpy()

    assert np.array_equal(values(own, "dense", 1), score_texts(tiny_dlm, texts, 1, seed=1).value)
    assert above[above.variant == "dense"].value.tolist() == [0.0] * 3
    for seed in (0, 1):
        expected = values(own, "wanda", seed) - values(own, "dense", seed)
        assert np.allclose(values(above, "wanda", seed), expected)
    dense_mean = own[own.variant == "dense"].value.mean()
    wanda_mean = own[own.variant == "wanda"].value.mean()
    assert damage(above, ("unstructured", 0.5), "wanda") == pytest.approx(wanda_mean - dense_mean)


# findings


def scores_of(values: dict[tuple[str, str, float], list[float]]) -> pd.DataFrame:
    """Return scores of variants at places, (variant, pattern, sparsity): one value per sequence."""
    rows = []
    for (variant, pattern, sparsity), numbers in values.items():
        for sequence, value in enumerate(numbers):
            row = {"variant": variant, "pattern": pattern, "sparsity": sparsity, "seed": 0}
            row |= {"sequence": sequence, "value": value, "calibration_tokens": int(variant != "dense")}
            rows.append(row | {"text": "natural", "start": "crop" if sequence < 2 else "beginning"})
    return pd.DataFrame(rows)


@pytest.fixture
def scores() -> pd.DataFrame:
    return scores_of(
        {
            ("dense", "dense", 0.0): [1.0, 2.0, 3.0, 4.0],
            ("wanda", "unstructured", 0.5): [2.0, 3.0, 4.0, 5.0],
            ("paper", "unstructured", 0.5): [1.5, 2.5, 4.5, 5.5],
            ("wanda", "unstructured", 0.75): [5.0, 6.0, 7.0, 8.0],
            ("paper", "unstructured", 0.75): [7.0, 8.0, 9.0, 10.0],
            ("wanda", "2:4", 0.5): [3.0, 4.0, 5.0, 6.0],
            ("paper", "2:4", 0.5): [3.0, 4.0, 5.0, 6.0],
        }
    )


def test_findings_carry_the_margin_of_their_own_place(scores):
    found = pruning_findings.likelihood_findings(scores, [0.5, 0.75])
    measured = {name: estimate for name, estimate in found.items() if estimate is not None}
    assert {name: estimate.value for name, estimate in measured.items()} == pytest.approx(
        {
            "paper_minus_wanda": 0.0,
            "paper_minus_wanda_75": 2.0,
            "paper_minus_wanda_2_4": 0.0,
            "paper_gain_growth": 2.0,
        }
    )
    share = share_that_matters()
    assert share == pytest.approx((53.18 - 52.70) / (57.93 - 52.70) / 2)
    margins = {name: estimate.margin for name, estimate in measured.items()}
    assert margins == pytest.approx(
        {
            "paper_minus_wanda": share,
            "paper_minus_wanda_75": 4 * share,
            "paper_minus_wanda_2_4": 2 * share,
            "paper_gain_growth": 4 * share,
        }
    )


def test_a_difference_is_shown_by_kind_of_text(scores):
    table = pruning_findings.by_text(scores, ("unstructured", 0.5), ["paper_minus_wanda"])
    assert table.loc["paper − wanda", ("natural", "crop")].startswith("-0.5 ")
    assert table.loc["paper − wanda", ("natural", "beginning")].startswith("0.5 ")


def test_places_have_the_endings_of_the_ledger_and_the_dense_model_has_one_place():
    endings = {
        ("unstructured", 0.5): "",
        ("unstructured", 0.75): "_75",
        ("2:4", 0.5): "_2_4",
        ("structured", 0.5): "_50",
    }
    assert {place: suffix(place) for place in endings} == endings
    assert at(("unstructured", 0.5), "dense") == at(("2:4", 0.5), "dense")


ANSWER_MARGINS = ("paper_minus_wanda", "unstable_minus_none")  # in the ledger, as `answer_margin_…`


def test_every_row_of_the_ledger_that_notebook_03_decides_is_a_finding_it_can_make():
    variants = {("unstructured", 0.5): {*HEADLINE, *CONTROLS}}
    variants |= {("unstructured", share): set(CURVE) for share in (0.25, 0.75)}
    variants |= {("unstructured", 0.6): set(ANSWERING)}
    variants |= {(pattern, 0.5): set(CURVE) for pattern in ("2:4", "4:8")}
    variants |= {("structured", ratio): set(UNITS) for ratio in (0.3, 0.5)}
    can = set(pruning_findings.GROWTHS)
    for place, names in variants.items():
        for name, each in pruning_findings.COMPARISONS.items():
            if {each.variant, each.other} <= names:
                can.add(name + suffix(place))
    for share in (0.25, 0.5, 0.75):
        can |= {name + suffix(("unstructured", share)) for name in pruning_findings.TWIN_COMPARISONS}
    for benchmark in ("suite", "blimp"):
        can |= {f"accuracy_{benchmark}_{name}_{p}" for name in pruning_findings.ACCURACY for p in (50, 60)}
    can |= {f"answer_margin_{name}_{p}" for name in pruning_findings.ACCURACY for p in (50, 60)}
    can |= {"stable_share_left_out"}
    can |= {f"masks_{other}_minus_other_text" for other in ("all_sinks", "unstable", "wanda")}
    can |= {"stable_share_left_out"}
    can |= {f"answer_margin_{name}_{p}" for name in ANSWER_MARGINS for p in (50, 60)}
    rows = {row.finding.split("/")[1] for row in claims.ledger() if row.notebook == "03_pruning_results"}
    assert rows <= can

"""What notebook 03 prunes and finds: tokens are matched, findings named as the ledger does."""

import pandas as pd
import pytest

from sinkprune_companion.experiments import pruning_findings
from sinkprune_companion.experiments.comparisons import COMPARISONS
from sinkprune_companion.experiments.pruning_grid import (
    CONTROLS,
    CURVE,
    HEADLINE,
    UNITS,
    UNMATCHED,
    UNSTRUCTURED,
    GridRow,
    grid_rows,
)
from sinkprune_companion.margins import share_that_matters


@pytest.fixture
def grid() -> list[GridRow]:
    settings = {"calibration": 8, "noise_levels": 8, "sink_std": 1.5}
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

    for comparison in COMPARISONS.values():
        if "fewer tokens" in comparison.group:
            continue

        for pattern, sparsity, name in by_place:
            if name == comparison.variant and (pattern, sparsity, comparison.other) in by_place:
                more = by_place[pattern, sparsity, comparison.other] - by_place[pattern, sparsity, name]
                assert 0 <= more < 10, comparison  # one sequence's levels
                compared += 1
    assert compared >= 30

    official = {row.variant: row.recipe.noise_levels for row in grid if row.recipe.noise == "official"}
    assert set(official.values()) == {10} and {"paper", "paper-sparsegpt", "structured-sink"} <= set(official)

    assert by_place["unstructured", 0.5, "wanda"] == 8 * by_place["unstructured", 0.5, UNMATCHED]


# findings


@pytest.fixture
def scores() -> pd.DataFrame:
    """Scores of variants at places, one value per sequence."""
    values = {
        ("dense", "dense", 0.0): [1.0, 2.0, 3.0, 4.0],
        ("wanda", "unstructured", 0.5): [2.0, 3.0, 4.0, 5.0],
        ("paper", "unstructured", 0.5): [1.5, 2.5, 4.5, 5.5],
        ("wanda", "unstructured", 0.75): [5.0, 6.0, 7.0, 8.0],
        ("paper", "unstructured", 0.75): [7.0, 8.0, 9.0, 10.0],
        ("wanda", "2:4", 0.5): [3.0, 4.0, 5.0, 6.0],
        ("paper", "2:4", 0.5): [3.0, 4.0, 5.0, 6.0],
    }

    rows = []
    for (variant, pattern, sparsity), numbers in values.items():
        for sequence, value in enumerate(numbers):
            row = {"variant": variant, "pattern": pattern, "sparsity": sparsity, "seed": 0}
            row |= {"sequence": sequence, "value": value, "calibration_tokens": int(variant != "dense")}
            rows.append(row | {"text": "natural", "start": "crop" if sequence < 2 else "beginning"})
    return pd.DataFrame(rows)


def test_findings_carry_the_margin_of_their_own_place(scores):
    measured = pruning_findings.likelihood_findings(scores)
    share = share_that_matters()
    expected = {
        "paper_minus_wanda": (0.0, share),
        "paper_minus_wanda_75": (2.0, 4 * share),
        "paper_minus_wanda_2_4": (0.0, 2 * share),
    }

    assert measured.keys() == expected.keys()
    for name, value_and_margin in expected.items():
        assert (measured[name].value, measured[name].margin) == pytest.approx(value_and_margin), name


def test_a_preset_with_noise_levels_of_its_own_keeps_them():
    names = ["paper-dream", "recommended", "paper", "noised-dense"]
    rows = grid_rows(names, UNSTRUCTURED, 0.5, 1, 16, noise_levels=8)

    found = {row.variant: (row.recipe.noise_levels, row.sequences) for row in rows}
    assert found == {
        "paper-dream": (10, 12),
        "recommended": (2, 64),
        "paper": (10, 12),
        "noised-dense": (8, 16),
    }

"""What notebook 03 prunes and finds: tokens are matched, draws counted, findings named as the ledger does."""

import numpy as np
import pandas as pd
import pytest

from sinkprune_companion.experiments import pruning_findings
from sinkprune_companion.experiments.pruning_findings import at, damage, differences, suffix
from sinkprune_companion.experiments.pruning_grid import (
    ANSWERING,
    HEADLINE,
    UNMATCHED,
    GridCell,
    GridSize,
    Measures,
    grid_cells,
    measure_grid,
    twin_cells,
)
from sinkprune_companion.experiments.scoring import above_dense, score_texts
from sinkprune_companion.ledger import claims
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_companion.run.records import Run
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.recipe import preset

SIZE = GridSize(6, 8, headline_draws=10, other_draws=3, pattern_draws=2, answer_draws=2)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr("sinkprune_companion.run.records.project_root", lambda: tmp_path)
    return Run("03_pruning_results", "test", {})


@pytest.fixture
def cells() -> list[GridCell]:
    return grid_cells(SIZE, [0.25, 0.5], [0.5, 0.6], ["2:4"], [0.3], sink_std=1.5)


def tokens(cell: GridCell) -> int:
    """Return how many sequences of calibration text a variant sees, those of all noise levels counted."""
    return cell.sequences * (cell.recipe.noise_levels if cell.recipe.inputs == "noised" else 1)


def test_recipes_that_are_compared_see_as_many_tokens(cells):
    calibrated = [cell for cell in cells if CRITERIA[cell.recipe.criterion].calibrated]
    by_place = {(cell.pattern, cell.sparsity, cell.name): tokens(cell) for cell in calibrated}
    for each in pruning_findings.COMPARISONS.values():
        if "fewer tokens" in each.group:
            continue
        for pattern, sparsity, name in by_place:
            if name == each.variant and (pattern, sparsity, each.other) in by_place:
                assert by_place[pattern, sparsity, name] == by_place[pattern, sparsity, each.other], each
    assert by_place["unstructured", 0.5, "wanda"] == 8 * by_place["unstructured", 0.5, UNMATCHED]


def test_headline_rows_have_all_draws_and_each_other_kind_its_own(cells):
    draws = {(cell.pattern, cell.sparsity, cell.name): cell.draws for cell in cells}
    assert {draws["unstructured", 0.5, name] for name in HEADLINE} == {10}
    assert draws["unstructured", 0.5, "stable"] == draws["unstructured", 0.25, "wanda"] == 3
    assert draws["2:4", 0.5, "wanda"] == draws["structured", 0.3, "flap"] == 2
    answering = {(cell.sparsity, cell.name) for cell in cells if cell.answer_draws}
    assert answering == {(share, name) for share in (0.5, 0.6) for name in ANSWERING}
    assert all(cell.recipe.sink_std == 1.5 for cell in cells)
    assert len({(cell.pattern, cell.sparsity, cell.name) for cell in cells}) == len(cells)


def test_chosen_presets_are_kept_alone(cells):
    chosen = grid_cells(SIZE, [0.5], [0.5], ["2:4"], [0.3], ["wanda", "structured"])
    assert {cell.name for cell in chosen} == {"wanda", UNMATCHED, "structured"}
    assert {cell.name for cell in twin_cells(SIZE, [0.5])} == {"wanda, none", "wanda, all", "wanda, random"}


def test_a_grid_is_measured_in_the_draws_that_each_variant_has(run, tiny_dlm, make_ids, monkeypatch):
    monkeypatch.setattr(
        "sinkprune_companion.run.texts.corpus.texts",
        lambda tokenizer, count, length, held_out, seed: {"x": make_ids(count, length, seed)},
    )
    before = tiny_dlm.fingerprint()
    grid = [
        GridCell("unstructured", 0.5, "magnitude", preset("magnitude"), 2, 3),
        GridCell("unstructured", 0.5, "wanda", preset("wanda"), 4, 2),
        GridCell("unstructured", 0.5, "unstable", preset("unstable", noise_levels=2), 2, 1),
    ]
    measures = Measures({"natural/crop": make_ids(3, 12, seed=9)}, 1, {}, 1)
    scores, answers = measure_grid(run, tiny_dlm, grid, measures, range(3))
    assert tiny_dlm.fingerprint() == before
    assert answers.empty
    counted = scores.groupby("variant", sort=False).seed.unique().map(list).to_dict()
    assert counted == {"dense": [0], "magnitude": [0], "wanda": [0, 1], "unstable": [0]}
    assert scores.groupby("variant").calibration_tokens.max().to_dict() == {
        "dense": 0,
        "magnitude": 0,
        "unstable": 48,
        "wanda": 48,
    }
    found = differences(scores, ("unstructured", 0.5))
    assert list(found) == ["unstable_minus_wanda"]
    values = {name: part[part.seed == 0].value for name, part in scores.groupby("variant")}
    difference = (values["unstable"].to_numpy() - values["wanda"].to_numpy()).mean()
    assert found["unstable_minus_wanda"].value == pytest.approx(difference)
    cost = scores[scores.variant == "wanda"].value.mean() - values["dense"].mean()
    margin = share_that_matters() * cost if cost > 0 else None
    assert found["unstable_minus_wanda"].margin == pytest.approx(margin)


def test_draws_under_noise_of_their_own_are_paired_with_the_dense_model_under_the_same_noise(
    run, tiny_dlm, make_ids, monkeypatch
):
    monkeypatch.setattr(
        "sinkprune_companion.run.texts.corpus.texts",
        lambda tokenizer, count, length, held_out, seed: {"x": make_ids(count, length, seed)},
    )
    grid = [GridCell("unstructured", 0.5, name, preset(name), 2, 2) for name in ("wanda", "sparsegpt")]
    texts = {"natural/crop": make_ids(3, 12, seed=9)}
    shared, own = (
        measure_grid(run, tiny_dlm, grid, Measures(texts, 1, {}, 1, own_noise), range(2))[0]
        for own_noise in (False, True)
    )

    def values(scores, variant, seed):
        return scores[(scores.variant == variant) & (scores.seed == seed)].value.to_numpy()

    for variant in ("wanda", "sparsegpt"):
        assert np.array_equal(values(own, variant, 0), values(shared, variant, 0))  # noise 0 is that of all
        assert not np.array_equal(values(own, variant, 1), values(shared, variant, 1))
    expected = score_texts(tiny_dlm, texts, 1, seed=1).value
    assert np.array_equal(values(own, "dense", 1), expected)
    above = above_dense(own)
    assert above[above.variant == "dense"].value.tolist() == [0.0] * 3
    assert np.allclose(values(above, "wanda", 1), values(own, "wanda", 1) - values(own, "dense", 1))
    dense_mean = own[own.variant == "dense"].value.mean()
    wanda_mean = own[own.variant == "wanda"].value.mean()
    assert damage(above, ("unstructured", 0.5), "wanda") == pytest.approx(wanda_mean - dense_mean)


def test_an_exact_likelihood_is_measured_once_per_draw_whatever_noise_draws_have(
    run, tiny_ar, make_ids, monkeypatch
):
    monkeypatch.setattr(
        "sinkprune_companion.run.texts.corpus.texts",
        lambda tokenizer, count, length, held_out, seed: {"x": make_ids(count, length, seed)},
    )
    grid = [GridCell("unstructured", 0.5, "wanda", preset("wanda"), 2, 2)]
    texts = {"natural/crop": make_ids(3, 12, seed=9)}
    shared, own = (
        measure_grid(run, tiny_ar, grid, Measures(texts, 1, {}, 1, own_noise), range(2))[0]
        for own_noise in (False, True)
    )
    pd.testing.assert_frame_equal(shared, own)
    assert len(list((run.records / "scores").glob("*.csv"))) == 3  # the dense model and two draws


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
        {"paper_minus_wanda": 0.0, "paper_minus_wanda_75": 2.0, "paper_minus_wanda_2_4": 0.0}
    )
    share = share_that_matters()
    assert share == pytest.approx((53.18 - 52.70) / (57.93 - 52.70) / 2)
    margins = {name: estimate.margin for name, estimate in measured.items()}
    assert margins == pytest.approx(
        {"paper_minus_wanda": share, "paper_minus_wanda_75": 4 * share, "paper_minus_wanda_2_4": 2 * share}
    )


def test_a_difference_is_shown_by_kind_of_text(scores):
    table = pruning_findings.by_text(scores, ("unstructured", 0.5), ["paper_minus_wanda"])
    assert table.loc["paper − wanda", ("natural", "crop")].startswith("-0.5 ")
    assert table.loc["paper − wanda", ("natural", "beginning")].startswith("0.5 ")


def test_what_leaves_zero_out_is_listed_whichever_way_it_points(scores):
    found = pruning_findings.likelihood_findings(scores, [0.5, 0.75])
    table = pruning_findings.away_from_zero(found, ["paper_minus_wanda"])
    assert table.finding.tolist() == ["paper_minus_wanda_75"]
    assert table["row in the ledger"].tolist() == ["no"]


def test_places_have_the_endings_of_the_ledger_and_the_dense_model_has_one_place():
    endings = {
        ("unstructured", 0.5): "",
        ("unstructured", 0.75): "_75",
        ("2:4", 0.5): "_2_4",
        ("structured", 0.5): "_50",
    }
    assert {place: suffix(place) for place in endings} == endings
    assert at(("unstructured", 0.5), "dense") == at(("2:4", 0.5), "dense")


def test_every_row_of_the_ledger_that_notebook_03_decides_is_a_finding_it_can_make():
    size = GridSize(2, 2, 2, 2, 2, 2)
    cells = grid_cells(size, [0.25, 0.5, 0.75], [0.5, 0.6], ["2:4", "4:8"], [0.3, 0.5])
    variants = {(cell.pattern, cell.sparsity): set() for cell in cells}
    for cell in cells:
        variants[cell.pattern, cell.sparsity].add(cell.name)
    can = set(pruning_findings.GROWTHS)
    for place, names in variants.items():
        for name, each in pruning_findings.COMPARISONS.items():
            if {each.variant, each.other} <= names:
                can.add(name + suffix(place))
    for share in (0.25, 0.5, 0.75):
        can |= {name + suffix(("unstructured", share)) for name in pruning_findings.TWIN_COMPARISONS}
    for benchmark in ("suite", "blimp"):
        can |= {f"accuracy_{benchmark}_{name}_{p}" for name in pruning_findings.ACCURACY for p in (50, 60)}
    can |= {f"masks_{other}_minus_other_text" for other in ("all_sinks", "unstable", "wanda")}
    rows = {row.finding.split("/")[1] for row in claims.ledger() if row.notebook == "03_pruning_results"}
    assert rows <= can

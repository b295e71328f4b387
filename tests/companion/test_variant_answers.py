"""Accuracy of variants, paired by item: against counts by hand, on a real tiny model."""

import numpy as np
import pandas as pd
import pytest

from sinkprune.evaluation.local_data import embedded_blimp
from sinkprune_companion.experiments import variants
from sinkprune_companion.experiments.comparisons import ACCURACY, ANSWER_MARGINS
from sinkprune_companion.experiments.paired_differences import by_template
from sinkprune_companion.experiments.pruning_findings import answer_findings
from sinkprune_companion.experiments.variants import Variant, variant_answers
from sinkprune_companion.margins import share_that_matters
from sinkprune_core import Calibration, preset


def points(answers: pd.DataFrame) -> pd.DataFrame:
    return by_template(answers.assign(points=100 * answers.correct), "points")


def answers_of(variant: str, seed: int, right: list[bool], tokens: int = 10) -> pd.DataFrame:
    """Return answers to items of which two in a row have one template."""
    return pd.DataFrame(
        {
            "benchmark": "suite",
            "variant": variant,
            "pattern": "dense" if tokens == 0 else "unstructured",
            "sparsity": 0.0 if tokens == 0 else 0.5,
            "seed": seed,
            "calibration_tokens": tokens,
            "group": "g",
            "template": [item // 2 for item in range(len(right))],
            "correct": right,
        }
    )


@pytest.fixture
def answers() -> pd.DataFrame:
    """Two variants in two calibration draws, and the dense model, which has none; 6 items of 3 templates."""
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


def test_points_are_shares_of_right_answers_by_template(answers):
    found = points(answers)
    one = found[(found.variant == "one") & (found.seed == 0)]
    assert one.value.tolist() == [50, 100, 0]
    assert one.sequence.tolist() == [0, 1, 2]


def test_a_difference_is_paired_by_draw_and_pair_and_knows_what_the_second_costs(answers):
    named = answers.assign(variant=answers.variant.map({"dense": "dense", "one": "paper", "two": "wanda"}))
    findings = answer_findings(points(named), [0.5], "accuracy", ACCURACY)
    estimate = findings["accuracy_paper_minus_wanda_50_suite"]
    assert estimate.value == pytest.approx(100 * ((3 + 2) - (2 + 0)) / 12)
    assert estimate.margin is None, "what the second loses is not told from zero on 3 templates"
    assert (estimate.draws, estimate.units) == (2, 3)
    assert "accuracy_unstable_minus_none_50_suite" not in findings


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

    found = answer_findings(by_pair, [0.5], "accuracy", ACCURACY)["accuracy_paper_minus_wanda_50_suite"]
    assert (found.value, found.low, found.high) == (0, 0, 0)


# templates


def test_units_have_the_mean_of_all_items_and_the_distances_of_their_own():
    values = np.array([3.0, 5.0, 1.0, 1.0, 1.0, 7.0])
    frame = answers_of("one", 0, [True] * 6).assign(template=[0, 0, 1, 1, 1, 2], margin=values)
    found = by_template(frame, "margin")
    assert found.value.mean() == pytest.approx(values.mean())
    distances = [values[:2] - 3, values[2:5] - 3, values[5:] - 3]
    assert found.value.tolist() == pytest.approx([3 + 3 / 6 * part.sum() for part in distances])
    assert found.sequence.tolist() == [0, 1, 2]


def test_items_of_a_template_that_vary_together_widen_the_interval():
    rng = np.random.default_rng(0)
    parts = []

    for variant, cost in {"dense": 0.0, "wanda": 2.0, "paper": 1.8}.items():
        of_template = np.repeat(rng.normal(0, 0.3, 40), 4)  # in every draw
        for seed in range(1 if variant == "dense" else 5):
            frame = answers_of(variant, seed, [True] * 160, 0 if variant == "dense" else 100)
            parts.append(frame.assign(template=np.arange(160) // 4, margin=of_template - cost))

    frame = pd.concat(parts, ignore_index=True)

    wide, narrow = (
        answer_findings(by_template(each, "margin"), [0.5], "answer_margin", ANSWER_MARGINS)
        for each in (frame, frame.assign(template=frame.groupby(["variant", "seed"]).cumcount()))
    )

    name = "answer_margin_paper_minus_wanda_50_suite"
    assert wide[name].value == pytest.approx(narrow[name].value)
    assert wide[name].half_width > 1.5 * narrow[name].half_width, "4 equal items are one: about twice as wide"
    assert wide[name].margin == pytest.approx(share_that_matters() * 2.0, rel=0.1)

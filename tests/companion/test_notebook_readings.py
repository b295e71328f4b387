"""The reading of every notebook follows its findings: other numbers, other sentences."""

import pandas as pd
import pytest

from sinkprune_companion.experiments.reach_findings import reach_findings
from sinkprune_companion.figures import figure_titles
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_companion.pages import hiding_reading, notebook_readings
from sinkprune_companion.run import shown
from sinkprune_core.evaluation.intervals import Estimate

READINGS = {
    notebook_readings.start_here: "unstable_minus_wanda",
    notebook_readings.sink_variance: "temporal_variance_difference",
    hiding_reading.hiding_sinks: "top_minus_random_dlm",
    notebook_readings.pruning_results: "paper_minus_wanda",
    notebook_readings.matched_compute: "pruned_minus_dense_steps",
    notebook_readings.what_does_the_work: "main_sinks",
}


def estimate(low: float, high: float, margin: float | None = None) -> Estimate:
    return Estimate((low + high) / 2, low, high, units=9, method="", margin=margin)


def said(reading, found: dict) -> str:
    return "\n".join(reading(found))


@pytest.mark.parametrize("reading", READINGS)
def test_the_number_that_matters_comes_first_and_its_sign_decides_the_words(reading):
    texts = []
    for ends in ((1, 2), (-2, -1), (-1, 2)):
        first = reading({READINGS[reading]: estimate(*ends)})[0]
        assert first.startswith("**" + {(1, 2): "1.5 ", (-2, -1): "−1.5 ", (-1, 2): "0.50 "}[ends])
        assert first.endswith(".")
        texts.append(first.partition(" is ")[2])
    assert len(set(texts)) == 3


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_of_nothing_says_nothing_that_was_not_measured(reading):
    for found in ({}, {READINGS[reading]: None}):
        sentences = reading(found)
        assert len(sentences) <= 1 and "[" not in "".join(sentences)


def test_sinks_that_stay_and_sinks_that_move_read_differently():
    reading = notebook_readings.sink_variance
    ar = {"stable_share_ar": estimate(0.9, 1)}
    assert "are not transient: 90 % of" in said(reading, {**ar, "stable_share_dlm": estimate(0.85, 0.95)})
    assert "are transient: 20 % of" in said(reading, {**ar, "stable_share_dlm": estimate(0.1, 0.3)})
    assert "stays open: 50 %" in said(reading, {**ar, "stable_share_dlm": estimate(0.3, 0.7)})
    found = {
        "temporal_variance_difference_samples": estimate(1, 2),
        "temporal_variance_difference_tokens_512": estimate(-2, -1),
    }
    told = said(reading, found)
    assert "In 2 other conditions" in told
    assert "move more in 1, the AR model's in 1 (over 512 tokens)." in told


def test_what_sinks_are_worth_is_told_for_both_models_and_behind_a_first_token():
    found = {
        "excess_difference": estimate(-2, -1),
        "top_minus_random_ar": estimate(1, 2),
        "top_minus_random_dlm": estimate(-1, 1),
        "top_minus_random_dlm_first_token": estimate(0.3, 1.3),
        "first_token_loss_dlm": estimate(-1, -0.5),
        "written_difference": estimate(-1, 1),
    }
    text = said(hiding_reading.hiding_sinks, found)
    assert "costs the DLM less than the AR model" in text and "The AR model does need its sinks" in text
    assert "its sinks matter then. That token, put before the same text, saves 0.75 nats" in text
    assert "harms both texts about alike" in text
    assert "In 1 of 2 conditions they cost the DLM clearly more than random keys, clearly less in 0." in text
    assert "third" not in text
    found["top_minus_random_dlm_early_layers"] = estimate(-0.2, -0.1)
    found["top_minus_random_dlm_late_layers"] = estimate(0.1, 0.3)
    text = said(hiding_reading.hiding_sinks, found).replace("\N{NO-BREAK SPACE}", " ")
    costs = "the DLM −0.15 [−0.20, −0.10] (early), 0.20 [0.10, 0.30] (late) and 0.0 [−1.0, 1.0] (all layers)"
    assert (
        f"layers alone or in all, the five strongest keys cost {costs} beyond random ones (nats per token)"
        in text
    )
    assert "In 1 of 2 conditions" in text, "a third of the layers is no condition"


def test_the_gain_is_given_as_a_share_of_the_damage_and_where_it_hurts_is_said():
    margin = share_that_matters() * 2.0  # Wanda costs two nats
    found = {
        "paper_minus_wanda": estimate(-0.6, -0.4, margin),
        "paper_sparsegpt_minus_sparsegpt_75": estimate(0.1, 0.2),
        "all_sinks_minus_none": estimate(-0.01, 0.01, margin),
        "gain_growth": estimate(-2, -1),
        "gain_growth_of_sinks": estimate(0.1, 0.2),
        "accuracy_suite_paper_minus_wanda_50": estimate(1, 2),
        "accuracy_suite_wanda_minus_dense_50": estimate(-9, -8),
        "accuracy_suite_noised_dense_minus_wanda_50": estimate(-9, -8),  # no sinks are left out there
    }
    text = said(notebook_readings.pruning_results, found)
    assert "at 50 %, 25 % of what Wanda costs: the official method beats Wanda" in text
    assert "leaving all sinks out makes no difference that matters" in text
    assert "most the official SparseGPT recipe at 75 %" in text
    assert "grows with sparsity" in text and "leaving sinks out makes it smaller" in text
    assert "clearly better in 1 and clearly worse in 0 of 1 comparisons" in text
    assert "chance alone would make about 0.05 clear" in text


def test_fewer_steps_and_structured_pruning_are_compared():
    found = {
        "structured_sink_minus_dense_steps": estimate(2, 3),
        "structured_sink_minus_dense_latency": estimate(-3, -2),
        "unstable_minus_wanda": estimate(1, 2),
    }
    text = said(notebook_readings.matched_compute, found)
    assert "Structured pruning beats fewer steps in the same measured time" in text
    assert "leaving unstable sinks out loses to Wanda" in text


def test_what_does_the_work_names_switches_persistence_and_reach():
    found = {
        "main_noised": estimate(-0.2, -0.1),
        "main_dense": estimate(0.1, 0.2),
        "unstable_minus_all": estimate(-0.01, 0.02),
        "reach_sinks": estimate(0.0009, 0.0011),
        "reach_random": estimate(0.0004, 0.0006),
        "reach_other_text": estimate(0.02, 0.03),
        "main_sinks_samples_minus_natural": estimate(0.1, 0.2),
    }
    text = said(notebook_readings.what_does_the_work, found)
    assert "noised calibration text saves 0.15 nats" in text and "dense propagation costs 0.15 nats" in text
    assert "persistence plays no part" in text and "Leaving out the unstable ones alone makes no" in text
    assert "changes 0.10 % of the kept weights, as many random tokens 0.05 %" in text
    assert "differs between kinds of text in 1 of 1" in text


def test_random_weights_say_that_they_are():
    first, second, third = notebook_readings.real_models("M", 51, 0, 1, 1, True)
    assert first == "**0 of 51** published numbers for M were run here."
    assert second.startswith("1 of 1 pruned models give the same logits")
    assert "says nothing about the model" in third
    assert "published ones" in notebook_readings.real_models("M", 51, 3, 1, 1, False)[2]
    assert "OTHER logits" in notebook_readings.real_models("M", 51, 3, 0, 1, False)[1]


def test_a_table_is_folded_in_html_and_whole_without_it():
    table = pd.DataFrame({"a<b": range(100)})
    bundle = shown.Folded(table, "x < y")._repr_mimebundle_()
    assert bundle["text/html"].startswith("<details><summary>x &lt; y</summary><table")
    assert "<th>a&lt;b</th>" in bundle["text/html"]
    assert len(bundle["text/plain"].splitlines()) == 102, "no row is left out"
    assert shown.sentences(["one.", "two."]).data == "- one.\n- two."


def test_reach_is_a_mean_over_linear_maps_and_differences_are_paired_by_them():
    rows = [
        {"layer": layer, "linear": "q_proj", "choice": choice, "tokens": tokens, "changed": changed}
        for choice, tokens, changes in (
            ("all sinks", 5, (0.001, 0.003)),
            ("random tokens", 5, (0.002, 0.002)),
            ("random tokens", 1, (0.5, 0.5)),
            ("largest change", 5, (0.01, 0.012)),
            ("other text", 640, (0.02, 0.04)),
        )
        for layer, changed in enumerate(changes)
    ]
    found = reach_findings(pd.DataFrame(rows[::-1]))
    values = {name: each.value for name, each in found.items()}
    assert values == pytest.approx(
        {
            "reach_sinks": 0.002,
            "reach_random": 0.002,
            "reach_largest": 0.011,
            "reach_other_text": 0.03,
            "reach_sinks_minus_random": 0,
            "reach_sinks_minus_largest": -0.009,
            "reach_largest_minus_other_text": -0.019,
        }
    )
    paired = found["reach_sinks_minus_largest"]
    assert paired.low == pytest.approx(paired.high), "each map lies 0.009 below: nothing is left to chance"
    none = pd.DataFrame(rows).assign(tokens=0)
    assert reach_findings(none) == {}


# titles


def excess(rows: dict) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"recipe": name, "sparsity": 0.5, "panel": "p", "value": v, "low": v - w, "high": v + w}
            for name, (v, w) in rows.items()
        ]
    )


def test_titles_say_what_the_figure_shows():
    alike = {"wanda": (0.80, 0.1), "paper": (0.82, 0.1), "magnitude": (3.0, 0.1)}
    assert figure_titles.cost_in_words(excess(alike)) == (
        "At 50% every other method costs about 0.81; not drawn at 50%: magnitude 3.0 nats per token"
    )
    apart = excess({"wanda": (0.8, 0.01), "paper": (0.6, 0.01)})
    assert figure_titles.cost_in_words(apart) == (
        "At 50% methods cost 0.60 (paper) to 0.80 (wanda) nats per token"
    )
    assert figure_titles.best_in_words(apart) == "p: paper costs least"
    assert figure_titles.best_in_words(excess(alike)) == (
        "p: wanda costs least, not clearly (not drawn: magnitude 3.0)"
    )
    found = {"a": estimate(1, 2), "b": estimate(-2, -1), "c": estimate(-1, 1)}
    assert figure_titles.signs_in_words(found) == (
        "Clearly below zero: 1 of 3 differences; above: 1; neither: 1"
    )
    assert figure_titles.steps_in_words(found, {"a": "equal time", "b": "equal time"}) == (
        "At equal time pruning wins 1 and loses 1 of 2"
    )


def test_the_title_of_a_trajectory_counts_sinks_that_move_and_that_stay():
    panel = {"title": "diffusion (m), r", "sinks_SK": [[1, 0, 0], [1, 1, 0]], "visible_SK": [[1] * 3] * 2}
    assert figure_titles.sinks_in_words([panel]) == (
        "diffusion: 2 positions are a sink at some step, 1 in at least 80 % of them"
    )

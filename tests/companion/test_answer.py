"""README's sentences change when the findings do."""

from dataclasses import replace

import pytest

from sinkprune_companion.ledger import claims
from sinkprune_companion.pages import answer, phrases, remembered
from sinkprune_core.evaluation.intervals import Estimate

LEDGER = claims.ledger()
MOVES = "01_sink_variance/temporal_variance_difference"


def estimate(low: float, high: float, margin: float | None = None) -> Estimate:
    return Estimate((low + high) / 2, low, high, units=9, method="", margin=margin)


def said(found: dict) -> str:
    return answer.readme_answer(LEDGER, found)


def test_numbers_read_like_numbers():
    assert [phrases.number(x) for x in (0.0, 0.00196, -0.1, 1.04, 26.8, -1234.5)] == [
        "0.0",
        "0.0020",
        "−0.10",
        "1.0",
        "27",
        "−1,200",
    ]
    assert [phrases.share(x) for x in (0.0012, 0.026, 0.891, -0.5)] == ["0.12 %", "2.6 %", "89 %", "−50 %"]
    assert phrases.joined([]) == "" and phrases.joined("abc") == "a, b and c"
    assert phrases.unbroken("Wanda, 50 % of a %") == "Wanda, 50\N{NO-BREAK SPACE}% of a %"


def test_three_sentences_say_what_is_claimed_found_and_how_far_it_carries():
    first, second, third = said({}).split("\n\n")
    assert "53.18 % average accuracy against 52.70 % for Wanda" in first, "from published.yml"
    assert "of 135 million weights (differences in loss" in second
    assert second.endswith(": how much sinks move was not measured.")
    own = [claim for claim in LEDGER if claim.kind == claims.CLAIM]
    assert f"Of {len(own)} claims: {len(own)} not run at this scale. 6 of them need models of 8" in third
    assert "of 10 comparisons that others ran at 8B, all are undecided" in third


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ((20, 30), "sinks do move more in the DLM"),
        ((-30, -20), "sinks move more in the AR model"),
        ((-0.5, 0.5), "sinks move alike in both"),
        ((-30, 20), "it stays open whose sinks move more"),
    ],
)
def test_the_first_finding_turns_with_its_interval(ends, says):
    assert says in said({MOVES: estimate(*ends)})


def test_what_a_correction_takes_back_is_said():
    weak = said({MOVES: estimate(0.1, 60)})
    assert "sinks do move more in the DLM (not after correction for its family)" in weak
    assert claims.NOT_CORRECTED not in said({MOVES: estimate(20, 30)})


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ((0.1, 0.2), "by itself, costs 0.15 nats per token [0.10,"),
        ((-0.2, -0.1), "by itself, saves 0.15 nats per token"),
        ((-0.01, 0.01), "by itself, makes no difference that matters"),
        ((-0.2, 0.1), "by itself, makes no difference that this run could see"),
        ((0.001, 0.01), "costs 0.0055 nats per token [0.0010,\N{NO-BREAK SPACE}0.010], less than matters"),
    ],
)
def test_what_leaving_sinks_out_does_turns_with_its_interval(ends, says):
    assert says in said({"05_what_does_the_work/main_sinks": estimate(*ends, margin=0.05)})


def test_the_official_recipe_and_stable_sinks_are_told_as_they_were_found():
    paper = "03_pruning_results/paper_minus_wanda"
    whole = "The official recipe"
    assert f"{whole} beats Wanda" in said({paper: estimate(-2, -1)})
    assert f"{whole} does worse than Wanda" in said({paper: estimate(1, 2)})
    assert f"{whole} is not told apart from Wanda" in said({paper: estimate(-1, 2)})
    stable = "01_sink_variance/stable_share_dlm"
    moves = {MOVES: estimate(20, 30)}
    assert "but most stay (90 % of" in said({**moves, stable: estimate(0.85, 0.95)})
    assert "and most come and go (20 % of" in said({**moves, stable: estimate(0.1, 0.3)})
    assert "and whether most of them stay is open" in said({**moves, stable: estimate(0.1, 0.9)})


def test_what_holds_of_pruning_is_told_first_too():
    name = "03_pruning_results/paper_sparsegpt_minus_sparsegpt_75"
    told = said({name: estimate(-0.2, -0.1)})
    assert "Reproduced: *Sink-aware SparseGPT beats SparseGPT, 75 %* (−0.15 [" in told
    assert "Reproduced" not in said({name: estimate(-0.1, 0.1)})


def test_the_first_answer_says_how_it_depends_on_the_reading():
    found = {MOVES: estimate(1, 2), f"{MOVES}_newest": estimate(-1, 2), f"{MOVES}_layers": estimate(-2, -1)}
    assert remembered.reading_sentence(found) == (
        "Whose sinks move more depends on how attention mass is read: in 1 of 3 readings the DLM's, in 1 the "
        "AR model's, in 1 it is unclear."
    )
    same = dict.fromkeys(found, estimate(-2, -1))
    assert remembered.reading_sentence(same) == (
        "In all 3 readings of attention mass the AR model's sinks move more."
    )
    assert "was not measured" in remembered.reading_sentence({})


def test_conditions_in_which_sinks_move_less_are_told():
    found = {MOVES: estimate(1, 2), f"{MOVES}_tokens_512": estimate(-2, -1), f"{MOVES}_dream": None}
    assert remembered.condition_sentence(found) == (
        "By the paper's reading the DLM's sinks move more in 1 of 2 conditions, and less over 512 tokens."
    )
    assert remembered.condition_sentence({**found, f"{MOVES}_tokens_512": estimate(-1, 2)}) == ""


def test_what_sinks_are_worth_is_told_for_all_layers_and_for_a_third_of_them():
    hiding = "02_hiding_sinks/excess_difference"
    found = {hiding: estimate(1, 2)}
    assert "Hiding them costs the DLM more than the AR model." in said(found)
    found[f"{hiding}_middle_layers"] = estimate(1, 3)
    assert "more than the AR model." in said(found), "nothing more to say where it is the same"
    found[f"{hiding}_middle_layers"] = estimate(-3, -1)
    assert "more than the AR model, but in the middle third of the layers alone less." in said(found)
    found[f"{hiding}_late_layers"] = estimate(-3, -1)
    assert "but in the middle or late third of the layers alone less." in said(found)


def test_what_sinks_are_worth_beyond_random_keys_is_told_for_both_models_by_third():
    worth = "02_hiding_sinks/top_minus_random"
    found = {f"{worth}_dlm": estimate(1, 2), f"{worth}_ar": estimate(-1, 1)}
    assert remembered.third_sentence(found) == ""
    found |= {f"{worth}_dlm_early_layers": estimate(1, 3), f"{worth}_ar_early_layers": estimate(3, 5)}
    assert remembered.third_sentence(found, is_short=True) == (
        "Hidden in one third of the layers alone or in all, the five strongest keys cost the DLM 2.0 (early) "
        "and 1.5 (all layers) and the AR model 4.0 (early) and 0.0 (all layers) beyond random ones "
        "(nats per token)."
    )
    assert "2.0 [1.0,\N{NO-BREAK SPACE}3.0] (early)" in remembered.third_sentence(found)


def test_what_sinks_are_worth_in_longer_texts_is_told_beside_short_ones():
    worth = "02_hiding_sinks/top_minus_random_dlm"
    found = {worth: estimate(1, 2)}
    assert not any("short texts" in each for each in remembered.told(found))
    found[f"{worth}_tokens_512"] = estimate(-1, 2)
    (sentence,) = [each for each in remembered.told(found) if "short texts" in each]
    assert sentence.replace("\N{NO-BREAK SPACE}", " ") == (
        "Beyond random keys the DLM's five strongest cost 1.5 nats per token [1.0, 2.0] in short texts (9) "
        "and 0.50 [−1.0, 2.0] over 512 tokens (9); five are a smaller share of a longer text."
    )
    found[f"{worth}_tokens_512_same_share"] = estimate(2, 3)
    (sentence,) = [each for each in remembered.told(found) if "short texts" in each]
    assert sentence.replace("\N{NO-BREAK SPACE}", " ").endswith(
        "; with as large a share of the keys hidden there as in short texts, 2.5 [2.0, 3.0]."
    )


def test_the_short_table_has_every_headline_with_its_control_beneath():
    lines = answer.short_table(
        LEDGER, {"03_pruning_results/paper_minus_wanda": estimate(-2, -1)}
    ).splitlines()
    assert all(line.count(" | ") == 2 for line in lines), "three columns fit a phone"
    assert len(lines) - 2 == sum(bool(claim.short) for claim in LEDGER)
    place = next(
        number for number, line in enumerate(lines) if "The official method beats Wanda, 50 %" in line
    )
    assert "✅ reproduced" in lines[place] and "−1.5 nats [−2.0, −1.0]" in lines[place]
    assert "(notebooks/03_pruning_results.ipynb)" in lines[place]
    assert lines[place + 1].startswith("| ↳ *control:* only its sink weights")
    assert any(line.startswith("| ↳ *by others:* WinoGrande") for line in lines)


def test_what_to_remember_is_computed():
    not_measured, persistence = remembered.told({})
    assert not_measured == remembered.reading_sentence({})
    assert persistence == f"{remembered.PERSISTENCE} ([docs/official.md](docs/official.md))."
    work, results = "05_what_does_the_work", "03_pruning_results"
    found = {
        "03_pruning_results/masks_all_sinks": estimate(0.0005, 0.0015),
        "03_pruning_results/masks_other_text": estimate(0.02, 0.032),
        f"{work}/unstable_minus_all": estimate(-0.02, -0.01),
        f"{results}/paper_sparsegpt_minus_sparsegpt_75": estimate(0.1, 0.2),
        f"{results}/unstable_minus_none_2_4": estimate(-0.2, 0.1),
        f"{results}/unstable_minus_wanda": estimate(1, 2),
        "04_matched_compute/pruned_minus_dense_steps": estimate(1, 2),
    }
    _, kept, hurts, steps, persistence = remembered.told(found)
    assert "changes 0.10 % of the kept weights at 50 %, other calibration text 2.6 %" in kept
    assert hurts.startswith("Of 2 comparisons in which leaving sinks out is all that changes, 0 clearly gain")
    assert hurts.endswith("and 1 clearly loses (the official SparseGPT recipe at 75 %: 0.15).")
    assert "the dense model with fewer denoising steps beats pruning" in steps
    assert persistence.endswith("saves 0.015 nats per token [−0.020,\N{NO-BREAK SPACE}−0.010].")
    gains = remembered.sinks_alone_sentence({f"{results}/unstable_minus_none_2_4": estimate(-0.2, -0.1)})
    assert "1 clearly gains (most Wanda without unstable sinks at 2:4, −0.15 nats per token" in gains
    assert gains.endswith("and 0 clearly lose.")
    other = {**found, "04_matched_compute/pruned_minus_dense_steps": estimate(-2, -1)}
    assert "pruning beats the dense model with fewer" in remembered.told(other)[3]


def test_an_effect_on_few_calibration_draws_says_so():
    name = "03_pruning_results/paper_sparsegpt_minus_sparsegpt_75"
    one, two, three = (replace(estimate(0.1, 0.2), draws=draws) for draws in (1, 2, 3))
    assert "[0.10,\N{NO-BREAK SPACE}0.20], one calibration draw)" in remembered.sinks_alone_sentence(
        {name: one}
    )
    assert "0.20], two calibration draws)" in remembered.sinks_alone_sentence({name: two})
    assert "calibration draw" not in remembered.sinks_alone_sentence({name: three})
    assert "| 0.15 nats [0.10, 0.20], one draw |" in answer.short_table(LEDGER, {name: one})
    table = claims.verdicts(LEDGER, {name: one})
    assert claims.FEW_DRAWS[1] in table.note["paper-beats-sparsegpt-75"]
    assert claims.FEW_DRAWS[2] in claims.verdicts(LEDGER, {name: two}).note["paper-beats-sparsegpt-75"]
    assert "draw" not in claims.verdicts(LEDGER, {name: three}).note["paper-beats-sparsegpt-75"]


def test_intervals_on_either_side_of_zero_are_counted():
    assert phrases.above_and_below([estimate(1, 2), estimate(-1, 1), estimate(0, 1)]) == (1, 0)
    assert phrases.above_and_below(iter([estimate(-2, -1), estimate(1, 2)])) == (1, 1)

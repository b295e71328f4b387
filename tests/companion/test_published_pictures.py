"""Pictures of published findings: what they show is what was found, and no claim or step is missing."""

from dataclasses import replace

import pytest

from sinkprune.evaluation.verdict_rule import NO_DIFFERENCE, REPRODUCED, UNDECIDED, on_a_loss
from sinkprune_companion import project_root
from sinkprune_companion.figures import claims_strip, figures, headline, ladder, looks
from sinkprune_companion.ledger.results import Results, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(project_root() / "figures")


@pytest.fixture(scope="module")
def strip(results):
    return claims_strip.strip_table(results.ledger, results.estimates, results.verdict)


@pytest.fixture(scope="module")
def rungs(results):
    return ladder.ladder_table(results.f, ladder.written_texts(project_root()))


# the claims


def test_the_strip_has_every_claim_of_the_paper_once_with_its_conditions_and_controls(results, strip):
    kinds = ("claim", "condition", "control")
    assert sorted(strip.id) == sorted(claim.id for claim in results.ledger if claim.kind in kinds)
    assert set(strip.kind) == set(kinds)


def test_a_small_mark_is_a_condition_and_never_a_control(strip):
    """What holds with random weights or for random tokens is no point for or against the paper."""
    figure = claims_strip.plot_strip(strip)
    small = [line for axis in figure.axes for line in axis.lines if line.get_markersize() == 4.5]
    assert len(small) == strip[strip.kind == "condition"].value.notna().sum() > 10


def test_a_condition_is_measured_in_the_margins_of_its_claim(results, strip):
    found = results.f["01/spatial_variance_difference_first_token"]
    behind_first_token = strip.set_index("id").loc["dlm-spread-first-token"]
    assert behind_first_token.value == pytest.approx(-found.value / found.margin) and found.value < 0


def test_what_is_too_small_to_matter_lies_in_the_band_and_what_is_reproduced_to_the_right(strip):
    same = strip[strip.verdict == NO_DIFFERENCE]
    assert len(same) > 3 and (same.low > -1).all() and (same.high < 1).all()
    reproduced = strip[strip.verdict == REPRODUCED]
    assert len(reproduced) > 3 and (reproduced.low > 0).all()


def test_a_claim_s_distance_by_hand(results, strip):
    row = strip[strip.kind == "claim"].set_index("id").loc["sinks-transient"]
    found = results.f["01/stable_share_dlm"]
    assert row.value == pytest.approx((0.5 - found.value) / 0.05), "claimed to be below 0.5; 0.05 matters"
    assert row.low == pytest.approx((0.5 - found.high) / 0.05)


# costs and verdicts


def test_a_cost_without_a_margin_is_named(results):
    without = {name: replace(one, margin=None) for name, one in results.f.items()}
    with pytest.raises(ValueError, match="07/sparsegpt_half_minus_sparsegpt_clean_50 has no margin"):
        ladder.ladder_table(without, {})


def test_the_first_picture_says_that_sinks_hardly_matter_only_where_other_text_matters_more(results):
    table = headline.headline_table(results.f, results.on_losses)
    said = headline._conclusion(table)
    assert "leaving sinks out hardly changes the loss" in said

    is_undecided = table.verdict.mask(table.comparison == "all sinks left out", UNDECIDED)
    assert headline._conclusion(table.assign(verdict=is_undecided)) != said
    is_left_out = table.comparison == headline.LEFT_OUT
    assert headline._conclusion(table.assign(value=table.value.mask(is_left_out, 0.9))) != said


def test_findings_that_the_first_picture_lacks_are_named(results):
    without = {name: one for name, one in results.f.items() if name != "03/paper_minus_wanda_wikitext"}
    with pytest.raises(KeyError, match="not published: 03/paper_minus_wanda_wikitext"):
        headline.headline_table(without, results.on_losses)


def test_the_first_picture_has_the_verdicts_of_the_ledger(results):
    """One number, one verdict: the picture does not correct anew over its own few rows."""
    first_row = {claim.finding: claim for claim in reversed(results.ledger) if claim.finding}
    full_names = dict(zip(results.f, results.estimates, strict=True))
    table = headline.headline_table(results.f, results.on_losses)

    compared = 0
    for row in table[table.verdict.notna()].itertuples():
        claim = first_row.get(full_names[row.finding])
        if claim is not None:
            assert row.verdict == on_a_loss(results.verdict[claim.id], claim.side), row.finding
            compared += 1
    assert compared > 3


# the ladder


def test_every_pruned_model_of_the_ladder_has_its_cost_and_what_it_writes(results, rungs):
    cost = rungs.set_index(["recipe", "words"]).cost
    official = results.f["06/paper_minus_wanda_75"]
    difference = cost["paper", "official recipe, 75 %"] - cost["wanda", "Wanda, 75 %"]
    assert difference == pytest.approx(official.value)
    assert rungs.cost.is_monotonic_increasing and rungs.recipe[0] == ladder.DENSE
    silent = set(rungs.recipe[rungs.text == ""])
    assert silent == {ladder.BIGRAM}, "notebook 00 prints what these models write"


def test_the_ladder_places_models_beside_the_bigram_model_by_intervals(results, rungs):
    said = ladder._title(rungs)
    assert "only SparseGPT" in said

    beside = results.f["07/minus_bigram_wanda"]
    wanda = rungs[rungs.words == "Wanda, 75 %"].iloc[0]
    assert (wanda.low, wanda.high) == (beside.low, beside.high)

    for recipe, end in (("paper", "low"), ("sparsegpt", "high")):
        holds_zero = rungs.assign(**{end: rungs[end].mask(rungs.recipe == recipe, 0.0)})
        assert ladder._title(holds_zero) != said, recipe


# all of them


@pytest.mark.parametrize("is_narrow", [False, True])
def test_pictures_are_as_wide_as_they_are_shown_and_no_text_leaves_them(results, strip, rungs, is_narrow):
    drawn = [
        claims_strip.plot_strip(strip, is_narrow),
        ladder.plot_ladder(rungs, is_narrow),
    ]

    for figure in drawn:
        width = 3.6 if is_narrow else 7.0
        assert figure.get_figwidth() == width
        figure.draw_without_rendering()

        edge = figure.bbox.width + 2  # pixels
        texts = [*figure.texts, *(text for axis in figure.axes for text in axis.texts)]
        reach = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
        assert {words for words, box in reach.items() if box.x0 < -2 or box.x1 > edge} == set()


def test_hues_of_models_are_no_method_s_and_verdicts_have_none():
    models = {looks.METHODS[kind].color for kind in ("diffusion", "autoregressive")}
    rest = {look.color for name, look in looks.METHODS.items() if name not in ("diffusion", "autoregressive")}
    assert not models & (rest | {look.color for look in looks.OTHERS})
    marks = [*looks.VERDICTS.values(), *looks.ON_CLAIMS.values()]
    assert {mark["color"] for mark in marks} <= {looks.INK, looks.GREY}
    for every in (looks.VERDICTS, looks.ON_CLAIMS):
        assert len({(mark["marker"], mark.get("mfc")) for mark in every.values()}) == len(every)


def test_a_dark_picture_turns_greys_around_and_keeps_hues_and_maps():
    figure, [[axis]] = figures.canvas()
    image = axis.imshow([[0.0, 1.0]], cmap="cividis")
    (line,) = axis.plot([0, 1], [0, 1], color=looks.BLACK)
    (hue,) = axis.plot([0, 1], [1, 0], color=looks.BLUE)
    before = image.cmap([0.0, 1.0]).tolist()

    figures.darkened(figure)
    assert max(axis.get_facecolor()[:3]) < 0.1 < 0.9 <= min(line.get_color()[:3])
    red, _, blue = hue.get_color()[:3]
    assert blue > red + 0.3, "still blue"
    assert image.cmap([0.0, 1.0]).tolist() == before

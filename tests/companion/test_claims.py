"""The ledger is whole, and its rows get their verdicts, margins and corrected p-values."""

import datetime
import math

import pytest
import yaml

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.verdict_rule import (
    CONTRADICTED,
    DEPENDS,
    NO_DIFFERENCE,
    REPRODUCED,
    UNDECIDED,
    holm,
)
from sinkprune_companion.ledger import claims, tables
from sinkprune_companion.ledger.claims import Claim

ROW = {
    "id": "c",
    "kind": "claim",
    "says": "s",
    "metric": "m",
    "family": "a family",
    "finding": "nb/x",
    "margin": 0.1,
}
LEDGER = claims.ledger()


def claim(**fields) -> Claim:
    return Claim(**{**ROW, **fields})


def estimate(low: float, high: float, **more) -> Estimate:
    return Estimate((low + high) / 2, low, high, units=9, method="", **more)


def verdict_of(row: Claim, found: Estimate | None) -> str:
    return claims.verdicts([row], {} if found is None else {row.finding: found}).verdict["c"]


# verdicts


def test_a_claim_takes_its_margin_from_the_ledger_or_from_the_finding():
    small = estimate(-0.05, 0.05)
    assert verdict_of(claim(), small) == NO_DIFFERENCE
    assert verdict_of(claim(margin=0.01), small) == UNDECIDED
    by_rule = claim(margin="share of damage")
    assert verdict_of(by_rule, small) == UNDECIDED, "a finding without the margin that its rule gives"
    assert verdict_of(by_rule, small.with_margin(0.06)) == NO_DIFFERENCE
    assert verdict_of(claim(margin=0.01), small.with_margin(0.06)) == UNDECIDED, "a number goes first"


def test_a_claim_says_on_which_side_of_what_it_lies():
    assert verdict_of(claim(), estimate(-2, -1)) == REPRODUCED
    assert verdict_of(claim(side="above"), estimate(-2, -1)) == CONTRADICTED
    assert verdict_of(claim(side="above", against=0.5), estimate(0.7, 0.9)) == REPRODUCED


def test_findings_keep_margins_draws_and_degrees_of_freedom(run):
    found = estimate(-0.3, 0.3, margin=0.1, draws=5, error_draws=0.15, error_sequences=0.01, freedom=4.5)
    run.find({"x": found})
    known = claims.findings(run.folder)
    assert known == {"00_test/x": found}
    row = claims.verdicts([claim(finding="00_test/x", margin="share of damage")], known).loc["c"]
    assert (row.margin, row.draws, row.error_draws, row.error_sequences) == (0.1, 5, 0.15, 0.01)
    assert row.note.endswith("would decide: 45 draws instead of 5")
    assert row.half_width == pytest.approx(0.3) and row.p_holm == pytest.approx(found.p_value())


def test_a_p_value_counts_as_often_as_a_row_was_looked_at():
    found = {"nb/x": Estimate(-2.0, -3.9, -0.1, units=9, method="")}
    once, twice = (claims.verdicts([claim(looks=looks)], found).loc["c"] for looks in (1, 2))
    assert twice.p_holm == pytest.approx(2 * once.p_holm)
    assert (once.verdict, twice.verdict) == (REPRODUCED, UNDECIDED)
    with pytest.raises(ValueError, match="looks"):
        claim(looks=0)


def test_p_values_are_corrected_over_their_family_whatever_ran():
    ledger = [claim(id=name, finding=f"nb/{name}") for name in "abc"]
    ledger += [claim(id="d", finding="nb/d", family="another")]
    ledger += [claim(id="e", finding=None, margin=None)]
    found = {"nb/a": estimate(-3, -1), "nb/b": estimate(-3, -0.1)}
    found["nb/d"] = found["nb/b"]
    p = [found[name].p_value() for name in ("nb/a", "nb/b")]

    table = claims.verdicts(ledger, found)

    assert table.p_holm[:2].tolist() == pytest.approx(holm([*p, 1.0])[:2].tolist())
    assert table.p_holm.isna().tolist() == [False, False, True, False, True]
    assert table.p_holm["d"] == pytest.approx(p[1]), "a family of its own"
    assert (table.verdict["b"], table.verdict["d"]) == (UNDECIDED, REPRODUCED)

    one_notebook = claims.verdicts(ledger, {"nb/b": found["nb/b"]})
    assert one_notebook.p_holm["b"] == pytest.approx(min(1, 3 * p[1])), "rows that did not run count"


# reading


def write(file, **parts):
    file.write_text(yaml.safe_dump(parts, allow_unicode=True), encoding="utf-8")
    return file


def p_matters_of(rows, found) -> dict[str, float]:
    return claims.verdicts(rows, found).p_matters_holm.to_dict()


def test_a_null_has_a_p_below_five_percent_just_where_its_interval_lies_within_the_margin():
    row = claim()
    for low, high in ((-0.09, 0.05), (-0.02, 0.099)):
        assert p_matters_of([row], {"nb/x": estimate(low, high)})["c"] < 0.05
    for low, high in ((-0.11, 0.05), (-0.02, 0.101), (0.2, 0.3)):
        assert p_matters_of([row], {"nb/x": estimate(low, high)})["c"] > 0.05


def test_nulls_are_corrected_for_looks_and_for_their_family_and_need_an_estimate():
    found = {"nb/x": estimate(-0.09, 0.05)}
    (alone,) = p_matters_of([claim()], found).values()
    (twice,) = p_matters_of([claim(looks=2)], found).values()
    together = p_matters_of([claim(), claim(id="d", finding="nb/y")], found)

    assert twice == pytest.approx(2 * alone)
    assert together["c"] == pytest.approx(2 * alone) and math.isnan(together["d"])


def test_a_claim_depends_on_the_condition_and_its_conditions_are_a_family_of_their_own(tmp_path):
    conditions = [{"kind": "condition", "conditions": ["long"]}]
    entries = [{**ROW, "quote": "q", "rows": [*conditions, {"id": "d", "says": "t", "finding": "nb/y"}]}]
    rows = claims.ledger(write(tmp_path / "claims.yml", claims=entries, conditions={"long": "l"}))
    assert [row.family for row in rows] == ["a family", "c, conditions", "a family, controls"]

    found = {"nb/x": estimate(-3, -2), "nb/x_long": estimate(2, 3)}
    turned = claims.verdicts(rows, found)
    assert turned.verdict["c"] == DEPENDS
    assert turned.alone[["c", "c-long"]].tolist() == [REPRODUCED, CONTRADICTED]

    by_control = {"nb/x": estimate(-3, -2), "nb/y": estimate(2, 3)}
    assert claims.verdicts(rows, by_control).verdict["c"] == REPRODUCED, "a control turns nothing"


def test_what_the_code_was_read_to_do_takes_no_finding():
    row = claim(finding=None, margin=None, read="not what the code does")
    assert claims.verdicts([row], {}).verdict["c"] == "not what the code does"


def test_rows_inherit_and_conditions_make_rows(tmp_path):
    group = {
        **ROW,
        "quote": "q",
        "rows": [
            {"conditions": ["long"]},
            {"id": "d", "says": "t", "finding": "nb/y"},
            {"id": "e", "kind": "question", "family": "f", "finding": "nb/z", "margin": "small"},
        ],
    }

    margins = {"small": {"value": 0.01, "reason": "r"}}
    conditions = {"long": "1,024 tokens"}
    entries = [{"seen_first": True, "rows": [group]}]  # of every row that stands in it
    file = write(tmp_path / "claims.yml", claims=entries, conditions=conditions, margins=margins)

    parent, long, other, question = claims.ledger(file)
    assert (parent.beneath, parent.seen_first, parent.quote) == (None, True, "q")
    assert (long.id, long.finding, long.says) == ("c-long", "nb/x_long", "s: 1,024 tokens")
    assert (long.kind, long.beneath, long.family) == ("control", "c", "a family, controls")
    assert (other.says, other.metric, other.margin) == ("t", "m", 0.1)
    assert (other.seen_first, other.quote) == (False, None), "what was seen, and the quote, are a row's own"

    assert (question.kind, question.family, question.margin) == ("question", "f", 0.01)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"side": "left"}, "side: Input should be 'above' or 'below'"),
        ({"finding": "x"}, "finding: String should match pattern"),
        ({"margin": None}, "margin is missing"),
        ({"margin": 0.0}, "margin.*Input should be greater than 0"),
        ({"speaks_for_paper": False}, "speaks_for_paper: false is for a control, and this row is a claim"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_the_ledger_names_the_row_and_the_field_that_are_wrong(fields, message, tmp_path):
    file = write(tmp_path / "claims.yml", claims=[{**ROW, **fields}], conditions={"long": "l"})
    with pytest.raises(ValueError, match=message) as caught:
        claims.ledger(file)
    assert str(caught.value).startswith("claims.yml") and "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [[1], {"a": 1}, datetime.date(2026, 1, 1), math.nan, True], ids=repr)
@pytest.mark.parametrize("field", [field for field in ROW if field != "margin"])
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(field, wrong, tmp_path):
    with pytest.raises(ValueError, match=field):
        claims.ledger(write(tmp_path / "claims.yml", claims=[{**ROW, field: wrong}]))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "null",
        "[" * 100_000,
        '{"findings": [3]}',
        '{"findings": {"a": 3}}',
        '{"findings": {"a": {"value": 1}}}',
        '{"findings": {"a": {"value": "1", "low": 0, "high": 1, "units": 8, "method": "m"}}}',
        '{"findings": {"a": {"value": 1, "low": 0, "high": 1, "units": true, "method": null}}}',
        '{"findings": {"a": {"value": NaN, "low": 0, "high": 1, "units": 8, "method": "m"}}}',
    ],
)
def test_a_broken_finding_is_a_sentence(tmp_path, content):
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings" / "01.json").write_text(content)
    with pytest.raises(ValueError, match=r"01\.json") as caught:
        claims.findings(tmp_path)
    assert "\n" not in str(caught.value)


# the ledger itself


def test_claims_of_two_runs_are_printed_one_beneath_the_other():
    estimate = Estimate(41.0, 15.0, 67.0, 60, "", margin=1.0)
    first = LEDGER[0]
    found = claims.verdicts(LEDGER, {first.finding: estimate})
    lines = tables.as_text({"profile hour": claims.verdicts(LEDGER, {}), "published": found}).splitlines()

    assert lines[0] == tables.SECTIONS["claim"]
    after = next(place for place, line in enumerate(lines) if "profile hour" in line)
    assert " ".join("".join(f" {line}" for line in lines[2:after]).split()) == first.says
    assert lines[after].split() == ["profile", "hour", "not", "run", "–"]
    assert lines[after + 1].split()[:4] == ["published", "reproduced", "41.0", "[15.0,"]

    waiting = [
        row for row in LEDGER if row.kind not in ("others", "claim")
    ]  # measured by others: always there
    assert lines[-1] == f"{len(waiting)} rows of the ledger are not run."


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_no_line_of_a_terminal_is_broken_in_a_word_or_too_long(columns):
    found = {row.finding: Estimate(-0.0042, -0.012345, 0.00521, 9, "") for row in LEDGER if row.finding}
    table = claims.verdicts(LEDGER, found)
    text = tables.as_text({"profile hour": table, "published": table}, columns)
    assert max(map(len, text.splitlines())) <= columns
    words = " ".join(text.split())
    assert all(row.says in words for row in LEDGER if row.beneath is None)


def test_a_terminal_shows_a_share_in_per_cent_and_no_other_number():
    rows = [claim(is_share=True), claim(id="loss", finding="nb/y")]
    found = {"nb/x": estimate(0.25, 0.75), "nb/y": estimate(0.25, 0.75)}
    text = tables.as_text({"published": claims.verdicts(rows, found)}).replace("\N{NO-BREAK SPACE}", " ")
    assert "50.0 % [25.0, 75.0]" in text and "0.500 [0.250, 0.750]" in text


def test_of_a_run_that_is_too_small_numbers_are_shown_and_no_verdict():
    found = {LEDGER[0].finding: Estimate(1.0, 0.697, 1.12, 2, "")}
    table = tables.without_verdicts(claims.verdicts(LEDGER, found))
    assert set(table.verdict) == {tables.TOO_SMALL, "not run"}
    text = tables.as_text({"profile quick": table})
    assert f"{tables.TOO_SMALL}     1.00\n" in text and "[" not in text


def test_every_claim_is_a_quotation_and_no_two_rows_ask_the_same_of_a_finding():
    ids = [row.id for row in LEDGER]
    asked = [(row.finding, row.against) for row in LEDGER if row.finding]

    assert len(set(ids)) == len(ids)
    assert len(set(asked)) == len(asked)

    own = {row.id for row in LEDGER if row.kind == "claim"}
    assert all(row.quote for row in LEDGER if row.kind == "claim")
    assert {row.beneath for row in LEDGER if row.kind == "others"} <= own

    above = set(own)
    for row in LEDGER:  # a control stands behind what it is a control of
        if row.kind in ("condition", "control"):
            assert row.beneath in above
            above.add(row.id)

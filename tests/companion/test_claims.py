"""The ledger says what it must, verdicts change when the data do, and readers see them in one table."""

import datetime

import pytest
import yaml

from sinkprune_companion.figures import forests
from sinkprune_companion.ledger import claims, tables, verdict_rule
from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.ledger.verdict_rule import (
    CONTRADICTED,
    NO_DIFFERENCE,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
)
from sinkprune_companion.run import publish, records
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation.intervals import Estimate, interval
from sinkprune_core.evaluation.significance import holm
from sinkprune_core.files import PACKAGE

ROW = {
    "id": "c",
    "says": "s",
    "quote": "q",
    "source": "s",
    "metric": "m",
    "falsifier": "f",
    "scale": "any",
}
DECIDED = {"finding": "nb/x", "family": "a family", "margin": 0.1, "margin_reason": "r"}


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    return Run("00_test", "p", {"sparsity": 0.5})


def claim(**fields) -> Claim:
    return Claim(**{**ROW, **DECIDED, **fields})


def estimate(low: float, high: float, **more) -> Estimate:
    return Estimate((low + high) / 2, low, high, units=9, method="", **more)


# verdicts


def test_a_row_that_was_added_after_its_number_had_been_seen_says_so():
    rows = [claim(id="a"), claim(id="b", seen_first=True)]
    notes = claims.verdicts(rows, {"nb/x": estimate(-2, -1)}).note
    assert claims.SEEN_FIRST in notes["b"] and claims.SEEN_FIRST not in notes["a"]


def test_a_claim_takes_its_margin_from_the_ledger_or_from_the_finding():
    small = estimate(-0.05, 0.05)
    assert claim().verdict(small) == NO_DIFFERENCE and claim(margin=0.01).verdict(small) == UNDECIDED
    by_rule = claim(margin="share of damage", margin_reason=None)
    assert by_rule.verdict(small) == UNDECIDED, "a finding without the margin that its rule gives"
    assert by_rule.verdict(small.with_margin(0.06)) == NO_DIFFERENCE
    assert claim(margin=0.01).verdict(small.with_margin(0.06)) == UNDECIDED, "a number goes first"
    assert claim(finding=None).verdict(None) == claim().verdict(None) == NOT_RUN


def test_a_verdict_changes_when_the_data_do(run):
    ledger = [claim(finding="00_test/x")]
    run.find({"x": interval([-1.0, -1.1, -0.9]), "y": None})
    assert claims.verdicts(ledger, claims.findings(run.folder)).verdict.tolist() == [REPRODUCED]
    run.find({"x": interval([1.0, 1.1, 0.9])})
    table = claims.verdicts(ledger, claims.findings(run.folder), "00_test")
    assert table.verdict.tolist() == [CONTRADICTED]
    assert claims.verdicts(ledger, claims.findings(run.folder), "01_other").empty
    assert CONTRADICTED in tables.as_markdown(table) and CONTRADICTED in tables.as_text(table)


def test_findings_keep_margins_and_variance_components(run):
    found = estimate(-0.3, 0.3, margin=0.1, draws=5, error_draws=0.15, error_sequences=0.01, p=0.5)
    run.find({"x": found})
    ledger = [claim(finding="00_test/x", margin="share of damage", margin_reason=None)]
    known = claims.findings(run.folder)
    assert known == {"00_test/x": found}
    row = claims.verdicts(ledger, known).loc["c"]
    assert (row.margin, row.error_draws, row.error_sequences, row.p_holm) == (0.1, 0.15, 0.01, 0.5)
    assert row.note.endswith("would decide: 45 calibration draws instead of 5")
    assert row.half_width == pytest.approx(0.3) and row.smallest_effect == pytest.approx(0.429, abs=1e-3)


def test_p_values_are_corrected_over_their_family_whatever_ran():
    ledger = [
        claim(id="a", finding="nb/a"),
        claim(id="b", finding="nb/b"),
        claim(id="c", finding="nb/c"),
        claim(id="d", finding="nb/a", family="another"),
        claim(id="e", finding=None, family=None, margin=None, margin_reason=None),
    ]
    found = {"nb/a": estimate(-3, -1), "nb/b": estimate(-3, -0.1)}
    p = [verdict_rule.p_value(found[name], 0.0) for name in ("nb/a", "nb/b")]
    table = claims.verdicts(ledger, found)
    assert table.p_holm[:2].tolist() == pytest.approx(holm([*p, 1.0])[:2].tolist())
    assert table.p_holm.isna().tolist() == [False, False, True, False, True]
    assert table.p_holm["d"] == pytest.approx(p[0]), "a family of its own"
    assert table.p_holm["b"] > 0.05 and table.note["b"] == "not after correction for its family"
    assert table.verdict["b"] == REPRODUCED and table.note["a"] == ""
    one_notebook = claims.verdicts(ledger, {"nb/b": found["nb/b"]})
    assert one_notebook.p_holm["b"] == pytest.approx(min(1, 3 * p[1])), "rows that did not run count"


def test_findings_away_from_zero_without_a_row_are_named():
    found = {"nb/x": estimate(1, 2), "nb/y": estimate(-2, -1), "nb/z": estimate(-1, 1)}
    assert claims.without_row([claim()], found) == ["nb/y"]
    assert "nb/y" in tables.without_row_text(["nb/y"])
    assert "Every finding" in tables.without_row_text([])


# tables


def test_the_table_has_the_essentials_first_and_an_interval_that_does_not_break(run):
    run.find({"x": interval([1.0, 1.1, 0.9])})
    table = claims.verdicts([claim(finding="00_test/x", metric="how far")], claims.findings(run.folder))
    heading, _, row = tables.as_markdown(table).splitlines()
    assert heading == "| claim | verdict | here (95 % interval) | ± | p | note | measured |"
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:5] == ["contradicted", "1.00 [0.900,\N{NO-BREAK SPACE}1.10]", "0.10", "< 0.001"]
    assert cells[6] == "how far"


def test_a_verdict_that_turned_says_why_and_one_that_did_not_is_silent():
    turning = {"first_verdict": CONTRADICTED, "turned": "the measure was wrong"}
    known = {"nb/x": estimate(-2, -1), "nb/y": estimate(1, 2)}
    ledger = [claim(**turning), claim(id="d", finding="nb/y", **turning), claim(id="e", finding="nb/z")]
    table = claims.verdicts(ledger, known)
    assert table.turned.tolist() == ["the measure was wrong", "", ""]
    assert tables.as_markdown(table).count("the measure was wrong") == 1
    crossed = tables.then_and_now(table).splitlines()
    assert len(crossed) == 3 and crossed[2] == "| then contradicted | 1 | 1 | 0 | 0 | 0 |"


def test_the_figure_shows_every_row_with_its_verdict():
    rows = {"a": (-2, -1), "b": (1, 2), "c": (-0.05, 0.05), "d": (-1, 1)}
    ledger = [claim(id=name, says=f"row {name}", finding=f"nb/{name}") for name in (*rows, "e")]
    table = claims.verdicts(ledger, {f"nb/{name}": estimate(*ends) for name, ends in rows.items()})
    assert tuple(table.verdict) == verdict_rule.VERDICTS
    texts = [text.get_text() for text in forests.plot_verdicts(table).axes[0].texts]
    for says, given in zip(table.claim, table.verdict, strict=True):
        assert texts.count(says) == texts.count(given) == 1
    assert set(forests.VERDICT_MARKS) == set(verdict_rule.VERDICTS)


# the ledger


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"side": "left"}, "side='left' is not one of above, below"),
        ({"kind": "x"}, "kind='x' is not one of claim, control, others"),
        ({"finding": "x"}, "notebook/name"),
        ({"family": None}, "family is missing"),
        ({"margin": None}, "margin is missing: give a number with margin_reason, or one of share of damage"),
        ({"margin": "some"}, "margin='some' is not one of share of damage"),
        ({"margin": 0.0}, "margin=0.0 must be positive"),
        ({"margin_reason": None}, "margin=0.1 needs a margin_reason"),
        ({"kind": "others"}, "kind='others' does not fit finding='nb/x'"),
        ({"finding": "others/x"}, "kind='claim' does not fit"),
        ({"kind": "others", "finding": "others/x"}, "bears_on is missing"),
        ({"turned": "why"}, "turned needs first_verdict"),
        ({"short": "few words"}, "unit is missing: name that of the number beside short"),
        ({"control": "d"}, "short is missing: control stands beneath it in README"),
        ({"first_verdict": "direction only"}, "first_verdict='direction only' is not one of reproduced"),
    ],
)
def test_a_claim_says_what_is_wrong_with_it(fields, message):
    with pytest.raises(ValueError, match=message):
        claim(**fields)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"claims": [ROW, ROW]}, r"twice: \['c'\]"),
        ({"claims": [{**ROW, "colour": "red"}]}, "colour"),
        ({"claims": [{**ROW, **DECIDED, "family": None}]}, "family is missing"),
        ({"claims": [{**ROW, "bears_on": "nothing"}]}, "bears_on='nothing' is no row"),
        ({"claims": [{**ROW, "short": "s", "unit": "u", "control": "d"}]}, "control='d' is no row with"),
        ({"claims": [], "rules": []}, "unknown parts rules; it may have history, claims"),
    ],
)
def test_the_ledger_refuses_what_it_does_not_know(parts, message, tmp_path):
    file = tmp_path / "claims.yml"
    file.write_text(yaml.safe_dump(parts))
    with pytest.raises(ValueError, match=message):
        claims.ledger(file)


def test_the_history_says_when_what_changed_and_what_was_known(tmp_path):
    file = tmp_path / "claims.yml"
    entry = {"date": datetime.date(2026, 11, 26), "changed": "C.", "why": "W.", "seen": "S."}
    file.write_text(yaml.safe_dump({"claims": [], "history": [entry]}))
    assert tables.history_text(claims.history(file)) == "* 2026-11-26: C. W. Seen by then: S."
    file.write_text(yaml.safe_dump({"claims": [], "history": [{**entry, "by": "me"}]}))
    with pytest.raises(ValueError, match="by"):
        claims.history(file)
    file.write_text(yaml.safe_dump({"claims": []}))
    assert claims.history(file) == []


def test_the_real_ledger_is_complete():
    ledger = claims.ledger()
    assert len(ledger) >= 100 and len(claims.history()) >= 5
    assert all(c.falsifier and c.quote and c.source and c.scale for c in ledger)
    assert all(c.finding or c.published for c in ledger), (
        "a claim that is not run here shows what was published"
    )
    decided = [claim.finding for claim in ledger if claim.finding]
    assert len(set(decided)) == len(decided), "a finding decides one row"


def test_falsifiers_say_the_same_as_the_rule():
    for row in claims.ledger():
        if row.finding:
            wrong = "above" if row.side == "below" else "below"
            assert row.falsifier == f"the whole interval lies {wrong} {row.against:g}", row.id


def test_the_ledger_ships_with_the_package_and_is_found_from_anywhere(tmp_path, monkeypatch):
    """A notebook outside a clone gets its verdict."""
    monkeypatch.chdir(tmp_path)
    assert claims.FILE.is_relative_to(PACKAGE / "data") and claims.ledger()

"""The tables of hostile cases in docs/promises.md: a row for every group that a test has, and no other."""

import json

import pytest
from hostile.groups import EVERY, FAMILIES
from hostile.page import HEAD, PAGE, Family, groups_of, write
from hostile.tally import BROKE, HELD, Tally

FAMILY = Family("a family", 1200, 30, ("first", "second"), "two groups")
UNTRIED = Family("another", 4, 4, (), "a test")


def page_of(*rows: str, now: str = "") -> str:
    """Return a page with the table of families, of which one counts `now`, and some rows of groups."""
    groups = "\n".join([Tally().table(), *rows])
    families = [f"| a family | 1,200 | 30 | {now} | two groups |", "| another | 4 | 4 | – | – | a test |"]
    above = "\n".join([*HEAD, *families]) if now else ""
    return (
        f"before\n\n<!-- families: begin -->\n\n{above}\n\n<!-- families: end -->\n\nbetween\n\n"
        f"<!-- groups: begin -->\n\n{groups}\n\n<!-- groups: end -->\n\nafter\n"
    )


def counts_of(group: str, *verdicts: str) -> Tally:
    """Return the counts of a group whose cases came to some verdicts."""
    tally = Tally()
    for verdict in verdicts:
        tally.add(group, "a case", verdict)
    return tally


def test_rows_stay_but_those_of_groups_that_no_test_has(tmp_path):
    page = tmp_path / "page.md"
    gone, second, first = (
        "| gone | 9 | 9 | 0 | 0 |",
        "| second | 5 | 5 | 0 | 0 |",
        "| first | 1,007 | 7 | 999 | 1 |",
    )

    page.write_text(page_of(gone, second, first))
    write(counts_of("second", HELD, BROKE), ["first", "second", "never run"], [FAMILY, UNTRIED], page)

    assert page.read_text() == page_of(first, "| second | 2 | 1 | 0 | 1 |", now="1,009 | 2")


def test_counts_of_a_group_that_is_not_listed_are_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(page_of())
    with pytest.raises(ValueError, match=r"no list of groups has .*'unlisted'"):
        write(counts_of("unlisted", HELD), ["first"], [], page)
    assert page.read_text() == page_of()


def test_counts_of_two_processes_add_up():
    """What a process sends are plain values."""
    both = Tally()
    for sent in (counts_of("first", HELD, BROKE), counts_of("first", HELD)):
        both.join(Tally.of_values(json.loads(json.dumps(sent.values()))))
    assert both == counts_of("first", HELD, BROKE, HELD)


def test_the_page_has_one_row_for_every_group():
    assert groups_of(PAGE.read_text(encoding="utf-8")) == list(EVERY)
    assert all(group in EVERY for family in FAMILIES for group in family.groups)

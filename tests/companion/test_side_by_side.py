"""Rows measured in several ways: verdicts that agree are counted, and those that do not are told."""

from dataclasses import dataclass, field

from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.pages import side_by_side
from sinkprune_core.evaluation.intervals import Estimate

WAYS = [("here", 5, 1.5, 5), ("there", 9, 0.5, -5), ("elsewhere", 7, 1.5, 5)]  # a number per claim


@dataclass(frozen=True)
class Way:
    """A way of measuring, with what was found by it."""

    name: str
    found: dict[str, Estimate] = field(default_factory=dict)


def claim(number: int) -> Claim:
    return Claim(
        id=f"c{number}",
        says=f"claim {number}",
        quote="q",
        source="s",
        metric="m",
        falsifier="f",
        scale="any",
        finding=f"00_one/f{number}",
        side="above",
        family="all",
        margin=0.1,
        margin_reason="a test",
    )


def ways() -> list[Way]:
    """Ways whose findings are the numbers of WAYS, each with an interval of ± 1."""
    made = []
    for name, *values in WAYS:
        found = {}
        for number, value in enumerate(values):
            found[f"00_one/f{number}"] = Estimate(value, value - 1, value + 1, 24, "bootstrap over units")
        made.append(Way(name, found))
    return made


CLAIMS = [claim(number) for number in range(3)]


def test_equal_verdicts_are_counted_and_so_are_those_that_no_chance_explains():
    says = side_by_side.agreement(CLAIMS, ways(), "rows", "ways")
    assert says.startswith("Of 3 rows, 1 have the same verdict on all 3 ways; on 1, ways have different")
    assert [side_by_side.has_one_verdict(each, ways()) for each in CLAIMS] == [True, False, False]
    disagree = [side_by_side.disagree(each, ways()) for each in CLAIMS]
    assert disagree == [False, False, True], "apart with one verdict; near with two; apart with two"


def test_a_bullet_and_a_row_say_what_every_way_found():
    (bullet,) = side_by_side.bullets(CLAIMS[2:], ways()).replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert bullet.startswith("* *claim 2*: here reproduced (5.0 [4.0, 6.0]), there contradicted (−5.0 [")
    head, _, first, *_ = side_by_side.claims_table(CLAIMS, ways()).splitlines()
    assert head.count("|") == first.count("|") == 6
    assert first.split("|")[2].strip() == "✅ 5.0 [4.0,\N{NO-BREAK SPACE}6.0]"


def test_the_table_of_a_figure_has_every_number_once():
    table = side_by_side.as_table(CLAIMS, ways(), "way")
    assert list(zip(table.id, table.way, table.value, strict=True)) == [
        (each.id, name, values[number]) for number, each in enumerate(CLAIMS) for name, *values in WAYS
    ]

"""The tables of docs/promises.md that hostile cases write: of every group, and of the review's families."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hostile.tally import Tally

from sinkprune.files import atomic

PAGE = Path(__file__).resolve().parents[2] / "docs" / "promises.md"
GROUPS = "groups"  # names of tables
FAMILIES = "families"
HEAD = [
    "| family of the review | cases then | of these wrong | cases now | broke now | tried now by |",
    "|:--|--:|--:|--:|--:|:--|",
]
NONE = "–"  # of a family that no group tries


@dataclass(frozen=True)
class Family:
    """Cases of the review with one cause: how many there were, and what tries them now."""

    name: str
    cases: int
    wrong: int
    groups: tuple[str, ...]  # of hostile cases
    by: str  # what tries them now, in Markdown


def write(tally: Tally, groups: Iterable[str], families: Iterable[Family], page: Path = PAGE) -> None:
    """Put the counts into the page: a row for each of `groups`, in their order, and one for each family.

    Rows of groups that were not run this time stay as they are. A row of any other group leaves the page.
    Raises ValueError for counts of a group that is not among `groups`, and for a page without a place for
    the tables.
    """
    text = page.read_text(encoding="utf-8")
    names = list(groups)
    unknown = [group for group in tally.counts if group not in names]
    if unknown:
        raise ValueError(f"no list of groups has {unknown}: add it to hostile/groups.py")

    head, former = _parted(_table(text, GROUPS))
    _, fresh = _parted(_rows(tally.table()))
    known = former | fresh
    rows = {name: known[name] for name in names if name in known}

    text = _with_table(text, GROUPS, [*head, *rows.values()])
    text = _with_table(text, FAMILIES, [*HEAD, *(_family_row(family, rows) for family in families)])
    with atomic(page) as partial:
        partial.write_text(text, encoding="utf-8")


def groups_of(page: str) -> list[str]:
    """Return the groups of which a page's text has a row, in their order, each as often as it has one."""
    return [_cells(row)[0] for row in _table(page, GROUPS)[len(HEAD) :]]


def _family_row(family: Family, rows: dict[str, str]) -> str:
    """Return the row of a family, with the counts of its groups that have a row."""
    now = [NONE, NONE]
    counts = [_cells(rows[name]) for name in family.groups if name in rows]
    if counts:
        cases = sum(_number(cells[1]) for cells in counts)
        broke = sum(_number(cells[-1]) for cells in counts)
        now = [f"{cases:,}", f"{broke:,}"]

    cells = [family.name, f"{family.cases:,}", f"{family.wrong:,}", *now, family.by]
    return f"| {' | '.join(cells)} |"


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def _rows(text: str) -> list[str]:
    """Return the lines of a table in Markdown, without what is said of cases that broke."""
    return [line for line in text.splitlines() if line.startswith("|")]


def _parted(rows: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the two lines of a table's head, and its rows by their first cell."""
    return rows[: len(HEAD)], {_cells(row)[0]: row for row in rows[len(HEAD) :]}


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def _table(page: str, name: str) -> list[str]:
    """Return the lines of a page's table."""
    begin, end = _marks(name)
    return _rows(page.partition(begin)[2].partition(end)[0])


def _with_table(page: str, name: str, lines: list[str]) -> str:
    """Return a page's text with another table; raise ValueError for a page that has no place for it."""
    begin, end = _marks(name)
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the page has no {begin} and {end}: put them where the table goes")

    table = "\n".join(lines)
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"

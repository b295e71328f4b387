"""The table of hostile cases, in the page of promises."""

from pathlib import Path

from hostile.tally import Tally

from sinkprune_core.files import atomic

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parents[1] / "docs" / "promises.md"
BEGIN = "<!-- hostile: begin -->"
END = "<!-- hostile: end -->"


def rows(table: str) -> list[str]:
    """Return the lines of a table in Markdown, without what is said of cases that broke."""
    return [line for line in table.splitlines() if line.startswith("|")]


def written(page: str) -> list[str]:
    """Return the lines of the table in a page's text."""
    _, _, rest = page.partition(BEGIN)
    return rows(rest.partition(END)[0])


def with_table(page: str, lines: list[str]) -> str:
    """Return a page's text with another table; raise ValueError for a page that has no place for it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}: put them where the table goes")
    table = "\n".join(lines)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def write(tally: Tally, page: Path = PAGE) -> None:
    """Put the counts into the page; rows of groups that were not run this time stay as they are."""
    text = page.read_text(encoding="utf-8")
    fresh = {_group(line): line for line in rows(tally.table())}
    former = {_group(line): line for line in written(text)}
    with atomic(page) as partial:
        partial.write_text(with_table(text, list((former | fresh).values())), encoding="utf-8")


def _group(line: str) -> str:
    return line.split("|")[1].strip()

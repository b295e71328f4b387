"""What others measured at 8B: a section of docs/results.md, and a summary in README."""

from sinkprune_companion.ledger import claims
from sinkprune_companion.ledger.others import OtherRun, runs
from sinkprune_companion.pages import claims_page
from sinkprune_companion.pages.phrases import number
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.tables import markdown_table

SECOND_HAND = "†"
SHOWS = (
    "It shows that on this benchmark no difference between a method and its sink-aware version stands out "
    "from chance, in either direction; it does not show that there is none, as its intervals are several "
    "points wide, on one model, one benchmark and one seed, with 1/256 of the official calibration text."
)


def others_section() -> str:
    """Return the section in Markdown.

    What others measured stands beside the paper's numbers, with the rows of the ledger that it bears on.
    """
    parts = ["## At 8B, by others"]
    for run in runs():
        parts.append(_about(run))
        parts.append(_accuracies(run))
        parts.append(
            f"In percent, with 95 % intervals from the standard errors that the source gives. {SECOND_HAND} "
            "marks numbers of the paper that are second hand: as that source quotes them, not checked."
        )
        parts.append(_more_calibration(run))
        parts.append(SHOWS)
        parts.append(_rows())
    return "\n\n".join(parts)


def others_summary() -> str:
    """Return what others measured in a few sentences, for README: the range of differences."""
    table = claims.verdicts(claims.ledger(), {})
    parts = []
    for run in runs():
        found = [run.difference(row, baseline) for row, baseline in run.pairs()]
        lowest, highest = min(each.value for each in found), max(each.value for each in found)
        widest = max(each.half_width for each in found)
        parts.append(
            f"{run.title}, by [{run.source}]({run.address}): sink-aware − plain is {number(lowest)} to "
            f"{number(highest)} points in {len(found)} comparisons, with intervals of up to ± {widest:.1f}."
        )
    verdicts = claims_page.counted(table[table.kind == claims.OTHERS], "comparisons by others")
    return f"{' '.join(parts)} {verdicts} [Details](docs/results.md#at-8b-by-others)."


def _about(run: OtherRun) -> str:
    """Return what was run, by whom, and where its files are."""
    links = []
    for file in run.files:
        address = f"{run.address}/blob/{file['commit']}/{file['path']}"
        links.append(f"[{file['path']}]({address}) at {file['commit'][:7]}")
    return (
        f"Nothing in this section was run by this project. {run.title}, by [{run.source}]({run.address}) "
        f"({', '.join(links)}). {run.setting}."
    )


def _accuracies(run: OtherRun) -> str:
    """Return the table of accuracies, with the differences of sink-aware rows to their baselines."""
    baselines = dict(run.pairs())
    lines = []
    for row in (run.dense, *run.rows):
        low, high = row.interval
        paper = f"{row.paper:.2f}{SECOND_HAND if row.second_hand else ''}"
        there = paper_gain = "–"
        if row in baselines:
            there = _points(run.difference(row, baselines[row]))
            paper_gain = f"{row.paper - baselines[row].paper:+.2f}"
        share = f"{100 * row.sparsity:.0f} %" if row.sparsity else "–"
        lines.append(
            [share, row.method, f"{row.accuracy:.2f} [{low:.1f}, {high:.1f}]", there, paper, paper_gain]
        )
    head = ["sparsity", "method", "by others", "sink-aware − plain", "the paper", "its sink-aware − plain"]
    return markdown_table(head, lines)


def _points(found: Estimate) -> str:
    return f"{found.value:+.2f} [{found.low:+.1f}, {found.high:+.1f}]"


def _more_calibration(run: OtherRun) -> str:
    """Return one sentence on what four times the calibration text changed."""
    parts = []
    for change in run.more_calibration:
        interval = f"{change.difference:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"
        parts.append(f"{change.method} at {100 * change.sparsity:.0f} % {interval}")
    return (
        "A difference takes both standard errors as if they were of different items; the paired interval, "
        "which the source does not give, would be narrower. Paired it gives what four times the calibration "
        f"text changed for the same method, in points: {', '.join(parts)}."
    )


def _rows() -> str:
    """Return the rows of the ledger that the runs bear on, with their verdicts."""
    ledger = claims.ledger()
    table = claims.verdicts(ledger, {})
    says = {claim.id: claim.says for claim in ledger}
    by_row: dict[str, list[str]] = {}
    for claim in ledger:
        if claim.bears_on:
            by_row.setdefault(claim.bears_on, []).append(claim.id)
    lines = []
    for bears_on, ids in by_row.items():
        rows = table.loc[ids]
        lines.append(f"* {says[bears_on]}: {claims_page.counted(rows, 'comparisons by others')}")
    return "By the ledger's rule, never counted among ours, for these of its rows:\n\n" + "\n".join(lines)

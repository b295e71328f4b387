"""The claims table of a run, with a sentence on where its numbers come from."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sinkprune_companion.figures import figures, forests
from sinkprune_companion.ledger import claims, ledger_commits, tables
from sinkprune_companion.numbers import joined
from sinkprune_companion.run.records import Run
from sinkprune_core.files import atomic

SHOWN_VERSIONS = ("python", "torch", "transformers")


def origin(folder: Path) -> str:
    """Return a few sentences on where a run's numbers come from.

    The first has profile, commit and versions of its records, the others say of each notebook's rows in the
    ledger whether they were committed before its run.
    """
    behind = records_behind(folder)
    origins = list(behind.values())
    commit = _listed(str(one["git_commit"])[: ledger_commits.LETTERS] for one in origins)
    versions = [
        f"{package} {_listed(one['versions'][package] for one in origins)}" for package in SHOWN_VERSIONS
    ]
    by_notebook: dict[str, list[str]] = {}
    for name, one in behind.items():
        by_notebook.setdefault(name.partition("/")[0], []).append(one["git_commit"])
    order = ledger_commits.before_the_run(claims.FILE, by_notebook)
    return f"From profile `{folder.name}`: commit {commit}; {', '.join(versions)}. {order}"


def _listed(values: Iterable[str]) -> str:
    """Return different values in order, in words."""
    return joined(sorted(set(values)))


def records_behind(folder: Path) -> dict[str, dict]:
    """Return where the records behind a run's findings come from, by notebook and name of the record."""
    behind = {}
    for file in sorted((folder / "findings").glob("*.json")):
        provenance = json.loads(file.read_text(encoding="utf-8"))["provenance"]
        for group in provenance["records"]:
            for name in group.pop("names"):
                behind[f"{file.stem}/{name}"] = group
    return behind


def write_claims(profile: str) -> Path:
    """Write the claims table of a run to `runs/<profile>/figures/claims.*`; return the Markdown.

    PNG, PDF, CSV, JSON and Markdown. The figure's provenance is that of the records behind the findings, and
    the digest of the ledger.
    """
    run = Run("", profile, {"ledger_sha256": ledger_digest()})
    run.records_read.update(records_behind(run.folder))
    ledger = claims.ledger()
    found = claims.findings(run.folder)
    table = claims.verdicts(ledger, found)
    figures.save_figure(
        run,
        forests.plot_verdicts(table[table.kind != claims.CONTROL]),
        "claims",
        table.reset_index(),
        "every claim of the paper with its verdict, computed from the findings of this run, and what others "
        "measured; controls are in the table",
    )
    changes = tables.history_text(claims.history())
    parts = [
        tables.as_markdown(table),
        tables.EXPLAINED,
        origin(run.folder),
        f"Rows of the first results, by the same rule then and now:\n\n{tables.then_and_now(table)}",
        tables.without_row_text(claims.without_row(ledger, found)),
        f"What changed in the ledger after results had been seen:\n\n{changes}",
    ]
    markdown = run.folder / "figures" / "claims.md"
    with atomic(markdown) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return markdown


def ledger_digest() -> str:
    """Return the SHA-256 of the ledger, by which a published table tells whether it is up to date."""
    return hashlib.sha256(claims.FILE.read_bytes()).hexdigest()

"""The claims table of a run, with a sentence on where its numbers come from."""

from pathlib import Path

from sinkprune_companion.figures.figures import save_table
from sinkprune_companion.ledger import claims, tables
from sinkprune_companion.run.records import Run
from sinkprune_core.files import atomic, file_digest
from sinkprune_core.models.weight_files import read_json

VERSIONS = ("python", "torch", "transformers")


def origin(folder: Path) -> str:
    """Return a sentence on where a run's numbers come from: its profile and the versions of its records."""
    versions = []
    for package in VERSIONS:
        different = sorted({record["versions"][package] for record in records_behind(folder).values()})
        versions.append(f"{package} {' and '.join(different)}")
    return f"From profile `{folder.name}`: {', '.join(versions)}."


def records_behind(folder: Path) -> dict[str, dict]:
    """Return where the records behind a run's findings come from, by notebook and name of the record."""
    behind = {}
    for file in sorted((folder / "findings").glob("*.json")):
        for group in read_json(file)["provenance"]["records"]:
            for name in group.pop("names"):
                behind[f"{file.stem}/{name}"] = group
    return behind


def write_claims(profile: str) -> Path:
    """Write the claims table of a run to `runs/<profile>/figures/claims.*`; return the Markdown.

    CSV, JSON and Markdown. The table's provenance is that of the records behind the findings, and the digest
    of the ledger.
    """
    run = Run("", profile, {"ledger_sha256": file_digest(claims.FILE)})
    run.records_read.update(records_behind(run.folder))
    table = claims.verdicts(claims.ledger(), claims.findings(run.folder))
    caption = "every row of the ledger with its verdict, computed from the findings of this run"
    save_table(run, "claims", table.reset_index(), caption)
    changes = [f"* {change['date']}: {change['changed']}" for change in claims.history()]
    parts = [
        tables.counts(table),
        tables.as_markdown(table, "../"),
        tables.EXPLAINED,
        origin(run.folder),
        "What changed in the ledger after results had been seen:\n\n" + "\n".join(changes),
    ]
    markdown = run.folder / "figures" / "claims.md"
    with atomic(markdown) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return markdown

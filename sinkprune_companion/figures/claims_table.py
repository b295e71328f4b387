"""The claims table of a run, with a sentence on where its numbers come from."""

from pathlib import Path

from sinkprune.files import atomic, file_digest
from sinkprune.models.weight_files import read_json
from sinkprune_companion.figures.figures import save_table
from sinkprune_companion.ledger import claims, tables
from sinkprune_companion.run.records import Run


def write_claims(profile: str, folder: Path | None = None, target: Path | None = None) -> Path:
    """Write the claims table of a run, as `claims.md`, `.csv` and `.json`; return the Markdown file.

    Findings are those in `folder`, or the run's own; the table goes to `target`, or to the run's figures.
    """
    run = Run("", profile, {"ledger_sha256": file_digest(claims.FILE)})
    folder = folder or run.folder
    target = target or run.folder / "figures"

    profiles = set()
    for file in sorted((folder / "findings").glob("*.json")):
        provenance = read_json(file)["provenance"]
        profiles.add(f"`{provenance['profile'].partition('@')[0]}`")
        for group in provenance["records"]:
            for name in group.pop("names"):
                run.records_read[f"{file.stem}/{name}"] = group

    table = claims.verdicts(claims.ledger(), claims.findings(folder))
    caption = "every row of the ledger with its verdict, computed from the findings of this run"
    save_table(run, "claims", table.reset_index(), caption, target)

    versions = []
    for package in ("python", "torch", "transformers"):
        different = sorted({record["versions"][package] for record in run.records_read.values()})
        versions.append(f"{package} {' and '.join(different)}")

    changes = [f"* {change['date']}: {change['changed']}" for change in claims.read_ledger().history]
    parts = [
        tables.as_markdown(table),
        f"From profile {' and '.join(sorted(profiles))}: {', '.join(versions)}.",
        "What changed in the ledger after results had been seen:\n\n" + "\n".join(changes),
    ]

    markdown = target / "claims.md"
    with atomic(markdown) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")

    return markdown

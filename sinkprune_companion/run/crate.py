"""The published run as an RO-Crate: which notebook made which figures of which models, and what they say.

`ro-crate-metadata.json` (RO-Crate 1.1, written by the library `rocrate`) ties claims, notebooks, findings,
figures, records, models and software versions together for programs that read research objects.
"""

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.ledger import claims
from sinkprune_core.models.catalog import MODELS

if TYPE_CHECKING:  # what publishes nothing does without it
    from rocrate.rocrate import ROCrate

FILE = "ro-crate-metadata.json"
PAPER = "https://arxiv.org/abs/2602.17664"
LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"
MODEL_PARAMETERS = ("model", "twin", "base")  # of a notebook
DESCRIPTION = (
    "Notebooks, figures, findings and records that examine the claims of Sink-Aware Pruning for Diffusion "
    "Language Models, with the verdict on each claim."
)
KINDS_OF_FILE = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".pdf": "application/pdf",
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".yml": "application/yaml",
    ".cff": "application/yaml",
    ".ipynb": "application/x-ipynb+json",
    ".py": "text/x-python",
    ".xz": "application/x-xz",
}


def write(root: Path, day: datetime.date | None = None) -> Path:
    """Write the crate of the run that is published below `root`; return its file.

    `day` is that of publication (None: today).
    """
    crate = published_crate(root, day or datetime.date.today())
    crate.metadata.write(root)
    file = root / FILE
    text = json.dumps(json.loads(file.read_text(encoding="utf-8")), indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    return file


def published_crate(root: Path, day: datetime.date) -> "ROCrate":
    """Return the crate of the run that is published below `root`."""
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate()
    crate.name = "sinkprune: Sink-Aware Pruning for Diffusion Language Models, examined"
    crate.description = DESCRIPTION
    crate.root_dataset["license"] = LICENCE
    crate.root_dataset["datePublished"] = day.isoformat()
    crate.root_dataset["citation"] = crate.add(
        ContextEntity(crate, PAPER, {"@type": "ScholarlyArticle", "name": "Sink-Aware Pruning", "url": PAPER})
    )
    for name in ("README.md", "CITATION.cff", "docs/results.md", "sinkprune_companion/data/claims.yml"):
        _add_file(crate, root, root / name)
    for file in sorted((root / "figures").glob("*.*")):
        _add_file(crate, root, file)
    for file in sorted((root / "figures" / "findings").glob("*.json")):
        _add_run(crate, root, file)
    _add_claims(crate, root)
    return crate


def _add_file(crate: "ROCrate", root: Path, file: Path, **more: object):
    """Add a file of the project; return its entity."""
    place = file.relative_to(root).as_posix()
    properties = {"contentSize": str(file.stat().st_size), "name": place, **more}
    if file.suffix in KINDS_OF_FILE:
        properties["encodingFormat"] = KINDS_OF_FILE[file.suffix]
    return crate.add_file(file, dest_path=place, properties=properties)


def _add_run(crate: "ROCrate", root: Path, findings: Path) -> None:
    """Add one notebook, what it made, and the action that made it."""
    from rocrate.model import ContextEntity

    about = json.loads(findings.read_text(encoding="utf-8"))["provenance"]
    notebook = root / "notebooks" / f"{findings.stem}.ipynb"
    source = _add_file(crate, root, notebook, **{"@type": ["File", "SoftwareSourceCode"]})
    made = [_add_file(crate, root, findings)]
    made += [
        _add_file(crate, root, file, **_caption(file))
        for file in sorted((root / "figures" / findings.stem).glob("*.*"))
    ]
    used = [
        _model(crate, about["parameters"][name])
        for name in MODEL_PARAMETERS
        if about["parameters"].get(name) in MODELS
    ]
    versions = {}
    for group in about["records"]:
        for package, version in group["versions"].items():
            versions[f"#{package}-{version}"] = (package, version)
    tools = [
        crate.add(
            ContextEntity(
                crate,
                identity,
                {"@type": "SoftwareApplication", "name": package, "softwareVersion": version},
            )
        )
        for identity, (package, version) in sorted(versions.items())
    ]
    crate.add_action(
        source,
        identifier=f"#run-{findings.stem}",
        object=used,
        result=made,
        properties={
            "name": f"{findings.stem}, profile {about['profile']}",
            "description": "papermill ran the notebook with the profile's parameters",
            "softwareRequirements": [{"@id": tool.id} for tool in tools],
        },
    )


def _caption(file: Path) -> dict[str, str]:
    """Return the description of a figure's file, from the provenance beside it."""
    beside = file.with_suffix(".json")
    if file.suffix == ".json" or not beside.exists():
        return {}
    caption = json.loads(beside.read_text(encoding="utf-8")).get("caption")
    return {"description": caption} if caption else {}


def _model(crate: "ROCrate", name: str):
    """Return the entity of a model of the table."""
    from rocrate.model import ContextEntity

    row = MODELS[name]
    return crate.add(
        ContextEntity(
            crate,
            f"#model-{name}",
            {
                "@type": "SoftwareApplication",
                "name": name,
                "license": row.licence,
                "description": row.certainty,
            },
        )
    )


def _add_claims(crate: "ROCrate", root: Path) -> None:
    """Add every claim of the ledger with its verdict and the action that decides it."""
    from rocrate.model import ContextEntity

    ledger = claims.ledger()
    table = claims.verdicts(ledger, claims.findings(root / "figures"))
    for claim in ledger:
        row = table.loc[claim.id]
        properties = {
            "@type": "Claim",
            "name": claim.says,
            "text": claim.quote,
            "appearance": {"@id": PAPER},
            "description": f"{row.verdict}: {row.here} {row.interval}".rstrip(": "),
        }
        if claim.notebook and crate.get(f"#run-{claim.notebook}"):
            properties["subjectOf"] = {"@id": f"#run-{claim.notebook}"}
        crate.add(ContextEntity(crate, f"#claim-{claim.id}", properties))

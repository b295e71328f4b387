"""The RO-Crate is read by its library, names files that exist, and says what the ledger says."""

import datetime
import json
import shutil

import pytest

from sinkprune_companion.ledger import claims
from sinkprune_companion.run import crate
from sinkprune_core.files import project_root

DAY = datetime.date(2026, 11, 26)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a folder with what a published run leaves in the project."""
    root = tmp_path_factory.mktemp("project")
    for name in ("figures", "notebooks", "docs", "sinkprune_core/data"):
        shutil.copytree(project_root() / name, root / name)
    for name in ("README.md", "CITATION.cff"):
        shutil.copyfile(project_root() / name, root / name)
    crate.write(root, DAY)
    return root


def entities(project) -> dict[str, dict]:
    graph = json.loads((project / crate.FILE).read_text(encoding="utf-8"))["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph), "no identity twice"
    return found


def references(value) -> set[str]:
    if isinstance(value, list):
        return {found for each in value for found in references(each)}
    if isinstance(value, dict):
        return {value["@id"]} if set(value) == {"@id"} else references(list(value.values()))
    return set()


def test_the_library_reads_what_it_wrote(project):
    from rocrate.rocrate import ROCrate

    read = ROCrate(project)
    assert read.name.startswith("sinkprune") and read.description == crate.DESCRIPTION
    assert read.root_dataset["license"] == crate.LICENCE
    assert read.root_dataset["datePublished"] == "2026-11-26"
    assert len(read.data_entities) > 50


def test_every_reference_resolves_and_every_file_is_there(project):
    found = entities(project)
    assert found[crate.FILE]["conformsTo"]["@id"].startswith("https://w3id.org/ro/crate/1.")
    for identity, entity in found.items():
        for target in references({key: value for key, value in entity.items() if key != "conformsTo"}):
            assert target in found, (identity, target)
        if "File" in str(entity["@type"]) and identity != crate.FILE:
            assert (project / identity).stat().st_size == int(entity["contentSize"])


def test_every_notebook_has_an_action_that_ties_models_to_figures(project):
    found = entities(project)
    for file in (project / "figures" / "findings").glob("*.json"):
        action = found[f"#run-{file.stem}"]
        assert action["@type"] == "CreateAction"
        assert action["instrument"] == {"@id": f"notebooks/{file.stem}.ipynb"}
        assert {"@id": f"figures/findings/{file.stem}.json"} in action["result"]


def test_every_claim_has_its_verdict(project):
    found = entities(project)
    table = claims.verdicts(claims.ledger(), claims.findings(project / "figures"))
    for name, row in table.iterrows():
        assert found[f"#claim-{name}"]["description"].startswith(row.verdict)
    assert {name.removeprefix("#claim-") for name in found if name.startswith("#claim-")} == set(table.index)


def test_the_citation_names_the_crate():
    assert crate.FILE in (project_root() / "CITATION.cff").read_text(encoding="utf-8")

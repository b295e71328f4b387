"""The RO-Crate is read by its library, names files that exist, and says what the ledger says."""

import datetime
import json
import shutil

import pytest

from sinkprune_companion.ledger import claims
from sinkprune_companion.pages import figures_page
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


# from a claim to its figure


@pytest.mark.parametrize(
    ("finding", "figure"),
    [
        ("01_sink_variance/temporal_variance_difference", "variability"),
        ("01_sink_variance/overlap_difference_newest_shares", "readings"),
        ("01_sink_variance/overlap_difference_tokens_512", "conditions"),
        ("02_hiding_sinks/excess_difference_middle_layers", "layers"),
        ("02_hiding_sinks/first_minus_random_ar_tokens_512", "differences_conditions"),
        ("02_hiding_sinks/top_minus_random_ar_tokens_512_same_share", "differences_conditions"),
        ("02_hiding_sinks/first_minus_random_ar_first_token", "positions"),
        ("02_hiding_sinks/written_difference_dream", "differences"),
        ("03_pruning_results/paper_minus_wanda", "differences_50"),
        ("03_pruning_results/paper_minus_wanda_75", "differences_75"),
        ("03_pruning_results/paper_minus_wanda_2_4", "differences_patterns"),
        ("03_pruning_results/structured_sink_minus_structured_30", "differences_structured"),
        ("03_pruning_results/accuracy_suite_paper_minus_wanda_50", "accuracy"),
        ("05_what_does_the_work/main_sinks_75", "effects_75"),
        ("05_what_does_the_work/main_sinks_natural", "kinds_of_text"),
    ],
)
def test_a_finding_leads_to_the_figure_that_shows_it(finding, figure):
    assert figures_page.figure_of(finding) == f"{finding.split('/')[0]}/{figure}"


def test_every_claim_with_a_notebook_leads_to_a_figure_that_the_notebook_saves():
    page = figures_page.figures_page(claims.ledger())
    for claim in claims.ledger():
        if not claim.notebook:
            continue
        assert f"| {claim.says} |" in page
        name = figures_page.figure_of(claim.finding).split("/")[1]
        source = (project_root() / "notebooks" / f"{claim.notebook}.py").read_text(encoding="utf-8")
        family = name.split("_")[0]
        assert f'"{name}"' in source or f'"{family}"' in source or f'f"{family}_{{' in source, name

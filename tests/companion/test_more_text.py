"""More calibration text: what is kept of each amount."""

import json
import tarfile

import pytest

from sinkprune_companion.experiments import more_text
from sinkprune_companion.experiments.headline_rows import NOTEBOOK, headline_cells, sizes_of
from sinkprune_companion.experiments.more_text import SIZE, WAYS, amounts, kept_folder
from sinkprune_companion.experiments.pruning_grid import HEADLINE, SPARSITY
from sinkprune_companion.ledger import claims
from sinkprune_companion.run import record_archive
from sinkprune_core.files import project_root

ENOUGH = {"calibration": 128, "seeds": 10, "sequences": 256}  # what the headline rows must have at least


def test_the_headline_cells_are_those_of_the_notebook_on_all_draws():
    size = sizes_of("full")[NOTEBOOK]
    cells = headline_cells(size, 10)
    assert [cell.name for cell in cells] == list(HEADLINE)
    assert {(cell.draws, cell.sparsity, cell.answer_draws) for cell in cells} == {(10, SPARSITY, 0)}
    tokens = {cell.name: cell.sequences * (8 if cell.recipe.inputs == "noised" else 1) for cell in cells}
    assert tokens["wanda"] == tokens["paper"] == tokens["unstable"] == 8 * size["calibration"]
    assert "random" not in {cell.name for cell in headline_cells(size, 2, ("random",))}


def test_an_unknown_way_is_refused_before_any_work():
    with pytest.raises(ValueError, match="way='huge' is not compared here; choose one of hour, full"):
        more_text.measure("huge")


def test_the_most_text_is_as_much_as_claims_need_and_the_profiles_still_take_what_was_measured():
    measured = amounts()
    assert [amount.way for amount in measured] == [way for way in WAYS if (kept_folder() / way).exists()]
    for amount in measured:
        size = WAYS[amount.way].size
        assert amount.size == {name: size[name] for name in SIZE}
        headline = [f"{NOTEBOOK}/paper_minus_wanda", f"{NOTEBOOK}/unstable_minus_wanda"]
        assert all(amount.found[name].draws == size["seeds"] for name in headline)
    most = next(amount for amount in measured if amount.way == "full")
    assert all(most.size[name] >= least for name, least in ENOUGH.items())


def test_what_is_kept_has_its_origin_and_all_its_records_are_in_the_archive():
    for way in [amount.way for amount in amounts()]:
        file = kept_folder() / way / "findings" / f"{NOTEBOOK}.json"
        provenance = json.loads(file.read_text(encoding="utf-8"))["provenance"]
        assert provenance["profile"] == f"{way}@headline"
        names = {name for group in provenance["records"] for name in group["names"]}
        assert all(group["git_commit"] for group in provenance["records"])
        assert names <= archived(way)


def archived(profile: str) -> set[str]:
    """The names of the records of notebook 03 in a profile's archive."""
    with tarfile.open(record_archive.archive_file(profile)) as archive:
        return {
            name.split("/")[1].removesuffix(".csv")
            for name in archive.getnames()
            if name.startswith(NOTEBOOK) and name.endswith(".csv")
        }


def test_an_amount_whose_profile_is_published_has_the_published_findings():
    file = project_root() / "figures" / "findings" / f"{NOTEBOOK}.json"
    profile = json.loads(file.read_text(encoding="utf-8"))["provenance"]["profile"]
    (same,) = [amount for amount in amounts() if amount.way == profile]
    published = claims.findings(project_root() / "figures")
    shared = [name for name in same.found if name in published]
    assert len(shared) >= 10
    assert all(published[name] == same.found[name] for name in shared)

"""`publish` looks at a whole run first, and replaces what is published at the end or not at all."""

import json
import random
import shutil
import tarfile
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from damage import damaged_bytes
from jinja2 import UndefinedError

import sinkprune_companion
from sinkprune.evaluation.intervals import interval
from sinkprune_companion.figures import figures
from sinkprune_companion.pages import publish
from sinkprune_companion.run import profiles
from sinkprune_companion.run.records import Run

pytestmark = pytest.mark.slow

SOURCE = '# %% [markdown]\n# # One\n\n# %% tags=["parameters"]\nprofile: str = "manual"\n\n# %%\n1 + 1\n'
NAMES = ("00_one", "01_two")
PROFILE = "p"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A project of two notebooks with a finished run, and with what an earlier run published."""
    monkeypatch.setattr(publish.pages, "save_published", lambda results, root: [])  # of all notebooks
    monkeypatch.setattr(publish.pages, "pages", lambda folder: {})
    monkeypatch.setattr(sinkprune_companion, "DATA", tmp_path / "nowhere" / "data")  # not the clone's
    monkeypatch.chdir(tmp_path)

    config = tmp_path / "workflow" / "config" / f"{PROFILE}.yml"
    config.parent.mkdir(parents=True)
    config.write_text(yaml.safe_dump({"profile": PROFILE, "notebooks": dict.fromkeys(NAMES)}))

    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "notebooks").mkdir()

    for name in NAMES:
        (tmp_path / "notebooks" / f"{name}.py").write_text(SOURCE)
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text("old")
        (tmp_path / "figures" / name).mkdir(parents=True)
        (tmp_path / "figures" / name / "old.png").write_bytes(b"old")

        run = Run(name, PROFILE, {})
        table = run.record(
            "measured", lambda: pd.DataFrame({"value": [0.1, 0.2, 0.4]}), seed=NAMES.index(name)
        )

        drawn = figures.plot_curves(
            table.assign(kind="a", place=table.index), "place", "value", "kind", {"place": "x", "value": "y"}
        )
        figures.save_figure(run, drawn, "curve", table, "a curve")

        run.find({"mean": interval(table.value)})

        cells = [
            nbformat.v4.new_markdown_cell("# One"),
            nbformat.v4.new_code_cell('profile: str = "manual"', execution_count=1),
            nbformat.v4.new_code_cell("1 + 1", execution_count=2),
        ]
        file = run.folder / "notebooks" / f"{name}.ipynb"
        file.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), file)

        job = run.folder / "benchmarks" / f"{name}.tsv"
        job.parent.mkdir(exist_ok=True)
        job.write_text("s\tcpu_time\tmax_pss\n60\t30\t100\n")

    return tmp_path


def seen(root: Path) -> dict[str, bytes]:
    """Return what readers see: everything but the run and locks."""
    every = [file for file in root.rglob("*") if file.is_file() and "runs" not in file.parts]
    return {str(file.relative_to(root)): file.read_bytes() for file in every}


def test_a_run_replaces_what_was_published(root):
    files = {file.relative_to(root).as_posix() for file in publish.publish(PROFILE)}
    after = seen(root)
    assert files <= set(after) and "figures/00_one/old.png" not in after

    for name in NAMES:
        assert {f"figures/{name}/curve.png", f"figures/findings/{name}.json"} <= files
        assert nbformat.reads(after[f"notebooks/{name}.ipynb"].decode(), 4).cells[2].source == "1 + 1"
    assert {"figures/records-p.tar.xz", "figures/records-p.tar.xz.sha256", "docs/run_costs.json"} <= files
    assert not list(root.glob(".publication*")), "the folder beside is gone"

    publish.publish(PROFILE)
    assert seen(root) == after


def test_one_notebook_published_from_a_clone_keeps_the_records_of_the_others(root):
    publish.publish(PROFILE)
    archive = root / "figures" / f"records-{PROFILE}.tar.xz"

    with tarfile.open(archive) as packed:
        before = packed.getnames()

    kept, *others = sorted((root / "runs" / PROFILE / "records").rglob("*.csv"))
    for file in others:
        file.unlink()
        file.with_suffix(".json").unlink()

    publish.publish(PROFILE, [json.loads(kept.with_suffix(".json").read_text())["notebook"]])
    with tarfile.open(archive) as packed:
        assert packed.getnames() == before and len(before) == 4


def test_a_figure_without_digests_is_named_and_nothing_is_published(root):
    file = root / "runs" / PROFILE / "figures" / "01_two" / "curve.json"
    about = json.loads(file.read_text())
    del about["files"]
    file.write_text(json.dumps(about))
    before = seen(root)
    with pytest.raises(ValueError, match=r"01_two holds what belongs to none of its figures: .*curve\.json"):
        publish.publish(PROFILE)
    assert seen(root) == before


def test_a_file_that_is_gone_or_damaged_is_named_and_nothing_is_published(root, tmp_path_factory):
    sound = shutil.copytree(root, tmp_path_factory.mktemp("sound") / "root")
    rng = random.Random(0)
    cases = []

    for file in sorted((sound / "runs").rglob("*")):
        if not file.is_file() or "benchmarks" in file.parts:  # what a job took is no result
            continue

        flips = 2 if file.suffix in (".csv", ".png", ".pdf") else 0  # others have no digest
        damages = [("gone", None), *damaged_bytes(file.read_bytes(), rng, flips, cuts=1)]
        cases += [(file.relative_to(sound), *damage) for damage in damages]

    for name, done, damaged in cases:
        shutil.rmtree(root / "runs")
        shutil.copytree(sound / "runs", root / "runs")
        (root / name).unlink() if damaged is None else (root / name).write_bytes(damaged)

        before = seen(root)
        with pytest.raises((ValueError, OSError)) as refused:
            publish.publish(PROFILE)

        assert any(part in str(refused.value) for part in (name.name, name.stem, *NAMES)), (name, done)
        assert seen(root) == before, (name, done)


def changed(file: Path, **fields: object) -> None:
    """Give fields of a JSON file other values; one that is called `a__b` lies in `a`."""
    about = json.loads(file.read_text())
    for name, value in fields.items():
        *outer, last = name.split("__")
        place = about
        for part in outer:
            place = place[part]
        place[last] = value
    file.write_text(json.dumps(about))


def picture_cell(png: str) -> dict:
    """Return a code cell that shows a picture."""
    output = {"output_type": "display_data", "data": {"image/png": png}, "metadata": {}}
    return {
        "cell_type": "code",
        "id": "c",
        "metadata": {},
        "source": "1 + 1",
        "execution_count": 2,
        "outputs": [output],
    }


NOTEBOOK = "notebooks/01_two.ipynb"
FINDINGS = "findings/01_two.json"
FIGURE = "figures/01_two/curve.json"
ONE_RECORD = [{"names": ["*/*"], "versions": {}}]


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (NOTEBOOK, {"nbformat": 3}, "it is no notebook of format 4"),
        (NOTEBOOK, {"cells": None}, "01_two.ipynb is not a whole notebook"),
        (NOTEBOOK, {"cells": [None]}, "01_two.ipynb is not a whole notebook"),
        (FINDINGS, {"findings": None}, r"findings/01_two.json is not what was written \(findings: "),
        (FINDINGS, {"findings__mean__value": 9.0}, r"01_two.json .* \(findings.mean.*outside its interval"),
        (FINDINGS, {"findings__mean": 0.2}, r"01_two.json is not what was written \(findings.mean"),
        (
            FINDINGS,
            {"provenance": {}},
            r"findings/01_two.json is not what was written \(provenance.notebook: ",
        ),
        (FINDINGS, {"provenance__records": None}, r"is not what was written \(provenance.records: "),
        (
            FINDINGS,
            {"provenance__records": ONE_RECORD},
            r"\(provenance.records.0.names.0: String should match",
        ),
        (FINDINGS, {"provenance__notebook": "00_one"}, "belongs to notebook '00_one', not to '01_two'"),
        (FINDINGS, {"provenance__profile": "q"}, "belongs to profile 'q', not to 'p'"),
        (FIGURE, {"notebook": "00_one"}, "curve.json belongs to notebook '00_one', not to '01_two'"),
        (FIGURE, {"records": [None]}, r"curve.json is not what was written \(records.0: "),
        (FIGURE, {"files": {"curve.csv": None}}, r"curve.json is not what was written \(files.curve.csv: "),
    ],
)
def test_what_is_not_whole_is_refused_in_a_sentence(root, file, fields, message):
    changed(root / "runs" / PROFILE / file, **fields)
    before = seen(root)
    with pytest.raises(ValueError, match=message) as refused:
        publish.publish(PROFILE)
    assert "\n" not in str(refused.value) and seen(root) == before


def test_an_empty_notebook_a_null_record_and_a_picture_that_is_none_are_refused(root):
    run = root / "runs" / PROFILE
    notebook = run / NOTEBOOK
    cells = json.loads(notebook.read_text())["cells"]
    before = seen(root)
    for content, message in (
        ({}, "it is no notebook of format 4"),
        ({"cells": [*cells[:-1], picture_cell("bm8gcGljdHVyZQ==")]}, "cell 2 shows what is no PNG"),
    ):
        sound = notebook.read_text()
        notebook.write_text(json.dumps({**json.loads(sound), **content} if content else {}))
        with pytest.raises(ValueError, match=message):
            publish.publish(PROFILE)
        notebook.write_text(sound)

    record = next((run / "records").rglob("*.json"))
    record.write_text("null")
    with pytest.raises(ValueError, match=rf"{record.name} is not what was written \(Input should be"):
        publish.publish(PROFILE)
    assert seen(root) == before


def test_a_page_without_its_number_stops_before_anything_is_written(root, monkeypatch):
    """In the run, too: its claims table is that of its last finished job."""

    def without_a_number(folder: Path) -> None:
        raise UndefinedError("'dict object' has no attribute '03/paper_minus_wanda'")

    monkeypatch.setattr(publish.pages, "pages", without_a_number)
    kept = {file: file.read_bytes() for file in (root / "runs").rglob("*") if file.is_file()}
    before = seen(root)
    with pytest.raises(ValueError, match=r"a page takes a number that no finding has: .*paper_minus_wanda"):
        publish.publish(PROFILE)
    assert seen(root) == before
    assert kept == {file: file.read_bytes() for file in kept}
    assert not (root / "runs" / PROFILE / "figures" / "claims.md").exists()


def test_a_finding_that_a_picture_lacks_stops_before_anything_is_written(root, monkeypatch):
    def without_a_finding(results: object, root: Path) -> list[Path]:
        raise KeyError("README's picture needs findings that are not published: 03/paper_minus_wanda")

    monkeypatch.setattr(publish.pages, "save_published", without_a_finding)
    before = seen(root)
    with pytest.raises(KeyError, match=r"README's picture needs findings .*03/paper_minus_wanda"):
        publish.publish(PROFILE)
    assert seen(root) == before


def test_pages_and_pictures_are_written_from_what_is_published_with_them(root, monkeypatch):
    """From tables, notebooks and costs, too, and under the lock of all runs."""
    table = Path("figures", "01_two", "curve.csv")
    old = Path("figures", "00_one", "old.png")

    def drawn(results: object, root: Path) -> list[Path]:
        picture = root / "figures" / "pictures" / "all.png"
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes((root / table).read_bytes())
        return [picture]

    def written(folder: Path) -> dict[str, str]:
        project = sinkprune_companion.project_root()
        assert folder == project / "figures"
        assert not (project / old).exists() and (root / old).exists(), "nothing is replaced yet"
        with (
            sinkprune_companion.project_in(root),
            pytest.raises(RuntimeError, match="another"),
            profiles.lock_of_all_runs(),
        ):
            pass
        costs = json.loads((project / profiles.COSTS).read_text())
        notebook = nbformat.read(project / "notebooks" / "01_two.ipynb", 4)
        return {"README.md": f"{[*costs]}, {len(notebook.cells)} cells", "docs/results.md": "all"}

    monkeypatch.setattr(publish.pages, "save_published", drawn)
    monkeypatch.setattr(publish.pages, "pages", written)
    files = {file.relative_to(root).as_posix() for file in publish.publish(PROFILE)}

    assert {"README.md", "docs/results.md", "figures/pictures/all.png"} <= files
    assert (root / "README.md").read_text() == "['p'], 3 cells"
    assert (root / "figures/pictures/all.png").read_bytes() == (root / table).read_bytes()
    assert sinkprune_companion.project_root() == root


def test_costs_of_one_notebook_that_was_just_measured_are_kept(root):
    """Records of the others are unpacked from the archive, which says so for what runs later."""
    publish.publish(PROFILE)
    records = root / "runs" / PROFILE / "records"
    shutil.rmtree(records / "measured")
    (root / profiles.COSTS).unlink()

    name = NAMES[1]
    run = Run(name, PROFILE, {})
    run.record("measured", lambda: pd.DataFrame({"value": [0.1, 0.2, 0.4]}), seed=NAMES.index(name))
    publish.publish(PROFILE, [name])

    assert (records / profiles.MARK).exists(), "the other notebook's records come from the archive"
    assert set(json.loads((root / profiles.COSTS).read_text())[PROFILE]["costs"]) == set(NAMES)


def test_the_claims_are_those_of_the_findings(root, monkeypatch):
    """Of published ones of another profile's notebook, too; also where the run's table is an older one."""
    published = root / "figures" / "findings" / "99_of_another_profile.json"
    published.parent.mkdir()

    about = json.loads((root / "runs" / PROFILE / "findings" / "00_one.json").read_text())
    about["provenance"]["notebook"] = published.stem
    published.write_text(json.dumps(about))

    known = []

    def seen_findings(folder: Path) -> dict[str, str]:
        known.extend((folder / "findings").iterdir())
        return {}

    monkeypatch.setattr(publish.pages, "pages", seen_findings)
    publish.publish(PROFILE)

    assert {file.stem for file in known} == {*NAMES, published.stem}
    assert {file.stem for file in (root / "runs" / PROFILE / "findings").iterdir()} == set(NAMES)

    right = seen(root)
    claims = root / "runs" / PROFILE / "figures" / "claims.csv"
    claims.write_text("old")
    publish.publish(PROFILE)
    assert seen(root) == right and {"figures/claims.csv", "figures/claims.md"} <= set(right)

"""`publish` looks at a whole run first, and replaces what is published at the end or not at all."""

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import yaml

from sinkprune_companion.figures.figures import save_figure
from sinkprune_companion.run import profiles, publish, record_archive, records, run_costs
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation.intervals import interval

SOURCE = '# %% [markdown]\n# # One\n\n# %% tags=["parameters"]\nprofile: str = "manual"\n\n# %%\n1 + 1\n'
NAMES = ("00_one", "01_two")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of two notebooks with a finished run, and with what an earlier run published."""
    for module in (profiles, publish, record_archive, records, run_costs):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setattr(publish.pages, "write", list)  # of the whole project
    monkeypatch.setattr(publish.pages, "pages", lambda folder: {})
    (tmp_path / "README.md").write_text("# Title\n")
    config = tmp_path / "workflow" / "config" / "p.yml"
    config.parent.mkdir(parents=True)
    config.write_text(yaml.safe_dump({"profile": "p", "notebooks": dict.fromkeys(NAMES)}))
    for name in NAMES:
        make_run(tmp_path, name)
    stale = tmp_path / "figures" / "00_one" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"stale")
    (tmp_path / "notebooks" / "00_one.ipynb").write_text("old")
    return tmp_path


def make_run(root, name: str) -> None:
    (root / "notebooks").mkdir(exist_ok=True)
    (root / "notebooks" / f"{name}.py").write_text(SOURCE)
    run = Run(name, "p", {})
    table = run.record("measured", lambda: pd.DataFrame({"value": [0.1, 0.2, 0.4]}), seed=len(name))
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot(table.value)
    save_figure(run, figure, "curve", table, "a curve")
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
    job.write_text("cpu_time\tmax_pss\n60\t100\n")


def published(root) -> dict[str, bytes]:
    """Return what readers see: everything but the run and its lock."""
    files = (file for file in root.rglob("*") if file.is_file() and "runs" not in file.parts)
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def test_a_run_replaces_what_was_published(root):
    files = {file.relative_to(root).as_posix() for file in publish.publish("p")}
    after = published(root)
    assert files <= set(after) and "figures/00_one/stale.png" not in after
    for name in NAMES:
        assert {f"figures/{name}/curve.png", f"figures/findings/{name}.json"} <= files
        assert nbformat.reads(after[f"notebooks/{name}.ipynb"].decode(), 4).cells[2].source == "1 + 1"
    assert {"figures/records-p.tar.xz", "figures/records-p.tar.xz.sha256", "docs/run_costs.json"} <= files
    assert not list(root.glob(".publication*")), "the folder beside is gone"
    publish.publish("p")
    assert published(root) == after


def run_nothing(folder):
    file = folder / "notebooks" / "01_two.ipynb"
    notebook = nbformat.read(file, 4)
    notebook.cells[2].execution_count = None
    nbformat.write(notebook, file)


def cut(place: str):
    def damage(folder):
        (file,) = folder.glob(place)
        file.write_bytes(file.read_bytes()[:20])

    return damage


def remove(place: str):
    def damage(folder):
        next(iter(folder.glob(place))).unlink()

    return damage


DAMAGE = {
    "half-run": (run_nothing, "runs/p/notebooks/01_two.ipynb: code cell 2 of 2 was never run"),
    "truncated": (cut("notebooks/01_two.ipynb"), "runs/p/notebooks/01_two.ipynb is not a whole notebook"),
    "no notebook": (remove("notebooks/01_two.ipynb"), "runs/p/notebooks/01_two.ipynb is missing"),
    "finding": (cut("findings/01_two.json"), "findings/01_two.json"),
    "no finding": (remove("findings/01_two.json"), "findings/01_two.json is missing"),
    "figure": (cut("figures/01_two/curve.json"), "figures/01_two/curve.json is not JSON"),
    "no picture": (remove("figures/01_two/curve.png"), "figures/01_two/curve.png is missing"),
    "no record": (remove("records/measured/*.csv"), "which is missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_run_that_is_not_whole_changes_nothing(name, root):
    damage, sentence = DAMAGE[name]
    damage(root / "runs" / "p")
    before = published(root)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        publish.publish("p")
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert published(root) == before


def test_a_record_that_was_changed_changes_nothing(root):
    file = next((root / "runs" / "p" / "records" / "measured").glob("*.csv"))
    file.write_text(file.read_text().replace("0.1", "0.9"))
    before = published(root)
    with pytest.raises(ValueError, match=r"record .* is not what was written"):
        publish.publish("p")
    assert published(root) == before


@pytest.mark.parametrize("profile", ["..", "../p", "p/../p", "/p", ""])
def test_a_profile_is_a_name_and_never_a_path(profile, root):
    before = published(root)
    with pytest.raises(ValueError, match="is no name"):
        publish.publish(profile)
    assert published(root) == before

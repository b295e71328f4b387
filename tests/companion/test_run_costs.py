"""What notebooks took, from Snakemake's measurements to the numbers of the pages."""

import json

import pytest
import torch

from sinkprune_companion.run import progress, run_costs
from sinkprune_core.files import write_json

COLUMNS = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"


def write_job(folder, name, minutes, mebibytes):
    folder.mkdir(parents=True, exist_ok=True)
    row = f"1\t0:00:01\t9\t9\t9\t{mebibytes}\t0\t0\t0\t{60 * minutes}"
    (folder / f"{name}.tsv").write_text(f"{COLUMNS}\n{row}\n")


def test_the_jobs_of_a_notebook_are_summed_and_the_largest_counts(tmp_path):
    write_job(tmp_path / "benchmarks", "03_b@first_seed-0", 2.0, 1000)
    write_job(tmp_path / "benchmarks", "03_b@first_seed-1", 1.5, 3000)
    write_job(tmp_path / "benchmarks", "03_b", 0.5, 500)
    write_job(tmp_path / "benchmarks", "01_a", 0.25, 100)
    costs = run_costs.measured(tmp_path)
    assert costs["03_b"] == pytest.approx({"core_minutes": 4.0, "gigabytes": 3000 * 2**20 / 1e9, "jobs": 3})
    assert costs["01_a"]["jobs"] == 1


def test_a_run_without_measured_jobs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no measured job"):
        run_costs.measured(tmp_path)


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_what_quick_takes_is_kept_by_the_dtype_of_the_machine(tmp_path, monkeypatch, has_bfloat16):
    dtype = torch.bfloat16 if has_bfloat16 else torch.float32
    monkeypatch.setattr("sinkprune_core.models.devices.choose_dtype", lambda *_: dtype)
    monkeypatch.setattr(run_costs, "project_root", lambda: tmp_path)
    cost = {"core_minutes": 2.0, "gigabytes": 1.0, "jobs": 2}
    for profile, notebook in (("hour", "03_b"), ("quick", "01_a"), ("quick", "02_c")):
        write_json(tmp_path / run_costs.FILE, run_costs.with_costs(profile, {notebook: cost}))
    name = "quick in bfloat16" if has_bfloat16 else "quick"
    assert set(run_costs.by_profile()) == {"hour", name}
    assert run_costs.minutes_per_job(name) == {"01_a": 1.0, "02_c": 1.0}
    assert run_costs.table().count("| 2.0 | 1.0 GB |") == 3


# while it runs


def job(name: str, seconds: float, is_finished: bool = False) -> progress.Job:
    return progress.Job(name, "", cells=10, finished_cells=4, seconds=seconds, is_finished=is_finished)


def test_a_line_says_what_runs_and_how_long_the_rest_takes():
    jobs = [job("a", 240.0, is_finished=True), job("b", 60.0), job("a", 0.0, is_finished=True)]
    minutes = {"a": 2.0, "b": 3.0, "c": 1.0}  # this machine takes twice as long
    line = progress.line(jobs, {"a": 2, "b": 1, "c": 2}, minutes, cores=2)
    assert line == "2 of 5 jobs finished; b cell 5 of 10; about 5 min left"  # b 5, c 2 and 2, on two cores
    assert "left" not in progress.line(jobs, {"a": 1, "b": 1, "d": 1}, minutes, cores=2)


def test_what_runs_is_read_from_the_notebooks_that_papermill_saves(tmp_path):
    def write(folder: str, **about: object) -> None:
        cells = [
            {"metadata": {"papermill": {"status": state}}} for state in ("completed", "running", "pending")
        ]
        file = tmp_path / folder / "03_b.ipynb"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"metadata": {"papermill": about}, "cells": cells}))

    write(
        "notebooks",
        start_time="2026-01-01T00:00:00+00:00",
        end_time="2026-01-01T00:01:30+00:00",
        duration=90.0,
    )
    write("cells/03_b/first_seed-0", start_time="2026-01-01T00:00:00+00:00")
    (tmp_path / "notebooks" / "half.ipynb").write_text('{"cells": [')  # it is being written
    finished, running = progress.jobs_begun(tmp_path, since=0.0)
    assert (finished.is_finished, finished.seconds) == (True, 90.0)
    assert str(running) == "03_b first_seed-0 cell 2 of 3" and not running.is_finished
    (earlier,) = progress.jobs_begun(tmp_path, since=9e9)  # what was killed then has not begun
    assert (earlier.is_finished, earlier.seconds) == (True, 0.0)

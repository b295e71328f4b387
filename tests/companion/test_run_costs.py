"""What notebooks took, from Snakemake's measurements to the numbers of the pages."""

import pytest

from sinkprune_companion.run import run_costs

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

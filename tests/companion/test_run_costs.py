"""What notebooks took, from Snakemake's measurements to the heads of notebooks."""

import heapq
import math

import pytest

from sinkprune_companion.run import run_costs
from sinkprune_core.files import project_root

COLUMNS = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
HEAD = """# | profile | time | peak memory |
# |---|---|---|
# | quick, the defaults | – | – |
# | hour | about 9 core-minutes, random weights | 0.1 GB |
# | full | about 50 core-minutes | 2.5 GB a job |
"""


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


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        (0.2, "under half a core-minute"),
        (0.4, "half a core-minute"),
        (1.1, "a core-minute"),
        (1.4, "1.5 core-minutes"),
        (2.6, "3 core-minutes"),
    ],
)
def test_times_are_said_in_words(minutes, text):
    assert run_costs.time_text({"core_minutes": minutes}) == text


def test_a_row_is_written_anew_and_the_others_stay():
    cost = {"core_minutes": 7.0, "gigabytes": 1.26, "jobs": 2}
    hour = run_costs.with_rows(HEAD, "hour", cost)
    assert "# | hour | 7 core-minutes, random weights | 1.3 GB a job |\n" in hour
    quick = run_costs.with_rows(hour, "quick", {**cost, "jobs": 1})
    assert "# | quick, the defaults | 7 core-minutes | 1.3 GB |\n" in quick
    assert "# | full | about 50 core-minutes | 2.5 GB a job |\n" in quick
    assert run_costs.with_rows(quick, "hour", cost) == quick
    with pytest.raises(ValueError, match="no row of profile night"):
        run_costs.with_rows(HEAD, "night", cost)


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_what_quick_takes_is_kept_by_the_dtype_of_the_machine(monkeypatch, has_bfloat16):
    gain = 7.0 if has_bfloat16 else 0.5
    monkeypatch.setattr("sinkprune_core.models.devices.bfloat16_gain", lambda: gain)
    assert run_costs.name_here("quick") == ("quick in bfloat16" if has_bfloat16 else "quick")
    assert run_costs.name_here("hour") == "hour"
    head = HEAD.replace("# | hour", "# | quick in bfloat16 | – | – |\n# | hour")
    cost = {"core_minutes": 2.0, "gigabytes": 1.0, "jobs": 1}
    written = run_costs.with_rows(head, run_costs.name_here("quick"), cost)
    assert written.count("2 core-minutes") == written.count(" – | – |") == 1
    assert ("# | quick in bfloat16 | 2 core-minutes | 1.0 GB |\n" in written) == has_bfloat16


def test_readme_says_how_long_profile_quick_takes_on_two_cores():
    def minutes(profile: str) -> int:
        """Every notebook goes, in reading order, to the core that is free first."""
        cores = [0.0, 0.0]
        for _, cost in sorted(run_costs.kept()[profile]["costs"].items()):
            heapq.heapreplace(cores, cores[0] + cost["core_minutes"])
        return math.ceil(max(cores))

    most, least = minutes("quick"), minutes(run_costs.QUICK_IN_BFLOAT16)
    said = f"({most} minutes on 2 cores, {least} if they have units for bfloat16)"
    assert said in (project_root() / "README.md").read_text(encoding="utf-8")

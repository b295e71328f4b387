"""What the notebooks of a profile took: docs/run_costs.json.

`sinkprune publish` takes it from what Snakemake measured of long jobs; those of profile quick are measured by
`pytest tests/benchmarks/test_notebook_memory.py --record`.
"""

from pathlib import Path

import pandas as pd
import torch

from sinkprune_companion import project_root
from sinkprune_companion.numbers import markdown_table
from sinkprune_companion.run.records import environment
from sinkprune_core.models.devices import choose_dtype
from sinkprune_core.models.weight_files import read_json

FILE = "docs/run_costs.json"  # by profile: `costs` by notebook, `platform` and `torch`


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """Return `core_minutes` of all jobs, `gigabytes` of the largest and the number of `jobs`, by notebook.

    `folder` is `runs/<profile>`. Memory is the proportional set size of a job's processes. Of a job that was
    stopped and started again the last part counts alone. Raises FileNotFoundError where no job was measured.
    """
    files = sorted((folder / "benchmarks").glob("*.tsv"))
    if not files:
        raise FileNotFoundError(
            f"no measured job in {folder}: run `sinkprune reproduce --profile {folder.name}` first"
        )
    jobs = pd.concat(pd.read_csv(file, sep="\t", nrows=1) for file in files)
    by_notebook = jobs.groupby([file.stem.partition("@")[0] for file in files])
    costs = {
        "core_minutes": by_notebook.cpu_time.sum() / 60,
        "gigabytes": by_notebook.max_pss.max() * 2**20 / 1e9,  # of mebibytes
        "jobs": by_notebook.size().astype(object),
    }
    return pd.DataFrame(costs).to_dict("index")


def table() -> str:
    """Return a table of all profiles that were measured, for docs/performance.md."""
    rows = []
    for profile, entry in read_json(project_root() / FILE).items():
        for name, cost in entry["costs"].items():
            numbers = [cost["jobs"], f"{cost['core_minutes']:.1f}", f"{cost['gigabytes']:.1f} GB"]
            rows.append([profile, name, *numbers, f"{entry['platform']}, torch {entry['torch']}"])
    heads = ["profile", "notebook", "jobs", "core-minutes", "memory of the largest job", "where"]
    return markdown_table(heads, rows)


def with_costs(profile: str, costs: dict[str, dict[str, float]]) -> dict[str, dict]:
    """Return the content of docs/run_costs.json with what notebooks of a profile took on this machine.

    Profile quick takes the dtype of the CPU, and has an entry of its own for CPUs with units for bfloat16.
    """
    if profile == "quick" and choose_dtype("auto", "cpu") == torch.bfloat16:
        profile = "quick in bfloat16"
    entries = read_json(project_root() / FILE)
    vectors = torch.backends.cpu.get_cpu_capability()  # AVX2, AVX512: they decide the time
    entries[profile] = {
        "platform": f"{environment()['platform']}, {vectors}",
        "torch": environment()["versions"]["torch"],
        "costs": entries.get(profile, {}).get("costs", {}) | costs,
    }
    return entries

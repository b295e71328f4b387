"""What the notebooks of a profile took: docs/run_costs.json.

`sinkprune publish` takes it from what Snakemake measured of the jobs of the profile that it publishes: long
jobs, which it looks at every half minute. Those of profile quick are measured by
`pytest tests/benchmarks/test_notebook_memory.py --record`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch

from sinkprune_companion import project_root
from sinkprune_companion.numbers import markdown_table
from sinkprune_companion.run.provenance import environment
from sinkprune_core.models.devices import choose_dtype

Costs = Mapping[str, Mapping[str, float]]  # of a profile, by notebook
FILE = "docs/run_costs.json"
GIGABYTE = 1e9
MEBIBYTE = 1 << 20  # Snakemake's unit of memory


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """Return `core_minutes` of all jobs, `gigabytes` of the largest and the number of `jobs`, by notebook.

    `folder` is `runs/<profile>`. Memory is the proportional set size of a job's processes. Of a job that was
    stopped and started again the last part counts alone. Raises FileNotFoundError where no job was measured.
    """
    jobs = []
    for file in sorted((folder / "benchmarks").glob("*.tsv")):
        job = pd.read_csv(file, sep="\t", nrows=1, na_values="NA")
        jobs.append(job.assign(notebook=file.stem.partition("@")[0]))
    if not jobs:
        raise FileNotFoundError(
            f"no measured job in {folder}: run `sinkprune reproduce --profile {folder.name}` first"
        )
    by_notebook = pd.concat(jobs).groupby("notebook")
    costs = pd.DataFrame(
        {
            "core_minutes": by_notebook.cpu_time.sum() / 60,
            "gigabytes": by_notebook.max_pss.max() * MEBIBYTE / GIGABYTE,
            "jobs": by_notebook.size(),
        }
    )
    return costs.astype({"jobs": object}).to_dict("index")


def by_profile() -> dict[str, dict]:
    """Return what docs/run_costs.json has, by profile: `costs` by notebook, `platform` and `torch`."""
    file = project_root() / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def table() -> str:
    """Return a table of all profiles that were measured, for docs/performance.md."""
    rows = []
    for profile, entry in by_profile().items():
        for name, cost in entry["costs"].items():
            where = f"{entry['platform']}, torch {entry['torch']}"
            jobs = str(cost["jobs"])
            numbers = [f"{cost['core_minutes']:.1f}", f"{cost['gigabytes']:.1f} GB"]
            rows.append([profile, name, jobs, *numbers, where])
    heads = ["profile", "notebook", "jobs", "core-minutes", "memory of the largest job", "where"]
    return markdown_table(heads, rows)


def with_costs(profile: str, costs: Costs) -> dict[str, dict]:
    """Return the content of docs/run_costs.json with what notebooks of a profile took on this machine.

    Profile quick takes the dtype of the CPU, and has an entry of its own for CPUs with units for bfloat16.
    """
    entries = by_profile()
    name = profile
    if profile == "quick" and choose_dtype("auto", "cpu") == torch.bfloat16:
        name = "quick in bfloat16"
    here = environment()
    vectors = torch.backends.cpu.get_cpu_capability()  # AVX2, AVX512: they decide the time
    entry = {"platform": f"{here['platform']}, {vectors}", "torch": here["versions"]["torch"]}
    entry["costs"] = {**entries.get(name, {}).get("costs", {}), **costs}
    return {**entries, name: entry}

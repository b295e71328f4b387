"""What the notebooks of a profile took: docs/run_costs.json.

`sinkprune publish` takes it from what Snakemake measured of the jobs of the profile that it publishes: long
jobs, which it looks at every half minute. Those of profile quick are measured by
`pytest tests/benchmarks/test_notebook_memory.py --record`.
"""

import json
from pathlib import Path

import pandas as pd
import torch

from sinkprune_companion import project_root
from sinkprune_companion.numbers import markdown_table
from sinkprune_companion.run.provenance import environment
from sinkprune_core.models.devices import choose_dtype

FILE = "docs/run_costs.json"


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
    jobs = [pd.read_csv(file, sep="\t", nrows=1) for file in files]
    names = [file.stem.partition("@")[0] for file in files]
    by_notebook = pd.concat(jobs, keys=names).groupby(level=0)
    costs = {
        "core_minutes": by_notebook.cpu_time.sum() / 60,
        "gigabytes": by_notebook.max_pss.max() * 2**20 / 1e9,  # of mebibytes
        "jobs": by_notebook.size().astype(object),
    }
    return pd.DataFrame(costs).to_dict("index")


def by_profile() -> dict[str, dict]:
    """Return what docs/run_costs.json has, by profile: `costs` by notebook, `platform` and `torch`."""
    file = project_root() / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def table() -> str:
    """Return a table of all profiles that were measured, for docs/performance.md."""
    rows = []
    for profile, entry in by_profile().items():
        where = f"{entry['platform']}, torch {entry['torch']}"
        for name, cost in entry["costs"].items():
            numbers = [cost["jobs"], f"{cost['core_minutes']:.1f}", f"{cost['gigabytes']:.1f} GB"]
            rows.append([profile, name, *numbers, where])
    heads = ["profile", "notebook", "jobs", "core-minutes", "memory of the largest job", "where"]
    return markdown_table(heads, rows)


def with_costs(profile: str, costs: dict[str, dict[str, float]]) -> dict[str, dict]:
    """Return the content of docs/run_costs.json with what notebooks of a profile took on this machine.

    Profile quick takes the dtype of the CPU, and has an entry of its own for CPUs with units for bfloat16.
    """
    if profile == "quick" and choose_dtype("auto", "cpu") == torch.bfloat16:
        profile = "quick in bfloat16"
    entries = by_profile()
    here = environment()
    vectors = torch.backends.cpu.get_cpu_capability()  # AVX2, AVX512: they decide the time
    entry = {
        "platform": f"{here['platform']}, {vectors}",
        "torch": here["versions"]["torch"],
        "costs": entries.get(profile, {}).get("costs", {}) | costs,
    }
    return {**entries, profile: entry}

"""What the notebooks of a profile took: docs/run_costs.json, and the rows of the notebooks' heads.

`sinkprune publish` takes it from what Snakemake measured of the jobs of the profile that it publishes: long
jobs, which it looks at every half minute. Those of profile quick are measured by
`pytest tests/benchmarks/test_notebook_memory.py --record`.
"""

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from sinkprune_core.files import project_root, write_json
from sinkprune_core.models.devices import choose_dtype
from sinkprune_core.provenance import environment
from sinkprune_core.tables import markdown_table

Costs = Mapping[str, Mapping[str, float]]  # of a profile, by notebook
GIGABYTE = 1e9
MEBIBYTE = 1 << 20  # Snakemake's unit of memory
MOST_EXACT = 1.5  # core-minutes: below, heads say half minutes
QUICK_IN_BFLOAT16 = "quick in bfloat16"  # what quick takes on a CPU with units for it, several times faster


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """Return `core_minutes` of all jobs, `gigabytes` of the largest and the number of `jobs`, by notebook.

    `folder` is `runs/<profile>`. Memory is the proportional set size of a job's processes. Of a job that was
    stopped and started again the last part counts alone. Raises FileNotFoundError where no job was measured.
    """
    costs = {}
    for file in sorted((folder / "benchmarks").glob("*.tsv")):
        with file.open(newline="", encoding="utf-8") as stream:
            (row,) = csv.DictReader(stream, delimiter="\t")
        cost = costs.setdefault(
            file.stem.partition("@")[0], {"core_minutes": 0.0, "gigabytes": 0.0, "jobs": 0}
        )
        cost["core_minutes"] += float(row["cpu_time"]) / 60
        cost["gigabytes"] = max(cost["gigabytes"], float(row["max_pss"]) * MEBIBYTE / GIGABYTE)
        cost["jobs"] += 1
    if not costs:
        raise FileNotFoundError(
            f"no measured job in {folder}: run `sinkprune reproduce --profile {folder.name}` first"
        )
    return costs


def kept() -> dict[str, dict]:
    """Return what docs/run_costs.json has, by profile: `costs` by notebook, `platform` and `torch`."""
    file = project_root() / "docs" / "run_costs.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def head_row(profile: str, cost: Mapping[str, float], ending: str = "") -> str:
    """Return a notebook's row of its table of profiles; `ending` follows the time."""
    name = "quick, the defaults" if profile == "quick" else profile
    job = " a job" if cost["jobs"] > 1 else ""
    return f"| {name} | {time_text(cost)}{ending} | {cost['gigabytes']:.1f} GB{job} |"


def time_text(cost: Mapping[str, float]) -> str:
    """Return the time of a notebook in words."""
    exactly = cost["core_minutes"]
    minutes = round(exactly) if exactly > MOST_EXACT else round(2 * exactly) / 2
    words = {0.0: "under half a core-minute", 0.5: "half a core-minute", 1.0: "a core-minute"}
    return words.get(minutes, f"{minutes:g} core-minutes")


def table() -> str:
    """Return a table of all profiles that were measured, for docs/performance.md."""
    rows = []
    for profile, entry in kept().items():
        for name, cost in entry["costs"].items():
            where = f"{entry['platform']}, torch {entry['torch']}"
            jobs = str(cost["jobs"])
            rows.append([profile, name, jobs, time_text(cost), f"{cost['gigabytes']:.1f} GB", where])
    return markdown_table(["profile", "notebook", "jobs", "time", "memory of the largest job", "where"], rows)


def with_rows(text: str, profile: str, cost: Mapping[str, float]) -> str:
    """Return the text of a notebook's first cell, or its source, with the row of `profile` written anew.

    What the row says of the weights stays. Raises ValueError for a text without such a row.
    """
    pattern = re.compile(
        rf"\| {profile}(?:, the defaults)? \| (?:[^|]*?)(?P<ending>, random weights)? \| [^|]*\|"
    )
    found = pattern.search(text)
    if found is None:
        raise ValueError(f"the head has no row of profile {profile}: add `| {profile} | – | – |`")
    return text[: found.start()] + head_row(profile, cost, found["ending"] or "") + text[found.end() :]


def name_here(profile: str) -> str:
    """Return the name under which this machine's costs of a profile are kept: quick takes the CPU's dtype."""
    if profile == "quick" and choose_dtype("auto", "cpu") == torch.bfloat16:
        return QUICK_IN_BFLOAT16
    return profile


def put(profile: str, costs: Costs) -> list[Path]:
    """Keep what notebooks of a profile took, and write it into their heads; return the files written.

    Those of profile quick are kept by dtype (`name_here`).
    """
    import nbformat

    root = project_root()
    before = kept()
    profile = name_here(profile)
    found = environment()
    vectors = torch.backends.cpu.get_cpu_capability()  # AVX2, AVX512: they decide the time
    entry = {"platform": f"{found['platform']}, {vectors}", "torch": found["versions"]["torch"]}
    entry["costs"] = {**before.get(profile, {}).get("costs", {}), **costs}
    written = [root / "docs" / "run_costs.json"]
    write_json(written[0], {**before, profile: entry})
    for name, cost in costs.items():
        source = root / "notebooks" / f"{name}.py"
        source.write_text(with_rows(source.read_text(encoding="utf-8"), profile, cost), encoding="utf-8")
        file = source.with_suffix(".ipynb")
        notebook = nbformat.read(file, 4)
        notebook.cells[0].source = with_rows(notebook.cells[0].source, profile, cost)
        nbformat.write(notebook, file)
        written += [source, file]
    return written

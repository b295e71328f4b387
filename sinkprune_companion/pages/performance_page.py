"""docs/performance.md: what a checkpoint of LLaDA-8B's size takes, and every benchmark, from
docs/performance.json.
"""

import json
from pathlib import Path

from sinkprune_companion.run import run_costs
from sinkprune_core.calibration.dense_statistics import WAITING_BYTES, WAITING_SHARE
from sinkprune_core.calibration.token_weights import EXCLUDE
from sinkprune_core.files import project_root, write_json
from sinkprune_core.tables import markdown_table

LARGE = "large"  # the entry of docs/performance.json that prune_large.py writes
RATIO_COLUMNS = ["what", "compared with", "here", "ratio", "goal", "reached"]


def _file() -> Path:
    return project_root() / "docs" / "performance.json"


def performance() -> dict[str, dict]:
    """Return the checkpoint of `LARGE`, and every benchmark, by what was measured."""
    return json.loads(_file().read_text(encoding="utf-8"))


def note_performance(what: str, entry: dict) -> None:
    """Put one measurement into docs/performance.json, in the place of an older one of the same name."""
    write_json(_file(), {**performance(), what: entry})


def performance_page() -> str:
    """Return docs/performance.md."""
    measured = performance()
    found = measured.pop(LARGE)
    rows = [
        ["from command to saved model", f"{found['seconds'] / 60:.1f} minutes", "90 minutes"],
        ["peak resident memory", f"{found['peak_bytes'] / 2**30:.2f} GiB", "6 GiB"],
    ]
    return f"""# How fast, and in how much memory

Written by `python -m sinkprune_companion.pages.pages` from [performance.json](performance.json).

## A model that does not fit

A random checkpoint in LLaDA-8B's public format and size ({found["bytes"] / 1e9:.2f} GB, bfloat16,
{found["blocks"]} blocks), streamed from disk on {found["threads"]} cores without a GPU,
{found["memory_bytes"] / 2**30:.0f} GiB of memory ({found["platform"]}, torch {found["versions"]["torch"]}):

```bash
python tests/benchmarks/prune_large.py FOLDER
```

It writes the checkpoint and calls `sinkprune prune --preset {found["preset"]} --stream` with
{found["sequences"]} sequences of {found["length"]} tokens at {found["levels"]} noise levels.

{markdown_table(["", "measured", "goal"], rows)}

The weights are random: nothing is said about a model's quality.

## The notebooks

Core-minutes of all jobs of a notebook, each on one thread, and memory of the largest, from
[run_costs.json](run_costs.json): two cores need a little more than half the minutes. Profile quick takes
the dtype that suits the CPU: bfloat16 where it has units for it, else float32.

{run_costs.table()}
{_benchmarks(measured)}"""


def _benchmarks(measured: dict[str, dict]) -> str:
    """Return the section on benchmarks; empty where none was recorded."""
    if not measured:
        return ""
    rows = [_row(what, found) for what, found in measured.items()]
    hosts = sorted({_host(found) for found in measured.values()})
    whole_sequence = [f"`{name}`" for name, choice in EXCLUDE.items() if not choice.by_row]
    return f"""
## Against other ways to do the same

`make benchmark` measures every row in turns in one run, so the ratio is what counts and not the seconds, and
writes this table. Measured on {", ".join(hosts)}.{_load(measured)} What
*straightforward* code does, after published code, is written out in
[test_pruning_cost.py](../tests/benchmarks/test_pruning_cost.py); masks agree with its masks but for rounding.

{markdown_table(RATIO_COLUMNS, rows)}

Rows in tokens per second compare with the matrix products alone, of the same shapes: the most that any code
could reach, one thread, with the output head at the masks for scoring, the products of queries and keys once
more where sinks are left out, and X^T X in float32 for Gram statistics
([test_throughput.py](../tests/benchmarks/test_throughput.py)). A plain forward's ratio is its share of that;
the ratios of other work are their own shares over the plain forward's.

Why statistics in bfloat16 miss the goal with AMX and reach it with AVX-512: what a linear receives is read
once more, turned into float32, squared and summed, which shows more the faster the products are. Where sinks
are left out, inputs wait in memory until a forward has shown how much their tokens weigh, and its attention
maps go through a softmax once more, which the limit does not count. Gram statistics multiply every input by
the weights of its tokens first, and mirror each matrix at the end.

Why calibration stays there: for identical masks both sides run the linears in the same precision, once here
and twice there with the output head. What attention and statistics cost more there, tracking and the rest of
a forward take back here. Once is enough as long as {WAITING_BYTES >> 30} GiB, or {WAITING_SHARE:.0%} of
a GPU's memory, hold the inputs of one state, or of all states of a sequence where choices of tokens need all
of them ({", ".join(whole_sequence)}); beyond that it is twice here too.
"""


def _row(what: str, found: dict) -> list[str]:
    """Return one benchmark's row of the table."""
    amounts = []
    for name, amount in zip(found["names"], (found["before"], found["after"]), strict=True):
        amounts.append("–" if amount is None else f"{name} {amount:.3g} {found['unit']}")
    reached = "yes" if found["reached"] else "**no**"
    return [what, *amounts, f"{found['value']:.2f}", found["goal"], reached]


def _host(found: dict) -> str:
    """Return where a benchmark ran."""
    threads = f"{found['threads']} thread" if found["threads"] == 1 else f"{found['threads']} threads"
    return f"{threads} ({found['platform']}, torch {found['versions']['torch']})"


def _load(measured: dict[str, dict]) -> str:
    """Return what the load of the machine was where it was noted; empty where it was not."""
    loads = [found["load"] for found in measured.values() if found.get("load")]
    if not loads:
        return ""
    return f"""
Rows with a load in performance.json ran while that of the machine was up to {max(loads):g}: above the number
of its cores, other work took turns with them and emptied their caches."""

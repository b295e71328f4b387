"""What pages are written from: results of a run, and tables that lie in the repository."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
import yaml

from sinkprune.files import write_json
from sinkprune.models import embedded
from sinkprune.models.catalog import MODELS
from sinkprune.models.devices import choose_dtype
from sinkprune.models.meta_model import meta_model
from sinkprune.models.weight_files import read_json
from sinkprune.runs.memory_and_disk import Needs, pruning_needs
from sinkprune_companion import project_root
from sinkprune_companion.experiments import paper_protocol
from sinkprune_companion.experiments.pruning_grid import seen_levels
from sinkprune_companion.experiments.random_null import paired_counts
from sinkprune_companion.ledger.results import results_of
from sinkprune_companion.run.profiles import COSTS
from sinkprune_companion.run.records import environment
from sinkprune_companion.training.settings import EXPORTED_LOG, SETTINGS, rows_of
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.pruning.recipe import Recipe

LARGE = "large"  # pruning a checkpoint of LLaDA-8B's size
LARGE_DIAGNOSIS = "large diagnosis"  # the same checkpoint diagnosed
ADAPTERS = {"diffusion": "smol-dlm", "autoregressive": "smol-ar-adapted"}  # of the published pair


class ByPrompt(NamedTuple):
    """How much more the sinks of a DLM move than those of its AR twin, over prompts."""

    median: float  # of the difference
    above: int  # prompts in which the DLM's move more
    below: int  # prompts in which the AR model's do
    all: int  # prompts
    p: float  # of a two-sided sign test


class ProtocolSizes(NamedTuple):
    """How much text the paper's protocol takes here."""

    tokens: int  # of calibration text, a sequence counted once for every noise level that a recipe sees it at
    length: int  # tokens of a sequence
    scored: int  # sequences that are scored
    sequences: dict[str, int]  # of calibration text, by preset
    levels: dict[str, int]  # noise levels at which a preset sees each of them


def by_prompt(table: str, condition: str = "main", reading: str = "sum_so_far") -> ByPrompt:
    """Return how the sinks of the two models move prompt by prompt: DLM − AR, in squared positions.

    `table` is a CSV file in `figures`, with a row for each model, prompt, condition and reading.
    """
    frame = pd.read_csv(project_root() / "figures" / table)
    chosen = frame[(frame.condition == condition) & (frame.reading == reading)]
    found = paired_counts(chosen, "temporal_variance")
    counts = (found[name] for name in ("larger", "smaller", "prompts"))
    return ByPrompt(found["median"], *counts, found["sign test"])


def published_rows(table: str, **values: object) -> list[dict[str, object]]:
    """Return the rows of a published table, a CSV file in `figures`, with these values in their columns."""
    frame = pd.read_csv(project_root() / "figures" / table)
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame.to_dict("records")


def calibration_tokens(figure: str) -> int:
    """Return the tokens that recipes were calibrated on in the run that drew a published figure."""
    given = read_json(project_root() / "figures" / f"{figure}.json")["parameters"]
    return given["calibration"] * given["noise_levels"] * given["length"]


def protocol_sizes(figure: str = "03_leaving_sinks_out/protocol_50") -> ProtocolSizes:
    """Return how much text the paper's protocol took in the run that drew a published figure."""
    given = read_json(project_root() / "figures" / f"{figure}.json")["parameters"]
    tokens = given["protocol_tokens"]
    rows = paper_protocol.protocol_rows(paper_protocol.RECIPES, 0.5, given["protocol_draws"], tokens)
    return ProtocolSizes(
        tokens,
        paper_protocol.LENGTH,
        given["protocol_sequences"],
        {row.variant: row.sequences for row in rows},
        {row.variant: seen_levels(row.recipe) for row in rows},
    )


def filled_right(level: float) -> dict[str, float]:
    """Return the share of masked tokens that the DLM fills right, by kind of text, at a share of masks."""
    filling = read_json(embedded.ADAPTERS[ADAPTERS["diffusion"]] / "measures.json")["filling"]
    rows = {text: row for text, levels in filling.items() for row in levels if row["masked"] == level}
    return {text: row["dlm"]["correct"]["value"] for text, row in rows.items()}


def figures_by_finding() -> dict[str, str]:
    """Return the figure that shows a finding, as a path from the repository's root, by the finding's name."""
    shown = yaml.safe_load((Path(__file__).parent / "figures.yml").read_text(encoding="utf-8"))
    named = [(figure, finding) for figure, findings in shown.items() for finding in findings]
    return {f"{figure.partition('/')[0]}/{finding}": f"figures/{figure}.png" for figure, finding in named}


def pairs() -> list[dict]:
    """Return the published pair and those of other trainings: `name`, `f`, `settings` and `logs` by kind."""
    figures = project_root() / "figures"
    folders = {kind: embedded.ADAPTERS[name] for kind, name in ADAPTERS.items()}
    first = {"name": "published", "f": results_of(figures).f}
    first["settings"] = {kind: read_json(folder / SETTINGS) for kind, folder in folders.items()}
    first["logs"] = {kind: rows_of(folder / EXPORTED_LOG)[-1] for kind, folder in folders.items()}
    files = sorted((figures / "trainings").glob("*/pair.json"))
    later = [{"name": file.parent.name, "f": results_of(file.parent).f, **read_json(file)} for file in files]
    return [first, *later]


# the paper's models


def plan(model: str, recipe: Recipe, sequences: int, length: int, streamed: bool = False) -> Needs:
    """Return what pruning a model of the table takes of memory and disk, whole or streamed from disk."""
    calibration = Calibration(torch.zeros(sequences, length, dtype=torch.long))
    lm = replace(meta_model(MODELS[model]), will_be_streamed=streamed)
    return pruning_needs(lm, recipe, calibration)


# benchmarks, and what the notebooks of a profile took


def performance() -> dict[str, dict]:
    """Return every benchmark, LARGE among them, by what was measured."""
    return read_json(project_root() / "docs" / "performance.json")


def first_run_minutes(processor: str) -> float:
    """Return what `make reproduce` takes in a fresh clone, with all that it installs, in minutes."""
    install, reproduce, _ = performance()["commands"]["steps"]
    return (install[processor] + reproduce[processor]) / 60


def note_performance(what: str, entry: dict) -> None:
    """Put one measurement into docs/performance.json, in the place of an older one of the same name."""
    write_json(project_root() / "docs" / "performance.json", {**performance(), what: entry})


def precision() -> list[dict]:
    """Return what other dtypes change, a row per model and dtype."""
    return pd.read_csv(project_root() / "docs" / "precision.csv").to_dict("records")


def architectures() -> dict[str, dict]:
    """Return what `tools/architectures.py` saw of tiny models, by the name of their architecture."""
    return read_json(project_root() / "docs" / "architectures.json")


def measured_costs(folder: Path) -> dict[str, dict[str, float]]:
    """Return `core_minutes` of all jobs, `gigabytes` of the largest and the number of `jobs`, by notebook.

    Snakemake measured them in `folder`, `runs/<profile>`: memory is proportional set size, and of a job that
    was started again the last part counts alone. Raises FileNotFoundError where no job was measured.
    """
    files = sorted((folder / "benchmarks").glob("*.tsv"))
    if not files:
        raise FileNotFoundError(f"no job in {folder}: `sinkprune reproduce --profile {folder.name}` runs it")

    jobs = pd.concat(pd.read_csv(file, sep="\t", nrows=1) for file in files)
    jobs["core_minutes"] = jobs[["s", "cpu_time"]].max(axis=1) / 60  # cpu_time lags by up to 30 s
    by_notebook = jobs.groupby([file.stem.partition("@")[0] for file in files])

    costs = {
        "core_minutes": by_notebook.core_minutes.sum(),
        "gigabytes": by_notebook.max_pss.max() * 2**20 / 1e9,  # of mebibytes
        "jobs": by_notebook.size().astype(object),
    }

    return pd.DataFrame(costs).to_dict("index")


def with_costs(profile: str, costs: dict[str, dict[str, float]]) -> dict[str, dict]:
    """Return the content of COSTS with what notebooks of a profile took on this machine.

    Profile quick takes the dtype of the CPU, and has an entry of its own for CPUs with units for bfloat16.
    """
    if profile == "quick" and choose_dtype("auto", "cpu") == torch.bfloat16:
        profile = "quick in bfloat16"

    entries = run_costs()
    vectors = torch.backends.cpu.get_cpu_capability()  # AVX2, AVX512: they decide the time

    entries[profile] = {
        "platform": f"{environment()['platform']}, {vectors}",
        "torch": environment()["versions"]["torch"],
        "costs": entries.get(profile, {}).get("costs", {}) | costs,
    }
    return entries


def run_costs() -> dict[str, dict]:
    """Return the content of COSTS: what notebooks took, by profile and notebook."""
    file = project_root() / COSTS
    return read_json(file) if file.exists() else {}


def experiment_costs() -> dict[str, dict]:
    """Return what experiments took that were run by themselves."""
    return read_json(project_root() / "docs" / "experiment_costs.json")

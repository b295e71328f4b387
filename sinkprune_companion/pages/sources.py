"""What pages are written from: results of a run, and tables that lie in the repository."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
import yaml

from sinkprune.evaluation import verdict_rule
from sinkprune.evaluation.intervals import Estimate
from sinkprune.files import write_json
from sinkprune.models import embedded
from sinkprune.models.catalog import MODELS
from sinkprune.models.devices import choose_dtype
from sinkprune.models.meta_model import meta_model
from sinkprune.models.weight_files import read_json
from sinkprune.runs.memory_and_disk import Needs, pruning_needs
from sinkprune_companion import project_root
from sinkprune_companion.experiments import paper_protocol
from sinkprune_companion.experiments.kinds_of_text import finding_on
from sinkprune_companion.experiments.pruning_grid import seen_levels
from sinkprune_companion.experiments.random_null import paired_counts
from sinkprune_companion.ledger import claims, draw_terms, others
from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.run.profiles import COSTS, PUBLISHED
from sinkprune_companion.run.records import Run, environment
from sinkprune_companion.run.texts import DOMAINS
from sinkprune_companion.training.settings import EXPORTED_LOG, SETTINGS, rows_of
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.pruning.recipe import Recipe

LARGE = "large"  # pruning a checkpoint of LLaDA-8B's size
LARGE_DIAGNOSIS = "large diagnosis"  # the same checkpoint diagnosed
ADAPTERS = {"diffusion": "smol-dlm", "autoregressive": "smol-ar-adapted"}  # of the published pair


class PresumedVerdictError(ValueError):
    """A sentence presumes a verdict that a claim does not have."""


class RowByKind(NamedTuple):
    """A row of the ledger with its difference on every kind of text apart, as DOMAINS has them."""

    claim: Claim
    mean: Estimate  # over the kinds
    natural: Estimate
    samples: Estimate
    documentation: Estimate


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


@dataclass(frozen=True)
class Results:
    """The claims of the ledger, and the estimates of a run that decide them."""

    ledger: list[Claim]
    estimates: dict[str, Estimate]  # by notebook/name, as findings are kept; those of runs by others, too

    @cached_property
    def table(self) -> pd.DataFrame:
        """The claims table, by the claim's id."""
        return claims.verdicts(self.ledger, self.estimates)

    @cached_property
    def verdict(self) -> dict[str, str]:
        """Verdicts by the claim's id."""
        return self.table.verdict.to_dict()

    @cached_property
    def alone(self) -> dict[str, str]:
        """Verdicts by the claim's id, each without the conditions beneath it."""
        return self.table.alone.to_dict()

    def p_corrected(self, claim: str) -> float:
        """Return the p-value that a claim's verdict takes: looks and the family's rows are counted."""
        return float(self.table.p_holm[claim])

    @cached_property
    def estimate(self) -> dict[str, Estimate]:
        """Estimates by the id of the claim that they decide."""
        known = self.estimates
        return {claim.id: known[claim.finding] for claim in self.ledger if claim.finding in known}

    @cached_property
    def f(self) -> dict[str, Estimate]:
        """Estimates by the notebook's number and their name, e.g. `03/paper_minus_wanda`."""
        return {re.sub(r"^(\d\d)_\w+/", r"\1/", name): one for name, one in self.estimates.items()}

    @cached_property
    def _effects(self) -> dict[tuple[float, float, float], str]:
        """What the ledger says of differences of losses, by the value and the ends of the interval.

        Where several rows are about one number the first one counts, which stands above its controls.
        """
        known = {}
        for claim in self.ledger:
            estimate = self.estimate.get(claim.id)
            if estimate is not None and claim.against == 0:
                effect = verdict_rule.on_a_loss(self.alone[claim.id], claim.side)
                known.setdefault((estimate.value, estimate.low, estimate.high), effect)
        return known

    def on_losses(self, differences: Collection[Estimate]) -> list[str]:
        """Return HELPS, HURTS or another verdict on each difference of losses, as pictures show them.

        A difference that a row of the ledger is about, or its reverse, has that row's verdict. Of the others
        p is corrected over all that are given (Holm).
        """
        reverse = {verdict_rule.HELPS: verdict_rule.HURTS, verdict_rule.HURTS: verdict_rule.HELPS}
        effects = []

        for each, alone in zip(differences, verdict_rule.verdicts_on_losses(differences), strict=True):
            effect = self._effects.get((each.value, each.low, each.high))
            if effect is None:
                turned = self._effects.get((-each.value, -each.high, -each.low))
                effect = reverse.get(turned, turned)
            effects.append(effect or alone)

        return effects

    @cached_property
    def _with_draws_counted(self) -> dict[str, str]:
        """Verdicts by the claim's id where calibration draws that were seen to add nothing count in full."""
        widened = {name: draw_terms.counted(one) for name, one in self.estimates.items()}
        return claims.verdicts(self.ledger, widened).verdict.to_dict()

    def if_draws_counted(self, claim: str) -> str:
        """Return a claim's verdict if calibration draws that were seen to add nothing counted in full."""
        return self._with_draws_counted[claim]

    @cached_property
    def unseen_draws(self) -> list[Claim]:
        """Rows of the ledger whose calibration draws were seen to add nothing to the error."""
        return [claim for claim in self.ledger if draw_terms.is_unseen(self.estimate.get(claim.id))]

    @cached_property
    def unseen_sequences(self) -> list[Claim]:
        """Rows of the ledger whose scored sequences were seen to add nothing to the error."""
        rows = [(claim, self.estimate.get(claim.id)) for claim in self.ledger]
        return [claim for claim, found in rows if found is not None and found.error_sequences == 0]

    @cached_property
    def by_kind(self) -> list["RowByKind"]:
        """Rows of the ledger whose difference was found on every kind of text apart, a finding once."""
        rows = {}
        for claim in self.ledger:
            finding = claim.finding or ""
            apart = [self.estimates.get(finding_on(finding, kind)) for kind in DOMAINS]
            if finding in self.estimates and finding not in rows and None not in apart:
                rows[finding] = RowByKind(claim, self.estimates[finding], *apart)
        return list(rows.values())

    def controls_of(self, claim: Claim) -> list[Claim]:
        """Return the controls beneath a claim, and those beneath its controls, as the ledger has them."""
        return claims.controls_of(claim, self.ledger)

    def holds(self, claim: str, *presumed: str) -> str:
        """Return nothing; raise PresumedVerdictError unless a claim has one of the presumed verdicts."""
        present = self.verdict.get(claim, "no claim of the ledger")
        if present not in presumed:
            raise PresumedVerdictError(
                f"{claim!r} is presumed to be {' or '.join(presumed)} and is now {present}: "
                "write the sentence anew"
            )
        return ""


def results_of(folder: Path) -> Results:
    """Return the results of a run, of `runs/<profile>` or of `figures`, with what others measured."""
    return Results(claims.ledger(), others.findings() | claims.findings(folder))


def results_for(run: Run) -> Results:
    """Return what titles and tables of one notebook take: its own findings, as far as its run has them.

    In a published profile the published findings of all other notebooks stand beside them, which are declared
    inputs of its job. What this run has of other notebooks stays out: it would depend on which ran first.
    """
    known = others.findings()
    if run.profile in PUBLISHED:
        published_estimates = claims.findings(project_root() / "figures")
        prefix = f"{run.notebook}/"
        known |= {name: one for name, one in published_estimates.items() if not name.startswith(prefix)}

    known |= claims.findings_in(claims.findings_file(run.folder, run.notebook))
    return Results(claims.ledger(), known)


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

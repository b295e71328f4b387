"""Other trainings of the embedded pair: what a notebook's numbers are worth on pairs of other seeds.

    python -m sinkprune_companion.experiments.trainings seed-1 DIFFUSION TWIN

takes two exported adapters, measures claim 1 and the headline rows of pruning on that pair in the sizes of
profile hour, and keeps findings, records and the trainings' settings below `figures/trainings/seed-1`.
Weights are not kept: docs/trainings.md has the commands that train them again.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sinkprune_companion.experiments import more_text
from sinkprune_companion.experiments.headline_rows import NOTEBOOK as PRUNING
from sinkprune_companion.experiments.headline_rows import headline_scores, sizes_of
from sinkprune_companion.ledger import claims
from sinkprune_companion.run import record_archive
from sinkprune_companion.run.records import Run
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.files import PACKAGE, project_root, write_json
from sinkprune_core.models.weight_files import read_json

PROFILE = "hour"  # whose sizes are taken
SINKS = "01_sink_variance"
DRAWS = 2  # calibration draws of a pair
ADAPTERS = {"diffusion": "smol-dlm", "autoregressive": "smol-ar-adapted"}  # the published pair
PUBLISHED = "published"
PAIR = "pair.json"  # settings and last row of the log of both adapters


@dataclass(frozen=True)
class Pair:
    """A trained diffusion model and its twin, and what was found on them."""

    name: str
    settings: Mapping[str, dict]  # of both trainings, by kind
    logs: Mapping[str, dict]  # the last row of both logs, by kind
    found: Mapping[str, Estimate]  # by notebook/name


def kept_folder() -> Path:
    """Return where the other pairs' findings lie."""
    return project_root() / "figures" / "trainings"


def pairs() -> list[Pair]:
    """Return the published pair and all others that the project keeps, in order of their names."""
    adapters = {kind: PACKAGE / "data" / "adapters" / name for kind, name in ADAPTERS.items()}
    published = {}
    for folder in published_folders():
        published |= claims.findings(folder)
    others = [
        _pair(file.parent.name, read_json(file), claims.findings(file.parent))
        for file in sorted(kept_folder().glob(f"*/{PAIR}"))
    ]
    return [_pair(PUBLISHED, _about(adapters), published), *others]


def published_folders() -> list[Path]:
    """Return where the published pair's findings lie; what is in the second goes before the first.

    The second has the rows of pruning in the sizes of PROFILE, in which the other pairs are measured.
    """
    return [project_root() / "figures", more_text.kept_folder() / PROFILE]


def _pair(name: str, about: Mapping[str, Mapping[str, dict]], found: Mapping[str, Estimate]) -> Pair:
    return Pair(name, about["settings"], about["logs"], found)


def _about(adapters: Mapping[str, Path]) -> dict[str, dict]:
    """Return settings and last log row of exported adapters, each by kind."""
    settings = {kind: read_json(folder / "training.json") for kind, folder in adapters.items()}
    logs = {}
    for kind, folder in adapters.items():
        rows = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
        logs[kind] = json.loads(rows[-1])
    return {"settings": settings, "logs": logs}


def measure(name: str, diffusion: Path, autoregressive: Path) -> Path:
    """Measure a pair of exported adapters and keep what was found; return the folder that has it.

    What was measured before is read from `runs/<name>`. Raises ValueError for adapters of another kind.
    """
    adapters = {"diffusion": diffusion, "autoregressive": autoregressive}
    about = _about(adapters)
    for kind, settings in about["settings"].items():
        if settings["kind"] != kind:
            raise ValueError(f"{adapters[kind]} is of kind {settings['kind']!r}: give one of kind {kind!r}")
    sizes = sizes_of(PROFILE)
    models = {kind: _merged(name, kind, folder) for kind, folder in adapters.items()}
    _measure_pruning(name, models["diffusion"], sizes[PRUNING])
    _measure_sinks(name, models, sizes[SINKS])
    return _keep(name, about)


def _merged(name: str, kind: str, adapter: Path) -> str:
    """Merge an adapter into its base and save the model; return its folder relative to the project."""
    from sinkprune_core.models.catalog import MODELS
    from sinkprune_core.models.devices import choose_dtype
    from sinkprune_core.models.loading import with_adapter

    place = f"runs/{name}/models/{kind}"
    if not (project_root() / place).exists():
        dtype = choose_dtype("bfloat16", "cpu")
        with_adapter(MODELS[ADAPTERS[kind]], adapter, dtype).save(project_root() / place)
    return place


def _measure_sinks(name: str, models: Mapping[str, str], size: dict) -> None:
    """Run notebook 01 on a pair, in its main condition and behind a special first token."""
    from sinkprune_companion.run.execute import execute

    only_main = {key: size[key][:1] for key in ("texts", "samplers", "lengths")}
    chosen = {"model": models["diffusion"], "twin": models["autoregressive"], "profile": name}
    notebook = project_root() / "runs" / name / "notebooks" / f"{SINKS}.ipynb"
    notebook.parent.mkdir(parents=True, exist_ok=True)
    execute(project_root() / "notebooks" / f"{SINKS}.py", notebook, {**size, **only_main, **chosen})


def _measure_pruning(name: str, model: str, size: dict) -> None:
    """Measure the headline rows of notebook 03 on one model, and write their findings."""
    from sinkprune_companion.experiments.pruning_findings import likelihood_findings
    from sinkprune_companion.experiments.pruning_grid import SPARSITY
    from sinkprune_core.models.loading import load

    lm = load(project_root() / model, size["dtype"])
    run = Run(PRUNING, name, {"model": model, "seeds": DRAWS, "calibration": size["calibration"]})
    without = ("random",)  # no row of the ledger needs it here
    scores = headline_scores(run, lm, size, range(DRAWS), without, with_curve=False)
    run.find(likelihood_findings(scores, [SPARSITY]))


def _keep(name: str, about: dict) -> Path:
    """Put what was found on a pair where the project keeps it; return the folder."""
    target = kept_folder() / name
    run = project_root() / "runs" / name
    (target / "findings").mkdir(parents=True, exist_ok=True)
    for notebook in (SINKS, PRUNING):
        shutil.copyfile(run / "findings" / f"{notebook}.json", target / "findings" / f"{notebook}.json")
    for suffix in ("csv", "json"):
        measured = run / "figures" / SINKS / f"readings.{suffix}"
        shutil.copyfile(measured, target / f"sinks.{suffix}")
    write_json(target / PAIR, about)
    record_archive.pack(name)
    return target


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="of the pair, for example seed-1")
    parser.add_argument("diffusion", type=Path, help="folder that `sinkprune train --export` wrote")
    parser.add_argument("autoregressive", type=Path, help="the same of kind autoregressive")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    print(measure(given.name, given.diffusion, given.autoregressive).relative_to(project_root()))

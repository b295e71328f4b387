"""Settings in which notebook 11 repeats the headline rows of notebook 03, and models on record alone."""

import json
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.run import profiles
from sinkprune_companion.run.records import Run
from sinkprune_core.pruning.report import Report

PUBLISHED = "published"  # the pair that ships


class Setting(NamedTuple):
    """One way to measure the headline rows."""

    pair: str  # which training of the model: PUBLISHED, a folder or the name of an archive
    calibration: int  # sequences of calibration text
    own_noise: bool  # whether every calibration draw has noise of its own; else one for all
    length: int  # tokens per sequence
    seeds: int  # calibration draws
    other_draws: int = 0  # the same at other sparsities than that of verdicts; 0: not measured there
    archive: str = ""  # NAME of the figures/records-NAME.tar.xz with its records; empty: those of the run

    def value_of(self, factor: str) -> str:
        """Return what one of FACTORS is here, in words."""
        return {
            "pair": Path(self.pair).name,
            "calibration": f"{self.calibration} sequences",
            "own_noise": "noise of its own" if self.own_noise else "one noise",
            "length": f"{self.length} tokens",
        }[factor]

    @property
    def name(self) -> str:
        """What findings call it."""
        pair = Path(self.pair).name.replace("-", "_")
        noise = "own_noise" if self.own_noise else "one_noise"
        return f"{pair}_{self.calibration}x{self.length}_{noise}"


FACTORS = Setting._fields[:4]  # what a result may depend on


def apart_in(factor: str, settings: Iterable[Setting]) -> list[Setting]:
    """Return the first settings, two or more, that differ in one of FACTORS alone; none for none."""
    groups: dict[tuple, dict[object, Setting]] = {}
    for setting in settings:
        others = tuple(getattr(setting, name) for name in FACTORS if name != factor)
        groups.setdefault(others, {}).setdefault(getattr(setting, factor), setting)
    return next((list(alike.values()) for alike in groups.values() if len(alike) > 1), [])


class OnRecord(Variant):
    """A variant of a model whose weights are not at hand: what is not on record cannot be measured."""

    def ready(self) -> Report | None:
        """Raise FileNotFoundError."""
        raise FileNotFoundError(
            f"no record of {self.recipe or 'the dense model'} of the model {self.fingerprint}: "
            "name the folder of its weights in pairs"
        )


def archived_run(run: Run, archive: str) -> Run:
    """Return a run apart, `runs/archive-{archive}`, with an archive's scores; FileNotFoundError for none."""
    file = profiles.archive_file(archive)
    if not file.exists():
        raise FileNotFoundError(f"figures/{file.name} is missing: the project has no records of {archive!r}")

    apart = replace(run, profile=f"archive-{archive}", records_read={})
    with tarfile.open(file) as opened:
        scores = [member for member in opened if member.name.startswith("scores/")]
        opened.extractall(apart.records, scores, filter="data")

    return apart


def archived_fingerprint(run: Run, model: str) -> str:
    """Return the fingerprint of the one model called so in a run's scores; ValueError for none or several."""
    files = (run.records / "scores").glob("*.json")
    keys = [json.loads(file.read_text(encoding="utf-8"))["key"] for file in files]

    fingerprints = {key["fingerprint"] for key in keys if key["model"] == model}
    if len(fingerprints) != 1:
        raise ValueError(
            f"runs/{run.profile} has scores of {len(fingerprints)} models called {model}, not of one"
        )

    return fingerprints.pop()

"""Records: one table per measurement, with everything needed to know where its numbers come from.

A record is computed once per (name, parameters, model, data, core source) and read ever after, so a killed run goes on
where it was and drawing never repeats a computation.
"""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.files import PACKAGE, atomic, project_root, write_json
from sinkprune_core.memory import release_freed_memory

DRAWING = (
    "allocator",
    "bases",
    "card",
    "claims",
    "cli",
    "commands",
    "comparisons",
    "contrasts",
    "documents",
    "drawing",
    "export",
    "figures",
    "learning_curve",
    "localdata",
    "measuring",
    "notebook",
    "planning",
    "publish",
    "published",
    "quality",
    "results",
    "tiny",
    "training",
    "trajectories",
)  # modules that no measured number depends on; `quality` is part of the keys of its own records (`quality.source`)
PACKAGES = ("sinkprune", "torch", "transformers", "peft", "numpy", "pandas", "scipy")


@cache
def source_fingerprint() -> str:
    """Return a SHA-256 prefix over the core modules that measured numbers depend on."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.stem not in DRAWING:
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def environment() -> dict:
    """Return versions and the git commit (with `-dirty` where the tree differs from it)."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    commit = None
    try:
        run = {"cwd": PACKAGE, "capture_output": True, "text": True, "timeout": 20}
        head = subprocess.run(["git", "rev-parse", "HEAD"], **run)
        if head.returncode == 0:
            changed = subprocess.run(
                ["git", "status", "--porcelain", "--", str(PACKAGE)], **run
            ).stdout.strip()
            commit = head.stdout.strip() + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        pass
    return {
        "versions": versions,
        "git_commit": commit,
        "core_source": source_fingerprint(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


def _plain(value: object) -> object:
    """Return JSON values for dataclasses, paths and numpy scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **_plain(asdict(value))}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be part of a record's key: give a fingerprint instead"
    )


@dataclass(frozen=True)
class Run:
    """Where one notebook of one profile puts what it makes: `runs/<profile>/{records,findings,figures}`.

    The profile `<profile>@<cell>` names one cell of a sweep: it shares the records of the profile, and keeps findings and
    figures, which rest on its part alone, in `runs/<profile>/cells/<notebook>/<cell>`.
    """

    notebook: str
    profile: str
    parameters: dict

    @property
    def folder(self) -> Path:
        profile, _, cell = self.profile.partition("@")
        shared = project_root() / "runs" / profile
        return shared / "cells" / self.notebook / cell if cell else shared

    @property
    def is_cell(self) -> bool:
        """Whether this is one cell of a sweep: its records count, and what it draws rests on its part alone."""
        return "@" in self.profile

    @property
    def records(self) -> Path:
        return project_root() / "runs" / self.profile.partition("@")[0] / "records" / self.notebook

    @property
    def provenance(self) -> dict:
        return {
            "notebook": self.notebook,
            "profile": self.profile,
            "parameters": self.parameters,
            **environment(),
        }

    def record(self, name: str, compute: Callable[[], pd.DataFrame], **key: object) -> pd.DataFrame:
        """Return the table `compute()` gives, computing it at most once per key and core source.

        `key` holds all that the numbers depend on: recipes, seeds, fingerprints of models and data. Its plain values
        become columns.
        """
        constants = {
            column: value for column, value in key.items() if isinstance(value, (bool, int, float, str))
        }
        write = lambda frame, file: frame.assign(
            **{c: v for c, v in constants.items() if c not in frame}
        ).to_csv(file, index=False)
        return self._once(name, "csv", compute, write, pd.read_csv, key)

    def artifact(self, name: str, kind: type, compute: Callable[[], object], **key: object) -> object:
        """Return what `compute()` gives, an object of class `kind` with `save(file)` and `load(file)`; once, as `record`."""
        return self._once(name, "safetensors", compute, lambda value, file: value.save(file), kind.load, key)

    def _once(
        self, name: str, suffix: str, compute: Callable, write: Callable, read: Callable, key: dict
    ) -> object:
        """Compute unless the file is there; value and provenance (JSON) lie side by side and are written atomically."""
        plain = {"name": name, "key": _plain(key), "core_source": source_fingerprint()}
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
        file = self.records / f"{name}-{digest}.{suffix}"
        if not file.exists():
            value = compute()
            release_freed_memory()  # or what one record freed, in pieces that do not fit the next, would add up
            write_json(file.with_suffix(".json"), {**self.provenance, "record": name, "key": plain["key"]})
            with atomic(file) as partial:
                write(value, partial)
        return read(file)

    def find(self, findings: dict[str, Estimate | None]) -> None:
        """Write what this notebook found, by the names that `claims.yml` uses; None for what could not be measured."""
        write_json(
            self.folder / "findings" / f"{self.notebook}.json",
            {
                "findings": {name: found and _plain(asdict(found)) for name, found in findings.items()},
                "provenance": self.provenance,
            },
        )

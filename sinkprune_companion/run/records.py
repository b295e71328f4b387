"""Records: one table per measurement, with everything needed to know where its numbers come from.

Each is computed once per all that `Run.identity` names, and read ever after, by all notebooks of a profile.
"""

import hashlib
import json
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import FunctionType

import numpy as np
import pandas as pd

from sinkprune.evaluation.intervals import Estimate
from sinkprune.files import PACKAGE, atomic, file_digest, write_json
from sinkprune.memory import release_freed_memory
from sinkprune.models.devices import choose_device, device_name
from sinkprune_companion import project_root

PACKAGES = ("sinkprune", "torch", "transformers", "peft", "numpy", "pandas", "scipy")
OURS = ("sinkprune_core", "sinkprune", "sinkprune_companion")  # the packages of this project
PLAIN = (bool, int, float, str)  # values of a key that become columns
# keys of records name what has left, or has another name now, as it was when records were measured
FORMER_VALUES = {"exclude": {"non-sinks": "only"}}
FORMER_FIELDS = {
    "Sampler": {"order_temperature": 0.0, "logits_eos_inf": False, "confidence_eos_eot_inf": False}
}
ORIGIN = ("git_commit", "versions", "platform", "device")  # what a figure says of the records that it shows


@cache
def environment() -> dict:
    """Return `versions`, `git_commit` (with `-dirty` where the package differs from it) and `platform`."""
    versions = {package: version(package) for package in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git_commit": _git_commit(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


def _git_commit() -> str | None:
    """Return the commit of the clone that holds the package; None where there is no git or no clone."""
    root = PACKAGE.parent
    if not (root / ".git").exists():  # it may lie in another project's clone
        return None

    git = partial(subprocess.check_output, cwd=root, stderr=subprocess.DEVNULL, text=True, timeout=20)
    try:
        commit = git(["git", "rev-parse", "HEAD"]).strip()
        changes = git(["git", "status", "--porcelain", "--", *OURS])
    except (OSError, subprocess.SubprocessError):
        return None

    return f"{commit}-dirty" if changes else commit


def _plain(value: object) -> object:
    """Return a value as it comes back from JSON: dataclasses with their name, functions by theirs."""
    return json.loads(json.dumps(value, default=_as_json))


def _as_json(value: object) -> object:
    if is_dataclass(value):
        from sinkprune_core.pruning.recipe import as_settings  # seconds of imports

        return {"type": type(value).__name__, **_as_when_measured(value, as_settings(value))}
    if isinstance(value, FunctionType):
        if value.__module__.partition(".")[0] in OURS:
            return f"{value.__module__}.{value.__qualname__}"
        raise ValueError(  # a user's own choice of calibration tokens
            f"exclude={value.__qualname__!r} is a function, and another one may have its name, so no record "
            "is kept: add it to EXCLUDE in token_weights.py under a name of its own, or call `prune`"
        )

    if isinstance(value, np.generic):
        return value.item()

    raise TypeError(f"{value!r} cannot stand in the key of a record: it is a {type(value).__name__}")


def _as_when_measured(value: object, settings: dict) -> dict:
    """Return settings with the fields, and the names of values, that they had when records were measured."""
    renamed = {
        name: FORMER_VALUES[name].get(given, given)
        for name, given in settings.items()
        if name in FORMER_VALUES and isinstance(given, str)
    }
    return settings | renamed | FORMER_FIELDS.get(type(value).__name__, {})


@dataclass(frozen=True)
class Run:
    """Where one notebook of one profile puts what it makes: `runs/<profile>/{records,findings,figures}`.

    The profile `<profile>@<cell>` names one cell of a sweep: it shares the records of the profile, and keeps
    findings and figures, which rest on its part alone, in `runs/<profile>/cells/<notebook>/<cell>`.
    """

    notebook: str  # name without extension
    profile: str  # profile or profile@cell
    parameters: dict  # of the notebook, by name
    records_read: dict[str, dict] = field(default_factory=dict, repr=False, compare=False)
    # so far, by this object: `<function>/<digest>` -> ORIGIN

    @property
    def is_cell(self) -> bool:
        """Whether this is one cell of a sweep."""
        return "@" in self.profile

    @property
    def records(self) -> Path:
        """The folder of records of all notebooks and all cells of a sweep: `<function>/<digest>`."""
        return project_root() / "runs" / self.profile.partition("@")[0] / "records"

    @property
    def folder(self) -> Path:
        """The folder of findings and figures."""
        run = self.records.parent
        return run / "cells" / self.notebook / self.profile.partition("@")[2] if self.is_cell else run

    @property
    def device(self) -> str:
        """The device that the parameter `device` names, with `auto` resolved; the CPU without one."""
        return choose_device(self.parameters.get("device", "cpu"))

    @property
    def _known_by(self) -> dict:
        return {"notebook": self.notebook, "profile": self.profile, "parameters": self.parameters}

    @property
    def provenance(self) -> dict:
        """What findings and figures say of themselves: `notebook`, `profile`, `parameters`, and all `records`
        that the notebook has read so far, by their `names`, in groups of one ORIGIN.
        """
        groups = {}
        for name, origin in sorted(self.records_read.items()):
            group = groups.setdefault(json.dumps(origin, sort_keys=True), {**origin, "names": []})
            group["names"].append(name)
        return {**self._known_by, "records": list(groups.values())}

    def record(
        self, name: str, compute: Callable, revision: int = 1, labels: dict | None = None, **key: object
    ) -> pd.DataFrame:
        """Return the table that `compute()` gives, computing it at most once per name, revision and key.

        `name` is that of the measuring function, and `revision` its number: raise it when the function gives
        other numbers. `key` holds all that the numbers depend on: recipes, seeds, fingerprints of models and
        data. Its plain values become columns, and so do `labels`, which do not change a measurement.
        """
        write = partial(pd.DataFrame.to_csv, index=False)
        frame = pd.read_csv(self._file(self.identity(name, revision, key), compute, "csv", write))
        constants = {column: value for column, value in key.items() if isinstance(value, PLAIN)}
        columns = (labels or {}) | constants
        return frame.assign(**{column: columns[column] for column in columns if column not in frame})

    def artifact(self, name: str, kind: type, compute: Callable, revision: int = 1, **key: object) -> object:
        """Return an object of class `kind`, with `save(file)` and `load(file)`, as `record` does a table."""
        decides = self.identity(name, revision, key)
        return kind.load(self._file(decides, compute, "safetensors", kind.save))

    def identity(self, name: str, revision: int, key: dict) -> dict:
        """Return what decides whether a value was computed before, with its digest.

        The code has no part, nor have versions and device, which round in their own ways: a record says what
        it was measured with, and archived records serve readers who have installed others.
        """
        decides = {"name": name, "revision": revision, "key": _plain(key)}
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        return {**decides, "digest": digest}

    def _file(self, decides: dict, compute: Callable, suffix: str, write: Callable) -> Path:
        """Return the file of a record, computed and written where it is missing; remember its origin."""
        file = self.records / decides["name"] / f"{decides['digest']}.{suffix}"
        about = _about(file)
        if about is None:
            value = compute()
            release_freed_memory()  # or what records leave behind in pieces, too small for the next, adds up

            with atomic(file) as unfinished:
                write(value, unfinished)
                about = {
                    **self._known_by,
                    **environment(),
                    "device": device_name(self.device),
                    "record": decides["name"],
                    "revision": decides["revision"],
                    "key": decides["key"],
                    "sha256": file_digest(unfinished),
                }
                write_json(file.with_suffix(".json"), about)

        self.records_read[f"{file.parent.name}/{file.stem}"] = {part: about[part] for part in ORIGIN}
        return file

    def find(self, findings: dict[str, Estimate | None]) -> None:
        """Write what this notebook found, by the names that `claims.yml` uses; None was not measured."""
        plain = {name: found and _plain(asdict(found)) for name, found in findings.items()}
        about = {"findings": plain, "provenance": self.provenance}
        write_json(self.folder / "findings" / f"{self.notebook}.json", about)


def _about(file: Path) -> dict | None:
    """Return what is known of a record that is what was written, else None; warn of one that is not."""
    if not file.exists():
        return None

    known = file.with_suffix(".json")
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        about = json.loads(known.read_text(encoding="utf-8"))
        if about["sha256"] == file_digest(file) and about.keys() >= set(ORIGIN):
            return about

    warnings.warn(
        f"record {file.name} is not what was written: its SHA-256 is not the one in {known.name}; "
        "it is computed anew",
        stacklevel=4,
    )

    return None

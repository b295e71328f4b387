"""Records: one table per measurement, with everything needed to know where its numbers come from.

A record is computed once per measuring function and its revision, arguments, fingerprints of model and text,
kind of device, and versions of torch and transformers, and read ever after, by all notebooks of a profile. So
a run that was killed goes on where it was, and drawing repeats no computation.
"""

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import FunctionType

import numpy as np
import pandas as pd

from sinkprune_companion import project_root
from sinkprune_companion.run.provenance import environment
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.files import atomic, file_digest, write_json
from sinkprune_core.memory import release_freed_memory
from sinkprune_core.models.devices import choose_device, device_name

KEY_PACKAGES = ("torch", "transformers")  # another version of one of these measures anew
ORIGIN = ("git_commit", "versions", "platform", "device")  # what a figure says of the records that it shows


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
    if isinstance(value, FunctionType) and value.__module__.startswith("sinkprune_"):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, FunctionType):  # a user's own choice of calibration tokens
        raise ValueError(
            f"exclude={value.__qualname__!r} is a function, and another one may have its name, so no record "
            "is kept: add it to EXCLUDE in token_weights.py under a name of its own, or call `prune`"
        )
    return value


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
    def folder(self) -> Path:
        """The folder of findings and figures."""
        profile, _, cell = self.profile.partition("@")
        shared = project_root() / "runs" / profile
        if cell:
            return shared / "cells" / self.notebook / cell
        return shared

    @property
    def is_cell(self) -> bool:
        """Whether this is one cell of a sweep: its records count; what it draws rests on its part alone."""
        return "@" in self.profile

    @property
    def records(self) -> Path:
        """The folder of records of all notebooks and all cells of a sweep: `<function>/<digest>`."""
        return project_root() / "runs" / self.profile.partition("@")[0] / "records"

    @property
    def device(self) -> str:
        """The device that the parameter `device` names, with `auto` resolved; the CPU without one."""
        return choose_device(self.parameters.get("device", "cpu"))

    @property
    def provenance(self) -> dict:
        """What findings and figures say of themselves: `notebook`, `profile`, `parameters` and `records`.

        `records` holds all records that the notebook had read by then, in groups of one origin: `git_commit`,
        `versions`, `platform` and `device` of when they were computed, and `names`, each with the digest of
        its key.
        """
        return {
            "notebook": self.notebook,
            "profile": self.profile,
            "parameters": self.parameters,
            "records": _by_origin(self.records_read),
        }

    def record(
        self,
        name: str,
        compute: Callable[[], pd.DataFrame],
        revision: int = 1,
        labels: dict[str, object] | None = None,
        **key: object,
    ) -> pd.DataFrame:
        """Return the table that `compute()` gives, computing it at most once per name, revision and key.

        `name` is that of the measuring function, and `revision` its number: raise it when the function gives
        other numbers (`tests/companion/test_golden_numbers.py` notices). `key` holds all that the numbers
        depend on: recipes, seeds, fingerprints of models and data. Its plain values become columns, and so do
        `labels`, which name a measurement and do not change it.
        """
        constants = {
            column: value for column, value in key.items() if isinstance(value, (bool, int, float, str))
        }
        columns = {**(labels or {}), **constants}
        frame = self._once(
            name,
            revision,
            key,
            compute,
            "csv",
            lambda made, file: made.to_csv(file, index=False),
            pd.read_csv,
        )
        missing = {column: value for column, value in columns.items() if column not in frame}
        return frame.assign(**missing)

    def artifact(
        self, name: str, kind: type, compute: Callable[[], object], revision: int = 1, **key: object
    ) -> object:
        """Return what `compute()` gives, an object of class `kind` with `save(file)` and `load(file)`.

        It is computed at most once, as a `record`.
        """
        return self._once(name, revision, key, compute, "safetensors", kind.save, kind.load)

    def identity(self, name: str, revision: int, key: dict) -> dict:
        """Return what decides whether a value was computed before, and its digest.

        These are `name` and `revision` of the measuring function, `key`, `device` (cpu or cuda: both round in
        their own way) and `versions` of KEY_PACKAGES. Dtypes are part of a model's fingerprint, and so of
        keys. The code is not: who changes what a function measures raises its revision.
        """
        versions = {package: version(package) for package in KEY_PACKAGES}
        device = self.device.partition(":")[0]
        decides = {"name": name, "revision": revision, "key": _plain(key), "device": device}
        decides["versions"] = versions
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        return {**decides, "digest": digest}

    def _once(
        self,
        name: str,
        revision: int,
        key: dict,
        compute: Callable[[], object],
        suffix: str,
        write: Callable[[object, Path], None],
        read: Callable[[Path], object],
    ) -> object:
        """Read a record, after computing and writing it where it is missing; remember where it comes from."""
        decides = self.identity(name, revision, key)
        file = self.records / name / f"{decides['digest']}.{suffix}"
        if not _is_whole(file):
            value = compute()
            release_freed_memory()  # or what records leave behind in pieces, too small for the next, adds up
            with atomic(file) as partial:
                write(value, partial)
                about = {
                    "notebook": self.notebook,
                    "profile": self.profile,
                    "parameters": self.parameters,
                    **environment(),
                    "device": device_name(self.device),
                    "record": name,
                    "revision": revision,
                    "key": decides["key"],
                    "sha256": file_digest(partial),
                }
                write_json(file.with_suffix(".json"), about)
        about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        self.records_read[f"{name}/{file.stem}"] = {part: about[part] for part in ORIGIN}
        return read(file)

    def find(self, findings: dict[str, Estimate | None]) -> None:
        """Write what this notebook found, by the names that `claims.yml` uses.

        None stands for what could not be measured.
        """
        plain = {}
        for name, found in findings.items():
            plain[name] = None if found is None else _plain(asdict(found))
        write_json(
            self.folder / "findings" / f"{self.notebook}.json",
            {"findings": plain, "provenance": self.provenance},
        )


def _by_origin(records: dict[str, dict]) -> list[dict]:
    """Return records in groups of one origin, each with the `names` of its records."""
    groups = {}
    for name in sorted(records):
        origin = records[name]
        group = groups.setdefault(json.dumps(origin, sort_keys=True), {**origin, "names": []})
        group["names"].append(name)
    return list(groups.values())


def _is_whole(file: Path) -> bool:
    """Return whether a record is there and is what was written; warn of one that is there and is not."""
    if not file.exists():
        return False
    about = file.with_suffix(".json")
    try:
        said = json.loads(about.read_text(encoding="utf-8"))
        expected = said["sha256"] if all(part in said for part in ORIGIN) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        expected = None
    if file_digest(file) == expected:
        return True
    warnings.warn(
        f"record {file.name} is not what was written: its SHA-256 is not the one in {about.name}; "
        "it is computed anew",
        stacklevel=4,
    )
    return False

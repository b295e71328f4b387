"""Records: one table per measurement, with everything needed to know where its numbers come from.

A record is computed once per measuring function and its revision, arguments, fingerprints of model and text,
kind of device, and versions of torch and transformers, and read ever after, by all notebooks of a profile. So
a run that was killed goes on where it was, and drawing repeats no computation.
"""

import hashlib
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import partial
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
PLAIN = (bool, int, float, str)  # values of a key that become columns
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
    if isinstance(value, FunctionType):
        if value.__module__.startswith("sinkprune_"):
            return f"{value.__module__}.{value.__qualname__}"
        raise ValueError(  # a user's own choice of calibration tokens
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
    def is_cell(self) -> bool:
        """Whether this is one cell of a sweep: its records count; what it draws rests on its part alone."""
        return "@" in self.profile

    @property
    def folder(self) -> Path:
        """The folder of findings and figures."""
        if self.is_cell:
            return self.records.parent / "cells" / self.notebook / self.profile.partition("@")[2]
        return self.records.parent

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

        `records` holds all records that the notebook had read by then, in groups of one ORIGIN, of when they
        were computed, with their `names`, `<function>/<digest>`.
        """
        groups = {}
        for name, origin in sorted(self.records_read.items()):
            group = groups.setdefault(json.dumps(origin, sort_keys=True), {**origin, "names": []})
            group["names"].append(name)
        return {
            "notebook": self.notebook,
            "profile": self.profile,
            "parameters": self.parameters,
            "records": list(groups.values()),
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
        write = partial(pd.DataFrame.to_csv, index=False)
        frame = pd.read_csv(self._file(name, revision, key, compute, "csv", write))
        constants = {column: value for column, value in key.items() if isinstance(value, PLAIN)}
        columns = {**(labels or {}), **constants}
        return frame.assign(**{column: columns[column] for column in columns if column not in frame})

    def artifact(
        self, name: str, kind: type, compute: Callable[[], object], revision: int = 1, **key: object
    ) -> object:
        """Return what `compute()` gives, an object of class `kind` with `save(file)` and `load(file)`.

        It is computed at most once, as a `record`.
        """
        return kind.load(self._file(name, revision, key, compute, "safetensors", kind.save))

    def identity(self, name: str, revision: int, key: dict) -> dict:
        """Return what decides whether a value was computed before, and its digest.

        `device` is cpu or cuda: both round in their own way. Dtypes are part of a model's fingerprint, and so
        of `key`. The code is not: who changes what a function measures raises its `revision`.
        """
        decides = {
            "name": name,
            "revision": revision,
            "key": _plain(key),
            "device": self.device.partition(":")[0],
            "versions": {package: version(package) for package in KEY_PACKAGES},
        }
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        return {**decides, "digest": digest}

    def _file(
        self,
        name: str,
        revision: int,
        key: dict,
        compute: Callable[[], object],
        suffix: str,
        write: Callable[[object, Path], None],
    ) -> Path:
        """Return the file of a record, computed and written where it is missing; remember its origin."""
        decides = self.identity(name, revision, key)
        file = self.records / name / f"{decides['digest']}.{suffix}"
        origin = _origin(file)
        if origin is None:
            value = compute()
            release_freed_memory()  # or what records leave behind in pieces, too small for the next, adds up
            with atomic(file) as unfinished:
                write(value, unfinished)
                about = {
                    "notebook": self.notebook,
                    "profile": self.profile,
                    "parameters": self.parameters,
                    **environment(),
                    "device": device_name(self.device),
                    "record": name,
                    "revision": revision,
                    "key": decides["key"],
                    "sha256": file_digest(unfinished),
                }
                write_json(file.with_suffix(".json"), about)
            origin = {part: about[part] for part in ORIGIN}
        self.records_read[f"{name}/{file.stem}"] = origin
        return file

    def find(self, findings: dict[str, Estimate | None]) -> None:
        """Write what this notebook found, by the names that `claims.yml` uses.

        None stands for what could not be measured.
        """
        plain = {name: found and _plain(asdict(found)) for name, found in findings.items()}
        write_json(
            self.folder / "findings" / f"{self.notebook}.json",
            {"findings": plain, "provenance": self.provenance},
        )


def _origin(file: Path) -> dict | None:
    """Return ORIGIN of a record that is what was written, else None; warn of one that is there and is not."""
    if not file.exists():
        return None
    about = file.with_suffix(".json")
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        said = json.loads(about.read_text(encoding="utf-8"))
        origin = {part: said[part] for part in ORIGIN}
        if said["sha256"] == file_digest(file):
            return origin
    warnings.warn(
        f"record {file.name} is not what was written: its SHA-256 is not the one in {about.name}; "
        "it is computed anew",
        stacklevel=4,
    )
    return None

"""Bad records, findings, rows of the ledger, settings and parameters, and what reads them."""

import dataclasses
import datetime
import json
import math
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import pandas as pd
import yaml
from hostile.fuzz import BROKEN_JSON, Case, spoiled_bytes, spoiled_values
from hostile.fuzz_models import IDS
from hostile.tiny import native_model

from sinkprune_companion.harness import benchmarks
from sinkprune_companion.ledger import claims
from sinkprune_companion.run import parameters
from sinkprune_companion.run.records import Run
from sinkprune_companion.training.settings import Training
from sinkprune_core import Calibration, Recipe, Sampler, load, nelbo
from sinkprune_core.evaluation.protocols import Protocol

# records, findings, the ledger


def records(root: Path, seed: int = 0) -> Iterator[Case]:
    """A table that was written, and the file beside it that says where it comes from."""
    frame = pd.DataFrame({"value": [0.25 * row for row in range(40)], "word": ["a,b"] * 40})

    class Here(Run):
        records = root / "records"

    def table() -> pd.DataFrame:
        return frame

    run = Here("notebook", "quick", {})
    run.record("values", table, seed=3)
    (csv,) = run.records.glob("*/*.csv")
    about = csv.with_suffix(".json")
    kept = {file: file.read_bytes() for file in (csv, about)}
    right = run.record("values", table, seed=3).to_csv()

    def read(file: Path, bad: bytes) -> str:
        for each, data in kept.items():
            each.write_bytes(data)
        file.write_bytes(bad)
        return Here("notebook", "quick", {}).record("values", table, seed=3).to_csv()

    rng = random.Random(seed)
    for file in kept:
        for done, bad in spoiled_bytes(kept[file], rng, flips=40, cuts=20):
            yield Case(f"{file.suffix}, {done}", partial(read, file, bad), right, (file.name,))
    for text in BROKEN_JSON:
        yield Case(f"about {text[:9]!r}", partial(read, about, text.encode()), right, (about.name,))


def findings(root: Path) -> Iterator[Case]:
    """Findings of a notebook, and rows of the ledger."""
    value = {"value": 0.5, "low": 0.25, "high": 0.75, "units": 8, "method": "bootstrap"}
    folder = root / "findings-root"
    file = folder / "findings" / "01.json"
    file.parent.mkdir(parents=True)

    def read(content: object) -> str:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(claims.findings(folder))

    right = read({"findings": {"found": value}})
    allowed = {"value", "low", "high"}  # any number in order
    for field, done, bad in spoiled_values(value):
        is_number = isinstance(bad.get(field), (int, float)) and not isinstance(bad.get(field), bool)
        is_word = field == "method" and isinstance(bad.get(field), str)
        is_count = (
            field == "units" and isinstance(bad.get(field), int) and not isinstance(bad.get(field), bool)
        )
        if not ((field in allowed and is_number) or is_word or is_count):
            yield Case(done, partial(read, {"findings": {"found": bad}}), right, (file.name,))
    for content in ({}, {"findings": 3}, {"findings": []}, {"findings": {"found": 3}}, {"findings": None}):
        yield Case(f"{content}", partial(read, content), right, (file.name,))
    for text in BROKEN_JSON:
        yield Case(f"{text[:9]!r}", partial(read, text), right, (file.name,))


ROW = claims.ledger()[0].model_dump(exclude_defaults=True)  # of the ledger, whole


def ledgers(root: Path) -> Iterator[Case]:
    """The ledger of claims: broken YAML, fields of a row that are wrong."""
    file = root / "claims.yml"
    row = ROW

    def read(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        return str(claims.ledger(file))

    needed = [name for name, field in claims.Claim.model_fields.items() if field.is_required()]
    broken = ["", "[", "claims", "claims: 3", "claims: [3]", "claims: [{}]", "- 1", "claims: {a: 1}", "\x00"]
    broken += ["claims:", *(f"claims: [{{id: {wrong}}}]" for wrong in ("3", "[]", "null", "x"))]
    for text in broken:
        yield Case(f"{text!r}", partial(read, text), None, (file.name,))
    for field in row:
        for wrong in ([1], {"a": 1}, datetime.date(2026, 1, 1), math.nan, True):
            text = yaml.safe_dump({"claims": [{**row, field: wrong}]})
            yield Case(f"{field}: {wrong}", partial(read, text), None, (file.name, field))
        if field in needed:
            without = {key: value for key, value in row.items() if key != field}
            yield Case(f"no {field}", partial(read, yaml.safe_dump({"claims": [without]})), None, (field,))


# numbers


NUMBERS: dict[type, dict[str, tuple]] = {
    Sampler: {"length": (0,), "block": (0, -32), "temperature": (-1, math.nan, math.inf), "top_p": (0, 2)},
    Protocol: {"draws": (0, 7), "guidance": (-1, math.nan), "chunk": (0, 5), "masking": ("x",)},
    Training: {"tokens": (0,), "learning_rate": (0, math.nan), "decay_share": (1.1,), "lengths": ((), (1,))},
    Recipe: {"sparsity": (-0.1, 1, math.nan), "noise_levels": (0,), "pattern": ("x", "0:4", "5:4")},
}
NO_VALUES = (b"1", [1], {}, 1j, object(), True, -(10**30))  # of no type that a field has, or of no range


def _plain_fields(cls: type) -> list[tuple[str, object]]:
    """Return the fields of a class of settings with their defaults."""
    return [(field.name, field.default) for field in dataclasses.fields(cls)]


def numbers(root: Path) -> Iterator[Case]:
    """Numbers that settings must not have, and ids that cannot calibrate or be scored."""
    for cls, wrong in NUMBERS.items():
        known = {field.name for field in dataclasses.fields(cls)}
        for field, values in wrong.items():
            for value in values if field in known else ():
                yield Case(f"{cls.__name__}({field}={value})", partial(cls, **{field: value}), None, (field,))
    for cls in (Sampler, Protocol, Recipe):
        for field, default in _plain_fields(cls):
            for value in NO_VALUES:
                if not (isinstance(default, bool) and isinstance(value, bool)):
                    run = partial(cls, **{field: value})
                    yield Case(f"{cls.__name__}({field}={value!r})", run, None, (field,))
    lm = load(native_model(root / "saved"))
    for draws in (0, -1):
        yield Case(f"nelbo(draws={draws})", partial(nelbo, lm, IDS, draws), None, ("draws",))
    for batch in (0, -1):
        yield Case(f"nelbo(batch={batch})", partial(nelbo, lm, IDS, batch=batch), None, ("batch",))
        yield Case(f"Calibration(batch={batch})", partial(Calibration, IDS, batch=batch), None, ("batch",))
    for ids in (IDS[:, :1], IDS[:0], IDS[:, :0], IDS[0]):
        yield Case(f"nelbo of {tuple(ids.shape)}", partial(nelbo, lm, ids), None, ("ids",))
        yield Case(f"Calibration of {tuple(ids.shape)}", partial(Calibration, ids), None, ("ids",))
    for ids in (IDS.float(), IDS.int(), IDS.tolist(), None):
        yield Case(f"Calibration of {type(ids)}", partial(Calibration, ids), None, ("ids",))


def notebook_parameters(root: Path) -> Iterator[Case]:
    """Parameters of notebooks: every name with a range, and values that are none."""
    del root
    benchmarks.installed()  # seconds, which the first unknown task would take
    kinds = {name: get_args(limits)[0].__name__ for name, limits in parameters.RANGES.items()}
    for name, kind in (kinds | dict.fromkeys(parameters.WORDS, "str")).items():
        wrong = (-1, -0.5, math.nan, math.inf, "\x00", "../x", "", None, True, {}, [None])
        for value in wrong:
            run = partial(parameters.check, "notebook", {name: kind}, {name: value})
            yield Case(f"{name}: {kind}={value!r}", run, None, (name,))
            run = partial(parameters.check, "notebook", {name: f"list[{kind}]"}, {name: [value]})
            yield Case(f"{name}: list[{kind}]={[value]!r}", run, None, (name,))

"""Records are computed once per key, and figures are the same to the byte."""

import hashlib
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from damage import flip

from sinkprune.files import PACKAGE
from sinkprune_companion.figures import figures
from sinkprune_companion.run import records
from sinkprune_companion.run.records import Run, environment
from sinkprune_core.pruning.recipe import Recipe, preset


@dataclass(frozen=True)
class Measured:
    """Counts how often a record was computed."""

    calls: list

    def __call__(self) -> pd.DataFrame:
        self.calls.append(1)
        return pd.DataFrame({"value": [0.1 + 0.2, 1 / 3]})


def test_a_record_is_computed_once_per_key_and_says_where_it_comes_from(run):
    measured = Measured([])

    first = run.record("r", measured, recipe=preset("wanda"), seed=0)
    again = run.record("r", measured, recipe=preset("wanda"), seed=0)
    assert len(measured.calls) == 1
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert list(first.seed) == [0, 0] and first.value.tolist() == [0.1 + 0.2, 1 / 3]

    run.record("r", measured, recipe=preset("wanda"), seed=1)
    run.record("r", measured, recipe=preset("dwanda"), seed=0)
    assert len(measured.calls) == 3

    origins = [json.loads(file.read_text()) for file in (run.records / "r").glob("*.json")]
    assert len(origins) == 3
    assert all(o["versions"]["torch"] and o["parameters"] == {"sparsity": 0.5} for o in origins)
    assert all(o["revision"] == 1 and len(o["sha256"]) == 64 for o in origins)
    assert {o["key"]["recipe"]["inputs"] for o in origins} == {"clean", "noised"}


def test_a_failed_record_leaves_nothing_that_would_be_read_later(run):
    with pytest.raises(ZeroDivisionError):
        run.record("r", lambda: 1 / 0, seed=0)
    assert not list(run.folder.rglob("*.csv"))
    assert len(run.record("r", lambda: pd.DataFrame({"x": [1]}), seed=0)) == 1


# what else a key holds


def test_a_record_serves_other_versions_and_devices_and_says_what_it_was_measured_with(run, monkeypatch):
    measured = Measured([])
    run.record("r", measured, seed=0)
    torch_before = environment()["versions"]["torch"]

    monkeypatch.setattr(records, "version", lambda package: "99.0")
    monkeypatch.setattr(records, "choose_device", lambda name: "cuda:1")
    monkeypatch.setattr(records, "device_name", lambda device: f"{device} of a test")
    environment.cache_clear()

    run.record("r", measured, seed=0)
    run.record("r", measured, seed=1)
    environment.cache_clear()
    assert len(measured.calls) == 2

    written = [json.loads(file.read_text()) for file in (run.records / "r").glob("*.json")]
    made_with = {(about["device"], about["versions"]["torch"]) for about in written}
    assert made_with == {("cpu", torch_before), ("cuda:1 of a test", "99.0")}


def test_a_revision_more_measures_anew(run):
    measured = Measured([])
    for revision in (1, 1, 2, 2, 1):
        run.record("r", measured, revision, seed=0)
    assert len(measured.calls) == 2


def test_nothing_of_the_code_is_part_of_an_identity(run):
    parts = {"name", "revision", "key", "digest"}
    assert set(run.identity("r", 1, {"seed": 0})) == parts


# records on disk


def only(run: Run, name: str, suffix: str = "csv"):
    (file,) = (run.records / name).glob(f"*.{suffix}")
    return file


def cut(file) -> None:
    file.write_bytes(file.read_bytes()[:-4])


DAMAGES = {
    "cut": cut,
    "flip": flip,
    "forget": lambda file: file.with_suffix(".json").unlink(),
    "spoil": lambda file: file.with_suffix(".json").write_text("{"),
    "nest": lambda file: file.with_suffix(".json").write_text("[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_is_not_what_was_written_is_computed_anew_with_a_warning(run, damage):
    measured = Measured([])
    first = run.record("r", measured, seed=0)

    file = only(run, "r")
    DAMAGES[damage](file)

    with pytest.warns(UserWarning, match=f"record {file.name} is not what was written"):
        again = run.record("r", measured, seed=0)
    pd.testing.assert_frame_equal(again, first)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.record("r", measured, seed=0)
    assert len(measured.calls) == 2


@dataclass(frozen=True)
class Text:
    """An artifact of one string."""

    text: str

    def save(self, file) -> None:
        file.write_text(self.text)

    @classmethod
    def load(cls, file):
        return cls(file.read_text())


def test_an_artifact_is_kept_as_its_class_says_and_checked_too(run):
    assert run.artifact("a", Text, lambda: Text("one"), seed=0) == Text("one")
    assert run.artifact("a", Text, lambda: Text("two"), seed=0) == Text("one")
    cut(only(run, "a", "safetensors"))
    with pytest.warns(UserWarning, match="is computed anew"):
        assert run.artifact("a", Text, lambda: Text("three"), seed=0) == Text("three")


def test_a_function_without_a_name_of_its_own_is_refused(run):
    def choice(context):
        return context.sinks_NST

    with pytest.raises(ValueError, match="is a function, and another one may have its name"):
        run.record("r", Measured([]), recipe=Recipe(exclude=choice))


# figures


def test_figures_are_the_same_to_the_byte_and_carry_their_data_and_origin(run):
    data = pd.DataFrame({"x": [1, 2, 1, 2], "y": [1.0, 2.0, 2.0, 3.0], "g": ["a", "a", "b", "b"]})

    def draw() -> dict:
        figure = figures.plot_curves(data, "x", "y", "g", {"x": "x (tokens)", "y": "y (nats)"})
        figures.save_figure(run, figure, "f", data, "a caption")
        return {file.suffix: file.read_bytes() for file in (run.folder / "figures" / "00_test").iterdir()}

    first = draw()
    assert set(first) == {".png", ".pdf", ".csv", ".json"}
    assert draw() == first
    about = json.loads(first[".json"])
    digests = {f"f{suffix}": hashlib.sha256(first[suffix]).hexdigest() for suffix in (".csv", ".png", ".pdf")}
    assert about["files"] == digests
    assert plt.get_fignums() == [], "no figure stays open"
    assert (about["caption"], about["parameters"]) == ("a caption", {"sparsity": 0.5})


# where they come from


def test_the_environment_names_versions_and_the_commit():
    named = environment()
    assert named["versions"]["torch"]
    assert named["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))

    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=PACKAGE, capture_output=True, text=True, check=False
    )
    if git.returncode == 0:
        assert named["git_commit"].removesuffix("-dirty") == git.stdout.strip()
    else:
        assert named["git_commit"] is None

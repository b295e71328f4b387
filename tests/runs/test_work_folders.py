"""Work folders lose nothing: what is not theirs stays, what is damaged is made again, one holds them."""

import copy
import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from damage import flip
from hostile.commands import command, contents
from naive import block_weights_of, same
from random_models.texts import TEXT

from sinkprune import files, load, prune
from sinkprune.cli import main
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.streaming import stream
from sinkprune.runs.checkpoint import PruningCheckpoint
from sinkprune_core import Calibration, Recipe
from sinkprune_core.pruning import choice

pytestmark = pytest.mark.slow

SEQUENTIAL = Recipe(noise_levels=2)
OWL = Recipe(allocation="owl", owl_m=2.0)
DENSE_GRAM = Recipe("sparsegpt", propagation="dense", block_size=16)
RECIPES = {"sequential": SEQUENTIAL, "owl": OWL, "dense gram": DENSE_GRAM}


@pytest.fixture
def place(checkpoint, tmp_path, monkeypatch):
    """A working directory with a model and its text, in which the commands of `hostile.commands` run."""
    (tmp_path / "llada").symlink_to(checkpoint)
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(place, capsys):
    """A function that runs a command line, and returns its status and what it says."""

    def call(arguments) -> tuple[int, str]:
        status = main.main([str(argument) for argument in arguments])
        found = capsys.readouterr()
        return status, found.out + found.err

    return call


@pytest.fixture
def both(checkpoint):
    """A function that returns the model in memory or streamed."""

    def make(streamed: bool):
        if streamed:
            return stream(open_checkpoint(checkpoint), "streamed", torch.float32)
        return load(checkpoint)

    return make


def straight(both, recipe, short_text) -> dict[str, torch.Tensor]:
    lm = both(False)
    prune(lm, recipe, short_text, progress=False)
    return block_weights_of(lm)


def kept(folder) -> dict:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# only a job's own files are removed


def test_a_folder_that_was_there_before_is_never_touched(place, run):
    theirs = place / "out.work"
    (theirs / "deep").mkdir(parents=True)
    (theirs / "thesis.txt").write_text("years of work")
    (theirs / "deep" / "model.safetensors").write_bytes(b"weights")
    before = kept(theirs)
    status, said = run(command("sequential"))
    assert status == 1 and "out.work is not a work folder of this command, it holds deep, thesis.txt" in said
    assert kept(theirs) == before and not (place / "out").exists()


# damaged files


def remove(file):
    file.unlink()


PLACES = [
    *(("sequential", damaged) for damaged in ("rows", "hidden-0", "hidden-1", "blocks/00000", "progress")),
    ("owl", "statistics"),
    ("dense gram", "hidden-1"),
]


@pytest.mark.parametrize(("name", "damaged"), PLACES)
@pytest.mark.parametrize("streamed", [False, True])
def test_whatever_is_damaged_comes_out_the_same(
    both, short_text, tmp_path, killed_at, name, damaged, streamed
):
    recipe = RECIPES[name]
    expected = straight(both, recipe, short_text)

    for layer, damage in ((1, flip), (2, remove)):
        with killed_at(layer):
            lm = both(streamed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                prune(lm, recipe, short_text, progress=False, work=tmp_path)

        pattern = "statistics*" if damaged == "statistics" else f"job-*/{damaged}.*"
        files = list(tmp_path.glob(pattern))
        assert files
        for file in files:
            damage(file)

    lm = both(streamed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        prune(lm, recipe, short_text, progress=False, work=tmp_path)

    assert same(block_weights_of(lm), expected)


def test_what_counts_has_reached_the_disk(both, short_text, tmp_path, monkeypatch):
    """A file is flushed before it takes its name, and its folder before progress counts it."""
    events = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        events.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_replace(source, target):
        events.append(("rename", str(source), str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    prune(both(False), SEQUENTIAL, short_text, progress=False, work=tmp_path)
    renames = [index for index, event in enumerate(events) if event[0] == "rename"]
    assert len(renames) >= 2 + 2 * 3
    for index in renames:
        _, source, target = events[index]
        assert events[index - 1] == ("flush", source)
        assert events[index + 1] == ("flush", os.path.dirname(target))
    counted = [index for index in renames if events[index][2].endswith("progress.json")]
    for layer, index in enumerate(counted[-3:-1]):
        earlier = events[counted[-4 + layer] : index]
        assert ("flush", str(next(tmp_path.glob("job-*")) / f"hidden-{(layer + 1) % 2}.bin")) in earlier


# one atomic output


@pytest.mark.parametrize("way", ["sequential", "sequential, streamed", "structured"])
def test_a_rerun_after_a_finished_save_says_so(place, run, monkeypatch, way):
    with monkeypatch.context() as patches:
        patches.setattr("sinkprune.cli.prune.discard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(command(way))[0] == main.INTERRUPTED
    assert (place / "out" / "sinkprune-linears.csv").is_file() and (place / "out.work").is_dir()
    before = contents(place / "out")
    scratch = place / ".out.1.abcd"
    scratch.mkdir()
    (scratch / ".held").touch()
    with pytest.warns(UserWarning, match="which a killed process left"):
        status, said = run(command(way))
    assert not scratch.exists()
    assert status == 0 and "out: finished already, from the same model, recipe and calibration text" in said
    assert contents(place / "out") == before and not (place / "out.work").exists()
    assert run(command(way))[0] == 0

    for changed, reason in (
        (("--sparsity", 0.3), "exists: choose another name or remove it first"),
        (("--seed", 1), "made by this recipe from another calibration"),
        (("--sequences", 5), "made by this recipe from another calibration"),
        (("--dtype", "bfloat16"), "made by this recipe from another model"),
        (("--dry-run",), "exists: choose another name or remove it first"),
    ):
        status, said = run(command(way, *changed))
        assert status == 1 and reason in said, changed
    assert contents(place / "out") == before


# another amount of free memory


@pytest.mark.parametrize("began_streamed", [False, True])
def test_a_killed_run_goes_on_as_it_began_however_much_memory_is_free_by_now(
    place, run, monkeypatch, began_streamed
):
    def free_memory(is_little: bool) -> None:
        monkeypatch.setattr("sinkprune.cli.common.STREAM_ABOVE", 0.0 if is_little else 1.0)

    free_memory(began_streamed)
    assert run(command("sequential"))[0] == 0
    expected = contents(place / "out")
    shutil.rmtree(place / "out")

    with monkeypatch.context() as patches:
        finish = PruningCheckpoint.finish
        patches.setattr(
            PruningCheckpoint,
            "finish",
            lambda self, lm, at: (
                (_ for _ in ()).throw(KeyboardInterrupt) if at == 2 else finish(self, lm, at)
            ),
        )
        assert run(command("sequential"))[0] == main.INTERRUPTED

    free_memory(not began_streamed)
    status, said = run(command("sequential"))
    assert status == 0, said
    assert (", streamed from disk" in said) == began_streamed

    found = contents(place / "out")
    assert found == expected
    assert found["sinkprune.json"]["made_from"]["streamed"] == began_streamed

    status, said = run(command("sequential"))
    assert status == 0 and "finished already" in said


def test_a_work_folder_that_does_not_say_how_its_model_was_opened_goes_on(
    both, short_text, tmp_path, killed_at
):
    with killed_at(1):
        prune(both(True), SEQUENTIAL, short_text, progress=False, work=tmp_path)

    file = tmp_path / "work.json"
    said = json.loads(file.read_text())
    del said["streamed"]
    file.write_text(json.dumps(said))

    lm = both(True)
    prune(lm, SEQUENTIAL, short_text, progress=False, work=tmp_path)
    assert same(block_weights_of(lm), straight(both, SEQUENTIAL, short_text))


# plans are kept


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", ["owl", "global"])
def test_a_plan_is_not_made_anew(both, short_text, tmp_path, killed_at, monkeypatch, streamed, name):
    recipe = OWL if name == "owl" else Recipe(pattern="global", propagation="dense")
    expected = straight(both, recipe, short_text)

    with killed_at(1):
        prune(both(streamed), recipe, short_text, progress=False, work=tmp_path)

    for file in tmp_path.rglob("*"):
        os.utime(file, (4 * 10**9, 4 * 10**9))  # in the year 2096: no time of day decides anything

    monkeypatch.setattr(choice, "outlier_share", lambda *_: pytest.fail("outliers were measured again"))
    monkeypatch.setattr(choice.GlobalThreshold, "of", lambda *_: pytest.fail("a threshold was sought again"))

    lm = both(streamed)
    prune(lm, recipe, short_text, progress=False, work=tmp_path / ".." / tmp_path.name)  # another spelling

    assert same(block_weights_of(lm), expected)


# hidden states


def test_a_disk_without_room_is_one_sentence_and_leaves_no_file(place, run, monkeypatch):
    def full(descriptor, start, size):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(os, "posix_fallocate", full)
        status, said = run(command("sequential, streamed"))
    last = said.splitlines()[-1]
    assert status == 1 and last.startswith("error: ") and "GB of hidden states in" in last
    assert "cannot be written (No space left on device): make room there" in last
    assert not list(place.glob("out.work/job-*/hidden-*"))
    assert run(command("sequential, streamed"))[0] == 0


# locks

HOLD = """
import sys, time
from sinkprune.files import held
with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder():
    """A function that starts a process that holds a path; all are killed at the end."""
    started = []

    def start(path) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("held", ["out", "out.work", "mine"])
def test_a_second_process_says_who_is_at_work_before_it_begins(place, run, holder, monkeypatch, held):
    process = holder(place / held)

    more = ("--work", "mine") if held == "mine" else ()

    with monkeypatch.context() as patches:
        patches.setattr("sinkprune.cli.common.open_model", lambda *_: pytest.fail("the model was loaded"))
        status, said = run(command("sequential", *more))

    assert status == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"error: {place / held} is in use by process {process.pid} on ")
    assert " since 20" in last and last.endswith(": wait until that has ended, or choose another place")
    assert not (place / "out").exists() and not list(place.glob("*/job-*"))

    process.kill()
    process.wait()
    assert run(command("sequential", *more))[0] == 0
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")]


# fingerprints of streamed models


@pytest.fixture
def own(checkpoint, tmp_path, monkeypatch):
    """A model's folder whose files may be changed, and an empty cache."""
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(checkpoint, tmp_path / "own")


def shards(folder) -> list:
    return sorted(folder.glob("*.safetensors"))


def fingerprint(folder, dtype=torch.float32) -> str:
    return stream(open_checkpoint(folder), "a name", dtype).fingerprint()


def test_a_fingerprint_covers_every_byte_whatever_the_time_says(own, monkeypatch):
    monkeypatch.setattr(files, "FRESH", -1)  # every digest is kept
    known = {fingerprint(own)}

    file = shards(own)[-1]
    status = file.stat()
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")

    for place in (header, (header + status.st_size) // 2, status.st_size - 1):
        flip(file, place)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        known.add(fingerprint(own))

    assert len(known) == 4


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ("dtype", r"model \(\w{16} there, \w{16} here\)"),
        ("weights", "model"),
        ("settings", "settings"),
        ("mask", "settings"),
        ("text", r"calibration \(\w{16} there, \w{16} here\)"),
        ("seed", "calibration"),
    ],
)
def test_a_run_does_not_go_on_with_another_model_or_text(
    own, short_text, tmp_path, killed_at, change, differing
):
    def make(dtype=torch.float32):
        return stream(open_checkpoint(own), "a name", dtype)

    work = tmp_path / "work"
    with killed_at(1):
        prune(make(), SEQUENTIAL, short_text, progress=False, work=work)
    before = kept(work)
    if change == "weights":
        flip(shards(own)[-1])
    lm, text = make(torch.bfloat16 if change == "dtype" else torch.float32), short_text
    if change == "settings":
        lm.model.config.rms_norm_eps *= 2
    if change == "mask":
        lm = copy.copy(lm)
        object.__setattr__(lm, "mask_token_id", lm.mask_token_id - 1)
    if change == "text":
        text = Calibration(text.ids_NT.flip(0), text.seed, text.batch)
    if change == "seed":
        text = Calibration(text.ids_NT, text.seed + 1, text.batch)

    said = rf"the work folder .*work belongs to another run; it differs in {differing}.*use another folder"
    with pytest.raises(ValueError, match=said):
        prune(lm, SEQUENTIAL, text, progress=False, work=work)
    assert kept(work) == before

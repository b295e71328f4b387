"""A killed pass over the text goes on where it was, wherever inputs wait, and ends with the same bits."""

import pytest
import torch
from damage import flip

from sinkprune import load, prune
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.streaming import stream
from sinkprune.runs import on_disk
from sinkprune.runs.diagnosing import diagnose
from sinkprune.runs.on_disk import KeptPoints
from sinkprune_core import Calibration, Recipe
from sinkprune_core.calibration import dense_statistics

pytestmark = pytest.mark.slow

LAYERS, LEVELS, SEQUENCES, BATCH = 3, 2, 6, 4
BATCHES = LEVELS * SEQUENCES // BATCH

WAYS = {
    "batch by batch": (1 << 30, 0, False),
    "one pass, inputs on disk": (0, 1 << 40, False),
    "one pass, inputs on disk, streamed": (0, 1 << 40, True),
    "two passes": (0, 0, False),
    "two passes, streamed": (0, 0, True),
}
ON_DISK = "one pass, inputs on disk, streamed"
BY_BLOCKS = "two passes, streamed"


@pytest.fixture
def text(make_ids) -> Calibration:
    return Calibration(make_ids(SEQUENCES, 12), seed=1, batch=BATCH)


@pytest.fixture(scope="module")
def known() -> dict:
    """What runs that nothing killed have found."""
    return {}


@pytest.fixture
def straight(going, known):
    """A function that returns what a run in one of WAYS finds that nothing kills, and its calls."""

    def run(way: str, **options):
        name = (way, *options.values())
        if name not in known:
            known[name] = going(way, "straight", **options)
        return known[name]

    return run


@pytest.fixture
def going(checkpoint, text, tmp_path, monkeypatch):
    """A function that diagnoses a model anew in one of WAYS; it returns what is found and the finished calls.

    It is killed when blocks have run `calls` times in all. Every point is written.
    """
    monkeypatch.setattr(on_disk, "EVERY", 0)

    def run(way: str, work: str, calls: float = float("inf"), **options):
        memory, disk, is_streamed = WAYS[way]
        monkeypatch.setattr(dense_statistics, "WAITING_BYTES", memory)
        monkeypatch.setattr(on_disk, "free_disk_at", lambda folder: disk)
        if is_streamed:
            lm = stream(open_checkpoint(checkpoint), "streamed", torch.float32)
        else:
            lm = load(checkpoint, "float32")

        finished = 0

        def count(*_):
            nonlocal finished
            finished += 1
            if finished == calls:
                raise KeyboardInterrupt

        for block in lm.blocks:
            last = list(lm.linears(block).values())[-1]  # a block itself is called for its masks, too
            last.register_forward_hook(count)
        try:
            found = diagnose(lm, text, noise_levels=LEVELS, progress=False, work=tmp_path / work, **options)
        except KeyboardInterrupt:
            found = None
        return found, finished

    return run


def remove(file) -> None:
    file.unlink()


def cut(file) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def assert_equal(found, expected) -> None:
    assert found.table.equals(expected.table)
    assert found.left_out == expected.left_out


@pytest.mark.parametrize("way", WAYS)
def test_a_diagnosis_that_is_killed_again_and_again_repeats_no_finished_block(going, straight, tmp_path, way):
    expected, once = straight(way)
    of_unit = LAYERS if way == "batch by batch" else BATCHES  # calls until the next point

    found, kills, calls = None, 0, 0
    while found is None:
        found, more = going(way, "killed", of_unit + 1)
        kills += found is None
        calls += more

    assert kills >= 2
    assert calls == once + kills  # of each run the one call after its last point is lost
    assert_equal(found, expected)
    kept = {path.name for path in (tmp_path / "killed").iterdir()}
    assert kept == {"work.json", f"norms-all-{LEVELS}.safetensors", f"norms-all-{LEVELS}.safetensors.sha256"}


@pytest.fixture
def killed_while_summing(going, monkeypatch):
    """A function that kills a run when three inputs of linears are summed, and returns what was read."""

    def run(work: str, **options) -> set[int]:
        take = KeptPoints.pop
        taken = []

        def counted(points, number):
            if len(taken) == BATCHES * 3 + 1:  # and the fourth one in part
                raise KeyboardInterrupt
            taken.append(number)
            return take(points, number)

        with monkeypatch.context() as patches:
            patches.setattr(KeptPoints, "pop", counted)
            assert going(ON_DISK, work, **options)[0] is None
        return set(taken[:-1])

    return run


def test_inputs_that_were_summed_before_a_kill_are_not_read_again(going, straight, killed_while_summing):
    expected, _ = straight(ON_DISK)
    assert not killed_while_summing("killed") & killed_while_summing("killed")

    found, calls = going(ON_DISK, "killed")
    assert calls == 0
    assert_equal(found, expected)


@pytest.mark.parametrize(
    ("way", "damaged", "damage"),
    [
        (ON_DISK, "pass-*.safetensors", flip),
        (ON_DISK, "hidden-at-*.bin", remove),
        (ON_DISK, "inputs/0.safetensors", flip),
        (ON_DISK, "inputs/0.safetensors", remove),
        (BY_BLOCKS, "hidden-at-*.bin", flip),
        (BY_BLOCKS, "pass-*.safetensors", cut),
    ],
)
def test_where_something_of_a_point_is_damaged_the_pass_begins_anew(
    going, straight, tmp_path, way, damaged, damage
):
    expected, once = straight(way)
    assert going(way, "killed", 2 * BATCHES + 1)[0] is None
    (file,) = (tmp_path / "killed").glob(damaged)
    damage(file)

    with pytest.warns(UserWarning, match="is damaged: the pass over the text begins anew"):
        found, calls = going(way, "killed")
    assert calls == once
    assert_equal(found, expected)


def test_another_diagnosis_in_the_same_folder_takes_its_sinks_from_there_and_disturbs_none(going, straight):
    expected, _ = straight(BY_BLOCKS)
    other, _ = straight(BY_BLOCKS, sinks="unstable")
    assert going(BY_BLOCKS, "killed", (LAYERS + 1) * BATCHES + 1)[0] is None
    assert going(BY_BLOCKS, "killed", BATCHES + 1, sinks="unstable")[0] is None
    assert_equal(going(BY_BLOCKS, "killed")[0], expected)
    assert_equal(going(BY_BLOCKS, "killed", sinks="unstable")[0], other)


def test_a_pass_of_seconds_writes_no_points(going, tmp_path, monkeypatch):
    monkeypatch.setattr(on_disk, "EVERY", 3600)  # a pass is shorter than that
    assert going(BY_BLOCKS, "killed", 4 * BATCHES)[0] is None
    assert not list((tmp_path / "killed").glob("pass-*"))


def test_sinks_of_an_unknown_name_are_refused_before_the_work(going, tmp_path):
    with pytest.raises(ValueError, match="exclude='some'"):
        going(BY_BLOCKS, "refused", sinks="some")
    assert not (tmp_path / "refused").exists()


def strong_tokens(context):
    """A choice of one's own: the tokens that get more attention than others."""
    return (context.profile_NST > context.profile_NST.mean(2, keepdim=True)).float()


@pytest.mark.parametrize("way", ["two passes", BY_BLOCKS])
def test_a_function_of_ones_own_is_not_diagnosed_in_a_work_folder(going, tmp_path, way):
    with pytest.raises(ValueError, match=r"sinks=.*strong_tokens.* leave out work="):
        going(way, "refused", sinks=strong_tokens)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("propagation", ["dense", "sequential"])
def test_pruning_that_is_killed_in_a_pass_before_the_first_block_goes_on_too(
    checkpoint, text, tmp_path, monkeypatch, propagation
):
    monkeypatch.setattr(on_disk, "EVERY", 0)
    recipe = Recipe(inputs="noised", noise_levels=LEVELS, exclude="all", propagation=propagation)

    def run(calls: float, work: str):
        lm = stream(open_checkpoint(checkpoint), "streamed", torch.float32)
        finished = []

        def count(block, *_):
            finished.append(block)
            if len(finished) == calls:
                raise KeyboardInterrupt

        for block in lm.blocks:
            last = list(lm.linears(block).values())[-1]  # a block itself is called for its masks, too
            last.register_forward_hook(count)
        try:
            prune(lm, recipe, text, progress=False, work=tmp_path / work)
        except KeyboardInterrupt:
            return None, len(finished)
        pruned = {
            f"{layer} {name}": value
            for layer, block in lm.finished.items()
            for name, value in block.tensors().items()
        }
        return pruned, len(finished)

    expected, straight = run(float("inf"), "straight")
    assert run(2 * BATCHES + 1, "killed")[0] is None
    found, calls = run(float("inf"), "killed")
    assert calls == straight - 2 * BATCHES
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

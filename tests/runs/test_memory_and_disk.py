"""What a run is said to take: as much disk as a real one fills, never less for more work, and 8B by hand."""

from itertools import pairwise

import pytest
import torch

from sinkprune import load, prune
from sinkprune.files import bytes_below
from sinkprune.models.catalog import MODELS
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.meta_model import meta_model
from sinkprune.models.streaming import stream
from sinkprune.recovery.model_card import save_model
from sinkprune.runs import memory_and_disk, resume
from sinkprune.runs.memory_and_disk import PROCESS_BYTES, Needs, lacks, pruning_needs, training_needs
from sinkprune.runs.resume import HiddenFiles, ResumedRun
from sinkprune_core import Calibration, Recipe, preset

LLADA = "GSAI-ML/LLaDA-8B-Base"
WAYS = "less text"


def text_of(sequences: int, length: int, batch: int = 16) -> Calibration:
    return Calibration(torch.arange(sequences * length).view(sequences, length) % 50, batch=batch)


# pruning


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("sequences", [4, 60])  # blocks are larger than hidden states, and smaller
@pytest.mark.parametrize("exclude", ["none", "all"])
def test_pruning_fills_as_much_disk_as_it_is_said_to(
    checkpoint, tmp_path, monkeypatch, streamed, sequences, exclude
):
    lm = load(checkpoint)
    if streamed:
        lm = stream(open_checkpoint(checkpoint), "streamed", torch.float32)
    recipe = Recipe("sparsegpt", inputs="noised", noise_levels=2, exclude=exclude)
    text = text_of(sequences, 12)
    needed = pruning_needs(lm, recipe, text)

    filled = []

    def measured(write):
        def run(*arguments, **options):
            written = write(*arguments, **options)
            filled.append(bytes_below(tmp_path / "work"))
            return written

        return run

    monkeypatch.setattr(resume, "EVERY", 0)  # a pass of seconds writes all that a long one does
    monkeypatch.setattr(HiddenFiles, "__call__", measured(HiddenFiles.__call__))
    monkeypatch.setattr(ResumedRun, "finish", measured(ResumedRun.finish))
    prune(lm, recipe, text, progress=False, work=tmp_path / "work")
    save_model(lm, tmp_path / "out")

    inodes = {}
    for file in [*(tmp_path / "work").rglob("*"), *(tmp_path / "out").glob("*.safetensors")]:
        inodes[file.stat().st_ino] = file.stat().st_size  # a block that is taken over lies there once
    filled.append(sum(inodes.values()))

    assert needed.disk == pytest.approx(max(filled), rel=0.25)


def test_more_text_or_more_of_a_model_never_takes_less(make_lm):
    wanda, paper = preset("wanda"), Recipe(inputs="noised", noise_levels=4, exclude="all")
    small, large = make_lm("diffusion", layers=2), make_lm("diffusion", layers=4)

    rising = [
        (small, wanda, text_of(2, 8, batch=1)),
        (small, wanda, text_of(2, 8, batch=2)),
        (small, wanda, text_of(200, 8, batch=2)),
        (small, wanda, text_of(200, 16, batch=2)),
        (small, paper, text_of(200, 16, batch=2)),
        (large, paper, text_of(200, 16, batch=2)),
    ]
    for in_work_folder, is_saved in ((True, True), (True, False), (False, False)):
        needs = [pruning_needs(*run, in_work_folder, is_saved) for run in rising]
        for less, more in pairwise(needs):
            assert more.memory >= less.memory and more.disk >= less.disk and more != less


def test_hidden_states_wait_in_memory_or_on_the_disk(make_lm):
    lm, text = make_lm("diffusion"), text_of(9, 12)
    on_disk = pruning_needs(lm, preset("wanda"), text, is_saved=False)
    in_memory = pruning_needs(lm, preset("wanda"), text, in_work_folder=False, is_saved=False)
    one_block = 9 * 12 * 4 * lm.model.config.hidden_size
    assert on_disk.disk == 2 * one_block and in_memory.disk == 0
    assert in_memory.memory - on_disk.memory == 2 * one_block


def test_a_recipe_that_reads_no_text_takes_the_weights_alone(make_lm):
    lm = make_lm("diffusion")
    weights = sum(parameter.nbytes for parameter in lm.model.parameters())
    needed = pruning_needs(lm, preset("magnitude"), None, in_work_folder=False)
    assert needed.disk == weights
    assert weights < needed.memory - PROCESS_BYTES < 3 * weights


def test_a_model_of_8b_by_its_shape_alone_is_as_large_as_by_hand():
    lm = meta_model(MODELS[LLADA])
    linears = 32 * (4 * 4096**2 + 3 * 4096 * 12288)
    norms = 32 * 2 * 4096
    outside = 2 * 126464 * 4096 + 4096
    weights, blocks = 2 * (linears + norms + outside), 2 * (linears + norms)

    text = text_of(128, 2048)
    wanda, sparsegpt = (pruning_needs(lm, preset(name), text) for name in ("wanda", "sparsegpt"))

    scores = 3 * 4 * 4096 * 12288
    batch = 16 * 2048 * (4 * 4 * 12288 + 2 * 2 * 4096)
    assert wanda.memory == PROCESS_BYTES + weights + scores + batch
    assert wanda.disk == blocks + weights
    grams = 4 * (3 * 4096**2 + 12288**2) + 14 * 12288**2
    assert sparsegpt.memory - wanda.memory == grams and sparsegpt.disk == wanda.disk


# training


def test_training_counts_weights_moments_and_a_teacher(make_lm):
    lm, teacher = make_lm("diffusion", "gqa-24", layers=3), make_lm("diffusion", "gqa-24", layers=12)
    run = {"batch": 8, "length": 12, "logits": 1000}
    alone = training_needs(lm, **run)
    weights = sum(parameter.numel() for parameter in lm.model.parameters())
    trained = sum(parameter.numel() for parameter in lm.blocks.parameters())

    assert alone.memory > PROCESS_BYTES + 4 * weights + lm.prunable_weights + 12 * trained
    assert alone.disk == 4 * weights + 24 * trained

    taught = training_needs(lm, **run, teacher=teacher)
    of_teacher = sum(parameter.nbytes for parameter in teacher.model.parameters())
    assert taught.memory - alone.memory == of_teacher + 3 * run["logits"] and taught.disk == alone.disk


def test_what_takes_less_to_train_is_said_to_take_less():
    lm = meta_model(MODELS[LLADA])
    run = {"batch": 8, "length": 128, "logits": 1 << 28}
    whole = training_needs(lm, **run)
    lora = training_needs(lm, **run, rank=16)
    recomputed = training_needs(lm, **run, rank=16, recomputed=True)
    assert whole.memory > lora.memory > recomputed.memory and whole.disk > lora.disk
    assert training_needs(lm, 4, 128, 1 << 28).memory < whole.memory


# what a machine lacks


def test_a_machine_with_room_lacks_nothing_and_a_loaded_model_counts_as_room(tmp_path, monkeypatch):
    needed = Needs(PROCESS_BYTES + 1000, 0)
    places = ("cpu", tmp_path / "out", tmp_path / "work", WAYS)
    monkeypatch.setattr(memory_and_disk, "available_memory", lambda _: 400)

    assert lacks(needed, *places, loaded=600) == []
    (said,) = lacks(needed, *places, loaded=599)
    assert "lacks memory" in said and said.endswith(f"take {WAYS}, or a larger machine")


def test_one_disk_that_is_too_small_is_said_once_and_what_a_run_left_counts_as_room(tmp_path, monkeypatch):
    work = tmp_path / "work"
    monkeypatch.setattr(memory_and_disk, "free_disk_at", lambda _: 400)

    (said,) = lacks(Needs(0, 1000), "cpu", tmp_path / "out", work, WAYS)
    assert "lacks disk" in said and "make room or choose another place" in said

    work.mkdir()
    (work / "left").write_bytes(bytes(600))
    assert lacks(Needs(0, 1000), "cpu", tmp_path / "out", work, WAYS) == []

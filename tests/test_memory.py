"""What is in memory at once, told from which storages are alive: a laptop or Binder has 1 to 2 GB to give."""

import json
import re
import subprocess
import sys
import weakref
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft.tuners.lora import Linear
from safetensors.torch import load_file
from torch.multiprocessing.reductions import StorageWeakRef

from sinkprune_companion.experiments import variants
from sinkprune_companion.experiments.masks import kept_masks
from sinkprune_companion.experiments.variants import SharedStatistics, Variant
from sinkprune_companion.run import records
from sinkprune_companion.run.records import Run
from sinkprune_core import memory
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.diffusion.samplers import DREAM_SAMPLER, LLADA_SAMPLER
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.evaluation import likelihood, token_losses
from sinkprune_core.models import adapters, embedded, reader
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.reader import Checkpoint
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import Recipe, preset


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)
    return Run("00_test", "quick", {})


@dataclass(frozen=True)
class Watched(LanguageModel):
    """A model that counts how many of its logits are still alive whenever it starts on the next ones."""

    made: list = field(default_factory=list)
    alive: list = field(default_factory=list)

    def raw_logits(self, hidden_ND):
        self.alive.append(sum(not made.expired() for made in self.made))
        logits_NV = super().raw_logits(hidden_ND)
        self.made.append(StorageWeakRef(logits_NV.untyped_storage()))
        return logits_NV


def watched(lm) -> Watched:
    return Watched(**{part.name: getattr(lm, part.name) for part in fields(LanguageModel)})


@pytest.mark.parametrize(
    "sampler",
    [
        LLADA_SAMPLER,
        DREAM_SAMPLER,
        replace(LLADA_SAMPLER, temperature=1.0),
        replace(DREAM_SAMPLER, temperature=0.5, proposal="filtered", top_p=0.9),
    ],
    ids=["llada", "dream", "noise", "filtered"],
)
def test_a_step_holds_no_logits_of_the_step_before(tiny_dlm, make_ids, sampler):
    lm = watched(tiny_dlm)
    generate(lm, make_ids(2, 4), replace(sampler, length=8, steps=4, block=None))
    assert lm.alive == [0] * 4


def test_with_guidance_a_step_holds_its_own_two_logits_and_no_more(tiny_dlm, make_ids):
    lm = watched(tiny_dlm)
    generate(lm, make_ids(2, 4), replace(LLADA_SAMPLER, length=8, steps=4, block=None, guidance=1.0))
    assert lm.alive == [0, 1] * 4


def test_the_head_holds_one_slice_of_logits_and_slices_change_no_loss(tiny_dlm, make_ids, monkeypatch):
    ids_NT = make_ids(4, 12)
    whole = likelihood.nelbo(tiny_dlm, ids_NT, draws=2)
    monkeypatch.setattr(token_losses, "HEAD_SLICE", 5)
    lm = watched(tiny_dlm)
    pd.testing.assert_frame_equal(likelihood.nelbo(lm, ids_NT, draws=2), whole)
    assert len(lm.alive) > 4 and set(lm.alive) == {0}


EVENTS = {  # in order: statistics of the dense model are collected, weights are copied
    "dense": (None, []),
    "magnitude": (preset("magnitude"), ["copy"]),
    "sequential": (preset("wanda"), ["copy"]),
    "dense propagation": (
        Recipe(inputs="noised", propagation="dense", noise_levels=2),
        ["statistics", "copy"],
    ),
}


@pytest.mark.parametrize("announced", [True, False], ids=["shared statistics", "its own"])
@pytest.mark.parametrize("name", EVENTS)
def test_weights_are_copied_for_pruning_alone_and_after_dense_statistics(
    tiny_dlm, make_ids, run, monkeypatch, name, announced
):
    recipe, expected = EVENTS[name]
    calibration = Calibration(make_ids(2, 12))
    texts = {"text": make_ids(2, 12, seed=1)}
    events = []

    def noted(event, function):
        def call(*arguments, **named):
            events.append(event)
            return function(*arguments, **named)

        return call

    def shared_statistics(recipes):
        return SharedStatistics(tiny_dlm, recipes, calibration) if announced else None

    monkeypatch.setattr(variants, "dense_statistics", noted("statistics", variants.dense_statistics))
    monkeypatch.setattr(variants, "weights_kept", noted("copy", variants.weights_kept))
    shared = shared_statistics([recipe] if recipe else [])
    before = tiny_dlm.fingerprint()
    with Variant(tiny_dlm, before, recipe, calibration, shared) as variant:
        found = variant.scores(run, texts, 2, variant=name)
    assert events == expected and tiny_dlm.fingerprint() == before
    if recipe:
        with weights_kept(tiny_dlm):
            report = prune(tiny_dlm, recipe, calibration, progress=False)
            by_hand = variants.score_texts(tiny_dlm, texts, 2)
        assert found.value.tolist() == pytest.approx(by_hand.value.tolist())
        assert found.zeros.tolist() == pytest.approx([report.sparsity] * 2)
        events.clear()
        kept_masks(tiny_dlm, recipe, calibration, shared_statistics([recipe]))
        assert events == expected


def test_memory_goes_back_after_every_record_that_was_computed(run, monkeypatch):
    """And not before what `compute` made is free: its arrays are dead when the memory is given back."""
    events, needed = [], []

    def compute():
        array = torch.zeros(3)
        needed.append(weakref.ref(array))
        return pd.DataFrame({"value": [float(array.sum())]})

    monkeypatch.setattr(records, "release_freed_memory", lambda: events.append(needed[-1]() is None))
    run.record("one", compute, seed=0)
    run.record("one", compute, seed=0)  # read
    run.record("one", compute, seed=1)
    assert events == [True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_adapter_is_merged_in_float32_one_linear_at_a_time(monkeypatch, dtype):
    """As float32 matrices give it, to the bit, with one of them in memory where the base is bfloat16."""
    base = Checkpoint(embedded.base_folder()).load(torch.bfloat16)
    weights = {name: weight.clone() for name, weight in base.named_parameters()}
    wide = []  # parameters in float32 whenever a linear is merged
    merge = Linear.merge

    def counted(layer, *arguments, **named):
        wide.append([parameter.dtype for parameter in parameters].count(torch.float32))
        return merge(layer, *arguments, **named)

    parameters = list(base.parameters())
    monkeypatch.setattr(Linear, "merge", counted)
    merged = adapters.merge_adapter(base, embedded.ADAPTER, dtype)
    linears = 7 * len(merged.model.layers)
    assert wide == ([1] * linears if dtype != torch.float32 else list(range(1, linears + 1)))
    adapter = load_file(embedded.ADAPTER / "adapter_model.safetensors")
    settings = json.loads((embedded.ADAPTER / "adapter_config.json").read_text())
    scale = settings["lora_alpha"] / settings["r"]
    for name, found in merged.named_parameters():
        lora = f"base_model.model.{name.removesuffix('.weight')}.lora"
        expected = weights[name].float()
        if f"{lora}_A.weight" in adapter:
            product = adapter[f"{lora}_B.weight"].float() @ adapter[f"{lora}_A.weight"].float()
            expected = expected + product * scale
        assert torch.equal(found, expected.to(dtype)), name


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(),
    reason="the system does not say which pages of a file are in memory",
)
def test_reading_a_model_lets_go_of_the_pages_it_has_read(monkeypatch):
    """Never more than twice MAPPED of its 269 MB are pages in memory (the embedding alone is 57 MB)."""
    folder = embedded.base_folder()
    resident = []  # bytes of the folder's files in memory whenever a tensor is read
    tensor = reader.Checkpoint.tensor

    def measured(checkpoint, name):
        smaps = Path("/proc/self/smaps").read_text()
        smaps = re.sub(r"\n(?:Size|KernelPageSize|MMUPageSize):.*", "", smaps)
        found = re.findall(rf"{re.escape(str(folder))}.*?\nRss: +(\d+)", smaps)
        resident.append(sum(map(int, found)) * 1024)
        return tensor(checkpoint, name)

    monkeypatch.setattr(reader.Checkpoint, "tensor", measured)
    model = Checkpoint(folder).load(torch.bfloat16)
    assert 0 < max(resident) <= 2 * reader.MAPPED
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(stored[name], weight) for name, weight in model.named_parameters())


# how much is free


def group(folder: Path, limit: object, used: int, files: int, version: int = 2) -> None:
    """Write what a control group says of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    prefix = "" if version == 2 else "total_"
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"{prefix}anon 7\n{prefix}inactive_file {files}\n{prefix}active_file 5\n"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_every_limit_above_a_process_counts_and_cached_files_are_free(tmp_path, version):
    own = tmp_path / "own"
    own.write_text("4:memory:/a/b\n1:cpu:/x\n" if version == 1 else "0::/a/b\n")
    mounted = tmp_path / "memory" if version == 1 else tmp_path
    group(mounted, "max" if version == 2 else 2**63 - 4096, 9_000, 0, version)
    assert memory._free_in_groups(tmp_path, own) > 1 << 60
    group(mounted / "a", 5_000, 4_000, 1_000, version)
    assert memory._free_in_groups(tmp_path, own) == 5_000 - (4_000 - 1_005)
    group(mounted / "a" / "b", 3_000, 2_900, 0, version)
    assert memory._free_in_groups(tmp_path, own) == 3_000 - (2_900 - 5)
    group(mounted / "a" / "b", 3_000, 3_500, 0, version)
    assert memory._free_in_groups(tmp_path, own) == 0


def test_in_a_container_whose_own_path_is_not_mounted_the_mounted_group_counts(tmp_path):
    (tmp_path / "own").write_text("0::/kubepods/pod7\n")
    group(tmp_path, 8_000, 1_000, 0)
    assert memory._free_in_groups(tmp_path, tmp_path / "own") == 8_000 - 995
    (tmp_path / "own").write_text("0::/../elsewhere\n")
    assert memory._free_in_groups(tmp_path, tmp_path / "own") == 8_000 - 995
    assert memory._free_in_groups(tmp_path / "none", tmp_path / "none") > 1 << 60


LIMITED = """
import resource
from sinkprune_core import memory
from sinkprune_companion.cli.inputs import require_memory
resource.setrlimit(resource.RLIMIT_AS, (memory._pages(0) + 200_000_000,) * 2)
print(memory.free_memory())
require_memory()
resource.setrlimit(resource.RLIMIT_AS, (memory._pages(0) + 10_000_000,) * 2)
try:
    require_memory()
except RuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what a process has mapped")
def test_the_limit_of_the_process_counts_and_too_little_is_a_sentence():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    free, said = done.stdout.splitlines()
    assert 100_000_000 < int(free) <= 200_000_000
    assert re.fullmatch(r"\d+ MB of memory can be had, and 67 MB are the least: end other programs, .*", said)

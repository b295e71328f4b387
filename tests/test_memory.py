"""What is in memory at once, told from which storages are alive, and how much is free."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pandas as pd
import pytest
from torch.multiprocessing.reductions import StorageWeakRef

from sinkprune import memory
from sinkprune.evaluation import likelihood, token_losses
from sinkprune_core import DREAM_SAMPLER, LLADA_SAMPLER, LanguageModel, generate


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
    """Return the model as one that counts, from now on: a new one is looked at, which makes logits, too."""
    made = Watched(**{part.name: getattr(lm, part.name) for part in fields(LanguageModel)})
    made.made.clear()
    made.alive.clear()
    return made


@pytest.mark.parametrize(
    "sampler",
    [
        LLADA_SAMPLER,
        DREAM_SAMPLER,
        replace(LLADA_SAMPLER, temperature=1.0),
        replace(DREAM_SAMPLER, temperature=0.5, proposal="filtered", top_p=0.9),
        replace(LLADA_SAMPLER, guidance=1.0),  # a step has logits with and without the prompt
    ],
    ids=["llada", "dream", "noise", "filtered", "guidance"],
)
def test_a_step_holds_no_logits_of_the_step_before(tiny_dlm, make_ids, sampler):
    lm = watched(tiny_dlm)
    generate(lm, make_ids(2, 4), replace(sampler, length=8, steps=4, block=None))
    assert lm.alive == ([0, 1] if sampler.guidance else [0]) * 4


def test_the_head_holds_one_slice_of_logits_and_slices_change_no_loss(tiny_dlm, make_ids, monkeypatch):
    ids_NT = make_ids(4, 12)
    whole = likelihood.nelbo(tiny_dlm, ids_NT, draws=2)
    monkeypatch.setattr(token_losses, "HEAD_SLICE", 5)
    lm = watched(tiny_dlm)
    pd.testing.assert_frame_equal(likelihood.nelbo(lm, ids_NT, draws=2), whole)
    assert len(lm.alive) > 4 and set(lm.alive) == {0}


# how much is free


def group(folder: Path, limit: object, used: int, files: int) -> None:
    """Write what a control group says of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\ninactive_file {files}\nactive_file 5\n")


def test_every_limit_above_a_process_counts_and_cached_files_are_free(tmp_path):
    own = tmp_path / "own"
    own.write_text("1:cpu:/x\n0::/a/b\n")

    group(tmp_path, "max", 9_000, 0)
    assert memory._free_in_groups(tmp_path, own) > 1 << 60

    group(tmp_path / "a", 5_000, 4_000, 1_000)
    assert memory._free_in_groups(tmp_path, own) == 5_000 - (4_000 - 1_005)

    group(tmp_path / "a" / "b", 3_000, 2_900, 0)
    assert memory._free_in_groups(tmp_path, own) == 3_000 - (2_900 - 5)

    group(tmp_path / "a" / "b", 3_000, 3_500, 0)
    assert memory._free_in_groups(tmp_path, own) == 0

"""A model with a number that is not finite is neither pruned nor scored: it is named before any work."""

import pytest
import torch
from random_models.cases import CASES
from random_models.writing import write

from sinkprune_core import load, nelbo, preset, prune
from sinkprune_core.models.reader import Checkpoint
from sinkprune_core.models.streaming import stream


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("part", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_a_model_with_a_number_that_is_not_finite_is_not_pruned(tmp_path, part, streamed):
    write(CASES["llama"], tmp_path / "public")
    lm = load(tmp_path / "public")
    lm.model.get_parameter(part).view(-1)[3] = torch.nan
    before = lm.fingerprint()
    if streamed:
        lm = stream(Checkpoint(lm.save(tmp_path / "saved")), "tiny", torch.float32)
    with pytest.raises(ValueError, match=f"{part} of .* holds numbers that are not finite"):
        prune(lm, preset("magnitude"), work=tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert streamed or lm.fingerprint() == before


def test_a_likelihood_that_is_not_finite_is_refused(tiny_dlm, make_ids):
    tiny_dlm.model.get_parameter("model.norm.weight")[3] = torch.nan
    with pytest.raises(ValueError, match=r"what tiny-diffusion computes in torch\.float32 is not finite"):
        nelbo(tiny_dlm, make_ids(2, 8))

"""A model whose blocks come from disk is saved as one in memory.

That it is pruned alike by any recipe is a property in pruning/test_valid_recipes.
"""

import pytest
import torch
from transformers import AutoModelForCausalLM

from sinkprune_core import Calibration, Recipe, load, prune
from sinkprune_core.models.loading import open_checkpoint
from sinkprune_core.models.streaming import stream

NAMES = ("llada", "dream", "a2d qwen3", "diffugpt", "smdm", "llama")


def both(path):
    checkpoint = open_checkpoint(path)
    return load(path), stream(checkpoint, "streamed", torch.float32)


def text(lm, rows=4, length=20):
    rng = torch.Generator().manual_seed(1)
    return torch.randint(21, lm.model.config.vocab_size - 1, (rows, length), generator=rng)


@pytest.mark.parametrize("name", NAMES)
def test_a_streamed_model_saves_what_stock_transformers_reads(name, folder, tmp_path):
    lm, streamed = both(folder(name))
    calibration = Calibration(text(lm))
    for model, work in ((lm, None), (streamed, tmp_path / "work")):
        prune(model, Recipe("magnitude"), calibration, progress=False, work=work)
    out = streamed.save(tmp_path / "out", note="kept")
    again = load(out)
    ids_BT = text(lm)
    torch.testing.assert_close(
        again.model(ids_BT, use_cache=False).logits, lm.model(ids_BT, use_cache=False).logits
    )
    stock = AutoModelForCausalLM.from_pretrained(out)
    assert all(torch.equal(value, again.model.state_dict()[key]) for key, value in stock.state_dict().items())
    assert again.kind == lm.kind
    assert again.mask_token_id == lm.mask_token_id
    assert again.logits_shifted == lm.logits_shifted
    with pytest.raises(FileExistsError, match="exists: choose another name"):
        streamed.save(out)

"""Smaller native models equal the masked ones, and stock transformers reads them."""

import pytest
import torch
from tiny_units import COMPENSATED, FAMILIES, WEIGHT_N, counts, logits, masked, some_kept, statistics_of
from transformers import AutoModelForCausalLM

from sinkprune.models.loading import load
from sinkprune.models.saving import save
from sinkprune.models.shrinking import shrink
from sinkprune_core.pruning.structured import mask


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_shrunk_model_equals_the_masked_one_and_stock_transformers_reads_it(
    make_family, make_ids, tmp_path, family, kind
):
    lm, ids_BT = make_family(family, kind), make_ids(3, 11)
    kept = some_kept(lm)
    dense = logits(lm, ids_BT)
    lm.model.name_or_path = "them/dense"
    smaller = shrink(lm, kept)
    assert smaller.model.name_or_path == "them/dense"
    assert torch.equal(logits(lm, ids_BT), dense)
    expected = logits(masked(lm, kept), ids_BT)
    assert not torch.allclose(expected, dense, atol=0.1)
    torch.testing.assert_close(logits(smaller, ids_BT), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(smaller.hidden(ids_BT), lm.hidden(ids_BT), atol=1e-4, rtol=1e-4)
    assert counts(smaller) == {kind: len(units) for kind, units in kept[0].items()}

    folder = save(smaller, tmp_path / "smaller")
    stock, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(stock).__name__ == type(lm.model).__name__ and not any(info.values())
    assert torch.equal(stock(ids_BT, use_cache=False).logits, logits(smaller, ids_BT))
    again = load(folder)
    assert again.fingerprint() == smaller.fingerprint()
    assert (again.kind, again.mask_token_id) == (lm.kind, lm.mask_token_id)
    assert again.logits_shifted == lm.logits_shifted


@pytest.mark.parametrize("compensated_blocks", [1, "all"])
@pytest.mark.parametrize("family", COMPENSATED)
def test_a_compensated_model_shrinks_to_one_with_native_biases(
    make_family, make_ids, tmp_path, family, compensated_blocks
):
    lm, ids_BT = make_family(family), make_ids(3, 11)
    kept = some_kept(lm)
    plain = shrink(lm, kept)

    for layer, block in enumerate(lm.blocks):
        compensate = None
        if compensated_blocks == "all" or layer < compensated_blocks:
            compensate = statistics_of(lm, layer, ids_BT, WEIGHT_N)
        mask(lm, block, kept[layer], compensate)

    if family == "llama-mha":
        with pytest.raises(ValueError, match="which its class cannot read: `shrink` it first"):
            save(lm, tmp_path / "unreadable")

    smaller = shrink(lm, kept)
    torch.testing.assert_close(logits(smaller, ids_BT), logits(lm, ids_BT), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(smaller, ids_BT), logits(plain, ids_BT), atol=1e-2)

    stock, info = AutoModelForCausalLM.from_pretrained(
        save(smaller, tmp_path / "smaller"), output_loading_info=True
    )

    assert not any(info.values())
    assert torch.equal(stock(ids_BT, use_cache=False).logits, logits(smaller, ids_BT))

    if family != "llama-biased":
        for name, value in stock.state_dict().items():
            if name.endswith(("q_proj.bias", "up_proj.bias")):
                assert not value.any(), "a bias that the model never had is zero"


def test_units_that_do_not_fit_the_model_are_refused(tiny_dlm):
    kept = some_kept(tiny_dlm)

    with pytest.raises(ValueError, match="kept has 2 entries for the 3 blocks"):
        shrink(tiny_dlm, kept[:2])

    with pytest.raises(ValueError, match=r"kept\[0\]\['attention'\] must be at least one unit of 0 …"):
        shrink(tiny_dlm, [{"mlp": each["mlp"]} for each in kept])

    for places in ([], [1, 0], [0, 0], [-1, 3], [0, 45]):
        with pytest.raises(
            ValueError, match=r"kept\[1\]\['mlp'\] must be at least one unit of 0 … 44, each once"
        ):
            shrink(tiny_dlm, [kept[0], {**kept[1], "mlp": torch.tensor(places, dtype=torch.long)}, kept[2]])

    said = r"kept\[2\]\['attention'\] holds 2 units, block 0 keeps 1: a config has one number for all blocks"
    with pytest.raises(ValueError, match=said):
        shrink(tiny_dlm, [*kept[:2], {**kept[2], "attention": torch.arange(2)}])


def test_a_head_tied_by_hand_is_saved_only_where_the_config_says_so(make_family, tmp_path):
    lm = make_family("llama-gqa", "diffusion")
    lm.model.config.tie_word_embeddings = False
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        save(lm, tmp_path / "saved")
    assert not any(tmp_path.iterdir())

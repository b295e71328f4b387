"""Tiny random models of forty architectures: what goes through equals naive code, the rest is refused.

The table is that of docs/models.md; `python tools/architectures.py` writes it anew.
"""

import json
from functools import partial

import naive
import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, DIRECTIONS, FILE, row_of, tiny
from conftest import word_tokenizer
from naive_attention import own_maps, window_keys

from sinkprune import load, nelbo, nll, prune, recover, save
from sinkprune.models.embedded import MASK_TOKEN
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.streaming import stream
from sinkprune_companion import project_root
from sinkprune_core import (
    Calibration,
    Sampler,
    attention_mass,
    diagnose,
    generate,
    hide,
    preset,
    trace,
    weights_kept,
    wrap,
)
from sinkprune_core.diffusion.sampling import decode

pytestmark = pytest.mark.slow

ROWS = json.loads((project_root() / FILE).read_text())
WRAPPED = [(name, kind) for name, row in ROWS.items() for kind in row["kinds"]]
FOLLOWED = [(name, kind) for name, kind in WRAPPED if ROWS[name]["sinks"]]
SAMPLER = Sampler(length=8, steps=4, block=4)
NOISE = {"noise_levels": 3, "sink_std": 0.5}


def wrapped(name: str, kind: str):
    return wrap(tiny(name), word_tokenizer(), **DIRECTIONS[kind])


def some_ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(17, 72, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_the_table_says_goes_through_does(name):
    """A later transformers may let more through, as 5.25 does for Falcon's attention, but never less."""
    shown, told = row_of(name), ROWS[name]
    assert shown["class"] == told["class"]
    assert set(shown["kinds"]) >= set(told["kinds"])
    assert shown["sinks"] >= told["sinks"]
    assert set(shown["refused"]) <= set(told["refused"])


def test_a_refusal_is_one_sentence():
    said = [words for row in ROWS.values() for words in row["refused"].values()]
    assert len(said) > 20 and len(ROWS) == len(ARCHITECTURES)
    assert all("\n" not in words and "get_seq_length" not in words for words in said)


@pytest.mark.parametrize(("name", "kind"), WRAPPED)
@torch.no_grad()
def test_masks_are_those_of_naive_code(name, kind):
    lm = wrapped(name, kind)
    ids_NT = some_ids(5, 16, seed=1)  # on which no score is as close to a threshold as rounding comes
    text = Calibration(ids_NT, batch=2)

    by_loops = naive.prune_by_sparsegpt(lm, "layer", 0.5, ids_NT)
    expected = {
        "magnitude": naive.prune(lm, "magnitude", 0.5),
        "wanda": naive.prune(lm, "wanda", 0.5, ids_RT=ids_NT),
        "sparsegpt": {
            place: set(map(tuple, np.argwhere(weight_OI == 0).tolist()))
            for place, weight_OI in by_loops.items()
        },
    }

    differing = {}
    for criterion, places in expected.items():
        with weights_kept(lm):
            prune(lm, preset(criterion), text, progress=False)
            found = naive.zeros_of(lm)
        assert found.keys() == places.keys() and all(places.values())
        differing[criterion] = sum(len(found[place] ^ places[place]) for place in places)

    assert differing == {"magnitude": 0, "wanda": 0, "sparsegpt": 0}


@pytest.mark.parametrize(("name", "kind"), FOLLOWED)
@torch.no_grad()
def test_attention_mass_is_that_of_eager_attention_within_the_windows(name, kind):
    lm = wrapped(name, kind)
    ids_BT = some_ids(2, 11)
    maps_BLHQK = own_maps(lm.model, ids_BT)

    mass_BLK = attention_mass(lm.model, ids_BT)
    torch.testing.assert_close(mass_BLK, maps_BLHQK.mean(2).sum(2), atol=1e-4, rtol=1e-4)

    for layer in range(len(lm.blocks)):
        seen_QK = window_keys(lm, layer, 11)
        assert not maps_BLHQK[:, layer, :, ~seen_QK].any()
        assert bool((maps_BLHQK[:, layer, :, seen_QK] > 0).float().mean() > 0.9)


@pytest.mark.parametrize(("name", "kind"), FOLLOWED)
@torch.no_grad()
def test_a_hidden_token_reaches_no_other(name, kind):
    lm = wrapped(name, kind)
    ids_BT = some_ids(1, 11)
    other_BT = ids_BT.clone()
    other_BT[0, 3] = 20 if ids_BT[0, 3] != 20 else 21
    others_T = torch.arange(11) != 3

    assert not torch.allclose(lm.hidden(ids_BT)[0, others_T], lm.hidden(other_BT)[0, others_T], atol=1e-3)
    with hide(lm.model, ~others_T[None]):
        before_BTD, after_BTD = lm.hidden(ids_BT), lm.hidden(other_BT)
    torch.testing.assert_close(before_BTD[0, others_T], after_BTD[0, others_T], atol=1e-5, rtol=1e-5)


def test_positions_are_those_that_a_model_has_for_tokens():
    """RoBERTa keeps two of its 64 for padding."""
    lm = wrapped("RoBERTa", "diffusion")
    assert lm.hidden(some_ids(1, 62)).shape == (1, 62, 32)
    for use in (lm.hidden, lambda ids_BT: attention_mass(lm.model, ids_BT)):
        with pytest.raises(ValueError, match=r"63 tokens.* 62 positions"):
            use(some_ids(1, 63))


@pytest.mark.parametrize(("name", "kind"), WRAPPED)
@torch.no_grad()
def test_padding_changes_nothing(name, kind):
    lm = wrapped(name, kind)
    ids_BT = some_ids(2, 12)
    present_BT = torch.ones_like(ids_BT)
    present_BT[0, :4] = 0
    present_BT[1, 9:] = 0
    alone = {0: slice(4, 12), 1: slice(0, 9)}

    hidden_BTD = lm.hidden(ids_BT, present_BT)
    mass_BLK = None
    if ROWS[name]["sinks"]:
        mass_BLK = attention_mass(lm.model, {"input_ids": ids_BT, "attention_mask": present_BT})

    for row, there in alone.items():
        row_1T = ids_BT[row : row + 1, there]
        torch.testing.assert_close(hidden_BTD[row, there], lm.hidden(row_1T)[0], atol=1e-5, rtol=1e-4)
        if mass_BLK is not None:
            alone_LK = attention_mass(lm.model, row_1T)[0]
            torch.testing.assert_close(mass_BLK[row, :, there], alone_LK, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "kind"), WRAPPED)
def test_a_model_of_any_kind_goes_the_whole_way(name, kind, tmp_path):
    """Scored, pruned beside its sinks where they can be followed, written with, saved and read again."""
    lm = wrapped(name, kind)
    ids_NT = some_ids(4, 16)
    score = partial(nelbo, draws=1) if lm.is_diffusion else nll
    before = score(lm, ids_NT).value.mean()

    where_NT = torch.arange(16).expand(4, -1) > 0
    own_NTV = lm.model(ids_NT, use_cache=False).logits
    own_MV = (own_NTV[:, :-1] if lm.logits_shifted else own_NTV[:, 1:]).flatten(0, 1)
    torch.testing.assert_close(lm.logits_at(ids_NT, where_NT), own_MV)

    recipe = preset("wanda")
    if ROWS[name]["sinks"]:
        recipe = preset("all-sinks" if lm.is_diffusion else "wanda", exclude="all", **NOISE)
        steps = trace(lm, ids_NT[:2, :4], SAMPLER, progress=False)
        assert bool(torch.isfinite(steps.layers_BSLK).all())
        assert diagnose(lm, Calibration(ids_NT), noise_levels=2, progress=False).table is not None

    report = prune(lm, recipe, Calibration(ids_NT, batch=2), progress=False)
    assert report.sparsity == pytest.approx(0.5) and score(lm, ids_NT).value.mean() != before
    assert (report.left_out_share > 0) == ROWS[name]["sinks"]

    written_BT = generate(lm, ids_NT[:1, :4], SAMPLER) if lm.is_diffusion else decode(lm, ids_NT[:1, :4], 8)
    assert written_BT.shape == (1, 12)

    again = load(save(lm, tmp_path / "saved"))
    assert again.fingerprint() == lm.fingerprint() and again.kind == kind
    assert torch.equal(again.hidden(ids_NT), lm.hidden(ids_NT))


@pytest.mark.parametrize("name", ["Mistral, a window in every layer", "Phi-3", "GPT-NeoX", "ModernBERT"])
def test_a_model_that_transformers_saved_is_read(name, tmp_path):
    """Phi-3 joins queries, keys and values in one linear, GPT-NeoX calls its head otherwise in files."""
    model = tiny(name)
    tokenizer = word_tokenizer()
    tokenizer.mask_token = MASK_TOKEN
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    lm = load(tmp_path / "model")
    ids_BT = some_ids(2, 9)
    assert lm.is_diffusion == (name == "ModernBERT") and lm.logits_shifted != lm.is_diffusion
    assert torch.equal(lm.model(ids_BT).logits, model(ids_BT).logits)


def test_an_encoder_is_not_streamed(tmp_path):
    save(wrapped("ModernBERT", "diffusion"), tmp_path / "saved")
    with pytest.raises(ValueError, match=r"encoder.* load it whole"):
        stream(open_checkpoint(tmp_path / "saved"), "an encoder", torch.float32)


def test_a_model_with_windows_is_streamed(tmp_path):
    lm = wrapped("Gemma 3", "diffusion")
    streamed = stream(open_checkpoint(save(lm, tmp_path / "saved")), "streamed", torch.float32)
    ids_NT = some_ids(4, 16)
    assert torch.equal(streamed.hidden(ids_NT), lm.hidden(ids_NT))

    recipe = preset("all-sinks", **NOISE)
    prune(lm, recipe, Calibration(ids_NT, batch=2), progress=False)
    prune(streamed, recipe, Calibration(ids_NT, batch=2), progress=False, work=tmp_path / "work")
    assert naive.same(naive.block_weights_of(streamed), naive.block_weights_of(lm))


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", ["Gemma 3", "ModernBERT", "BERT"])
def test_a_pruned_folder_is_recovered(name, method, tmp_path):
    lm = wrapped(name, "diffusion")
    report = prune(lm, preset("wanda"), Calibration(some_ids(4, 16)), progress=False)
    folder = save(lm, tmp_path / "pruned", **report.card())
    documents = [" ".join(f"word{27 + number % 40}" for number in range(row, row + 12)) for row in range(60)]

    run = {"steps": 2, "batch": 4, "length": 12, "text": documents, "teacher": None, "progress": False}
    recover(folder, out=tmp_path / "out", method=method, rank=2, learning_rate=1e-2, **run)
    recovered = load(tmp_path / "out")
    for place, linear in recovered.all_linears().items():
        was_OI = lm.all_linears()[place].weight
        assert torch.equal(linear.weight == 0, was_OI == 0) and not torch.equal(linear.weight, was_OI)

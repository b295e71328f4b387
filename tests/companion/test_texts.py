"""Calibration and held-out text of the embedded pair: no token has a fixed place, splits share nothing."""

import pytest
import torch
from safetensors.torch import save_file

from sinkprune_companion import corpus
from sinkprune_companion.harness.public_data import embedded_wikitext
from sinkprune_companion.run.texts import DOMAINS, STARTS, calibration_draw, held_out_stream, held_out_texts
from sinkprune_core.models.embedded import START_TOKEN_ID


@pytest.fixture
def samples(tmp_path, monkeypatch, make_ids) -> torch.Tensor:
    """Samples in place of the shipped ones, each behind a separator: 256 held out, 60 for calibration."""
    ids_NT = make_ids(316, 24)
    ids_NT[:, 0] = START_TOKEN_ID
    save_file({"ids": ids_NT.int()}, tmp_path / "samples.safetensors")
    monkeypatch.setattr(corpus, "SAMPLES", tmp_path / "samples.safetensors")
    return ids_NT


def test_calibration_text_is_crops_and_a_smaller_draw_is_part_of_a_larger(samples, tiny_dlm):
    small, large = (calibration_draw(tiny_dlm, count, 12, 5) for count in (8, 16))
    assert small.ids_NT.shape == (8, 12) and small.seed == 5
    assert (large.ids_NT[:, 0] != START_TOKEN_ID).all()
    assert set(map(tuple, small.ids_NT.tolist())) <= set(map(tuple, large.ids_NT.tolist()))
    assert small.fingerprint != calibration_draw(tiny_dlm, 8, 12, 6).fingerprint


def test_held_out_text_is_shared_out_by_domain_and_start(samples, tiny_dlm):
    found = held_out_texts(tiny_dlm.tokenizer, 20, 12)
    assert list(found) == [f"{domain}/{start}" for domain in DOMAINS for start in STARTS]
    assert [len(ids_NT) for ids_NT in found.values()] == [4, 4, 3, 3, 3, 3]
    for name, ids_NT in found.items():
        begins = ids_NT[:, 0] == START_TOKEN_ID
        assert begins.all() if name.endswith("/beginning") else not begins.any()
    again, other = (held_out_texts(tiny_dlm.tokenizer, 20, 12, seed) for seed in (0, 1))
    assert all(torch.equal(again[name], found[name]) for name in found)
    assert any(not torch.equal(other[name], found[name]) for name in found)


def test_held_out_text_comes_from_held_out_sources_alone(samples, tiny_dlm, monkeypatch):
    tokenizer = tiny_dlm.tokenizer
    assert torch.equal(held_out_stream(tokenizer, "samples"), samples[:256].flatten())
    own = [text for text in corpus.documentation("stdlib") if corpus.is_held_out(text)]
    assert torch.equal(held_out_stream(tokenizer, "documentation"), corpus.stream(own, tokenizer))
    assert torch.equal(held_out_stream(tokenizer, "natural"), corpus.stream(embedded_wikitext(), tokenizer))

"""Tokenizers need no remote code, and every source that names the mask token agrees."""

import json

import pytest
from families import edit
from transformers import AutoTokenizer

from sinkprune.models.loading import load
from sinkprune.models.saving import save
from sinkprune.models.weight_files import FormatError


def test_dream_s_tokenizer_needs_no_remote_code(written, tmp_path):
    """Byte-level pairs, its merges, its added tokens; what is saved asks for no code either."""
    lm = load(written("dream")[0])
    ids = lm.tokenizer("the cat<|mask|>", add_special_tokens=False).input_ids
    assert lm.tokenizer.convert_ids_to_tokens(ids) == ["the", "Ġ", "c", "a", "t", "<|mask|>"]
    assert ids[-1] == 266
    assert lm.encode(" the").tolist() == [lm.tokenizer.convert_tokens_to_ids("Ġthe")]
    saved = save(lm, tmp_path / "saved")
    for tokenizer in (AutoTokenizer.from_pretrained(saved), load(saved).tokenizer):
        assert tokenizer("the cat<|mask|>", add_special_tokens=False).input_ids == ids


def test_a_tokenizer_that_moves_special_tokens_is_refused(fresh):
    folder = fresh("dream")

    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {
        str(int(index) + 2): token for index, token in config["added_tokens_decoder"].items()
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))

    with pytest.raises(
        FormatError, match=r"gives other ids than its files state: <\|endoftext\|> is 259 instead of 261"
    ):
        load(folder)


@pytest.mark.parametrize("name", ["llada", "a2d qwen3"])
def test_a_mask_token_that_nothing_declares_is_found_by_its_name(fresh, name):
    folder = fresh(name)
    edit(folder, drop=("mask_token_id",))
    lm = load(folder)
    assert (lm.mask_token_id, lm.tokenizer.mask_token_id) == (5, None)


def test_a_mask_token_that_nothing_names_is_an_error_with_the_way_out(fresh):
    folder = fresh("diffugpt", declared=False)
    with pytest.raises(
        FormatError,
        match=r"nothing in .* says which token is the mask: add mask_token_id",
    ):
        load(folder)
    edit(folder, mask_token_id=20)
    assert load(folder).mask_token_id == 20


def test_sources_that_disagree_on_the_mask_token_are_named(fresh):
    folder = fresh("dream")
    edit(folder, mask_token_id=3)
    with pytest.raises(FormatError, match=r"not clear: 3 says config.json, 266 says the tokenizer"):
        load(folder)

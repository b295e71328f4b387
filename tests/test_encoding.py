"""A text that spells the mask is a text: no mask stands in what a model is given to read."""

import pytest
import torch
from conftest import word_tokenizer

from sinkprune import corpus
from sinkprune.corpus import pack, stream
from sinkprune.models.embedded import MASK_TOKEN, MASK_TOKEN_ID
from sinkprune.recovery.text import training_text
from sinkprune_core.encoding import without_mask

SPELT = f"the {MASK_TOKEN} file"


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


def test_the_letters_of_the_mask_stand_where_the_mask_would(tokenizer):
    ids = tokenizer(SPELT, add_special_tokens=False).input_ids
    assert MASK_TOKEN_ID in ids, "the control: this tokenizer takes the letters for the mask"
    first, last = ids[0], ids[-1]
    letters = tokenizer(MASK_TOKEN, add_special_tokens=False, split_special_tokens=True).input_ids
    assert without_mask(ids, tokenizer, MASK_TOKEN_ID) == [first, *letters, last]
    assert without_mask(ids, tokenizer, None) == ids, "an autoregressive model has no mask"
    assert tokenizer(SPELT, add_special_tokens=False).input_ids == ids, "the tokenizer is as it was"


def test_a_text_without_the_mask_keeps_its_tokens_and_its_other_special_tokens(tokenizer):
    ids = tokenizer("the <|im_start|> file", add_special_tokens=False).input_ids
    assert without_mask(ids, tokenizer, MASK_TOKEN_ID) == ids and 1 in ids


def test_a_mask_that_is_a_plain_word_is_refused(tokenizer):
    word = tokenizer.convert_tokens_to_ids("word30")
    with pytest.raises(ValueError, match="the text holds 'word30', which this model's vocabulary knows only"):
        without_mask([word], tokenizer, word)


def test_a_mask_spelt_in_the_text_of_the_package_is_read_as_letters(monkeypatch):
    monkeypatch.setattr(corpus, "documentation_split", lambda held_out, *_: [SPELT] * 20)
    text = training_text(word_tokenizer(), None, 8, MASK_TOKEN_ID)
    for ids in (*text.streams, text.held_out_NT):
        assert not bool((ids == MASK_TOKEN_ID).any())


def test_no_way_from_text_to_tokens_lets_a_mask_through(tiny_dlm, tiny_ar):
    texts = [SPELT, "a list"]
    assert MASK_TOKEN_ID not in tiny_dlm.encode(SPELT)
    assert MASK_TOKEN_ID in tiny_ar.encode(SPELT), "for a model without a mask it is a token like others"
    assert MASK_TOKEN_ID not in stream(texts, tiny_dlm.tokenizer, MASK_TOKEN_ID)
    assert MASK_TOKEN_ID not in pack(texts, tiny_dlm.tokenizer, 3, MASK_TOKEN_ID)
    plain = ["the file", "a list of word30"]
    with_mask, without = (stream(plain, tiny_dlm.tokenizer, token) for token in (MASK_TOKEN_ID, None))
    assert torch.equal(with_mask, without)

"""The data: crops addressed by number, and no held-out paragraph among them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkprune import corpus
from sinkprune_companion.training.crops import crop_batch, prepare_data


def numbered(*sizes: int) -> list[torch.Tensor]:
    """Streams whose tokens tell the stream, in thousands, and the place in it."""
    return [1000 * which + torch.arange(size) for which, size in enumerate(sizes)]


# crops


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(8, 40), min_size=1, max_size=3),
    lengths=st.lists(st.integers(2, 8), min_size=1, max_size=3).map(tuple),
    batch_tokens=st.integers(8, 60),
    index=st.integers(0, 99),
)
def test_a_batch_is_made_of_crops_of_one_length_that_take_turns_among_the_streams(
    sizes, lengths, batch_tokens, index
):
    given_to = (numbered(*sizes), lengths, batch_tokens, 0, index)
    ids_BT = crop_batch(*given_to)
    assert torch.equal(crop_batch(*given_to), ids_BT)  # as in a run that starts there

    rows, length = ids_BT.shape
    assert ids_BT.dtype == torch.int64
    assert length in lengths and rows == batch_tokens // length

    for row, ids_T in enumerate(ids_BT):
        which = (index + row) % len(sizes)
        assert 1000 * which <= ids_T[0] and ids_T[-1] < 1000 * which + sizes[which]
        assert torch.equal(ids_T, ids_T[0] + torch.arange(length))


# all data of a run


@pytest.fixture
def tokenizer(tiny_dlm, tmp_path, monkeypatch):
    """The tokenizer of tiny models, where the samples and the documentation are small, too."""
    words = ["the", "of", "is", "list", "file", "return", "object", "value", "assistant"]
    paragraphs = [
        " ".join(words[(number // 9 ** (place % 3) + place) % 9] for place in range(12))
        for number in range(729)
    ]
    monkeypatch.setattr(corpus, "documentation", lambda scope: tuple(paragraphs))
    return tiny_dlm.tokenizer


def test_no_held_out_paragraph_is_trained_on(tokenizer, tmp_path):
    text = "\n\n".join(corpus.documentation("everything"))
    by_source, held_out = prepare_data(tokenizer, tmp_path, False, (4, 13), text)

    documents_of = {}
    for split, stream_T in (
        ("train", by_source["text"]),
        ("held_out", held_out["text_beginnings"].flatten()),
    ):
        assert len(stream_T) % 13 == 0  # each paragraph has 12 words
        documents_of[split] = {tuple(document) for document in stream_T.view(-1, 13).tolist()}

    assert documents_of["held_out"] and not documents_of["train"] & documents_of["held_out"]

    paragraphs = [part for part in corpus.paragraphs(text) if corpus.is_held_out(part)]
    known = {tuple(corpus.stream([part], tokenizer).tolist()) for part in paragraphs}
    assert documents_of["held_out"] <= known
    assert len(by_source["text"]) == 13 * (729 - len(paragraphs))

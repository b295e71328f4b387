"""The data: crops addressed by number that may begin anywhere, and held-out sequences of two kinds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from sinkprune_companion import corpus
from sinkprune_companion.corpus import stream
from sinkprune_companion.training import crops
from sinkprune_companion.training.crops import Crops, held_out_sequences, prepare_data

SEPARATOR = 0


def numbered(*sizes: int) -> list[torch.Tensor]:
    """Streams whose tokens tell the stream, in thousands, and the place in it."""
    return [1000 * which + torch.arange(size) for which, size in enumerate(sizes)]


# crops


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(8, 40), min_size=1, max_size=3),
    lengths=st.lists(st.integers(2, 8), min_size=1, max_size=3).map(tuple),
    count=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_a_batch_depends_on_seed_and_number_alone(sizes, lengths, count, seed):
    forwards = Crops(numbered(*sizes), lengths, 16, seed)
    batches = [forwards.batch(index) for index in range(count)]
    backwards = Crops(numbered(*sizes), lengths, 16, seed)
    for index in reversed(range(count)):  # as a run that starts there
        assert torch.equal(backwards.batch(index), batches[index])


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
    ids_BT = Crops(numbered(*sizes), lengths, batch_tokens, seed=0).batch(index)
    rows, length = ids_BT.shape
    assert ids_BT.dtype == torch.int64
    assert length in lengths and rows == batch_tokens // length
    for row, ids_T in enumerate(ids_BT):
        which = (index + row) % len(sizes)
        assert 1000 * which <= ids_T[0] and ids_T[-1] < 1000 * which + sizes[which]
        assert torch.equal(ids_T, ids_T[0] + torch.arange(length))


def test_every_start_is_possible_the_first_and_the_last_too():
    found = Crops(numbered(12), (4,), 4, seed=0)
    starts = [int(found.batch(index)[0, 0]) for index in range(400)]
    counts = torch.bincount(torch.tensor(starts), minlength=9)
    assert len(counts) == 9
    assert counts.min() > 20 and counts.max() < 80  # 44 each in expectation, standard deviation 6


# streams and held-out sequences


def test_a_stream_has_a_separator_before_each_text(tiny_dlm):
    tokenizer = tiny_dlm.tokenizer
    texts = ["the list of word30", "word31 is"]
    found = stream(texts, tokenizer)
    separator = corpus.separator(tokenizer)
    first, second = (tokenizer(text).input_ids for text in texts)
    assert found.tolist() == [separator, *first, separator, *second]
    assert found.dtype == stream([], tokenizer).dtype == torch.int64
    assert len(stream([], tokenizer)) == 0


def documents(count: int, length: int) -> torch.Tensor:
    """A stream of documents, a separator before each, whose other tokens tell their place in it."""
    stream_T = torch.arange(1, count * (length + 1) + 1)
    stream_T[:: length + 1] = SEPARATOR
    return stream_T


def test_crops_never_begin_with_a_separator_and_beginnings_always_do():
    stream_T = documents(300, 10)
    found = held_out_sequences(stream_T, SEPARATOR, 16)
    assert set(found) == {"crops", "beginnings"}
    assert (found["crops"][:, 0] != SEPARATOR).all()
    assert (found["beginnings"][:, 0] == SEPARATOR).all()
    for sequences_NT in found.values():
        assert sequences_NT.shape == (crops.HELD_OUT_COUNT, 16)
        starts = sequences_NT[:, 1] - 2  # unless the second token is a separator, it tells the place
        for start, sequence_T in zip(starts.tolist(), sequences_NT, strict=True):
            if sequence_T[1] != SEPARATOR:
                assert torch.equal(sequence_T, stream_T[start : start + 16])


def test_there_are_as_many_sequences_as_places_where_these_are_few():
    stream_T = documents(5, 10)
    found = held_out_sequences(stream_T, SEPARATOR, 12)
    assert len(found["beginnings"]) == 4  # 44 places begin a sequence: the last document is too short for one
    assert len(found["crops"]) == 40
    assert torch.equal(found["beginnings"][0], stream_T[:12])
    assert torch.equal(found["crops"][-1], stream_T[-12:])


def test_too_little_held_out_text_is_refused():
    assert len(held_out_sequences(torch.arange(1, 9), SEPARATOR, 8)["crops"]) == 1
    with pytest.raises(ValueError, match="has 7 tokens, too few for one sequence of 8: give more text"):
        held_out_sequences(torch.arange(1, 8), SEPARATOR, 8)


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


def test_the_sources_of_the_embedded_base(tokenizer, tmp_path):
    data = prepare_data(tokenizer, tmp_path, is_embedded=True, held_out_length=16)
    held_out = {name for name in data if name.startswith("held_out")}
    assert set(data) - held_out == {"train_samples", "train_documentation"}
    assert held_out == {
        f"held_out_{source}_{kind}"
        for source in ("samples", "documentation", "natural")
        for kind in ("crops", "beginnings")
    }
    ids_NT = load_file(corpus.SAMPLES)["ids"].long()
    assert torch.equal(data["train_samples"], ids_NT[corpus.HELD_OUT_SAMPLES :].flatten())
    held_out_T = ids_NT[: corpus.HELD_OUT_SAMPLES].flatten()
    assert torch.equal(data["held_out_samples_beginnings"][0], held_out_T[:16])
    assert all(ids.dtype == torch.int64 for ids in data.values())
    assert all(data[name].shape[1] == 16 for name in held_out)


def test_no_held_out_paragraph_is_trained_on(tokenizer, tmp_path):
    text = "\n\n".join(corpus.documentation("everything"))
    data = prepare_data(tokenizer, tmp_path, False, text=text, held_out_length=13)
    documents_of = {}
    for split, stream_T in (
        ("train", data["train_text"]),
        ("held_out", data["held_out_text_beginnings"].flatten()),
    ):
        assert len(stream_T) % 13 == 0  # each paragraph has 12 words
        documents_of[split] = {tuple(document) for document in stream_T.view(-1, 13).tolist()}
    assert documents_of["held_out"] and not documents_of["train"] & documents_of["held_out"]
    held_out = [part for part in corpus.paragraphs(text) if corpus.is_held_out(part)]
    known = {tuple(stream([part], tokenizer).tolist()) for part in held_out}
    assert documents_of["held_out"] <= known
    assert len(data["train_text"]) == 13 * (729 - len(held_out))


def test_a_resumed_run_reads_what_was_kept_and_other_data_are_refused(tokenizer, tmp_path, monkeypatch):
    text = "\n\n".join(corpus.documentation("everything"))
    data = prepare_data(tokenizer, tmp_path, False, text=text, held_out_length=13)
    with safe_open(tmp_path / "data.safetensors", "pt") as handle:
        assert set(handle.metadata()) == {"held_out_share", "kind", "text"}
    stored = load_file(tmp_path / "data.safetensors")
    assert {ids.dtype for ids in stored.values()} == {torch.int32}
    monkeypatch.setattr(crops, "held_out_sequences", None)  # is not needed again
    again = prepare_data(tokenizer, tmp_path, False, text=text, held_out_length=13)
    assert data.keys() == again.keys()
    assert all(torch.equal(data[name], again[name]) for name in data)
    with pytest.raises(ValueError, match="was made with another held-out split or text: use another folder"):
        prepare_data(tokenizer, tmp_path, False, text=text + " more", held_out_length=13)
    monkeypatch.setattr(corpus, "HELD_OUT_SHARE", 9)
    with pytest.raises(ValueError, match="was made with another held-out split or text"):
        prepare_data(tokenizer, tmp_path, False, text=text, held_out_length=13)

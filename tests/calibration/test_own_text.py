"""Calibration text from every form that users have: the same tokens whatever holds them, padding left out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchEncoding

from sinkprune import Calibration, calibration_from, corpus, prune, weights_kept
from sinkprune_core import Recipe

TEMPLATE = "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}"
TEXTS = ["the list of word30", "word31 is a file", "return the object of a value", "word40 word41 word42"]
CHATS = [[{"role": "assistant", "content": text}] for text in TEXTS]


def tokens_of(text: Calibration) -> list[list[int]]:
    """Return the sequences without padding."""
    return [ids_T[:length].tolist() for ids_T, length in zip(text.ids_NT, text.lengths, strict=True)]


# token ids


def forms_of(ids_NT: torch.Tensor) -> dict[str, object]:
    """Return equal sequences in every form that has ids."""
    rows = ids_NT.tolist()
    columns = {"input_ids": rows, "attention_mask": torch.ones_like(ids_NT).tolist()}
    data_set = Dataset.from_dict(columns)

    return {
        "int64": ids_NT,
        "int32": ids_NT.int(),
        "uint8": ids_NT.to(torch.uint8),
        "array": ids_NT.numpy(),
        "array of int32": ids_NT.numpy().astype(np.int32),
        "lists": rows,
        "arrays": list(ids_NT.numpy()),
        "tensors": list(ids_NT),
        "dictionary": {"input_ids": ids_NT},
        "lists in a dictionary": columns,
        "BatchEncoding": BatchEncoding({"input_ids": ids_NT, "attention_mask": torch.ones_like(ids_NT)}),
        "encodings": [{"input_ids": row} for row in rows],
        "data set": data_set,
        "data set of tensors": data_set.with_format("torch"),
        "stream": data_set.to_iterable_dataset(),
        "generator": (row for row in rows),
        "column of pandas": pd.Series(rows, index=range(7, 7 - len(rows), -1)),
        "loader": DataLoader(TensorDataset(ids_NT), batch_size=2),
        "loader of encodings": DataLoader(data_set.with_format("torch"), batch_size=3),
        "loader of tensors": DataLoader(ids_NT, batch_size=2),
    }


@pytest.mark.parametrize("form", forms_of(torch.zeros(1, 2, dtype=torch.long)))
def test_ids_are_the_same_in_every_form(tiny_dlm, make_ids, form):
    ids_NT = make_ids(5, 9)
    text = calibration_from(tiny_dlm, forms_of(ids_NT)[form], seed=4, batch=2)
    assert torch.equal(text.ids_NT, ids_NT) and text.ids_NT.dtype == torch.int64
    assert text.fingerprint == Calibration(ids_NT, 4).fingerprint and text.batch == 2
    cut = calibration_from(tiny_dlm, forms_of(ids_NT)[form], length=6, sequences=3)
    assert cut.ids_NT.shape == (3, 6)
    assert {tuple(row) for row in tokens_of(cut)} <= {tuple(row) for row in ids_NT[:, :6].tolist()}


@pytest.mark.parametrize("form", ["pairs", "lists", "arrays", "loader", "loader of rows"])
def test_tensors_without_names_are_refused(tiny_dlm, make_ids, form):
    """The second may be an attention mask, whose ones and zeros are no text."""
    ids_NT = make_ids(4, 9)
    masked = TensorDataset(ids_NT, torch.ones_like(ids_NT))
    forms = {
        "pairs": list(masked),
        "lists": [list(pair) for pair in masked],
        "arrays": [[part.numpy() for part in pair] for pair in masked],
        "loader": DataLoader(masked, batch_size=2),
        "loader of rows": DataLoader(masked, batch_size=None),
    }
    with pytest.raises(TypeError, match=r"2 tensors without names.*input_ids, and attention_mask"):
        calibration_from(tiny_dlm, forms[form])


def test_a_sequence_of_one_token_is_refused(tiny_dlm):
    with pytest.raises(ValueError, match="length=1 must be at least 2"):
        calibration_from(tiny_dlm, TEXTS, length=1)


def test_token_ids_go_before_the_text_that_they_were_made_from(tiny_dlm, make_ids):
    rows = make_ids(4, 9).tolist()
    columns = {"text": TEXTS, "input_ids": rows}
    by_row = [{"text": text, "input_ids": row} for text, row in zip(TEXTS, rows, strict=True)]
    for data in (columns, by_row, Dataset.from_dict(columns)):
        assert sorted(calibration_from(tiny_dlm, data).ids_NT.tolist()) == sorted(rows)


def test_a_tokenizer_needs_no_more_than_is_asked_of_it(tiny_dlm):
    class Least:
        """What `Tokenizer` names, and the end of text."""

        def __init__(self, tokenizer):
            self.tokenizer = tokenizer
            self.eos_token_id = tokenizer.eos_token_id
            for name in ("decode", "convert_ids_to_tokens", "get_vocab", "save_pretrained"):
                setattr(self, name, getattr(tokenizer, name))

        def __call__(self, *arguments, **settings):
            return self.tokenizer(*arguments, **settings)

    lm = replace(tiny_dlm, tokenizer=Least(tiny_dlm.tokenizer))
    text = calibration_from(lm, TEXTS, length=5)
    assert torch.equal(text.ids_NT, calibration_from(tiny_dlm, TEXTS, length=5).ids_NT)


def test_rows_that_differ_in_length_are_padded_and_padding_is_left_out(tiny_dlm, make_ids):
    rows = [row[:length].tolist() for row, length in zip(make_ids(3, 9), (9, 4, 6), strict=True)]

    tokenizer = tiny_dlm.tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    words = [tokenizer.decode(row) for row in rows]

    for side in ("left", "right"):
        tokenizer.padding_side = side
        encoded = tokenizer(words, padding=True, return_tensors="pt")
        assert not bool(encoded.attention_mask.all())
        for data in (encoded, rows, Dataset.from_dict(dict(encoded)), DataLoader([*rows], batch_size=None)):
            assert tokens_of(calibration_from(tiny_dlm, data)) == rows


@pytest.mark.parametrize("marked", [torch.ones(3, 11), torch.ones(2, 12), [[1] * 12, [1] * 11, [1] * 12]])
@pytest.mark.parametrize("as_lists", [True, False])
def test_an_attention_mask_of_another_shape_is_refused_by_its_name(tiny_dlm, make_ids, marked, as_lists):
    ids_NT = make_ids(3, 12)
    data = {"input_ids": ids_NT.tolist() if as_lists else ids_NT, "attention_mask": marked}
    with pytest.raises(ValueError, match=r"attention_mask .* input_ids .* every token"):
        calibration_from(tiny_dlm, data)


def test_a_draw_depends_on_the_seed_and_keeps_the_order(tiny_dlm, make_ids):
    ids_NT = make_ids(40, 6)
    draws = [calibration_from(tiny_dlm, ids_NT, sequences=8, seed=seed).ids_NT for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    places = [int((ids_NT == row).all(1).nonzero()[0]) for row in draws[0]]
    assert places == sorted(places) and len(set(places)) == 8 and places != list(range(8))


# texts and chats


@pytest.mark.parametrize("form", ["list", "array", "series", "dictionaries", "data set", "stream", "file"])
def test_texts_are_joined_and_cut_as_a_text_file_is(tiny_dlm, form, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(TEXTS))

    lines = tmp_path / "texts.JSONL"
    lines.write_text("\n".join(json.dumps(text) for text in TEXTS) + "\n\n")

    data_set = Dataset.from_dict({"text": TEXTS, "label": [0] * len(TEXTS)})
    forms = {
        "list": TEXTS,
        "array": np.array(TEXTS),
        "series": pd.Series(TEXTS),
        "dictionaries": [{"text": text} for text in TEXTS],
        "data set": data_set,
        "stream": data_set.to_iterable_dataset(),
        "file": file,
    }

    expected = corpus.pack(TEXTS, tiny_dlm.tokenizer, 5, tiny_dlm.mask_token_id)
    assert torch.equal(calibration_from(tiny_dlm, forms[form], length=5).ids_NT, expected)
    assert torch.equal(calibration_from(tiny_dlm, lines, length=5).ids_NT, expected)


def test_only_as_many_documents_are_read_as_are_asked_for(tiny_dlm):
    read = []

    def endless():
        while True:
            read.append(TEXTS[0])
            yield TEXTS[0]

    text = calibration_from(tiny_dlm, endless(), length=4, sequences=6)
    assert text.ids_NT.shape == (6, 4) and len(read) < 8
    with pytest.raises(ValueError, match="does not say how long it is: say how many sequences"):
        calibration_from(tiny_dlm, endless(), sequences=None)


@pytest.mark.parametrize("form", ["lists", "dictionaries", "data set", "file"])
def test_chats_go_through_the_chat_template(tiny_dlm, form, tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in CHATS))
    rows = [{"messages": chat} for chat in CHATS]
    data = {"lists": CHATS, "dictionaries": rows, "data set": Dataset.from_list(rows), "file": file}[form]

    with pytest.raises(ValueError, match="the model's tokenizer has no chat template"):
        calibration_from(tiny_dlm, data)

    tiny_dlm.tokenizer.chat_template = TEMPLATE
    written = [f"<|im_start|> assistant {text} <|im_end|> " for text in TEXTS]
    expected = corpus.pack(written, tiny_dlm.tokenizer, 6, tiny_dlm.mask_token_id)
    assert torch.equal(calibration_from(tiny_dlm, data, length=6).ids_NT, expected)

    tiny_dlm.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"does not take a conversation .*roles must alternate"):
        calibration_from(tiny_dlm, data)


def test_a_model_is_pruned_from_a_users_own_data(tiny_dlm, make_ids):
    data = Dataset.from_dict(
        {"input_ids": [row[:length].tolist() for row, length in zip(make_ids(3, 9), (9, 4, 6), strict=True)]}
    )
    with weights_kept(tiny_dlm):
        report = prune(tiny_dlm, Recipe(), calibration_from(tiny_dlm, data), progress=False)
    assert report.calibration_tokens == 19


# what is refused


REFUSED = {
    "a string": ("the list", TypeError, "may be a text or the name of a file: give"),
    "a table": (pd.DataFrame({"text": TEXTS}), TypeError, "is a table: give the texts of a column"),
    "splits": (
        DatasetDict(train=Dataset.from_dict({"text": TEXTS})),
        TypeError,
        "is several data sets: give one of them, data\\['train'\\]",
    ),
    "a number": (7, TypeError, "data=7 is no text: give texts"),
    "nothing": (None, TypeError, "data=None is no text"),
    "a calibration": (Calibration(torch.ones(1, 2).long()), TypeError, "is a Calibration already"),
    "no column": ({"title": TEXTS}, TypeError, "has no input_ids, text or messages, but title"),
    "no column in a row": ([{"title": "the"}], TypeError, "has no input_ids, text or messages, but title"),
    "embeddings": (torch.zeros(2, 3), TypeError, "token ids are torch.float32: give whole numbers"),
    "floats": ([[0.5, 1.0]], TypeError, "token ids are torch.float32"),
    "masks": (torch.zeros(2, 3).bool(), TypeError, "token ids are torch.bool"),
    "three dimensions": (torch.zeros(2, 3, 4).long(), TypeError, r"have shape \(2, 3, 4\)"),
    "a mixture": (["the list", 3], TypeError, "which is none|which is no text"),
    "ids and texts": ([[1, 2, 3], "the"], TypeError, "which is none|which is no text"),
    "an empty list": ([], ValueError, "data holds no text"),
    "a short row": ([[5]], ValueError, "at least 2 tokens"),
    "too little text": (["the"], ValueError, "too few for one sequence"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_is_refused_in_a_sentence(tiny_dlm, name):
    data, error, said = REFUSED[name]
    with pytest.raises(error, match=said) as raised:
        calibration_from(tiny_dlm, data)
    assert "\n" not in str(raised.value)


BAD_LINES = {
    '{"text": 3}': "is an object with text",
    '{"prompt": "the"}': "is an object with prompt",
    '{"text": "the"': "is not JSON",
    "[1, 2]": r"is \[1, 2\]",
    '{"messages": [{"role": "user"}]}': "is an object with messages",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_line_that_is_no_text_is_named(tiny_dlm, tmp_path, line):
    file: Path = tmp_path / "texts.jsonl"
    file.write_text(f'"the list"\n{line}\n')
    with pytest.raises(ValueError, match=f"line 2 of .*texts.jsonl {BAD_LINES[line]}"):
        calibration_from(tiny_dlm, file)

"""Whatever text a user has becomes calibration text here: texts, chats, token ids, data sets, loaders, files.

Dimensions: N sequences, T token position.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from pydantic import InstanceOf

from sinkprune import corpus
from sinkprune.documents import document_of, documents_in, written
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.model_checks import positions_of
from sinkprune_core.seeds import generator
from sinkprune_core.values import Count, Whole, checked_arguments, in_short, is_plain

SEQUENCES = 128
TEXT_LENGTH = 512  # tokens per sequence of a user's own text
FORMS = (
    "give texts, chats (lists of messages), token ids (a tensor, an array, lists), what a tokenizer returns, "
    "a data set or a loader of these, or the Path of a file"
)


@checked_arguments
def calibration_from(
    lm: InstanceOf[LanguageModel],
    data: object,
    *,
    length: Count | None = None,
    sequences: Count | None = SEQUENCES,
    seed: Whole = 0,
    batch: Count = 16,
) -> Calibration:
    """Return calibration text for a model, from text in any of the forms that users have.

    *Texts* are joined, with the document separator between them, and cut into sequences of `length` tokens
    (None: 512, or what the model has positions for), as `--text` does: a list of strings, a data set of
    `datasets` with a column `text`, the Path of a text file or of a .jsonl file. *Chats*, lists of messages
    or a column `messages`, are written by the tokenizer's chat template first. *Token ids* are taken row by
    row, cut to `length` where one is given: a tensor or array of any whole numbers, a list of lists, what a
    tokenizer returns, a data set with a column `input_ids`, a DataLoader of torch. Padding that an
    `attention_mask` marks is left out, and rows may differ in length: each counts as if it were alone.

    At most `sequences` are taken (None: all there are). Of what has a length and can be indexed they are
    drawn by `seed`, of anything else they are the first ones. `batch` is how many go through the model at
    once.

    Raises TypeError, in one sentence, for another form, and ValueError for too little text, and for a stream
    of unknown length without `sequences`.
    """
    if length == 1:
        raise ValueError("length=1 must be at least 2: the first token of a sequence is never predicted")
    if sequences is None and _size(data) is None and not isinstance(data, os.PathLike):
        raise ValueError(f"data={in_short(data)} does not say how long it is: say how many sequences to take")

    elements = _elements(data, seed)
    index, first = next(elements, (0, None))
    if first is None:
        raise ValueError("data holds no text: give at least one sequence of 2 tokens")

    def all_elements() -> Iterator[tuple[int, object]]:
        yield index, first
        yield from elements

    if document_of(first) is None:
        rows = _rows(all_elements(), sequences)
        return _from_rows(rows, length, seed, batch)

    length = length or min(TEXT_LENGTH, _positions(lm))
    stream_T = _stream(lm, all_elements(), None if sequences is None else sequences * (length - 1))
    return Calibration(corpus.cut(stream_T, lm.tokenizer, length)[:sequences], seed, batch)


def _positions(lm: LanguageModel) -> int:
    return positions_of(lm.model) or TEXT_LENGTH


# what there is, one by one


def _size(data: Any) -> int | None:
    """Return how many elements there are, None where nobody knows."""
    try:
        return len(data)
    except TypeError:  # also of a stream that has a length only in name
        return None


def _elements(data: Any, seed: int) -> Iterator[tuple[int, object]]:
    """Yield the elements of data with their numbers: drawn by a seed where that is possible, else in order.

    Raises TypeError for what has none.
    """
    if isinstance(data, os.PathLike):
        data = documents_in(data)
    elif isinstance(data, Mapping):
        data = _of_mapping(data)
    elif _is_column(data):
        data = list(data)
    elif _is_table(data) or isinstance(data, (str, bytes, Calibration)) or not isinstance(data, Iterable):
        raise TypeError(_refusal(data))

    ids = _whole_numbers(data)
    if ids is not None:
        data = _two_dimensions(ids)

    size = _size(data)
    if size is None or not hasattr(data, "__getitem__"):
        yield from enumerate(data)
        return
    for index in torch.randperm(size, generator=generator(seed, "calibration text")).tolist():
        yield index, cast(Any, data)[index]


def _of_mapping(data: Mapping) -> Sequence:
    """Return the elements of a mapping: of what a tokenizer returns, or of columns by name."""
    if "input_ids" in data:
        return _rows_of(data)
    for name in ("text", "messages"):
        if name in data:
            column = data[name]
            return [column] if document_of(column) is not None else column
    parts = [name for name, part in data.items() if hasattr(part, "column_names")]
    if parts:
        raise TypeError(f"data is several data sets: give one of them, data[{parts[0]!r}]")
    raise TypeError(f"data has no input_ids, text or messages, but {', '.join(map(str, data))}: {FORMS}")


def _is_table(data: object) -> bool:
    """Return whether data is a table of pandas, which yields the names of its columns."""
    return hasattr(data, "columns") and hasattr(data, "iloc")


def _is_column(data: object) -> bool:
    """Return whether data is a column of pandas, which `[0]` reads by its label and not by its place."""
    return hasattr(data, "iloc") and not hasattr(data, "columns")


def _refusal(data: object) -> str:
    """Return why something is no text, and what to give instead."""
    if isinstance(data, (str, bytes)):
        return f"data={in_short(data)} may be a text or the name of a file: give [text], or Path(name)"
    if isinstance(data, Calibration):
        return "data is a Calibration already: give it to `prune` as it is"
    if _is_table(data):
        return "data is a table: give the texts of a column, list(table['text'])"
    return f"data={in_short(data)} is no text: {FORMS}"


# token ids


def _whole_numbers(value: object) -> torch.Tensor | None:
    """Return token ids as int64; None for what is neither a tensor, an array nor a list of numbers.

    Raises TypeError for numbers that are not whole.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return None  # of texts or rows
    if isinstance(value, (list, tuple)):
        if not value or not all(isinstance(number, (int, float, np.generic)) for number in value):
            return None
    elif not isinstance(value, (torch.Tensor, np.ndarray)):
        return None

    ids = torch.as_tensor(value)
    if not is_plain(ids):
        raise TypeError(f"token ids are {in_short(ids)}: give a dense tensor with numbers")
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise TypeError(f"token ids are {ids.dtype}: give whole numbers, as a tokenizer of this model does")
    return ids.detach().cpu().long()


def _two_dimensions(ids: torch.Tensor) -> torch.Tensor:
    """Return ids (N, T); a single row is a text of one sequence. Raises TypeError for other shapes."""
    if ids.dim() not in (1, 2):
        raise TypeError(f"token ids have shape {tuple(ids.shape)}: give (sequences, tokens)")
    return ids if ids.dim() == 2 else ids[None]


def _rows_of(element: object) -> list[torch.Tensor]:
    """Return the sequences of an element, one or a batch of them, without padding, int64 (T,) each.

    Raises TypeError for what has no token ids.
    """
    mask = None
    is_named = isinstance(element, Mapping)
    if isinstance(element, Mapping):
        mask = element.get("attention_mask")
        ids = element.get("input_ids")
        if ids is None:
            names = ", ".join(map(str, element))
            raise TypeError(f"an element of data has no input_ids, text or messages, but {names}: {FORMS}")
        element = ids

    ids = _whole_numbers(element)
    if ids is None and isinstance(element, (list, tuple)) and element:
        if not is_named and isinstance(element[0], (torch.Tensor, np.ndarray)):
            return _rows_of(_only_one(element))  # what a TensorDataset or a loader of it gives

        found = [_whole_numbers(row) for row in element]
        rows = [row for row in found if row is not None and row.dim() == 1]
        if len(rows) == len(element):
            return _without_padding(rows, mask)
    if ids is None:
        raise TypeError(f"data holds {in_short(element)}, which is no text and no row of token ids: {FORMS}")

    is_one_row = ids.dim() == 1
    return _without_padding(list(_two_dimensions(ids)), [mask] if is_one_row and mask is not None else mask)


def _only_one(tensors: Sequence) -> object:
    """Return the one tensor of an element; raise TypeError where there are more, which have no names."""
    if len(tensors) > 1:
        raise TypeError(
            f"an element of data is {len(tensors)} tensors without names, so which are token ids is open: "
            "give mappings with input_ids, and attention_mask where there is padding"
        )
    return tensors[0]


def _without_padding(rows: list[torch.Tensor], mask: Any) -> list[torch.Tensor]:
    """Return the tokens of rows that an attention mask, of their shape, does not call padding."""
    if mask is None:
        return rows

    marks = [torch.as_tensor(marked) for marked in mask]
    of_rows, of_marks = ([tuple(each.shape) for each in part] for part in (rows, marks))
    if of_marks != of_rows:
        raise ValueError(
            f"attention_mask has rows of shape {in_short(of_marks)}, and input_ids have {in_short(of_rows)}: "
            "give one number for every token"
        )
    return [row[marked.bool()] for row, marked in zip(rows, marks, strict=True)]


def _rows(elements: Iterable[tuple[int, object]], sequences: int | None) -> list[torch.Tensor]:
    """Return as many sequences as are asked for, or there are, in the order of their numbers."""
    rows: list[tuple[int, torch.Tensor]] = []
    for index, element in elements:
        rows += [(index, row) for row in _rows_of(element)]
        if sequences is not None and len(rows) >= sequences:
            break
    in_order = sorted(rows[:sequences], key=lambda numbered: numbered[0])
    return [row for _, row in in_order]


def _from_rows(rows: list[torch.Tensor], length: int | None, seed: int, batch: int) -> Calibration:
    """Return calibration text of sequences that may differ in length."""
    rows = [row[:length] for row in rows]
    ids_NT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths_N1 = torch.tensor([[len(row)] for row in rows])
    present_NT = torch.arange(ids_NT.shape[1]) < lengths_N1
    return Calibration(ids_NT, seed, batch, present_NT)


# texts


def _stream(lm: LanguageModel, elements: Iterable[tuple[int, object]], tokens: int | None) -> torch.Tensor:
    """Return at least so many tokens of documents, or all there are, joined in the order of their numbers."""
    tokenizer = lm.text_tokenizer
    found: list[tuple[int, torch.Tensor]] = []
    total = 0

    for index, element in elements:
        document = document_of(element)
        if document is None:
            raise TypeError(f"data holds a text and {in_short(element)}, which is none: {FORMS}")

        ids_T = corpus.stream(written([document], tokenizer), tokenizer, lm.mask_token_id)
        found.append((index, ids_T))
        total += len(ids_T)
        if tokens is not None and total >= tokens:
            break

    in_order = sorted(found, key=lambda numbered: numbered[0])
    return torch.cat([ids_T for _, ids_T in in_order])

"""Text without a download: deterministic, deduplicated and split by content."""

import math
import re
import shutil
import sysconfig

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sinkprune_companion import corpus
from sinkprune_companion.corpus import (
    HELD_OUT_SHARE,
    documentation,
    documentation_sequences,
    draw_sequences,
    is_held_out,
    pack,
    separator,
    shipped_samples,
    source_stream,
    texts,
    with_first_token,
)
from sinkprune_core.models.embedded import START_TOKEN_ID

PROSE = (
    "Return the number of {} that were found in the given folder, which must exist and must be readable by "
    "the user who calls this function."
)


@pytest.fixture(scope="module")
def paragraphs() -> tuple[str, ...]:
    """The documentation of the standard library."""
    return documentation("stdlib")  # with the argument that callers give, so that it is read once


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder stands in for what is installed; a function that writes a module into it."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "cache"))

    def write(path: str, *docstrings: str, code: str = "") -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            code + "\n".join(f"def f{index}():\n    '''{text}'''\n" for index, text in enumerate(docstrings))
        )

    return write


def read(scope: str = "stdlib") -> list[str]:
    """Return the documentation as it is now, not as it was when a process first asked."""
    return list(documentation.__wrapped__(scope))


def words_of(text: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in re.findall("[A-Za-z][a-z]+", text))


# documentation


def test_documentation_depends_on_files_and_not_on_the_order_in_which_they_were_made(tree, tmp_path):
    modules = {
        f"stdlib/{name}.py": PROSE.format(f"{name} files")
        for name in ("able", "baker/charlie", "delta", "echo")
    }
    found = []
    for order in (list(modules), list(modules)[::-1]):
        for path in order:
            tree(path, modules[path])
        found.append(read())
        shutil.rmtree(tmp_path / "stdlib")
    assert found[0] == found[1] == list(modules.values())


def test_documentation_holds_no_paragraph_twice(paragraphs):
    assert len(paragraphs) > 1000
    assert len(set(map(words_of, paragraphs))) == len(paragraphs)


def test_documentation_is_prose(paragraphs):
    for paragraph in paragraphs:
        assert 20 <= len(paragraph.split()) <= 400 and paragraph[0].isupper() and paragraph[-1] in ".!?"
        assert "\n" not in paragraph and ">>>" not in paragraph and "http" not in paragraph


def test_the_splits_share_no_paragraph_and_have_the_stated_sizes(paragraphs):
    held_out, rest = (
        {words_of(text) for text in paragraphs if is_held_out(text) == which} for which in (True, False)
    )
    assert not held_out & rest
    assert len(held_out) + len(rest) == len(paragraphs)
    expected = len(paragraphs) / HELD_OUT_SHARE
    assert abs(len(held_out) - expected) < 4.5 * math.sqrt(expected)


def test_documentation_comes_by_path_without_repeats_tests_or_installed_packages(tree):
    first, second, third = (PROSE.format(what) for what in ("files", "links", "folders"))
    tree("stdlib/b.py", second, first.replace(" ", "\n    ").replace(",", ";"))  # the same words as in a.py
    tree("stdlib/a.py", first, "Too short to be prose.")
    tree("stdlib/broken.py", third, code="def (:\n")
    for path in ("stdlib/site-packages/c.py", "stdlib/test/c.py", "stdlib/json/tests/c.py"):
        tree(path, third)
    tree("purelib/c.py", third)
    assert read() == [first, second]
    assert read("everything") == [first, second, third]


def test_paragraphs_are_split_at_empty_lines_and_joined_inside(tree):
    tree("stdlib/a.py", f"Short.\n\n    {PROSE.format('files').replace(' ', chr(10), 3)}\n\n    >>> code()")
    assert read() == [PROSE.format("files")]


def test_an_unknown_scope_lists_the_known_ones():
    with pytest.raises(ValueError, match="scope='all' is unknown; choose one of stdlib, everything"):
        documentation("all")


def test_documentation_is_read_once_until_a_file_changes(tmp_path, monkeypatch):
    sentence = (
        "This paragraph has as many plain words as one needs to count as prose, so that it is kept by "
        "whoever reads the {} of it."
    )
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda name: str(tmp_path / "lib"))
    (tmp_path / "lib" / "tests").mkdir(parents=True)
    (tmp_path / "lib" / "tests" / "b.py").write_text(f'"""{sentence.format("tests")}"""')
    file = tmp_path / "lib" / "a.py"
    file.write_text(
        "try:\n"
        "    class A:\n"
        f'        """{sentence.format("class")}"""\n'
        "except ValueError:\n"
        "    def f():\n"
        f'        """{sentence.format("function")}"""\n'
        f'print(lambda: "{sentence.format("string")}")\n'
    )
    read = corpus.documentation.__wrapped__
    assert read("stdlib") == (sentence.format("class"), sentence.format("function"))
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_docstrings", lambda file: 1 / 0)
        assert read("stdlib") == (sentence.format("class"), sentence.format("function")), "from the cache"
    file.write_text(f'"""{sentence.format("module")}"""')
    assert read("stdlib") == (sentence.format("module"),)


# the split


@settings(max_examples=100, deadline=None, derandomize=True)
@given(words=st.lists(st.text("abcdexyz", min_size=2, max_size=6), min_size=1, max_size=12), data=st.data())
def test_the_split_ignores_whitespace_punctuation_and_capitals_at_the_start_of_words(words, data):
    separators = data.draw(
        st.lists(
            st.sampled_from([" ", "  \n\t", ", ", ". ", " (", ") ", " - ", "\n"]),
            min_size=len(words),
            max_size=len(words),
        )
    )
    capital = data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))
    dressed = "".join(
        (word.capitalize() if up else word) + separator
        for word, up, separator in zip(words, capital, separators, strict=True)
    )
    assert is_held_out(dressed) == is_held_out(" ".join(words))


def test_the_split_follows_the_words():
    held_out = [
        is_held_out(f"some words and then word{chr(97 + a)}{chr(97 + b)}")
        for a in range(26)
        for b in range(26)
    ]
    expected = 676 / HELD_OUT_SHARE
    assert abs(sum(held_out) - expected) < 4.5 * math.sqrt(expected)


# packing


def test_packing_is_exact(tiny_ar):
    encoded = [[18, 22, 19], [20], [21, 23, 24, 25]]
    lines = [tiny_ar.tokenizer.decode(ids) for ids in encoded]
    assert [tiny_ar.encode(line).tolist() for line in lines] == encoded
    stream = [18, 22, 19, 0, 20, 0, 21, 23, 24, 25, 0]
    for length in range(2, 13):
        rows = len(stream) // (length - 1)
        assert pack(lines, tiny_ar.tokenizer, length).tolist() == [
            [START_TOKEN_ID, *stream[row * (length - 1) : (row + 1) * (length - 1)]] for row in range(rows)
        ]


@pytest.mark.parametrize(("lines", "tokens"), [([], 0), (["the list of"], 4)])
def test_too_little_text_is_an_error_with_both_numbers(tiny_ar, lines, tokens):
    with pytest.raises(ValueError, match=f"the corpus has {tokens} tokens, too few for one sequence of 6"):
        pack(lines, tiny_ar.tokenizer, 6)


def test_sequences_of_the_splits_are_made_of_their_own_paragraphs(tiny_ar, paragraphs):
    for held_out in (True, False):
        own = [text for text in paragraphs if is_held_out(text) == held_out]
        sequences_NT = documentation_sequences(tiny_ar.tokenizer, 32, held_out)
        assert torch.equal(sequences_NT, pack(own, tiny_ar.tokenizer, 32))
        assert len(sequences_NT) == sum(len(tiny_ar.encode(text)) + 1 for text in own) // 31


# both sources


@pytest.fixture
def shipped(tmp_path, monkeypatch, make_ids) -> torch.Tensor:
    """Samples in place of the shipped ones, int64 (N, T): 256 held out, 40 for calibration."""
    ids_NT = make_ids(296, 24)
    save_file({"ids": ids_NT.int()}, tmp_path / "samples.safetensors")
    monkeypatch.setattr(corpus, "SAMPLES", tmp_path / "samples.safetensors")
    return ids_NT


def test_shipped_samples_are_split_by_number_and_cut_to_length(shipped):
    assert torch.equal(shipped_samples(10, held_out=True), shipped[:256, :10])
    assert torch.equal(shipped_samples(24, held_out=False), shipped[256:])


@pytest.mark.parametrize("length", [1, 25])
def test_a_length_that_the_shipped_samples_do_not_have_is_refused(shipped, length):
    with pytest.raises(ValueError, match=f"length={length} must lie in 2 … 24"):
        shipped_samples(length, held_out=True)


def places_of(ids_NT: torch.Tensor, stream_T: torch.Tensor) -> list[set[int]]:
    """Return the positions of a stream that each sequence covers, by the first place where it occurs."""
    length = ids_NT.shape[1]
    windows_PT = stream_T.unfold(0, length, 1)
    starts = [(windows_PT == ids_T).all(1).nonzero()[0].item() for ids_T in ids_NT]
    return [set(range(start, start + length)) for start in starts]


def test_texts_are_crops_of_half_samples_and_half_documentation_that_do_not_overlap(shipped, tiny_ar):
    tokenizer = tiny_ar.tokenizer
    chosen = texts(tokenizer, 21, 16, held_out=False, seed=3)
    assert {name: len(ids_NT) for name, ids_NT in chosen.items()} == {"samples": 11, "documentation": 10}
    assert not any((ids_NT[:, 0] == separator(tokenizer)).any() for ids_NT in chosen.values())
    covered = places_of(chosen["samples"], source_stream("samples", tokenizer, held_out=False))
    assert sum(map(len, covered)) == len(set().union(*covered))


def test_texts_depend_on_seed_and_split_alone_and_a_smaller_draw_is_part_of_a_larger_one(shipped, tiny_ar):
    def drawn(sequences: int, held_out: bool, seed: int) -> set[tuple[int, ...]]:
        found = texts(tiny_ar.tokenizer, sequences, 16, held_out, seed)["samples"]
        return set(map(tuple, found.tolist()))

    chosen = drawn(21, held_out=False, seed=3)
    assert drawn(21, held_out=False, seed=3) == chosen
    assert drawn(21, held_out=False, seed=4) != chosen
    assert not drawn(21, held_out=True, seed=3) & chosen
    assert drawn(9, held_out=False, seed=3) < chosen


def test_more_sequences_than_there_are_is_an_error_with_the_numbers(shipped, tiny_ar):
    with pytest.raises(ValueError, match="sequences=900 of 16 tokens do not fit the 960 tokens of samples"):
        texts(tiny_ar.tokenizer, 900, 16, held_out=False)


def test_places_of_crops_are_spread_over_the_whole_stream():
    stream_T = torch.arange(1, 4001)
    rng = torch.Generator().manual_seed(0)
    found = draw_sequences(stream_T, {"crop": 120}, 16, 0, rng)["crop"]
    quarters = torch.bincount((found[:, 0] - 1) // 1000, minlength=4)
    assert (quarters > 15).all()
    assert len(set((found[:, 0] % 16).tolist())) == 16, "crops begin anywhere"


def test_crops_and_beginnings_share_no_token():
    stream_T = torch.arange(1, 2001)
    stream_T[::25] = 0
    rng = torch.Generator().manual_seed(1)
    found = draw_sequences(stream_T, {"crop": 40, "beginning": 15}, 20, 0, rng)
    assert (found["beginning"][:, 0] == 0).all()
    assert (found["crop"][:, 0] != 0).all()
    assert (found["crop"] == 0).any(), "separators stand inside"
    tokens = torch.cat(list(found.values())).flatten()
    tokens = tokens[tokens > 0].tolist()
    assert len(tokens) == len(set(tokens))
    assert draw_sequences(stream_T, {"crop": 0}, 20, 0, rng)["crop"].shape == (0, 20)


@pytest.mark.parametrize(("kind", "count"), [("crop", 101), ("beginning", 1)])
def test_a_stream_in_which_fewer_fit_says_how_many(kind, count):
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=rf"{count} of the kind '{kind}' are asked for, and \d+ fit"):
        draw_sequences(torch.arange(1, 401), {kind: count}, 4, 0, rng)


def test_an_unknown_source_lists_the_known_ones(tiny_ar):
    with pytest.raises(ValueError, match="source='web' is unknown; choose one of samples, documentation"):
        source_stream("web", tiny_ar.tokenizer, True)


def test_a_first_token_stands_before_the_same_tokens(tiny_ar, make_ids):
    ids_NT = make_ids(3, 5)
    found = with_first_token(ids_NT, tiny_ar.tokenizer)
    assert torch.equal(found[:, 1:], ids_NT)
    assert (found[:, 0] == START_TOKEN_ID).all()

"""Text without a download: deterministic, deduplicated, split by content, and samples that do not know their batch."""

import itertools
import math
import re
import shutil
import sysconfig

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sinkprune_core import corpus
from sinkprune_core.corpus import (
    HELD_OUT_SHARE,
    documentation,
    documentation_sequences,
    is_held_out,
    pack,
    sample_batch,
    self_samples,
    shipped_samples,
    texts,
)
from sinkprune_core.models.embedded import START_TOKEN_ID
from sinkprune_core.seeds import generator
from sinkprune_core.training.lora import Training

PROSE = "Return the number of {} that were found in the given folder, which must exist and must be readable by the user who calls this function."


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


# samples


def test_samples_equal_a_naive_sampler(tiny_ar):
    samples_BT = sample_batch(tiny_ar, 12, first=3, count=4, seed=5)
    assert samples_BT.shape == (4, 12) and samples_BT.dtype == torch.int64
    for row in range(4):
        turn = [1, 17]  # <|im_start|> assistant
        uniform = torch.rand(13, generator=generator(5, "ar-sample", 3 + row)).tolist()
        ids = list(turn)
        for position in range(2, 13):
            logits = tiny_ar.model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().tolist()
            ranked = sorted(
                (token for token in range(72) if not 3 <= token < 17), key=lambda token: -logits[token]
            )[:50]
            weights = [math.exp(logits[token] - logits[ranked[0]]) for token in ranked]
            cumulative = list(itertools.accumulate(weight / sum(weights) for weight in weights))
            ids.append(
                next(
                    (
                        token
                        for token, upto in zip(ranked, cumulative, strict=True)
                        if upto >= uniform[position]
                    ),
                    ranked[-1],
                )
            )
        assert samples_BT[row].tolist() == [START_TOKEN_ID, *ids[2:]]


def test_a_sample_does_not_depend_on_its_batch(tiny_ar):
    together_BT = sample_batch(tiny_ar, 16, 0, 6, seed=1)
    assert torch.equal(
        torch.cat([sample_batch(tiny_ar, 16, first, 2, seed=1) for first in (0, 2, 4)]), together_BT
    )
    assert torch.equal(sample_batch(tiny_ar, 16, 5, 1, seed=1), together_BT[5:])
    assert torch.equal(
        sample_batch(tiny_ar, 9, 0, 6, seed=1), together_BT[:, :9]
    )  # a longer sample begins as the shorter one
    assert len(set(map(tuple, together_BT.tolist()))) == 6
    assert not torch.equal(sample_batch(tiny_ar, 16, 0, 6, seed=2), together_BT)


def test_samples_hold_no_reserved_token(tiny_ar):
    tiny_ar.model.get_output_embeddings().weight[3:17] *= 10  # the model would like to say them
    samples_BT = sample_batch(tiny_ar, 20, 0, 16, seed=0)
    assert not ((samples_BT >= 3) & (samples_BT < 17)).any()


def test_samples_are_drawn_once_and_kept(tiny_base, tmp_path):
    cache = tmp_path / "samples"
    samples_NT = self_samples(130, 8, seed=0, folder=cache)
    files = sorted(path.name for path in (cache / "ar-samples-8-seed0").iterdir())
    assert files == ["00000.safetensors", "00001.safetensors"]
    assert samples_NT.shape == (130, 8)
    (cache / "ar-samples-8-seed0" / files[1]).unlink()  # as if the second shard had been killed
    assert torch.equal(self_samples(130, 8, seed=0, folder=cache), samples_NT)
    for path in tiny_base.iterdir():
        path.unlink()
    assert torch.equal(self_samples(130, 8, seed=0, folder=cache), samples_NT)  # without the model
    assert torch.equal(self_samples(20, 8, seed=0, folder=cache), samples_NT[:20])


def test_the_shipped_samples_are_those_that_would_be_drawn(tmp_path):
    assert torch.equal(self_samples(300, 128, folder=tmp_path), load_file(corpus.SAMPLES)["ids"].long()[:300])
    assert not list(tmp_path.iterdir())


def test_repeated_samples_are_dropped_and_order_stays(tmp_path):
    shard = tmp_path / "ar-samples-4-seed0" / "00000.safetensors"
    shard.parent.mkdir()
    ids_NT = torch.tensor([[0, 5, 5, 5], [0, 1, 1, 1], [0, 5, 5, 5], [0, 2, 2, 2]], dtype=torch.int32)
    save_file({"ids": ids_NT}, shard)
    assert self_samples(4, 4, folder=tmp_path).tolist() == [[0, 5, 5, 5], [0, 1, 1, 1], [0, 2, 2, 2]]


# both


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


def test_texts_are_half_samples_and_half_documentation_without_repeats(shipped, tiny_ar):
    chosen = texts(tiny_ar.tokenizer, 21, 16, held_out=False, seed=3)
    assert {name: len(ids_NT) for name, ids_NT in chosen.items()} == {"samples": 11, "documentation": 10}
    places = [(shipped[256:, :16] == ids_T).all(1).nonzero().item() for ids_T in chosen["samples"]]
    assert places == sorted(set(places))
    documentation_N = list(
        map(tuple, documentation_sequences(tiny_ar.tokenizer, 16, held_out=False).tolist())
    )
    for row in map(tuple, chosen["documentation"].tolist()):
        documentation_N.remove(row)  # raises if it is not there, or not as often
    again, other, held_out = (
        texts(tiny_ar.tokenizer, 21, 16, which, seed)["samples"]
        for which, seed in ((False, 3), (False, 4), (True, 3))
    )
    assert torch.equal(again, chosen["samples"])
    assert not torch.equal(other, again)
    assert not set(map(tuple, held_out.tolist())) & set(map(tuple, again.tolist()))


def test_more_sequences_than_there_are_is_an_error_with_the_numbers(shipped, tiny_ar):
    with pytest.raises(ValueError, match="sequences=90 asks for 45 of samples, which has 40 of 16 tokens"):
        texts(tiny_ar.tokenizer, 90, 16, held_out=False)


@pytest.mark.skipif(not corpus.SAMPLES.exists(), reason="no shipped samples here")
def test_the_shipped_samples_are_whole():
    stored_NT = load_file(corpus.SAMPLES)["ids"]
    assert (
        stored_NT.dtype == torch.uint16 and stored_NT.shape[1] == 128 and len(stored_NT) >= Training().samples
    )
    ids_NT = stored_NT.long()
    assert (ids_NT[:, 0] == START_TOKEN_ID).all()
    assert not ((ids_NT >= corpus.RESERVED.start) & (ids_NT < corpus.RESERVED.stop)).any()
    assert len(set(map(tuple, ids_NT.tolist()))) == len(ids_NT)


def test_documentation_is_read_once_until_a_file_changes(tmp_path, monkeypatch):
    sentence = "This paragraph has as many plain words as one needs to count as prose, so that it is kept by whoever reads the {} of it."
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda name: str(tmp_path / "lib"))
    (tmp_path / "lib" / "tests").mkdir(parents=True)
    (tmp_path / "lib" / "tests" / "b.py").write_text(f'"""{sentence.format("tests")}"""')
    file = tmp_path / "lib" / "a.py"
    file.write_text(
        f'try:\n    class A:\n        """{sentence.format("class")}"""\nexcept ValueError:\n    def f():\n        """{sentence.format("function")}"""\nprint(lambda: "{sentence.format("string")}")\n'
    )
    read = corpus.documentation.__wrapped__
    assert read("stdlib") == (sentence.format("class"), sentence.format("function"))
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_docstrings", lambda file: 1 / 0)
        assert read("stdlib") == (sentence.format("class"), sentence.format("function")), "from the cache"
    file.write_text(f'"""{sentence.format("module")}"""')
    assert read("stdlib") == (sentence.format("module"),)

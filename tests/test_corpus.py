"""Text without a download: deterministic, deduplicated, split by content; no token has a fixed place."""

import math
import re
import sysconfig

import pytest
import torch
from safetensors.torch import save_file

from sinkprune import corpus
from sinkprune.corpus import (
    HELD_OUT_SHARE,
    documentation,
    draw_sequences,
    is_held_out,
    pack,
    shipped_samples,
    texts,
)
from sinkprune.evaluation.local_data import embedded_wikitext
from sinkprune.models import embedded
from sinkprune.models.embedded import START_TOKEN_ID
from sinkprune_companion.run.texts import DOMAINS, STARTS, calibration_draw, held_out_stream, held_out_texts

pytestmark = pytest.mark.slow

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


def words_of(text: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in re.findall("[A-Za-z][a-z]+", text))


# documentation


def test_the_splits_share_no_paragraph_and_have_the_stated_sizes(paragraphs):
    held_out, rest = (
        {words_of(text) for text in paragraphs if is_held_out(text) == which} for which in (True, False)
    )
    assert not held_out & rest
    assert len(held_out) + len(rest) == len(paragraphs)
    expected = len(paragraphs) / HELD_OUT_SHARE
    assert abs(len(held_out) - expected) < 4.5 * math.sqrt(expected)


def test_documentation_comes_by_path_without_repeats_or_tests(tree, paragraphs):
    first, second, third = (PROSE.format(what) for what in ("files", "links", "folders"))
    tree("stdlib/b.py", second, first.replace(" ", "\n    ").replace(",", ";"))  # the same words as in a.py
    tree("stdlib/a.py", first, "Too short to be prose.")
    tree("stdlib/broken.py", third, code="def (:\n")

    for path in ("stdlib/site-packages/c.py", "stdlib/test/c.py", "stdlib/json/tests/c.py"):
        tree(path, third)
    tree("purelib/c.py", third)

    assert corpus.installed("stdlib") == (first, second)

    everything = documentation.__wrapped__("everything")  # as it is now, not when a process first asked
    assert everything == (first, second, third)
    assert documentation.__wrapped__("stdlib") == paragraphs, "it comes with the package"


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


# both sources


@pytest.fixture
def shipped(tmp_path, monkeypatch, make_ids) -> torch.Tensor:
    """Samples in place of the shipped ones, int64 (N, T), behind separators: 256 held out, 60 for others."""
    ids_NT = make_ids(316, 24)
    ids_NT[:, 0] = START_TOKEN_ID
    save_file({"ids": ids_NT.int()}, tmp_path / "samples.safetensors")
    monkeypatch.setattr(corpus, "SAMPLES", tmp_path / "samples.safetensors")
    return ids_NT


def test_shipped_samples_are_split_by_number_and_cut_to_length(shipped):
    assert torch.equal(shipped_samples(10, held_out=True), shipped[:256, :10])
    assert torch.equal(shipped_samples(24, held_out=False), shipped[256:])


def test_samples_are_for_the_vocabulary_that_they_are_written_in(tiny_ar, monkeypatch):
    tokenizer = tiny_ar.tokenizer
    assert not corpus.is_of_samples(tokenizer), "it is too small"

    monkeypatch.setattr(corpus, "SAMPLES_VOCABULARY", len(tokenizer))
    assert corpus.is_of_samples(tokenizer)

    monkeypatch.setattr(embedded, "MASK_TOKEN_ID", embedded.MASK_TOKEN_ID + 1)
    assert not corpus.is_of_samples(tokenizer), "its tokens have other numbers"


def test_texts_depend_on_seed_and_split_alone_and_a_smaller_draw_is_part_of_a_larger_one(shipped, tiny_ar):
    def drawn(sequences: int, held_out: bool, seed: int) -> set[tuple[int, ...]]:
        found = texts(tiny_ar.tokenizer, sequences, 16, held_out, seed)["samples"]
        return set(map(tuple, found.tolist()))

    chosen = drawn(21, held_out=False, seed=3)
    assert drawn(21, held_out=False, seed=3) == chosen
    assert drawn(21, held_out=False, seed=4) != chosen
    assert not drawn(21, held_out=True, seed=3) & chosen
    assert drawn(9, held_out=False, seed=3) < chosen


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


# calibration and held-out text of the embedded pair


def test_calibration_text_is_crops_and_a_smaller_draw_is_part_of_a_larger(shipped, tiny_dlm):
    small, large = (calibration_draw(tiny_dlm, count, 12, 5) for count in (8, 16))
    assert small.ids_NT.shape == (8, 12) and small.seed == 5
    assert (large.ids_NT[:, 0] != START_TOKEN_ID).all()
    assert set(map(tuple, small.ids_NT.tolist())) <= set(map(tuple, large.ids_NT.tolist()))
    assert small.fingerprint != calibration_draw(tiny_dlm, 8, 12, 6).fingerprint


def test_held_out_text_is_shared_out_by_domain_and_start(shipped, tiny_dlm):
    found = held_out_texts(tiny_dlm.tokenizer, 20, 12)
    assert list(found) == [f"{domain}/{start}" for domain in DOMAINS for start in STARTS]
    assert [len(ids_NT) for ids_NT in found.values()] == [4, 4, 3, 3, 3, 3]

    for name, ids_NT in found.items():
        begins = ids_NT[:, 0] == START_TOKEN_ID
        assert begins.all() if name.endswith("/beginning") else not begins.any()

    again, other = (held_out_texts(tiny_dlm.tokenizer, 20, 12, seed) for seed in (0, 1))
    assert all(torch.equal(again[name], found[name]) for name in found)
    assert any(not torch.equal(other[name], found[name]) for name in found)


def test_held_out_text_comes_from_held_out_sources_alone(shipped, tiny_dlm, monkeypatch):
    tokenizer = tiny_dlm.tokenizer
    assert torch.equal(held_out_stream(tokenizer, "samples"), shipped[:256].flatten())
    own = [text for text in corpus.documentation("stdlib") if corpus.is_held_out(text)]
    assert torch.equal(held_out_stream(tokenizer, "documentation"), corpus.stream(own, tokenizer))
    assert torch.equal(held_out_stream(tokenizer, "natural"), corpus.stream(embedded_wikitext(), tokenizer))

"""Conditions of notebooks 01 and 02: their names, prompts that begin in the middle of text, and samplers."""

import pytest
import torch

from sinkprune_companion import corpus
from sinkprune_companion.experiments import sink_conditions
from sinkprune_companion.experiments.sink_conditions import (
    Condition,
    conditions,
    crops,
    prompts,
    sampler_of,
)
from sinkprune_core.models.loading import open_checkpoint

MAIN = Condition()


def test_conditions_differ_from_the_main_one_in_one_thing_each():
    found = conditions(["natural", "samples", "nothing"], [False, True], [128, 512], ["llada", "dream"])
    assert [condition.name(MAIN) for condition in found] == [
        "",
        "first_token",
        "samples",
        "from_nothing",
        "tokens_512",
        "dream",
    ]
    assert found[0] == MAIN and len({condition.label for condition in found}) == 6
    assert conditions(["natural", "natural"], [False, False], [128, 128], ["llada", "llada"]) == [MAIN]
    with pytest.raises(ValueError, match="lengths is empty: its first value is that of the main"):
        conditions(["natural"], [False], [], ["llada"])
    with pytest.raises(ValueError, match="text='poems' is unknown; choose one of natural, samples"):
        Condition("poems")
    with pytest.raises(ValueError, match="first_token must be True"):
        Condition("nothing")


@pytest.fixture
def word_stream(tiny_ar, monkeypatch):
    """A held-out stream of 40 paragraphs of 6 to 25 words, each behind a separator."""
    separator = corpus.separator(tiny_ar.tokenizer)
    rng = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(40):
        words = int(torch.randint(6, 26, (), generator=rng))
        parts += [torch.tensor([separator]), torch.randint(20, 70, (words,), generator=rng)]
    stream_T = torch.cat(parts)
    monkeypatch.setattr(sink_conditions, "_held_out_stream", lambda tokenizer, text: stream_T)
    return stream_T


def test_crops_begin_in_the_middle_of_a_paragraph_and_do_not_overlap(tiny_ar, word_stream):
    separator = corpus.separator(tiny_ar.tokenizer)
    windows = word_stream.unfold(0, 5, 1)
    found = crops(tiny_ar.tokenizer, "natural", 30, 5)
    places = [int((windows == crop).all(1).nonzero()[0]) for crop in found]
    assert places == sorted(places) and min(torch.tensor(places).diff()) >= 5
    for place in places:
        assert separator not in word_stream[place - 1 : place + 5]
    assert torch.equal(crops(tiny_ar.tokenizer, "natural", 30, 5), found)
    assert not torch.equal(crops(tiny_ar.tokenizer, "natural", 30, 5, seed=1), found)
    with pytest.raises(ValueError, match="400 crops of 5 tokens do not fit the held-out natural English"):
        crops(tiny_ar.tokenizer, "natural", 400, 5)


def test_longer_crops_run_over_paragraphs_of_one_article(tiny_ar, word_stream, monkeypatch):
    monkeypatch.setattr(
        sink_conditions,
        "articles",
        lambda files: ["one two\n = head = \n three four", "five six seven eight"],
    )
    texts: list[str] = []

    def words(documents, tokenizer):
        texts.extend(documents)
        separator = corpus.separator(tokenizer)
        return torch.tensor(
            [part for number in range(2) for part in (separator, *range(100 * number, 100 * number + 90))]
        )

    monkeypatch.setattr(sink_conditions.corpus, "stream", words)
    within = crops(tiny_ar.tokenizer, "natural", 2, 20)
    assert not texts and all(
        any(torch.equal(crop, window) for window in word_stream.unfold(0, 20, 1)) for crop in within
    )
    found = crops(tiny_ar.tokenizer, "natural", 3, 40)
    assert texts == ["one two\n\nthree four", "five six seven eight"]
    assert all((crop.diff() == 1).all() for crop in found), "a crop never runs over two articles"
    assert torch.equal(crops(tiny_ar.tokenizer, "natural", 3, 40), found)
    with pytest.raises(ValueError, match="3 crops of 60 tokens do not fit"):
        crops(tiny_ar.tokenizer, "natural", 3, 60)
    with pytest.raises(ValueError, match="3 crops of 40 tokens do not fit the held-out samples"):
        crops(tiny_ar.tokenizer, "samples", 3, 40)


def test_every_middle_of_a_paragraph_is_a_place_for_a_crop(word_stream):
    is_separator_T = word_stream == word_stream[0]
    found = sink_conditions._middles(is_separator_T, 4).tolist()
    expected = [
        start
        for start in range(1, len(word_stream) - 3)
        if not any(bool(is_separator_T[place]) for place in range(start - 1, start + 4))
    ]
    assert found == expected


def test_the_first_token_stands_before_the_same_prompts(tiny_ar, word_stream):
    plain = prompts(tiny_ar.tokenizer, MAIN, 6, 5)["natural"]
    behind = prompts(tiny_ar.tokenizer, Condition(first_token=True), 6, 5)["natural"]
    separator = corpus.separator(tiny_ar.tokenizer)
    assert torch.equal(behind[:, 1:], plain) and (behind[:, 0] == separator).all()
    assert not (plain == separator).any()
    nothing = prompts(tiny_ar.tokenizer, Condition("nothing", True), 6, 5)["nothing"]
    assert nothing.tolist() == [[separator]] * 6


def test_samplers_write_what_the_condition_leaves():
    found = sampler_of(MAIN, 32, 48, 1.0)
    assert (found.length, found.block, found.steps, found.order) == (96, 24, 48, "low_confidence")
    assert sampler_of(Condition("nothing", True), 32, 48, 1.0).length == 128
    dream = sampler_of(Condition(sampler="dream"), 32, 48, 1.0)
    assert (dream.block, dream.order, dream.schedule) == (None, "entropy", "time")
    with pytest.raises(ValueError, match="leave 97 to write in steps=48; both must be multiples of 4"):
        sampler_of(MAIN, 31, 48, 1.0)


@pytest.mark.slow
def test_prompts_of_the_embedded_texts_are_english_without_rare_words():
    tokenizer = open_checkpoint("smol-ar").tokenizer()
    for text in ("natural", "samples", "documentation"):
        found = crops(tokenizer, text, 24, 32)
        assert found.shape == (24, 32) and not (found == corpus.separator(tokenizer)).any()
        assert all("<unk>" not in tokenizer.decode(row) for row in found)

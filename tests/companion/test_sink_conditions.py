"""Conditions of notebooks 01 and 02: their names, and prompts that begin in the middle of text."""

import pytest
import torch

from sinkprune import corpus
from sinkprune_companion.experiments import sink_conditions
from sinkprune_companion.experiments.sink_conditions import Condition, conditions, crops, prompts

MAIN = Condition()


def test_conditions_differ_from_the_main_one_in_one_thing_each():
    found = conditions(["natural", "samples", "nothing"], [False, True], [128, 512], ["llada", "dream"])
    names = ["", "first_token", "samples", "from_nothing", "tokens_512", "dream"]
    assert [condition.name(MAIN) for condition in found] == names
    assert found[0] == MAIN and len({condition.label for condition in found}) == 6
    assert conditions(["natural", "natural"], [False, False], [128, 128], ["llada", "llada"]) == [MAIN]


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
    monkeypatch.setattr(sink_conditions, "held_out_stream", lambda tokenizer, text: stream_T)
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


def test_the_first_token_stands_before_the_same_prompts(tiny_ar, word_stream):
    plain = prompts(tiny_ar.tokenizer, MAIN, 6, 5)["natural"]
    behind = prompts(tiny_ar.tokenizer, Condition(first_token=True), 6, 5)["natural"]
    separator = corpus.separator(tiny_ar.tokenizer)
    assert torch.equal(behind[:, 1:], plain) and (behind[:, 0] == separator).all()
    assert not (plain == separator).any()
    nothing = prompts(tiny_ar.tokenizer, Condition("nothing", True), 6, 5)["nothing"]
    assert nothing.tolist() == [[separator]] * 6

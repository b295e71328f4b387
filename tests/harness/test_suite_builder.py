"""The builder of the offline suite: it writes what is committed, and lines give the pairs that they say."""

import re

import pytest
import yaml

from sinkprune_companion.harness import suite_builder
from sinkprune_companion.harness.suite import GROUPS, TASKS
from sinkprune_companion.harness.suite_builder import as_jsonl, build


def sentence(item: dict) -> str:
    return f"{item['context']} {item['choices'][item['answer']]}"


@pytest.mark.parametrize("group", GROUPS)
def test_the_committed_items_are_what_the_generator_writes(group):
    assert (TASKS / f"{group}.jsonl").read_text(encoding="utf-8") == as_jsonl(build(group))


def test_building_writes_those_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "sources").symlink_to(TASKS / "sources")
    monkeypatch.setattr(suite_builder, "TASKS", tmp_path)
    suite_builder.main([])
    written = {file.name: file.read_bytes() for file in tmp_path.glob("*.jsonl")}
    assert written == {file.name: file.read_bytes() for file in TASKS.glob("*.jsonl")}
    assert capsys.readouterr().out.count("items") == len(GROUPS)


@pytest.fixture
def build_from(tmp_path, monkeypatch):
    """A function that builds a group from a source given as a dict."""
    (tmp_path / "sources").mkdir()
    monkeypatch.setattr(suite_builder, "TASKS", tmp_path)

    def make(source: dict) -> list[dict]:
        (tmp_path / "sources" / "g.yml").write_text(yaml.safe_dump(source))
        return build("g")

    return make


def test_a_line_is_two_items(build_from):
    first, second = build_from(
        {"templates": {1: ["the {cat|dog} was {big|small}, so it {ran|hid} in the house."]}}
    )
    assert first == {
        "pair": 0,
        "template": 0,
        "context": "The cat was big, so it",
        "choices": ["ran in the house.", "hid in the house."],
        "answer": 0,
    }
    assert second == {**first, "context": "The dog was small, so it", "answer": 1}


def test_slots_take_rows_that_differ_and_all_rows_in_turn(build_from):
    source = {
        "words": {
            "animal": ["name | sound", "cat | meows", "dog | barks", "cow | moos", "bee | buzzes"],
            "time": ["now", "today"],
        },
        "templates": {2: ["A {<animal1.name>|<animal2.name>} {<animal1.sound>|<animal2.sound>} <time>."]},
    }
    made = build_from(source)
    assert {sentence(item) for item in made} >= {sentence(item) for item in made if item["answer"] == 0}
    assert {item["context"] for item in made} == {"A cat", "A dog", "A cow", "A bee"}
    assert made == build_from(source)
    for item in made:  # one slot, one word
        first, second = (choice.split()[1] for choice in item["choices"])
        assert first == second
    sounds = {"A cat": "meows", "A dog": "barks", "A cow": "moos", "A bee": "buzzes"}
    assert all(item["choices"][item["answer"]].startswith(sounds[item["context"]]) for item in made)


def test_no_row_is_used_twice_in_one_pair(build_from):
    made = build_from(
        {
            "words": {"name": ["Tom", "Ann", "Ben"]},
            "templates": {6: ["{Both|Neither} <name1> {and|nor} <name2> came."]},
        }
    )
    assert len({sentence(item) for item in made}) == 12  # all ordered pairs of three names
    for item in made:
        first, second = re.findall("Tom|Ann|Ben", sentence(item))
        assert first != second


@pytest.mark.parametrize(
    "line",
    [
        "The {cat|dog} {ran|ran}.",
        "The cat {ran|hid}.",
        "{<word>|<word>} {is here|is not}.",
        "{1|2} is {5|10}.",
    ],
)
def test_a_line_that_gives_too_few_pairs_is_an_error(build_from, line):
    with pytest.raises(ValueError, match="gives fewer than 2 different pairs"):
        build_from({"words": {"word": ["one", "two"]}, "templates": {2: [line]}})

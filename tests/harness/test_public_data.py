"""The public data that ships with the package is whole, and states where it comes from."""

import re
from collections import Counter

import pytest

from sinkprune_companion.harness.data_files import blimp_paradigms
from sinkprune_companion.harness.local_data import running_text, wikitext
from sinkprune_companion.harness.public_data import (
    BLIMP_FILE,
    WIKITEXT_FILE,
    embedded_blimp,
    embedded_wikitext,
)


@pytest.mark.filterwarnings("ignore:.*<unk>")
def test_the_validation_text_has_sixty_articles_and_the_published_number_of_tokens():
    found = wikitext(WIKITEXT_FILE.parent, "validation")
    assert len(found) == 60 and all(page.lstrip().startswith("= ") for page in found)
    lines = WIKITEXT_FILE.read_text(encoding="utf-8").split("\n")
    assert running_text(found).split("\n") == [line for line in lines if line.strip()]
    # tokens of the split as published, line ends among them
    assert len(running_text(found).split()) + len(lines) - 1 == 217_646


def letters(text: str) -> str:
    """Return a text without spaces and without marks around its punctuation."""
    return re.sub(r"@([-,.])@", r"\1", "".join(text.split()))


def test_paragraphs_are_written_text_without_headings():
    paragraphs = embedded_wikitext()
    lines = [line.strip() for line in WIKITEXT_FILE.read_text(encoding="utf-8").split("\n")]
    expected = [line for line in lines if line and not line.startswith("=")]
    assert len(paragraphs) == len(expected)
    for paragraph, line in zip(paragraphs, expected, strict=True):
        assert letters(paragraph) == letters(line)
    assert not [paragraph for paragraph in paragraphs if " , " in paragraph or " @-@ " in paragraph]


def test_the_slice_of_blimp_is_sixty_pairs_of_every_paradigm():
    paradigms = embedded_blimp()
    assert tuple(paradigms) == blimp_paradigms()
    assert {len(pairs) for pairs in paradigms.values()} == {60}
    for pairs in paradigms.values():
        for pair in pairs:
            assert set(pair) == {"sentence_good", "sentence_bad", "field"}
            assert pair["sentence_good"] != pair["sentence_bad"] and pair["sentence_good"][-1] in ".?"
        assert len({pair["field"] for pair in pairs}) == 1
    fields = Counter(pairs[0]["field"] for pairs in paradigms.values())
    assert fields == {"syntax": 26, "morphology": 18, "syntax_semantics": 14, "semantics": 9}


@pytest.mark.parametrize(
    ("file", "facts"),
    [
        (WIKITEXT_FILE, ("Merity", "2016", "CC BY-SA 3.0", "217,646", "Changes: none", "not that of the")),
        (BLIMP_FILE, ("Warstadt", "2020", "CC BY 4.0", "4,020", "Changes: cut", "not that of the")),
    ],
    ids=["wikitext", "blimp"],
)
def test_the_readme_beside_a_file_states_source_licence_and_changes(file, facts):
    text = " ".join((file.parent / "README.md").read_text(encoding="utf-8").split())
    assert file.name in text
    for fact in facts:
        assert fact in text

"""The public data that ships with the package is whole, and states where it comes from."""

from collections import Counter

import pytest

from sinkprune_companion.harness.data_files import blimp_paradigms
from sinkprune_companion.harness.local_data import running_text, wikitext
from sinkprune_companion.harness.public_data import (
    WIKITEXT_FILE,
    embedded_blimp,
)


@pytest.mark.filterwarnings("ignore:.*<unk>")
def test_the_validation_text_has_sixty_articles_and_the_published_number_of_tokens():
    found = wikitext(WIKITEXT_FILE.parent, "validation")
    assert len(found) == 60 and all(page.lstrip().startswith("= ") for page in found)
    lines = WIKITEXT_FILE.read_text(encoding="utf-8").split("\n")
    assert running_text(found).split("\n") == [line for line in lines if line.strip()]
    # tokens of the split as published, line ends among them
    assert len(running_text(found).split()) + len(lines) - 1 == 217_646


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

"""Public data that ships with the package: WikiText-2's validation split, 60 pairs of each BLiMP paradigm.

Their sources, authors and licences, which are their own, stand in the README.md beside each file.
"""

import json

from sinkprune_companion import DATA
from sinkprune_companion.harness.local_data import articles, detokenised

WIKITEXT_FILE = DATA / "wikitext-2" / "valid.txt"
BLIMP_FILE = DATA / "blimp" / "blimp_67x60.jsonl"


def embedded_wikitext() -> list[str]:
    """Return the paragraphs of WikiText-2's validation split as they are written, without headings.

    <unk> stands for rare words.
    """
    paragraphs = []
    for article in articles([WIKITEXT_FILE]):
        for line in article.split("\n"):
            line = line.strip()
            if line and not line.startswith("="):
                paragraphs.append(detokenised(line))
    return paragraphs


def embedded_blimp() -> dict[str, list[dict[str, str]]]:
    """Return the first 60 minimal pairs of each of BLiMP's 67 paradigms, by paradigm.

    A pair has `sentence_good`, `sentence_bad` and `field`, one of syntax, morphology, semantics and
    syntax_semantics.
    """
    paradigms: dict[str, list[dict[str, str]]] = {}
    for line in BLIMP_FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pair = {
            "sentence_good": row["sentence_good"],
            "sentence_bad": row["sentence_bad"],
            "field": row["field"].replace("/", "_"),  # one paradigm spells it syntax/semantics
        }
        paradigms.setdefault(row["UID"], []).append(pair)
    return paradigms

"""Public data that ships with the package: WikiText-2's validation split, 60 pairs of each BLiMP paradigm.

Their sources, authors and licences, which are their own, stand in the README.md beside each file.
"""

import json

from sinkprune_companion import DATA
from sinkprune_companion.harness.local_data import articles, detokenised

WIKITEXT_FILE = DATA / "wikitext-2" / "valid.txt"
BLIMP_FILE = DATA / "blimp" / "blimp_67x60.jsonl"


def embedded_articles() -> list[list[str]]:
    """Return the paragraphs of each article of WikiText-2's validation split, as they are written.

    There are no headings, and <unk> stands for rare words.
    """
    by_article = []
    for article in articles([WIKITEXT_FILE]):
        lines = [line.strip() for line in article.split("\n")]
        by_article.append([detokenised(line) for line in lines if line and not line.startswith("=")])
    return by_article


def embedded_wikitext() -> list[str]:
    """Return the paragraphs of `embedded_articles` one after the other."""
    return [paragraph for article in embedded_articles() for paragraph in article]


def embedded_blimp() -> dict[str, list[dict[str, str]]]:
    """Return the first 60 pairs (`sentence_good`, `sentence_bad`) of each BLiMP paradigm, by paradigm."""
    paradigms: dict[str, list[dict[str, str]]] = {}
    for line in BLIMP_FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        paradigms.setdefault(row["UID"], []).append(row)
    return paradigms

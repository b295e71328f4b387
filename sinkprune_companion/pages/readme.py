"""README's computed blocks: each stands between two markers, and everything around them is kept.

`answer`, `claims` and `others` follow from the ledger and the published findings; `origin` says of which run
these are, and only `publish` writes it.
"""

from collections.abc import Iterable, Mapping

from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.pages import answer, more_text_words, others_page, remembered, trainings_page
from sinkprune_companion.pages.phrases import unbroken
from sinkprune_core.evaluation.intervals import Estimate


def begin(name: str) -> str:
    """Return the marker that a block begins with."""
    return f"<!-- {name}: written by `make publish` -->"


def end(name: str) -> str:
    """Return the marker that a block ends with."""
    return f"<!-- end of {name} -->"


def blocks(ledger: Iterable[Claim], found: Mapping[str, Estimate | None]) -> dict[str, str]:
    """Return the blocks that follow from the ledger and the findings of a run, by name."""
    ledger = list(ledger)
    sentences = [*remembered.told(found), more_text_words.summary(), trainings_page.summary()]
    bullets = "\n".join(f"* {sentence}" for sentence in sentences)
    table = answer.short_table(ledger, found)
    written = {
        "answer": f"{answer.readme_answer(ledger, found)} {trainings_page.caveat()}".rstrip(),
        "claims": f"{table}\n\n{bullets}",
        "others": others_page.others_summary(),
    }
    return {name: unbroken(text) for name, text in written.items()}


def with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """Return README's text with each block between its markers.

    Raises ValueError where the markers of one are gone or doubled.
    """
    for name, block in blocks.items():
        if text.count(begin(name)) != 1 or text.count(end(name)) != 1:
            raise ValueError(f"README.md must hold the markers {begin(name)} and {end(name)} once each")
        head, rest = text.split(begin(name))
        text = f"{head}{begin(name)}\n{block}\n{end(name)}{rest.split(end(name))[1]}"
    return text

"""The pictures drawn from published findings whenever pages are written: for screens, phones, dark pages."""

from functools import partial
from pathlib import Path

from sinkprune_companion.figures import claims_strip, headline, ladder
from sinkprune_companion.figures.figures import save_every_shape
from sinkprune_companion.ledger.results import Results

FOLDER = "pictures"  # of all but README's


def save_published(results: Results, root: Path) -> list[Path]:
    """Write all of them below `root/figures`, with data and origin beside them; return the files.

    Raises KeyError where findings that one needs are not published, and ValueError where one that a cost
    rests on has no margin.
    """
    map_QK = headline.attention_map(root)
    of_readme = headline.headline_table(results.f, results.on_losses)
    draw = partial(headline.plot_headline, of_readme, map_QK)
    files = save_every_shape(root, "headline", "headline", draw, of_readme, headline.CAPTION, [headline.MAP])

    strip = claims_strip.strip_table(results.ledger, results.estimates, results.verdict)
    rungs = ladder.ladder_table(results.f, ladder.written_texts(root))
    for name, module, plot, table, drawn_from in (
        ("claims_strip", claims_strip, claims_strip.plot_strip, strip, []),
        ("ladder", ladder, ladder.plot_ladder, rungs, [ladder.TEXTS]),
    ):
        draw = partial(plot, table)
        files += save_every_shape(root, FOLDER, name, draw, table, module.CAPTION, drawn_from)
    return files

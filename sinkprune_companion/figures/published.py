"""The pictures that are drawn from published findings, whenever pages are written: wide, and for a phone."""

from functools import partial
from pathlib import Path

from sinkprune_companion.figures import bridge, claims_strip, headline, ladder, others_at_8b
from sinkprune_companion.figures.figures import save_both_shapes
from sinkprune_companion.ledger import others
from sinkprune_companion.pages.sources import Results

FOLDER = "pictures"  # of all but README's
OTHERS = "sinkprune_companion/data/published.yml"


def save_published(results: Results, root: Path) -> list[Path]:
    """Write all of them below `root/figures`, with data and origin beside them; return the files.

    Raises KeyError where findings that one needs are not published.
    """
    map_QK = headline.attention_map(root)
    of_readme = headline.headline_table(results.f, results.on_losses)
    draw = partial(headline.plot_headline, of_readme, map_QK)
    files = save_both_shapes(root, "headline", "headline", draw, of_readme, headline.CAPTION, [headline.MAP])

    strip = claims_strip.strip_table(results.ledger, results.estimates, results.table)
    steps = bridge.bridge_table(results.f, results.on_losses)
    rungs = ladder.ladder_table(results.f, ladder.written_texts(root))
    at_8b = others_at_8b.others_table(others.runs())
    for name, module, plot, table, drawn_from in (
        ("claims_strip", claims_strip, claims_strip.plot_strip, strip, []),
        ("bridge", bridge, bridge.plot_bridge, steps, []),
        ("ladder", ladder, ladder.plot_ladder, rungs, [ladder.TEXTS]),
        ("others_at_8b", others_at_8b, others_at_8b.plot_others, at_8b, [OTHERS]),
    ):
        draw = partial(plot, table)
        files += save_both_shapes(root, FOLDER, name, draw, table, module.CAPTION, drawn_from)
    return files

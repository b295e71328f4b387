"""The pictures that are drawn from published findings, whenever pages are written: wide, and for a phone."""

from functools import partial
from pathlib import Path

from sinkprune.evaluation.intervals import Estimate
from sinkprune_companion.figures import claims_strip, headline, ladder
from sinkprune_companion.figures.figures import save_both_shapes
from sinkprune_companion.ledger import claims
from sinkprune_companion.pages.sources import Results

FOLDER = "pictures"  # of all but README's
TRAININGS = "trainings"  # folder of `figures` with what was found in other trainings


def save_published(results: Results, root: Path) -> list[Path]:
    """Write all of them below `root/figures`, with data and origin beside them; return the files.

    Raises KeyError where findings that one needs are not published, and ValueError where one that a cost
    rests on has no margin.
    """
    map_QK = headline.attention_map(root)
    of_readme = headline.headline_table(results.f, results.on_losses)
    draw = partial(headline.plot_headline, of_readme, map_QK)
    files = save_both_shapes(root, "headline", "headline", draw, of_readme, headline.CAPTION, [headline.MAP])

    trainings = found_in_trainings(root)
    strip = claims_strip.strip_table(results.ledger, results.estimates, results.verdict, trainings)
    elsewhere = strip[strip.training.notna()]
    of_trainings = {
        claims.findings_file(Path("figures", TRAININGS, training), finding.partition("/")[0]).as_posix()
        for training, finding in zip(elsewhere.training, elsewhere.finding, strict=True)
    }
    rungs = ladder.ladder_table(results.f, ladder.written_texts(root))
    for name, module, plot, table, drawn_from in (
        ("claims_strip", claims_strip, claims_strip.plot_strip, strip, sorted(of_trainings)),
        ("ladder", ladder, ladder.plot_ladder, rungs, [ladder.TEXTS]),
    ):
        draw = partial(plot, table)
        files += save_both_shapes(root, FOLDER, name, draw, table, module.CAPTION, drawn_from)
    return files


def found_in_trainings(root: Path) -> dict[str, dict[str, Estimate]]:
    """Return what was found in other trainings of the published pair, by training and finding."""
    files = sorted((root / "figures" / TRAININGS).glob("*/pair.json"))
    return {file.parent.name: claims.findings(file.parent) for file in files}

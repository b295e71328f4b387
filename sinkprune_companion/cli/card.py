"""`sinkprune card`: measure a diffusion adapter beside smol-ar and write its model card."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from sinkprune_companion.cli.options import Options, add_number, whole

SUMMARY = "measure a diffusion adapter beside smol-ar and write its model card"


@dataclass(frozen=True, kw_only=True)
class CardOptions(Options):
    """The options of `sinkprune card`."""

    folder: Path | None = None
    sequences: int = whole(64, least=2)
    draws: int = whole(4, least=1)
    items: int = whole(504, least=1)
    seed: int = whole(0, least=0)
    render: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.render:
            measured = ("sequences", "draws", "items", "seed")
            self.refuse(measured, "--render measures nothing")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `CardOptions`."""
    parser.add_argument(
        "--folder",
        type=Path,
        help="an exported adapter (default: the one that ships with the package)",
    )
    add_number(
        parser, CardOptions, "sequences", "held-out sequences of WikiText-2, and of the two other sources"
    )
    add_number(parser, CardOptions, "draws", "noise draws per sequence and per two-choice item")
    add_number(parser, CardOptions, "items", "items of the offline suite, of 1,512, and of BLiMP, of 4,020")
    add_number(parser, CardOptions, "seed", "seed of the choice of text, of noise and of the samples")
    parser.add_argument(
        "--render",
        action="store_true",
        help="measure nothing: write the card anew from the files beside the adapter",
    )


def run(options: CardOptions) -> int:
    """Measure an adapter, or only render its card, and print where the card is."""
    from sinkprune_core.models.embedded import ADAPTER

    folder = options.folder or ADAPTER
    if options.render:
        from sinkprune_companion.training.card import write_card

        print(write_card(folder))
        return 0

    from sinkprune_companion.training.card_measures import write_measures

    print(write_measures(folder, options.sequences, options.draws, options.items, options.seed))
    return 0


def kept(options: CardOptions) -> str:
    """Return what an interrupted run leaves."""
    return "the card and its measures are as they were, and the same command begins anew"

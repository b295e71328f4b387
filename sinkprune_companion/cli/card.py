"""`sinkprune card`: measure a diffusion adapter beside smol-ar and write its model card."""

from dataclasses import dataclass
from pathlib import Path

from sinkprune_companion.cli.options import NEXT, Options, path, switch, whole


@dataclass(frozen=True, kw_only=True)
class CardOptions(Options):
    """The options of `sinkprune card`."""

    folder: Path | None = path("an exported adapter (default: the one that ships with the package)", "FOLDER")
    sequences: int = whole(64, "held-out sequences of WikiText-2, and of the two other sources", least=2)
    draws: int = whole(4, "noise draws per sequence and per two-choice item", least=1)
    items: int = whole(504, "items of the offline suite, of 1,512, and of BLiMP, of 4,020", least=1)
    seed: int = whole(0, "seed of the choice of text, of noise and of the samples", least=0)
    render: bool = switch("measure nothing: write the card anew from the files beside the adapter")

    def __post_init__(self):
        if self.render:
            self.refuse(("sequences", "draws", "items", "seed"), "--render measures nothing")

    left_behind = f"the card and its measures are as they were, and {NEXT}"


def run(options: CardOptions) -> int:
    """Measure an adapter, or only render its card, and print where the card is."""
    from sinkprune_core.models.embedded import ADAPTER

    folder = options.folder or ADAPTER
    if options.render:
        from sinkprune_companion.training.card import write_card

        print(write_card(folder))
    else:
        from sinkprune_companion.training.card_measures import write_measures

        print(write_measures(folder, options.sequences, options.draws, options.items, options.seed))
    return 0

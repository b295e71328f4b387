"""`sinkprune adopt`: a card for a folder that was saved elsewhere."""

from sinkprune.cli.commands.adopt import Adopt
from sinkprune.recovery.adopt import adopt


def run(options: Adopt) -> None:
    """Write the card, and print what it says."""
    assert options.family is not None  # or the options would not have settled

    card = adopt(options.folder, options.family, options.mask_token)

    mask = f", mask token {card['mask_token_id']}" if card["kind"] == "diffusion" else ""
    recipe = "its recipe is kept" if "recipe" in card else "no recipe is known"
    print(f"{options.folder}: {card['kind']}{mask}; {recipe}")

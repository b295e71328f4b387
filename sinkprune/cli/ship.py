"""`sinkprune ship`: a model card, masks alone."""

from pathlib import Path

from sinkprune.cli.commands.ship import Ship
from sinkprune.models.loading import load, open_checkpoint
from sinkprune.models.reader import CARD
from sinkprune.models.saving import OWN
from sinkprune.models.weight_files import read_json
from sinkprune.recovery.masks import apply_masks, masks_about, save_masks
from sinkprune.recovery.model_card import (
    README,
    save_model,
    upload_line,
    without_card,
    write_readme,
)


def run(options: Ship) -> None:
    """Do what was asked for, in the order of the options; say what comes next."""
    folder = Path(options.model)
    shipped = folder if options.out is None else options.out  # what the card is of
    _check(options, folder)

    if options.masks is not None and options.dense is not None:
        dtype = max(open_checkpoint(folder).files.dtypes.values(), key=lambda kind: kind.itemsize)
        card = {name: value for name, value in read_json(folder / CARD).items() if name not in OWN}
        save_masks(load(folder, dtype), options.masks, load(options.dense, dtype), card)
        size = options.masks.stat().st_size
        print(f"{options.masks}: {size / 1e6:.1f} MB, to be put on {options.dense}")

    if options.apply_masks is not None:
        about = masks_about(options.apply_masks)
        lm = load(options.model, about["dtype"])
        zeros = apply_masks(lm, options.apply_masks)
        save_model(lm.named(shipped.name), shipped, **about["card"])
        print(f"{shipped}: {zeros:,} weights are zero")

    if not (shipped / README).is_file() and read_json(shipped / CARD):
        write_readme(shipped, shipped.resolve().name)
        print(f"{shipped / README}: the model card")

    if (shipped / README).is_file():
        print(f"to publish it: {upload_line(shipped)}")
    else:
        print(f"it cannot be published as it is: {without_card(shipped)}")


def _check(options: Ship, folder: Path) -> None:
    """Raise ValueError for what cannot be done, before any of it is."""
    if options.out is None and not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder: what is shipped is the folder of a saved model (a name will do for "
            "--apply-masks alone)"
        )

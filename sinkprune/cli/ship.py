"""`sinkprune ship`: a model card, masks alone, int8, an upload."""

from pathlib import Path

from sinkprune.cli.commands.ship import Ship
from sinkprune.models.loading import load, open_checkpoint
from sinkprune.models.reader import CARD
from sinkprune.models.weight_files import read_json
from sinkprune.recovery.int8 import save_int8
from sinkprune.recovery.masks import apply_masks, masks_about, save_masks
from sinkprune.recovery.model_card import OWN_FIELDS, README, push, push_line, save_model, write_readme


def run(options: Ship) -> None:
    """Do what was asked for, in the order of the options; say what comes next."""
    folder = Path(options.model)
    if options.masks is not None and options.dense is not None:
        dtype = max(open_checkpoint(folder).files.dtypes.values(), key=lambda kind: kind.itemsize)
        card = {name: value for name, value in read_json(folder / CARD).items() if name not in OWN_FIELDS}
        save_masks(load(folder, dtype), options.masks, load(options.dense, dtype), card)
        size = options.masks.stat().st_size
        print(f"{options.masks}: {size / 1e6:.1f} MB, to be put on {options.dense}")

    if options.apply_masks is not None and options.out is not None:
        about = masks_about(options.apply_masks)
        lm = load(options.model, about["dtype"])
        zeros = apply_masks(lm, options.apply_masks)
        save_model(lm.named(options.out.name), options.out, **about["card"])
        print(f"{options.out}: {zeros:,} weights are zero")

    if options.int8 is not None:
        write_int8(folder, options.int8)

    if options.apply_masks is not None or not folder.is_dir():
        return
    if not (folder / README).is_file() and read_json(folder / CARD):
        write_readme(folder, folder.resolve().name)
        print(f"{folder / README}: the model card")

    if options.push is not None:
        print(push(folder, options.push))
    else:
        print(f"to publish it: {push_line(folder, 'OWNER/NAME')}")


def write_int8(folder: Path, out: Path) -> None:
    """Write the int8 version of a saved model, and say what it is."""
    share = save_int8(folder, out)
    print(f"{out}: linears in int8, {100 * share:.1f} % of them zero; for stock transformers")

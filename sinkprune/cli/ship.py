"""`sinkprune ship`: a folder that can be published, and the line that uploads it."""

from pathlib import Path

from sinkprune.cli.commands.ship import Ship
from sinkprune.models.card import CARD, README
from sinkprune.models.hub import adapter_base
from sinkprune.models.loading import load, without_weights
from sinkprune.models.saving import OWN
from sinkprune.recovery.model_card import card_of, save_model, upload_line, write_readme


def run(options: Ship) -> None:
    """Write what is missing of a folder or, with `--out`, a new one; print the line that uploads it."""
    if options.out is None:
        folder = Path(options.model)
        complete(folder)
    else:
        folder = options.out
        export(options.model, folder)

    print(f"to publish it: {upload_line(folder)}")


def complete(folder: Path) -> None:
    """Write the model card of a saved model where there is none; raise ValueError for another folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name one with --out, to which the model is saved")
    if (folder / README).is_file():
        return
    if not (folder / CARD).is_file():
        raise ValueError(f"{folder} has neither {README} nor {CARD}: --out NEW_FOLDER writes both")

    write_readme(folder, folder.resolve().name)
    print(f"{folder / README}: the model card")


def export(name: str, out: Path) -> None:
    """Save a model to a new folder in transformers' format, as precise as it is stored; an adapter is merged.

    The card says what that of the model, or of the base of an adapter, says of recipe and recovery.
    """
    _, checkpoint = without_weights(name)
    lm = load(name, checkpoint.exact_dtype)

    former = card_of(adapter_base(name) or name)
    card = {field: value for field, value in former.items() if field not in OWN}
    save_model(lm.named(out.name), out, **card)
    print(f"{out}: {lm.kind}, {lm.model.num_parameters():,} parameters")

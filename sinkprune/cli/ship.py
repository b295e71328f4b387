"""`sinkprune ship`: a folder that can be published, and the line that uploads it."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sinkprune.cli.options import NewPath
from sinkprune.cli.screen import keeping, loading


def ship(
    model: Annotated[
        str, Parameter(help="folder of a saved model; with --out a model in any format, or an adapter")
    ],
    /,
    *,
    out: Annotated[
        NewPath,
        Parameter(
            help="save it to this new folder in transformers' format, an adapter merged with its base",
            metavar="FOLDER",
        ),
    ] = None,
) -> None:
    """Make a model ready to publish: one folder with a model card."""
    with keeping(out=out), loading(model):
        from sinkprune.recovery.model_card import upload_line

        made = complete(Path(model)) if out is None else export(model, out)

    print(f"{made}to publish it: {upload_line(out or Path(model))}")


def complete(folder: Path) -> str:
    """Write the model card of a saved model where there is none, and return the line that says so.

    Raises ValueError for another folder.
    """
    from sinkprune.models.card import CARD, README
    from sinkprune.recovery.model_card import write_readme

    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name one with --out, to which the model is saved")
    if (folder / README).is_file():
        return ""
    if not (folder / CARD).is_file():
        raise ValueError(f"{folder} has neither {README} nor {CARD}: --out NEW_FOLDER writes both")

    write_readme(folder, folder.resolve().name)
    return f"{folder / README}: the model card\n"


def export(name: str, out: Path) -> str:
    """Save a model to a new folder in transformers' format, and return the line that says so.

    It is as precise as it is stored, and an adapter is merged.

    The card says what that of the model, or of the base of an adapter, says of recipe and recovery.
    """
    from sinkprune.models.hub import adapter_base
    from sinkprune.models.loading import load, without_weights
    from sinkprune.models.saving import OWN
    from sinkprune.recovery.model_card import card_of, save_model

    _, checkpoint = without_weights(name)
    lm = load(name, checkpoint.exact_dtype)

    former = card_of(adapter_base(name) or name)
    card = {field: value for field, value in former.items() if field not in OWN}
    save_model(lm.named(out.name), out, **card)
    return f"{out}: {lm.kind}, {lm.model.num_parameters():,} parameters\n"

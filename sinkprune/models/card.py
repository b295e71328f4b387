"""The card beside a saved model, whose fields are checked where it is read and where it is written."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt

from sinkprune.models.weight_files import read_checked, read_json
from sinkprune_core.language_model import Kind

CARD = "sinkprune.json"
README = "README.md"  # the model card beside it, for people


class MadeFrom(BaseModel, strict=True, extra="allow"):
    """What a card says of the model that its own was made from."""

    given: str | None = None  # the name by which it was loaded
    model: str | None = None  # its fingerprint
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of its fingerprint
    streamed: bool | None = None
    base_model: str | None = None  # on the hub
    licence: str | None = None
    text: list[str] = []  # names of what the calibration text was taken from


class CardRecipe(BaseModel, strict=True, extra="allow"):
    """What a card says of the recipe; all other fields of a `Recipe` are shown as they are."""

    sparsity: float = Field(ge=0, le=1)


class CardRecovery(BaseModel, strict=True, extra="allow"):
    """What a card says of a recovery; settings are shown as they are."""

    tokens: NonNegativeInt
    steps: NonNegativeInt
    zeros: NonNegativeInt
    method: str
    held_out_before: FiniteFloat
    held_out_after: FiniteFloat
    distillation: float = Field(ge=0, le=1)
    teacher: str | None = None
    text_name: str | None = None


class Card(BaseModel, strict=True, extra="allow"):
    """The card beside a saved model (sinkprune.json): what transformers' own configuration cannot say.

    Fields that are not named here are anybody's.
    """

    name: str = ""
    kind: Kind | None = None
    mask_token_id: NonNegativeInt | None = None
    logits_shifted: bool | None = None
    prunable_weights: NonNegativeInt | None = None  # in the linears of its blocks
    sha256: dict[str, str] = {}  # by name of the file
    made_from: MadeFrom | None = None
    recipe: CardRecipe | None = None
    sparsity: float | None = Field(None, ge=0, le=1)  # that was reached
    pruned_parameters: NonNegativeInt | None = None
    calibration_tokens: NonNegativeInt | None = None
    recovery: CardRecovery | None = None
    recoveries_before: list[CardRecovery] = []


def read_card(folder: Path) -> dict:
    """Return the card in a folder, {} where there is none; FormatError names the field that is invalid."""
    read_checked(Card, folder / CARD)
    return read_json(folder / CARD)  # its fields in their order

"""Writing a model: transformers' own format, with a card of what its configuration cannot say."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

import torch
from pydantic import Field, InstanceOf, ValidationError
from torch import nn

from sinkprune.files import atomic, check_new_folder, digests, write_json
from sinkprune.models.card import CARD, README, Card
from sinkprune.models.reader import GENERATION
from sinkprune.models.streaming import StreamedModel
from sinkprune.models.weight_files import INDEX, first_problem
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.model_checks import check_structure
from sinkprune_core.values import Place, checked_arguments, in_short

Texts = Annotated[Mapping[str, str], Field(description="texts by the names of their files")]
WRITTEN = (  # with every model, its weights and its tokenizer aside
    CARD,
    README,
    "config.json",
    GENERATION,
    INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
)
OWN = (  # what a card says of the model itself
    "name",
    "kind",
    "mask_token_id",
    "logits_shifted",
    "prunable_weights",
    "sha256",
)


@checked_arguments
def save(lm: InstanceOf[LanguageModel], folder: Place, texts: Texts | None = None, **card: object) -> Path:
    """Write a model, its tokenizer and its card in transformers' format (safetensors), atomically.

    `load(folder)` reads it back. A streamed model becomes one shard per block; finished blocks are taken over
    as they are. `texts` are more files by name, `card` is more to put on the card, JSON values by name.

    Raises FileExistsError if `folder` exists, as nothing is ever overwritten. Raises ValueError, before
    anything is written, for an entry of the card that is invalid or would change what the model is taken for,
    for a text by the name of a file of the model, and for biases from `compensate` in a class without:
    `shrink` gives a class that has them. Raises ValueError for a damaged finished block, and for a model that
    is not covered, by name (see `model_checks`).
    """
    folder = Path(folder)
    check_new_folder(folder)

    check_beside(texts or {}, card)
    check_structure(lm.model)
    if not isinstance(lm, StreamedModel):
        lm.check_loaded()
        _check_class(lm)

    with atomic(folder) as partial:
        if isinstance(lm, StreamedModel):
            lm.write_weights(partial)
        else:
            lm.model.save_pretrained(partial, save_original_format=False)  # native names

        if lm.tokenizer is not None:
            lm.tokenizer.save_pretrained(partial)
        for name, text in (texts or {}).items():
            (partial / name).write_text(text, encoding="utf-8")

        own = {
            "name": lm.name,
            "kind": lm.kind,
            "mask_token_id": lm.mask_token_id,
            "logits_shifted": lm.logits_shifted,
            "prunable_weights": lm.prunable_weights,  # fewer than were pruned where units left with the zeros
            "sha256": digests(partial, "*.safetensors", "tokenizer.json"),  # what is read is what was written
        }
        write_json(partial / CARD, {**own, **card})
    return folder


def check_beside(texts: Mapping[str, str], card: Mapping[str, object]) -> None:
    """Raise an error for what cannot be written beside a model, as a file or on its card."""
    for name in texts:
        if Path(name).name != name:
            raise ValueError(
                f"texts has {in_short(name)}, which is no name of a file in the folder of a model"
            )
        if name in WRITTEN or name.endswith(".safetensors"):
            raise ValueError(f"texts has {name}, which is written with the model: choose another name")

    taken = [name for name in OWN if name in card]
    if taken:
        raise ValueError(
            f"{taken[0]}={in_short(card[taken[0]])} cannot be put on the card, which says by that name what "
            "the model is: choose another name"
        )
    for name, value in card.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise TypeError(
                f"{name}={in_short(value)} cannot be put on the card, which is JSON: give finite numbers, "
                "texts, lists and dictionaries of these"
            ) from None

    try:
        Card.model_validate(card)
    except ValidationError as error:
        raise ValueError(
            f"{first_problem(error)}; a card takes what the report of a run says (`report.card()`): "
            "call what is yours by another name"
        ) from None


def _check_class(lm: LanguageModel) -> None:
    """Raise ValueError for parameters that the model's class would not read back."""
    with torch.device("meta"):
        expected = type(lm.model)(lm.model.config).state_dict()
    more = sorted(lm.model.state_dict().keys() - expected.keys())
    if more:
        raise ValueError(f"{lm.name} has {more[0]}, which its class cannot read: `shrink` it first")

    embedding = cast(nn.Module, lm.model.get_input_embeddings()).weight
    is_tied = lm.output_head.weight is embedding
    if is_tied and not lm.model.config.tie_word_embeddings:
        raise ValueError(
            f"the output head of {lm.name} shares its weight with the embedding, and its config does not say "
            "so: set tie_word_embeddings in model.config to True"
        )

"""The card beside a saved model (sinkprune.json): what transformers' own configuration cannot say."""

from pathlib import Path

from sinkprune_core.models.language_model import CARD, KINDS
from sinkprune_core.models.weight_files import FormatError, read_json, shown


def read_card(folder: Path) -> dict:
    """Return the card of a folder, {} if it has none.

    Raises FormatError, which names the file, the field, its value and what is allowed.
    """
    file = folder / CARD
    card = read_json(file)
    rules = {
        "name": (isinstance(card.get("name"), str), "a word"),
        "kind": (card.get("kind") in KINDS, f"one of {', '.join(KINDS)}"),
        "mask_token_id": (_is_token(card.get("mask_token_id")), "a whole number of at least 0, or null"),
        "logits_shifted": (isinstance(card.get("logits_shifted"), bool), "true or false"),
        "sha256": (_is_map_of_words(card.get("sha256")), "an object of file names and digests"),
    }
    for name, (holds, allowed) in rules.items():
        if name in card and not holds:
            raise FormatError(f"{file} has {name}={shown(card[name])}: it must be {allowed}")
    return card


def _is_token(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _is_map_of_words(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())

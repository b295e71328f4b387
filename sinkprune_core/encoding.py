"""What is asked of a tokenizer; and the mask's name in a text, which is text: only noise puts masks there."""

from pathlib import Path
from typing import Any, Protocol


class Tokenizer(Protocol):
    """What is asked of a tokenizer, besides `bos_token_id` and `eos_token_id` where it has them; those of
    transformers fit.
    """

    def __call__(self, text: Any, *, add_special_tokens: bool = ..., split_special_tokens: bool = ...) -> Any:
        """Return an object with the ids of a text, or of each text of a list, `input_ids`; its special tokens
        may be split.
        """
        ...

    def decode(self, token_ids: Any) -> Any:
        """Return the text of some ids."""
        ...

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """Return what the vocabulary calls an id."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every token."""
        ...

    def save_pretrained(self, save_directory: str | Path) -> Any:
        """Write the tokenizer's files."""
        ...


def without_mask(ids: list[int], tokenizer: Tokenizer, mask_token_id: int | None) -> list[int]:
    """Return the token ids of a text with the letters of the mask's name in place of each mask among them.

    Tokenizers take the name of a special token, wherever a text has it, for that token. All other ids stay as
    they are; None stands for a model without a mask. Raises ValueError where the vocabulary knows the mask
    as a word that has no letters of its own.
    """
    if mask_token_id is None or mask_token_id not in ids:
        return ids

    name = tokenizer.convert_ids_to_tokens(mask_token_id)
    letters = tokenizer(name, add_special_tokens=False, split_special_tokens=True).input_ids
    if mask_token_id in letters:
        raise ValueError(
            f"the text holds {name!r}, which this model's vocabulary knows only as its mask: "
            "take it out of the text"
        )

    read = []
    for token in ids:
        if token == mask_token_id:
            read += letters
        else:
            read.append(token)

    return read

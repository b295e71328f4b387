"""The tokenizer of a checkpoint, and which of its tokens is the mask."""

from collections.abc import Mapping
from pathlib import Path

from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from sinkprune_core.models.weight_files import FormatError, read_json


def read_tokenizer(folder: Path, family: str) -> object:
    """Load a tokenizer from its own files; no remote code, whatever they ask for.

    `family` is the format that the files belong to. Raises FormatError if there is no tokenizer, or if its
    special tokens do not get the ids that its files state.
    """
    stated = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    if (folder / "tokenizer.json").is_file():
        # Read as it is: a class chosen by the model's type would build its own rules around the vocabulary.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    elif family == "native":
        tokenizer = AutoTokenizer.from_pretrained(folder)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        cls = GPT2Tokenizer if family == "diffugpt" else Qwen2Tokenizer  # Dream's own class is Qwen2's
        tokenizer = cls.from_pretrained(folder)
    else:
        raise FormatError(
            f"no tokenizer in {folder}: "
            "put the published tokenizer.json, or vocab.json and merges.txt, beside the weights"
        )
    _check_special_tokens(tokenizer, stated, folder)
    tokenizer.init_kwargs.pop(
        "auto_map", None
    )  # or a saved folder would ask for the code that was not needed
    return tokenizer


def _check_special_tokens(tokenizer, stated: dict[str, dict], folder: Path) -> None:
    """Raise FormatError where the vocabulary has other ids than the tokenizer's files state."""
    vocabulary = tokenizer.get_vocab()
    moved = []
    for index, token in stated.items():
        found = vocabulary.get(token["content"])
        if found != int(index):
            moved.append(f"{token['content']} is {found} instead of {int(index)}")
    if moved:
        raise FormatError(
            f"the tokenizer in {folder} gives other ids than its files state: {', '.join(moved[:5])}"
        )


def agreed_mask_token(said: Mapping[str, int | None], folder: Path) -> int:
    """Return the mask token on which all sources agree that name one.

    `said` is what each source says, by its name; None: nothing. Raises FormatError where none names one or
    two disagree.
    """
    named = {source: token for source, token in said.items() if token is not None}
    if not named:
        raise FormatError(
            f"nothing in {folder} says which token is the mask: add mask_token_id to its config.json"
        )
    if len(set(named.values())) > 1:
        claims = ", ".join(f"{token} says {source}" for source, token in named.items())
        raise FormatError(f"the mask token of {folder} is not clear: {claims}")
    return next(iter(named.values()))

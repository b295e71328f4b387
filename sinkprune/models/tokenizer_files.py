"""The tokenizer of a checkpoint, and which of its tokens is the mask."""

from collections.abc import Mapping
from pathlib import Path

from transformers import (
    AutoTokenizer,
    GPT2Tokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from sinkprune.models.weight_files import FormatError, read_json, refused
from sinkprune_core.values import in_short

TOKENIZER = "tokenizer.json"


def read_tokenizer(folder: Path, family: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from its own files; no remote code, whatever they ask for.

    `family` is the format that the files belong to. Raises FormatError if there is no tokenizer, or if its
    special tokens do not get the ids that its files state.
    """
    _check_schema(folder / TOKENIZER)
    with refused(f"the tokenizer in {folder} cannot be read", "take the published files"):
        tokenizer = _read(folder, family)
        vocabulary = tokenizer.get_vocab()

    _check_special_tokens(vocabulary, folder)
    # or a saved folder would ask for the code that was not needed
    tokenizer.init_kwargs.pop("auto_map", None)
    return tokenizer


def _read(folder: Path, family: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer by the files that there are."""
    if (folder / TOKENIZER).is_file():
        # Read as it is: a class chosen by the model's type would build its own rules around the vocabulary.
        return PreTrainedTokenizerFast.from_pretrained(folder)

    if family == "native":
        return AutoTokenizer.from_pretrained(folder)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        cls = GPT2Tokenizer if family == "diffugpt" else Qwen2Tokenizer  # Dream's own class is Qwen2's
        return cls.from_pretrained(folder)

    raise FormatError(
        f"no tokenizer in {folder}: "
        "put the published tokenizer.json, or vocab.json and merges.txt, beside the weights"
    )


def _check_schema(file: Path) -> None:
    """Raise FormatError for a part of a tokenizer that is no object: a list would be taken for its fields."""
    content = read_json(file)
    for part in ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder"):
        value = content.get(part)
        if value is not None and not isinstance(value, dict):
            raise FormatError(f"{file}: {part}={in_short(value)} must be an object or null")


def check_size(tokenizer, vocabulary: int, folder: Path) -> None:
    """Raise FormatError where a tokenizer has ids beyond the `vocabulary` rows of the embedding."""
    token, highest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1], default=("", -1))
    if highest >= vocabulary:
        raise FormatError(
            f"the tokenizer in {folder} gives {in_short(token)} the id {highest}, and the model has "
            f"embeddings for {vocabulary} tokens: take the tokenizer of this model"
        )


def _check_special_tokens(vocabulary: dict[str, int], folder: Path) -> None:
    """Raise FormatError where the vocabulary has other ids than tokenizer_config.json states."""
    file = folder / "tokenizer_config.json"
    moved = []
    with refused(f"added_tokens_decoder in {file} is no map from ids to tokens", "take the published file"):
        stated = read_json(file).get("added_tokens_decoder") or {}
        for index, token in stated.items():
            actual = vocabulary.get(token["content"])
            if actual != int(index):
                moved.append(f"{token['content']} is {actual} instead of {index}")

    if moved:
        raise FormatError(
            f"the tokenizer in {folder} gives other ids than its files state: {', '.join(moved[:5])}"
        )


def agreed_mask_token(token_by_source: Mapping[str, int | None], folder: Path) -> int:
    """Return the mask token on which all sources agree that name one; None: a source names none.

    Raises FormatError where none names one or two disagree.
    """
    named = {source: token for source, token in token_by_source.items() if token is not None}
    for source, token in named.items():
        if not isinstance(token, int) or isinstance(token, bool):
            raise FormatError(
                f"the mask token of {folder} is {in_short(token)} in {source}: it must be a number"
            )

    if not named:
        raise FormatError(
            f"nothing in {folder} says which token is the mask: add mask_token_id, its number, to config.json"
        )

    if len(set(named.values())) > 1:
        claims = ", ".join(f"{token} says {source}" for source, token in named.items())
        raise FormatError(f"the mask token of {folder} is not clear: {claims}")

    return next(iter(named.values()))

"""A folder that something else saved, a Trainer say, gets the card that says how its model is read."""

import os
from contextlib import suppress
from pathlib import Path

import torch

from sinkprune.files import digests, held, write_json
from sinkprune.models.formats import FORMATS
from sinkprune.models.loading import load
from sinkprune.models.reader import CARD
from sinkprune.models.saving import GENERATION, refuse_generate
from sinkprune.models.tokenizer_files import read_tokenizer
from sinkprune.models.weight_files import read_json
from sinkprune.recovery.model_card import OWN_FIELDS, README, write_readme

SAME_SHARE = 1e-3  # how far the share of zeros may lie from the one that a recipe states


def adopt(folder: str | os.PathLike, family: str, mask_token: str | int | None = None) -> dict:
    """Write the card of a folder in transformers format anew, from its files as they are; return the card.

    `family` says how the model predicts: `llada`, `dream` and the like, or `native` for an autoregressive
    model (a name in `FORMATS`). `mask_token` is a token or its number, where neither config.json nor the
    tokenizer names one. What a former card says of recipe and recovery stays where the linears still have as
    many zeros, and a model card is written where there is none. Raises ValueError for a family or mask token
    that does not fit and for weights that do not load; the folder then stays as it was.
    """
    folder = Path(folder)
    if family not in FORMATS:
        raise ValueError(f"family={family!r} is unknown; choose one of {', '.join(FORMATS)}")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json: give a folder that save_pretrained wrote")

    published = FORMATS[family]
    kind = published.kind or "autoregressive"
    config = read_json(folder / "config.json")

    card = {
        "name": folder.resolve().name,
        "kind": kind,
        "mask_token_id": _mask_token_id(folder, config, mask_token) if kind == "diffusion" else None,
        "logits_shifted": published.logits_shifted if kind == "diffusion" else True,
    }
    if card["logits_shifted"] is None:
        raise ValueError(
            f"family={family!r} does not say whether logits are shifted; name a diffusion family"
        )

    former = {}
    with suppress(ValueError):  # of what is no card
        former = read_json(folder / CARD)

    with held(folder):
        files = [folder / name for name in (CARD, "config.json", GENERATION)]
        kept = {file: file.read_bytes() for file in files if file.is_file()}

        try:
            write_json(folder / "config.json", _stated(config, card))
            if kind == "diffusion":
                refuse_generate(folder)
            card |= {"sha256": digests(folder, "*.safetensors", "tokenizer.json")}
            write_json(folder / CARD, card)
            card |= _history(former, _zero_share(folder))
            write_json(folder / CARD, card)
        except BaseException:
            for file in files:
                file.unlink(missing_ok=True)
            for file, content in kept.items():
                file.write_bytes(content)
            raise

        if not (folder / README).is_file():
            write_readme(folder, card["name"])

    return card


def _mask_token_id(folder: Path, config: dict, asked: str | int | None) -> int:
    """Return the number of the mask token: `asked`, else what config.json or the tokenizer names."""
    tokenizer = read_tokenizer(folder, "native")
    if asked is None:
        named = config.get("mask_token_id")
        found = tokenizer.mask_token_id if named is None else named
        if not isinstance(found, int):
            raise ValueError(
                f"nothing in {folder} says which token is the mask: name it with mask_token "
                "(--mask-token), a token or its number"
            )
        return found

    vocabulary = tokenizer.get_vocab()
    chosen = vocabulary.get(asked, asked) if isinstance(asked, str) else asked
    size = config.get("vocab_size", len(vocabulary))
    if isinstance(chosen, str) and chosen.isdecimal():
        chosen = int(chosen)
    if isinstance(chosen, str) or not 0 <= chosen < size:
        raise ValueError(
            f"mask_token={asked!r} is neither a token of the vocabulary nor a number below {size}: "
            "give the one that the model was trained with"
        )

    return chosen


def _stated(config: dict, card: dict) -> dict:
    """Return a configuration that says what the card says, as far as transformers reads it."""
    stated = {**config, "is_causal": card["kind"] == "autoregressive"}
    if card["mask_token_id"] is not None:
        stated["mask_token_id"] = card["mask_token_id"]
        stated["logits_shifted"] = card["logits_shifted"]
    return stated


def _zero_share(folder: Path) -> float:
    """Return the share of zeros in the linears of the blocks; raise ValueError where weights do not load."""
    lm = load(folder, torch.bfloat16)
    return lm.count_zeros() / lm.prunable_weights


def _history(former: dict, share: float) -> dict:
    """Return what a former card says of recipe and recovery, if the model still has its zeros."""
    history = {name: value for name, value in former.items() if name not in OWN_FIELDS}
    recipe = former.get("recipe") or {}
    stated = 0.0 if recipe.get("pattern") == "structured" else former.get("sparsity", 0.0)
    return history if share >= stated - SAME_SHARE else {}

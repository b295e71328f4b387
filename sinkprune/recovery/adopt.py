"""A folder that something else saved, a Trainer say, gets the card that says how its model is read."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sinkprune.files import atomic, digests, held, resolved, write_json
from sinkprune.models.formats import FORMATS
from sinkprune.models.loading import load
from sinkprune.models.reader import CARD, GENERATION
from sinkprune.models.saving import OWN
from sinkprune.models.tokenizer_files import read_tokenizer
from sinkprune.models.weight_files import read_json
from sinkprune.recovery.model_card import README, card_in, is_smaller, write_readme
from sinkprune.scratch import scratch_folder

SAME_SHARE = 1e-3  # how far the share of zeros may lie from the one that a recipe states


def adopt(folder: str | os.PathLike, family: str, mask_token: str | int | None = None) -> dict:
    """Write the card of a folder in transformers format anew, from its files as they are; return the card.

    `family` says how the model predicts: `llada`, `dream` and the like, or `native` for an autoregressive
    model (a name in `FORMATS`). `mask_token` is a token or its number, where neither config.json nor the
    tokenizer names one. What a former card says of recipe and recovery stays where the linears still have as
    many zeros, and a model card is written where there is none. Raises ValueError for a family or mask token
    that does not fit, for one that is both a token and the number of another, and for weights that do not
    load; the folder then stays as it was. All is computed before the first file is written, and the card is
    the last: after a kill the same call does it again.
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

    with held(folder):
        former = card_in(folder)
        with _as_it_will_be(folder, _stated(config, card), card) as planned:
            card |= _history(former, _zero_share(planned, folder))
            card["sha256"] = digests(folder, "*.safetensors", "tokenizer.json")
            write_json(planned / CARD, card)
            if not (folder / README).is_file():
                write_readme(planned, card["name"])

            for name in (README, GENERATION, "config.json", CARD):  # after a kill the former card is there
                _take_over(planned / name, folder / name)

    return card


@contextmanager
def _as_it_will_be(folder: Path, config: dict, card: dict) -> Iterator[Path]:
    """Yield a folder of links to the files of another, beside it, with the configuration and card to come."""
    place = resolved(folder)
    with scratch_folder(place) as scratch:
        planned = scratch / place.name
        planned.mkdir()
        for file in place.iterdir():
            if file.name not in (CARD, "config.json", GENERATION):
                (planned / file.name).symlink_to(file)

        write_json(planned / "config.json", config)
        write_json(planned / CARD, card)
        if (place / GENERATION).is_file():
            shutil.copyfile(place / GENERATION, planned / GENERATION)

        yield planned


def _take_over(file: Path, place: Path) -> None:
    """Put a file that was planned in its place, atomically; a link leads there already."""
    if file.is_symlink() or not file.is_file():
        return
    with atomic(place) as partial:
        shutil.copyfile(file, partial)


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
    size = config.get("vocab_size", len(vocabulary))
    chosen = vocabulary.get(asked, asked) if isinstance(asked, str) else asked

    if isinstance(asked, str) and asked.isdecimal():
        number = int(asked)
        if asked in vocabulary and number != chosen and number < size:
            raise ValueError(
                f"mask_token={asked!r} is a token, of number {chosen}, and number {number} is another, "
                f"{tokenizer.convert_ids_to_tokens(number)!r}: give {chosen} for the one, or how the other "
                "is written (from Python a number that is an int will do)"
            )
        if asked not in vocabulary:
            chosen = number

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


def _zero_share(planned: Path, folder: Path) -> float:
    """Return the share of zeros in the linears of the blocks; raise ValueError where weights do not load.

    The error names the folder that is adopted, not the one that stands for it.
    """
    try:
        lm = load(planned, torch.bfloat16)
    except (ValueError, RuntimeError) as error:
        kind = ValueError if isinstance(error, ValueError) else RuntimeError
        raise kind(str(error).replace(str(planned), str(folder))) from error
    return lm.count_zeros() / lm.prunable_weights


def _history(former: dict, share: float) -> dict:
    """Return what a former card says of recipe and recovery, if the model still has its zeros."""
    history = {name: value for name, value in former.items() if name not in OWN}
    stated = 0.0 if is_smaller(former) else former.get("sparsity", 0.0)
    return history if share >= stated - SAME_SHARE else {}

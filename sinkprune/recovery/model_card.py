"""A folder that can be published as it is: weights that say what they are, and a model card for people."""

import copy
import dataclasses
import json
import os
import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from huggingface_hub import metadata_load
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import InstanceOf
from transformers import PreTrainedTokenizerBase

from sinkprune.files import DATA, atomic, check_new_folder, digests, write_json
from sinkprune.models.card import CARD, README, read_card
from sinkprune.models.catalog import EMBEDDED, MODELS
from sinkprune.models.embedded import FetchError
from sinkprune.models.hub import folder_of
from sinkprune.models.saving import Texts, save
from sinkprune.models.streaming import OF_BLOCK
from sinkprune.models.weight_files import read_json
from sinkprune_core.encoding import Tokenizer
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.patterns import n_and_m
from sinkprune_core.values import Place, checked_arguments

OTHER = "other"  # a licence that the hub has no name for
TEMPLATES = Environment(
    loader=FileSystemLoader(DATA / "model_card"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)
EMBEDDED_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what the embedded models were made from


@checked_arguments
def save_model(
    lm: InstanceOf[LanguageModel],
    folder: Place,
    texts: Texts | None = None,
    **card: object,
) -> Path:
    """Save a model as `save` does, ready to be published; return the folder.

    Besides there is a model card (README.md) from what `card` says of recipe and recovery, and the recipe in
    the metadata of the safetensors (of a streamed model in those that hold no block, since a finished block
    is no copy but a link). The mask token, and whether logits are shifted, stand in config.json,
    where transformers keeps them when it saves the model again. Where `card` has no `made_from`, base model
    and licence are those of what the model was loaded from, by `load` or by transformers. The mask is a
    special token of the tokenizer where it is one of its added tokens. Raises what `save` raises.
    """
    folder = Path(folder)
    check_new_folder(folder)
    if "made_from" not in card and (made_from := _provenance_of(lm)):
        card["made_from"] = made_from

    with atomic(folder) as partial:
        named = dataclasses.replace(lm, tokenizer=tokenizer_with_mask(lm))
        save(named, partial, texts, **card)
        if lm.is_diffusion:
            state_mask(lm, partial)

        more = {name: json.dumps(card[name]) for name in ("recipe", "recovery") if card.get(name)}
        if more:
            for file in partial.glob("*.safetensors"):
                if not file.name.startswith(OF_BLOCK):  # which may be a link to a file of the work folder
                    add_metadata(file, more)

        write_readme(partial, folder.name)
        refresh_digests(partial)

    return folder


# what a model was made from


def folder_here(name: str | os.PathLike) -> Path | None:
    """Return the folder of a model: the folder that its name is, or else that of a hub id in the hub's cache.

    None for an embedded model, and for one that is not on this machine.
    """
    if os.fspath(name) in EMBEDDED:
        return None
    try:
        folder = folder_of(name, local=True)
    except FetchError:
        return None
    return folder if folder.is_dir() else None


def card_of(name: str | os.PathLike) -> dict:
    """Return the card beside a model of this machine, {} where there is none; raise as `read_card` does."""
    folder = folder_here(name)
    return {} if folder is None else read_card(folder)


def provenance(name: str | os.PathLike) -> dict[str, str]:
    """Return what the card of a new model says of the one that it is made from, as `load` takes its name.

    That is `given`, the name, and as far as they are known `base_model`, an id on the hub, and `licence`. Of
    a hub id that the table of models does not have, and of a folder, they stand in its model card.
    """
    text = os.fspath(name)
    plain = text.partition("@")[0]
    folder = folder_here(name)
    is_from_hub = folder is None or not Path(name).exists()
    is_of_table = is_from_hub and plain in MODELS

    base_model, licence = None, None
    if is_of_table:
        base_model, licence = EMBEDDED_BASE if plain in EMBEDDED else plain, _licence(plain)
    elif folder is not None:
        about = _front_matter(folder / README)
        licence = about.get("license")
        if is_from_hub:
            base_model = plain
        elif (folder / CARD).is_file():  # another's README names what that folder was made from
            base_model = about.get("base_model")

    found = {"given": text, "base_model": base_model, "licence": licence}
    return {field: value for field, value in found.items() if isinstance(value, str) and value != OTHER}


def _provenance_of(lm: LanguageModel) -> dict[str, str]:
    """Return base model and licence of what a model was loaded from, as far as they are known."""
    origin = getattr(lm.model, "name_or_path", None)
    if not origin:
        return {}

    found = {}
    with suppress(ValueError):  # of what is no name of a model, such as a title
        found = provenance(origin)
    return {field: value for field, value in found.items() if field != "given"}


def _front_matter(readme: Path) -> dict:
    """Return the metadata of a model card, {} where there is none that can be read."""
    with suppress(Exception):  # whatever the reader of YAML raises
        return metadata_load(readme) or {}
    return {}


# beside the weights


def refresh_digests(folder: Path) -> None:
    """Put the digests of the files as they are now on the card of a folder."""
    card = read_json(folder / CARD)
    card["sha256"] = digests(folder, "*.safetensors", "tokenizer.json")
    write_json(folder / CARD, card)


def state_mask(lm: LanguageModel, folder: Path) -> None:
    """Say in the config.json of a folder which token is the mask, and whether logits are shifted."""
    file = folder / "config.json"
    stated = {"mask_token_id": lm.mask_token_id, "logits_shifted": lm.logits_shifted}
    write_json(file, read_json(file) | stated)


def tokenizer_with_mask(lm: LanguageModel) -> Tokenizer | None:
    """Return the tokenizer, which knows its mask token where that is an added token already.

    An ordinary entry of the vocabulary would, as a special token, change how text is split.
    """
    tokenizer = lm.tokenizer
    if not lm.is_diffusion or not isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer

    added = tokenizer.added_tokens_decoder
    if lm.mask not in added:
        return tokenizer

    with_mask = copy.deepcopy(tokenizer)
    with_mask.mask_token = str(added[lm.mask])
    return with_mask


def add_metadata(file: Path, more: Mapping[str, str]) -> None:
    """Add to the metadata of a safetensors file; its tensors are copied byte by byte."""
    with file.open("rb") as old:
        size = int.from_bytes(old.read(8), "little")
        header = json.loads(old.read(size))
        header["__metadata__"] = {**header.get("__metadata__", {}), **more}
        text = json.dumps(header, separators=(",", ":")).encode()

        text += b" " * (-len(text) % 8)
        with atomic(file) as partial, partial.open("wb") as new:
            new.write(len(text).to_bytes(8, "little"))
            new.write(text)
            shutil.copyfileobj(old, new, 1 << 24)


# the model card


def write_readme(folder: Path, place: str) -> None:
    """Write the model card of a saved folder, which readers will find as `place`."""
    text = card_text(folder, place)
    with atomic(folder / README) as partial:
        partial.write_text(text, encoding="utf-8")


def card_text(folder: Path, place: str) -> str:
    """Return the model card, Markdown, of a folder with a card of its own and a configuration."""
    card = read_card(folder)
    config = read_json(folder / "config.json")
    made_from = card.get("made_from") or {}

    unstated = [field for field in ("kind", "logits_shifted") if card.get(field) is None]
    if unstated:
        raise ValueError(
            f"{folder / CARD} has no {unstated[0]}, which a model card says: "
            "save the model anew with save_model, or write it there"
        )

    is_diffusion = card["kind"] == "diffusion"
    architectures = config.get("architectures") or ["causal language model"]

    return TEMPLATES.get_template("README.md.j2").render(
        card=card,
        place=place,
        is_diffusion=is_diffusion,
        architecture=architectures[0],
        mask_token=_mask_in_words(folder, card) if is_diffusion else None,
        base_model=made_from.get("base_model"),
        licence=made_from.get("licence"),
        is_smaller=is_smaller(card),
        ratio=n_and_m(str((card.get("recipe") or {}).get("pattern"))),
    )


def _mask_in_words(folder: Path, card: Mapping) -> str:
    """Return the number of the mask token, and its spelling where the tokenizer says it."""
    number = f"number {card['mask_token_id']}"
    spelling = read_json(folder / "tokenizer_config.json").get("mask_token")
    if spelling is None:
        return number

    content = spelling["content"] if isinstance(spelling, dict) else spelling
    return f"`{content}` ({number})"


def _licence(name: str) -> str | None:
    """Return the licence of a model of the table as the hub spells it, None where it has no name for that."""
    licence = MODELS[name].licence.lower()
    return licence if licence in ("apache-2.0", "mit") else None


def is_smaller(card: Mapping) -> bool:
    """Return whether a card is that of a model without the units that were pruned, which left no zeros."""
    left, pruned = card.get("prunable_weights"), card.get("pruned_parameters")
    return left is not None and pruned is not None and left < pruned


# publishing


def upload_line(folder: Path) -> str:
    """Return the line that uploads a folder to the hub, as a person types it."""
    return f"hf upload OWNER/NAME {shlex.quote(os.fspath(folder))} ."

"""Tiny random checkpoints in the public formats, which show in seconds that a family works here.

A model is drawn as parts that know no format (random_parts.py). Layouts write them as each family publishes
them (random_layouts.py), with a tokenizer (random_tokenizers.py), for every case of a table
(random_cases.py). The weights are random, so no number of such a model says anything about the real one.
"""

import json
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from sinkprune_core.files import atomic
from sinkprune_core.models import random_layouts as layouts
from sinkprune_core.models.catalog import EMBEDDED, KnownModel
from sinkprune_core.models.hub import parse
from sinkprune_core.models.random_cases import CASES, Case
from sinkprune_core.models.random_layouts import Tensors
from sinkprune_core.models.random_parts import draw
from sinkprune_core.models.random_tokenizers import dream_tokenizer, spelling_tokenizer, word_tokenizer
from sinkprune_core.models.weight_files import INDEX

SPELLING_VOCABULARY = 288  # 256 bytes, special tokens, and some entries that no text has
METADATA = {"format": "pt"}  # what transformers expects in a file of safetensors


def write(case: Case, folder: Path, seed: int = 0) -> dict:
    """Write a case's checkpoint as it would lie on the hub; return its parts."""
    folder.mkdir(parents=True)
    shape = case.shape
    parts = draw(shape, seed)
    stored, config = case.layout(parts, shape)
    stored = {name: tensor.to(shape.stored).contiguous().clone() for name, tensor in stored.items()}
    write_weights(stored, folder, case.shards)
    if case.layout is layouts.smdm:
        (folder / "lit_config.json").write_text(json.dumps(layouts.lit_config(shape)))
    else:
        config["torch_dtype"] = str(shape.stored).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(config))
    if case.layout is layouts.dream:
        dream_tokenizer(folder)
    elif case.spells:
        spelling_tokenizer(case, folder)
    else:
        word_tokenizer(case, folder)
    return parts


def write_weights(stored: Tensors, folder: Path, shards: int = 1) -> None:
    """Write tensors as one file of safetensors, or as shards with an index."""
    if shards == 1:
        save_file(stored, folder / "model.safetensors", metadata=METADATA)
        return
    names = sorted(stored)
    file_of = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        in_shard = names[shard::shards]
        save_file({name: stored[name] for name in in_shard}, folder / file, metadata=METADATA)
        file_of |= dict.fromkeys(in_shard, file)
    total = sum(tensor.nbytes for tensor in stored.values())
    index = {"metadata": {"total_size": total}, "weight_map": file_of}
    (folder / INDEX).write_text(json.dumps(index))


def case_of(row: KnownModel) -> Case:
    """Return the case in the format of a row of the table of models, with 1024 positions.

    Its tokenizer spells any text.
    """
    case = next(case for case in CASES.values() if (case.family, case.native) == (row.family, row.native))
    shape = replace(case.shape, mlp=48, positions=1024)
    mask = case.mask
    if row.family == "smdm":  # the mask comes after the vocabulary and has no row in the output head
        mask = SPELLING_VOCABULARY
        shape = replace(shape, vocabulary=SPELLING_VOCABULARY + 1, head_rows=SPELLING_VOCABULARY)
    elif case.layout is not layouts.dream:
        shape = replace(shape, vocabulary=SPELLING_VOCABULARY)
    return replace(case, shape=shape, mask=mask, spells=True)


def stand_in(row: KnownModel, folder: Path, seed: int = 0) -> Path:
    """Return a folder with a tiny random checkpoint in the format of a row, written where it is missing."""
    if not folder.exists():
        with atomic(folder) as partial:
            write(case_of(row), partial, seed)
    return folder


def instead_of(name: str, folder: Path, seed: int = 0) -> Path | str:
    """Return what to load where no weights are wanted.

    For a hub id that is a stand-in below `folder`; for an embedded model or a folder it is the name itself.
    Raises ValueError for an unknown name, as `load` does.
    """
    row, _ = parse(name)
    if row is None or row.id in EMBEDDED:
        return name
    return stand_in(row, folder / f"tiny-random-{row.id.replace('/', '--')}", seed)

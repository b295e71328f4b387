"""Tiny random checkpoints in the public formats, each written as it would lie on the hub.

A model is drawn as parts that know no format (parts.py). Layouts write them as each family publishes them
(layouts.py), with a tokenizer, for every case of a table (cases.py).
"""

import json
from pathlib import Path

from random_models import layouts
from random_models.cases import Case
from random_models.layouts import Tensors
from random_models.parts import draw
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sinkprune.models.weight_files import INDEX

END = "<|endoftext|>"
WORDS = 72  # the largest vocabulary of made-up words
SPECIAL = 17  # ids below it may be special tokens; those above are ordinary entries
DREAM_MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the")]
DREAM_ADDED = (
    END,
    "<|im_start|>",
    "<|im_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|beginoftext|>",
    "<|mask|>",
)
METADATA = {"format": "pt"}  # what transformers expects in a file of safetensors


def write(case: Case, folder: Path, seed: int = 0) -> dict:
    """Write a case's checkpoint as it would lie on the hub; return its parts."""
    folder.mkdir(parents=True)
    shape = case.shape
    parts = draw(shape, seed)

    stored, config = case.layout(parts, shape)
    stored = {name: tensor.to(shape.stored).contiguous().clone() for name, tensor in stored.items()}
    write_weights(stored, folder, case.shards)
    config["torch_dtype"] = str(shape.stored).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config))

    if case.layout is layouts.dream:
        dream_tokenizer(folder)
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


def word_tokenizer(case: Case, folder: Path) -> None:
    """Write a tokenizer.json of one word per token.

    The mask has the name that the family gives it, or none of its own.
    """
    words = [END] + [f"word{index}" for index in range(1, min(case.shape.vocabulary, WORDS))]

    special = [END]
    if case.mask_string:
        words[case.mask] = case.mask_string
        if case.mask < SPECIAL:
            special.append(case.mask_string)

    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=END))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(special)

    declared = {"mask_token": case.mask_string} if case.declared else {}
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=END, eos_token=END, pad_token=END, **declared
    ).save_pretrained(folder)

    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))


def dream_tokenizer(folder: Path) -> None:
    """Write Dream's files: vocabulary, merges, added tokens, and a tokenizer class that is remote code."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(merge) for merge in DREAM_MERGES]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    added = {token: index for index, token in enumerate(DREAM_ADDED, start=len(tokens))}

    merges = "".join(f"{first} {second}\n" for first, second in DREAM_MERGES)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges)

    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(index): {"content": token, "special": True} for token, index in added.items()
        },
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "tokenizer_class": "DreamTokenizer",
        "bos_token": "<|beginoftext|>",
        "eos_token": END,
        "pad_token": END,
        "mask_token": "<|mask|>",
        "unk_token": None,
        "model_max_length": 131072,
        "errors": "replace",
        "split_special_tokens": False,
    }

    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps(added))

"""Tokenizers of tiny random checkpoints: made-up words, single bytes, or the files that Dream publishes."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sinkprune_core.models.random_cases import Case

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
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=END, eos_token=END, pad_token=END, **_declared_mask(case)
    ).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))


def spelling_tokenizer(case: Case, folder: Path) -> None:
    """Write a tokenizer.json of one byte per token, the mask at its place."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {0: END}
    if case.mask_string:
        special[case.mask] = case.mask_string
    places = [place for place in range(len(letters) + len(special)) if place not in special]
    vocabulary = {letter: place for place, letter in zip(places, letters, strict=True)}
    vocabulary |= {token: place for place, token in special.items()}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(special.values()))
    PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, pad_token=END, **_declared_mask(case)
    ).save_pretrained(folder)


def _declared_mask(case: Case) -> dict[str, str]:
    return {"mask_token": case.mask_string} if case.declared else {}


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
        "added_tokens_decoder": {str(index): _added_token(token) for token, index in added.items()},
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


def _added_token(content: str) -> dict:
    return {
        "content": content,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }

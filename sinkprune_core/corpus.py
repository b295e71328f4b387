"""Text that needs no download: the autoregressive model's own samples, and the documentation of this installation.

Both are deterministic, deduplicated and split by content: a paragraph's hash decides once and everywhere whether it is
held out, so no machine ever trains on what another one evaluates on.

Dimensions: N sequences, T tokens per sequence, B batch, K kept candidates of the sampler.
"""

import ast
import hashlib
import json
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import StaticCache

from sinkprune_core.files import PACKAGE, atomic, cache_dir, write_json
from sinkprune_core.models.embedded import START_TOKEN_ID
from sinkprune_core.seeds import generator

HELD_OUT_SHARE = 8  # one paragraph in 8 is held out
SHARD = 128  # sequences sampled together and saved together
TOP_K = 50
TURN = "<|im_start|>assistant\n"
RESERVED = range(3, 17)  # special entries of the vocabulary that belong in no text, the mask token among them
SAMPLES = (
    PACKAGE / "data" / "ar_samples.safetensors"
)  # shipped: the first samples of smol-ar with seed 0, uint16 (N, 128)
HELD_OUT_SAMPLES = 2 * SHARD  # of which these are never trained on

_WORD = re.compile(r"[A-Za-z][a-z]+")
_BODIES = (
    "body",
    "handlers",
    "orelse",
    "finalbody",
    "cases",
)  # where statements keep statements, in the order of the syntax tree


def is_held_out(text: str) -> bool:
    """Return whether a paragraph belongs to the held-out split: a property of its words alone, or of all of it where it has no word of Latin letters."""
    words = " ".join(_WORD.findall(text)).lower() or text
    return hashlib.sha256(words.encode()).digest()[0] % HELD_OUT_SHARE == 0


def _is_english(paragraph: str) -> bool:
    """Prose, not code, tables or lists of names: enough words, mostly letters, ordinary word lengths, a sentence end."""
    words = paragraph.split()
    if not 20 <= len(words) <= 400 or ">>>" in paragraph or "::" in paragraph or "http" in paragraph:
        return False
    letters = sum(
        character.isalpha() or character.isspace() or character in ".,;'" for character in paragraph
    )
    plain = sum(
        _WORD.fullmatch(word.strip(".,;:()'\"")) is not None or word in ("a", "A", "I") for word in words
    )
    return (
        paragraph[0].isupper()
        and paragraph.rstrip()[-1] in ".!?"
        and letters >= 0.93 * len(paragraph)
        and plain >= 0.8 * len(words)
    )


def _docstrings(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return
    level = [tree]
    while level:  # breadth first, through statements only: no definition stands inside an expression
        for node in level:
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield ast.get_docstring(node) or ""
        level = [child for node in level for name in _BODIES for child in getattr(node, name, ())]


def _sources(root: Path) -> list[Path]:
    """Return the Python files below `root` in order of path, without tests and installed packages."""
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [
            name
            for name in inner
            if name != "tests"
            and not (folder == str(root) and name in ("site-packages", "dist-packages", "test", "idlelib"))
        ]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found)


@cache
def documentation(scope: str) -> tuple[str, ...]:
    """Return deduplicated English paragraphs of docstrings: of the standard library, or of `"everything"` installed too.

    Order is by path, so the stream depends on nothing but what is installed. The standard library alone changes with
    the Python version only; use it wherever numbers are compared. What was found is kept in the cache until a file changes.
    """
    roots = {"stdlib": ["stdlib"], "everything": ["stdlib", "purelib"]}
    if scope not in roots:
        raise ValueError(f"scope={scope!r} is unknown; choose one of {', '.join(roots)}")
    files = [
        file
        for root in dict.fromkeys(Path(sysconfig.get_path(name)) for name in roots[scope])
        for file in _sources(root)
    ]
    state = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode())
    for file in files:
        with suppress(OSError):
            found = file.stat()
            state.update(f"{file} {found.st_size} {found.st_mtime_ns}\n".encode(errors="surrogateescape"))
    kept = cache_dir() / f"documentation-{scope}-{state.hexdigest()[:16]}.json"
    if kept.exists():
        return tuple(json.loads(kept.read_text(encoding="utf-8")))
    paragraphs: dict[str, str] = {}
    for file in files:
        for text in _docstrings(file):
            for paragraph in re.split(r"\n\s*\n", text):
                paragraph = " ".join(paragraph.split())
                key = " ".join(_WORD.findall(paragraph)).lower()
                if key not in paragraphs and _is_english(paragraph):
                    paragraphs[key] = paragraph
    with suppress(OSError):  # a cache that cannot be written costs time only
        write_json(kept, list(paragraphs.values()))
    return tuple(paragraphs.values())


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, which blank lines part."""
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def separator(tokenizer) -> int:
    """Return the token that separates documents: `<|endoftext|>` where the vocabulary has it, else begin or end of text.

    Raises ValueError for a tokenizer with none of them.
    """
    for token in (tokenizer.get_vocab().get("<|endoftext|>"), tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise ValueError(
        "the tokenizer has no <|endoftext|>, begin-of-text or end-of-text token to separate documents with: declare one in its tokenizer_config.json"
    )


def pack(texts: Iterable[str], tokenizer, length: int) -> torch.Tensor:
    """Join texts with the document separator and cut into sequences that start with it, int64 (N, T); the rest is dropped.

    Raises ValueError when there is too little text for one sequence.
    """
    stream, texts, between = [], list(texts), separator(tokenizer)
    for ids in tokenizer(texts, add_special_tokens=False).input_ids if texts else []:
        stream += [*ids, between]
    rows = len(stream) // (length - 1)
    if rows == 0:
        raise ValueError(
            f"the corpus has {len(stream)} tokens, too few for one sequence of {length}: give more text or shorter sequences"
        )
    body_NT = torch.tensor(stream[: rows * (length - 1)], dtype=torch.long).view(rows, length - 1)
    return torch.cat([torch.full((rows, 1), between), body_NT], dim=1)


@lru_cache(maxsize=8)
def documentation_sequences(tokenizer, length: int, held_out: bool, scope: str = "stdlib") -> torch.Tensor:
    """Return packed documentation of one split, int64 (N, T), in path order; the same tensor every time, not to be changed."""
    return pack([text for text in documentation(scope) if is_held_out(text) == held_out], tokenizer, length)


@torch.inference_mode()
def sample_batch(lm, length: int, first: int, count: int, seed: int) -> torch.Tensor:
    """Draw sequences `first … first + count - 1` from an autoregressive model at temperature 1, top-50; int64 (B, T).

    The model speaks as in an assistant's turn, where its prose is best; the turn marker is then replaced by the
    document separator, so that every sequence of every source starts alike. End-of-turn tokens do not stop a sample.
    Every (seed, sequence) has its own generator and a token is the inverse of the cumulative distribution at one
    uniform number, so that a sample does not depend on its batch.
    """
    turn = lm.encode(TURN)
    ids_BT = torch.cat([turn.expand(count, -1), torch.full((count, length - 1), START_TOKEN_ID)], dim=1)
    uniform_BT = torch.stack(
        [
            torch.rand(ids_BT.shape[1], generator=generator(seed, "ar-sample", first + row))
            for row in range(count)
        ]
    )
    cache = StaticCache(config=lm.model.config, max_cache_len=ids_BT.shape[1])
    fresh = 0
    for position in range(len(turn), ids_BT.shape[1]):
        logits_BV = lm.next_logits(ids_BT[:, fresh:position], cache)
        logits_BV[:, RESERVED.start : RESERVED.stop] = -torch.inf
        top_BK = logits_BV.topk(TOP_K)
        cumulative_BK = top_BK.values.softmax(-1).cumsum(-1)
        choice_B1 = torch.searchsorted(
            cumulative_BK, uniform_BT[:, position : position + 1].contiguous()
        ).clamp_max(TOP_K - 1)
        ids_BT[:, position : position + 1] = top_BK.indices.gather(1, choice_B1)
        fresh = position
    return torch.cat([torch.full((count, 1), START_TOKEN_ID), ids_BT[:, len(turn) :]], dim=1)


def self_samples(sequences: int, length: int, seed: int = 0, folder: Path | None = None) -> torch.Tensor:
    """Return the first `sequences` samples of smol-ar, int64 (N, T), sampling only what is neither shipped nor in the cache.

    A kill loses at most the shard in work. Sequences that repeat an earlier one are dropped.
    """
    from sinkprune_core.models.language_model import load

    shipped_NT = (
        load_file(SAMPLES)["ids"].long()
        if seed == 0 and SAMPLES.exists()
        else torch.zeros(0, length, dtype=torch.long)
    )
    known = len(shipped_NT) // SHARD if shipped_NT.shape[1] == length else 0
    folder = (folder or cache_dir()) / f"ar-samples-{length}-seed{seed}"
    shards = {index: folder / f"{index:05d}.safetensors" for index in range(known, -(-sequences // SHARD))}
    missing = [index for index, shard in shards.items() if not shard.exists()]
    lm = load("smol-ar", "bfloat16") if missing else None
    for index in tqdm(missing, desc="sample smol-ar", unit="shard", disable=not missing):
        ids_BT = sample_batch(lm, length, index * SHARD, SHARD, seed)
        with atomic(shards[index]) as partial:
            save_file({"ids": ids_BT.int()}, partial)
    ids_NT = torch.cat(
        [shipped_NT[: known * SHARD]] * (known > 0)
        + [load_file(shard)["ids"].long() for shard in shards.values()]
    )[:sequences]
    unique = dict.fromkeys(map(tuple, ids_NT.tolist()))
    return torch.tensor(list(unique), dtype=torch.long)


def shipped_samples(length: int, held_out: bool) -> torch.Tensor:
    """Return the samples of smol-ar that come with the package, int64 (N, T), cut to `length` tokens.

    Raises ValueError for more tokens than a sample has.
    """
    ids_NT = load_file(SAMPLES)["ids"].long()
    if not 2 <= length <= ids_NT.shape[1]:
        raise ValueError(
            f"length={length} must lie in 2 … {ids_NT.shape[1]}, the length of the shipped samples"
        )
    return (ids_NT[:HELD_OUT_SAMPLES] if held_out else ids_NT[HELD_OUT_SAMPLES:])[:, :length]


def texts(tokenizer, sequences: int, length: int, held_out: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return `sequences` sequences, half of them samples of smol-ar and half standard-library documentation, int64 (N, T).

    The choice is a draw without replacement that depends on (seed, split) alone. Held-out text is for evaluation, the
    other split for calibration. Raises ValueError when a source has too few sequences.
    """
    sources = {
        "samples": shipped_samples(length, held_out),
        "documentation": documentation_sequences(tokenizer, length, held_out),
    }
    chosen = {}
    for name, wanted in (("samples", sequences - sequences // 2), ("documentation", sequences // 2)):
        if wanted > len(sources[name]):
            raise ValueError(
                f"sequences={sequences} asks for {wanted} of {name}, which has {len(sources[name])} of {length} tokens in this split: ask for fewer"
            )
        order = torch.randperm(len(sources[name]), generator=generator(seed, "texts", name, held_out))
        chosen[name] = sources[name][order[:wanted].sort().values]
    return chosen

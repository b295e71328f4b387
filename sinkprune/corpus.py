"""Text that needs no download: samples of smol-ar and documentation that come with the package, split by a
hash of each paragraph's words, so that no machine ever trains on what another one evaluates on.

Dimensions: N sequences, T tokens per sequence.
"""

import ast
import hashlib
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file

from sinkprune.files import DATA, cache_dir, read_checked, read_text, write_checked
from sinkprune.models import embedded
from sinkprune.models.reader import Checkpoint
from sinkprune_core.diffusion.noise import even_split
from sinkprune_core.encoding import without_mask
from sinkprune_core.seeds import generator

HELD_OUT_SHARE = 8  # one paragraph in 8 is held out
SAMPLES = DATA / "ar_samples.safetensors"  # of smol-ar, the first with seed 0, uint16 (N, 128)
HELD_OUT_SAMPLES = 256  # the first of them, which are never trained on
SAMPLES_VOCABULARY = 49_152  # tokens of the vocabulary that they are written in, that of the embedded pair

DOCUMENTATION = DATA / "documentation" / "paragraphs.txt"  # of one Python's standard library, one per line
NOT_READ = ("site-packages", "dist-packages", "test", "idlelib")  # folders at the top of such a folder
SEPARATOR = "<|endoftext|>"  # the token between documents, where a vocabulary has it
SOURCES = ("samples", "documentation")  # of calibration text: of smol-ar, of the standard library

_WORD = re.compile(r"[A-Za-z][a-z]+")
_BLANK_LINES = re.compile(r"\n\s*\n")
_BODIES = ("body", "handlers", "orelse", "finalbody", "cases")  # where a statement has statements, in order


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, which blank lines part."""
    return [part for part in _BLANK_LINES.split(text) if part.strip()]


def is_held_out(text: str) -> bool:
    """Return whether a paragraph is held out, which its words decide, or all of it where it has none."""
    words = _words(text) or text
    return hashlib.sha256(words.encode()).digest()[0] % HELD_OUT_SHARE == 0


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text)).lower()


@cache
def documentation(scope: str) -> tuple[str, ...]:
    """Return English paragraphs of docstrings: those that come with the package, of one Python's standard
    library (`stdlib`), so that numbers are the same under every Python, or of `everything` installed here.
    """
    if scope == "stdlib":
        return tuple(read_text(DOCUMENTATION).splitlines())
    return installed("stdlib", "purelib")


def installed(*folders: str) -> tuple[str, ...]:
    """Return paragraphs of the folders that sysconfig names, by path, cached until a file changes."""
    roots = dict.fromkeys(sysconfig.get_path(folder) for folder in folders)
    files = [file for root in roots for file in _sources(Path(root))]

    cached = cache_dir() / f"documentation-{_state(files)}.json"
    known = read_checked(cached)
    if known is not None:
        return tuple(known["paragraphs"])

    by_words: dict[str, str] = {}
    for docstring in chain.from_iterable(map(_docstrings, files)):
        for part in paragraphs(docstring):
            paragraph = " ".join(part.split())
            if _is_english(paragraph):
                by_words.setdefault(_words(paragraph), paragraph)

    prose = tuple(by_words.values())
    with suppress(OSError):  # a cache that cannot be written only costs time
        write_checked(cached, {"paragraphs": prose})
    return prose


def documentation_split(held_out: bool, scope: str = "stdlib") -> list[str]:
    """Return the paragraphs of documentation that are held out, or the others."""
    return [text for text in documentation(scope) if is_held_out(text) == held_out]


def _sources(root: Path) -> list[Path]:
    files = []
    for folder, inner, names in os.walk(root):
        left_out = ("tests", *NOT_READ) if folder == str(root) else ("tests",)
        inner[:] = [name for name in inner if name not in left_out]  # `os.walk` enters these only
        files += [Path(folder, name) for name in names if name.endswith(".py")]

    return sorted(files)


def _state(files: list[Path]) -> str:
    """Return a hash of what documentation depends on: this module, Python, and the files' sizes and times."""
    known = {file: file.stat() for file in files if file.exists()}
    stats = [(file, status.st_size, status.st_mtime_ns) for file, status in known.items()]
    return hashlib.sha256(ascii((Path(__file__).read_bytes(), sys.version, stats)).encode()).hexdigest()[:16]


def _docstrings(file: Path) -> Iterator[str]:
    """Yield the docstrings of a file, outer definitions first; none if it cannot be read."""
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

        inner: list[ast.AST] = []
        for node in level:
            for name in _BODIES:
                inner += getattr(node, name, ())
        level = inner


def _is_english(paragraph: str) -> bool:
    """Return whether a paragraph is prose, mostly of plain words: no code, table or list of names."""
    words = paragraph.split()
    if not 20 <= len(words) <= 400 or any(mark in paragraph for mark in (">>>", "::", "http")):
        return False
    if not paragraph[0].isupper() or paragraph[-1] not in ".!?":
        return False

    letters = sum(mark.isalpha() or mark.isspace() or mark in ".,;'" for mark in paragraph)
    plain = sum(word in ("a", "A", "I") or bool(_WORD.fullmatch(word.strip(".,;:()'\""))) for word in words)
    return letters >= 0.93 * len(paragraph) and plain >= 0.8 * len(words)


@lru_cache(maxsize=8)
def separator(tokenizer) -> int:
    """Return the token that separates documents: `<|endoftext|>`, else the begin or the end of text.

    Raises ValueError for a tokenizer with none of them.
    """
    declared = [getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id")]
    for token in (tokenizer.get_vocab().get(SEPARATOR), *declared):
        if token is not None:
            return token
    raise ValueError(
        "the tokenizer has no <|endoftext|>, begin-of-text or end-of-text token to separate documents with: "
        "declare one in its tokenizer_config.json"
    )


def pack(texts: Iterable[str], tokenizer, length: int, mask_token_id: int | None = None) -> torch.Tensor:
    """Join texts with the document separator and cut into whole sequences that start with it, int64 (N, T).

    `mask_token_id` is what `stream` takes. Raises ValueError for too little text for one sequence.
    """
    return cut(stream(texts, tokenizer, mask_token_id), tokenizer, length)


def cut(stream_T: torch.Tensor, tokenizer, length: int) -> torch.Tensor:
    """Cut what `stream` returns into whole sequences that start with the document separator, int64 (N, T).

    Raises ValueError for too little text for one sequence.
    """
    stream_T = stream_T.roll(-1)  # the first separator goes to the end
    rows = len(stream_T) // (length - 1)
    if rows == 0:
        raise ValueError(
            f"the corpus has {len(stream_T)} tokens, too few for one sequence of {length}: "
            "give more text or shorter sequences"
        )

    return with_first_token(stream_T[: rows * (length - 1)].view(rows, length - 1), tokenizer)


@lru_cache(maxsize=8)
def documentation_sequences(
    tokenizer, length: int, held_out: bool, scope: str = "stdlib", mask_token_id: int | None = None
) -> torch.Tensor:
    """Return packed documentation of one split in path order, int64 (N, T): one tensor, not to be changed."""
    return pack(documentation_split(held_out, scope), tokenizer, length, mask_token_id)


def stream(texts: Iterable[str], tokenizer, mask_token_id: int | None = None) -> torch.Tensor:
    """Return texts as one stream of tokens, a document separator before each, int64 (T,).

    `mask_token_id` is the mask of the model that reads them: where a text spells it, its letters are read.
    """
    texts = list(texts)
    between = separator(tokenizer)
    encoded = tokenizer(texts, add_special_tokens=False).input_ids if texts else []  # it takes no empty list

    tokens = []
    for ids in encoded:
        tokens.append(between)
        tokens += without_mask(ids, tokenizer, mask_token_id)

    return torch.tensor(tokens, dtype=torch.long)


def shipped_samples(length: int | None, held_out: bool) -> torch.Tensor:
    """Return shipped samples, int64 (N, T), cut to `length` in 2 … 128 (None: whole), else ValueError."""
    ids_NT = load_file(SAMPLES)["ids"].long()
    longest = ids_NT.shape[1]
    if length is not None and not 2 <= length <= longest:
        raise ValueError(f"length={length} must lie in 2 … {longest}, the length of the shipped samples")

    split_NT = ids_NT[:HELD_OUT_SAMPLES] if held_out else ids_NT[HELD_OUT_SAMPLES:]
    return split_NT[:, :length]


def is_of_samples(tokenizer) -> bool:
    """Return whether a tokenizer has the vocabulary of the shipped samples; nothing is fetched to know."""
    is_as_large = len(tokenizer) == SAMPLES_VOCABULARY
    return is_as_large and tokenizer.convert_tokens_to_ids(embedded.MASK_TOKEN) == embedded.MASK_TOKEN_ID


def sample_texts(held_out: bool) -> list[str]:
    """Return the shipped samples of one split as text, by the tokenizer of smol-ar."""
    tokenizer = Checkpoint(embedded.base_folder(), causal=True).tokenizer()
    return tokenizer.batch_decode(shipped_samples(None, held_out), skip_special_tokens=True)


@lru_cache(maxsize=8)
def source_stream(source: str, tokenizer, held_out: bool, mask_token_id: int | None = None) -> torch.Tensor:
    """Return one split of one of SOURCES as `stream` does, int64 (T,): one tensor, not to be changed."""
    if source == "documentation":
        return stream(documentation_split(held_out), tokenizer, mask_token_id)

    ids_NT = shipped_samples(None, held_out)
    if ids_NT.max() < len(tokenizer):
        return ids_NT.flatten()  # each begins with a separator

    # a model from scratch has a small vocabulary of its own
    return stream(sample_texts(held_out), tokenizer, mask_token_id)


def draw_sequences(
    stream_T: torch.Tensor, counts: dict[str, int], length: int, between: int, rng: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return sequences of a stream that do not overlap, drawn at random, int64 (N, T) by how they start.

    `counts` says how many `crop`s, which begin in the middle of text, and how many of each `beginning`: the
    separator `between` and the first tokens of a document. Separators may stand inside both. A smaller draw
    of one kind is the start of a larger one. Raises ValueError where fewer fit.
    """
    is_separator_T = stream_T[: max(0, len(stream_T) - length + 1)] == between
    allowed = {"crop": ~is_separator_T, "beginning": is_separator_T}
    is_taken = bytearray(len(stream_T))

    drawn = {}
    for start, count in counts.items():
        places = allowed[start].nonzero().squeeze(-1)
        order = places[torch.randperm(len(places), generator=rng)].tolist()

        chosen = apart(order, count, length, is_taken)
        if len(chosen) < count:
            raise ValueError(
                f"{count} sequences of {length} tokens do not fit the {len(stream_T)} tokens of a text that "
                f"holds {len(chosen)}: ask for fewer or shorter ones"
            )

        first_N1 = torch.tensor(chosen, dtype=torch.long)[:, None]
        drawn[start] = stream_T[first_N1 + torch.arange(length)]

    return drawn


def crop_batch(
    streams: Sequence[torch.Tensor], rows: int, length: int, index: int, rng: torch.Generator
) -> torch.Tensor:
    """Return batch number `index` of crops that may begin anywhere, int64 (rows, `length`).

    No model learns about first tokens from them. Rows take turns among the streams, int64 (T,).
    """
    crops = []
    for row in range(rows):
        stream_T = streams[(index + row) % len(streams)]
        start = int(torch.randint(len(stream_T) - length + 1, (), generator=rng))
        crops.append(stream_T[start : start + length])

    return torch.stack(crops)


def apart(places: Iterable[int], count: int, length: int, is_taken: bytearray) -> list[int]:
    """Return the first `count` places whose `length` tokens are free, and mark these as taken."""
    chosen = []
    for place in places:
        if len(chosen) == count:
            break
        end = place + length
        if not is_taken[place] and not is_taken[end - 1]:  # all that is taken is as long
            is_taken[place:end] = b"\1" * length
            chosen.append(place)

    return chosen


def texts(tokenizer, sequences: int, length: int, held_out: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return `sequences` crops by source, int64 (N, T): half of them of samples, half of documentation.

    The draw depends on (seed, split) alone, and a smaller one is part of a larger one. Raises what
    `draw_sequences` raises.
    """
    chosen = {}
    for source, count in zip(SOURCES, even_split(sequences, len(SOURCES)), strict=True):
        rng = generator(seed, "texts", source, held_out)
        stream_T = source_stream(source, tokenizer, held_out)
        chosen[source] = draw_sequences(stream_T, {"crop": count}, length, separator(tokenizer), rng)["crop"]

    return chosen


def with_first_token(ids_NT: torch.Tensor, tokenizer) -> torch.Tensor:
    """Return sequences with the document separator before them, int64 (N, T + 1)."""
    return torch.nn.functional.pad(ids_NT, (1, 0), value=separator(tokenizer))

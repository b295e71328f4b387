"""What stands where a file is expected, under names of helper files too, and bits of parquet.

Every case is read in this process (see `fuzz`): it holds, is refused in words, or broke.
"""

import io
import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hostile.fuzz import Case
from hostile.fuzz_models import adapter_of, answer, native_model
from public_formats import BLIMP, PAGES, jsonl, parquet, put

from sinkprune.evaluation.local_data import blimp_files, pairs, wikitext
from sinkprune.files import file_digest, held, json_in, kept, known_digest, read_text
from sinkprune.models.adapters import open_adapter
from sinkprune.models.loading import load

LINE = "Return the number of files that were found in the given folder, which must exist and must be readable"
KINDS = {
    "a pipe": os.mkfifo,
    "a socket": lambda place: _socket(place),
    "an endless device": lambda place: place.symlink_to("/dev/zero"),
    "a terminal": lambda place: place.symlink_to("/dev/ptmx"),
    "a file of the kernel": lambda place: place.symlink_to("/proc/kmsg"),
    "a folder": Path.mkdir,
    "a link to nothing": lambda place: place.symlink_to("nothing"),
    "a link to itself": lambda place: place.symlink_to(place.name),
    "a link to a pipe": lambda place: _link_to_pipe(place),
    "nothing": lambda place: None,
    "empty": Path.touch,
    "zeros": lambda place: place.write_bytes(bytes(4096)),
    "a picture": lambda place: place.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    "an archive": lambda place: place.write_bytes(b"PK\x03\x04" + bytes(range(256))),
}  # what is put in the place of a file


def _socket(place: Path) -> None:
    """Bind a socket, which stays when it is closed; its path may be longer than such paths are."""
    former = os.getcwd()
    os.chdir(place.parent)
    try:
        own = socket.socket(socket.AF_UNIX)
        own.bind(place.name)
        own.close()
    finally:
        os.chdir(former)


def _link_to_pipe(place: Path) -> None:
    pipe = place.with_name("pipe.tmp")
    os.mkfifo(pipe)
    place.symlink_to(pipe)


def _in_place_of(sound: Path, place: Path, name: str, put_there: Callable, read: Callable) -> object:
    """Return what reading a copy of a sound folder gives with something else in the place of a file."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)
    (place / name).unlink(missing_ok=True)
    put_there(place / name)
    return read(place)


# files that are not what they are called


def misnamed(root: Path) -> Iterator[Case]:
    """Every file of a model, an adapter and two data sets, with something else in its place."""
    for what, sound, read in _folders(root):
        place = root / "misnamed" / what
        right = read(sound)
        for name in sorted(str(file.relative_to(sound)) for file in sound.rglob("*") if file.is_file()):
            short = Path(name).name
            named = (short, *SAID)
            for kind, put_there in KINDS.items():
                is_unread = short in UNREAD and kind not in ("a pipe", "a socket")
                if is_unread:
                    continue
                run = partial(_in_place_of, sound, place, name, put_there, read)
                yield Case(f"{what}: {name} is {kind}", run, right, (*named, *ALLOWED.get(short, ())))


SAID = (
    "tokenizer in",
    "no adapter in",
    "weights in",
    "safetensors",
    "data folder",
    "config.json",
    "pipe.tmp",
)
UNREAD = ("generation_config.json", "chat_template.jinja", "README.md")
ALLOWED = {"sinkprune.json": ("logits are shifted", "mask"), "tokenizer.json": ("tokenizer",)}


def _folders(root: Path) -> Iterator[tuple[str, Path, Callable]]:
    """Yield the name of a kind of folder, a sound one, and what reads it."""
    model = native_model(root / "saved")
    yield "model", model, answer

    base = native_model(root / "saved-causal", kind="autoregressive")
    adapter = adapter_of(base, root / "adapter")
    lm = load(base)
    yield "adapter", adapter, lambda place: sorted(open_adapter(lm.model, place).peft_config)

    raw = root / "raw"
    put(raw / "wiki.test.raw", " = word30 = \n\n word31 word32 \n")
    yield "text", raw, wikitext

    tables = root / "tables"
    parquet(tables / "test-00000-of-00002.parquet", page=PAGES[:1])
    parquet(tables / "test-00001-of-00002.parquet", page=PAGES[1:])
    (tables.rename(root / "WikiText2"))
    yield "tables", root / "WikiText2", wikitext

    blimp = root / "blimp"
    jsonl(blimp / "passive_1.jsonl", BLIMP["passive_1"])
    yield "pairs", blimp, _all_pairs


def _all_pairs(folder: Path) -> list:
    found = blimp_files(folder, ["blimp_passive_1"])
    if not found:
        raise FileNotFoundError(f"the data folder {folder} holds no passive_1.jsonl")
    return pairs(found["blimp_passive_1"])


# text in other bytes, JSON that has a key twice


ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
TEXTS = {
    "letters": "plain letters of English in two lines\n" * 2,
    "umlauts": "Größe und Maß, häufig\n" * 2,
    "Chinese": "\u6f22\u5b57\u4e8c\u884c\n" * 2,
    "one line": "a b",
}


def texts(root: Path) -> Iterator[Case]:
    """Texts in encodings and with line ends of other systems, and JSON with a key twice at every depth."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS.items():
        for encoding in ("utf-8", "utf-8-sig", *ENCODINGS):
            right = text if encoding.startswith("utf-8") else None
            file = root / f"{name}-{encoding}.txt"
            file.write_bytes(text.encode(encoding))
            yield Case(f"{name} in {encoding}", partial(read_text, file), right, (file.name,))
        for ending in ("\r\n", "\r"):
            file = root / f"{name}-{len(ending)}.txt"
            file.write_bytes(text.replace("\n", ending).encode())
            yield Case(f"{name} with {ending!r}", partial(read_text, file), text, (file.name,))

    value = {"a": 1, "b": {"c": [{"d": 2, "e": 3}]}}
    plain = json.dumps(value)
    for key in "abcde":
        file = root / f"twice-{key}.json"
        file.write_text(plain.replace(f'"{key}":', f'"{key}": 0, "{key}":'))
        yield Case(f"{key} twice", partial(json_in, file), None, (file.name,))
    file = root / "once.json"
    file.write_text(plain)
    yield Case("no key twice", partial(json_in, file), value, (file.name,))


# kept values, of which one bit is another


def caches(root: Path, seed: int = 0) -> Iterator[Case]:
    """Notes of the cache with a bit flipped, cut, or with another value: they never decide anything."""
    from sinkprune.files import keep

    rng = random.Random(seed)
    value = {"gain": 1.5, "paragraphs": [LINE, "ö"], "sha256": "0" * 64}
    file = root / "kept.json"
    keep(file, value)
    sound = file.read_bytes()

    def read(data: bytes) -> object:
        file.write_bytes(data)
        return kept(file) in (None, value)

    for place in range(len(sound)):
        changed = bytearray(sound)
        changed[place] ^= 1 << rng.randrange(8)
        yield Case(f"byte {place}", partial(read, bytes(changed)), True, ("kept",))
    for length in range(0, len(sound), 7):
        yield Case(f"cut to {length}", partial(read, sound[:length]), True, ("kept",))
    for gain in ("NaN", "Infinity", "1e9", '"x"', "null", "[]"):
        bad = sound.replace(b"1.5", gain.encode())
        yield Case(f"gain={gain}", partial(read, bad), True, ("kept",))


# names of helper files


STRANGER = ("is none of this program's, and the lock of",)


def helpers(root: Path) -> Iterator[Case]:
    """Outputs that are called as helper files are, and strangers where helper files go."""
    endings = ("lock", "holder", "1.abcdefgh", f"{os.getpid()}.abcd1234", "12.x")
    for name in ("out", "x y", "漢字", "a.json"):
        for ending in endings:
            place = root / "outputs" / f".{name}.{ending}"
            named = ("has a name that this program gives",)
            yield Case(f"output {place.name}", partial(_hold, place), "refused", named)

    for helper in (".out.lock", ".out.holder"):
        for kind, put_there in KINDS.items():
            is_left = kind in ("nothing", "empty", "zeros")  # zeros: after a power failure
            run = partial(_hold_beside, root / "strangers", helper, put_there)
            right = "held" if is_left else "refused"
            yield Case(f"{helper} is {kind}", run, right, STRANGER)
        for link in (os.symlink, os.link):
            run = partial(_hold_beside, root / "strangers", helper, partial(_linked, link))
            yield Case(f"{helper} by {link.__name__}", run, "refused", STRANGER)


def _hold(place: Path) -> str:
    with held(place):
        return "held"


def _hold_beside(folder: Path, helper: str, put_there: Callable) -> str:
    """Hold an output beside a stranger; another file there stays as it is whatever happens."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    victim = folder / "victim"
    victim.write_text("years of work")
    put_there(folder / helper)
    try:
        return _hold(folder / "out")
    finally:
        assert victim.read_text() == "years of work"


def _linked(link: Callable, place: Path) -> None:
    link(place.with_name("victim"), place)


# parquet


def parquet_bits(root: Path, seed: int = 0, flips: int = 300) -> Iterator[Case]:
    """A table with checksums of its pages, one bit flipped, or cut: it is the same, or refused by name."""
    rng = random.Random(seed)
    for name, read, frame in (
        ("wikitext", wikitext, pd.DataFrame({"page": PAGES * 5})),
        ("blimp", _all_pairs, pd.DataFrame(BLIMP["passive_1"], columns=["sentence_good", "sentence_bad"])),
    ):
        folder = root / f"parquet-{name}" / ("WikiText2" if name == "wikitext" else "passive_1")
        folder.mkdir(parents=True)
        file = folder / "test.parquet"
        target = folder if name == "wikitext" else folder.parent
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(frame), buffer, write_page_checksum=True, compression="none")
        sound = buffer.getvalue()
        file.write_bytes(sound)
        right = read(target)

        def spoilt(data: bytes, file=file, read=read, target=target) -> object:
            file.write_bytes(data)
            return read(target)

        notes = 8 + int.from_bytes(sound[-8:-4], "little")  # bytes at the end, without a checksum
        for _ in range(flips // 2):
            place = rng.randrange(4, len(sound) - notes)
            changed = bytearray(sound)
            changed[place] ^= 1 << rng.randrange(8)
            yield Case(f"{name}: byte {place}", partial(spoilt, bytes(changed)), right, ("test.parquet",))
        for length in range(0, len(sound), len(sound) // 40):
            yield Case(f"{name}: cut to {length}", partial(spoilt, sound[:length]), right, ("test.parquet",))


# digests and what reads them


ENDLESS = ("a pipe", "a socket", "an endless device", "a file of the kernel", "a folder", "a link to a pipe")


def digested(root: Path) -> Iterator[Case]:
    """What is not an ordinary file has no digest, and no text is drawn from it."""
    root.mkdir(parents=True, exist_ok=True)
    for function in (file_digest, known_digest, read_text, json_in):
        for kind in ENDLESS:
            place = root / f"{function.__name__}-{kind.replace(' ', '-')}"
            KINDS[kind](place)
            (root / "pipe.tmp").unlink(missing_ok=True)
            if kind == "a link to a pipe":
                os.mkfifo(root / "pipe.tmp")
            named = (place.name, "pipe.tmp", "/dev/", "/proc/")
            yield Case(f"{function.__name__} of {kind}", partial(function, place), None, named)


GROUPS = {
    "files that are not what they are called": misnamed,
    "texts in other bytes": texts,
    "kept values": caches,
    "names of helper files": helpers,
    "bits of parquet": parquet_bits,
    "digests of what is no file": digested,
}  # by the name that the table has

"""Ways to damage a file."""

import random
from collections.abc import Iterator
from pathlib import Path


def flip(file: Path, place: int = -5) -> None:
    """Flip a bit of a file, one that no text in UTF-8 has alone."""
    data = bytearray(file.read_bytes())
    data[place] ^= 128
    file.write_bytes(data)


def damaged_bytes(data: bytes, rng: random.Random, flips: int, cuts: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, bytes): one bit flipped, cut short, or something put in its place or behind."""
    for _ in range(flips):
        place = rng.randrange(len(data))
        bit = 1 << rng.randrange(8)
        changed = bytearray(data)
        changed[place] ^= bit
        yield f"bit {bit} of byte {place} flipped", bytes(changed)

    for _ in range(cuts):
        length = rng.randrange(len(data))
        yield f"cut to {length} bytes", data[:length]

    yield "emptied", b""
    yield "zeros", bytes(len(data))
    yield "garbage", rng.randbytes(len(data))
    yield "one byte more", data + b"x"

"""SHA-256 digests kept with weights that this project wrote, and compared before the weights are used."""

import json
import re
from contextlib import suppress
from pathlib import Path

from sinkprune_core.files import file_digest, known_digest, write_json

SHA256 = re.compile("[0-9a-f]{64}")
DIGESTS = "digests.json"  # beside the files of a folder: the digest of each


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """Return the digests of the files of a folder whose names fit one of some patterns, by name."""
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()]
    return {file.name: file_digest(file) for file in files}


def hub_digests(folder: Path) -> dict[str, str]:
    """Return the digests of the weights in a folder of the hub's cache, by name; {} for another folder.

    The cache keeps a large file under its SHA-256, and links to it.
    """
    links = [file for file in folder.glob("*.safetensors") if file.is_symlink()]
    blobs = {file.name: file.resolve() for file in links}
    return {
        name: blob.name
        for name, blob in blobs.items()
        if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name)
    }


def write_digests(folder: Path) -> None:
    """Write the digest of every file of a folder into the folder, for `damaged_files`."""
    write_json(folder / DIGESTS, digests(folder, "[!.]*"))


def damaged_files(folder: Path) -> list[str]:
    """Return the names of the files of a folder that are not what `write_digests` saw.

    A file is read only where its size or one of its times differ. A folder without digests gets some: what it
    holds now is what later calls compare with.
    """
    try:
        known = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        return [name for name, digest in known.items() if not _is_whole(folder / name, digest)]
    except FileNotFoundError:
        with suppress(OSError):  # of a cache that may be read only
            write_digests(folder)
        return []
    except (ValueError, AttributeError):
        return [DIGESTS]


def _is_whole(file: Path, digest: str) -> bool:
    return file.is_file() and known_digest(file) == digest

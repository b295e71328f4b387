"""Archives of records with flipped bits: all of their files come back, or none does."""

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from hostile.fuzz import Case, spoiled_bytes

import sinkprune_companion
from sinkprune_companion.run import record_archive

PROFILE = "tiny"


def archives(root: Path, seed: int = 0) -> Iterator[Case]:
    """The archive of a profile, spoiled in one place."""
    project = root / "project"
    records = project / "runs" / PROFILE / "records"
    rng = random.Random(seed)
    for number in range(40):
        file = records / f"measure_{number % 3}" / f"{number:012x}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame({"value": [rng.random() for _ in range(30)]})
        frame.to_csv(file, index=False)
        file.with_suffix(".json").write_text(f'{{"number": {number}}}\n')
    with in_project(project):
        archive = record_archive.pack(PROFILE)
    right = _contents(records)
    sound = archive.read_bytes()

    def unpacked(bad: bytes) -> dict[str, bytes]:
        shutil.rmtree(records, ignore_errors=True)
        archive.write_bytes(bad)
        with in_project(project):
            try:
                record_archive.unpack(PROFILE)
            except Exception:
                if _contents(records):
                    raise AssertionError("it wrote a part before it refused") from None
                raise
        return _contents(records)

    assert unpacked(sound) == right
    for done, bad in spoiled_bytes(sound, rng, flips=100, cuts=30):
        yield Case(done, lambda bad=bad: unpacked(bad), right, (archive.name,))


def _contents(records: Path) -> dict[str, bytes]:
    """Return the records by name, without the mark that they come from an archive."""
    found = [file for file in records.rglob("*.*") if file.is_file()]
    return {str(file.relative_to(records)): file.read_bytes() for file in found}


@contextmanager
def in_project(project: Path) -> Iterator[None]:
    """Let the results of this process lie in a folder, and not in the clone."""
    project.mkdir(parents=True, exist_ok=True)
    former = sinkprune_companion.DATA, Path.cwd()
    sinkprune_companion.DATA = project / "nowhere" / "data"
    os.chdir(project)
    try:
        yield
    finally:
        sinkprune_companion.DATA = former[0]
        os.chdir(former[1])

"""A profile's tables in one file, so that anyone can draw and analyse anew, or go on, without measuring.

Traces of attention, hundreds of megabytes, are not among them: what rests on a trace is measured anew.
"""

import tarfile
from collections.abc import Iterable
from pathlib import Path

from sinkprune_companion import project_root
from sinkprune_companion.run.profiles import run_folder
from sinkprune_core.files import atomic, file_digest

MARK = "from-archive"  # in a folder of records of which some come from an archive: no job measured them


def archive_file(profile: str) -> Path:
    """Return where the archive of a profile lies."""
    return project_root() / "figures" / f"records-{profile}.tar.xz"


def digest_file(archive: Path) -> Path:
    """Return where the digest of an archive lies, as `sha256sum --check` reads it."""
    return archive.with_name(archive.name + ".sha256")


def pack(profile: str, files: Iterable[Path], target: Path) -> None:
    """Write the tables among some records of `runs/<profile>`, each with its key, to an archive.

    Two archives of the same records are the same to the byte. Raises FileNotFoundError where there are none.
    """
    folder = run_folder(profile) / "records"
    tables = sorted(file for file in files if file.suffix == ".csv")
    if not tables:
        raise FileNotFoundError(f"no records in runs/{profile}: run `sinkprune reproduce` first")
    with atomic(target) as partial, tarfile.open(partial, "w:xz", preset=9) as archive:
        for file in tables:
            for part in (file, file.with_suffix(".json")):
                entry = tarfile.TarInfo(part.relative_to(folder).as_posix())
                entry.size = part.stat().st_size
                with part.open("rb") as content:
                    archive.addfile(entry, content)
    with atomic(digest_file(target)) as partial:
        partial.write_text(f"{file_digest(target)}  {target.name}\n", encoding="utf-8")


def unpack(profile: str) -> int:
    """Put the archived records of a profile into `runs/<profile>` and return how many files were missing.

    Files that are there already stay. Raises, before a file is written, FileNotFoundError where the project
    keeps none, and ValueError for an archive that is not what its digest says.
    """
    source = archive_file(profile)
    digest = digest_file(source)
    for file in (source, digest):
        if not file.exists():
            raise FileNotFoundError(
                f"figures/{file.name} is missing: the project keeps no records of profile {profile}"
            )
    if file_digest(source) != digest.read_text(encoding="utf-8").partition(" ")[0]:
        raise ValueError(
            f"figures/{source.name} is damaged (its SHA-256 is not that of {digest.name}): fetch both again"
        )
    folder = run_folder(profile) / "records"
    with tarfile.open(source) as archive:
        missing = [member for member in archive if not (folder / member.name).exists()]
        archive.extractall(folder, missing, filter="data")
    if missing:
        (folder / MARK).touch()
    return len(missing)


def published_files(profile: str) -> list[Path]:
    """Return the files in `runs/<profile>` of the records that the project keeps; none without an archive."""
    source = archive_file(profile)
    if not source.exists():
        return []
    with tarfile.open(source) as archive:
        files = [run_folder(profile) / "records" / name for name in archive.getnames()]
    return [file for file in files if file.exists()]

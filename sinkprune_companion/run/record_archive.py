"""A profile's tables in one file, so that anyone can draw and analyse anew, or go on, without measuring.

Traces of attention, hundreds of megabytes, are not among them: what rests on a trace is measured anew.
`sinkprune publish` writes it, and `sinkprune reproduce --with-records` puts its records where the notebooks
look for them.
"""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from sinkprune_core.files import atomic, project_root


def archive_file(profile: str) -> Path:
    """Return where the archive of a profile lies."""
    return project_root() / "figures" / f"records-{profile}.tar.xz"


def pack(profile: str, files: Iterable[Path] | None = None) -> Path:
    """Write the tables of `runs/<profile>`, each with its key, to its archive and return its path.

    `files` are records to choose from (None: all). Two archives of the same records are the same to the byte.
    Raises FileNotFoundError where there are none.
    """
    folder = _records(profile)
    known = folder.rglob("*") if files is None else files
    tables = [file for file in known if file.suffix == ".csv"]
    chosen = sorted(part for file in tables for part in (file, file.with_suffix(".json")))
    if not chosen:
        raise FileNotFoundError(f"no records in runs/{profile}: run `sinkprune reproduce` first")
    target = archive_file(profile)
    with atomic(target) as partial, tarfile.open(partial, "w:xz", preset=9) as archive:
        for file in chosen:
            content = file.read_bytes()
            entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target


def unpack(profile: str) -> int:
    """Put the archived records of a profile into `runs/<profile>` and return how many files were missing.

    Files that are there already stay. Raises FileNotFoundError where the project keeps none, and ValueError
    for a damaged archive.
    """
    source = archive_file(profile)
    if not source.exists():
        raise FileNotFoundError(
            f"figures/{source.name} is missing: the project keeps no records of profile {profile}"
        )
    try:
        with tarfile.open(source) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            missing = sum(_restore(archive, member, _records(profile)) for member in members)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"figures/{source.name} is damaged ({error}): fetch it again") from None
    if missing:
        _restored_mark(profile).touch()
    return missing


def restored(profile: str) -> bool:
    """Return whether records of `runs/<profile>` come from the archive, so that no job measured them."""
    return _restored_mark(profile).exists()


def _restored_mark(profile: str) -> Path:
    return _records(profile) / "from-archive"


def _records(profile: str) -> Path:
    return project_root() / "runs" / profile / "records"


def _restore(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> bool:
    """Write one file of an archive unless it is there; return whether it was missing."""
    parts = Path(member.name).parts
    if len(parts) != 2 or ".." in parts or Path(member.name).is_absolute():  # measuring function and record
        raise ValueError(f"the archive holds {member.name!r}, which is no record: fetch it again")
    target = folder.joinpath(*parts)
    if target.exists():
        return False
    content = archive.extractfile(member).read()
    with atomic(target) as partial:
        partial.write_bytes(content)
    return True


def files_behind(folder: Path) -> list[Path]:
    """Return the files of the records that the findings and figures of a run rest on."""
    found = set()
    for about in [*(folder / "findings").glob("*.json"), *(folder / "figures").rglob("*.json")]:
        said = json.loads(about.read_text(encoding="utf-8"))
        provenance = said.get("provenance", said)
        for group in provenance.get("records", []):
            for name in group["names"]:
                found.update((folder / "records").glob(f"{name}.*"))
    return sorted(found)

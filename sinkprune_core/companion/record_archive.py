"""The published run's records in one file, so that anyone can draw and analyse anew without measuring.

The archive holds the tables behind every finding and figure of a run. `sinkprune publish` writes it, and
`sinkprune reproduce --from-published` puts its records where the notebooks look for them.
"""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from sinkprune_core.files import atomic, project_root

ARCHIVE = "records.tar.xz"  # below figures/


def archive_file() -> Path:
    """Return where the archive of the published run lies."""
    return project_root() / "figures" / ARCHIVE


def pack(profile: str, files: Iterable[Path] | None = None) -> Path:
    """Write the records of `runs/<profile>` to the archive and return its path.

    `files` are records to keep (None: all). Two archives of the same records are the same to the byte. Raises
    FileNotFoundError where there are none.
    """
    folder = project_root() / "runs" / profile / "records"
    chosen = sorted(folder.rglob("*.*") if files is None else files)
    if not chosen:
        raise FileNotFoundError(f"no records in runs/{profile}: run `sinkprune reproduce` first")
    target = archive_file()
    with atomic(target) as partial, tarfile.open(partial, "w:xz", preset=9) as archive:
        for file in chosen:
            content = file.read_bytes()
            entry = tarfile.TarInfo(f"{profile}/{file.relative_to(folder).as_posix()}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target


def unpack(profile: str) -> int:
    """Put the archive's records of a profile into `runs/<profile>` and return how many files were missing.

    Files that are there already stay. Raises FileNotFoundError where nothing is published, and ValueError
    where the published run is of another profile or the archive is damaged.
    """
    source = archive_file()
    if not source.exists():
        raise FileNotFoundError(f"{source.name} is missing below figures/: no run is published here")
    folder = project_root() / "runs" / profile / "records"
    try:
        with tarfile.open(source) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            profiles = {member.name.partition("/")[0] for member in members}
            if profiles != {profile}:
                raise ValueError(
                    f"profile={profile!r} is not the published one: choose {', '.join(sorted(profiles))}"
                )
            return sum(_restore(archive, member, folder) for member in members)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{source.name} is damaged ({error}): fetch it again") from None


def _restore(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> bool:
    """Write one file of the archive unless it is there; return whether it was missing."""
    parts = Path(member.name).parts[1:]
    if len(parts) != 2 or ".." in parts:  # notebook and record
        raise ValueError(f"{ARCHIVE} holds {member.name!r}, which is no record: fetch it again")
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
        provenance = json.loads(about.read_text(encoding="utf-8"))
        provenance = provenance.get("provenance", provenance)
        notebook = provenance.get("notebook")
        for group in provenance.get("records", []):
            for name in group["names"]:
                found.update((folder / "records" / notebook).glob(f"{name}.*"))
    return sorted(found)

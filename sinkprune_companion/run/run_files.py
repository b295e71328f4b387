"""What a run has written of its findings, figures and records, read with care before it is published."""

import json
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sinkprune.evaluation.intervals import Estimate
from sinkprune.files import file_digest

RUN_AGAIN = "run the notebook again"


class _Part(BaseModel):
    """A part of a file; fields that are not named here may stand beside them."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class RecordGroup(_Part):
    """Records of one origin."""

    names: list[Annotated[str, Field(pattern=r"^[\w-]+/[0-9a-f]{12}$")]]  # `<function>/<digest>`
    versions: dict[str, str]


class Provenance(_Part):
    """Where findings or a figure come from."""

    notebook: str
    profile: str
    records: list[RecordGroup]


def _inside(found: Estimate) -> Estimate:
    if not found.low <= found.value <= found.high:
        raise ValueError(f"value={found.value} is outside its interval from {found.low} to {found.high}")
    return found


class FindingsFile(_Part):
    """What a notebook found, and where that comes from."""

    findings: dict[str, Annotated[Estimate, AfterValidator(_inside)] | None]
    provenance: Provenance


class FigureFile(Provenance):
    """What is known of a figure: where it comes from, and the digests of its files."""

    files: dict[str, str]


class RecordFile(_Part):
    """What is known of a record: of interest here, its digest alone."""

    sha256: str


Kind = TypeVar("Kind", bound=_Part)


def read_part(kind: type[Kind], file: Path) -> Kind:
    """Return a JSON file as a `kind`.

    Raises FileNotFoundError where it is missing, and ValueError, in one line, for what is none.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {RUN_AGAIN}")

    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        reason = ": ".join(filter(None, [field, " ".join(first["msg"].split())]))
        raise ValueError(f"{file} is not what was written ({reason}): {RUN_AGAIN}") from None


def read_findings(file: Path, profile: str | None = None) -> FindingsFile:
    """Return what a notebook found; raise ValueError for findings of another notebook or another profile."""
    found = read_part(FindingsFile, file)
    _check_origin(file, found.provenance, file.stem, profile)
    return found


def records_behind(folder: Path, names: list[str]) -> set[Path]:
    """Return the files of the records that findings and figures of a run's notebooks rest on.

    Raises ValueError for findings, a record, or a file of a figure, that is missing, is not what was written
    or belongs to another notebook, and for a file that belongs to no figure.
    """
    files = set()
    for name in names:
        found = read_findings(folder / "findings" / f"{name}.json", folder.name)
        known = [found.provenance, *_figures_of(folder, name)]
        for provenance in known:
            for group in provenance.records:
                for record in group.names:
                    files |= _record_files(folder, name, record)

    for file in sorted(files):
        if file.suffix != ".json":
            check_digest(file, read_part(RecordFile, file.with_suffix(".json")).sha256)

    return files


def _figures_of(folder: Path, notebook: str) -> list[FigureFile]:
    """Return what is known of every figure of a notebook, whose files are whole."""
    place = folder / "figures" / notebook
    strange = {file.name for file in place.glob("*")}

    known = []
    for file in sorted(place.glob("*.json")):
        if not _is_about_a_figure(file):  # data that a figure has, or a figure of an earlier version
            continue
        figure = read_part(FigureFile, file)
        _check_origin(file, figure, notebook, folder.name)
        for part, digest in figure.files.items():
            check_digest(place / part, digest)
        strange -= {file.name, *figure.files}
        known.append(figure)

    if strange:
        raise ValueError(
            f"{place} holds what belongs to none of its figures: {', '.join(sorted(strange))}; "
            f"{RUN_AGAIN}, and remove what it does not make any more"
        )

    return known


def _is_about_a_figure(file: Path) -> bool:
    """Return whether a JSON file says which files a figure has; raise ValueError for what is no JSON."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not what was written ({error}): {RUN_AGAIN}") from None
    return isinstance(content, dict) and "files" in content


def _record_files(folder: Path, notebook: str, record: str) -> set[Path]:
    """Return the files of one record: its table and what it is known by."""
    parts = set((folder / "records").glob(f"{record}.*"))
    if len(parts) < 2:
        raise ValueError(f"{notebook} of {folder} rests on record {record}, which is missing: {RUN_AGAIN}")
    return parts


def _check_origin(file: Path, origin: Provenance, notebook: str, profile: str | None) -> None:
    """Raise ValueError unless what a file says of its origin fits its place."""
    if origin.notebook != notebook:
        raise ValueError(f"{file} belongs to notebook {origin.notebook!r}, not to {notebook!r}: {RUN_AGAIN}")
    if profile is not None and origin.profile != profile:
        raise ValueError(f"{file} belongs to profile {origin.profile!r}, not to {profile!r}: {RUN_AGAIN}")


def check_digest(file: Path, expected: str) -> None:
    """Raise ValueError unless a file has a SHA-256."""
    if not file.is_file() or file_digest(file) != expected:
        raise ValueError(f"{file} is not what was written: {RUN_AGAIN}")

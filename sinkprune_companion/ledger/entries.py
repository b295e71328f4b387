"""Entries of files, checked: an error names the file, the field, its value and what is allowed."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from pathlib import Path
from typing import get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError


def read_yaml(file: Path) -> dict:
    """Return the mapping in a YAML file; raise ValueError, in one line, for a file that holds none."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}: it must hold a mapping")
    return content


def checked(cls: type, values: object, where: str):
    """Return the dataclass `cls` of a mapping; raise ValueError, in one line, for what does not fit it."""
    names = [field.name for field in fields(cls)]
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {values!r:.60}: it must be a mapping of {', '.join(names)}")
    unknown = [str(name) for name in values if name not in names]
    if unknown:
        raise ValueError(f"{where}: {', '.join(unknown)} is unknown; it may have {', '.join(names)}")
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: {name}={value} must be a finite number")
    hints = get_type_hints(cls)
    missing = [field.name for field in fields(cls) if _is_required(field) and field.name not in values]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} is missing")
    for name, value in values.items():
        try:
            _adapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise ValueError(f"{where}: {name}={value!r:.60}: {said}") from error
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _is_required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


@cache
def _adapter(hint: object) -> TypeAdapter:
    return TypeAdapter(hint)

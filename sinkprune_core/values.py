"""Values that come from outside: what each may be stands in its annotation, and is checked in one place.

A field of a dataclass, or an argument of a function, that is annotated with one of the kinds below is
checked before any work (`check_fields`, `checked_arguments`). What does not fit ends in one line: its name,
its value, what is allowed.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import cache, wraps
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

Whole = Annotated[int, Field(description="a whole number")]
Number = Annotated[int, Field(ge=0, description="a whole number of at least 0")]
Count = Annotated[int, Field(ge=1, description="a whole number of at least 1")]
Flag = Annotated[bool, Field(description="True or False")]
AtLeastZero = Annotated[float, Field(ge=0, description="a finite number of at least 0")]
AboveZero = Annotated[float, Field(gt=0, description="a finite number above 0")]
Share = Annotated[float, Field(ge=0, le=1, description="a number in [0, 1]")]
PositiveShare = Annotated[float, Field(gt=0, le=1, description="a number above 0 and not above 1")]
Sparsity = Annotated[
    float, Field(ge=0, lt=1, description="a number in [0, 1): it is the share of weights set to zero")
]
LONGEST = 60  # characters of a value in an error; of a longer one its type is given

Function = TypeVar("Function", bound=Callable)


def instance(cls: type) -> object:
    """Return the kind of the objects of a class."""

    def is_one(value: object) -> object:
        if not isinstance(value, cls):
            raise ValueError(in_short(value))
        return value

    return Annotated[Any, AfterValidator(is_one), Field(description=f"a {cls.__name__}")]


def _of_int64(ids: torch.Tensor) -> torch.Tensor:
    if ids.dtype != torch.int64 or ids.dim() != 2 or ids.is_meta:
        raise ValueError(f"{ids.dtype} of shape {tuple(ids.shape)}")
    return ids.cpu()


TokenIds = Annotated[
    torch.Tensor, AfterValidator(_of_int64), Field(description="token ids: int64 of (sequences, tokens)")
]

_CONFIG = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def check_fields(settings: object) -> None:
    """Check the annotated fields of a dataclass; to be called by its `__post_init__`.

    A whole number becomes a float where that is the kind. Raises ValueError for the first that does not fit.
    """
    for name, hint in _kinds(type(settings)).items():
        object.__setattr__(settings, name, checked(name, getattr(settings, name), hint))


def checked_arguments(function: Function) -> Function:
    """Let a function check its annotated arguments before it begins, as `check_fields` checks fields."""
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        for name, hint in _kinds(function).items():
            if name in bound.arguments:
                bound.arguments[name] = checked(name, bound.arguments[name], hint)
        return function(*bound.args, **bound.kwargs)

    return call


@cache
def _kinds(owner: object) -> dict[str, object]:
    """Return the annotations of a dataclass or a function that are kinds, or kinds and None, by name."""
    hints = get_type_hints(owner, include_extras=True)
    parts = {name: (hint, *get_args(hint)) for name, hint in hints.items()}
    return {name: parts[name][0] for name in parts if Annotated in map(get_origin, parts[name])}


def checked(name: str, value: object, hint: object) -> object:
    """Return `value` as a kind has it; raise ValueError, naming it, where it does not fit."""
    value = value.item() if isinstance(value, np.generic) else value  # a number of NumPy's is one of Python's
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        given = str(first["ctx"]["error"]) if first["type"] == "value_error" else in_short(value)
        raise ValueError(f"{name}={given} must be {_words(hint)}") from None


@cache
def _adapter(hint: object) -> TypeAdapter:
    return TypeAdapter(hint, config=_CONFIG)


def _words(hint: object) -> str:
    """Return what a kind allows, in words."""
    if hint is NoneType:
        return "None"
    if get_origin(hint) is Annotated:
        return next(part.description for part in get_args(hint) if getattr(part, "description", None))
    return " or ".join(_words(part) for part in get_args(hint))


def in_short(value: object) -> str:
    """Return a value for an error, or its type where it would not fit into a line."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype}"
    text = repr(value)
    if len(text) > LONGEST or "\n" in text:
        return f"a {type(value).__name__}"
    return text


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of some names."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={in_short(value)} is unknown; choose one of {', '.join(allowed)}")

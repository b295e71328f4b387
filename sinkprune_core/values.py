"""Values that come from outside: what each may be stands in its annotation, and pydantic checks it.

A field of a dataclass, or an argument of a function, that is annotated with one of the kinds below, with a
`Literal` or with pydantic's `InstanceOf`, is checked before any work (`check_fields`, `checked_arguments`).
What does not fit ends in one line: its name, its value, what it must be. An object of another class is a
TypeError, everything else a ValueError, as it may come from a command line or a file.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from fractions import Fraction
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import torch
from pydantic import AfterValidator, ConfigDict, Field, InstanceOf, TypeAdapter, ValidationError

LARGE = 2**31  # no count is as large
Whole = Annotated[int, Field()]
Number = Annotated[int, Field(ge=0, lt=LARGE)]
Count = Annotated[int, Field(ge=1, lt=LARGE)]
Flag = Annotated[bool, Field()]
AtLeastZero = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]  # the share of weights set to zero
Text = Annotated[str, Field()]
Place = Annotated[Path | str, Field()]

COLDEST = 1e-6  # below it float64 does not hold a logit divided by the temperature
HOTTEST = 1e6  # above it float64 does not hold noise multiplied by the temperature


def _within_precision(temperature: float) -> float:
    if temperature and not COLDEST <= temperature <= HOTTEST:
        raise ValueError(f"must be 0 or a number from {COLDEST:g} to {HOTTEST:g}")
    return temperature


Temperature = Annotated[float, Field(ge=0), AfterValidator(_within_precision)]

LONGEST = 60  # characters of a value in an error; of a longer one its type is given

Function = TypeVar("Function", bound=Callable)


def share_of(total: int, share: float) -> int:
    """Return the largest count whose share of `total` is, as a float, not above `share`.

    So 0.29 of 100 is 29, where `int(100 * 0.29)` is 28: the nearest float to 0.29 lies below it.
    """
    share = float(share)  # of a NumPy number or a tensor, too
    count = math.floor(total * Fraction(share))
    has_room_for_one = count < total and (count + 1) / total <= share
    return count + 1 if has_room_for_one else count


def is_plain(value: torch.Tensor) -> bool:
    """Return whether a tensor is a dense one with numbers, neither sparse nor nested."""
    return not value.is_nested and value.layout == torch.strided and not value.is_meta


def is_finite(value: torch.Tensor) -> bool:
    """Return whether all numbers of a tensor are finite, in one pass over it and without a copy."""
    if not value.numel():
        return True
    extremes = torch.stack(value.detach().aminmax())  # either is NaN where any number is
    return bool(torch.isfinite(extremes).all())


def _dense(value: torch.Tensor) -> torch.Tensor:
    if not is_plain(value):
        raise ValueError("must be a dense tensor with numbers")
    return value


def _of_int64(ids: torch.Tensor) -> torch.Tensor:
    if _dense(ids).dtype != torch.int64 or ids.dim() != 2:
        raise ValueError(f"must be token ids, int64 of (sequences, tokens), and has shape {tuple(ids.shape)}")
    return ids.cpu()


Plain = Annotated[InstanceOf[torch.Tensor], AfterValidator(_dense)]
TokenIds = Annotated[InstanceOf[torch.Tensor], AfterValidator(_of_int64)]

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

    return cast(Function, call)


@cache
def _kinds(owner: object) -> dict[str, object]:
    """Return the annotations of a dataclass or a function that are kinds, or kinds and others, by name."""
    hints = get_type_hints(owner, include_extras=True)
    return {name: hint for name, hint in hints.items() if _is_kind(hint)}


def _is_kind(hint: object) -> bool:
    parts = (hint, *get_args(hint))
    return get_origin(hint) is Literal or any(get_origin(part) is Annotated for part in parts)


def checked(name: str, value: object, hint: object) -> Any:
    """Return `value` as a kind has it.

    Raises, with its name, TypeError for an object of another class and ValueError for what does not fit.
    """
    if isinstance(value, np.generic):
        value = value.item()  # a number of NumPy's is one of Python's

    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        problems = error.errors()
        kind = TypeError if problems[0]["type"] == "is_instance_of" else ValueError
        wanted = dict.fromkeys(_wanted(problem["msg"]) for problem in problems)
        raise kind(f"{name}={in_short(value)} {', or '.join(wanted)}") from None


def _wanted(message: str) -> str:
    """Return what a message of pydantic's says that a value must be."""
    return message.removeprefix("Value error, ").replace("Input should", "must")


@cache
def _adapter(hint: object) -> TypeAdapter:
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if is_dataclass(inner):  # of which an instance is asked; pydantic takes no other configuration for it
        return TypeAdapter(cast(Any, hint))
    return TypeAdapter(cast(Any, hint), config=_CONFIG)


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

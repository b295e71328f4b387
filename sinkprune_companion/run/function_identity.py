"""What tells a user's function from every other one, in this process and in the next: its code and its data.

A function is identified by its bytecode and constants and by everything that it can read: closure, defaults,
attributes and the globals that it names, followed into the other functions among them. Numbers count to the
last bit, tensors and arrays by their bytes. What has no such identity is refused. Of installed packages the
name and the version count. What a function takes from elsewhere when it runs, from a file, is not seen.

Bytecode is the identity rather than source: cells of a notebook and lambdas have no source to ask for. So
another minor version of Python gives another identity, and what was kept under the former one is made anew.
"""

import builtins
import dis
import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodDescriptorType, ModuleType

import numpy as np
import torch

PROJECT = ("sinkprune_core", "sinkprune_companion")  # an editable install lies outside of LIBRARIES
ARRAYS = (torch.Tensor, torch.nn.Parameter, np.ndarray)  # of subclasses their bytes are not all
FUNCTIONS = (BuiltinFunctionType, MethodDescriptorType, np.ufunc)  # of C: a name says all of them
CHANGING = (list, dict, set, bytearray)  # containers that a cell of a notebook may change at any time
READING = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")  # instructions that name a global
LIBRARIES = [
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
]


def function_digest(function: FunctionType) -> str:
    """Return a SHA-256 over all that decides what a function returns, 64 hexadecimal digits.

    Raises ValueError, naming the function and the value, for one that holds what cannot be identified: an
    open file, a model, a class of one's own, or a global list, dictionary or set.
    """
    digest = hashlib.sha256()
    parts = _Parts(function)
    try:
        for part in parts.of_function(function):
            digest.update(len(part).to_bytes(8, "little"))  # so that no two sequences of parts read alike
            digest.update(part)
    except RecursionError:
        raise parts.refused("one of its values", "nested too deeply") from None
    return digest.hexdigest()


class _Parts:
    """The bytes of everything that one function can read; a function that comes again is its number."""

    def __init__(self, function: FunctionType):
        self.name = function.__qualname__
        self.numbers: dict[int, int] = {}  # of the functions so far, by id

    def of_function(self, function: FunctionType) -> Iterator[bytes]:
        """Yield the parts of a function of the user's."""
        if id(function) in self.numbers:
            yield f"function {self.numbers[id(function)]}".encode()
            return
        self.numbers[id(function)] = len(self.numbers)
        yield b"function"
        yield from self.of_code(function.__code__)
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # it has no value yet
                value = None
            yield from self.of(value, name)
        yield from self.of(function.__defaults__, "a default")
        yield from self.of(function.__kwdefaults__, "a default")
        yield from self.of(function.__dict__, "an attribute")
        for name in sorted(_global_names(function.__code__)):
            yield name.encode()
            yield from self.of_global(name, function.__globals__)

    def of_code(self, code: CodeType) -> Iterator[bytes]:
        """Yield bytecode, names and constants, also of functions inside it, but no file and line."""
        counts = (code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        yield repr(counts).encode()
        yield code.co_code
        yield code.co_exceptiontable
        yield repr((code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars)).encode()
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self.of_code(constant)
            else:
                yield from self.of(constant, "a constant")
        for module in _imported(code):
            if not _is_installed(module):
                raise self.refused(module, f"the module {module}", "import its values by name")

    def of_global(self, name: str, namespace: dict) -> Iterator[bytes]:
        """Yield the parts of a global that a function names."""
        if name not in namespace:
            yield b"builtin" if hasattr(builtins, name) else b"undefined"
            return
        value = namespace[name]
        if isinstance(value, CHANGING):
            raise self.refused(name, f"a global {type(value).__name__}, which may change meanwhile")
        yield from self.of(value, name)

    def of(self, value: object, name: str) -> Iterator[bytes]:
        """Yield the parts of a value that a function knows as `name`."""
        kind = type(value)
        if kind in (float, complex):
            yield kind.__name__.encode()
            yield f"{value.real.hex()} {value.imag.hex()}".encode()
        elif value is None or value is Ellipsis or kind in (bool, int, str, bytes, range):
            yield kind.__name__.encode()
            yield repr(value).encode()
        elif isinstance(value, (torch.dtype, torch.device, np.dtype)):
            yield repr(value).encode()
        elif kind in ARRAYS or isinstance(value, np.generic):
            yield from self.of_array(value, name)
        elif kind in (tuple, list, dict, set, frozenset, slice):
            yield from self.of_container(value, name)
        elif isinstance(value, functools.partial):
            yield from self.of_container((value.func, value.args, value.keywords), name)
        elif isinstance(value, FunctionType) and not _is_installed(value.__module__):
            yield from self.of_function(value)
        else:
            yield self.of_library(value, name)

    def of_array(self, value: torch.Tensor | np.ndarray | np.generic, name: str) -> Iterator[bytes]:
        """Yield dtype, shape and bytes."""
        if isinstance(value, torch.Tensor):
            if value.is_meta or value.layout != torch.strided or value.is_quantized:
                raise self.refused(name, f"a {value.layout} tensor on {value.device}", "pass a dense one")
            plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
            content = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        else:
            if value.dtype.hasobject:
                raise self.refused(name, "an array of objects")
            content = value.tobytes()
        yield f"{type(value).__name__} {value.dtype} {tuple(value.shape)}".encode()
        yield content

    def of_container(self, value: object, name: str) -> Iterator[bytes]:
        """Yield kind, length and items."""
        if isinstance(value, slice):
            items = [value.start, value.stop, value.step]
        elif isinstance(value, dict):
            items = [part for pair in value.items() for part in pair]
        elif isinstance(value, (set, frozenset)):  # in an order that no hash of a process decides
            items = sorted(value, key=lambda item: list(self.of(item, name)))
        else:
            items = list(value)
        yield f"{type(value).__name__} {len(items)}".encode()
        for item in items:
            yield from self.of(item, name)

    def of_library(self, value: object, name: str) -> bytes:
        """Return the name and the version of a module, function or class of an installed package."""
        home = getattr(value, "__module__", None)
        if isinstance(value, ModuleType):
            home = value.__name__
        elif isinstance(value, FUNCTIONS) and home is None:
            home = "builtins"
        is_named = isinstance(value, (ModuleType, FunctionType, type, *FUNCTIONS))
        owner = getattr(value, "__self__", None)  # a list of its `append`, for example
        is_owned = owner is not None and not isinstance(owner, (ModuleType, type))
        if not is_named or is_owned or not isinstance(home, str) or not _is_installed(home):
            raise self.refused(name, f"a {type(value).__name__}")
        version = getattr(sys.modules.get(home.partition(".")[0]), "__version__", "")
        return f"{home} {getattr(value, '__qualname__', value.__name__)} {version}".encode()

    def refused(self, name: str, what: str, way: str = "") -> ValueError:
        """Return the error for a value that has no identity."""
        way = way or "pass plain values, tensors or arrays as default arguments or in a closure"
        return ValueError(
            f"exclude={self.name!r} cannot be told from other functions, so nothing may be kept under its "
            f"name: {name} is {what}; {way}"
        )


def _global_names(code: CodeType) -> set[str]:
    """Return the names of globals that code reads, functions inside it included."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in READING}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names


def _imported(code: CodeType) -> list[str]:
    """Return the modules that code imports when it runs."""
    return [step.argval for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"]


def _is_installed(module: str | None) -> bool:
    """Return whether a module is of Python, of an installed package or of this project."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or top in PROJECT:
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:
        try:
            spec = find_spec(top) if top else None
        except ValueError:  # such as __main__
            return False
        file = spec and spec.origin
    return file is not None and any(folder in Path(file).resolve().parents for folder in LIBRARIES)

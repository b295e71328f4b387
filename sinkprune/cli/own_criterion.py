"""A criterion of the user's own, from the command line: `--criterion MODULE:FUNCTION`."""

import inspect
import os
import sys
from importlib import import_module
from types import FunctionType

from sinkprune.runs.recipe_identity import probed
from sinkprune.spelling import suggestion
from sinkprune_core.pruning.criteria import CRITERIA, Score, needs_of

FORM = "write MODULE:FUNCTION, such as mine:score for `def score(weight_OI, inputs)` in mine.py"


def criterion_named(text: str) -> str | Score:
    """Return a criterion by its name, or the function that `module:function` names, imported and tried out.

    Modules of the working directory come first. Raises ValueError, naming the option, for what cannot be
    imported, is no function of a weight and the statistics of its input, or does not score a small linear.
    """
    option = f"--criterion {text}"
    if ":" not in text:
        if text in CRITERIA:
            return text
        near = suggestion(text, CRITERIA)
        raise ValueError(
            f"{option} is no criterion{near or ';'} choose one of {', '.join(CRITERIA)}, or {FORM}"
        )

    module_name, _, name = text.partition(":")
    if not module_name or not name.isidentifier():
        raise ValueError(f"{option}: {FORM}")

    function = _imported(option, module_name, name)
    if not isinstance(function, FunctionType):
        raise ValueError(f"{option}: {name} is a {type(function).__name__}, not a function: {FORM}")

    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        taken = f"{name}{inspect.signature(function)}"
        raise ValueError(
            f"{option}: {taken} cannot be called with two arguments, the weight of a linear (O, I) and the "
            "InputStatistics of its input: give it these two"
        ) from None

    try:
        needs_of(function)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None

    try:
        probed(function)
    except Exception as error:  # of the user's code
        reason = " ".join(str(error).split())
        raise ValueError(f"{option} fails on a small linear ({type(error).__name__}: {reason})") from error

    return function


def _imported(option: str, module_name: str, name: str) -> object:
    """Return what a module calls `name`; modules of the working directory are found, too."""
    sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"{option}: {module_name} needs a module {error.name}: install it") from error
        raise ValueError(
            f"{option}: there is no module {module_name}, neither in this folder nor installed: give the "
            "name of a .py file without its ending"
        ) from None
    except Exception as error:  # whatever the user's module raises
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{option}: {module_name} cannot be imported ({type(error).__name__}: {reason})"
        ) from error
    finally:
        sys.path.remove(os.getcwd())

    if not hasattr(module, name):
        functions = [known for known, value in vars(module).items() if isinstance(value, FunctionType)]
        near = suggestion(name, functions)
        raise ValueError(f"{option}: {module_name} has no function {name}{near or ': check the name'}")

    return getattr(module, name)

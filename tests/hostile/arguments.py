"""Arguments of another type or out of range, for every function that the packages offer: an error in words.

Each argument in turn gets every value of a list. A value may happen to be allowed: then the call works.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import torch
from conftest import tiny_lm
from hostile.fuzz import Case

import sinkprune
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.pruning.diagnosis import diagnose
from sinkprune_core.pruning.engine import dense_statistics

IDS_NT = torch.randint(21, 66, (3, 12), generator=torch.Generator().manual_seed(0))
IDS_BT = IDS_NT[:2, :4]
WORKED = "it worked, or was refused in words"
VALUES = {
    "None": None,
    "True": True,
    "a text": "no",
    "an empty text": "",
    "minus one": -1,
    "zero": 0,
    "a half": 0.5,
    "a large number": 10**30,
    "an infinity": float("inf"),
    "no number": float("nan"),
    "bytes": b"x",
    "a list": [],
    "a list of a text": ["x"],
    "a dictionary": {"a": 1},
    "a set": {1},
    "a function": lambda *_: None,
    "an object": object(),
    "a type": int,
    "a complex number": 1j,
    "an empty tensor": torch.empty(0),
    "a number in a tensor": torch.tensor(3),
    "floats": torch.rand(2, 4),
    "ids of int32": IDS_BT.int(),
    "sparse ids": IDS_BT.to_sparse(),
    "nested ids": torch.nested.nested_tensor([torch.tensor([21, 22]), torch.tensor([23])]),
    "ids without numbers": IDS_BT.to("meta"),
    "one row of ids": IDS_BT[0],
    "ids of three dimensions": IDS_BT[None],
    "ids beyond the vocabulary": IDS_BT + 1000,
    "no row": IDS_BT[:0],
    "no token": IDS_BT[:, :0],
}


@dataclass(frozen=True)
class Call:
    """A function with arguments that fit; `arguments` makes them anew, as some are changed."""

    function: Callable
    arguments: Callable[[], dict[str, object]]


def _lm(kind: str = "diffusion"):
    return tiny_lm(kind, layers=2)


def _calibration():
    return sinkprune.Calibration(IDS_NT, batch=2)


def _quiet(**more: object) -> dict[str, object]:
    return {"lm": _lm(), "progress": False, **more}


def _calls(root: Path) -> dict[str, Call]:
    """Return every function that is offered, by name."""
    saved = sinkprune.save(_lm(), root / "saved")
    pruned = _pruned()
    recovered = sinkprune.save(pruned, root / "pruned")
    numbers = count()  # of places that nothing lies at yet
    sampler = sinkprune.Sampler(length=4, steps=2, block=2)
    dense = sinkprune.preset("wanda", propagation="dense")
    writing = {"seed": 0, "first": 0, "attention_mask_BT": None, "names": None, "until": None}
    recovery = {
        "out": root / "recovered",
        "tokens": None,
        "steps": 2,
        "text": None,
        "text_name": None,
        "teacher": None,
        "distillation": None,
        "method": "full",
        "rank": 2,
        "learning_rate": None,
        "batch": 2,
        "length": 6,
        "seed": 0,
        "work": None,
        "dtype": "float32",
        "device": "cpu",
        "gradient_checkpointing": False,
        "save_every": 2,
        "progress": False,
        "tell": None,
    }
    given: dict[str, tuple[Callable, Callable[[], dict[str, object]]]] = {
        "load": (
            sinkprune.load,
            lambda: {"name": saved, "dtype": "float32", "device": "cpu", "device_map": None},
        ),
        "wrap": (
            sinkprune.wrap,
            lambda: {
                "model": _lm().model,
                "tokenizer": None,
                "mask_token_id": 4,
                "logits_shifted": True,
                "name": "x",
            },
        ),
        "preset": (sinkprune.preset, lambda: {"name": "wanda"}),
        "calibration": (sinkprune.Calibration, lambda: {"ids_NT": IDS_NT, "seed": 0, "batch": 2}),
        "prune": (
            sinkprune.prune,
            lambda: _quiet(
                recipe=sinkprune.preset("wanda"), calibration=_calibration(), statistics=None, work=None
            ),
        ),
        "dense_statistics": (
            dense_statistics,
            lambda: _quiet(recipes=[dense], calibration=_calibration()),
        ),
        "diagnose": (
            diagnose,
            lambda: {"lm": _lm(), "calibration": _calibration(), "sparsities": (0.5,), "noise_levels": 2},
        ),
        "trace": (
            sinkprune.trace,
            lambda: _quiet(prompt_BT=IDS_BT, sampler=sampler, seed=0, batch=2),
        ),
        "generate": (
            sinkprune.generate,
            lambda: {"lm": _lm(), "prompt_BT": IDS_BT, "sampler": sampler, "watch": None, **writing},
        ),
        "decode": (
            decode,
            lambda: {
                "lm": _lm("autoregressive"),
                "prompt_BT": IDS_BT,
                "length": 3,
                "temperature": 0.5,
                **writing,
            },
        ),
        "nelbo": (
            sinkprune.nelbo,
            lambda: _quiet(ids_NT=IDS_NT, draws=1, seed=0, batch=2, steps=None, first_scored=1),
        ),
        "nll": (
            sinkprune.nll,
            lambda: {"lm": _lm("autoregressive"), "ids_NT": IDS_NT, "batch": 2, "first_scored": 1},
        ),
        "score": (
            sinkprune.score,
            lambda: _quiet(ids_NT=IDS_NT, draws=1, seed=0, batch=2),
        ),
        "attention_mass": (
            sinkprune.attention_mass,
            lambda: {"model": _lm("autoregressive").model, "inputs": IDS_BT, "new_tokens": 0},
        ),
        "weights_kept": (_entered(sinkprune.weights_kept), lambda: {"lm": _lm()}),
        "hide": (
            _entered(sinkprune.hide),
            lambda: {"model": _lm().model, "keys": torch.zeros(2, 4, dtype=torch.bool)},
        ),
        "track": (
            _entered(sinkprune.track),
            lambda: {"model": _lm().model, "windows": None, "chunk": 128, "counted_BQ": None},
        ),
        "shrink": (sinkprune.shrink, lambda: {"lm": _lm(), "kept": _kept_units()}),
        "save": (sinkprune.save, lambda: _to_be_saved(root / f"saved-{next(numbers)}")),
        "save_model": (sinkprune.save_model, lambda: _to_be_saved(root / f"saved-{next(numbers)}")),
        "calibration_from": (
            sinkprune.calibration_from,
            lambda: {"lm": _lm(), "data": IDS_NT, "length": 6, "sequences": 2, "seed": 0, "batch": 2},
        ),
        "diagnose in a folder": (
            sinkprune.diagnose,
            lambda: _quiet(calibration=_calibration(), sinks="all", work=root / f"work-{next(numbers)}"),
        ),
        "training_loss": (
            sinkprune.training_loss,
            lambda: {"lm": _lm(), "ids_BT": IDS_BT, "seed": 0, "step": 0},
        ),
        "zeros_held": (_entered(sinkprune.zeros_held), lambda: {"model": _pruned()}),
        "recover": (sinkprune.recover, lambda: {"pruned": recovered, "dry_run": True, **recovery}),
        "hidden": (_hidden, lambda: {"lm": _lm(), "ids_BT": IDS_BT, "attention_mask_BT": None}),
        "encode": (_encoded, lambda: {"lm": _lm(), "text": "the list"}),
    }
    sampling = {name: getattr(sampler, name) for name in sampler.__dataclass_fields__}
    given["sampler"] = (sinkprune.Sampler, lambda: dict(sampling))
    recipe = sinkprune.preset("wanda")
    fields = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}
    given["recipe"] = (sinkprune.Recipe, lambda: dict(fields))
    return {name: Call(*both) for name, both in given.items()}


def _entered(context: Callable) -> Callable:
    """Return a function that enters a context and leaves it."""

    def call(**arguments: object) -> None:
        with context(**arguments):
            pass

    return call


def _kept_units() -> tuple:
    recipe = sinkprune.preset("structured")
    return sinkprune.prune(_lm(), recipe, _calibration(), progress=False).kept_units


def _pruned():
    lm = _lm()
    sinkprune.prune(lm, sinkprune.preset("magnitude"), progress=False)
    return lm


def _to_be_saved(folder: Path) -> dict[str, object]:
    """Return the arguments of `save`: a model, a place, a text beside it, an entry of the card."""
    return {"lm": _lm(), "folder": folder, "texts": {"note.txt": "a note"}, "about": [1]}


def _hidden(lm, ids_BT, attention_mask_BT) -> object:
    return lm.hidden(ids_BT, attention_mask_BT)


def _encoded(lm, text) -> object:
    return lm.encode(text)


def arguments(root: Path) -> Iterator[Case]:
    """Every argument of every function with every value of VALUES in its place."""
    for name, call in _calls(root).items():
        for argument in call.arguments():
            for what, value in VALUES.items():
                is_own = argument == "lm" and name in ("hidden", "encode")  # of which it is a method
                if is_own or (argument in ("watch", "until", "tell") and callable(value)):
                    continue
                run = partial(_run, call, argument, value)
                yield Case(f"{name}: {argument} is {what}", run, WORKED, (argument, *SAID))


SAID = (
    "must be",
    "is no",
    "is unknown",
    "takes",
    "needs",
    "does not",
    "not",
    "exceed",
    "expected",
    "outside",
    "give",
    "are ",
    "has ",
)
"""Words of a refusal that says what is wrong by the thing instead of the argument: a shape, say."""


def _run(call: Call, argument: str, value: object) -> str:
    is_tensor = isinstance(value, torch.Tensor)
    call.function(**{**call.arguments(), argument: value if is_tensor else copy.copy(value)})
    return WORKED


GROUPS = {
    "arguments of other types": arguments,
}  # by the name that the table has

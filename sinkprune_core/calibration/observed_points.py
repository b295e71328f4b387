"""Points of a pass that keep what an observer has seen: a pass that is interrupted goes on with its sums.

Dimensions: B batch, T position, I input features.
"""

import json
from collections.abc import Callable, Mapping

import torch
from torch import nn

from sinkprune_core.blocks import Hidden, Point, Points, Tensors
from sinkprune_core.calibration.input_statistics import Observer, RunningStatistics

SEEN = "seen|"  # what the names of an observer's tensors begin with
WAITING = "waiting"  # the numbers of inputs that are not summed yet

Place = tuple[int, str]  # of a linear: its layer and its name


class ObservedPoints:
    """The points of a pass, each of them with what an observer has seen until then."""

    def __init__(self, points: Points, observer: Observer[Place], linears: Mapping[Place, nn.Linear]):
        self.points = points
        self.observer = observer
        self.linears = linears
        self.done = 0
        self.beside: Callable[[], Tensors] = dict  # what is kept beside the sums

    def put(self, number: int, input_BTI: torch.Tensor) -> None:
        """Let an input wait."""
        self.points.put(number, input_BTI)

    def take(self, number: int) -> torch.Tensor:
        """Return an input that waited."""
        return self.points.take(number)

    def last(self, hidden: Hidden | None = None) -> Point:
        """Return the last point; the observer has seen what it had seen there."""
        point = self.points.last(hidden)
        _see_again(self.observer, self.linears, point.tensors)

        beside = {name: value for name, value in point.tensors.items() if not name.startswith(SEEN)}
        self.done = point.done
        self.beside = lambda: beside
        return Point(point.done, beside)

    def keep(
        self,
        done: int,
        tensors: Callable[[], Tensors],
        hidden: Hidden | None = None,
        is_last: bool = False,
    ) -> None:
        """Keep a point, with what the observer has seen."""
        self.done = done
        self.beside = tensors
        self.points.keep(done, lambda: {**tensors(), **_seen(self.observer)}, hidden, is_last)


def _seen(observer: Observer[Place]) -> dict[str, torch.Tensor]:
    """Return the sums of every distinct input, or the numbers of its inputs where these wait yet."""
    tensors = {}
    for number, (places, running, waiting) in enumerate(observer.observed()):
        key = f"{SEEN}{number:06d}|{json.dumps(places)}"  # in the order in which they were seen first
        if waiting:
            tensors[f"{key}|{WAITING}"] = torch.tensor(waiting)
            continue
        tensors |= {f"{key}|{name}": summed for name, summed in running.sums().items()}

    return tensors


def _see_again(observer: Observer[Place], linears: Mapping[Place, nn.Linear], tensors: Tensors) -> None:
    """Let an observer go on from what `_seen` has returned."""
    by_input: dict[str, dict[str, torch.Tensor]] = {}
    for name in sorted(tensors):
        if name.startswith(SEEN):
            key, _, what = name.rpartition("|")
            by_input.setdefault(key, {})[what] = tensors[name]

    for key, found in by_input.items():
        places = [(layer, linear) for layer, linear in json.loads(key.rpartition("|")[2])]
        running = RunningStatistics(linears[places[0]].weight.shape[1], observer.choices)

        if WAITING in found:
            observer.go_on_with(places, running, found[WAITING].tolist())
        else:
            running.go_on_from(found)
            observer.go_on_with(places, running, [])

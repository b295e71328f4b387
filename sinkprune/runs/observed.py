"""What an observer has seen, as tensors by name: a pass that was interrupted goes on with its sums.

Dimensions: W choices of token weights, I input features.
"""

import json
from collections.abc import Mapping

import torch

from sinkprune_core.calibration.input_statistics import Observer, RunningStatistics

SEEN = "seen|"  # what the names of an observer's tensors begin with
WAITING = "waiting"  # the numbers of inputs that are not summed yet


def seen(observer: Observer) -> dict[str, torch.Tensor]:
    """Return the sums of every distinct input, or the numbers of its inputs where these wait yet."""
    places: dict[RunningStatistics, list] = {}
    for place, running in observer.running.items():
        places.setdefault(running, []).append(place)

    tensors = {}
    for number, (running, sharing) in enumerate(places.items()):
        key = f"{SEEN}{number:06d}|{json.dumps(sharing)}"  # in the order in which they were seen first
        if running in observer.waiting:
            tensors[f"{key}|{WAITING}"] = torch.tensor(observer.waiting[running])
            continue
        tensors |= {f"{key}|{name}": sum_WI for name, sum_WI in _sums(running).items()}

    return tensors


def see_again(observer: Observer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Let an observer go on from what `seen` has returned."""
    by_input: dict[str, dict[str, torch.Tensor]] = {}
    for name in sorted(tensors):
        if name.startswith(SEEN):
            key, _, what = name.rpartition("|")
            by_input.setdefault(key, {})[what] = tensors[name]

    for key, found in by_input.items():
        places = [tuple(place) for place in json.loads(key.rpartition("|")[2])]
        running = observer.begun(places[0])
        observer.running.update(dict.fromkeys(places, running))

        if WAITING in found:
            numbers = found[WAITING].tolist()
            observer.waiting[running] = numbers
            observer.arrived = max(observer.arrived, numbers[-1] + 1)
            continue

        for name, sum_WI in _sums(running).items():
            sum_WI.copy_(found[name])


def _sums(running: RunningStatistics) -> dict[str, torch.Tensor]:
    """Return sums by name, without Gram matrices, which no pass keeps."""
    return {
        "squares": running.squares_WI,
        "summed": running.summed_WI,
        "sums": running.sums_WI,
        "count": running.count_W,
    }

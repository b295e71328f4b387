"""Statistics of the dense model in a work folder: a killed pass goes on, and inputs may wait on the disk.

Dimensions: W choices of token weights, R calibration rows, T position.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from tqdm.auto import tqdm

from sinkprune.files import FULL
from sinkprune.runs.observed import seen
from sinkprune.runs.on_disk import KeptPoints, KeptSteps, OnDisk
from sinkprune_core.calibration.dense_statistics import DensePass, Seen, row_bytes, sinks_show
from sinkprune_core.calibration.input_statistics import Observer
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import StatisticsKey
from sinkprune_core.calibration.waiting_store import PassState
from sinkprune_core.language_model import LanguageModel


def bytes_that_wait(
    lm: LanguageModel,
    keys: Sequence[StatisticsKey],
    calibration: Calibration,
    store: OnDisk,
    device: torch.device | str | None = None,
) -> int:
    """Return the bytes of all inputs for `keys`, where they may wait on the disk until their sinks are known.

    The text then passes once, which changes no result. It is 0 where the disk has no room for all, where
    sinks do not show in these forwards, and on a GPU, which computes inputs again sooner.
    """
    first = keys[0]
    is_on_cpu = torch.device(device or lm.device).type == "cpu"
    if not is_on_cpu or not sinks_show(lm, keys, calibration):
        return 0

    sequences, length = calibration.ids_NT.shape
    states = first.noise_levels if lm.is_diffusion else 1
    total = sequences * states * row_bytes(lm, length)
    return total if total <= store.room_for_inputs() else 0


@dataclass(frozen=True)
class KeptPass(DensePass):
    """A pass that goes on where it was killed; the folder forgets it once its statistics are kept."""

    store: OnDisk

    def run(self) -> Seen:
        """Send the rows through the model, and their inputs through the disk where these may wait there."""
        if self.joint_rows is None and bytes_that_wait(self.lm, self.keys, self.calibration, self.store):
            try:
                return self._through_disk()
            except OSError as error:  # of a quota, or of a disk that others fill
                if error.errno not in FULL:
                    raise
                self.store.forget()

        return super().run()

    def _through_disk(self) -> Seen:
        """Send all rows through block after block once; inputs wait for what the last one shows.

        The pass has two phases: blocks show the sinks, then inputs are summed with the weights that follow.
        Its points count on from one to the other: `done` is first of blocks, then all blocks and the inputs.
        """
        points = self.store.points(("sinks and inputs", self.keys))

        with self.observed(held=points) as observer:
            store = _Observing(self.store.folder, points_of_both=points, observer=observer)
            ids_RT, weight_WRT = self.weighted_rows(store)
            self._sum_waiting(observer, points, store.sums, weight_WRT)

        return Seen(ids_RT, weight_WRT, observer)

    def _sum_waiting(
        self,
        observer: Observer,
        points: KeptPoints,
        sums: dict[str, torch.Tensor],
        weight_WRT: torch.Tensor,
    ) -> None:
        """Sum the inputs that wait, one after the other, and keep a point after each of them."""
        still_waiting = list(observer.waiting)
        inputs = tqdm(still_waiting, "statistics", disable=not self.progress, leave=False, unit="input")

        for running in inputs:
            observer.add_waiting(running, weight_WRT)
            points.keep(points.done + 1, lambda: sums | seen(observer))

        observer.forget()


@dataclass(frozen=True, kw_only=True)
class _Observing(OnDisk):
    """The store of forwards that show sinks, while the inputs of all linears wait beside them."""

    points_of_both: KeptPoints
    observer: Observer
    sums: dict[str, torch.Tensor] = field(default_factory=dict)

    def steps(self, steps: range, state: PassState) -> KeptSteps:
        """Return the steps that are left of the pass that does both."""
        self.sums.update(state.sums)
        return KeptSteps(self.points_of_both, steps, replace(state, observer=self.observer))

"""GPUs that a run can be planned for without having one: `--device cuda:H100 --dry-run`.

Memory and peak speeds are those of the vendor's data sheets, dense, without sparsity.
"""

from dataclasses import dataclass

from sinkprune.spelling import suggestion

HERE = "at this machine's speed now"  # the pace of a run that is not planned for another machine
REACHED = 0.4  # share of the peak that a run is taken to reach, which nobody measured here


@dataclass(frozen=True)
class Gpu:
    """What a plan needs to know of a GPU."""

    name: str
    memory: float  # bytes
    peak_16: float  # FLOP/s in bfloat16 or float16
    peak_32: float  # FLOP/s in float32
    has_bfloat16: bool = True  # units for it; what has none computes in float16

    @property
    def words(self) -> str:
        """Where a run is planned to be, in words."""
        return f"{self.name}, which is not here"

    def speed(self, bytes_per_number: int) -> float:
        """Return the FLOP/s that a run is taken to reach with numbers of so many bytes."""
        return REACHED * (self.peak_32 if bytes_per_number > 2 else self.peak_16)

    def pace(self, bytes_per_number: int) -> str:
        """Return that speed in words, which say where it comes from."""
        teraflops = self.speed(bytes_per_number) / 1e12
        return f"at {teraflops:.0f} TFLOP/s, {REACHED:.0%} of the peak of {self.name}"


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("L4", 24e9, 121e12, 30e12),
        Gpu("RTX4090", 24e9, 165e12, 83e12),
        Gpu("V100", 32e9, 125e12, 15.7e12, has_bfloat16=False),
        Gpu("L40S", 48e9, 362e12, 92e12),
        Gpu("A100", 80e9, 312e12, 19.5e12),
        Gpu("H100", 80e9, 989e12, 67e12),
        Gpu("H200", 141e9, 989e12, 67e12),
    )
}


def duration_in_words(seconds: float) -> str:
    """Return how long a run takes, in hours and minutes or in minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def planned_gpu(device: str) -> Gpu | None:
    """Return the GPU that a device such as `cuda:H100` names, None for a device of this machine.

    Raises ValueError for a GPU that is not in the table.
    """
    kind, _, name = device.partition(":")
    if kind != "cuda" or not name or name.isdecimal():
        return None

    known = {gpu.lower(): gpu for gpu in GPUS}
    if name.lower() not in known:
        near = suggestion(name, GPUS)
        raise ValueError(
            f"device {device}: {name} is no GPU that a run can be planned for{near or ';'} "
            f"choose one of {', '.join(GPUS)}, or give cuda, or cuda:1"
        )

    return GPUS[known[name.lower()]]


def check_planned(device: str, dry_run: bool) -> None:
    """Raise ValueError for a GPU that is not here, unless a run is planned and ends with that."""
    if planned_gpu(device) is not None and not dry_run:
        raise ValueError(
            f"device {device} names a GPU that a run can be planned for: add --dry-run (dry_run=True), "
            "or give cuda, a GPU of this machine"
        )

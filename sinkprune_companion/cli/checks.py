"""What is refused before a command of the companion begins: options that do not go together."""

from collections.abc import Callable
from pathlib import Path

from sinkprune.cli.options import Options
from sinkprune.files import cache_dir

EMBEDDED_BASE = "smol-ar"  # the base that comes with the package


def _settle_train(options: Options) -> None:
    is_embedded = options.base == EMBEDDED_BASE
    if is_embedded:
        options.refuse(("mask_token",), f"it is for other bases, and {EMBEDDED_BASE} has its own mask token")
    if options.from_scratch:
        options.refuse(("rank", "begin_with"), "--from-scratch trains no adapter")
    name = options.kind if is_embedded else f"{Path(options.base).name}-{options.kind}"
    if options.from_scratch:
        name = f"scratch-{name}-seed{options.seed}"
    options.work_folder = options.folder or cache_dir() / "training" / name


SETTLE: dict[str, Callable[[Options], None]] = {"train": _settle_train}

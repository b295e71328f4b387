"""What is refused before a command of the companion begins: options that do not go together."""

from collections.abc import Callable
from pathlib import Path

from sinkprune.cli.options import Options
from sinkprune.files import cache_dir, resolved

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
    _check_apart(options)


def _check_apart(options: Options) -> None:
    """Raise ValueError where a run and what it exports would lie one in the other.

    The export must not exist: it would be refused after the training, and to remove it would remove the run.
    """
    if options.export is None:
        return

    run, export = resolved(options.work_folder), resolved(options.export)
    if run == export or run in export.parents or export in run.parents:
        raise ValueError(
            f"--export {options.export} and the folder of the run, {options.work_folder}, lie one in the "
            "other: give the export a place of its own"
        )


SETTLE: dict[str, Callable[[Options], None]] = {"train": _settle_train}

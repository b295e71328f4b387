"""`sinkprune diagnose`: can leaving sinks out matter in a model? Said from one pass, before it is pruned."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number

from sinkprune.cli.options import (
    ANY,
    AT,
    DEFAULT_BATCH,
    RUNNING,
    Batch,
    DryRun,
    Length,
    Model,
    NewPath,
    Picture,
    Seed,
    SourceOptions,
    Stream,
    WhereOptions,
    refuse,
)
from sinkprune.cli.screen import keeping, loading, say

if TYPE_CHECKING:
    import pandas as pd

    from sinkprune_core.pruning.diagnosis import Diagnosis

COLUMNS = {  # what is printed of the columns of a diagnosis
    "energy": "energy",
    "predicted": "formula",
    "exact": "exact",
    "other_text": "other",
}
MEANINGS = {
    "energy": "the sinks' share of the energy (squared norm) of what these linears read",
    "formula": "share of kept weights that leaving sinks out should exchange, by a formula",
    "exact": "share of kept weights that it does exchange in Wanda's mask",
    "other": "share that another draw of calibration text of the same size exchanges",
}
AFFECTED = 5  # linears that are named


def diagnose(
    model: Model,
    /,
    *,
    sequences: Annotated[
        int,
        Parameter(
            help="sequences: half of them are calibration text, half are other text", validator=Number(gte=2)
        ),
    ] = 32,
    length: Length = None,
    sparsity: Annotated[float, Parameter(help="share of zeros", validator=Number(gt=0, lt=1))] = 0.5,
    noise_levels: Annotated[
        PositiveInt | None,
        Parameter(help="noise levels at which a diffusion model sees its text", show_default="8"),
    ] = None,
    sinks: Annotated[
        Literal["all", "unstable", "stable", "official"],
        Parameter(help="which sinks are left out, as in --set exclude of prune"),
    ] = "all",
    seed: Seed = 0,
    figure: Annotated[
        Picture, Parameter(help="where a picture goes: the sinks' share of energy by linear and layer")
    ] = None,
    json: Annotated[NewPath, Parameter(help="where the table of all linears goes")] = None,
    work: Annotated[
        Path | None,
        Parameter(
            help="keeps how far the pass has come, and what it found (default: of a streamed model "
            "MODEL-diagnosis.work, removed at the end)",
            metavar="FOLDER",
            group=RUNNING,
        ),
    ] = None,
    stream: Stream = False,
    dry_run: DryRun = False,
    batch: Batch = None,
    source: SourceOptions = ANY,
    where: WhereOptions = AT,
) -> None:
    """Say before pruning whether leaving sinks out can matter."""
    usual_work = Path(f"{Path(model.partition('@')[0]).name}-diagnosis.work")
    levels = noise_levels or 8

    if dry_run:
        from sinkprune.cli import common
        from sinkprune.runs.memory_and_disk import lacks, pruning_needs
        from sinkprune_core.pruning.recipe import Recipe

        shape = (sequences, length)
        lm, text = common.planned(model, where, source, shape, batch or DEFAULT_BATCH, stream)
        inputs = "noised" if lm.is_diffusion else "clean"
        recipe = Recipe(inputs=inputs, propagation="dense", noise_levels=levels, exclude=sinks)

        in_work_folder = work is not None or lm.is_streamed
        needed = pruning_needs(lm, recipe, text, in_work_folder, is_saved=False)
        device, _ = common.place_of(where)
        common.say_needs(lm, device, "diagnosis", needed)
        for lack in lacks(needed, device, work or usual_work, work or usual_work, common.WAYS_OUT):
            say(lack)
        return

    with loading(model):
        import torch

        from sinkprune.cli import common
        from sinkprune.files import write_json
        from sinkprune.runs import diagnosing
        from sinkprune.runs.work_folder import identity, is_run_of, remove_root
        from sinkprune_core.calibration.text import Calibration

        streamed = is_to_be_streamed(stream, work, usual_work)
        lm, texts = common.model_and_texts(
            model, where, source, sequences, length, seed=seed, held_out=False, streamed=streamed
        )
        text = Calibration(torch.cat(list(texts.values())), seed, batch or DEFAULT_BATCH)

        follows_folder = bool(streamed) and not stream and work is None
        is_of_others = follows_folder and not is_run_of(usual_work, identity(lm, text))
        if is_of_others:
            lm = common.open_model(model, where, None)

    if is_of_others and not lm.is_streamed:
        say(f"{usual_work} was left by another run, and stays as it is")
    if not lm.is_diffusion:
        refuse(f"{lm.name} is autoregressive and sees clean text", noise_levels=noise_levels)

    folder = work
    if folder is None and lm.is_streamed:
        folder = usual_work
        say(f"{lm.name} is streamed from disk: how far the pass has come is kept in {folder} until it ends")

    with keeping("how far the pass has come is", folder or usual_work):
        found = diagnosing.diagnose(lm, text, (sparsity,), levels, sinks, work=folder)

    if json is not None:
        write_json(json, found.table.to_dict(orient="records"))
    if figure is not None:
        with common.written_already(json):
            draw(found, figure)

    print(common.described(lm))
    print(by_kind(found))
    common.explain(MEANINGS)
    print()
    say(f"Sinks are {found.left_out:.1%} of the tokens. {sentence(found, sparsity)}", sys.stdout)
    most = most_affected(found, AFFECTED)
    columns = zip(most.linear, most.layer, most.exact, strict=True)
    places = [f"{linear} of layer {layer} ({share:.2%})" for linear, layer, share in columns]
    say(f"Most affected: {', '.join(places)}.", sys.stdout)

    if work is None and folder is not None and not remove_root(folder):
        print(f"{folder} stays: it holds files of others", file=sys.stderr)


def is_to_be_streamed(stream: bool, work: Path | None, usual_work: Path) -> bool | None:
    """Return whether the model is streamed; None: where its weights take most of the free memory.

    A run that is killed goes on in its work folder the way it began, however much memory is free by now.
    """
    from sinkprune.runs.work_folder import MARKER, was_streamed

    if stream:
        return True
    if work is not None:
        return was_streamed(work)

    is_there = (usual_work / MARKER).is_file()  # a folder of others is none of a model in memory
    return was_streamed(usual_work) if is_there else None


def by_kind(found: Diagnosis) -> str:
    """Return the shares by kind of linear, means over layers, in per cent: a table of at most 40 columns."""
    from sinkprune_core.pruning.diagnosis import weighted_mean

    grouped = found.table.groupby("kind", sort=False)
    table = grouped[[*COLUMNS, "weights"]].apply(weighted_mean)

    rows = [("", *COLUMNS.values())]
    for kind, row in table.iterrows():
        rows.append((str(kind), *(f"{row[name]:.2%}" for name in COLUMNS)))
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    lines = []
    for kind, *shares in rows:
        cells = [f"{share:>{width}}" for share, width in zip(shares, widths, strict=True)]
        lines.append(" ".join([f"{kind:<{first}}", *cells]))
    return "\n".join(lines)


def most_affected(found: Diagnosis, count: int) -> pd.DataFrame:
    """Return the linears whose kept weights change most."""
    return found.table.sort_values("exact", ascending=False, kind="stable").head(count)


def affected(found: Diagnosis) -> pd.DataFrame:
    """Return the linears where leaving sinks out exchanges more weights than other text does.

    Changes below SMALLEST_BY_CONVENTION of the kept weights do not count.
    """
    from sinkprune_core.pruning.diagnosis import SMALLEST_BY_CONVENTION

    is_more = found.table.exact > found.table.other_text.clip(lower=SMALLEST_BY_CONVENTION)
    return found.table.loc[is_more]


def sentence(found: Diagnosis, sparsity: float) -> str:
    """Return what follows for pruning at the sparsity of a diagnosis, in one sentence."""
    row = found.overall().loc[sparsity]
    says = f"At {sparsity:.0%} leaving sinks out changes {row.exact:.2%} of the kept weights"
    beside = f"another draw of calibration text {row.other_text:.2%}"
    if not found.expect_an_effect(sparsity):
        return f"{says}, {beside}: do not expect it to matter."

    kinds = affected(found).groupby("kind", sort=False).layer
    places = "; ".join(f"{kind} of layers {_ranges(layers)}" for kind, layers in kinds)
    return f"{says}, {beside}: it can matter, most in {places}."


def _ranges(layers: Sequence[int]) -> str:
    """Return numbers in words, neighbours together: 9 to 11, 28."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])

    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)


def draw(found: Diagnosis, file: Path) -> None:
    """Draw the sinks' share of energy into a file; no window is opened, whatever MPLBACKEND says."""
    os.environ["MPLBACKEND"] = "agg"

    from sinkprune.figures.energy import plot_energy
    from sinkprune.files import atomic

    figure = plot_energy(found.table, f"{found.model}: the share of every input's energy that sinks hold")
    with atomic(file) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight")

"""`sinkprune diagnose`: can leaving sinks out matter in a model? Said from one pass, before it is pruned."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from sinkprune.cli.commands import diagnose as commands
from sinkprune.cli.commands.diagnose import MEANINGS
from sinkprune.cli.common import (
    WAYS_OUT,
    described,
    model_and_texts,
    open_model,
    planned,
    print_table,
    say_needs,
    settle_device,
)
from sinkprune.cli.help_pages import say
from sinkprune.files import atomic, write_json
from sinkprune.runs.diagnosing import diagnose
from sinkprune.runs.memory_and_disk import lacks, pruning_needs
from sinkprune.runs.resume import STATE, identity, read_identity, remove_root
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.diagnosis import SMALLEST_BY_CONVENTION, Diagnosis, weighted_mean
from sinkprune_core.pruning.recipe import Recipe

AFFECTED = 5  # linears that are named


def run(options: commands.Diagnose) -> None:
    """Diagnose a model, print the table by kind of linear, the linears that change most, and one sentence."""
    settle_device(options)
    if options.dry_run:
        plan(options)
        return

    lm, calibration = model_and_calibration(options)
    if not lm.is_diffusion:
        options.refuse(("noise_levels",), f"{lm.name} is autoregressive and sees clean text")

    work = options.work
    if work is None and lm.is_streamed:
        work = options.usual_work
        say(f"{lm.name} is streamed from disk: how far the pass has come is kept in {work} until it ends")
    found = diagnose(lm, calibration, (options.sparsity,), options.noise_levels, options.sinks, work=work)

    if options.json is not None:
        write_json(options.json, found.table.to_dict(orient="records"))
    if options.figure is not None:
        draw(found, options.figure)

    print_table(by_kind(found), None, MEANINGS, described(lm))
    print()
    say(f"Sinks are {found.left_out:.1%} of the tokens. {sentence(found, options.sparsity)}", sys.stdout)
    most = most_affected(found, AFFECTED)
    columns = zip(most.linear, most.layer, most.exact, strict=True)
    places = [f"{linear} of layer {layer} ({share:.2%})" for linear, layer, share in columns]
    say(f"Most affected: {', '.join(places)}.", sys.stdout)

    if options.work is None and work is not None and not remove_root(work):
        print(f"{work} stays: it holds files of others", file=sys.stderr)


def plan(options: commands.Diagnose) -> None:
    """Say what a diagnosis takes, and what this machine lacks for it, from shapes alone."""
    lm, calibration = planned(options, options.sequences)
    inputs = "noised" if lm.is_diffusion else "clean"
    recipe = Recipe(
        inputs=inputs, propagation="dense", noise_levels=options.noise_levels, exclude=options.sinks
    )

    in_work_folder = options.work is not None or lm.is_streamed
    needed = pruning_needs(lm, recipe, calibration, in_work_folder, is_saved=False)
    say_needs(lm, options.device, "diagnosis", needed)

    work = options.work or options.usual_work
    for lack in lacks(needed, options.device, work, work, WAYS_OUT):
        say(lack)


def model_and_calibration(options: commands.Diagnose) -> tuple[LanguageModel, Calibration]:
    """Return the model and its text; a folder that was left by a run of another text streams nothing."""
    streamed = is_to_be_streamed(options)
    lm, texts = model_and_texts(options, options.sequences, options.length, held_out=False, streamed=streamed)
    calibration = Calibration(torch.cat(list(texts.values())), options.seed, options.batch)

    follows_folder = streamed and not options.stream and options.work is None
    if follows_folder and read_identity(options.usual_work) != identity(lm, calibration):
        lm = open_model(options, options.model, None)
        if not lm.is_streamed:
            say(f"{options.usual_work} was left by another run, and stays as it is")

    return lm, calibration


def is_to_be_streamed(options: commands.Diagnose) -> bool | None:
    """Return whether the model is streamed; None: where its weights take most of the free memory.

    A run that is killed goes on in its work folder the way it began, however much memory is free by now.
    """
    if options.stream:
        return True
    if options.work is not None:
        return read_identity(options.work).get("streamed")

    is_there = (options.usual_work / STATE).is_file()  # a folder of others is none of a model in memory
    return read_identity(options.usual_work).get("streamed") if is_there else None


def by_kind(found: Diagnosis) -> pd.DataFrame:
    """Return the shares by kind of linear, means over layers, as they are printed."""
    table = found.table.rename(columns={"other_text": "other text"})
    grouped = table.groupby("kind", sort=False)
    return pd.DataFrame(grouped[[*MEANINGS, "weights"]].apply(weighted_mean))


def most_affected(found: Diagnosis, count: int) -> pd.DataFrame:
    """Return the linears whose kept weights change most."""
    return found.table.sort_values("exact", ascending=False, kind="stable").head(count)


def affected(found: Diagnosis) -> pd.DataFrame:
    """Return the linears where leaving sinks out exchanges more weights than other text does.

    Changes below SMALLEST_BY_CONVENTION of the kept weights do not count.
    """
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

    figure = plot_energy(found.table, f"{found.model}: the share of every input's energy that sinks hold")
    with atomic(file) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight")

"""`sinkprune trace`: write from prompts, record attention at every step, and print how much sinks move."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from sinkprune.cli.commands import trace as commands
from sinkprune.cli.commands.trace import MEANINGS, SHARES
from sinkprune.cli.common import described, estimate, model_and_texts, print_table, settle_device
from sinkprune.cli.help_pages import say
from sinkprune.evaluation.numbers import percent
from sinkprune.files import atomic
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.sinks.detection import variability
from sinkprune_core.sinks.trace import Trace, trace


def run(options: commands.Trace) -> None:
    """Trace a model, print the table of sink statistics, explain it, and say what to read first."""
    try:
        sampler = Sampler(options.tokens, options.steps, options.block)
    except ValueError as error:
        raise ValueError(f"--tokens, --steps and --block do not fit: {error}; take others") from None
    sampler = replace(sampler, temperature=options.temperature)

    settle_device(options)
    lm, prompts_by_source = model_and_texts(options, options.sequences, options.prompt, held_out=True)
    if not lm.is_diffusion:
        options.refuse(("block",), f"{lm.name} is autoregressive and writes token by token")

    prompts_NT = torch.cat(list(prompts_by_source.values()))
    traced = trace(lm, prompts_NT, sampler, options.seed, options.batch)
    if options.out is not None:
        with atomic(options.out) as partial:
            traced.save(partial)

    if options.figure is not None:
        draw(lm, traced, Path(options.model).name, options.figure)

    measures = variability(traced.mass_BSK, traced.visible_SK).drop(columns="prompt")
    estimates = {name: estimate(values, name in SHARES) for name, values in measures.items()}
    table = pd.DataFrame(estimates).T
    print_table(table, options.json, MEANINGS, described(lm))
    if options.figure is not None:
        print(f"\n{options.figure}: attention of the first prompt by token and step; red rings are sinks")

    print()
    say(
        f"Read overlap first: of the sinks of two consecutive steps "
        f"{percent(table.loc['overlap', 'value'])} are the same (100 % where none moves).",
        sys.stdout,
    )


def draw(lm: LanguageModel, traced: Trace, name: str, file: Path) -> None:
    """Draw the trace of the first prompt into a file; no window is opened, whatever MPLBACKEND says."""
    os.environ["MPLBACKEND"] = "agg"

    from sinkprune.figures.trajectories import panel, plot_sink_positions

    figure = plot_sink_positions([panel(lm, traced, 0, f"{name}, {lm.kind}")])
    with atomic(file) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight")

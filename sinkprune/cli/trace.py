"""`sinkprune trace`: write from prompts, record attention at every step, and print how much sinks move."""

from pathlib import Path

import pandas as pd
import torch

from sinkprune.cli.common import estimate, model_and_texts, print_table, settle_device
from sinkprune.cli.options import COMMANDS, Options
from sinkprune.evaluation.numbers import percent
from sinkprune.figures.trajectories import panel, plot_sink_positions
from sinkprune.files import atomic
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.sinks.detection import variability
from sinkprune_core.sinks.trace import trace


def run(options: Options) -> None:
    """Trace a model, print the table of sink statistics, explain it, and say what to read first."""
    try:
        sampler = Sampler(options.tokens, options.steps, options.block, temperature=options.temperature)
    except ValueError as error:
        raise ValueError(f"--tokens, --steps and --block do not fit: {error}; take others") from None
    settle_device(options)
    lm, prompts_by_source = model_and_texts(options, options.prompt, held_out=True)
    if not lm.is_diffusion:
        options.refuse(("block",), f"{lm.name} is autoregressive and writes token by token")
    prompts_NT = torch.cat(list(prompts_by_source.values()))
    traced = trace(lm, prompts_NT, sampler, options.seed, options.batch)
    if options.out is not None:
        with atomic(options.out) as partial:
            traced.save(partial)
    if options.figure is not None:
        figure = plot_sink_positions([panel(lm, traced, 0, f"{Path(options.model).name}, {lm.kind}")])
        with atomic(options.figure) as partial:
            figure.savefig(partial, dpi=150, bbox_inches="tight")
    measures = variability(traced.mass_BSK, traced.visible_SK).drop(columns="prompt")
    estimates = pd.DataFrame({name: estimate(values) for name, values in measures.items()}).T
    print_table(estimates, options.json, COMMANDS["trace"]["meanings"])
    if options.figure is not None:
        print(f"\n{options.figure}: attention of the first prompt by token and step; red rings are sinks")
    print(
        f"\nRead overlap first: of the sinks of two consecutive steps "
        f"{percent(estimates.loc['overlap', 'value'])} are the same (100 % where none moves)."
    )

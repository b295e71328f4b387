"""`sinkprune trace`: write from prompts, record attention at every step, and print how much sinks move."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, PositiveInt
from cyclopts.validators import Number

from sinkprune.cli.options import (
    ANY,
    AT,
    DEFAULT_BATCH,
    Batch,
    Model,
    NewPath,
    Picture,
    Seed,
    SourceOptions,
    WhereOptions,
    refuse,
)
from sinkprune.cli.screen import loading, say

if TYPE_CHECKING:
    from sinkprune_core.language_model import LanguageModel
    from sinkprune_core.sinks.trace import Trace

MEANINGS = {
    "spatial_variance": "how unevenly attention falls on positions: variance of mass, whose mean is 1",
    "temporal_variance": "how far the centre of the sinks moves: variance over steps, in squared positions",
    "temporal_variance_relative": "temporal_variance with positions as shares of the length",
    "centroid_jump": "mean distance between the centres of two consecutive steps, as a share of the length",
    "overlap": "sinks that two consecutive steps share, of the sinks of either (Jaccard): 1 where none moves",
    "sinks_per_step": "mean number of sinks of a step",
    "positions": "number of positions that are a sink at any step",
    "stable_share": "share of sinks at positions that are a sink in at least 80 % of all steps",
    "top_share": "share of all attention that the strongest position gets, mean over the steps",
    "value": "mean over the prompts; low and high are its 95 % interval",
}
SHARES = ("overlap", "stable_share", "top_share")  # rows whose values lie in [0, 1]


def trace(
    model: Model,
    /,
    *,
    sequences: Annotated[PositiveInt, Parameter(help="prompts")] = 8,
    prompt: Annotated[int, Parameter(help="tokens per prompt", validator=Number(gte=2))] = 32,
    tokens: Annotated[PositiveInt, Parameter(help="tokens to write")] = 64,
    steps: Annotated[
        PositiveInt, Parameter(help="denoising steps; of an autoregressive model windows of queries")
    ] = 32,
    block: Annotated[
        PositiveInt | None,
        Parameter(help="tokens per block; blocks are written one after the other", show_default="one block"),
    ] = None,
    temperature: Annotated[NonNegativeFloat, Parameter(help="0 takes the most probable token")] = 0.0,
    seed: Seed = 0,
    out: Annotated[NewPath, Parameter(help="where the trace goes (safetensors)")] = None,
    figure: Annotated[
        Picture,
        Parameter(
            help="where a picture of the first prompt's trace goes: attention by token and step, sinks ringed"
        ),
    ] = None,
    json: Annotated[NewPath, Parameter(help="where the table goes besides")] = None,
    batch: Batch = None,
    source: SourceOptions = ANY,
    where: WhereOptions = AT,
) -> None:
    """Write from prompts, and print how much attention sinks move."""
    with loading(model):
        import pandas as pd
        import torch

        from sinkprune.cli import common
        from sinkprune.evaluation.numbers import percent
        from sinkprune.files import atomic
        from sinkprune_core.diffusion.samplers import Sampler
        from sinkprune_core.sinks import trace as tracing
        from sinkprune_core.sinks.detection import variability

        try:
            sampler = Sampler(tokens, steps, block)
        except ValueError as error:
            raise ValueError(f"--tokens, --steps and --block do not fit: {error}") from None
        sampler = replace(sampler, temperature=temperature)

        lm, prompts_by_source = common.model_and_texts(
            model, where, source, sequences, prompt, seed=seed, held_out=True
        )

    if not lm.is_diffusion:
        refuse(f"{lm.name} is autoregressive and writes token by token", block=block)

    prompts_NT = torch.cat(list(prompts_by_source.values()))
    traced = tracing.trace(lm, prompts_NT, sampler, seed, batch or DEFAULT_BATCH)
    if out is not None:
        with atomic(out) as partial:
            traced.save(partial)

    measures = variability(traced.mass_BSK, traced.visible_SK).drop(columns="prompt")
    estimates = {name: common.estimate(values, name in SHARES) for name, values in measures.items()}
    table = pd.DataFrame(estimates).T
    common.write_rows(table, json)
    if figure is not None:
        with common.written_already(out, json):
            draw(lm, traced, Path(model).name, figure)

    common.print_table(table, common.described(lm))
    common.explain(MEANINGS)
    if figure is not None:
        print(f"\n{figure}: attention of the first prompt by token and step; red rings are sinks")

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
    from sinkprune.files import atomic

    figure = plot_sink_positions([panel(lm, traced, 0, f"{name}, {lm.kind}")])
    with atomic(file) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight")

"""`sinkprune trace`: write from prompts, record attention at every step, and print how much sinks move."""

import argparse
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.cli.model_options import ModelOptions, add_model_options, check_model_name
from sinkprune_companion.cli.options import add_number, new_files, real, whole

if TYPE_CHECKING:
    from sinkprune_core.models.language_model import LanguageModel
    from sinkprune_core.sinks.trace import Trace

SUMMARY = "write from prompts, record where attention goes step by step, and print how much sinks move"
PICTURES = (".png", ".pdf", ".svg")  # endings of --figure
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


@dataclass(frozen=True, kw_only=True)
class TraceOptions(ModelOptions):
    """The options of `sinkprune trace`."""

    sequences: int = whole(8, least=1)
    prompt: int = whole(32, least=2)
    tokens: int = whole(64, least=1)
    steps: int = whole(32, least=1)
    block: int | None = whole(None, least=1)
    temperature: float = real(0.0, least=0)
    out: Path | None = None
    json: Path | None = None
    figure: Path | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.steps > self.tokens:
            raise ValueError(
                f"--steps {self.steps} exceeds --tokens {self.tokens}: a step writes at least one token; "
                "take fewer steps or more tokens"
            )
        if self.block is not None:
            self._check_block(self.block)
        self._check_names()

    def _check_names(self) -> None:
        for one, other in combinations(("out", "json", "figure"), 2):
            file = getattr(self, one)
            if file is not None and file == getattr(self, other):
                raise ValueError(f"--{one} and --{other} are both {file}: they are two files, give two names")
        if self.figure is not None and self.figure.suffix not in PICTURES:
            raise ValueError(
                f"--figure {self.figure} must end in one of {', '.join(PICTURES)}: the ending says how it is "
                "written"
            )

    def _check_block(self, block: int) -> None:
        if self.tokens % block:
            raise ValueError(
                f"--block {block} does not divide --tokens {self.tokens}: take a length that does"
            )
        blocks = self.tokens // block
        if self.steps % blocks:
            raise ValueError(
                f"--steps {self.steps} cannot be shared by {blocks} blocks of {block} tokens: "
                f"take a multiple of {blocks}"
            )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `TraceOptions`."""
    add_model_options(parser, TraceOptions)
    add_number(parser, TraceOptions, "sequences", "prompts")
    add_number(parser, TraceOptions, "prompt", "tokens per prompt")
    add_number(parser, TraceOptions, "tokens", "tokens to write")
    add_number(
        parser, TraceOptions, "steps", "denoising steps; of an autoregressive model windows of queries"
    )
    add_number(
        parser,
        TraceOptions,
        "block",
        "tokens per block; blocks are written one after the other",
        "one block",
    )
    add_number(parser, TraceOptions, "temperature", "0 takes the most probable token")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the trace goes (safetensors)")
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE.png",
        help="where a picture of the first prompt's trace goes: attention by token and step, sinks ringed",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the table goes besides")


def run(options: TraceOptions) -> int:
    """Trace a model, print the table of sink statistics and explain it."""
    check_model_name(options.model)
    options.check_text()
    with new_files(out=options.out, json=options.json, figure=options.figure):
        return trace_and_write(options)


def trace_and_write(options: TraceOptions) -> int:
    """Do what `run` says, with outputs that are held."""
    import pandas as pd
    import torch

    from sinkprune_companion.cli.inputs import documents_of, on_device, open_model, sequences_of
    from sinkprune_companion.cli.tables import estimate, print_table
    from sinkprune_core.diffusion.samplers import Sampler
    from sinkprune_core.sinks.detection import variability
    from sinkprune_core.sinks.trace import trace

    options = on_device(options)
    documents = documents_of(options, held_out=True)
    lm = open_model(options)
    if not lm.is_diffusion:
        options.refuse(("block",), f"{lm.name} is autoregressive and writes token by token")
    sources = sequences_of(lm, options, documents, options.prompt, held_out=True)
    sampler = Sampler(
        length=options.tokens,
        steps=options.steps,
        block=options.block,
        temperature=options.temperature,
    )
    found = trace(lm, torch.cat(list(sources.values())), sampler, options.seed, options.batch)
    if options.out is not None:
        found.save(options.out)
    if options.figure is not None:
        draw(lm, found, Path(options.model).name, options.figure)
    measures = variability(found.mass_BSK, found.visible_SK).drop(columns="prompt")
    rows = {name: estimate(measures[name]) for name in measures.columns}
    print_table(pd.DataFrame(rows).T, options.json)
    print()
    for name, meaning in MEANINGS.items():
        print(f"{name:<27} {meaning}")
    if options.figure is not None:
        print(f"\n{options.figure}: attention of the first prompt by token and step; red rings are sinks")
    return 0


def draw(lm: "LanguageModel", found: "Trace", name: str, file: Path) -> None:
    """Write the picture of the first prompt's trace; `name` is what it calls the model."""
    from sinkprune_companion.figures.trajectories import panel, plot_sink_positions
    from sinkprune_core.files import atomic

    kind = "diffusion" if lm.is_diffusion else "autoregressive"
    figure = plot_sink_positions([panel(lm, found, 0, f"{name}, {kind}")])
    with atomic(file) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight")


def kept(options: TraceOptions) -> str:
    """Return what an interrupted run leaves."""
    return "nothing was written, and the same command begins anew"

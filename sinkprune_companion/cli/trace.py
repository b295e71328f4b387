"""`sinkprune trace`: write from prompts, record attention at every step, and print how much sinks move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sinkprune_companion.cli.model_options import ModelOptions
from sinkprune_companion.cli.options import path, real, whole

if TYPE_CHECKING:
    from sinkprune_core.diffusion.samplers import Sampler

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

    sequences: int = whole(8, "prompts", least=1)
    prompt: int = whole(32, "tokens per prompt", least=2)
    tokens: int = whole(64, "tokens to write", least=1)
    steps: int = whole(32, "denoising steps; of an autoregressive model windows of queries", least=1)
    block: int | None = whole(
        None, "tokens per block; blocks are written one after the other", least=1, stated="one block"
    )
    temperature: float = real(0.0, "0 takes the most probable token", "of at least 0")
    out: Path | None = path("where the trace goes (safetensors)")
    figure: Path | None = path(
        "where a picture of the first prompt's trace goes: attention by token and step, sinks ringed",
        "FILE.png",
    )
    json: Path | None = path("where the table goes besides")

    outputs = ("out", "figure", "json")

    def __post_init__(self):
        super().__post_init__()
        if self.figure is not None and self.figure.suffix not in PICTURES:
            raise ValueError(
                f"--figure {self.figure} must end in one of {', '.join(PICTURES)}: the ending says how it is "
                "written"
            )

    @property
    def sampler(self) -> Sampler:
        """How the model writes; raises ValueError for steps and blocks that do not fit the tokens."""
        from sinkprune_core.diffusion.samplers import Sampler  # seconds of imports, which help does without

        try:
            return Sampler(self.tokens, self.steps, self.block, temperature=self.temperature)
        except ValueError as error:
            raise ValueError(f"--tokens, --steps and --block do not fit: {error}; take others") from None

    def check_inputs(self) -> None:
        """Raise an error for a `--text` or a model that is not there, and for a sampler that cannot be."""
        _ = self.sampler
        super().check_inputs()


def run(options: TraceOptions) -> int:
    """Trace a model, print the table of sink statistics, explain it, and say what to read first."""
    import pandas as pd
    import torch

    from sinkprune_companion.cli.inputs import model_and_texts, on_device
    from sinkprune_companion.cli.tables import estimate, print_table
    from sinkprune_companion.figures.trajectories import panel, plot_sink_positions
    from sinkprune_core.files import atomic
    from sinkprune_core.sinks.detection import variability
    from sinkprune_core.sinks.trace import trace

    options = on_device(options)
    lm, prompts_by_source = model_and_texts(options, options.prompt, held_out=True)
    if not lm.is_diffusion:
        options.refuse(("block",), f"{lm.name} is autoregressive and writes token by token")
    prompts_NT = torch.cat(list(prompts_by_source.values()))
    traced = trace(lm, prompts_NT, options.sampler, options.seed, options.batch)
    if options.out is not None:
        traced.save(options.out)
    if options.figure is not None:
        figure = plot_sink_positions([panel(lm, traced, 0, f"{Path(options.model).name}, {lm.kind}")])
        with atomic(options.figure) as partial:
            figure.savefig(partial, dpi=150, bbox_inches="tight")
    measures = variability(traced.mass_BSK, traced.visible_SK).drop(columns="prompt")
    estimates = pd.DataFrame({name: estimate(values) for name, values in measures.items()}).T
    print_table(estimates, options.json, MEANINGS)
    if options.figure is not None:
        print(f"\n{options.figure}: attention of the first prompt by token and step; red rings are sinks")
    print(
        f"\nRead overlap first: of the sinks of two consecutive steps "
        f"{estimates.loc['overlap', 'value']:.0%} are the same (100 % where none moves)."
    )
    return 0

# %%
"""A notebook in small: a model, a trace, a table, a figure, findings. Its results go below `runs`."""

from pathlib import Path

import torch

from sinkprune import Sampler, Trace, load, nelbo, trace
from sinkprune.evaluation.intervals import interval
from sinkprune_companion.experiments.parameters import start
from sinkprune_companion.figures import figures

# %% tags=["parameters"]
profile: str = "tiny"  # names the folder of results
model: str = "llada"  # a diffusion model
draws: int = 2  # masks of every sequence

# %%
run = start("study", globals())
lm = load(model)
ids_NT = torch.tensor(lm.tokenizer(Path("text.txt").read_text())["input_ids"])[:48].view(4, 12)
sampler = Sampler(length=6, steps=3, block=None)

# %%
traced = run.artifact(
    "trace",
    Trace,
    lambda: trace(lm, ids_NT[:2], sampler, progress=False),
    model=lm.fingerprint(),
    sampler=sampler,
)
scores = [
    run.record(
        "nelbo",
        lambda seed=seed: nelbo(lm, ids_NT, draws=1, seed=seed),
        model=lm.fingerprint(),
        seed=seed,
    )
    for seed in range(draws)
]

# %%
table = scores[0].assign(kind="first")
drawn = figures.plot_curves(table, "sequence", "value", "kind", {"sequence": "text", "value": "nats"})
figures.save_figure(run, drawn, "scores", table, "the score of every text")
run.find({"nelbo": interval(table.value), "mass": interval(traced.mass_BSK.flatten().tolist())})

# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Do attention sinks move more in diffusion language models?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sinkprune/sinkprune/blob/v0.1.0/notebooks/01_sink_variance.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/sinkprune/sinkprune/v0.1.0?urlpath=lab/tree/notebooks/01_sink_variance.ipynb)
#
# **Question.** While a text is generated, do the tokens that soak up attention stay where they
# are, or do they move? The paper says: they stay in autoregressive (AR) models and move in
# diffusion language models (DLMs).
#
# | profile | time on 2 cores | peak memory |
# |---|---|---|
# | quick | about 1.5 minutes | 1.4 GB |
# | full | about 7 core-minutes | 1.6 GB a job |
#
# Everything here is measured on states that a sampler really visits, on a matched pair: the same
# base weights, tokenizer and architecture, one causal, one bidirectional.

# %% [markdown]
# **Parameters.** papermill replaces them (`papermill --help-notebook
# notebooks/01_sink_variance.ipynb`).

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model: a name of the table of models or a saved folder
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on the same text
base: str = "smol-ar"  # what both were trained from, reported beside them
prompts: int = 12  # held-out prompts, half samples of the AR model, half documentation
prompt_length: int = 32  # tokens of each prompt
length: int = 96  # tokens to generate
steps: int = 48  # denoising steps; the AR model's queries are cut into as many windows
temperature: float = 1.0  # 1 samples from the model; 0 is greedy, where a young DLM repeats itself
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
stability_threshold: float = 0.8  # a position that is a sink in this share of steps is stable
seed: int = 0  # of the choice of prompts and of the samplers
dtype: str = "bfloat16"  # of the weights

# %% [markdown]
# **Set-up.** Installs the package where it is missing (Colab), checks the parameters before any
# work, and says where results go.

# %% tags=["setup"]
import subprocess
import sys
from importlib.util import find_spec

if find_spec("sinkprune_core") is None:  # a place that has only this notebook, such as Colab
    source = "sinkprune @ git+https://github.com/sinkprune/sinkprune@v0.1.0"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", source])
from sinkprune_core.companion.parameters import start

run = start("01_sink_variance", globals())

# %% [markdown]
# ## The claim
#
# > the attention-sink position exhibits substantially higher variance over the full generation
# > trajectory (measured by how the dominant sink locations shift across timesteps), indicating
# > that sinks are often transient and less structurally essential than in AR models. (abstract)
#
# **What would falsify it.** On the same prompts: a difference DLM − AR in temporal variance whose
# interval reaches zero; sink sets of consecutive steps that overlap as much in the DLM as in the
# AR model; or sinks of the DLM that mostly sit at positions which are sinks in at least 80 % of
# all steps.
#
# ## The experiment
#
# A *step* of the DLM is a denoising step: every query runs again. In a causal model a query runs
# once, when its token is the newest, so a step is a window of consecutive queries; both models get
# as many steps. *Attention mass* of a key is the sum of the attention it receives, over the share
# it would get if attention were even: 1 is even. A *sink* is a key whose mass, averaged over
# layers and heads, exceeds mean + 2 standard deviations over the sequence, as in the official
# code. Two samplers: LLaDA's (blocks, most confident first) and Dream's (no blocks, lowest entropy
# first).

# %%
from sinkprune_core import corpus
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.models.loading import load

SAMPLERS = {
    "LLaDA's sampler": Sampler(
        length,
        steps,
        block=length // 3,
        order="low_confidence",
        schedule="even",
        temperature=temperature,
    ),
    "Dream's sampler": Sampler(
        length, steps, block=None, order="entropy", schedule="time", temperature=temperature
    ),
}
models = {"diffusion": load(model, dtype), "autoregressive": load(twin, dtype)}
for kind, lm in models.items():
    if lm.kind != kind:
        raise ValueError(
            f"{lm.name} is {lm.kind}; the parameter "
            f"`{'model' if kind == 'diffusion' else 'twin'}` needs a {kind} model"
        )
texts = corpus.texts(
    models["diffusion"].tokenizer, prompts, prompt_length, held_out=True, seed=seed
)

# %% [markdown]
# Generate from every prompt and record attention at every step. Traces are records: computed once,
# read ever after.

# %%
import torch
from sinkprune_core.sinks.trace import Trace, cumulative, trace

prompt_BT = torch.cat(list(texts.values()))


def traced(lm, sampler: Sampler) -> Trace:
    return run.artifact(
        f"trace-{lm.kind}",
        Trace,
        lambda: trace(lm, prompt_BT, sampler, seed, batch=6),
        model=lm.fingerprint(),
        sampler=sampler,
        prompts=prompt_BT.tolist(),
        seed=seed,
    )


causal = traced(models["autoregressive"], SAMPLERS["LLaDA's sampler"])
traces = {
    ("diffusion", name): traced(models["diffusion"], sampler) for name, sampler in SAMPLERS.items()
}
for lm in models.values():
    lm.model.to("meta")  # only their tokenizers are needed from here on: the base gets their room
original = traced(load(base, dtype), SAMPLERS["LLaDA's sampler"])
traces |= {
    ("autoregressive", "window of queries"): causal,
    ("autoregressive", "all queries so far"): cumulative(causal),
    ("autoregressive", "window, the base"): original,
}

# %% [markdown]
# ## The figure: where attention goes, step by step
#
# One prompt, the two models. Every column is a token, every row a step; bright columns receive
# many times their even share, rings mark sinks. A stable anchor is a column ringed from top to
# bottom. Tokens with much attention are named.

# %%
from sinkprune_core.companion import figures, sink_figures, style, trajectories


def panel(kind: str, how: str, prompt: int) -> dict:
    one, tokenizer = traces[kind, how], models[kind].tokenizer
    seen = {
        "profile_SK": one.profile_BSK[prompt].numpy(),
        "visible_SK": one.visible_SK.numpy(),
        "sinks_SK": one.sinks(sink_std)[prompt].numpy(),
    }
    states = [
        [
            "" if token == models[kind].mask_token_id else label
            for token, label in zip(state, trajectories.token_labels(tokenizer, state), strict=True)
        ]
        for state in one.ids_BSK[prompt].tolist()
    ]
    return {
        "title": f"{style.KIND[kind].name} ({models[kind].name}, {how})",
        "labels": trajectories.token_labels(tokenizer, one.final_BK[prompt]),
        "states_SK": states,
        "prompt_length": one.prompt_length,
        **seen,
    }


panels = [panel("diffusion", "LLaDA's sampler", 0), panel("autoregressive", "window of queries", 0)]
figures.save_figure(
    run,
    trajectories.plot_sink_positions(panels),
    "sink_positions",
    trajectories.positions_table(panels),
    "attention received per key position and step, one prompt",
)

# %% [markdown]
# The same one step at a time, in reading order: move the slider and watch the text being written.
# Empty cells are masks, grey ones do not exist yet, red frames mark sinks. Without a kernel there
# is no slider, only the picture of the last step.

# %%
from IPython.display import display

last = trajectories.positions_table(panels).query("step == @steps - 1")
display(
    figures.save_figure(
        run,
        trajectories.plot_writing(panels, steps - 1),
        "writing",
        last,
        "the text and its sinks at the last step, one prompt",
    ),
    trajectories.step_slider(panels),
)

# %% [markdown]
# ![All steps in turn: the diffusion model fills in masks while its sinks move, the autoregressive model appends tokens](../figures/01_sink_variance/sink_positions.gif)
#
# All steps in turn, as a file beside the figure above.

# %%
shown = sorted({*range(0, steps, -(-steps // 24)), steps - 1})  # 24 frames at most
animation = trajectories.save_animation(
    run, (trajectories.plot_writing(panels, step) for step in shown), "sink_positions"
)
print(f"{animation.name}: {len(shown)} frames, {animation.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# The same for another kind of text, with Dream's sampler.

# %%
panels = [
    panel("diffusion", "Dream's sampler", -1),
    panel("autoregressive", "all queries so far", -1),
]
figures.save_figure(
    run,
    trajectories.plot_sink_positions(panels),
    "sink_positions_dream",
    trajectories.positions_table(panels),
    "attention received per key position and step, another prompt, Dream's sampler; the AR steps "
    "see all queries so far",
)

# %% [markdown]
# ## All prompts
#
# The published measures are the spatial variance of mean mass, $\mathrm{Var}_i(\overline{m}_i)$,
# and the temporal variance of the sink centroid, $\mathrm{Var}_t(c_t)$, which is in squared
# positions and stays unmoved when two sinks swap. A key's mean runs over the steps that can see
# it. Beside them: the same over length, the overlap of consecutive sink sets, the share of stable
# sinks, and how many sinks there are.

# %%
import pandas as pd
from sinkprune_core.sinks import detection


def statistics(one: Trace) -> pd.DataFrame:
    return detection.variability(one.profile_BSK, one.visible_SK, sink_std, stability_threshold)


table = pd.concat(
    [statistics(one).assign(kind=kind, how=how) for (kind, how), one in traces.items()],
    ignore_index=True,
)
METRICS = {
    "temporal_variance": "temporal variance (positions²)",
    "temporal_variance_relative": "the same of position / length",
    "overlap": "overlap of consecutive sink sets",
    "stable_share": "share of stable sinks",
    "spatial_variance": "spatial variance (even shares²)",
    "sinks_per_step": "sinks per step",
    "positions": "distinct sink positions",
    "top_share": "attention to the strongest key",
}
main = table[table.how.isin(["LLaDA's sampler", "window of queries"])]
figures.save_figure(
    run,
    sink_figures.plot_variability(main, METRICS),
    "variability",
    table,
    "sink statistics per prompt, mean and 95 % bootstrap interval",
)

# %% [markdown]
# The means for every reading of a step, and for the base before any training. If a verdict hung on
# how a causal step is defined, or on the training of the twin, the rows of the AR model would
# differ.

# %%
table.groupby(["kind", "how"], sort=False)[list(METRICS)].mean().round(3)

# %% [markdown]
# ## Layer by layer
#
# The sink profile above averages over layers. Here every layer has its own sinks.

# %%
rows = []
for kind, how in [("diffusion", "LLaDA's sampler"), ("autoregressive", "window of queries")]:
    one = traces[kind, how]
    for layer in range(one.layers_BSLK.shape[2]):
        rows.append(
            detection.variability(
                one.layers_BSLK[:, :, layer], one.visible_SK, sink_std, stability_threshold
            ).assign(layer=layer, kind=kind)
        )
layers = pd.concat(rows, ignore_index=True)
labels = {
    "overlap": "overlap of consecutive sink sets",
    "stable_share": "share of stable sinks",
    "top_share": "attention to the strongest key",
}
figures.save_figure(
    run,
    sink_figures.plot_layers(layers, labels),
    "layers",
    layers,
    "sink statistics by layer; bands are 95 % bootstrap intervals over prompts",
)

# %% [markdown]
# And head by head, for the first prompt: how much attention a head gives to its strongest key,
# among the keys that every step sees, as a mean over steps. A key that is a sink in passing counts
# less here than an anchor.

# %%
maps = {}
for kind, how in [("diffusion", "LLaDA's sampler"), ("autoregressive", "window of queries")]:
    one = traces[kind, how]
    maps[style.KIND[kind].name] = one.heads_BLHK[0][:, :, one.visible_SK.all(0)].amax(-1).numpy()
heads = pd.concat(
    [
        pd.DataFrame(map_LH)
        .rename_axis("layer")
        .reset_index()
        .melt("layer", var_name="head", value_name="even_shares")
        .assign(kind=kind)
        for kind, map_LH in maps.items()
    ]
)
figures.save_figure(
    run,
    sink_figures.plot_heads(maps, "attention to the strongest key (1 = even share)"),
    "heads",
    heads,
    "attention to the strongest key by layer and head, mean over steps, one prompt",
)

# %% [markdown]
# ## Which tokens are sinks
#
# Persistence is the share of steps in which a position is a sink. From 0.8 upwards a sink counts
# as stable. For the DLM the token is the one that the step attends to, so it can be the mask
# token.

# %%
tokens = pd.concat(
    [
        detection.token_table(
            one.ids_BSK, one.sinks(sink_std), models[kind].tokenizer, one.visible_SK
        ).assign(kind=kind)
        for (kind, how), one in traces.items()
        if how in set(main.how)
    ]
)
tokens.groupby("kind").head(8).set_index(["kind", "token"])

# %% [markdown]
# ## The reading
#
# Computed from the table: differences are paired by prompt, intervals are bootstrap intervals over
# prompts.

# %%
from sinkprune_core.evaluation.intervals import interval, listed


def by_prompt(kind: str, metric: str):
    return main[main.kind == kind].sort_values("prompt")[metric].to_numpy()


def difference(metric: str):
    return interval(by_prompt("diffusion", metric) - by_prompt("autoregressive", metric))


found = {
    f"{metric}_difference": difference(metric)
    for metric in ("temporal_variance", "temporal_variance_relative", "overlap", "spatial_variance")
}
found |= {
    "stable_share_dlm": interval(by_prompt("diffusion", "stable_share")),
    "stable_share_ar": interval(by_prompt("autoregressive", "stable_share")),
}
before = table[table.how == "window, the base"].sort_values("prompt").temporal_variance.to_numpy()
found["temporal_variance_difference_base"] = interval(
    by_prompt("diffusion", "temporal_variance") - before
)
run.find(found)
listed(found, prompts=[estimate.units for estimate in found.values()])

# %% [markdown]
# ## The verdict

# %%
from sinkprune_core.companion import claims

claims.shown(claims.verdicts(claims.ledger(), claims.findings(run.folder), run.notebook))

# %% [markdown]
# ## Appendix: sinks while the adapter was trained
#
# The log of the adapter's training: held-out loss, by which it was chosen, and sink statistics on
# held-out text along its noise levels, which decided nothing. An older log has losses only.

# %%
from sinkprune_core.models.embedded import ADAPTER

log = pd.read_json(ADAPTER / "training_log.jsonl", lines=True)
PANELS = {
    "held-out NELBO (nats per token)": {
        "nelbo_samples": "samples of the AR model",
        "nelbo_documentation": "documentation",
    },
    "sinks per noise level": {"sinks_sinks_per_step": "sinks"},
    "share": {
        "sinks_stable_share": "stable sinks among sinks",
        "sinks_overlap": "overlap of consecutive sink sets",
        "sinks_top_share": "attention to the strongest key",
    },
}
known = log.reindex(
    columns=["tokens", *(column for columns in PANELS.values() for column in columns)]
)
figures.save_figure(
    run,
    figures.plot_training(log, PANELS),
    "training",
    known,
    "held-out loss and sink statistics along the training of the adapter",
)

# %% [markdown]
# **What this does not show.** One pair of small models (135M parameters), one length, texts of one
# kind each. The pair differs in direction and objective; its adapters have seen few tokens (the
# curve above), and not equally many. Whether a sink that moves is also *needed* less is another
# question: [notebook 02](02_hiding_sinks.ipynb) hides it and looks.

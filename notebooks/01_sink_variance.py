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
# **Question.** A few tokens, the attention sinks, receive far more attention than the rest. While a
# text is generated, do they stay where they are? The paper says: they stay in autoregressive (AR)
# models and move in diffusion language models (DLMs).
#
# Time and memory: [docs/performance.md](../docs/performance.md).
#
# All measurements are made on states that a sampler visits, on a matched pair: the same base
# weights, tokenizer and architecture, one causal, one bidirectional.

# %% [markdown]
# **Parameters**, with the values of profile quick, which *Run all* takes. papermill replaces them
# (`papermill --help-notebook notebooks/01_sink_variance.ipynb`). The first values of all lists make
# the main condition, on which verdicts rest. Every other value makes a condition that differs from
# it in this one thing.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model: a name of the table of models or a saved folder
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on the same text
base: str = "smol-ar"  # what both were trained from, reported beside them
texts: list[str] = ["natural"]  # of prompts: natural, samples, documentation, nothing
first_tokens: list[bool] = [False, True]  # whether <|endoftext|> stands before the prompt
lengths: list[int] = [64]  # tokens of the finished text
samplers: list[str] = ["llada"]  # of the diffusion model: llada, dream
prompts: int = 4  # held-out prompts of the main condition, with and without the first token
trajectories: int = 1  # of each of them
other_prompts: int = 4  # prompts of every other condition and of the null
null_seeds: int = 1  # pairs with random weights, beside which the paper's measures are read
calibration: int = 4  # calibration sequences, for the share of stable sinks where pruning looks
noise_levels: int = 8  # noise levels at which each of them is seen
prompt_length: int = 32  # tokens of each prompt
steps: int = 8  # denoising steps; the AR model's queries are cut into as many windows
temperature: float = 1.0  # 1 samples from the model; 0 is greedy, where a young DLM repeats itself
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
stability_threshold: float = 0.8  # a position that is a sink in this share of steps is stable
seed: int = 0  # of the choice of prompts and of the samplers
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** Installs the package where it is missing (Colab), checks the parameters before any
# work, and says where results go and which values a larger profile put in place of the defaults.

# %% tags=["setup"]
from importlib.util import find_spec

SOURCE = ""  # of the package, for a place that has only this notebook; `make address` writes it
if find_spec("sinkprune_core") is None:
    get_ipython().run_line_magic("pip", f"install --quiet '{SOURCE}'")
from sinkprune_companion.run.parameters import start

run = start("01_sink_variance", globals())

# %% [markdown]
# ## The claim
#
# > the attention-sink position exhibits substantially higher variance over the full generation
# > trajectory (measured by how the dominant sink locations shift across timesteps), indicating that
# > sinks are often transient and less structurally essential than in AR models. (abstract)
#
# **What would falsify it.** On the same prompts, in the main condition and by the paper's own
# measures, one of these:
#
# * the temporal variance of the sink centroid is higher in the AR model: the whole interval of DLM
#   − AR lies below zero;
# * the spatial variance is higher in the DLM: the whole interval lies above zero;
# * most sinks of the DLM are at positions that are sinks in at least 80 % of all steps.
#
# An interval that holds zero decides nothing.
#
# ## What is measured
#
# The *mass* of a key at a step is the attention it receives, $m_t(i) = \sum_j A_{j,i}$: the sum
# over all queries that exist at that step, undivided. Here it is a mean over layers and heads. The
# official code sums over layers and heads instead, which changes no sink and no position. A *sink*
# is a key whose mass exceeds the mean over all existing keys by 2 standard deviations, as in the
# official code. The paper has two measures:
#
# * the **spatial variance** of mean mass, $\mathrm{Var}_i(\overline{m}_i)$, where a key's mean runs
#   over the steps in which it exists;
# * the **temporal variance** of the sink centroid, $\mathrm{Var}_t(c_t)$, in squared positions.
#   $c_t$ is the mass-weighted mean position of the sinks of step $t$. It does not change when two
#   sinks swap.
#
# A *step* of the DLM is a denoising step, in which every query runs again. In a causal model a
# query runs once, when its token is the newest. So a step of the AR model is a window of
# consecutive queries, and both models get as many steps. The queries that exist at such a step are
# those of the prompt and of all windows so far.
#
# > **This reading favours the claim.** In a causal model each step adds a few queries to the sum
# > and takes none away. A sink that was strong once stays strong in the sum, whatever the newest
# > queries look at; the sum would settle even if queries were random. The DLM's sum starts anew at
# > every step. So the low temporal variance of the AR model is in part arithmetic. How the paper
# > divides a causal text into steps is not known here.
#
# Verdicts rest on this literal reading. All other readings are controls with findings of their own.

# %%
from dataclasses import replace

from sinkprune_companion.experiments import sink_conditions
from sinkprune_core.models.loading import load

conditions = sink_conditions.conditions(texts, first_tokens, lengths, samplers)
main = conditions[0]
models = {
    "diffusion": load(model, dtype, run.device),
    "autoregressive": load(twin, dtype, run.device),
}
prints = {name: lm.fingerprint() for name, lm in models.items()}
for condition in conditions:
    sink_conditions.sampler_of(condition, prompt_length, steps, temperature)  # all before the first
    print(f"{condition.name(main) or 'main':<16}{condition.label}")

# %% [markdown]
# Prompts are crops of held-out text that begin in the middle of a paragraph, so that no token has a
# fixed place. The models continue every prompt, and attention is recorded at every step. A trace
# keeps the prompt's queries and those of each step apart, so one trace serves all readings.

# %%
import torch
from sinkprune_core.sinks.trace import Trace, trace


def traced(lm, name: str, condition, count: int, trajectory: int = 0) -> Trace:
    if not lm.is_diffusion:  # an AR model knows no order of denoising
        condition = replace(condition, sampler="llada")
    chosen = sink_conditions.prompts(lm.tokenizer, condition, count, prompt_length, seed)
    prompt_BT = torch.cat(list(chosen.values()))
    sampler = sink_conditions.sampler_of(condition, prompt_length, steps, temperature)
    batch_tokens = 768 if lm.is_diffusion else 4096  # memory grows with them, and with logits most
    batch = max(1, batch_tokens // condition.tokens)
    return run.artifact(
        f"trace-{lm.kind}",
        Trace,
        lambda: trace(lm, prompt_BT, sampler, seed + trajectory, batch),
        model=prints[name],
        sampler=sampler,
        prompts=prompt_BT.tolist(),
        seed=seed + trajectory,
    )


# %% [markdown]
# Every condition in turn, with both models; each trace is measured under all readings.

# %%
import pandas as pd
from sinkprune_companion.experiments import sink_measures

rows = []
for condition in conditions:
    about = {"condition": condition.name(main) or "main", "what": condition.label}
    about["tokens"] = condition.tokens
    size = (condition.text, condition.tokens, condition.sampler)
    is_main = size == (main.text, main.tokens, main.sampler)  # with or without the first token
    count, times = (prompts, trajectories) if is_main else (other_prompts, 1)
    for kind, lm in models.items():
        for trajectory in range(times):
            one = traced(lm, kind, condition, count, trajectory)
            rows.append(
                sink_measures.by_reading(one, sink_std, stability_threshold, kind=kind, **about)
            )
            del one
ONE_ROW = ["condition", "what", "tokens", "kind", "reading", "label", "prompt"]  # a prompt's mean
measured = pd.concat(rows).groupby(ONE_ROW, sort=False, as_index=False).mean()
traces = {kind: traced(lm, kind, main, prompts) for kind, lm in models.items()}
for lm in models.values():
    lm.model.to("meta")  # only their tokenizers are needed from here on: the base gets their room

# %% [markdown]
# **The method in ten lines**, on one prompt of the DLM: sinks, their centroid, and the two variances.
# The library must give the same.

# %%
mass_SK = traces["diffusion"].mass_BSK[0]  # step by key; its mean over keys is 1
threshold_S = mass_SK.mean(1) + sink_std * mass_SK.std(1, correction=0)
sinks_SK = mass_SK > threshold_S[:, None]
received_SK = mass_SK * sinks_SK
received_S = received_SK.sum(1)
position_K = torch.arange(mass_SK.shape[1]).float()
centroid_S = (received_SK @ position_K / received_S)[received_S > 0]  # of steps that have a sink
variances = {
    "temporal_variance": centroid_S.var(correction=0),
    "spatial_variance": mass_SK.mean(0).var(correction=0),
}
of_library = sink_measures.by_reading(traces["diffusion"], sink_std, stability_threshold).iloc[0]
for name, value in variances.items():
    same = torch.tensor(of_library[name]).float()
    assert torch.isclose(value, same, rtol=1e-3, atol=1e-3, equal_nan=True)

# %% [markdown]
# The same for the base that both were trained from, in the main condition.

# %%
original = load(base, dtype, run.device)
prints["base"] = original.fingerprint()
base_trace = traced(original, "base", main, prompts)
measured_base = sink_measures.by_reading(
    base_trace, sink_std, stability_threshold, kind="base", condition="main"
)
_ = original.model.to("meta")

# %% [markdown]
# What is compared: DLM − AR, paired by prompt, in both measures and in the overlap of consecutive
# sink sets, in the main condition and with one thing changed. Intervals are t intervals over prompts.

# %%
from sinkprune_core.evaluation.intervals import interval
from sinkprune_core.sinks.readings import LITERAL, READINGS

WIDE = ("temporal_variance", "spatial_variance", "overlap")
literal = measured[measured.reading == LITERAL]
in_main = measured[measured.condition == "main"]
table = literal[literal.condition == "main"]
others = {name: part for name, part in in_main.groupby("reading", sort=False) if name != LITERAL}
others |= {name: part for name, part in literal.groupby("condition", sort=False) if name != "main"}
base_literal = measured_base[measured_base.reading == LITERAL].assign(kind="autoregressive")
others["base"] = pd.concat([table[table.kind == "diffusion"], base_literal])

found = {
    f"{metric}_difference": sink_measures.difference(table, metric)
    for metric in (*WIDE, "temporal_variance_relative")
}
for kind, short in (("diffusion", "dlm"), ("autoregressive", "ar")):
    found[f"stable_share_{short}"] = interval(table[table.kind == kind].stable_share)
for name, part in others.items():
    for metric in WIDE:
        found[f"{metric}_difference_{name}"] = sink_measures.difference(part, metric)
del found["spatial_variance_difference_above_others"]  # a threshold does not change mass
run.find(found)

# %% [markdown]
# ## The figure: where attention goes, step by step
#
# One prompt, both models, the literal reading. Each column is a token, each row a step. Bright
# cells receive many times the mean, and rings mark sinks. A stable sink is a column with rings from
# top to bottom. Tokens that receive much attention are named.

# %%
from sinkprune_companion.figures import figures, forests, trajectories
from sinkprune_companion.pages.titles import title


def panel(kind: str, one: Trace, how: str, prompt: int = 0, reading: str = LITERAL) -> dict:
    head = f"{kind} ({models[kind].name}), {how}"
    return trajectories.panel(models[kind], one, prompt, head, READINGS[reading], sink_std)


# %% [markdown]
# Both panels:

# %%
panels = [panel(kind, one, READINGS[LITERAL].label) for kind, one in traces.items()]
positions = trajectories.positions_table(panels)
says = title(
    run, "sink_positions", "Attention received by each token, step by step; rings mark sinks"
)
figures.save_figure(
    run,
    trajectories.plot_sink_positions(panels, says),
    "sink_positions",
    positions,
    f"one prompt, sum over all queries so far. {says}",
)

# %% [markdown]
# The same one step at a time, in reading order, with a slider. In the picture empty cells are
# masks, grey cells do not exist yet, and red frames mark sinks. The slider needs no kernel. A place
# that runs no scripts, such as GitHub or a notebook that Jupyter does not trust yet, shows the
# picture of the last step.

# %%
from IPython.display import display
from sinkprune_companion.figures import step_views

written = figures.save_figure(
    run,
    trajectories.plot_writing(panels, steps - 1),
    "writing",
    trajectories.positions_table(panels).query("step == @steps - 1"),
    "the text and its sinks at the last step, one prompt",
)
pairs = [(models[kind], one) for kind, one in traces.items()]
views = step_views.views(pairs, 1, sink_std)
says = "The text and its sinks, step by step"
display(written, step_views.save_slider(run, "writing", says, step_views.data(views, steps)))
pairs.append((original, base_trace))
# Four prompts in every layer, for the sink explorer of the site.
views = step_views.views(pairs, 4, sink_std, layers=True)
caption = "attention mass per token, step and layer, of the first prompts and all models, quantised"
shown = step_views.data(views, steps, pick=True)
print("Beside the figures:", step_views.save_explorer(run, "explorer", caption, shown).name)

# %% [markdown]
# ![All steps: masks are filled, tokens appended](../figures/01_sink_variance/sink_positions.gif)
#
# All steps in turn, written beside the figure above:

# %%
shown = sorted({*range(0, steps, -(-steps // 24)), steps - 1})  # 24 frames at most
animation = trajectories.save_animation(
    run, (trajectories.plot_writing(panels, step) for step in shown), "sink_positions"
)
print(f"{animation.name}: {len(shown)} frames, {animation.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# The same prompt, with one thing changed for each model: the DLM has `<|endoftext|>` before the
# prompt, and the AR model's trace is read by its newest queries alone, in even shares.

# %%
behind = [
    condition for condition in conditions if condition == replace(main, first_token=True)
] or [main]
first = traced(models["diffusion"], "diffusion", behind[0], prompts)
panels = [
    panel("diffusion", first, behind[0].label),
    panel(
        "autoregressive",
        traces["autoregressive"],
        READINGS["newest_shares"].label,
        reading="newest_shares",
    ),
]
says = "The same prompt behind a special first token (DLM), and by the newest queries (AR)"
figures.save_figure(
    run,
    trajectories.plot_sink_positions(panels, says),
    "sink_positions_otherwise",
    trajectories.positions_table(panels),
    f"attention received per key position and step. {says}",
)

# %% [markdown]
# ## All prompts: the paper's measures
#
# The literal reading in the main condition. Beside the two published measures stand the temporal
# variance of position over length, the overlap of consecutive sink sets, the share of stable sinks,
# and how many sinks there are.

# %%
METRICS = {
    "temporal_variance": "temporal variance (positions²)",
    "spatial_variance": "spatial variance (mass²)",
    "temporal_variance_relative": "temporal variance of position / length",
    "overlap": "overlap of consecutive sink sets",
    "stable_share": "share of stable sinks",
    "sinks_per_step": "sinks per step",
    "positions": "distinct sink positions",
    "top_share": "attention to the strongest key",
}
FIRST = ("temporal_variance", "spatial_variance", "overlap", "stable_share")
says = title(run, "variability", "Sinks of both models in the main condition")
figures.save_figure(
    run,
    forests.plot_by_row(table, "label", {name: METRICS[name] for name in FIRST}, says),
    "variability",
    table,
    f"sink statistics, sum over all queries so far, mean and 95 % interval. {says}",
)

# %% [markdown]
# ## Reading by reading
#
# A causal step can be read in other ways.
#
# * *Newest queries alone*: the step's own window, without older queries. Whatever is near receives
#   attention for a moment and counts as a sink.
# * *In even shares*: mass divided by what the key would receive if attention were even. A key that
#   few queries have seen weighs more.
# * *Rulli et al.'s threshold* (arXiv 2510.15731): a sink exceeds the mean of the other keys by
#   three even shares.
#
# For the DLM all of them but the threshold are the same. The last panel shows why they differ for
# the AR model: the share of a step's queries that are new.

# %%
PANELS = {
    "temporal_variance": "temporal variance (positions²)",
    "overlap": "overlap of consecutive sink sets",
    "new_queries": "share of a step's queries that are new",
}
says = title(run, "readings", "How much sinks move, by the reading of a step")
figures.save_figure(
    run,
    forests.plot_by_row(in_main, "label", PANELS, says),
    "readings",
    in_main,
    f"means over prompts and 95 % intervals. {says}",
)

# %% [markdown]
# ## Condition by condition
#
# The literal reading, with one thing changed at a time: the first token, the kind of text, the
# length, the sampler. Lengths are compared by position over length. All take as many steps, so longer
# texts write more tokens in a step. The adapters were trained on up to 512 tokens: 1,024 are more
# than they have seen. *From nothing* both models get `<|endoftext|>` alone, so that token is special
# there too.

# %%
PANELS = {
    "temporal_variance_relative": "variance of centroid / length",
    "overlap": "overlap of consecutive sink sets",
    "spatial_variance": "spatial variance (mass²)",
}
says = title(run, "conditions", "How much sinks move, by condition")
figures.save_figure(
    run,
    forests.plot_by_row(literal, "what", PANELS, says),
    "conditions",
    literal,
    f"sum over all queries so far; 95 % intervals. {says}",
)

# %% [markdown]
# The means behind both figures:

# %%
measured.groupby(["condition", "label", "kind"], sort=False)[list(METRICS)].mean().round(3)

# %% [markdown]
# ## Layer by layer
#
# The mass above is a mean over layers. Here every layer has sinks of its own, in the literal
# reading.

# %%
layers = pd.concat(
    [
        sink_measures.by_layer(one, sink_std, stability_threshold, kind=kind)
        for kind, one in traces.items()
    ],
    ignore_index=True,
)
labels = {
    "overlap": "overlap of consecutive sink sets",
    "stable_share": "share of stable sinks",
    "top_share": "attention to the strongest key",
}

# %% [markdown]
# Means over prompts, with intervals:

# %%
means = pd.concat(
    [
        figures.intervals(layers, ["layer", "kind"], column).assign(measure=words)
        for column, words in labels.items()
    ]
)
axes = {"layer": "layer (0 is the first)", "value": ""}
for metric in WIDE:
    found[f"{metric}_difference_layers"] = sink_measures.difference(layers, metric)
run.find(found)
says = title(run, "layers", "Sinks layer by layer")
how = {"title": says, "panel": "measure", "sharey": False}
drawn = figures.plot_curves(means, "layer", "value", "kind", axes, ("low", "high"), **how)
caption = f"bars are 95 % intervals over prompts. {says}"
figures.save_figure(run, drawn, "layers", layers, caption)

# %% [markdown]
# ## Which tokens are sinks
#
# Persistence is the share of steps in which a position is a sink; from 0.8 a sink counts as stable.
# For the DLM the table names the token that stands at the position at that step, which can be the
# mask token.

# %%
from sinkprune_companion.experiments.sink_measures import token_table

tokens = pd.concat(
    [
        token_table(
            one.ids_BSK, one.sinks(sink_std), models[kind].tokenizer, one.visible_SK
        ).assign(kind=kind)
        for kind, one in traces.items()
    ]
)
tokens.groupby("kind").head(8).set_index(["kind", "token"])

# %% [markdown]
# ## The reading

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.run.shown import Folded, reading

reading(run)

# %% [markdown]
# All numbers: temporal variance in squared positions, spatial variance in squared mass with a mean
# of 1, overlap and stable share as shares. A name without an ending means the literal reading in
# the main condition. An ending names another reading, another condition, the base instead of the
# twin, or the mean over layers with sinks of their own.

# %%
known = {name: estimate for name, estimate in found.items() if estimate is not None}
Folded(listed(known, prompts=[estimate.units for estimate in known.values()]))

# %% [markdown]
# ## Do random weights pass?
#
# The same architectures with random weights, which both kinds share, in the main condition. A
# measure in which they differ as the trained pair does, decides nothing by itself.

# %%
from sinkprune_companion.experiments import random_null


def mean_share(part: pd.DataFrame):
    """The mean share of stable sinks, of prompts that have a sink at all."""
    return interval(part.stable_share) if part.stable_share.count() > 1 else None


# %% [markdown]
# Every pair with its own prompts' traces:

# %%
rows = []
for number in range(null_seeds):
    for kind, lm in models.items():
        untrained = random_null.with_random_weights(lm, number, dtype, run.device)
        prints[untrained.name] = untrained.fingerprint()
        one = traced(untrained, untrained.name, main, other_prompts)
        part = sink_measures.by_reading(one, sink_std, stability_threshold, kind=kind)
        rows.append(part.assign(prompt=part.prompt + number * other_prompts))
null = pd.concat(rows) if rows else in_main[:0]
for name, part in null.groupby("reading", sort=False):
    ending = "" if name == LITERAL else f"_{name}"
    for metric in WIDE:
        found[f"null_{metric}_difference{ending}"] = sink_measures.difference(part, metric)
    for kind, short in (("diffusion", "dlm"), ("autoregressive", "ar")):
        found[f"null_stable_share_{short}{ending}"] = mean_share(part[part.kind == kind])
run.find(found)
null_found = {name: each for name, each in found.items() if name.startswith("null_")}
Folded(listed(null_found), "The null")

# %% [markdown]
# Two of these measures beside those of the trained pair, reading by reading. What looks alike in both
# columns comes from the direction of attention and from how steps are read, not from what was
# learned.

# %%
panels = []
for metric in ("temporal_variance", "stable_share"):
    for weights, part in {"trained": in_main, "random": null}.items():
        means = figures.intervals(part, ["label", "kind"], metric)
        panels.append(means.assign(panel=f"{METRICS[metric]},\n{weights} weights"))
means = pd.concat(panels)
says = title(run, "null", "Measures of how sinks move, of trained and of random weights")
drawn = forests.plot_rows(means, "panel", "label", "", says, hue="kind", sharex=False)
figures.save_figure(run, drawn, "null", means, f"means over prompts. {says}")

# %% [markdown]
# ## How many prompts speak for it
#
# A few prompts can carry a mean. Here is how many have the larger value in the DLM, with a sign
# test (prompts that are tied count for neither) and Wilcoxon's test, for the temporal variance.

# %%
counted = {f"main, {name}": part for name, part in in_main.groupby("reading", sort=False)}
behind_token = literal[literal.condition.isin(["first_token", "no_first_token"])]
for name, part in behind_token.groupby("what", sort=False):
    counted[f"{name}, {LITERAL}"] = part
if rows:
    counted["random weights"] = null[null.reading == LITERAL]
table_of_counts = pd.DataFrame(
    {
        name: random_null.paired_counts(part, "temporal_variance")
        for name, part in counted.items()
        if part.prompt.nunique() > 1
    }
).T
table_of_counts.round(3)

# %% [markdown]
# ## How many sinks stay, by length and where pruning looks
#
# The share of sink occurrences at stable positions: in the trajectories of every length, and in
# calibration text at the noise levels that pruning takes (of the AR model: in query windows).

# %%
from sinkprune_companion.run.texts import calibration_draw

SHORT = {"diffusion": "dlm", "autoregressive": "ar"}
shares = {}  # by what was looked at
for name, part in literal.groupby("condition", sort=False):
    if name == "main" or name.startswith("tokens_"):
        shares[name] = part.assign(where=f"writing {part.tokens.iloc[0]:,} tokens")
at_noise = []
for kind, chosen in {"diffusion": model, "autoregressive": twin}.items():
    lm = load(chosen, dtype, run.device)
    text = calibration_draw(lm, max(2, calibration), 128, seed)
    given = (text, noise_levels, sink_std, stability_threshold)
    states = random_null.stability_at_noise(run, lm, prints[kind], *given)
    at_noise.append(states.assign(kind=kind, where="calibration text, 128 tokens"))
shares["calibration"] = pd.concat(at_noise)

# %% [markdown]
# The picture, with the random weights of the null beside:

# %%
stays = {}
for name, part in shares.items():
    if name != "main":
        for kind, of_kind in part.groupby("kind"):
            stays[f"stable_share_{SHORT[kind]}_{name}"] = mean_share(of_kind)
found |= stays
run.find(found)
shares["null"] = null[null.reading == LITERAL].assign(where="random weights")
table = pd.concat(shares.values()).assign(panel="share of stable sinks")
means = figures.intervals(table, ["panel", "where", "kind"], "stable_share")
says = title(run, "stability", "How many sinks stay, by what is looked at")
drawn = forests.plot_rows(means, "panel", "where", "", says, hue="kind")
display(figures.save_figure(run, drawn, "stability", means, f"means over prompts. {says}"))
Folded(listed(stays), "Shares of stable sinks")

# %% [markdown]
# ## Exercises
#
# 1. Set `temperature` to 0. Do the models repeat themselves, and do sinks move less?
# 2. Set `sink_std` to 3. Expect fewer sinks. Do more of them stay?

# %% [markdown]
# **What this does not show.** One pair of small models (135M parameters). How the paper divides a
# causal text into steps is not known, and the reading that its formula suggests favours its claim.
# The pair differs in direction and objective. Its adapters have read few tokens,
# and not equally many. Few texts have another length than the first. Whether a model *needs* a sink
# that moves is another question: [notebook 02](02_hiding_sinks.ipynb) hides it.

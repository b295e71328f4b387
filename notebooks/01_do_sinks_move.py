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
# text is generated, do they stay where they are? [The paper](https://arxiv.org/abs/2602.17664)
# says: they stay in autoregressive (AR) models and move in diffusion language models (DLMs).
# [Notebook 00](00_start_here.ipynb) introduces both kinds of model, and shows a sink.

# %% [markdown] tags=["answer"]
# **Answer.** By the paper's sum of attention the DLM's sinks move more than its AR twin's, in even
# shares the AR model's do, and most of the DLM's stay in texts of 128 tokens, but not of 1,024.
# This is one pair of small models, and random weights pass the paper's measure, too, so that is no
# sign of anything learned.
#
# ![The share of sinks that stay, by model and text](../figures/01_do_sinks_move/stability.png)
#
# - **How many stay:** at 128 tokens 79 % of the DLM's sinks and 94 % of the AR model's last for at
#   least 80 % of the steps, and at 1,024 tokens 28 % and 57 %.
# - **How much they move,** DLM − AR (*even shares* divide a token's attention by what it would get
#   if queries looked at all tokens alike): 41 [16, 66] squared positions, −250 [−290, −220] in even
#   shares, and 850 [540, 1,200] with random weights.

# %% [markdown]
# **Parameters**, as *Run all* takes them. These defaults take minutes. The pictures and numbers
# stored on this page are of a larger run, a [profile](../docs/glossary.md), whose values the set-up
# below lists. The first values of the lists make the *main condition*. Every other value makes one
# more condition, which differs from it in this value. Where the answer turns with a condition, the
# verdict of a claim says so. Time and memory: [docs/performance.md](../docs/performance.md).

# %% tags=["main-parameters"]
# the models
model: str = "smol-dlm"  # the diffusion model: a name of the table of models or a saved folder
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on a part of its text
# what they write
texts: list[str] = ["natural"]  # of prompts: natural, samples, documentation, nothing
lengths: list[int] = [64]  # tokens of the finished text
steps: int = 8  # denoising steps; the AR model's text is cut into this many windows
temperature: float = 1.0  # 1 samples from the model; 0 is greedy, where a young DLM repeats itself
# what a sink is
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
stability_threshold: float = 0.8  # a position that is a sink in this share of steps is stable
# how much is measured
prompts: int = 3  # held-out prompts of the main condition, and of the same with a first token
trajectories: int = 1  # of each of them
# where it runs
profile: str = "manual"  # results go to runs/<profile>

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
# the models
base: str = "smol-ar"  # what both were trained from, in the explorer of the site
# what they write
first_tokens: list[bool] = [False, True]  # whether <|endoftext|> stands before the prompt
samplers: list[str] = ["llada"]  # of the diffusion model: llada, dream
# how much is measured
other_prompts: int = 2  # prompts of every other condition and of untrained pairs
null_seeds: int = 1  # untrained pairs, for comparison
calibration: int = 2  # calibration sequences, for the share of stable sinks where pruning looks
noise_levels: int = 8  # noise levels at which each of them is seen
# where it runs
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.experiments.parameters import start

run = start("01_do_sinks_move", globals())

# %% [markdown]
# ## Where attention goes, step by step
#
# Two models continue the same prompt. They come from the same base weights and tokenizer; the
# DLM attends to both sides, the AR model only backwards. Each column is a token, each row a step.
# Bright cells receive many times the mean attention, and rings mark sinks: a sink that stays is a
# column of rings. The dark part at the upper right of the DLM's panel is masks, which draw little
# attention. Attention is summed as the paper's words suggest, which the next section explains.
#
# In the AR model the strongest key is nearly always position 0, which every query sees. In the DLM
# it seldom is. [Notebook 02](02_are_sinks_needed.ipynb) counts both.
#
# First the conditions are listed, and then everything is measured that this notebook shows.

# %%
from sinkprune_companion.experiments import sink_conditions, sink_measures, sink_records

SEED = 0  # of the choice of prompts and of the samplers
conditions = sink_conditions.conditions(texts, first_tokens, lengths, samplers)
main = conditions[0]
how = {"prompt_length": 32, "steps": steps, "temperature": temperature}
for condition in conditions:
    sink_conditions.sampler_of(condition, **how)  # all are checked before the first is measured

names = {"diffusion": model, "autoregressive": twin, "base": base}
rule = (sink_std, stability_threshold)
counts = sink_records.Counts(prompts, trajectories, other_prompts, calibration, noise_levels)
measured = sink_records.measure(run, names, conditions, how, counts, rule, SEED, dtype)

# %% [markdown]
# The picture shows the first prompt of the main condition. It counts steps from 0.

# %%
from sinkprune.figures import trajectories as pictures
from sinkprune_companion.experiments.sink_measures import KINDS
from sinkprune_companion.figures.titles import draw
from sinkprune_companion.readings import LITERAL, READINGS

pair = []
for kind in sink_measures.SHORT:
    one = (measured.models[kind], measured.traces[kind], 0)
    title = f"{KINDS[kind]} ({one[0].name})"
    pair.append(pictures.panel(*one, title, sink_std))
told = {"data": pictures.positions_table(pair), "caption": "one prompt; rings mark sinks"}
plain = "Attention received by each token, step by step"
draw(run, "sink_positions", plain, pictures.plot_sink_positions, pair, **told)

# %% [markdown]
# Here are the same steps one at a time, with the tokens in reading order. Steps are counted from 1
# here, so step 1 is step 0 of the picture above. Empty cells are masks, grey cells do not exist
# yet, and red frames mark sinks. A step shows what the model reads, so even the last one still has
# masks. The page has a slider for the steps where scripts run. On GitHub, and in a notebook that
# Jupyter does not trust yet, they do not; there the last step is shown, and this animation has them
# all:
#
# ![Steps: masks are filled, tokens appended](../figures/01_do_sinks_move/sink_positions.gif)

# %%
from IPython.display import display
from sinkprune_companion.figures.step_pictures import step_pictures

display(*step_pictures(run, measured, pair, steps, sink_std))

# %% [markdown]
# ## The claim, and what is measured
#
# > the attention-sink position exhibits substantially higher variance over the full generation
# > trajectory (measured by how the dominant sink locations shift across timesteps), indicating that
# > sinks are often transient and less structurally essential than in AR models. (abstract)
#
# The official README adds "spatial concentration: AR high, DLM low (distributed)" and calls AR
# sinks stable global anchors. So there are four rows:
#
# | the claim | the number | bar | reproduced | contradicted |
# |---|---|---|---|---|
# | sinks move more in the DLM | temporal variance, DLM − AR | 0 | above | below |
# | most sinks of the DLM are transient | share of stable sinks, DLM | 0.5 | below | above |
# | AR sinks are stable anchors | share of stable sinks, AR | 0.8 | above | below |
# | attention is spread more evenly in the DLM | spatial variance, DLM − AR | 0 | below | above |
#
# The two bars of the share of stable sinks differ, since the two claims do. *Most* means more than
# half, so the bar is 0.5. *Stable anchors* says more than *most*, but the paper names no number.
# The bar of 0.8 is ours. So one and the same share, such as 0.7, can contradict the claim on the
# DLM and be too low for the claim on the AR model. These two rows do not compare the models. A
# control does: it is about the difference of the two shares, DLM − AR.
#
# Each row is judged in the main condition. Its whole 95 % interval must lie on one side of the bar,
# and p must be below 0.05 after two corrections. First p is multiplied by the number of *looks*:
# how often the number was looked at when it could have decided, the last time included. Then Holm's
# method allows for all rows of the same *family*, which are judged together: the smallest p of a
# family is multiplied by the number of its rows, the next one by one less, and so on. The table of
# p-values at the end has both numbers for every row.
#
# The *mass* of a key at a step is the attention that it receives, $m_t(i) = \sum_j A_{j,i}$: the
# sum over all queries that exist at that step, undivided. This is the *literal* reading of the
# paper; other ways to sum follow below. Here mass is a mean over layers and heads. A *sink* is a
# key whose mass exceeds the mean over all existing keys by 2 standard deviations, as in the
# official code. The paper has two measures:
#
# * the **spatial variance** of mean mass, $\mathrm{Var}_i(\overline{m}_i)$, where a key's mean runs
#   over the steps in which it exists;
# * the **temporal variance** of the sink centroid, $\mathrm{Var}_t(c_t)$, in squared positions. The
#   centroid $c_t$ is the mean position of the sinks of step $t$, weighted by their mass. This
#   measure misses two sinks that move in opposite directions.
#
# We add two measures of our own:
#
# * A position is *stable* if it is a sink in at least 80 % of the steps in which it exists. A
#   position that is a sink in 30 steps counts as 30 *occurrences* of a sink. The *share of stable
#   sinks* is the share of all occurrences that are at stable positions: with one sink that lasts 30
#   of 32 steps, and one that lasts 2, it is 30 of 32.
# * The *overlap* of two consecutive steps is the number of keys that are sinks in both, divided by
#   the number that are sinks in at least one.
#
# **Attention by hand.** Attention is recorded while a model runs. Here the DLM reads the text of the
# last step once more. The tracker has a number per layer, head and key; their mean over layers and
# heads must be the mass in the trace.

# %%
import torch
from sinkprune.models.loading import load
from sinkprune_core.sinks import attention

dlm = load(model, dtype, run.device)
traced = measured.traces["diffusion"]
with torch.inference_mode(), attention.track(dlm.model) as tracker:
    dlm.hidden(traced.ids_BSK[:1, -1].to(dlm.device))
    mass_BLHSK = tracker.take()  # one text and one window of queries, so B and S are 1

mass_K = mass_BLHSK.mean((0, 1, 2, 3)).cpu()
assert torch.allclose(mass_K, traced.mass_BSK[0, -1], rtol=0.05, atol=0.05)
strongest = int(mass_K.argmax())
word = dlm.tokenizer.decode([int(traced.ids_BSK[0, -1, strongest])])
print(f"{tuple(mass_BLHSK.shape)}: {mass_K[strongest]:.0f} times the mean at {strongest}, {word!r}")
del dlm  # its room is for what follows

# %% [markdown]
# **The measures by hand**, on one prompt of the DLM. The library must give the same.

# %%


def sinks_of(mass_SK: torch.Tensor) -> torch.Tensor:
    """Which keys are a sink at which step."""
    threshold_S = mass_SK.mean(1) + sink_std * mass_SK.std(1, correction=0)
    return mass_SK > threshold_S[:, None]


def centroids(mass_SK: torch.Tensor) -> torch.Tensor:
    """The mean position of the sinks of every step that has one, weighted by their mass."""
    received_SK = mass_SK * sinks_of(mass_SK)
    received_S = received_SK.sum(1)
    position_K = torch.arange(mass_SK.shape[1]).float()
    return ((received_SK @ position_K) / received_S)[received_S > 0]


mass_SK = measured.traces["diffusion"].mass_BSK[0]  # step by key; its mean over keys is 1
variances = {
    "temporal_variance": centroids(mass_SK).var(correction=0),
    "spatial_variance": mass_SK.mean(0).var(correction=0),
}
of_library = sink_measures.by_reading(measured.traces["diffusion"], *rule).iloc[0]
for name, value in variances.items():
    same = torch.tensor(of_library[name]).float()
    assert torch.isclose(value, same, rtol=1e-3, atol=1e-3, equal_nan=True)
    print(f"{name}: {float(value):.2f}, the library has {float(same):.2f}")

# %% [markdown]
# ## Why a causal sum tends to settle
#
# A *step* of the DLM is a denoising step, in which every query runs again. An AR model computes
# each query once, so its text is cut into as many windows of queries as the DLM has steps, and a
# step sums over all windows so far: old queries stay in that sum. What does this alone do? Here
# both kinds of sum are taken of the same made-up queries, which look at new random keys in every
# step, so that no sink has a reason to stay. Yet the sinks of the running sum come to rest, as every
# step adds less to what is there.
#
# Each made-up number is the eighth power of a uniform random one. This makes most of them nearly
# zero and a few large, as attention is. A uniform number itself is never a sink, since it cannot
# exceed the mean by two standard deviations.

# %%
import pandas as pd
from sinkprune_companion.figures import figures

rng = torch.Generator().manual_seed(SEED)
# 100 times: what the new queries of each of 32 steps look at, which is few of 128 keys
new_RSK = torch.rand(100, 32, 128, generator=rng) ** 8
sums = {
    "fresh sum in each step, as in a DLM": new_RSK,  # all queries run again
    "running sum, as in an AR model": new_RSK.cumsum(1),  # old queries stay in the sum
}
parts = []
for kind, sum_RSK in sums.items():
    sinks_RSK = torch.stack([sinks_of(sum_SK) for sum_SK in sum_RSK])
    here, before = sinks_RSK[:, 1:], sinks_RSK[:, :-1]
    shared_RS = (here & before).sum(2) / (here | before).sum(2)
    mean_S = shared_RS.mean(0)
    part = {"step": range(1, 1 + len(mean_S)), "overlap": mean_S.tolist(), "kind": kind}
    parts.append(pd.DataFrame(part))
settling = pd.concat(parts)
axes = {"step": "step", "overlap": "overlap with the sinks of the step before"}
told = {"data": settling, "caption": "sinks of random queries, step by step, mean of 100 draws"}
plain = "A running sum of attention settles even where its queries look at random keys"
draw(run, "settles", plain, figures.plot_curves, settling, "step", "overlap", "kind", axes, **told)

# %% [markdown]
# A running sum makes sinks look more stable, so part of the difference between the models may come
# from the sum. The same may be true of the spatial variance: the AR model's early keys are seen by
# more queries than its late ones, which makes its sum uneven. Verdicts rest on the paper's sum all
# the same. Below, it is compared with what random *weights* give, and with other ways to sum.
#
# ## What is compared
#
# A difference is DLM − AR on the same prompt. Each model writes one text or several
# (*trajectories*) after a prompt, and their mean is the prompt's number. Intervals are t intervals
# over prompts. Prompts are crops of held-out text that begin in the middle of a paragraph, so none
# begins with a special token. By hand, for the temporal variance in the main condition:

# %%
from sinkprune.evaluation.intervals import interval

ONE_ROW = ["condition", "what", "tokens", "kind", "reading", "label", "prompt"]
by_prompt = pd.concat(measured.by_prompt).groupby(ONE_ROW, sort=False, as_index=False).mean()
in_main = by_prompt[by_prompt.condition == "main"]
literal = by_prompt[by_prompt.reading == LITERAL]


def gap(part: pd.DataFrame, metric: str = "temporal_variance") -> pd.Series:
    """DLM − AR, one number per prompt."""
    by_kind = part.pivot(index="prompt", columns="kind", values=metric)
    return (by_kind.diffusion - by_kind.autoregressive).dropna()


gap_N = gap(literal[literal.condition == "main"])
print(f"{interval(gap_N)}; larger in {(gap_N > 0).sum()} of {len(gap_N)} prompts")

# %% [markdown]
# The library does the same for all measures. It does so in the main condition for every *reading*,
# which is a way to sum the queries, and in the literal reading for every condition:

# %%
PAIRED = ("temporal_variance", "spatial_variance", "overlap", "stable_share")
compared = {"": literal[literal.condition == "main"]}  # by the ending of the finding's name
compared |= {f"_{name}": part for name, part in in_main.groupby("reading") if name != LITERAL}
compared |= {f"_{name}": part for name, part in literal.groupby("condition") if name != "main"}
found = {}
for ending, part in compared.items():
    for metric in PAIRED:
        found[f"{metric}_difference{ending}"] = sink_measures.difference(part, metric)
    for kind, short in sink_measures.SHORT.items():
        found[f"stable_share_{short}{ending}"] = sink_measures.stable_share(part, kind)
for kind, short in sink_measures.SHORT.items():
    found[f"stable_share_{short}_calibration"] = sink_measures.stable_share(
        pd.concat(measured.at_noise), kind
    )
del found["spatial_variance_difference_above_others"]  # a threshold does not change mass
for kind, short in sink_measures.SHORT.items():
    of_kind = literal[(literal.condition == "main") & (literal.kind == kind)]
    found[f"sinks_per_step_{short}"] = interval(of_kind.sinks_per_step)
run.find(found)

# %% [markdown]
# ## Do random weights pass?
#
# Now both models of a pair get the same random weights, in the main condition. If they differ in
# the same direction as the trained pair, the direction by itself cannot show what training did: the
# direction of attention and the definition of a step are enough to make it. How large the
# difference is may still show it. With random weights attention is almost even, and the rule still
# finds sinks, which are the largest fluctuations. Each such pair has a seed of its own, and the
# seed's number is its mean over prompts.
#
# A row of the picture is a way to sum, and its number is DLM − AR: right of zero the DLM's sinks move
# more. All queries of the DLM are new in every step, so for it the ways to sum agree, and what the
# rows compare is the AR model.
#
# * *Newest queries alone* are those of the step's own window, without older ones. Whatever is near
#   them receives attention for a moment and counts as a sink, so the AR model's sinks move more
#   than by the paper's sum.
# * *In even shares*: we divide a key's mass by the mass that it would receive under uniform
#   attention. So a key that few queries have seen counts for more.
# * *All written so far, in even shares* sums over all queries of written tokens up to the step,
#   without those of the prompt.
# * *Rulli et al.'s threshold* (arXiv 2510.15731) is another rule for sinks. Key $i$ is a sink if
#   $m_i > \overline{m}_{-i} + 3\,\overline{m}$, where $\overline{m}_{-i}$ is the mean mass of the
#   other keys and $\overline{m}$ that of all, which is the mass under uniform attention.

# %%
untrained = in_main[:0].assign(seed=0)
if null_seeds:
    given = (null_seeds, main, other_prompts, how, rule, SEED, dtype)
    untrained = sink_records.untrained(run, measured.models, *given)
of_seed = untrained.groupby(["reading", "label", "kind", "seed"], sort=False, as_index=False)
of_seed = of_seed.mean(numeric_only=True).assign(prompt=lambda table: table.seed)
for name, part in of_seed.groupby("reading", sort=False):
    ending = "" if name == LITERAL else f"_{name}"
    for metric in PAIRED:
        found[f"null_{metric}_difference{ending}"] = sink_measures.difference(part, metric)
    for kind, short in sink_measures.SHORT.items():
        found[f"null_stable_share_{short}{ending}"] = sink_measures.stable_share(part, kind)
run.find(found)

# %% [markdown]
# The picture leaves out *newest queries, in even shares*, which has the same sinks as *newest
# queries alone*, and with random weights Rulli et al.'s threshold, which no key of the DLM passes.

# %%
from sinkprune_companion.figures import forests

METRICS = {
    "temporal_variance": "temporal variance\n(positions²)",
    "spatial_variance": "spatial variance\n(mass²)",
    "overlap": "overlap of consecutive\nsink sets",
    "stable_share": "share of stable sinks",
}
parts = []
for weights, of_weights in {"trained": in_main, "random": of_seed}.items():
    of_weights = of_weights[of_weights.reading != "newest_shares"]
    for label, part in of_weights.groupby("label", sort=False):
        gaps = gap(part).to_frame("value")
        parts.append(gaps.assign(section=f"{weights} weights", comparison=label))
differences = pd.concat(parts)
rows = figures.intervals(differences, ["section", "comparison"], "value")
told = {"data": rows, "caption": "means over prompts, and over seeds of random weights"}
axis = "temporal variance, DLM − AR (positions²)"
plain = "How much more the DLM's sinks move, with trained and with random weights"
draw(run, "random_weights", plain, forests.plot_effects, rows, axis, **told)

# %% [markdown]
# A few prompts can make most of a mean. So the next picture has a point for every prompt, on an
# axis that may be logarithmic away from zero.
#
# With random weights a prompt's number is its mean over seeds. So the interval of that row shows
# how much prompts differ. The reading quotes another interval, which shows how much seeds differ
# and is wider.

# %%
parts = dict(list(in_main.groupby("label", sort=False)))
del parts[READINGS["newest_shares"].label]  # it has the sinks of the newest queries alone
if "first_token" in set(literal.condition):
    parts["sum, after a special first token"] = literal[literal.condition == "first_token"]
if null_seeds:
    by_seed = untrained[untrained.reading == LITERAL].groupby(["prompt", "kind"])
    means = by_seed[["temporal_variance"]].mean().reset_index()
    of_random = f"{means.prompt.nunique()} prompts, mean of {null_seeds} seeds"
    parts[f"sum, random weights, {of_random}"] = means
gaps = pd.concat([gap(part).to_frame("value").assign(row=name) for name, part in parts.items()])
told = {"data": gaps.reset_index(), "caption": "a point per prompt"}
axis = "temporal variance, DLM − AR (positions²)"
plain = "How much more the DLM's sinks move, prompt by prompt"
draw(run, "prompts", plain, forests.plot_units, gaps, "row", axis, **told)

# %% [markdown]
# The table counts the prompts in which the DLM's sinks move more, with the p-values of a sign test,
# in which ties count for neither model, and of Wilcoxon's test. These p-values are not those of
# verdicts. They test prompt by prompt and are not corrected. The p of a verdict is that of a t test
# of the mean, corrected as said above.

# %%
from sinkprune.evaluation.numbers import number, p_text
from sinkprune_companion.experiments import random_null

counted = {
    name: random_null.paired_counts(part, "temporal_variance") for name, part in parts.items()
}
table = pd.DataFrame(counted).T
tests = ["sign test", "Wilcoxon"]
table[tests] = table[tests].map(p_text)
table["median"] = table["median"].map(number)
columns = {"median": "median (positions²)", "larger": "larger in the DLM"}
columns |= {"sign test": "p, sign test", "Wilcoxon": "p, Wilcoxon"}
table.astype({"prompts": int, "larger": int, "smaller": int, "tied": int}).rename(columns=columns)

# %% [markdown]
# ## How many sinks stay, by length and where pruning looks
#
# The picture shows the share of stable sinks in the literal reading. Intervals are over prompts,
# calibration sequences or seeds of random weights. They are t intervals, which may reach beyond 1
# where a share is near it. The tokens of a *written text* are those of the finished one, of which
# the first 32 are the prompt.
#
# *Calibration text* is what pruning reads, and there a step is something else. For the DLM one
# fixed text is masked at several noise levels, which are the steps. Its masks are drawn anywhere in
# the text, on nearly all tokens at the first level, and each level keeps a part of those of the
# level before. Nothing is written. A token that is masked at several levels can hardly be a stable
# sink there, as masks are seldom sinks, while a prompt that a model continues is never masked. This
# explains why a sink begins late. It does not explain why a sink ends while masks disappear, as
# four sinks do in the picture of [notebook 00](00_start_here.ipynb). So masks may be one reason for
# the low share, but not the only one, and the share cannot be compared with that of written text.
# For the AR model the text is cut into as many windows.
#
# Written text has a limit, too. In the DLM every position exists from the first step on, as a mask.
# Stable means a sink in 80 % of the steps in which the position exists. So a token that the DLM
# writes after the first fifth of the steps can hardly be stable. In the AR model a position exists
# only from the step that writes it, so its late tokens have no such handicap.

# %%
shares = []
for name, part in literal.groupby("condition", sort=False):
    if name == "main" or name.startswith("tokens_"):
        shares.append(part.assign(where=f"written text, {part.tokens.iloc[0]:,} tokens"))
of_random = f"random weights, {main.tokens:,} tokens"
shares += [of_seed[of_seed.reading == LITERAL].assign(where=of_random), *measured.at_noise]
table = pd.concat(shares).assign(panel="share of stable sinks")
means = figures.intervals(table, ["panel", "where", "kind"], "stable_share")
told = {"data": means, "caption": "means over prompts", "hue": "kind"}
plain = "How many sinks stay, by what is looked at"
draw(run, "stability", plain, forests.plot_rows, means, "panel", "where", "", **told)

# %% [markdown]
# **Occurrences and positions.** In the first picture two of the DLM's three sinks come and go, and
# yet nearly all occurrences are those of the third, which stays. So the share of the *different*
# positions that are stable is smaller than the share of occurrences. The table has both in the main
# condition, as means over prompts.
#
# A record has the number of different positions of a text, and not how many of them are stable.
# Two bounds follow from the occurrences. A stable position has one in each step at most, and in
# `stability_threshold` of the steps at least. Where the two bounds agree the number is exact; the
# line above the table says in how many texts they do. The table has the lower bound.

# %%
import numpy as np

each = pd.concat(measured.by_prompt)  # a row per text; a prompt may have several
each = each[(each.condition == "main") & (each.reading == LITERAL)]
stable_occurrences = (each.stable_share * each.sinks_per_step * steps).round()
least = np.ceil(stable_occurrences / steps)
most = np.floor(stable_occurrences / (stability_threshold * steps))
print(f"The number of stable positions is exact in {(least == most).sum()} of {len(each)} texts.")

each = each.assign(stable_positions=least)
each["position_share"] = each.stable_positions / each.positions
for kind, short in sink_measures.SHORT.items():
    of_prompt = each[each.kind == kind].groupby("prompt").position_share.mean().dropna()
    found[f"stable_position_share_{short}"] = interval(of_prompt) if len(of_prompt) > 1 else None
run.find(found)

columns = {
    "positions": "different positions of a text",
    "stable_positions": "stable ones of them",
    "position_share": "their share",
    "stable_share": "share of stable occurrences",
}
each.groupby("kind", sort=False)[[*columns]].mean().rename(index=KINDS, columns=columns).round(2)

# %% [markdown]
# ## All measures, by the way to sum and by condition
#
# Two measures are left: how unevenly attention is spread, and how much the sinks of one step are
# those of the next. The figure has a row for every way to sum; again the DLM's points differ only
# where the threshold does. The mass of *newest queries alone* is not scaled to a mean of 1, so its
# row is the one in even shares.

# %%
told = {"data": in_main, "caption": "means over prompts"}
plain = "How uneven attention is and how much sinks overlap, by the reading of a step"
shown = in_main[in_main.reading != "newest"]  # its mass has another scale
of_reading = (shown, "label", {name: METRICS[name] for name in ("spatial_variance", "overlap")})
draw(run, "readings", plain, forests.plot_by_row, *of_reading, **told)

# %% [markdown]
# The next figure has the literal reading and changes one thing at a time. Its first panel measures
# positions in lengths of the text. All conditions have the same number of steps, so longer texts
# write more tokens in a step: length does not change alone. The models were trained on up to 512
# tokens.

# %%
RELATIVE = {"temporal_variance_relative": "temporal variance\n(text lengths²)"}
RELATIVE |= {name: words for name, words in METRICS.items() if name != "temporal_variance"}
told = {"data": literal, "caption": "sum over all queries so far, means over prompts"}
like_main = [
    each.label for each in conditions if (each.text, each.sampler) == (main.text, main.sampler)
]
of_condition = (literal[literal.what.isin(like_main)], "what")
drawn = {name: RELATIVE[name] for name in ("temporal_variance_relative", "spatial_variance")}
plain = "How much sinks move and how uneven attention is, by condition"
draw(run, "conditions", plain, forests.plot_by_row, *of_condition, drawn, **told)

# %% [markdown]
# The folded table has all measures and further conditions: other text, Dream's sampler, and
# `<|endoftext|>` alone, where both models write from nothing. Where no sampler is named the DLM
# writes by LLaDA's, which fills in first what the model is surest of.

# %%
from sinkprune_companion.pages.render import Folded

cells = {}
for metric, words in RELATIVE.items():
    means = figures.intervals(literal, ["what", "kind"], metric)
    texts = [
        f"{number(row.value)} [{number(row.low)}, {number(row.high)}]" for row in means.itertuples()
    ]
    of_row = pd.MultiIndex.from_frame(means[["what", "kind"]], names=["condition", "model"])
    cells[words.replace("\n", " ")] = pd.Series(texts, of_row)
of_each = pd.MultiIndex.from_product([literal.what.unique(), KINDS], names=["condition", "model"])
Folded(pd.DataFrame(cells).reindex(of_each).rename(index=KINDS), "All conditions and measures")

# %% [markdown]
# ## Layer by layer, and which tokens they are
#
# So far mass was a mean over layers. In the picture every layer has sinks of its own, in the
# literal reading. In the DLM the strongest key gets little attention in the first three layers, in
# layers 10 and 11, and in the last one. There the sinks that the rule finds are small fluctuations,
# and more of them come and go. The AR model is similar in its first three layers and in layer 11.
# In its layer 10 the strongest key gets less attention than in layer 9, and yet its sinks stay.

# %%
layers = pd.concat(measured.by_layer, ignore_index=True)
found |= {f"{name}_difference_layers": sink_measures.difference(layers, name) for name in PAIRED}
run.find(found)
LAYERS = {
    "stable_share": "share of stable sinks",
    "top_share": "share of the attention\nto the strongest key",
}
means = [
    figures.intervals(layers, ["layer", "kind"], column).assign(measure=words)
    for column, words in LAYERS.items()
]
axes = {"layer": "layer (0 is the first)", "value": ""}
curves = (pd.concat(means), "layer", "value", "kind", axes, ("low", "high"))
told = {"data": layers, "caption": "bars: 95 % intervals", "panel": "measure"}
draw(run, "layers", "Sinks layer by layer", figures.plot_curves, *curves, **told)

# %% [markdown]
# The table goes back to the mean over layers. It lists the tokens that are sinks most often, with
# their share of all sinks, and with their *persistence*: the share of steps in which a position
# with that token is a sink. In the DLM a position may hold the mask token at one step and a word at
# the next; these count as two tokens.
#
# `<|endoftext|>` separates documents in the text that the models were trained on. No prompt has it,
# so where it is a sink the model has written it: it ends a document and goes on with another.

# %%
by_token = pd.concat(measured.by_token).replace({"kind": KINDS}).rename(columns={"kind": "model"})
Folded(by_token.set_index(["model", "token"]), "Which tokens are sinks")

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# * **By the paper's sum the DLM's sinks move more.** The difference in temporal variance, DLM − AR,
#   is 41 [16, 66] squared positions, and above zero in 44 of 60 prompts. Its median is 6.3, so a
#   few prompts make most of the mean. Over 512 tokens the difference is undecided, and over 1,024
#   it is 12,000 [3,300, 20,000], undecided after correction.
# * **The sum itself makes such a difference.** Old queries stay in the AR model's sum, so each step
#   can change it less. With random weights the difference is 850 [540, 1,200] over seeds. If a
#   token's attention is divided by its even share, the AR model's sinks move more, −250
#   [−290, −220], and by the newest queries alone it is undecided.
# * **In short texts most sinks stay, and in long ones fewer.** At 128 tokens 79 % of the DLM's stay
#   and 94 % of the AR model's, and with random weights 13 % and 67 %. At 1,024 tokens, more than
#   the models were trained on, the shares are 28 % and 57 %: most of the DLM's come and go, and the
#   AR model's are no stable anchors, either. At both lengths fewer of the DLM's stay.
# * **Attention is spread less evenly in the DLM**, by 3.8 [2.9, 4.6] squared mass, but more evenly
#   behind a special first token, −0.93 [−1.5, −0.40].
#
# **What this does not show.** None of the sums is the right one by itself. A token that the DLM
# writes after the first fifth of the steps can hardly be stable, which lowers its share. [From
# scratch](09_from_scratch.ipynb) most of the DLM's sinks do not stay, [other
# trainings](../docs/trainings.md) differ in part, and [controls](../docs/controls.md) has the rest.
#
# <details><summary>Another threshold, another sampler, and text as pruning reads it</summary>
#
# * With Rulli et al.'s threshold the DLM's sinks move more by 35 [9.3, 60], in 34 of 60 prompts,
#   and 80 % of them are stable, beside 67 % of the AR model's.
# * With Dream's sampler the DLM's share is 0.64 [0.46, 0.81], which leaves open whether most stay.
# * On text with masks, as pruning reads it, 24 % of the DLM's sinks are stable over the shares of
#   masks. These are no steps of writing, so this cannot be compared with the others.
#
# </details>

# %% [markdown]
# **What the numbers in the table of verdicts are.** Beside *sink positions vary more* it is the
# difference in temporal variance, DLM − AR. Beside *most sinks of a DLM are transient* it is the
# share of sinks that are **stable**, so a number above 0.5 contradicts the claim. Beside *sinks of
# an AR model are stable anchors* it is the same share of the AR model, and beside *fewer sinks are
# stable* the difference of the two shares. Beside *attention is spread more evenly* it is the
# difference in spatial variance.
#
# The folded tables have p-values, and all numbers. Temporal variance is in squared positions,
# spatial variance in squared mass with a mean of 1. Overlap and stable share are shares, whose t
# intervals may reach beyond 1.

# %%
from sinkprune_companion.pages.render import results_table

results_table(run)

# %% [markdown]
# **How p is corrected.** A row of the table above has the p of a t test, its number of looks, and
# the number of rows in its family. Rows of a family that this notebook does not have are those of
# notebooks 02 and 08.

# %%
from collections import Counter

from sinkprune_companion.ledger.results import results_for

results = results_for(run)
rows_of_family = Counter(claim.family for claim in results.ledger if claim.finding)
judged = []
for claim in results.ledger:
    if claim.notebook == run.notebook and claim.id in results.estimate:
        row = {"row": claim.says, "p": results.estimate[claim.id].p_value(claim.against)}
        row |= {"looks": claim.looks, "family": claim.family}
        row |= {"rows of it": rows_of_family[claim.family]}
        judged.append(row | {"p, corrected": results.p_corrected(claim.id)})
p_values = pd.DataFrame(judged)
p_values[["p", "p, corrected"]] = p_values[["p", "p, corrected"]].map(p_text)
Folded(p_values.set_index("row"), "p-values and their corrections")

# %% [markdown]
# All numbers, by measure, weights, and the reading or condition. *Sinks of every layer* are found
# layer by layer, and the measure is then averaged.

# %%
from sinkprune_companion.figures.forests import listed

MEASURES = {f"{name}_difference": f"{words}, DLM − AR" for name, words in METRICS.items()}
for kind, short in sink_measures.SHORT.items():
    MEASURES[f"stable_share_{short}"] = f"share of stable sinks, {KINDS[kind]}"
    MEASURES[f"stable_position_share_{short}"] = f"share of stable positions, {KINDS[kind]}"
    MEASURES[f"sinks_per_step_{short}"] = f"sinks per step, {KINDS[kind]}"

ENDINGS = {"": READINGS[LITERAL].label, "layers": "sinks of every layer"}
ENDINGS |= {name: reading.label for name, reading in READINGS.items()}
ENDINGS |= {each.name(main): each.label for each in conditions[1:]}
ENDINGS["calibration"] = "calibration text"

known = {name: estimate for name, estimate in found.items() if estimate is not None}
in_words = []
for name in known:
    of_trained = name.removeprefix("null_")
    start = max((start for start in MEASURES if of_trained.startswith(start)), key=len)
    ending = of_trained.removeprefix(start).removeprefix("_")
    weights = "trained" if of_trained == name else "random"
    words = (MEASURES[start].replace("\n", " "), weights, ENDINGS[ending])
    in_words.append(words)

table = listed(known, prompts=[estimate.units for estimate in known.values()])
levels = ["measure", "weights", "reading or condition"]
table.index = pd.MultiIndex.from_tuples(in_words, names=levels)
Folded(table)

# %% [markdown]
# ## Exercises
#
# 1. Set `temperature` to 0. Do the models repeat themselves, and do sinks move less?
# 2. Set `sink_std` to 3. Expect fewer sinks. Do more of them stay?
#
# **What this does not show.** There is one pair of small models (135M parameters). They differ in
# direction and objective, write different texts, and were not trained on equally many tokens. How
# the paper divides a causal text into steps is not known. Whether a model *needs* a sink that moves
# is another question: [notebook 02](02_are_sinks_needed.ipynb) hides it.

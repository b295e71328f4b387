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
# # 09 · From scratch
#
# **Question.** The pair of the other notebooks was adapted from an autoregressive (AR) model, and
# may have kept its sinks. Are the claims about sinks true of two small models that started from
# random weights: that sinks move more in a diffusion model (DLM), that it needs them less, and that
# pruning may leave them out? One was trained to denoise, the other to predict the next token, from
# the same weights, on the same text in the same order. Both are weak, which limits every answer, so
# how weak they are is measured first.

# %% [markdown] tags=["answer"]
# **Answer.** From scratch, too, the DLM's sinks move more by the paper's measure, and most of them
# do not stay, but untrained models of the same shape differ in the same way. Whether sinks are
# needed, or may be left out of pruning, models this weak cannot tell, since hiding sinks costs both
# kinds next to nothing, and so does making half of the DLM's weights zero.
#
# ![How much sinks move and how many stay, of every training and of untrained
# models](../figures/09_from_scratch/sinks.png)
#
# - **How much they move,** DLM − AR: 110 [59, 170] squared positions, and 410 [280, 550] untrained.
# - **How many stay:** 34 % of the DLM's sinks and 69 % of the AR model's. Of the adapted DLM it is
#   79 % ([notebook 01](01_do_sinks_move.ipynb)).
# - **How weak the DLM is:** its loss lies 1.4 nats per token above that of a table of token pairs.

# %% [markdown]
# *Sinks* are the few tokens that draw far more attention than the rest ([notebook
# 00](00_start_here.ipynb) shows one). Their *centroid* is their mean position, weighted by the
# attention that they draw. How much they move is the *temporal variance* of the centroid: how much
# it varies over the steps in which a text is written. How many stay is the share of their
# occurrences at *stable* positions, which are a sink in at least 80 % of the steps. *Untrained*
# models have the same shape and random weights. Other words are those of the
# [glossary](../docs/glossary.md).
#
# Every measurement is made on several trainings of each kind. Intervals cover how trainings differ,
# and how prompts or sequences do.

# %% [markdown]
# **Parameters**, as *Run all* takes them. With these defaults the models train for a minute: that
# shows how everything works, and says nothing about the claims. The pictures and numbers stored on
# this page are of a larger run, the [profile](../docs/glossary.md) `evidence`, whose values the
# set-up below lists.
#
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 2 core-minutes, estimated | 2 GB |
# | evidence | about 110 core-minutes on a processor with AMX | 2 GB a job |

# %% tags=["main-parameters"]
profile: str = "manual"  # results go to runs/<profile>
tokens: int = 8192  # training tokens of each model
crop_lengths: list[int] = [64, 128]  # tokens per crop of training text
batch_tokens: int = 2048  # tokens per step
seeds: int = 2  # trainings of each kind
prompts: int = 4  # held-out prompts to continue
steps: int = 8  # denoising steps; the AR model's queries are cut into as many windows
length: int = 64  # tokens of a finished text, and of a scored sequence
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
hidden: int = 5  # keys to hide in the middle third of the layers
calibration: int = 2  # calibration sequences
noise_levels: int = 4  # noise levels at which each of them is seen

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
first_seed: int = 0  # number of the first training: one cell of a sweep takes one
prompt_length: int = 32  # tokens of each prompt
draws: int = 1  # noise draws per sequence
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
stability_threshold: float = 0.8  # a position that is a sink in this share of steps is stable
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best
training: str = "auto"  # dtype of the products while training: bfloat16 or float32

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.experiments.parameters import start

run = start("09_from_scratch", globals())

# %% [markdown]
# ## What is expected
#
# The adapted pair shares its base, so its sinks may come from there. If what the paper says holds
# for models that were trained to denoise from the start, then (a) sinks move more in the DLM, (b)
# hiding them costs it less, and (c) leaving them out when weights are scored does not hurt it.
#
# **What would falsify it.** For (a), sinks that move as much in the AR model, by the temporal
# variance of their centroid; for (b), that hiding sinks in the middle layers costs the DLM as much;
# for (c), that leaving unstable sinks out of the statistics costs more than matters.
#
# ## Training
#
# The models are Llamas of 5 million weights. Their vocabulary of 1,024 is made of the training
# text: samples of the AR base of the adapted pair, and the documentation of all packages that are
# installed, so other packages give other models and other numbers. Both kinds of one seed begin
# with the same weights.
#
# In the DLM's first 768,000 training tokens a fifth is masked, and after these a random share. In a
# first trial, of which no record is kept, the share was random from the start, and the model
# learned no more than how frequent each token is. The command is
# `sinkprune train --from-scratch`; a training that was stopped goes on where it was.

# %%
from sinkprune_companion.training.export import export
from sinkprune_companion.training.lora import train
from sinkprune_companion.training.settings import Training, check_settings, training_dtype

KINDS = ("diffusion", "autoregressive")
home = run.records.parent
trained = {}
for seed in range(first_seed, first_seed + seeds):
    for kind in KINDS:
        settings = Training(
            kind=kind,
            from_scratch=True,
            tokens=tokens,
            lengths=crop_lengths,
            batch_tokens=batch_tokens,
            seed=seed,
            dtype=training_dtype(training, run.device),
        )
        name = f"native-{kind}-{tokens}-{settings.dtype}-{seed}"
        trained[kind, seed] = home / "models" / name
        if trained[kind, seed].exists():
            check_settings(settings, trained[kind, seed])
        else:
            checkpoint = train(settings, home / "trainings" / name, device=run.device)
            export(checkpoint, trained[kind, seed])

# %% [markdown]
# ## How good are they?
#
# The loss in nats per token of held-out text, of the DLM a bound, beside a unigram and a bigram
# model, which count single tokens and pairs of tokens in the shipped training text. The first uses
# no context, the second one token of it. A model that is worse than the second makes less of its
# whole context than a table makes of one token.

# %%
import pandas as pd
from sinkprune.models.loading import load
from sinkprune_companion.experiments.ngram_levels import ngram_levels
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.run.texts import held_out_texts

models = {key: load(folder, dtype, run.device) for key, folder in trained.items()}
prints = {key: lm.fingerprint() for key, lm in models.items()}
tokenizer = models["diffusion", first_seed].tokenizer
assert all(lm.tokenizer.get_vocab() == tokenizer.get_vocab() for lm in models.values())
texts = held_out_texts(tokenizer, sequences, length)
frames = []
for (kind, seed), lm in models.items():
    with Variant(lm, prints[kind, seed]) as dense:
        about = {"kind": kind, "training": seed}
        frames.append(dense.scores(run, texts, draws, noise=seed, **about))
quality = pd.concat(frames, ignore_index=True)
levels = ngram_levels(tokenizer, texts)
of_levels = levels.groupby(levels.text.str.partition("/")[0])[["unigram", "bigram"]].mean()
quality.pivot_table("value", "text", "kind").join(of_levels).round(2)

# %% [markdown]
# ## Do sinks move?
#
# The paper's measure is the temporal variance of the centroid, as in [notebook
# 01](01_do_sinks_move.ipynb). A token's attention is summed over all queries that exist at a step.
# In the DLM every query runs again, so these are the queries of that step. The AR model computes
# each query once: its steps are windows of queries, and the sum runs over all windows so far. Such
# a sum tends to settle whatever the model has learned.
#
# Beside the trained models stand untrained ones of the same shape: what these show was not made by
# training. Their attention is almost even, and the rule still finds sinks, which are the largest
# fluctuations.
#
# First, the prompts and how they are continued. A prompt is a crop of held-out English that begins
# in the middle of a paragraph. Both kinds of one training get the same prompts:

# %%
import torch
from sinkprune_companion.experiments import sink_conditions

condition = sink_conditions.Condition("natural", first_token=False, tokens=length)
sampler = sink_conditions.sampler_of(condition, prompt_length, steps, temperature=1.0)


def prompts_of(lm, seed: int) -> torch.Tensor:
    """Prompts in a model's vocabulary that the seed draws, (prompts, tokens)."""
    drawn = sink_conditions.prompts(lm.tokenizer, condition, prompts, prompt_length, seed)
    return drawn[condition.text]


# %% [markdown]
# Then a model continues its prompts, and its attention is recorded at every step:

# %%
from sinkprune_core.sinks.trace import Trace, trace


def traced(lm, seed: int) -> Trace:
    """The attention of a model while it writes, from the record where there is one."""
    prompt_BT = prompts_of(lm, seed)

    def compute() -> Trace:
        return trace(lm, prompt_BT, sampler, seed, batch=4)

    key = {"model": lm.fingerprint(), "sampler": sampler, "prompts": prompt_BT.tolist()}
    return run.artifact(f"trace-{lm.kind}", Trace, compute, **key, seed=seed)


# %% [markdown]
# Each trained model is measured beside an untrained one. Of the ways to sum attention that
# `by_reading` knows, `LITERAL` is the sum over all queries:

# %%
from sinkprune_companion.experiments import random_null, sink_measures
from sinkprune_companion.readings import LITERAL

rows = []
for (kind, seed), lm in models.items():
    untrained = random_null.with_random_weights(lm, seed, dtype, run.device)
    for state, one in {"trained": lm, "untrained": untrained}.items():
        attention = traced(one, seed)
        measured = sink_measures.by_reading(attention, sink_std, stability_threshold, kind=kind)
        rows.append(measured.assign(training=seed, state=state))

sinks = pd.concat(rows, ignore_index=True)
by_the_sum = sinks[sinks.reading == LITERAL]

# %% [markdown]
# The table has means over trainings and prompts. The variance is in squared positions, and the
# share is that of occurrences at stable positions:

# %%
METRICS = {
    "temporal_variance": "temporal variance",
    "stable_share": "share at stable positions",
    "sinks_per_step": "sinks in a step",
}
means = by_the_sum.groupby(["state", "kind"])[[*METRICS]].mean()
means.rename(columns=METRICS).round(3)

# %% [markdown]
# ## Does a model need them?
#
# As in [notebook 02](02_are_sinks_needed.ipynb), the keys that draw the most attention, or as many
# random ones, are hidden in the middle third of the layers. The table says what that costs in nats
# per token, and three shares of the attention of these layers: what the hidden keys had together,
# what each of them had on average, and what the strongest of the other keys gets once they are
# hidden. Where the last share is no smaller than the one before it, another key has taken over.
# Where random keys are hidden, the strongest key left is the strongest of all:

# %%
from sinkprune_companion.experiments.hiding_scores import hiding_scores
from sinkprune_companion.hiding import Hiding

HIDINGS = [Hiding(keys, hidden, layers="middle") for keys in ("top", "random")]
parts = []
for (kind, seed), lm in models.items():
    scored = hiding_scores(run, lm, prints[kind, seed], HIDINGS, texts, draws)
    parts.append(scored.assign(kind=kind, training=seed))
without_keys = pd.concat(parts, ignore_index=True)
some_hidden = without_keys[without_keys["count"] > 0]

of_each = some_hidden.assign(of_each=some_hidden.attention / hidden)
COLUMNS = {
    "excess": "cost",
    "attention": "hidden keys had together",
    "of_each": "each hidden key had",
    "left": "strongest left gets",
}
shown = of_each.groupby(["kind", "keys"])[[*COLUMNS]].mean()
shown.rename(columns=COLUMNS).round(3)

# %% [markdown]
# ## Which sinks matter when weights are scored?
#
# Here the DLMs are pruned by Wanda to 50 %, on noised text, with every block fed what the dense
# model feeds it (*dense propagation*). What is left out of the statistics is all that differs, as
# in [notebook 08](08_what_results_depend_on.ipynb). A sink is *stable* here if it is one at 80 % or
# more of the noise levels, not of the steps. *Random* leaves out as many tokens as there are sinks.
# Each training has a calibration draw and noise of its own. The table has the loss, and which
# percentage of the calibration tokens was left out:

# %%
from sinkprune_companion.experiments import stable_sinks
from sinkprune_companion.experiments.variants import SharedStatistics
from sinkprune_companion.run.texts import calibration_draw

given = {"sink_std": sink_std, "stability_threshold": stability_threshold}
recipes = stable_sinks.recipes(0.5, noise_levels, **given)
frames = []
for (kind, seed), lm in models.items():
    if kind != "diffusion":
        continue
    text = calibration_draw(lm, calibration, length, seed)
    shared = SharedStatistics(lm, list(recipes.values()), text)
    for left_out, recipe in recipes.items():
        with Variant(lm, prints[kind, seed], recipe, text, shared) as variant:
            about = {"left_out": left_out, "training": seed}
            frames.append(variant.scores(run, texts, draws, noise=seed, **about))
pruned = pd.concat(frames, ignore_index=True)

shown = pruned.groupby("left_out", sort=False)[["value", "left_out_share"]].mean()
shown["left_out_share"] *= 100
shown.columns = ["NELBO", "tokens left out (%)"]
shown.round({"NELBO": 4, "tokens left out (%)": 2})

# %% [markdown]
# ## The findings
#
# One measure, written out: the temporal variance of the trained DLMs. Its table has a row for each
# training and a column for each prompt. The number is the mean of all cells, and its interval
# covers how rows differ, and how columns do.

# %%
from sinkprune.evaluation.intervals import Estimate, crossed_interval

trained_only = by_the_sum[by_the_sum.state == "trained"]
of_dlms = trained_only[trained_only.kind == "diffusion"]
table = of_dlms.pivot_table("temporal_variance", index="training", columns="prompt")
print(f"{len(table)} trainings, {len(table.columns)} prompts, mean {table.to_numpy().mean():.1f}")

# %% [markdown]
# All other measures are taken in the same way, of both kinds of model. What is measured of a scored
# sequence has a column for each sequence. A prompt in which some training has no sink is left out:

# %%
import numpy as np


def table_of(frame: pd.DataFrame, kind: str, column: str, unit: str) -> np.ndarray:
    """A column of one kind of model, (trainings, units); NaN of a text without a sink."""
    chosen = frame[frame.kind == kind]
    return chosen.pivot_table(column, "training", unit, dropna=False).to_numpy()


def over_trainings(values_RN: np.ndarray) -> Estimate | None:
    """The mean over trainings and the units that all have; None of fewer than two units."""
    has_all_N = ~np.isnan(values_RN).any(axis=0)
    whole_RN = values_RN[:, has_all_N]
    return crossed_interval(whole_RN) if whole_RN.shape[1] > 1 else None


# %% [markdown]
# These are the measures. That of hiding is what the strongest keys cost beyond random ones, and
# that of quality is how far the loss lies above that of the bigram model:

# %%
untrained_only = by_the_sum[by_the_sum.state == "untrained"]

by_keys = some_hidden.pivot_table("excess", ["kind", "training", "sequence"], "keys")
hiding = by_keys.assign(beyond=by_keys.top - by_keys.random).reset_index()

bigram_of = levels.set_index("sequence").bigram
beside_bigram = quality.assign(above=quality.value - quality.sequence.map(bigram_of))

MEASURES = {
    "temporal_variance": (trained_only, "temporal_variance", "prompt"),
    "temporal_variance_untrained": (untrained_only, "temporal_variance", "prompt"),
    "stable_share": (trained_only, "stable_share", "prompt"),
    "top_minus_random": (hiding, "beyond", "sequence"),
    "minus_bigram": (beside_bigram, "above", "sequence"),
}
found = {}
for name, (frame, column, unit) in MEASURES.items():
    for kind, short in sink_measures.SHORT.items():
        values_RN = table_of(frame, kind, column, unit)
        found[f"{name}_{short}"] = over_trainings(values_RN)

# %% [markdown]
# Then come the differences that the ledger of claims asks about; fewer than five trainings give no
# verdict. First the two kinds of model are compared, training by training. A difference in the
# costs of hiding matters if it is at least 0.05 nats per token:

# %%
DIFFERENCES = {
    "temporal_variance_difference": "temporal_variance",
    "temporal_variance_difference_untrained": "temporal_variance_untrained",
    "excess_difference_middle_layers": "top_minus_random",
}
for finding, name in DIFFERENCES.items():
    frame, column, unit = MEASURES[name]
    of_dlm_RN = table_of(frame, "diffusion", column, unit)
    of_ar_RN = table_of(frame, "autoregressive", column, unit)
    found[finding] = over_trainings(of_dlm_RN - of_ar_RN)

# %% [markdown]
# Last comes what leaving tokens out costs the pruned DLM. That matters if it is at least 4.59 % of
# what pruning costs, half of the share that the paper's method takes back at 8B. Where that cost is
# not told from zero there is no margin and no verdict.

# %%
from sinkprune_companion.margins import beside_damage

dense_RN = table_of(quality, "diffusion", "value", "sequence")
pruned_by = dict(list(pruned.assign(kind="diffusion").groupby("left_out")))
all_kept_RN = table_of(pruned_by["none"], "diffusion", "value", "sequence")
found["wanda_minus_dense"] = crossed_interval(all_kept_RN - dense_RN)

COMPARED = {
    "unstable": "unstable",
    "stable": "stable",
    "all": "all_sinks",
    "random": "random",
    "random, as many as stable": "random_stable",
}
for left_out, short in COMPARED.items():
    without_RN = table_of(pruned_by[left_out], "diffusion", "value", "sequence")
    found[f"{short}_minus_none"] = beside_damage(without_RN - all_kept_RN, all_kept_RN - dense_RN)
run.find(found)

# %% [markdown]
# ## How much the sinks move, training by training
#
# Each training has its row, and each untrained pair. Left is the temporal variance of the centroid,
# on a logarithmic axis, right the share of occurrences at stable positions. Compare the rows of one
# colour: what untrained models show, too, need not have been learned.

# %%
from IPython.display import display
from sinkprune_companion.figures import figures, forests, titles

title = titles.title(run, "sinks", "Sinks of both kinds of model from scratch, by training")
labels = {
    "temporal_variance": "temporal variance (squared positions)",
    "stable_share": "share of occurrences at stable positions",
}
shown = by_the_sum.sort_values(["state", "training"], kind="stable")
shown = shown.assign(row=shown.state + " " + shown.training.astype(str))
drawn = forests.plot_by_row(shown, "row", labels, title)

of_variance, of_share = drawn.axes
of_variance.set_xscale("log")
of_variance.xaxis.set_major_formatter("{x:g}")
of_share.set_xlim(0, 1)  # no share is below zero, so an interval ends there
of_share.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])

caption = f"{title}: means over prompts with 95 % intervals"
data = shown[["kind", "row", "prompt", *labels]]
display(figures.save_figure(run, drawn, "sinks", data, caption))

# %% [markdown]
# ## What leaving sinks out costs
#
# Each row is the DLM pruned without some tokens less the same with all tokens.

# %%
from sinkprune_companion.figures.forests import forest_table

title = titles.title(run, "left_out", "What leaving tokens out costs a DLM trained from scratch")
costs = {f"left out: {name}": found[f"{short}_minus_none"] for name, short in COMPARED.items()}
drawn = forests.plot_forest(costs, "NELBO above none left out (nats per token)", title=title)
caption = f"{title}: with 95 % intervals over trainings and sequences"
display(figures.save_figure(run, drawn, "left_out", forest_table(costs), caption))

# %% [markdown]
# ## The reading
#
# Numbers are rounded one by one, so a difference need not be that of the rounded numbers.

# %% [markdown] tags=["reading"]
# * **The models are weak.** The DLM's loss, a bound, lies 1.4 nats per token above that of a bigram
#   model, and the AR model's 0.53 below it. So the DLM has learned something, as it is better than
#   a unigram model, but it has little to lose.
# * **(a) The DLM's sinks move more, trained or not.** The difference in temporal variance, DLM −
#   AR, is 110 [59, 170] squared positions over 5 trainings of each kind, and 410 [280, 550] in
#   untrained models. So the sign is no sign of training.
# * **Most of the DLM's sinks do not stay.** 34 % of their occurrences are at stable positions,
#   beside 79 % in the adapted DLM, whose sinks may come from its base. Of the AR model's it is
#   69 %, about as many as without training.
# * **(b) Hiding sinks costs neither model anything that matters.** The extra cost differs by
#   0.00095 [−0.0056, 0.0075], DLM − AR. This was almost certain beforehand: 0.050 would matter, and
#   hiding costs each model far less. Another token takes over, too.
# * **(c) What leaving sinks out does to pruning cannot be told.** Making half of the DLM's weights
#   zero changes its loss by 0.0084 [−0.0046, 0.022], which is not told from zero, so there is no
#   margin. Leaving unstable sinks out changes it by 0.00039 [−0.00037, 0.0011], and all sinks by
#   0.00040 [−0.00036, 0.0012]: undecided.
#
# **What this does not show.** The same trainings, made on another processor, gave a larger
# difference in (a), outside the interval above ([history](../figures/claims.md)). So its sign is
# safe, and its size is not. The paper's LLaDA was trained from scratch, and these models are too
# small to stand for it. [Controls](../docs/controls.md) has the rest.

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.pages.render import Folded, results_table

results_table(run)

# %% [markdown]
# All numbers:

# %%
known = {name: estimate for name, estimate in found.items() if estimate}
Folded(listed(known, margin=[estimate.margin for estimate in known.values()]))

# %% [markdown]
# ## Exercises
#
# 1. Set `tokens` to 200,000, for which the training takes about four core-minutes (estimated from
#    the pair of notebook 04 in [docs/performance.md](../docs/performance.md)). Is the DLM's loss
#    below that of a unigram model, and do its sinks move less than those of untrained models?
# 2. Set `hidden` to 20. Does another key still take over?
#
# **What this does not show.** The models have five million weights and saw one and a half million
# tokens. A model that hardly uses its context can hardly be damaged, by hiding keys or by pruning.
# Both kinds saw equally many tokens, of which a DLM learns less, and the DLM had few masks first.

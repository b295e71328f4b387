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
# **Question.** The pair of the other notebooks was adapted from an AR model, and may have kept its
# sinks. Do the claims hold for two small models that saw nothing before? One was trained to
# denoise, one to predict the next token, from the same weights, on the same text in the same order.
# Both are weak, which limits every answer, so how weak they are is measured first.

# %% [markdown] tags=["answer"]
# **Answer.** Only one of three answers is that of the adapted pair: by the paper's measure the
# sinks of the DLM move more here, too. Those of an untrained DLM move more still. They stay in
# place far less often than the adapted DLM's: 34 % of their occurrences are at stable positions,
# there 79 %. Whether they are needed, and what leaving them out does to pruning, these models
# cannot tell: the DLM is worse than a table of token pairs, and making half of its weights zero
# costs it next to nothing.
#
# The picture to look at is [how much sinks move from
# scratch](../figures/09_from_scratch/sinks.png).

# %% [markdown]
# ![How much sinks move, from scratch](../figures/09_from_scratch/sinks.png)
#
# The published run, training by training: left, how far the centroid of the sinks moves while a
# text is written; right, the share of their occurrences at positions that stay a sink. How it is
# made follows.

# %% [markdown]
# Every measurement is made on several trainings of each kind. Intervals cover how trainings differ,
# and prompts or sequences.
#
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 2 core-minutes, estimated | 2 GB |
# | evidence | about 110 core-minutes with AMX | 2 GB a job |
#
# **Parameters**, with the values that *Run all* takes: the models train for a minute, which shows
# the machinery and says nothing about the claims.

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
from sinkprune_companion.run.parameters import start

run = start("09_from_scratch", globals())

# %% [markdown]
# ## What is expected
#
# The adapted pair shares its base, so its sinks may come from there. If what the paper says holds
# for models that were trained to denoise from the start, then (a) sinks move more in the DLM, (b)
# hiding them costs it less, and (c) leaving them out when weights are scored does not hurt it.
#
# **What would falsify it.** The temporal variance of the centroid is as high in the AR model;
# hiding sinks in the middle layers costs the DLM as much; leaving unstable sinks out of the
# statistics costs more than matters.
#
# ## Training
#
# A Llama of 5 million weights, with a vocabulary of 1,024, made of the training text: samples of
# the base, and the documentation of all packages that are installed, so other packages give other
# models and other numbers. Both kinds of one seed begin with the same weights. In its first 768,000
# training tokens, if it gets so many, the DLM has a fifth of them masked, then any share: in a
# first trial, of which no record is kept, it stayed at the level of token frequencies when it had
# all shares from the start. The command is `sinkprune train --from-scratch`; a training that was
# stopped goes on where it was.

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
# Nats per token of held-out text, beside a unigram and a bigram model that were fitted on the
# shipped training text. A model that is no better than these has not learned to use a context.

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
# The paper's measure, as in [notebook 01](01_do_sinks_move.ipynb): the temporal variance of the
# sink centroid over the steps in which a text is written, by the sum over all queries so far.
# Beside the trained models stand untrained ones of the same shape, whose weights are random: what
# they show, training did not make.

# %%
import torch
from sinkprune_companion.experiments import random_null, sink_conditions, sink_measures
from sinkprune_core.sinks.readings import LITERAL
from sinkprune_core.sinks.trace import Trace, trace

(condition,) = sink_conditions.conditions(["natural"], [False], [length], ["llada"])
sampler = sink_conditions.sampler_of(condition, prompt_length, steps, temperature=1.0)
written_by = {(*key, "trained"): lm for key, lm in models.items()}
for (kind, seed), lm in models.items():
    untrained = random_null.with_random_weights(lm, seed, dtype, run.device)
    written_by[kind, seed, "untrained"] = untrained
rows = []
for (kind, seed, state), lm in written_by.items():
    chosen = sink_conditions.prompts(lm.tokenizer, condition, prompts, prompt_length, seed)
    prompt_BT = torch.cat(list(chosen.values()))
    one = run.artifact(
        f"trace-{kind}",
        Trace,
        lambda lm=lm, prompt_BT=prompt_BT, seed=seed: trace(lm, prompt_BT, sampler, seed, 4),
        model=lm.fingerprint(),
        sampler=sampler,
        prompts=prompt_BT.tolist(),
        seed=seed,
    )
    measured = sink_measures.by_reading(one, sink_std, stability_threshold, kind=kind)
    rows.append(measured.assign(training=seed, state=state))
sinks = pd.concat(rows, ignore_index=True)
by_the_sum = sinks[sinks.reading == LITERAL]
literal = by_the_sum[by_the_sum.state == "trained"]
METRICS = ["temporal_variance", "stable_share", "sinks_per_step"]
by_the_sum.groupby(["state", "kind"])[METRICS].mean().round(3)

# %% [markdown]
# ## Does a model need them?
#
# The strongest keys, or as many random ones, hidden in the middle third of the layers, as in
# [notebook 02](02_are_sinks_needed.ipynb): what that costs in nats per token, which share of the
# attention of these layers the hidden keys had together, and which the strongest key that is left
# gets then. Where that is as much as one sink had, another key has taken over.

# %%
from sinkprune_companion.experiments.hiding_scores import hiding_scores
from sinkprune_core.sinks.hiding import Hiding

HIDINGS = [Hiding(keys, hidden, layers="middle") for keys in ("top", "random")]
parts = []
for (kind, seed), lm in models.items():
    scored = hiding_scores(run, lm, prints[kind, seed], HIDINGS, texts, draws)
    parts.append(scored.assign(kind=kind, training=seed))
without_keys = pd.concat(parts, ignore_index=True)
some_hidden = without_keys[without_keys["count"] > 0]
COLUMNS = {"excess": "cost", "attention": "hidden keys had", "left": "strongest left gets"}
shown = some_hidden.groupby(["kind", "keys"])[[*COLUMNS]].mean()
shown.rename(columns=COLUMNS).round(3)

# %% [markdown]
# ## Which sinks matter when weights are scored?
#
# The DLMs, pruned by Wanda to 50 % on noised text with dense propagation; what is left out of the
# statistics is all that differs, as in [notebook 08](08_what_results_depend_on.ipynb). Each
# training has a calibration draw and noise of its own.

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
shown.columns = ["NELBO", "tokens left out"]
shown.round(4)

# %% [markdown]
# ## The findings
#
# By training and unit: prompts, or sequences. First each model for itself:

# %%
import numpy as np
from sinkprune.evaluation.intervals import Estimate, crossed_interval


def table_of(frame: pd.DataFrame, column: str, unit: str) -> np.ndarray:
    """A column by training and unit, (trainings, units); NaN of a text without a sink."""
    return frame.pivot_table(column, "training", unit, dropna=False).to_numpy()


def over_trainings(values_RN: np.ndarray) -> Estimate | None:
    """The mean over trainings and the units that all have; None of fewer than two units."""
    whole_RN = values_RN[:, ~np.isnan(values_RN).any(0)]
    return crossed_interval(whole_RN) if whole_RN.shape[1] > 1 else None


# %% [markdown]
# What is measured, by kind of model:

# %%
beyond_random = some_hidden.pivot_table("excess", ["kind", "training", "sequence"], "keys")
beyond_random = beyond_random.eval("beyond = top - random").reset_index()
measured = {}  # (trainings, units) by name and kind
for kind in KINDS:
    traces, scored, hidings = (
        frame[frame.kind == kind] for frame in (literal, quality, beyond_random)
    )
    untrained = by_the_sum[(by_the_sum.kind == kind) & (by_the_sum.state == "untrained")]
    measured["temporal_variance", kind] = table_of(traces, "temporal_variance", "prompt")
    values_RN = table_of(untrained, "temporal_variance", "prompt")
    measured["temporal_variance_untrained", kind] = values_RN
    measured["stable_share", kind] = table_of(traces, "stable_share", "prompt")
    measured["top_minus_random", kind] = table_of(hidings, "beyond", "sequence")
    above = table_of(scored, "value", "sequence") - levels.bigram.to_numpy()
    measured["minus_bigram", kind] = above
SHORT = {"diffusion": "dlm", "autoregressive": "ar"}
found = {
    f"{name}_{SHORT[kind]}": over_trainings(values_RN)
    for (name, kind), values_RN in measured.items()
}

# %% [markdown]
# Then the differences that the ledger asks about; fewer than five trainings give no verdict. A
# difference in costs of hiding matters from 0.05 nats per token on. One of leaving tokens out
# matters from 4.6 % of what pruning costs on, half of what the paper's method takes back at 8B;
# where that cost is not told from zero there is no margin and no verdict.

# %%
from sinkprune_companion.ledger.margins import with_share_of_damage

DIFFERENCES = {
    "temporal_variance_difference": "temporal_variance",
    "temporal_variance_difference_untrained": "temporal_variance_untrained",
    "excess_difference_middle_layers": "top_minus_random",
}
for finding, name in DIFFERENCES.items():
    found[finding] = over_trainings(measured[name, KINDS[0]] - measured[name, KINDS[1]])
dense = table_of(quality[quality.kind == "diffusion"], "value", "sequence")
by_left_out = {
    left_out: table_of(part, "value", "sequence") for left_out, part in pruned.groupby("left_out")
}
found["wanda_minus_dense"] = crossed_interval(by_left_out["none"] - dense)
COMPARED = {"unstable": "unstable", "stable": "stable", "all": "all_sinks", "random": "random"}
COMPARED["random, as many as stable"] = "random_stable"
for left_out, short in COMPARED.items():
    cost = crossed_interval(by_left_out[left_out] - by_left_out["none"])
    found[f"{short}_minus_none"] = with_share_of_damage(cost, found["wanda_minus_dense"])
run.find(found)

# %% [markdown]
# ## How much the sinks move, training by training
#
# Each training has its row, and each untrained pair. Left, how far the centroid of the sinks moves
# while a text is written. Right, the share of their occurrences at positions that are a sink in at
# least 80 % of the steps.

# %%
from IPython.display import display
from sinkprune_companion.figures import figures, forests
from sinkprune_companion.pages import render

title = render.title(run, "sinks", "Sinks of both kinds of model from scratch, by training")
labels = {"temporal_variance": "temporal variance (squared positions)"}
labels["stable_share"] = "share of occurrences at stable positions"
shown = by_the_sum.sort_values(["state", "training"], kind="stable")
shown = shown.assign(row=shown.state + " " + shown.training.astype(str))
drawn = forests.plot_by_row(shown, "row", labels, title)
caption = f"{title}: means over prompts with 95 % intervals"
display(
    figures.save_figure(run, drawn, "sinks", shown[["kind", "row", "prompt", *labels]], caption)
)

# %% [markdown]
# ## What leaving sinks out costs

# %%
from sinkprune_companion.figures.forests import forest_table

title = render.title(run, "left_out", "What leaving tokens out costs a DLM trained from scratch")
costs = {f"left out: {name}": found[f"{short}_minus_none"] for name, short in COMPARED.items()}
drawn = forests.plot_forest(costs, "NELBO above none left out (nats per token)", title=title)
caption = f"{title}: with 95 % intervals over trainings and sequences"
display(figures.save_figure(run, drawn, "left_out", forest_table(costs), caption))

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# * **How weak they are, first.** The DLM's bound is 1.4 nats per token above the loss of a bigram
#   model, so it is worse than a table of token pairs; the AR model's loss 0.53 below it; making
#   half of its weights zero changes the DLM's by 0.0084 [−0.0046, 0.022], so not clearly at all.
#   Such a model has little to lose, so that nothing costs it anything had to be expected.
# * **(a) From scratch, too, the DLM's sinks move more**: the temporal variance of their centroid is
#   140 squared positions, 24 in the AR model, a difference of 110 [59, 170] over 5 trainings of
#   each kind. But in untrained models of the same shape it is 420 and 0.40: training did not make
#   the difference, it made it smaller. Half of the DLM's training had a fifth of the tokens masked,
#   which may itself have a part in where its sinks are. 34 % of the occurrences are at stable
#   positions, in the AR model 69 %.
# * The adapted DLM has 79 % at stable positions while it writes texts of 128 tokens. That its sinks
#   stay may come from its base, and the paper's models from scratch may differ from it in this.
# * **(b) Hiding sinks costs neither of them anything that matters**, which a pair this weak had to
#   show. The hidden keys get little attention to begin with (the table above). Five keys hidden in
#   the middle third cost the DLM 0.0050 [−0.0018, 0.012] and the AR model 0.0040 [−0.00017, 0.0082]
#   nats more than random keys do, a difference of 0.00095 [−0.0056, 0.0075]. Without the five
#   another key gets as much as one of them had (the table above), so this says little about being
#   without sinks. That sinks matter less to a DLM, as in the adapted pair, is not seen here; a pair
#   that hardly uses its context could not show it.
# * **(c) What leaving sinks out does cannot be told**: unstable ones 0.00039 [−0.00037, 0.0011],
#   stable ones −0.000071 [−0.00042, 0.00028], all of them 0.00040 [−0.00036, 0.0012] at 50 %. A
#   margin would be a share of what pruning costs, which is not told from nothing here, so there is
#   none.
# * **Five trainings are few.** The same trainings on another kind of processor, whose rounding
#   differs, gave a larger difference in (a), of the same sign and beyond the interval above
#   ([history](../figures/claims.md)), which then does not hold the chance of a rerun: of (a) the
#   sign alone is safe.

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
# 1. Set `tokens` to 200,000. Is the DLM's loss below that of a unigram model, and do its sinks move
#    less than those of untrained models?
# 2. Set `hidden` to 20. Does another key still take over?
#
# **What this does not show.** Five million weights and one and a half million tokens: a model that
# hardly uses its context can hardly be damaged, by hiding keys or by pruning. Both kinds saw equal
# tokens, of which a DLM learns less, and the DLM had few masks first.

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
# # 05 · Or rather fewer denoising steps? Matched compute
#
# **Question.** A diffusion language model (DLM) can be made cheaper in two ways: fewer weights, or
# fewer denoising steps, which need no calibration. At the same compute, which gives the better
# model, and does sink-aware pruning beat its baselines there?

# %% [markdown] tags=["answer"]
# **Answer.** Fewer denoising steps are the better bargain: at equal compute the unpruned model in
# fewer steps has a lower loss than each pruned one, even if every zero saved its arithmetic. This
# was measured in 16 and in 64 steps of one small model; the gap is smaller in 16, and below that
# nothing was measured.
#
# ![Loss against compute: the line of the unpruned model in fewer steps lies below those of all
# pruned models.](../figures/05_matched_compute/front.png)
#
# * **The gap**, a mean over both numbers of steps, is 0.22 nats per token for the official recipe,
#   0.20 for Wanda, 0.15 for SparseGPT and 0.11 for `recommended`.
# * **It is smallest** for `recommended` in 16 steps, 0.057 [0.0056, 0.11], where 0.015 would
#   matter.
# * **Sinks.** At equal sparsity, `unstable`, which leaves unstable sinks out, is not seen to beat
#   Wanda: 0.0032 [−0.011, 0.018].

# %% [markdown]
# **Parameters**, as *Run all* takes them. These defaults take minutes. The pictures and numbers
# stored on this page are of a larger run, a [profile](../docs/glossary.md), whose values the set-up
# below lists. Time and memory: [docs/performance.md](../docs/performance.md).

# %% tags=["main-parameters"]
# what is compared
model: str = "smol-dlm"  # the diffusion model
sparsity: float = 0.5  # share of zeros in linear maps, or of weights removed in whole units
steps: list[int] = [16]  # denoising steps at which pruned models are measured
baselines: list[str] = ["wanda"]  # presets beside `unstable`
structured_recipes: list[str] = ["structured-sink"]  # presets beside the dense model
in_steps: list[str] = []  # more presets that take as many denoising steps; none: skip it
# how it is calibrated
calibration: int = 2  # calibration sequences of noised recipes; clean ones get as many tokens
seeds: int = 1  # calibration draws
# what it is scored on, and timed
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
length: int = 64  # tokens per sequence
draws: int = 1  # noise draws per sequence
# where it runs
profile: str = "manual"  # results go to runs/<profile>

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
noise_levels: int = 4  # noise levels per calibration sequence; official recipes have ten
batch: int = 2  # sequences per step when time is measured
# where it runs
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.experiments.parameters import start

run = start("05_matched_compute", globals())

# %% [markdown]
# ## The claim
#
# > Without retraining, our method achieves a better quality-efficiency trade-off and outperforms
# > strong prior pruning baselines under matched compute. (abstract)
#
# These are compared ([notebook 00](00_start_here.ipynb) explains the words):
#
# * *Wanda* (`wanda`) scores a weight by its size times the norm of its input over the calibration
#   text, and makes those with the lowest scores zero.
# * *Unstable sinks left out* (`unstable`) does the same, but reads noised text, takes inputs from
#   the dense model, and leaves out unstable sinks.
# * *The official recipe* (`paper`) does what the paper's code does: it weighs tokens by how much of
#   a sink they are, over noised text, with inputs from the dense model.
# * *SparseGPT* (`sparsegpt`) also adjusts the weights that stay. It reads each of `calibration`
#   sequences once, clean, so it sees fewer tokens than the others.
# * *Recommended* (`recommended`) is SparseGPT on half-noised text: it sees every sequence with and
#   without masks, and as many tokens as Wanda.
# * *Whole units* are attention heads and channels. *Whole units, sink-aware* (`structured-sink`)
#   scores them as the official sink-aware code does, and *whole units, FLAP* (`flap`) as FLAP does,
#   by how much their inputs vary.
# * The *dense* model is unpruned and takes fewer steps. The paper compares recipes with each other;
#   that this is a competitor, too, is our own question.
#
# [README](../README.md) tests the quoted sentence by comparing sink-aware with plain structured
# pruning, with equally many weights removed. This notebook asks another question: sink-aware
# structured pruning stands against the unpruned model in fewer steps. The plain one (`structured`)
# was not run in steps.
#
# **What would falsify it.** With as many calibration tokens, we look at `unstable` − Wanda. That
# pruning without unstable sinks does better would be contradicted if the whole interval lay above
# zero; it is unsupported if the interval lies within the margin. Four things change at once from
# Wanda to `unstable` (noise, the model whose outputs later blocks get, the sinks, and how many
# different texts are seen), so no difference here can be credited to the sinks;
# [notebook 03](03_leaving_sinks_out.ipynb) changes one at a time. The verdict on the claim itself
# is in notebooks [03](03_leaving_sinks_out.ipynb) and [07](07_best_recipe.ipynb). All recipes here
# are calibrated on the project's own pool, samples of the AR model and documentation, and not on
# WikiText-2 as in the paper.
#
# A difference is a loss of the first model less one of the second, so below zero the first is
# better. The *cost* of a model is its loss minus the loss of the unpruned model that reveals one
# token per step. A difference matters if it is at least 4.6 % of the cost of the second model. On
# LLaDA-8B the paper's method takes back 9.2 % of what Wanda costs; 4.6 % is half of that.

# %% [markdown]
# ## The measure: a likelihood that knows the number of steps
#
# Reveal the tokens of a text in random order, in *K* groups of almost equal size. Each group is
# predicted in parallel from what was revealed before, and the cross-entropies add up to a bound on
# the negative log-likelihood, which is the *loss* on this page. With as many steps as tokens this
# is the ordinary NELBO of notebook 00. In fewer steps the bound is higher, since tokens of one
# group do not see each other. The library estimates it from some tokens drawn at random: each is
# predicted while its own group and all later ones are masked.

# %% [markdown]
# ## Loss against compute
#
# A pruned model takes *K* steps. The dense model, with all its weights, gets as many steps as cost
# no more than these *K*. The cost is counted in two ways. One is *effective* FLOPs of generation,
# where a multiplication by a zero weight counts as skipped. The other is measured time. Steps are
# rounded down, which puts the dense model at a disadvantage.
#
# So *matched* has four meanings here:
#
# * recipes are compared at the same sparsity of the same weights,
# * and on as many calibration tokens, but for SparseGPT;
# * pruned models and the dense one in fewer steps are compared at as many effective FLOPs,
# * or in as much measured time.
#
# For each *K*, the unpruned model takes as many steps as fit into the cost of the pruned model's
# *K* steps. Here is the table of matches: to each *K*, the steps that the dense model gets.
# *Unstructured* pruning makes single weights zero, and *structured* pruning removes whole attention
# heads and channels. There is no column of time for the first, whose zeros save none (*Time of a
# step*, below):

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments import matched_steps
from sinkprune_companion.run.texts import held_out_texts

for count in steps:
    if not 1 <= count < length:
        raise ValueError(
            f"steps={count} must lie in 1 … {length - 1}, the number of tokens to reveal"
        )
dlm = load(model, dtype, run.device)
fingerprint = dlm.fingerprint()
texts = held_out_texts(dlm.tokenizer, sequences, length)
example_1T = texts["samples/crop"][:1]
costs = matched_steps.step_costs(run, dlm, fingerprint, example_1T, sparsity, steps, batch)
costs.matched.set_index("steps")

# %% [markdown]
# Every model is scored at its number of steps, which is the number beside its point. The vertical
# axis counts from the dense model that reveals one token per step; every model is paired with it by
# sequence and noise. Bars are 95 % intervals over calibration draws and sequences. **Down and to
# the left is better.** Points one above the other cost about the same, but not exactly: the
# unpruned model that a pruned one is compared with is that of the table above, which never costs
# more. A baseline that is not in `in_steps` is scored only at one token per step, and comes under
# *Paired differences*. Where Wanda takes few steps the picture leaves out `unstable`, whose line
# would lie on Wanda's, and recipes for whole units, which lose more than a nat; the table below has
# them. Bars here are against one token per step: judge pairs by the differences below.

# %%
from sinkprune_companion.experiments.pruning_grid import grid_rows
from sinkprune_companion.figures import figures
from sinkprune_companion.figures.titles import draw

names = list(dict.fromkeys([*baselines, "unstable", *in_steps, *structured_recipes]))
grid = grid_rows(names, "unstructured", sparsity, seeds, calibration, noise_levels)
taken = sorted({int(count) for count in costs.matched.to_numpy().flatten()})
at_steps = {"dense": [None, *taken], "unstable": [None, *steps]}
at_steps |= {name: [None] for name in baselines} | dict.fromkeys(structured_recipes, steps)
at_steps |= {name: [None, *steps] for name in in_steps}
asked = (grid, texts, draws, range(seeds), at_steps)
scores = matched_steps.scores_in_steps(run, dlm, fingerprint, *asked)
measured = (baselines, structured_recipes, in_steps)
found = matched_steps.findings(scores, costs.matched, *measured)
run.find(found if sparsity == 0.5 else {})

front = matched_steps.front(scores, costs, structured_recipes)
not_drawn = [*structured_recipes, "unstable"] if "wanda" in in_steps else []
front = front[~front.variant.isin(not_drawn)]
steps_and_bars = "number beside a point: denoising steps; bars: 95 % interval"
labels = {"tflop": f"effective TFLOP per generated sequence\n{steps_and_bars}"}
labels["excess"] = "loss above the dense model with\none token per step (nats per token)"
curves = (front, "tflop", "excess", "variant", labels, ("low", "high"))
told = {"data": front, "caption": "quality of generation; bars: 95 % interval"}
told |= {"logx": True, "point": "steps"}
plain = "Pruned models, and the dense model in fewer steps, against effective FLOPs"
draw(run, "front", plain, figures.plot_curves, *curves, **told)

# %% [markdown]
# ## The measure by hand
#
# For one text and one order, the loss in few steps and with one token per step:

# %%
import torch
from torch.nn.functional import cross_entropy

text_T = texts["natural/crop"][0]
order = 1 + torch.randperm(length - 1, generator=torch.Generator().manual_seed(0))
for count in (min(4, length - 1), length - 1):
    loss = 0.0
    hidden_T = torch.arange(length) > 0  # the first token is context
    for group in order.tensor_split(count):
        where_T = torch.zeros(length, dtype=torch.bool)
        where_T[group] = True
        with torch.inference_mode():
            masked_T = text_T.masked_fill(hidden_T, dlm.mask_token_id)
            logits_NV = dlm.logits_at(masked_T[None], where_T[None]).cpu()
        loss += float(cross_entropy(logits_NV, text_T[where_T], reduction="sum"))
        hidden_T[group] = False
    print(f"revealed in {count} steps: {loss / (length - 1):.2f} nats per token")

# %% [markdown]
# The library takes the mean over many texts and orders, with the same rule:

# %%
for count in sorted({*costs.matched.to_numpy().flatten().tolist(), *steps}):
    of_dense = scores[(scores.variant == "dense") & (scores.steps == count)]
    print(f"the unpruned model in {count} steps: {of_dense.value.mean():.2f} nats per token")

# %% [markdown]
# ## Paired differences
#
# Both models of a difference see the same sequences, with random numbers from the same seeds. Where
# their numbers of steps differ, so do the masks, and chance cancels less. The table has the
# differences to the dense model in fewer steps, for each number of steps by itself, and the figure
# has their means over all numbers of steps. The figure has a section for each thing that is equal,
# and the last one has a panel with a scale of its own, which is much finer. In it *dense* is the
# dense model in fewer steps, *hurts* says that the first model of a difference has the higher loss,
# and *undecided* that this run cannot tell. The grey band at zero is what does not matter: a share
# of what fewer steps cost the dense model, or of what Wanda costs.
#
# The match in time is a weak one. Times are those of one thread and of a batch of two sequences,
# and the ratio of the smaller model's time to the dense one's varied from round to round (*Time of
# a step*, below). What follows does not hang on it: at equal FLOPs the same model is ahead.

# %%
import pandas as pd
from IPython.display import display
from sinkprune_companion.experiments.matched_steps import at
from sinkprune_companion.experiments.paired_differences import compare
from sinkprune_companion.figures import forests
from sinkprune_companion.figures.looks import CALLED
from sinkprune_companion.ledger.results import results_for

UNSTRUCTURED = matched_steps.FLOPS_OF_UNSTRUCTURED
FLOPS, TIME = matched_steps.FLOPS_OF_STRUCTURED, matched_steps.TIME_OF_STRUCTURED
EQUAL_FLOPS, EQUAL_TIME = "equal effective FLOPs", "equal measured time"

labels = {"pruned_minus_dense_steps": (CALLED["unstable"], EQUAL_FLOPS)}
matches = [("unstable", UNSTRUCTURED)]
for name in in_steps:
    called = CALLED.get(name, name)
    labels[f"{name.replace('-', '_')}_minus_dense_steps"] = (called, EQUAL_FLOPS)
    matches.append((name, UNSTRUCTURED))

for name in structured_recipes:
    finding = name.replace("-", "_")
    called = CALLED.get(name, name)
    labels[f"{finding}_minus_dense_steps"] = (called, EQUAL_FLOPS)
    labels[f"{finding}_minus_dense_latency"] = (f"{called}, by time", EQUAL_TIME)
    matches += [(name, FLOPS), (name, TIME)]

forest = {labels[finding][0]: found[finding] for finding in labels}

# %% [markdown]
# The table compares every pruned model in so many steps with the unpruned one in as many as cost
# no more. *From* and *to* are the ends of the 95 % interval.

# %%
by_step, rows = {}, []
for variant, column in matches:
    called = CALLED.get(variant, variant)
    by = "time" if column == TIME else "FLOPs"
    for count, of_dense in zip(costs.matched.steps, costs.matched[column], strict=True):
        estimate = compare(scores, at(variant, count), at("dense", of_dense))
        by_step[f"{called}, {count} steps − dense, {of_dense} steps, by {by}"] = estimate
        numbers = [round(number, 3) for number in (estimate.value, estimate.low, estimate.high)]
        rows.append([called, count, of_dense, by, *numbers])

columns = ["pruned model", "its steps", "steps of the unpruned model", "matched by"]
columns += ["difference (nats per token)", "from", "to"]
display(pd.DataFrame(rows, columns=columns).set_index("pruned model"))

judged = results_for(run).on_losses
tables = [forests.forest_table(forest, judged), forests.forest_table(by_step, judged)]

# %% [markdown]
# **By kind of scored text.** The same differences on each kind of text by itself, since a mean over
# kinds may hide that their signs differ:

# %%
from sinkprune_companion.experiments.kinds_of_text import finding_on
from sinkprune_companion.pages.render import Folded
from sinkprune_companion.run.texts import DOMAINS

by_kind = {}
for kind in DOMAINS:
    of_kind = matched_steps.findings(scores[scores.text == kind], costs.matched, [], [], in_steps)
    by_kind |= {finding_on(name, kind): estimate for name, estimate in of_kind.items()}
found |= by_kind
run.find(found if sparsity == 0.5 else {})
Folded(forests.listed(by_kind))

# %% [markdown]
# The figure has the means over all numbers of steps and kinds of text: the loss of a pruned model less
# that of the unpruned one in fewer steps.

# %%
axis = "loss, pruned − unpruned in fewer steps (nats per token): ← pruning is better"
told = {"data": pd.concat(tables)}
told["caption"] = "paired differences, a section for each thing that is equal"
plain = "Pruned models against the unpruned one in fewer steps"
drawn = tables[0].assign(section=[equal for _, equal in labels.values()])
drawn = drawn.sort_values("section", kind="stable")
draw(run, "differences", plain, forests.plot_effects, drawn, axis, **told)

# %% [markdown]
# Noised recipes see `calibration` sequences, each at `noise_levels` noise levels; clean ones see
# `calibration` × `noise_levels` sequences once, which are as many tokens. Recipes that follow the
# official code have ten levels, so they get fewer sequences, rounded down to a whole number of at
# least one. The table says which share of the weights each makes zero or removes, what it was
# calibrated on, the share of these tokens that it leaves out, and how long it took.

# %%
COUNTED = {
    "zeros": "share of weights zero or removed",
    "calibration_tokens": "calibration tokens",
    "left_out_share": "share of these left out",
    "prune_seconds": "time to prune (s)",
}
scores.groupby("variant", sort=False)[list(COUNTED)].mean().round(3).rename(columns=COUNTED)

# %% [markdown]
# ## What each kind of model costs
#
# Here is one model of each kind. In a *2:4* model two of every four neighbouring weights are zero,
# a pattern that some GPUs can use. The table has parameters, non-zero weights and bytes as stored.
# FLOPs are those of one denoising step of one sequence: all its tokens, and logits at half of them,
# which is about the mean over a generation. FLOPs follow from shapes, and *effective* FLOPs count
# zeros as skipped work. The lines above the table compare FLOPs with torch's own counter in a real
# forward: 1 is exact.

# %%
totals = costs.totals
for name, ratio in (totals.flops / totals.counted_flops).items():
    print(f"{name}: FLOPs from shapes / counted: {ratio:.4f}")
pd.DataFrame(
    {
        "parameters (M)": costs.account.parameters / 1e6,
        "non-zero (M)": costs.account.nonzero / 1e6,
        "stored (MB)": costs.account.bytes / 1e6,
        "GFLOP": costs.account.flops / 1e9,
        "effective GFLOP": costs.account.effective_flops / 1e9,
    }
).round(2)

# %% [markdown]
# **Time of a step.** Effective FLOPs are an ideal: dense kernels multiply zeros like any other
# number. The next table has the measured time of one denoising step, with the models taking turns
# in one run, and its ratio to the dense model's time, as medians over rounds. Kernels for 2:4 need
# a CUDA GPU of the Ampere generation or later.

# %%
from sinkprune.models.devices import device_name

relative = costs.relative
latency = pd.DataFrame(
    {
        "ms per sequence and step": 1e3 * costs.seconds.median() / batch,
        "time / dense": relative.median(),
        "lowest ratio": relative.min(),
        "highest ratio": relative.max(),
    }
)
latency["effective FLOPs / dense"] = totals.effective_flops / totals.effective_flops["dense"]
print(f"device {device_name(run.device)}, threads: {torch.get_num_threads()}")
if matched_steps.KERNELS not in latency.index:
    print("2:4 kernels: not measured here, they need a CUDA GPU from Ampere on")
in_order = ("dense", "unstructured", "2:4", "structured", matched_steps.KERNELS)
latency.loc[[name for name in in_order if name in latency.index]].round(3)

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# **Fewer steps beat zeros of single weights.** A zero counts as saved arithmetic here, and the
# unpruned model still has the lower loss, by 0.22 nats per token [0.17, 0.26] against the official
# recipe and by 0.11 [0.069, 0.14] against `recommended`. Against these two, Wanda and SparseGPT it
# is ahead in 16 steps as well as in 64. On ordinary kernels zeros save no time at all, as the table
# of times shows, so this comparison favours pruning.
#
# **The gap is smaller where steps are few.** For `recommended` in 16 steps it is 0.15 [0.054, 0.24]
# on natural English, 0.050 [−0.039, 0.14] on samples and −0.028 [−0.11, 0.054] on documentation.
# Below 16 steps the order may turn.
#
# **Removing whole units loses more.** Sink-aware pruning of whole units is behind the unpruned
# model by 1.2 [1.1, 1.3] at equal FLOPs and by 1.3 [1.1, 1.4] in equal measured time.
#
# **Leaving unstable sinks out is not seen to help.** At equal sparsity `unstable`, which also reads
# noised text with dense propagation, differs from Wanda by 0.0032 [−0.011, 0.018] in the 5 draws
# here, and by 0.00089 [−0.0041, 0.0059] in the 10 of [notebook 03](03_leaving_sinks_out.ipynb),
# where 0.014 would matter.
#
# **What it does not show.** A lower loss need not be a better text, and samplers reveal tokens in
# another order. Recipes were calibrated on two of the three kinds of scored text, which favours
# pruning; SparseGPT saw an eighth of the others' calibration tokens, which does not. Fewer steps
# save no memory. [Controls](../docs/controls.md) has the other rows.

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.pages.render import results_table

display(results_table(run))
Folded(listed(found, margin=[estimate.margin for estimate in found.values()]))

# %% [markdown]
# ## Exercises
#
# 1. Set `length` to 128 and `steps` to `[4, 100]`. Expect the bound to be higher in 4 steps than in
#    100. In which of the two does pruning compare better with fewer steps?
# 2. Set `sparsity` to 0.25. Expect pruning to save less, so that the dense model may take more
#    steps.
# 3. Set `in_steps` to `["wanda", "magnitude"]`. The second looks at no calibration text and was not
#    measured in few steps. Expect it to be worse than Wanda. One draw gives no verdict.
#
# **What this does not show.** Tokens are revealed in random order. Samplers take the most confident
# first, which may help both models, and it is not known which one more. Quality is likelihood, not
# task accuracy. There is one sparsity; with fewer zeros pruning may lose much less. Fewer steps
# save no memory, which pruning can, and so can fewer bits, a competitor that was not measured. All
# models compute in the number format that the set-up names. Two of the three kinds of scored text
# are what recipes are calibrated on, which favours pruning. SparseGPT saw fewer calibration tokens
# than the others. Nothing was measured below the fewest steps of the table, where the gap is
# smallest. A small model may tolerate pruning less than an 8B model does. Time is that of one
# machine and batch with dense kernels, and the noise of timing is not in the intervals; 2:4 kernels
# are timed only where the GPU has them.

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
# # 08 · Do stable sinks matter?
#
# **Question.** Wanda scores a weight by its size times the norm of its input over calibration
# tokens. On seed-1, one of two other trainings, leaving all sinks out of these norms cost more than
# matters, in two calibration draws, and leaving out the unstable ones did not
# ([notebook 11](11_robustness.ipynb)). So the cost should sit in the stable sinks, a few tokens in a
# thousand. Does it? And through which weights? Asked of `smol-dlm`, the adapter that this project
# publishes; of `smol-dlm-8M`, the adapter after 8 million training tokens that all trainings went
# on from; and of both other trainings, which were made again by their commands and are
# kept in 8 bits. By the way: which of the sinks that the official code leaves out are stable, and
# does the AR twin need its sinks in these norms?

# %% [markdown] tags=["answer"]
# **Answer.** No. Leaving the stable sinks out of Wanda's statistics makes no difference that
# matters on any of four models; on the published one it changes the loss by 0.00084 nats per token
# [−0.0023, 0.0040], where pruning costs 0.32. The cost of two early draws, which made us ask, was
# not seen again. Of the sinks that the official code leaves out, 22 % are stable over noise levels,
# so most are not.
#
# The picture to look at is [what leaving sinks out costs on four
# models](../figures/08_stable_sinks/left_out.png).

# %% [markdown]
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 10 core-minutes, estimated | 2 GB |
# | evidence | 230 core-minutes without AVX-512 | 5 GB a job |
#
# Everything is measured on adapters of one base, over several calibration draws.
# Each draw has noise of its own, under which all variants of the draw are scored.

# %% [markdown]
# **Parameters**, with the values that *Run all* takes.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
models: list[str] = ["smol-dlm"]  # diffusion models: names, saved folders, or folders of adapters
sparsities: list[float] = [0.5]  # shares of zeros
restored_counts: list[int] = [1, 10, 100, 1000]  # how many lost weights are put back
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
draws: int = 1  # noise draws per sequence
calibration: int = 4  # calibration sequences
noise_levels: int = 4  # noise levels at which each of them is seen
largest_from: int = 4  # calibration sequences whose largest activations rank the lost weights
length: int = 128  # tokens per sequence
seeds: int = 2  # calibration draws
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
stability_threshold: float = 0.8  # a position that is a sink in this share of levels is stable
twin: str = "smol-ar-adapted"  # the autoregressive twin, most of whose sinks are stable
twin_calibration: int = 4  # its calibration sequences, clean
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("08_stable_sinks", globals())

# %% [markdown]
# ## What is expected
#
# Stable sinks are known to carry massive activations: a few input channels whose values there are
# hundreds of times those of other tokens. Without these sinks the norms of such channels should
# collapse, and weights that read them leave.
#
# **What would falsify it.** Either of these:
#
# * leaving stable sinks out costs no more than leaving out as many random tokens;
# * putting back the lost weights that meet the largest activations of stable sinks brings nothing
#   of the cost back.
#
# ## Leaving tokens out
#
# Wanda on noised text, with dense propagation: every block is calibrated on outputs of the dense
# model, so masks of blocks do not influence each other. What is left out of the statistics is all
# that differs. Two controls leave out random tokens: as many as there are sinks, and as many as
# there are stable sinks. The second one is a function, as anybody can write it:

# %%
import inspect

from sinkprune_companion.experiments import stable_sinks

print(inspect.getsource(stable_sinks.random_stable))
settings = {"sink_std": sink_std, "stability_threshold": stability_threshold}
recipes = {share: stable_sinks.recipes(share, noise_levels, **settings) for share in sparsities}

# %% [markdown]
# Prune, measure, restore the weights. All recipes of a draw share one pass over the calibration
# text. Every result is a record, so a run that was stopped goes on where it was.

# %%
from sinkprune_companion.experiments.diffusion_models import diffusion_model
from sinkprune_companion.experiments.variants import SharedStatistics, Variant
from sinkprune_companion.run.texts import calibration_draw, held_out_texts

numbers = range(first_seed, first_seed + seeds)
dlms = {name: diffusion_model(name, dtype, run.device) for name in models}
prints = {name: lm.fingerprint() for name, lm in dlms.items()}
texts = held_out_texts(dlms[models[0]].tokenizer, sequences, length)
drawn, frames = {}, []
for name, lm in dlms.items():
    for seed in numbers:
        about = {"pair": name, "seed": seed}
        text = calibration_draw(lm, calibration, length, seed)
        every = [recipe for by_name in recipes.values() for recipe in by_name.values()]
        drawn[name, seed] = (text, SharedStatistics(lm, every, text))
        with Variant(lm, prints[name]) as dense:
            frame = dense.scores(run, texts, draws, noise=seed, variant="dense", **about)
            frames.append(frame.assign(share=0.0))
        for share in sparsities:
            for left_out, recipe in recipes[share].items():
                with Variant(lm, prints[name], recipe, *drawn[name, seed]) as variant:
                    frame = variant.scores(run, texts, draws, noise=seed, variant=left_out, **about)
                frames.append(frame.assign(share=share))

# %% [markdown]
# What each choice costs, on the same sequences under the same noise, and the share of the calibration
# tokens that it leaves out:

# %%
from pathlib import Path

import pandas as pd
from sinkprune.evaluation.intervals import crossed_interval
from sinkprune_companion.experiments.paired_differences import pivot

losses = pd.concat(frames, ignore_index=True)


def loss(name: str, share: float, left_out: str):
    """Nats per token, (draws, sequences)."""
    same = (losses.pair == name) & (losses.share == share) & (losses.variant == left_out)
    return pivot(losses[same])


pruned = losses[losses.variant != "dense"]
pruned = pruned.assign(model=pruned.pair.map(lambda name: Path(name).name))
table = pruned.rename(columns={"share": "sparsity", "variant": "left out"})
table = table.groupby(["model", "sparsity", "left out"], sort=False)
share_out = ("left_out_share", lambda share: 100 * share.mean())
table.agg(**{"NELBO": ("value", "mean"), "tokens left out (%)": share_out}).round(4)

# %% [markdown]
# As findings, in nats per token, paired by draw, sequence and noise. Each has a *margin*, the
# smallest difference that matters: half of 9.18 % of what the recipe with nothing left out costs, as
# on LLaDA-8B the paper's method takes back 9.18 % of what Wanda costs. *No difference that matters*:
# the whole interval lies within it. An ending names another sparsity, or another model in the order
# of the parameter `models`.

# %%
from sinkprune_companion.ledger.margins import with_share_of_damage

COMPARED = {
    "unstable_minus_none": ("unstable", "none"),
    "stable_minus_none": ("stable", "none"),
    "all_minus_none": ("all", "none"),
    "unstable_minus_all": ("unstable", "all"),
    "random_minus_none": ("random", "none"),
    "random_stable_minus_none": ("random, as many as stable", "none"),
    "stable_minus_random_stable": ("stable", "random, as many as stable"),
}
found, damage, endings = {}, {}, {}
for number, name in enumerate(models, 1):
    for share in sparsities:
        ending = "" if share == 0.5 else f"_{100 * share:.0f}"
        endings[name, share] = ending + ("" if number == 1 else f"_model_{number}")
        none = loss(name, share, "none")
        damage[name, share] = crossed_interval(none - loss(name, 0.0, "dense"))
        for finding, (one, other) in COMPARED.items():
            cost = crossed_interval(loss(name, share, one) - loss(name, share, other))
            cost = with_share_of_damage(cost, damage[name, share])
            found[finding + endings[name, share]] = cost

# %% [markdown]
# The official code leaves all sinks out, whether they move or not. Which share of them are stable?
# By the abstract, which says that it leaves out unstable ones, it would be 0; up to 5 % is taken for
# 0. A mean over calibration draws, on the first model. A sink counts as stable here if it is one at
# 80 % of the noise levels of calibration text; while a text is written, far more of them are
# ([notebook 01](01_do_sinks_move.ipynb)).

# %%
from dataclasses import replace

from sinkprune.evaluation.intervals import interval

of_first = losses[(losses.pair == models[0]) & losses.variant.isin(["unstable", "all"])]
by_draw = of_first.groupby(["variant", "seed"]).left_out_share.mean()
stable_R = 1 - by_draw["unstable"] / by_draw["all"]
if len(stable_R) > 1:
    found["stable_share_left_out"] = replace(interval(stable_R), draws=len(stable_R))
run.find(found)
stable_R.round(4).to_frame("stable sinks, of all tokens left out")

# %% [markdown]
# ## The figure: what leaving tokens out costs
#
# Against the same recipe with nothing left out. A section is one model at one sparsity. Random tokens
# are in the figure's data and in the table at the end.

# %%
from sinkprune.evaluation.verdict_rule import judge
from sinkprune_companion.figures import figures, forests
from sinkprune_companion.pages import render

parts = []
for name, share in damage:
    none = loss(name, share, "none")
    effects = {
        f"{left_out} − none": loss(name, share, left_out) - none
        for left_out in stable_sinks.LEFT_OUT
        if left_out != "none"
    }
    section = f"{Path(name).name}, {share:.0%}"
    parts.append(judge(effects, found["stable_minus_none" + endings[name, share]].margin, section))
drawn_rows = pd.concat(parts, ignore_index=True)
title = render.title(run, "left_out", "What leaving tokens out of the statistics costs")
shown = drawn_rows[~drawn_rows.comparison.str.startswith("random")]
picture = forests.plot_effects(shown, "difference in NELBO (nats per token)", title)
caption = f"{title}: NELBO beside the same recipe with nothing left out, with 95 % intervals"
figures.save_figure(run, picture, "left_out", drawn_rows, caption)

# %% [markdown]
# ## Which weights leave
#
# A weight is *lost* when it stays with nothing left out and leaves with the stable sinks left out.
# For each, another weight of the same output stays instead. Lost weights are ranked by their size
# times the largest activation of their input at a stable sink. How many there are, of all weights
# that a mask keeps, by draw:

# %%
from sinkprune_companion.experiments import lost_weights
from sinkprune_companion.pages.render import Folded, results_table

lost = {}
for (name, seed), (text, shared) in drawn.items():
    for share in sparsities:
        lost[name, seed, share] = lost_weights.critical(
            run,
            dlms[name],
            prints[name],
            recipes[share]["none"],
            recipes[share]["stable"],
            text,
            shared,
            largest_from,
            max(restored_counts),
            pair=name,
            seed=seed,
            share=share,
        )
all_lost = pd.concat(lost.values(), ignore_index=True)
all_lost["model"] = all_lost.pair.map(lambda name: Path(name).name)
lm = dlms[models[0]]
weights_of_one = sum(
    each.weight.numel() for block in lm.blocks for each in lm.linears(block).values()
)
by_draw = all_lost.groupby(["model", "share", "seed"]).lost.first().reset_index()
by_draw["of the kept (%)"] = 100 * by_draw.lost / (weights_of_one * (1 - by_draw.share))
by_draw.set_index(["model", "share", "seed"]).unstack("seed").round(3)

# %% [markdown]
# Where the ten most important of every draw sit: an input channel of a linear map, in how many
# draws it is among them, and how many of its weights are, in all draws; eight places per model.

# %%
PLACE = ["layer", "linear", "input"]
top = all_lost[all_lost["rank"] <= 10].groupby(["model", "share", *PLACE])
where = top.agg(draws=("seed", "nunique"), weights=("output", "size"))
where = where.sort_values(["draws", "weights"], ascending=False)
most = where.groupby(["model", "share"]).head(8).sort_index(level="model", sort_remaining=False)
Folded(most, "Where the ten most important sit")

# %% [markdown]
# ## Putting them back
#
# In the model that was pruned without stable sinks, the first 1, 10, 100, … lost weights get their
# values back, the most important first. For each of them the weight of the same output that had
# taken its place leaves, the one with the lowest score first. The number of zeros stays. With all
# of them back, the mask is that with nothing left out.

# %%
frames = []
for (name, seed, share), weights in lost.items():
    text, shared = drawn[name, seed]
    with Variant(dlms[name], prints[name], recipes[share]["stable"], text, shared) as variant:
        given = (run, variant, weights, restored_counts, texts, draws, seed)
        frame = lost_weights.restored_scores(*given, pair=name, seed=seed)
    frames.append(frame.assign(share=share))
back = pd.concat(frames, ignore_index=True)

# %% [markdown]
# What putting them back changes, and what is left then beside nothing left out, are findings.

# %%
left = {}
for name, share in damage:
    left[name, share, 0] = loss(name, share, "stable") - loss(name, share, "none")
for (name, share, count), part in back.groupby(["pair", "share", "restored"]):
    left[name, share, count] = pivot(part) - loss(name, share, "none")
    saved = left[name, share, count] - left[name, share, 0]
    for side, values_RN in (("stable", saved), ("none", left[name, share, count])):
        cost = with_share_of_damage(crossed_interval(values_RN), damage[name, share])
        found[f"restored_{count}_minus_{side}{endings[name, share]}"] = cost
run.find(found)

# %% [markdown]
# The picture has the three largest counts, a section per model and sparsity:

# %%
parts = []
for name, share in damage:
    changes = {
        f"{count:,} weights put back": left[name, share, count] - left[name, share, 0]
        for count in restored_counts[-3:]
    }
    section = f"{Path(name).name}, {share:.0%}"
    margin = found["stable_minus_none" + endings[name, share]].margin
    parts.append(judge(changes, margin, section))
restored = pd.concat(parts, ignore_index=True)
title = render.title(run, "restored", "What putting lost weights back changes")
picture = forests.plot_effects(restored, "difference in NELBO (nats per token)", title)
caption = f"{title}: NELBO beside the same model with no weight back, with 95 % intervals"
figures.save_figure(run, picture, "restored", restored, caption)

# %% [markdown]
# ## The AR twin: does it matter that its sinks are kept?
#
# > prior studies usually keep sinks for AR LLMs (abstract)
#
# Most of its sinks are stable. Wanda prunes it, at the first sparsity, with and without them. The
# control draws as many random tokens anew for every window of queries, so more tokens lose a part of
# their weight. Above zero it hurts to leave them out; values are negative log-likelihoods.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments.paired_differences import above_dense
from sinkprune_core.pruning.recipe import compared_preset

for lm in dlms.values():
    lm.model.to("meta")  # their weights have served; the twin gets their room
ar = load(twin, dtype, run.device)
twin_print = ar.fingerprint()
frames = []
for seed in numbers:
    text = calibration_draw(ar, twin_calibration, length, seed)
    with Variant(ar, twin_print) as dense:
        frames.append(dense.scores(run, texts, draws, variant="dense", seed=seed))
    for tokens in ("none", "all", "random"):
        changes = {"sparsity": sparsities[0], "exclude": tokens, "sink_std": sink_std}
        recipe = compared_preset("wanda", **changes)
        with Variant(ar, twin_print, recipe, text) as variant:
            frames.append(variant.scores(run, texts, draws, variant=tokens, seed=seed))
of_twin = above_dense(pd.concat(frames, ignore_index=True))

# %% [markdown]
# Paired differences, with a margin as above:

# %%
by_name = {name: pivot(of_twin[of_twin.variant == name]) for name in ("none", "all", "random")}
twin_damage = crossed_interval(by_name["none"])
for name in ("all", "random"):
    cost = crossed_interval(by_name[name] - by_name["none"])
    found[f"ar_{name}_minus_none"] = with_share_of_damage(cost, twin_damage)
run.find(found)
print(f"Wanda costs the AR twin {twin_damage.value:.4f} nats per token.")
print("All sinks left out:", found["ar_all_minus_none"])
print("Random tokens left out:", found["ar_random_minus_none"])

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# * **Stable sinks do not carry a cost: both expectations have failed.** Left out of Wanda's
#   statistics at 50 %, they cost 0.00084 [−0.0023, 0.0040] nats per token on smol-dlm, 0.0013
#   [−0.0028, 0.0054] on smol-dlm-8M, −0.00073 [−0.0027, 0.0013] on seed-1 and −0.00023
#   [−0.0021, 0.0016] on seed-2, both made again, of the 0.32, 0.40, 0.33 and 0.36 that pruning
#   costs (5 calibration draws). As many random tokens cost as much.
# * So there is no cost to bring back: the 100 lost weights that should matter most change the loss
#   by −0.000015 [−0.00014, 0.00011] on smol-dlm, 0.000011 [−0.00011, 0.00013] on smol-dlm-8M,
#   0.00010 [−0.000045, 0.00025] on seed-1 and −0.000028 [−0.00022, 0.00017] on seed-2.
# * **All sinks left out**: −0.0029 [−0.0098, 0.0040] on smol-dlm, 0.0026 [−0.0035, 0.0087] on
#   seed-1 and −0.0012 [−0.0058, 0.0033] on seed-2, where 0.015 and 0.016 would matter, and 0.0078
#   [−0.0036, 0.019] on smol-dlm-8M, which is undecided: 0.018 would matter.
# * What the official code leaves out is not unstable alone: 22 % [12 %, 32 %] of the sinks are
#   stable at the noise levels of calibration text. Leaving out the unstable ones instead of all
#   makes no difference that matters.
# * **Nor does the AR twin need its sinks in the statistics**: without them the pruned model changes
#   by −0.0030 [−0.0092, 0.0032], of 0.65 that Wanda costs it, on a quarter of the text above. What
#   it needs, in its middle layers, is to attend to them ([notebook 02](02_are_sinks_needed.ipynb)).
# * **The cost that started this is not seen again.** On the first seed-1 two draws had shown 0.026
#   [0.020, 0.032] ([notebook 11](11_robustness.ipynb)); the same training made again has none that
#   matters in five. Nor has seed-2, whose two draws had disagreed (0.053 [−0.61, 0.72]). Two draws
#   may have agreed by chance, the first seed-1 was another model, or its measurement another one
#   (16 calibration sequences in bfloat16, one noise for all draws): that cannot be told any more.
#   For a method it follows that in five draws no choice of sinks, stable ones or all, clearly cost
#   more than matters, and none gained.

# %%
results_table(run)

# %% [markdown]
# All numbers:

# %%
from sinkprune_companion.figures.forests import listed

Folded(listed(found, margin=[estimate.margin for estimate in found.values()]))

# %% [markdown]
# ## Exercises
#
# 1. Set `stability_threshold` to 0.5. Expect more sinks to count as stable. Does leaving them out
#    cost anything then?
# 2. Set `sink_std` to 4. Fewer tokens are sinks then, and those draw more attention. Do they cost?

# %% [markdown]
# **What this does not show.** Wanda's scores, with zeros per row. The largest activations are those
# of the first calibration sequences, which in a small draw are the model's own samples. Lost
# weights come back one by one in an order that looks at each alone; another order could bring more
# back with fewer. The models share one base, and so the massive activations that it brought along.
# A training made again, on another processor, is not the same model to the bit. Whether two draws
# had misled or the first seed-1 was another model cannot be told any more.

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
# # 08 · What do results depend on?
#
# **Question.** [Notebook 03](03_leaving_sinks_out.ipynb) prunes one diffusion model, calibrates it
# on one amount of text, and scores it on a mixture of three kinds. Which of its results hold on
# each kind of text, on less calibration text, with one noise for all draws, and on models whose
# last part of training had another seed and half as many tokens? And among the sinks, does it
# matter whether the stable ones are left out?

# %% [markdown] tags=["answer"]
# **Answer.** With half of the weights zero, leaving unstable, stable or all sinks out makes no
# difference that matters on three of four models; on the fourth, `smol-dlm-8M`, that is shown for
# stable sinks alone, and the others are undecided. How other recipes compare depends on the text,
# and all four models share one base.
#
# ![What leaving sinks out costs on four models](../figures/08_what_results_depend_on/left_out.png)
#
# - **Kind of text.** The official recipe is worse than Wanda on samples and documentation, and is
#   not seen to be on natural English.
# - **Amount of text.** SparseGPT is ahead of Wanda on 128 sequences; on 16 that is undecided.
# - **An early cost** of leaving all sinks out, on two trainings whose weights are lost, was not
#   seen again on the same trainings made again.

# %% [markdown]
# Words are those of the [glossary](../docs/glossary.md), and recipes are those of
# [docs/pruning.md](../docs/pruning.md). `smol-dlm` is the diffusion model that this project
# publishes: an adapter, which is a set of trained changes to the weights of an AR base.
# `smol-dlm-8M` is the same adapter after 8 million training tokens. Training went on from it three
# times, and gave `smol-dlm` and two more adapters. Each time had a seed of its own, and the two more
# were trained on for half as many tokens as `smol-dlm`
# ([docs/trainings.md](../docs/trainings.md)). So where they differ from it, either may be why.
#
# The two more exist twice. *Old seed-1* and *old seed-2* are the first of them: their weights are
# lost, and scores of their pruned models are left. *Seed-1 made again* and *seed-2 made again* come
# from the same commands, run once more, and are kept in 8 bits.
#
# Models are calibrated on samples of the AR base and on documentation, and scored on these two and
# on natural English. [Notebook 03](03_leaving_sinks_out.ipynb) calibrates on WikiText-2, as the
# paper does.
#
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 12 core-minutes, estimated | 2 GB |
# | evidence | 230 core-minutes without AVX-512; earlier settings are read | 5 GB a job |
#
# **Parameters**, with the values that *Run all* takes.

# %% tags=["main-parameters"]
profile: str = "manual"  # results go to runs/<profile>
archived: bool = False  # read settings that were measured once and are kept, not of `amounts`
amounts: list[int] = [1, 2]  # calibration sequences, a setting for each
seeds: int = 2  # calibration draws
noise_levels: int = 4  # noise levels at which each calibration sequence is seen
pairs: list[str] = []  # other trainings: folders of their models, or NAMEs of records-NAME.tar.xz
models: list[str] = ["smol-dlm"]  # for stable sinks: diffusion models, saved folders or adapters
sparsities: list[float] = [0.5]  # for stable sinks: shares of zeros
calibration: int = 4  # calibration sequences for stable sinks
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
stability_threshold: float = 0.8  # a position that is a sink in this share of levels is stable
model: str = "smol-dlm"  # the diffusion model of the settings
twin: str = "smol-ar-adapted"  # the autoregressive twin
twin_calibration: int = 4  # its calibration sequences, clean
length: int = 128  # tokens per sequence
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.experiments.parameters import start

run = start("08_what_results_depend_on", globals())

# %% [markdown]
# ## The settings
#
# A *setting* is a model, an amount of calibration text, and a way to draw the noise. In each of
# them the recipes that matter for the verdicts of notebook 03 are measured. Settings are compared
# side by side: no interval here is that of a difference between two of them.
#
# Noised recipes see every calibration sequence at all noise levels. Wanda sees a sequence once, and
# gets as many more sequences as make up the same number of tokens. SparseGPT gets as many sequences
# as noised recipes do, and so fewer tokens. It is compared with a Wanda that gets the same
# sequences. That one is *Wanda on SparseGPT's sequences* in tables, and *wanda unmatched* in names
# of findings. So 128 sequences of text are 1,024 sequences for Wanda beside a noised recipe,
# and 128 for Wanda beside SparseGPT; and 16 are 128 and 16.
#
# The official recipe (`paper`) has eight noise levels here and not its own ten, as in notebooks 03
# and 06: with eight it sees as many sequences as the other noised recipes. Its levels are then 1/8,
# 2/8 and so on up to 1, so an eighth of what it sees is all masks, where its own levels make that a
# tenth. Titles and rows say *at eight levels*.
#
# Where settings are read that were measured once (`archived`), the number of draws is theirs and
# not `seeds`, which is that of stable sinks and of the AR twin below. In the table, *published* is
# `smol-dlm`, and calibration sequences are those of noised recipes.

# %%
from sinkprune_companion.experiments import robustness

settings = robustness.settings_of(archived, amounts, length, seeds, pairs)
recipes = ("wanda", "noised-dense", "all-sinks", "unstable")
measured_here = robustness.Sizes(recipes, (0.5,), sequences, noise_levels, dtype)
sizes = robustness.ARCHIVED_SIZES if archived else measured_here
scores = robustness.scores_in(run, settings, sizes, model)

differences = robustness.differences_in(scores)
found = robustness.findings_of(differences)
run.find(found)
robustness.settings_table(settings)

# %% [markdown]
# ## The kind of text
#
# **The first picture**, at 50 %: each difference on every kind of text that is scored, where each
# draw has noise of its own. *Natural* is English of Wikipedia (WikiText-2), *samples* are those of
# the AR base, and calibration text is samples and *documentation*. The official recipe is the one
# with eight noise levels.
#
# Differences are paired by sequence, noise and calibration draw; left of zero the first of two is
# better. With five draws or more every row has a verdict, by the first of these rules that applies.
#
# 1. *No difference that matters*: the whole interval lies within the margin, even if it excludes
#    zero, and a difference as large as the margin has p below 0.05 after the same correction as in 2.
# 2. *Helps* or *hurts*: the interval excludes zero and p is below 0.05 after correction for related
#    questions (Holm).
# 3. *Undecided*: all else.
#
# Where a comparison is also in the claims table, the picture has that verdict. For all others here,
# related questions are the two or three rows below one heading of a picture. In the claims table a
# family has more rows, so its correction is stronger. So the same interval may *hurt* in a picture
# here and be *undecided* in the claims table, as one of the official noise levels is in [notebook
# 06](06_gain_at_75.ipynb).
#
# Intervals are t intervals over calibration draws and sequences together, so they cover new
# calibration text and new scored text. The margin is half of 9.18 % of what the second recipe
# costs: on LLaDA-8B the paper's method takes back 9.18 % of what Wanda costs.

# %%
from sinkprune_companion.figures.recipes import save_by_kind, save_draws, save_settings

SHOWN = ["paper_minus_wanda", "all_sinks_minus_none"]
SHOWN += ["unstable_minus_none", "sparsegpt_minus_wanda"]
(own_noise,) = [each for each in settings if each.own_noise]
save_by_kind(run, scores[own_noise], SHOWN, "The same differences on every kind of text, 50 %")

# %% [markdown]
# ## The amount of calibration text
#
# The number of sequences is that of noised recipes, which see each of them at every noise level; so
# with eight levels 16 sequences of 128 tokens count as 16,384 tokens, and Wanda beside them gets as
# many in 128 different sequences. SparseGPT sees each of the 16 once, which is 2,048 tokens, and
# Wanda beside it gets the same 16 sequences. With 128 sequences all of these are eight times as
# many.

# %%
save_settings(run, "calibration", differences, SHOWN, "The same differences on more text, 50 %")

# %% [markdown]
# The first table has what each recipe costs above the dense model at 50 %, in nats per token, and
# the second has differences at other sparsities. The second rests on one or two draws, which decide
# nothing, so its numbers stand without intervals.

# %%
from IPython.display import display

display(robustness.costs_by_amount(scores))
robustness.elsewhere_by_amount(differences)

# %% [markdown]
# ## The noise
#
# With one noise for all draws, the chance that lies in that noise stays, however many calibration
# draws there are. Where each draw has noise of its own, it averages out. The table has differences,
# the half-widths of their intervals, and margins, in thousandths of a nat.

# %%
robustness.widths_by_noise(differences)

# %% [markdown]
# ## Another training of the adapter
#
# Old seed-1 and old seed-2 went on from the same earlier adapter with other seeds, for half as many
# tokens as the published model ([docs/trainings.md](../docs/trainings.md)). No interval covers how
# trainings differ. The picture and the table have every calibration draw by itself, because an
# interval over two draws is narrow where they happen to agree.
#
# **The weights of these two trainings are lost.** The cost that this picture shows of leaving all
# sinks out was not seen again: further below are the same trainings made again, measured under
# other settings.

# %%
if pairs:
    plain_title = "The same differences on other trainings, 50 %, draw by draw"
    display(save_draws(run, "pair", scores, differences, SHOWN, plain_title))
    display(robustness.by_draw(scores, "pair", SHOWN))
else:
    print("This run has one training alone: name others in pairs.")

# %% [markdown]
# ## Do stable sinks matter?
#
# On old seed-1 leaving all sinks out of Wanda's norms cost more than matters in two calibration
# draws, and leaving out the unstable ones did not. So the cost should sit in the *stable* sinks, a
# few tokens in a thousand, which are sinks at most noise levels. These are known to carry massive
# activations: a few input channels whose values there are hundreds of times those of other tokens.
# Without these sinks the norms of such channels should collapse, and the weights that read these
# channels should be pruned.
#
# **What would falsify it.** Leaving stable sinks out costs no more than leaving out as many random
# tokens. The models are `smol-dlm`, `smol-dlm-8M`, and seed-1 and seed-2 made again.
#
# All is Wanda on noised text, with dense propagation: every block is calibrated on outputs of the
# dense model, so masks of blocks do not influence each other. What is left out of the statistics is
# all that differs. Two controls leave out random tokens: as many as there are sinks, and as many as
# there are stable sinks. The second one is a function, as anybody can write it:

# %%
import inspect

from sinkprune_companion.experiments import stable_sinks

print(inspect.getsource(stable_sinks.random_stable))
sink_settings = {"sink_std": sink_std, "stability_threshold": stability_threshold}
left_out_by_share = {
    share: stable_sinks.recipes(share, noise_levels, **sink_settings) for share in sparsities
}

# %% [markdown]
# Each model is pruned and measured, and its weights are put back. All recipes of a draw share one
# pass over the calibration text, and are scored under one noise. Every result is a record, so a run
# that was stopped goes on where it was.

# %%
import pandas as pd
from sinkprune_companion.experiments.diffusion_models import diffusion_model
from sinkprune_companion.run.texts import held_out_texts

numbers = range(first_seed, first_seed + seeds)
dlms = {name: diffusion_model(name, dtype, run.device) for name in models}
texts = held_out_texts(dlms[models[0]].tokenizer, sequences, length)

frames = []
for name, lm in dlms.items():
    for seed in numbers:
        text, shared = stable_sinks.draw_of(lm, left_out_by_share, calibration, length, seed)
        measured = stable_sinks.losses(run, lm, left_out_by_share, text, shared, texts, seed)
        frames.append(measured.assign(pair=name))

losses = pd.concat(frames, ignore_index=True)

# %% [markdown]
# The share of the calibration tokens that each choice leaves out, in percent:

# %%
pruned = losses[losses.variant != "dense"]
pruned = pruned.assign(model=pruned.pair.map(robustness.training_of))
shares = pruned.groupby(["variant", "model"], sort=False).left_out_share.mean().unstack(sort=False)
(100 * shares).round(3)

# %% [markdown]
# ## What leaving tokens out costs
#
# Differences are in nats per token, paired by draw, sequence and noise. Three helpers first: losses
# by model, share of zeros and choice, what pruning costs, and a difference with its margin, which
# is as above a share of what the second recipe costs.

# %%
from sinkprune.evaluation.intervals import crossed_interval
from sinkprune_companion.experiments.paired_differences import pivot
from sinkprune_companion.margins import beside_damage


def loss(name: str, share: float, left_out: str):
    """Nats per token, (draws, sequences)."""
    same = (losses.pair == name) & (losses.share == share) & (losses.variant == left_out)
    return pivot(losses[same])


def cost_of(name: str, share: float, left_out: str):
    """What this pruning adds to the dense model's loss, (draws, sequences)."""
    return loss(name, share, left_out) - loss(name, 0.0, "dense")


def difference(name: str, share: float, one: str, other: str):
    """The first choice less the second; the margin is a share of what the second costs."""
    values = loss(name, share, one) - loss(name, share, other)
    return beside_damage(values, cost_of(name, share, other))


# %% [markdown]
# The names of findings end with the sparsity, if it is not 50 %, and with the number of the model in
# the parameter `models`, if it is not the first:

# %%
endings = {}
for place, name in enumerate(models, 1):
    for share in sparsities:
        of_share = "" if share == 0.5 else f"_{100 * share:.0f}"
        of_model = "" if place == 1 else f"_model_{place}"
        endings[name, share] = of_share + of_model

# %% [markdown]
# The findings:

# %%
COMPARED = {
    "unstable_minus_none": ("unstable", "none"),
    "stable_minus_none": ("stable", "none"),
    "all_minus_none": ("all", "none"),
    "unstable_minus_all": ("unstable", "all"),
    "random_minus_none": ("random", "none"),
    "random_stable_minus_none": ("random, as many as stable", "none"),
    "stable_minus_random_stable": ("stable", "random, as many as stable"),
}
for (name, share), ending in endings.items():
    for finding, (one, other) in COMPARED.items():
        found[finding + ending] = difference(name, share, one, other)
run.find(found)

# %% [markdown]
# A row of the picture is one model, at one sparsity if there are several. Its data has the controls,
# too: random tokens left out, and stable sinks compared with as many random tokens directly, which
# is what would falsify that they matter.

# %%
from sinkprune_companion.figures.recipes import CONTROL, save_left_out

effects, controls = {}, {}
for (name, share), ending in endings.items():
    section = robustness.training_of(name)
    section += f", {100 * share:g} %" if len(sparsities) > 1 else ""

    none = loss(name, share, "none")
    by_choice = {
        f"{left_out} − none": loss(name, share, left_out) - none
        for left_out in stable_sinks.LEFT_OUT
        if left_out != "none"
    }
    effects[section] = (by_choice, found["stable_minus_none" + ending].margin)

    random = loss(name, share, "random, as many as stable")
    beside_random = {CONTROL: loss(name, share, "stable") - random}
    controls[section] = (beside_random, found["stable_minus_random_stable" + ending].margin)

title = "What leaving tokens out of the statistics costs"
save_left_out(run, effects, controls, title)

# %% [markdown]
# All sinks left out of `smol-dlm` were measured in several settings: in those of the first sections,
# and in the one of this section. Differences at 50 %, in nats per token; numbers from fewer than
# five draws stand without an interval here and in the table at the end.

# %%
from sinkprune.evaluation.numbers import amount, number
from sinkprune.evaluation.verdict_rule import LEAST_DRAWS


def shown(estimate):
    """A number with its interval, or alone where too few draws stand behind it."""
    is_decided = estimate.draws is None or estimate.draws >= LEAST_DRAWS
    return amount(estimate) if is_decided else number(estimate.value)


rows = []
for setting in settings:
    if setting.pair == robustness.PUBLISHED:
        estimate = found[f"all_sinks_minus_none_{setting.name}"]
        rows.append([setting.calibration, setting.value_of("own_noise"), sizes.dtype, estimate])
if 0.5 in sparsities and models[0] == model:
    of_this_section = [calibration, "noise of its own", dtype, found["all_minus_none"]]
    rows.append(of_this_section)

columns = ["calibration sequences", "noise of the draws", "number format", "estimate"]
by_setting = pd.DataFrame(rows, columns=columns)
by_setting["draws"] = [estimate.draws for estimate in by_setting.estimate]
by_setting["all sinks left out − kept"] = by_setting.pop("estimate").map(shown)
by_setting

# %% [markdown]
# The official code leaves all sinks out, whether they move or not. What share of them is stable?
# The abstract says that the method leaves out unstable ones, so it should be none. At first we took
# up to 5 % for none. When the number had been seen, we asked instead whether most of the sinks are
# unstable, and kept the first question beside it. Since that was a second look at one number, every
# p of these two questions counts twice. A column is a model, a row a calibration draw. Here a sink
# counts as stable if it is one at 80 % of the noise levels of calibration text. These are an even
# grid of levels, not the official ones. While a text is written, far more of the sinks are stable
# ([notebook 01](01_do_sinks_move.ipynb)).

# %%
from dataclasses import replace

from sinkprune.evaluation.intervals import interval

stable_shares = {}
for place, name in enumerate(models, 1):
    of_model = losses[(losses.pair == name) & losses.variant.isin(["unstable", "all"])]
    by_draw = of_model.groupby(["variant", "seed"]).left_out_share.mean()
    stable_R = 1 - by_draw["unstable"] / by_draw["all"]
    stable_shares[robustness.training_of(name)] = stable_R

    if len(stable_R) > 1:
        finding = "stable_share_left_out" + ("" if place == 1 else f"_model_{place}")
        found[finding] = replace(interval(stable_R), draws=len(stable_R))
run.find(found)
print("Stable sinks, as a share of all sinks that are left out:")
pd.DataFrame(stable_shares).round(4)

# %% [markdown]
# ## The AR twin: does it matter that its sinks are kept?
#
# > prior studies usually keep sinks for AR LLMs (abstract)
#
# Wanda prunes the AR model, at the first sparsity, with its sinks in the statistics and without
# them. The control leaves out as many random tokens. It redraws them for every window of queries,
# so it affects more tokens than there are sinks, and most of these only in part. Values are
# negative log-likelihoods; above zero it hurts to leave tokens out.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments.paired_differences import above_dense

ar = load(twin, dtype, run.device)
of_twin = stable_sinks.twin_losses(
    run, ar, sparsities[0], sink_std, twin_calibration, length, texts, numbers
)
of_twin = above_dense(of_twin)
ar.model.to("meta")  # its weights have served

by_name = {name: pivot(of_twin[of_twin.variant == name]) for name in ("none", "all", "random")}
twin_damage = crossed_interval(by_name["none"])

for name in ("all", "random"):
    left_out = by_name[name] - by_name["none"]
    found[f"ar_{name}_minus_none"] = beside_damage(left_out, by_name["none"])
run.find(found)

print(f"Wanda costs the AR twin {twin_damage.value:.4f} nats per token.")
print("All sinks left out:", found["ar_all_minus_none"])
print("Random tokens left out:", found["ar_random_minus_none"])

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# Differences are at 50 %, in nats per token; below zero the first of the two is better.
#
# **The text decides how recipes compare, and not whether sinks matter.** Leaving all or only
# unstable sinks out makes no difference that matters on any kind or amount of text (first two
# pictures). The official recipe at eight noise levels is worse than Wanda by 0.022 [0.0058, 0.037]
# on 16 sequences and by 0.020 [0.0024, 0.037] on 128, and on natural English it is not seen to be.
# SparseGPT − Wanda is 0.011 [−0.010, 0.032] on 16 sequences and −0.064 [−0.086, −0.042] on 128.
# What the amount itself changes has no interval.
#
# **An early cost is not explained.** Leaving all sinks out cost 0.025 and 0.027 in the two draws of
# old seed-1, and 0.11 and 0.00066 in those of old seed-2 (third picture). The same trainings, made
# again and measured in five draws, give 0.0026 [−0.0035, 0.0087] and −0.0012 [−0.0058, 0.0033].
# They have more calibration text, other noise and another number format, so whether setting, model
# or chance made the cost is not known.
#
# **Nor do the stable sinks explain it.** Against what we expected, leaving them out costs no more
# than leaving out as many random tokens: the difference is 0.00029 [−0.0024, 0.0029] on `smol-dlm`,
# and as small on the other models (last picture). Of the sinks that the official code leaves out,
# 22 % [12 %, 32 %] are stable. Even the AR twin, whose sinks mostly stay, keeps its loss without
# them: −0.0030 [−0.0092, 0.0032].
#
# **What this does not show.** At 75 % there are one to three draws, too few for a verdict;
# notebooks [03](03_leaving_sinks_out.ipynb), [06](06_gain_at_75.ipynb) and
# [07](07_best_recipe.ipynb) have five or more. More is in [controls](../docs/controls.md).

# %%
from sinkprune_companion.pages.render import Folded, results_table

results_table(run)

# %% [markdown]
# All numbers, in nats per token; shares are of all sinks. Names have these parts: *paper* is the
# official recipe, *wanda unmatched* is Wanda on SparseGPT's sequences, *seed 1* and *seed 2* are the
# old trainings, and *model 2* to *model 4* are `smol-dlm-8M`, and seed-1 and seed-2 made again.

# %%
from sinkprune_companion.figures.forests import listed

table = listed(found, margin=[estimate.margin for estimate in found.values()])
table["mean [95 % interval]"] = list(map(shown, found.values()))
table["draws"] = [estimate.draws for estimate in found.values()]
Folded(table)

# %% [markdown]
# ## Exercises
#
# 1. Train another pair as [docs/trainings.md](../docs/trainings.md) says, and name the folder of
#    its diffusion adapter in `pairs`. Does leaving all sinks out cost it anything?
# 2. Set `stability_threshold` to 0.5. Expect more sinks to count as stable. Does leaving them out
#    cost anything then?
# 3. Set `sink_std` to 4. Fewer tokens are sinks then, and those draw more attention. Do they cost?
#
# **What this does not show.** Two more trainings are few. They share the base, the text and the
# first eight million tokens, and so the massive activations that the base brought along. All
# sequences have one length. Stable sinks were examined with Wanda's scores and single weights
# alone. The largest activations are those of the first calibration sequences, which in a small draw
# are samples of the AR base. Lost weights come back one by one in an order that looks at each
# alone; another order could bring more back with fewer. A training made again, on another
# processor, is not the same model to the bit. The old setting was not repeated on the models made
# again, and these were never given the official recipe.

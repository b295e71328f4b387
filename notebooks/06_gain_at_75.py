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
# # 06 · What makes the gain at 75 %?
#
# **Question.** On this project's calibration text the official recipe, which the paper's code runs,
# does better than Wanda when three quarters of the weights become zero, and not when half of them
# do. It differs from Wanda in several things at once. Which of them makes the gain, and is it the
# sinks?

# %% [markdown] tags=["answer"]
# **Answer.** Not the sinks: leaving them out makes no difference that matters at 50, 65 or 75 %. At
# 75 % the official recipe gives back 0.42 of the 2.8 nats per token that Wanda costs: noised text
# and dense propagation give back 0.60, the official noise levels lose 0.30 again, and the sum of
# norms gives back 0.15. On WikiText-2, which the paper calibrates on, a gain at 75 % is undecided.
#
# The picture to look at is [the way from Wanda to the official
# recipe](../figures/06_gain_at_75/bridge.png).

# %% [markdown]
# Words are those of the [glossary](../docs/glossary.md). The loss is the NELBO, an upper bound on
# the negative log-likelihood. What a recipe *costs* is how far the loss of the pruned model lies
# above that of the dense one, in nats per token.
#
# All recipes see equally many calibration tokens, up to whole sequences, and are scored on the same
# held-out text, in five random draws of the calibration text, each under noise of its own. They are
# calibrated on samples of the AR model and on documentation, and scored on these two and on natural
# English. [Notebook 03](03_leaving_sinks_out.ipynb) calibrates on WikiText-2, as the paper does.
#
# | profile | time | peak memory |
# |---|---|---|
# | the defaults | 5 core-minutes, estimated | 2 GB |
# | evidence | 6 core-hours, and 4 for `large_…`, estimated | 3 GB a job |
#
# **Parameters**, with the values that *Run all* takes.

# %% tags=["main-parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model to prune
sparsities: list[float] = [0.5, 0.75]  # of the way from Wanda to the official recipe
factorial_sparsities: list[float] = [0.75]  # of noised text x dense propagation x sinks left out
ratios: list[float] = [0.5]  # shares of the weights that structured pruning removes
calibration: int = 5  # calibration sequences
noise_levels: int = 4  # noise levels at which each of them is seen
length: int = 128  # tokens per sequence
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
seeds: int = 2  # calibration draws; structured pruning gets twice as many
large_calibration: int = 2  # calibration sequences where the way at 50 % is measured on more text
large_sequences: int = 12  # held-out sequences there

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
other_sparsities: list[float] = []  # where Wanda and the official recipe are compared besides
reach_sequences: int = 1  # calibration sequences of the search for the tokens that change most
reach_layers: list[int] = [14]  # blocks whose linear maps are searched
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best
large_dtype: str = "auto"  # of the weights where more text is used

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("06_gain_at_75", globals())

# %% [markdown]
# ## The claim, and the way from Wanda to the official recipe
#
# > Gains are most pronounced at higher sparsity. (README of the official code)
#
# **What would falsify it.** The claim says that the official recipe gains more on Wanda at 75 %
# than at 50 %. It fails unless the whole interval of that growth lies below zero. If the gain grows
# as much with no sink left out, it is no gain of being *sink-aware*.
#
# Wanda scores a weight by its size times the norm of its inputs over clean calibration text. The
# official recipe is four steps away:
#
# 1. *Noised text and dense propagation.* Text is noised: a share of its tokens is masked, as the
#    model sees it while it writes. That share is the *noise level*. Here the levels are an *even
#    grid*, the midpoints of equal parts of the range from 0 to 1. Propagation is dense: every block
#    is calibrated on what the dense model's blocks give it. Wanda's is sequential, on what the
#    pruned blocks give.
# 2. *The official noise levels.* They are 0.1, 0.2 and so on up to t = 1.0, at which every token is
#    a mask.
# 3. *The official sum of norms.* A norm is taken at every level, and these norms are added, where
#    Wanda takes one norm over all tokens.
# 4. *The official sink weights.* Tokens that draw much attention count less.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments import recipe_search
from sinkprune_companion.run.texts import held_out_texts

tokens = calibration * noise_levels  # of every recipe, in sequences
rows = []
for share in sparsities:
    rows += recipe_search.official(share, tokens, noise_levels)
    rows += recipe_search.schedules(share, tokens, noise_levels)
for share in other_sparsities:
    rows += recipe_search.official(share, tokens, noise_levels)

dlm = load(model, dtype, run.device)
texts = held_out_texts(dlm.tokenizer, sequences, length)
draws = range(first_seed, first_seed + seeds)
losses = recipe_search.losses(run, dlm, rows, texts, length, draws)

# %% [markdown]
# **The first picture.** What each step adds to the loss, one after the other. The place of a mark
# says how far the recipe has come: left of Wanda is better. Its shape says what its own step did,
# so a step may make *no difference that matters* and still stand far from Wanda. The last row is
# the whole way, to which the four steps add up, and the grey band is what would not matter in that
# row.
#
# With five draws or more every row has a verdict. It is *no difference that matters* where the
# whole interval lies within the margin. It is *helps* or *hurts* where the interval excludes zero
# and p is below 0.05 after correction for related questions (Holm). All else is *undecided*, even
# if the interval by itself excludes zero. A row that also stands in the claims table has its
# verdict from there.
#
# Intervals are t intervals over calibration draws and sequences together, so they cover new
# calibration text and new scored text. The margin is half of 9.18 % of what the second recipe
# costs: on LLaDA-8B the paper's method takes back 9.18 % of what Wanda costs.

# %%
from sinkprune_companion.experiments.paired_differences import above_dense, pivot
from sinkprune_companion.experiments.recipe_differences import differences, estimates
from sinkprune_companion.figures.recipes import save_bridge, save_shares

GRID, LEVELS, BELOW = "even grid", "official levels", "official levels below t = 1"
COMPARED = {
    "paper_minus_wanda": ("paper", "wanda"),
    "noised_dense_minus_wanda": (GRID, "wanda"),
    "official_levels_minus_grid": (LEVELS, GRID),
    "paper_sinks_kept_minus_official_levels": ("paper-sinks-kept", LEVELS),
    "paper_minus_paper_sinks_kept": ("paper", "paper-sinks-kept"),
    "paper_minus_noised_dense": ("paper", GRID),
    "official_levels_minus_wanda": (LEVELS, "wanda"),
    "official_levels_minus_below_1": (LEVELS, BELOW),
}
way_costs = above_dense(losses)
found = differences(way_costs, COMPARED)
run.find(estimates(found))
save_bridge(run, estimates(found), sparsities)

# %% [markdown]
# What each recipe costs, in nats per token, by the share of zeros:

# %%
shown = way_costs[way_costs.variant != "dense"]
shown.groupby(["variant", "place"], sort=False).value.mean().unstack().round(3)

# %% [markdown]
# ## One switch at a time
#
# The first step changes two things, and the last one weighs sinks softly. So here three switches
# are thrown apart, in all eight combinations: noised or clean text, dense or sequential
# propagation, and all sinks left out or none. A *main effect* is the mean difference that a switch
# makes over the settings of the others. Those of text and of propagation are means over the
# settings with no sink left out. Clean text has no noise level, so the sinks to leave out of it are
# found in one noised copy of each sequence.
#
# Effects are drawn in percent of what Wanda costs, so that two sparsities fit one picture.

# %%
factorial_rows = []
for share in factorial_sparsities:
    factorial_rows += recipe_search.factorial(share, tokens, noise_levels)
factorial_losses = recipe_search.losses(run, dlm, factorial_rows, texts, length, draws)

# %% [markdown]
# What every switch does, as a mean over the settings of the others, with its picture:

# %%
from sinkprune_companion.experiments.recipe_differences import main_effects

WANDA, BOTH = "clean, sequential, none", "noised, dense, none"
FACTORIAL = {
    "noised_alone": ("noised, sequential, none", WANDA),
    "dense_alone": ("clean, dense, none", WANDA),
    "noised_and_dense": (BOTH, WANDA),
    "sinks_besides": ("noised, dense, all", BOTH),
}
SWITCHES = {"noised text": "noised", "dense propagation": "dense", "all sinks left out": "sinks"}
factorial_costs = above_dense(factorial_losses)
factorial_costs = factorial_costs[factorial_costs.variant != "dense"]
found |= differences(factorial_costs, FACTORIAL)
found |= main_effects(factorial_costs, factorial_rows)
run.find(estimates(found))
sections = {}
for share in sorted(factorial_sparsities, reverse=True):
    rows_of = {label: found[f"main_{name}_{100 * share:g}"] for label, name in SWITCHES.items()}
    sections[f"at {100 * share:g} % sparsity"] = rows_of
save_shares(run, "switches", "What each switch does, mean over the others", sections)

# %% [markdown]
# ## Whole attention groups and channels
#
# Structured pruning removes whole attention groups and MLP channels; the *ratio* is the share of
# the weights that goes with them. The sink-aware recipe is compared with the plain one, and with
# itself where all tokens count: the second difference is what sinks alone do.
#
# This part has twice as many draws as the rest. The second half of them was added after the first
# half had left both ratios undecided. As the data were looked at twice, p is doubled. Findings that
# end in `later` rest on the second half alone, which is the cleaner test.

# %%
structured_rows = []
for ratio in ratios:
    structured_rows += recipe_search.structured(ratio, tokens)
more_draws = range(2 * first_seed, 2 * (first_seed + seeds))
structured_losses = recipe_search.losses(run, dlm, structured_rows, texts, length, more_draws)

STRUCTURED = {
    "structured_sink_minus_structured": ("structured-sink", "structured"),
    "structured_sink_minus_sinks_kept": ("structured-sink", "structured-sinks-kept"),
}
of_units = differences(above_dense(structured_losses), STRUCTURED)
found |= of_units
for name, each in of_units.items():
    found[f"{name}_later"] = each._replace(values_RN=each.values_RN[seeds:])
run.find(estimates(found))
LABELS = {"sink-aware − plain": "structured_sink_minus_structured"}
LABELS["sink-aware − the same with all tokens"] = "structured_sink_minus_sinks_kept"
sections = {
    f"{100 * ratio:g} % of the weights removed": {
        label: of_units[f"{name}_{100 * ratio:g}"] for label, name in LABELS.items()
    }
    for ratio in ratios
}
of = "what the second costs"
save_shares(run, "structured", "Sink-aware structured pruning", sections, of=of)

# %% [markdown]
# ## At 50 %, on more text
#
# With half of the weights zero the steps are small, and five draws of so little text cannot tell
# some of them from nothing. So the way is measured once more: in profile evidence on eight times as
# much calibration text and four times as much held-out text. The switches follow beneath it. Here,
# unlike above, each is averaged over all settings of the others, those with sinks left out among
# them. [Notebook 03](03_leaving_sinks_out.ipynb) asks in ten draws of the same text whether it
# matters which tokens are left out: all sinks, the unstable ones or random tokens.

# %%
large_tokens = large_calibration * noise_levels
large_way = recipe_search.official(0.5, large_tokens, noise_levels)
large_way += recipe_search.schedules(0.5, large_tokens, noise_levels)
large_way = [row for row in large_way if row.variant != BELOW]
large_factorial = recipe_search.factorial(0.5, large_tokens, noise_levels)

large_dlm = load(model, large_dtype, run.device)
large_texts = held_out_texts(large_dlm.tokenizer, large_sequences, length)
large_rows = [*large_way, *large_factorial]
large_losses = recipe_search.losses(run, large_dlm, large_rows, large_texts, length, draws)

# %% [markdown]
# The same steps and switches on more text, with their picture:

# %%
STEPS = {  # a label in the picture: the name of its finding
    "+ noised text, dense propagation": "noised_dense_minus_wanda",
    "+ official noise levels": "official_levels_minus_grid",
    "+ official sum of norms": "paper_sinks_kept_minus_official_levels",
    "+ official sink weights": "paper_minus_paper_sinks_kept",
    "= the official recipe": "paper_minus_wanda",
}
large_costs = above_dense(large_losses)
on_more = differences(large_costs, COMPARED)
names = [row.variant for row in large_factorial]
of_factorial = large_costs[large_costs.variant.isin(names)]
on_more |= main_effects(of_factorial, large_factorial, with_sinks=True)
on_more = {f"{name}_large": each for name, each in on_more.items()}
run.find(estimates(found | on_more))
sections = {
    "from Wanda to the official recipe": {
        label: on_more[f"{step}_50_large"] for label, step in STEPS.items()
    },
    "one switch, mean over the others": {
        label: on_more[f"main_{name}_50_large"] for label, name in SWITCHES.items()
    },
}
costs = dict.fromkeys(sections, on_more["paper_minus_wanda_50_large"].cost_RN.mean())
save_shares(run, "more_text", "The same steps at 50 %, on more text", sections, costs)

# %% [markdown]
# All findings, in nats per token. Differences are also found on every kind of scored text apart,
# since the sign may depend on it: calibration text is samples and documentation, never natural
# English. [docs/results.md](../docs/results.md#by-kind-of-text) has them side by side.

# %%
from sinkprune.evaluation.intervals import crossed_interval
from sinkprune_companion.experiments.kinds_of_text import kind_of_sequences
from sinkprune_companion.experiments.recipe_differences import by_kind_of_text

findings = estimates(found | on_more)
dense_RN = pivot(large_losses[large_losses.variant == "dense"])
findings["dense_loss"] = crossed_interval(dense_RN)
by_kind = by_kind_of_text(found, kind_of_sequences(way_costs))
run.find(findings | by_kind)

# %% [markdown]
# ## Why sinks do so little
#
# How much could any choice of so few tokens change? In the blocks of `reach_layers` a greedy search
# looks for the calibration tokens that change the most kept weights when they are left out. It
# ranks tokens by a first-order estimate of how many weights near the threshold of their row would
# cross it, and then counts exactly what the chosen tokens change. The sinks and as many random
# tokens stand beside them. Other calibration text, in place of all tokens, gives the scale. All of
# this is done with and without a special first token. [Notebook 04](04_why.ipynb) says why sinks do
# so little, with an equation.

# %%
from IPython.display import display
from sinkprune_companion.experiments import token_reach
from sinkprune_companion.figures.recipes import save_reach

if first_seed == 0 or not run.is_cell:  # a sweep measures this on draw 0 alone
    (plain,) = [row.recipe for row in large_way if row.variant == GRID]
    where = (reach_sequences, length, reach_layers)
    reached = token_reach.reach_on_both_starts(run, large_dlm, plain, *where)
    findings |= token_reach.reach_findings(reached)
    run.find(findings | by_kind)
    display(save_reach(run, reached))

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# Differences are in nats per token; below zero the first of the two is better. What is not said
# here is in the figures and tables.
#
# * **The official recipe gains on Wanda at 75 %, and not at 25 or 50 %.** Official recipe − Wanda
#   is −0.42 [−0.60, −0.24] at 75 %, where Wanda costs 2.8, and 0.017 [−0.0081, 0.043] at 50 %.
#   Calibrated on WikiText-2, as in the paper, it is −0.13 [−0.31, 0.044] at 75 %, which is
#   undecided.
# * **The sinks do not make the gain.** At 75 % the official sink weights change the loss by 0.036
#   [0.013, 0.058]. All sinks left out of Wanda's statistics change it by 0.0071 [−0.039, 0.053], on
#   average over text and propagation, and at 65 % by −0.00057 [−0.011, 0.010]. None of these
#   matters.
# * **Noised text and dense propagation make it.** At 75 % noised text changes Wanda's loss by −0.29
#   and dense propagation by −0.31, each averaged over the other. Together, at even noise levels,
#   they change it by −0.60 [−0.78, −0.43], which is more than the whole official recipe does. With
#   the official levels instead, both together give −0.31 [−0.51, −0.10], and the official sum of
#   norms lowers the loss by another 0.15. Levels, norms and sinks were added in one order; in
#   another order their parts may differ. At 65 % neither noised text (0.029 [−0.0028, 0.060]) nor
#   dense propagation (−0.0075 [−0.028, 0.013]) is seen to help.
# * **The official noise levels cost, because of their last one.** At 75 % they raise the loss by
#   0.30 [0.26, 0.33] beside an even grid. At the last of them every token is a mask, and without
#   that one level the loss is lower by 0.31 [0.25, 0.38]. At 50 %, on as little text, it is
#   undecided whether they cost anything.
# * **Of whole units, sink-aware pruning is better than plain with 30 % removed, and not because
#   sinks are left out.** In 10 draws sink-aware − plain is −0.13 [−0.20, −0.052] there and −0.11
#   [−0.21, −0.022] with 50 % removed, where p, doubled for the two looks, leaves it undecided. The
#   draws that were added by themselves decide neither: they give −0.10 [−0.21, 0.0030] and −0.16
#   [−0.32, 0.0054]. With all tokens kept the sink-aware recipe does as well. What then still sets
#   it apart from plain structured pruning is how text is read: noised, with dense propagation and
#   summed norms. On WikiText-2, in [notebook 03](03_leaving_sinks_out.ipynb), sink-aware pruning is
#   better with 50 % removed, and with 30 % that is undecided.
# * **At 50 %, on eight times as much text, only the official noise levels are seen to move the
#   loss.** They cost 0.025 [0.019, 0.031], where Wanda costs 0.32 and 0.015 would matter. The sum
#   of norms (−0.0087 [−0.018, 0.00036]) is undecided. None of the others makes a difference that
#   matters: the sink weights (−0.0018 [−0.0061, 0.0026]), all sinks left out (0.00057
#   [−0.0017, 0.0028]), noised text (0.0030 [−0.0061, 0.012]) and dense propagation (−0.0030
#   [−0.0068, 0.00074]). The whole official recipe − Wanda is 0.014 [0.0023, 0.025], undecided after
#   correction; in the ten draws of notebook 03 it does worse.
# * **Leaving sinks out exchanges few weights.** In 21 linear maps, at 50 % and on few calibration
#   sequences, it exchanges 0.19 % of the kept weights. As many tokens, chosen by the greedy search
#   to exchange the most, exchange 0.39 %; there may be a better choice. As many random tokens
#   exchange 0.046 %, which on so few maps is not told apart from the sinks: the difference lies
#   between −0.073 % and 0.35 %. Another draw of so little text exchanges 3.1 %. [Notebook
#   04](04_why.ipynb) has all maps, on the paper's text, at both sparsities.

# %%
from sinkprune_companion.pages.render import Folded, results_table

results_table(run)

# %% [markdown]
# All numbers:

# %%
from sinkprune_companion.figures.forests import listed

Folded(listed(findings, margin=[estimate.margin for estimate in findings.values()]))

# %% [markdown]
# ## Exercises
#
# 1. Add 0.65 to `sparsities`. Does the official recipe gain on Wanda there already?
# 2. Set `factorial_sparsities` to `[0.5]`. Which of the three switches has another sign than at
#    75 %?
# 3. Set `reach_layers` to `[0, 14, 29]`. Do early layers depend on few tokens more than late ones?
#
# **What this does not show.** This is one small base model, judged by its likelihood, and pruned by
# Wanda's scores. The way is measured in five draws of 16,384 tokens in float32. At 50 % it is
# measured on 131,072 tokens in bfloat16 as well; some of those draws were pruned on another kind of
# processor than others, whose rounding adds to the chance of a draw. The official levels see fewer
# sequences than the even grid, as there are ten of them and not eight. What counts as a sink is set
# as in the official code, so effects of other settings are not seen. The search for the tokens that
# change most is greedy and of first order, so a better one could find others.

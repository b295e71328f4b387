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
# **Question.** The official recipe, which the paper's code runs, does better than Wanda when three
# quarters of the weights become zero, and not when half of them do. It differs from Wanda in
# several things at once. Which of them makes the gain, and is it the sinks?

# %% [markdown] tags=["answer"]
# **Answer.** Not the sinks. Calibrated on samples of the model and on documentation, with 75 % of
# the weights zero, the official recipe lowers Wanda's loss by 0.42 of the 2.8 nats per token that
# Wanda costs; at 50 % no gain is seen, and calibrated on WikiText-2, as in the paper, a gain at 75
# % is undecided. Four steps add up to the gain: noised text and dense propagation −0.604, the
# official noise levels +0.297, because in the last of them every token is a mask, the official sum
# of norms −0.146, and the official sink weights +0.036. Leaving sinks out makes no difference that
# matters at 50, 65 or 75 %.
#
# The picture to look at is [the way from Wanda to the official
# recipe](../figures/06_gain_at_75/bridge.png).

# %% [markdown]
# Words are those of the [glossary](../docs/glossary.md). What a recipe *costs* is the loss of the
# pruned model above that of the dense one, in nats per token; the loss is the NELBO, a bound. All
# recipes see about as many calibration tokens and are scored on the same held-out text, in five
# calibration draws, each under noise of its own. Calibration text is samples of the AR model and
# documentation, scored text these and natural English; the paper's WikiText-2 is calibrated on in
# [notebook 03](03_leaving_sinks_out.ipynb).
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
# than at 50 %. It fails unless the whole interval of that growth is below zero. The word
# *sink-aware* fails if the gain grows as much with no sink left out.
#
# Wanda scores a weight by its size times the norm of its inputs over clean calibration text. The
# official recipe is four steps away:
#
# 1. *Noised text and dense propagation*: it sees text of which a share of the tokens is masked, the
#    *noise level*, as the model sees it while it writes; an *even grid* of levels has the midpoints
#    of equal parts of 0 to 1. And every block is calibrated on what the dense model's blocks give,
#    not the pruned one's.
# 2. *The official noise levels*: 0.1, 0.2 and so on up to t = 1.0, where every token is a mask.
# 3. *The official sum of norms*: norms of the levels are summed, not their squares.
# 4. *The official sink weights*: tokens that draw much attention count less.

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
# **The first picture.** What each step adds to the loss, one after the other; left of Wanda is
# better. The last row is the whole way, and the four steps add up to it.
#
# With five draws or more every row has a verdict: *no difference that matters*, if its whole
# interval lies within its margin; else *helps* or *hurts*, which need an interval without zero and
# a p-value below 0.05 after correction for related rows (Holm), those of the claims table where it
# has the row; else *undecided*. Intervals are t intervals over draws and sequences together, so
# they cover new calibration text and new scored text. A margin is half of 9.18 % of the cost of the
# recipe that is compared with, because on LLaDA-8B the paper's method takes back 9.18 % of what
# Wanda costs. The band is that of the last row.

# %%
from sinkprune_companion.experiments.paired_differences import above_dense, pivot
from sinkprune_companion.experiments.recipe_differences import differences, estimates
from sinkprune_companion.figures.recipes import save_bridge, save_shares

GRID, LEVELS, BELOW = "even grid", "official levels", "official levels below t = 1"
COMPARED = {
    "paper_minus_wanda": ("paper", "wanda"),
    "noised_dense_minus_wanda": (GRID, "wanda"),
    "official_levels_minus_grid": (LEVELS, GRID),
    "paper_no_sinks_minus_official_levels": ("paper-no-sinks", LEVELS),
    "paper_minus_paper_no_sinks": ("paper", "paper-no-sinks"),
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
# The first step changes two things, and the last one weighs sinks softly. So three switches are
# thrown apart, in all eight combinations: noised or clean text, dense or sequential propagation,
# and all sinks left out or none. A *main effect* is the mean difference that a switch makes over
# the settings of the others; that of text and of propagation is read with no sink left out. Clean
# text has no noise level, so the sinks to leave out of it are found in one noised copy of each
# sequence.
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
# ## Whole heads and channels
#
# Structured pruning removes whole attention heads and MLP channels. The sink-aware variant is
# compared with the plain one, and with itself where all tokens count: the second difference is what
# sinks alone do. It has twice as many draws as the rest. The second half of them was added when the
# first half had left both ratios undecided, so p is doubled for the two looks; findings that end in
# `later` are of the second half alone, which is the cleaner test.

# %%
structured_rows = []
for ratio in ratios:
    structured_rows += recipe_search.structured(ratio, tokens)
more_draws = range(2 * first_seed, 2 * (first_seed + seeds))
structured_losses = recipe_search.losses(run, dlm, structured_rows, texts, length, more_draws)

STRUCTURED = {
    "structured_sink_minus_structured": ("structured-sink", "structured"),
    "structured_sink_minus_no_sinks": ("structured-sink", "structured-no-sinks"),
}
of_units = differences(above_dense(structured_losses), STRUCTURED)
found |= of_units
for name, each in of_units.items():
    found[f"{name}_later"] = each._replace(values_RN=each.values_RN[seeds:])
run.find(estimates(found))
LABELS = {"sink-aware − plain": "structured_sink_minus_structured"}
LABELS["sink-aware − the same with all tokens"] = "structured_sink_minus_no_sinks"
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
# some of them from nothing. So the way is measured once more on more calibration text and more
# held-out text; in profile evidence that is eight times the calibration text and four times the
# other. The switches follow beneath it, and here, unlike above, each is averaged over all settings
# of the others, sinks left out among them. Which tokens are left out, all sinks, unstable ones or
# random ones, is asked in [notebook 03](03_leaving_sinks_out.ipynb), in ten draws of the same text.

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
    "+ official sum of norms": "paper_no_sinks_minus_official_levels",
    "+ official sink weights": "paper_minus_paper_no_sinks",
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
# All findings, in nats per token. Differences are found on every kind of text apart as well, since
# the sign may depend on it: calibration text is samples and documentation, never natural English.
# [docs/results.md](../docs/results.md#by-kind-of-text) has them side by side.

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
# looks for the calibration tokens that change the most kept weights when they are left out. A
# first-order measure ranks the tokens: how many weights near their row's threshold move. What the
# chosen tokens change is then counted exactly. Beside them stand the sinks, as many random tokens,
# and other calibration text in place of all tokens, with and without a special first token.
# [Notebook 04](04_why.ipynb) says why, with an equation.

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
# Nats per token; below zero the first of two is better. What is not said here is in the figures and
# tables.
#
# * **Of 25, 50 and 75 % the official recipe gains on Wanda at 75 % alone.** Official recipe − Wanda
#   is 0.017 [−0.0081, 0.043] at 50 % and −0.42 [−0.60, −0.24] at 75 %, where Wanda costs 2.8.
#   Calibrated on WikiText-2, as in the paper, it is −0.13 [−0.31, 0.044] at 75 % (undecided).
# * **Sinks do not make the gain.** At 75 % the official sink weights change the loss by 0.036
#   [0.013, 0.058], and all sinks left out of Wanda by 0.0071 [−0.039, 0.053] on average over text
#   and propagation. Neither matters, and nor do sinks left out at 65 % (−0.00057 [−0.011, 0.010]).
# * **Noised text and dense propagation make it.** At 75 % they change Wanda's loss by −0.29 and
#   −0.31, and together by −0.60 [−0.78, −0.43], at even noise levels: that is more than the whole
#   official recipe does. With the official levels both together give −0.31 [−0.51, −0.10]; the
#   official sum of norms lowers the loss by another 0.15. Levels, norms and sinks were added in one
#   order; in another one their parts may be others. **At 65 % neither is seen to help** (0.029
#   [−0.0028, 0.060] and −0.0075 [−0.028, 0.013]).
# * **The official noise levels cost, and their last one is why.** At 75 % they lose 0.30
#   [0.26, 0.33] against an even grid. In the last of them every token is a mask; without that one
#   level the loss is lower by 0.31 [0.25, 0.38]. At 50 % and on so little text this is undecided.
# * **Sink-aware structured pruning is better than plain where 30 % of the weights go, and not
#   because sinks are left out.** In 10 draws it changes the loss of plain structured pruning by
#   −0.13 [−0.20, −0.052] there and by −0.11 [−0.21, −0.022] at ratio 0.5. Draws 5 to 9 were added
#   when the first five had been seen, which were undecided; p is doubled for the two looks, and
#   ratio 0.5 is undecided after that. The added draws alone give −0.10 [−0.21, 0.0030] and −0.16
#   [−0.32, 0.0054], so by themselves they decide neither. With all tokens kept it does as well:
#   what then differs from plain structured pruning is how the text is read: noised, with dense
#   propagation and summed norms.
# * **At 50 %, on eight times the text, only the official noise levels move the loss.** They cost
#   0.025 [0.019, 0.031], of the 0.32 that Wanda costs. The whole official recipe − Wanda is 0.014
#   [0.0023, 0.025], undecided after correction; in the ten draws of [notebook
#   03](03_leaving_sinks_out.ipynb) it does worse. The sum of norms is undecided, −0.0087
#   [−0.018, 0.00036]. Neither the sink weights (−0.0018 [−0.0061, 0.0026]) nor all sinks left out
#   (0.00057 [−0.0017, 0.0028]), noised text (0.0030 [−0.0061, 0.012]) or dense propagation (−0.0030
#   [−0.0068, 0.00074]) make a difference that matters: that would be 0.015.
# * **Why sinks do so little.** Leaving them out exchanges few weights. In 21 linear maps, on few
#   calibration sequences, even the choice of as many tokens by which a greedy search exchanges
#   most, and there may be better ones, changes 0.39 % of the kept weights. All sinks left out
#   change 0.19 %, as many random tokens 0.046 % (a difference of −0.073 % to 0.35 %); other
#   calibration text changes 3.1 %. These are masks at 50 %; [notebook 04](04_why.ipynb) has all
#   maps, on the paper's text, and both sparsities.

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
# 2. Set `factorial_sparsities` to `[0.5]`. Which of the three switches has another sign than at 75
#    %?
# 3. Set `reach_layers` to `[0, 14, 29]`. Do early layers depend on few tokens more than late ones?
#
# **What this does not show.** One small base model, by its likelihood, with Wanda's scores. The way
# is measured in five draws of 16,384 tokens in float32, and at 50 % on 131,072 tokens in bfloat16,
# where some draws were pruned on another kind of processor than others, whose rounding adds to the
# chance of a draw. The official levels see fewer sequences than the even grid, as they are ten and
# not eight. Settings of sinks are those of the official code: joint effects of settings are not
# seen. The search for the tokens that change most is greedy and of first order, so a better one
# could find others.

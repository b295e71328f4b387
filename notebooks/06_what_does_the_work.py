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
# # 06 · What does the work?
#
# **Question.** The official recipe differs from Wanda in several things at once: it sees noised
# text, at ten noise levels of its own, with dense propagation (later blocks are calibrated on
# outputs of the dense model), sums norms in another way, and gives sinks less weight. Which of them
# matters? Does it matter which tokens are left out? And why do so few tokens change so little?

# %% [markdown] tags=["answer"]
# **Answer.** At 50 % none of its parts helps, and one costs: the official noise levels add 0.025
# nats per token [0.019, 0.031] to the loss. Leaving sinks out makes no difference that matters,
# because few tokens are sinks: without them 0.19 % of the kept weights are others, and even the
# worst choice of as many tokens that a search finds changes 0.39 %.
#
# The picture to look at is [the way from Wanda to the official
# recipe](../figures/06_what_does_the_work/effects.png).

# %% [markdown]
# Time and memory, of profiles quick and hour: [docs/performance.md](../docs/performance.md).
#
# Every recipe is scored on the same held-out text, over several calibration draws. Within a draw all
# are scored under the same noise, and each draw has its own where `own_noise` is true; all are
# calibrated on as many tokens.
# Words are those of the [glossary](../docs/glossary.md), recipes those of
# [docs/pruning.md](../docs/pruning.md).

# %% [markdown]
# **Parameters**, with the values of profile quick, which *Run all* takes. Stored outputs may be of
# a larger [profile](../docs/glossary.md): the set-up says which values it had. Lists named
# `other_…` may be empty; their values are compared with the main one.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model to prune
sparsity: float = 0.5  # share of zeros in the blocks' linear maps; verdicts are read at 0.5
other_sparsities: list[float] = []  # more sparsities for the factorial
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
draws: int = 1  # noise draws per sequence
own_noise: bool = True  # each calibration draw is scored under noise of its own; else all under one
calibration: int = 2  # calibration sequences of noised recipes; clean ones get as many tokens
length: int = 64  # tokens per sequence
seeds: int = 1  # calibration draws
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
left_out: list[str] = ["all", "unstable"]  # tokens: all, soft, official, unstable, stable, random
alpha: float = 1.0  # steepness of the soft threshold, per even share
noise_levels: int = 4  # noise levels per calibration sequence
other_noise_levels: list[int] = []  # compared with it, on as many tokens, e.g. 1, 4
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
other_sink_std: list[float] = []  # compared with it, e.g. 1.0, 3.0
stability_threshold: float = 0.8  # a position that is a sink in this share of levels is stable
other_stability_thresholds: list[float] = []  # compared with it, e.g. 0.5, 1.0
other_noise: list[str] = ["rollout"]  # of states, not an even grid: rollout, stratified, dream
other_allocations: list[str] = []  # sparsity over layers, compared with uniform: owl, linear
reach_sequences: int = 2  # calibration sequences for the search of tokens that change most
reach_layers: list[int] = [14]  # blocks whose linear maps are searched
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("06_what_does_the_work", globals())

# %% [markdown]
# ## The claim
#
# > we propose Sink-Aware Pruning, which automatically identifies and prunes unstable sinks in DLMs
# > (prior studies usually keep sinks for AR LLMs). Without retraining, our method achieves a better
# > quality-efficiency trade-off and outperforms strong prior pruning baselines under matched
# > compute. (abstract)
#
# **What would falsify it.** The claim needs the sink weights to help. It fails if the interval of
# their main effect, over clean and noised text and both propagations, lies above zero, and has no
# support if it lies within the *margin*, the smallest difference that matters: half of 9.18 % of
# what Wanda costs here, as on LLaDA-8B the paper's method takes back 9.18 % of what Wanda costs. A
# verdict needs five calibration draws, which profile full has. The ledger rests on notebooks 03 and
# 09; of this one it reads what the official noise levels cost.
#
# ## The design
#
# **1. A factorial.** Three switches, each on and off, in all eight combinations. A main effect is
# the mean difference that a switch makes over all settings of the others. An interaction is by how
# much one switch's effect grows when another is on. One corner is Wanda; the opposite one has all
# three on, at even noise levels. Clean recipes get more sequences, so that all see as many tokens.
# Clean text shows no noise level, so sinks to leave out of it are found in one noised copy of each
# sequence, at a level drawn for it; so all take as many forwards, too.

# %%
from dataclasses import replace

from sinkprune_companion.experiments.pruning_grid import OFFICIAL_LEVELS
from sinkprune_companion.experiments.recipe_search import Switch, cells, name, path
from sinkprune_core.pruning.recipe import Recipe, compared_preset

SWITCHES = [
    Switch("inputs", "clean", "noised", "noised text"),
    Switch("propagation", "sequential", "dense", "dense propagation"),
    Switch("exclude", "none", "all", "sinks left out"),
]
settings = {"sink_std": sink_std, "stability_threshold": stability_threshold}
settings["noise_levels"] = noise_levels
wanda = Recipe(sparsity=sparsity, **settings)
shares = list(dict.fromkeys([sparsity, *other_sparsities]))
factorial = {share: cells(replace(wanda, sparsity=share), SWITCHES) for share in shares}
for by_cell in factorial.values():
    for cell in ((False, False, True), (False, True, True)):  # clean text, sinks left out
        by_cell[cell] = replace(by_cell[cell], noise="stratified", noise_levels=1)

# %% [markdown]
# **2. A path.** From Wanda to the official recipe one step at a time: noised text, dense
# propagation, the official noise levels (0.1, 0.2 … 1, where every token is masked; an even grid of
# as many parts has their midpoints), norms that are summed over levels, not their squares, and sink
# weights last: soft ones, near 0 for a token far above the sink threshold. Every step sees as many
# tokens, but that sequences with ten levels are rounded down, to at least one. The steps add up to
# the whole.
#
# **3. Which tokens.** With noised text and dense propagation: none left out, or each of `left_out`.
#
# **4. Settings.** The recipe that leaves unstable sinks out, with one setting changed.

# %%
of_paper = settings | {"noise_levels": OFFICIAL_LEVELS}
official = compared_preset("paper", sparsity=sparsity, **of_paper)
fields = [("inputs",), ("propagation",), ("noise", "noise_levels"), ("norm_reduction",)]
steps = path(wanda, official, [*fields, ("exclude",)])
none = replace(wanda, inputs="noised", propagation="dense")
choice = {each: replace(none, exclude=each) for each in left_out if each != "soft"}
if "soft" in left_out:
    choice["soft"] = replace(none, exclude="all", alpha=alpha)
method = replace(none, exclude="unstable")
SETTINGS = {
    "sink_std": other_sink_std,
    "noise_levels": other_noise_levels,
    "stability_threshold": other_stability_thresholds,
    "noise": other_noise,
    "allocation": other_allocations,
}
setting = {}
for field, values in SETTINGS.items():
    for value in values:
        setting[field, value] = replace(method, **{field: value})
recipes = [recipe for by_cell in factorial.values() for recipe in by_cell.values()]
recipes += [*steps, *choice.values(), *([method] if setting else []), *setting.values()]
print(f"{len(set(recipes))} recipes, {seeds} calibration draws")

# %% [markdown]
# ## The experiment
#
# Prune, measure, restore the weights. Recipes with dense propagation share their passes over the
# calibration text. Every result is a record, so a run that was stopped goes on where it was. With
# noise of their own, draws are scored above the dense model on the same sequence under the same
# noise.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments.variants import Variant, draw_for
from sinkprune_companion.run.texts import held_out_texts
from tqdm.auto import tqdm

dlm = load(model, dtype, run.device)
fingerprint = dlm.fingerprint()
texts = held_out_texts(dlm.tokenizer, sequences, length)
numbers = range(first_seed, first_seed + seeds)
tokens = calibration * noise_levels  # in sequences
counts = {}  # calibration sequences of every recipe
for recipe in recipes:
    levels = 1 if recipe.inputs == "clean" else recipe.noise_levels
    counts[recipe] = max(1, tokens // levels)

# %% [markdown]
# The dense model first, under the noise of every draw; then all recipes on every draw's text:

# %%
measured = []
for seed in sorted({0, *numbers}) if own_noise else [0]:
    labels = {"variant": "dense", "pattern": "dense", "sparsity": 0.0, "seed": seed}
    measured.append(Variant(dlm, fingerprint).scores(run, texts, draws, noise=seed, **labels))
for seed in tqdm(numbers, desc="calibration draws"):
    drawn = draw_for(dlm, counts.items(), length, seed)
    for recipe, count in tqdm(counts.items(), desc="prune and measure", leave=False):
        labels = {"variant": name(recipe, wanda), "pattern": "unstructured"}
        labels |= {"sparsity": recipe.sparsity, "seed": seed}
        with Variant(dlm, fingerprint, recipe, *drawn[count]) as variant:
            noise = seed if own_noise else 0
            measured.append(variant.scores(run, texts, draws, noise=noise, **labels))

# %% [markdown]
# What the eight combinations cost above the dense model, in nats per token; then the share of the
# calibration tokens that each choice and each setting leaves out:

# %%
import pandas as pd
from IPython.display import display
from sinkprune.evaluation.intervals import Estimate, crossed_interval
from sinkprune_companion.experiments.paired_differences import above_dense, differences_of, pivot

losses = pd.concat(measured, ignore_index=True)
scores = above_dense(losses) if own_noise else losses
dense = pivot(scores[scores.variant == "dense"])
rows = []
for share, by_cell in factorial.items():
    for recipe in by_cell.values():
        part = scores[scores.variant == name(recipe, wanda)]
        row = {"sparsity": share, "text": recipe.inputs, "propagation": recipe.propagation}
        row |= {"sinks left out": recipe.exclude}
        rows.append(row | {"NELBO above dense": str(crossed_interval(pivot(part) - dense))})
mean = losses[losses.variant == "dense"].value.mean()
print(f"NELBO of the dense model: {mean:.4f} nats per token")
index = ["sparsity", "text", "propagation", "sinks left out"]
display(pd.DataFrame(rows).set_index(index).unstack(sort=False))
named = {f"left out: {each}": recipe for each, recipe in choice.items()}
named |= {f"{field} {value}": recipe for (field, value), recipe in setting.items()}
shares_out = {}
for label, recipe in named.items():
    shares_out[label] = 100 * scores[scores.variant == name(recipe, wanda)].left_out_share.mean()
pd.Series(shares_out, name="tokens left out (%)", dtype=float).round(2).to_frame()

# %% [markdown]
# ## The finding: what each change does
#
# Left of zero helps. A section is a family of questions that are read together, and its p-values
# are corrected for their number (Holm). From five calibration draws on, a row is first *no
# difference that matters*, if its whole interval lies within ± the margin, on whatever side of zero;
# else *helps* or *hurts*, which need an interval without zero and a corrected p-value below 0.05;
# else *undecided*.
#
# The path from Wanda to the official recipe comes first, and the whole of it in the first row. Then
# come the three switches of the factorial, each averaged over the settings of the others, and the
# choices of sinks or random tokens. The rest is in the data of the figure and in the folded table
# at the end.

# %%
from itertools import pairwise

from sinkprune.evaluation.verdict_rule import judge
from sinkprune_companion.experiments.recipe_search import effects
from sinkprune_companion.figures import figures, forests
from sinkprune_companion.ledger.margins import damage_margin, with_share_of_damage
from sinkprune_companion.pages.render import title


def against(pairs: dict[str, tuple[Recipe, Recipe]]) -> dict:
    """Differences of two recipes, by label."""
    named = {label: (name(one, wanda), name(other, wanda)) for label, (one, other) in pairs.items()}
    return differences_of(scores, named)


def damage(recipe: Recipe) -> Estimate:
    """What a recipe costs above the dense model, in nats per token."""
    return crossed_interval(pivot(scores[scores.variant == name(recipe, wanda)]) - dense)


# %% [markdown]
# Margins, main effects and interactions, the path, and what is compared besides:

# %%
margins = {share: damage_margin(damage(replace(wanda, sparsity=share))) for share in shares}
factors = {}
for share, by_cell in factorial.items():
    variants = {cell: name(recipe, wanda) for cell, recipe in by_cell.items()}
    factors[share] = effects(scores, variants, SWITCHES)
STEPS = ["+ noised text", "+ dense propagation", "+ official noise levels"]
STEPS += ["+ official sum of norms", "+ official sink weights"]
taken = {label: pair[::-1] for label, pair in zip(STEPS, pairwise(steps), strict=True)}
on_path = against({"all of it: official recipe": (official, wanda)} | taken)
pairs = {f"{each} − none": (recipe, none) for each, recipe in choice.items()}
for one, other in (("unstable", "all"), ("unstable", "stable"), ("all", "random")):
    if {one, other} <= set(choice):
        pairs[f"{one} − {other}"] = (choice[one], choice[other])
by_choice = against(pairs)
pairs = {}
for (field, value), recipe in setting.items():
    pairs[f"{field} {value}, not {getattr(method, field)}"] = (recipe, method)
by_setting = against(pairs)

# %% [markdown]
# Findings, each with the recipe of whose cost its margin is a share.

# %%
costs = {}
for share in shares:
    ending = "" if share == sparsity else f"_{100 * share:.0f}"
    for finding, switch in zip(("main_noised", "main_dense", "main_sinks"), SWITCHES, strict=True):
        costs[finding + ending] = (factors[share][switch.label], replace(wanda, sparsity=share))
costs["official_noise_levels"] = (on_path["+ official noise levels"], steps[2])
costs["official_sum_of_norms"] = (on_path["+ official sum of norms"], steps[3])
costs["official_without_weights"] = (-on_path["+ official sink weights"], steps[-2])
costs["official_minus_wanda"] = (on_path["all of it: official recipe"], wanda)
for pair in ("unstable − all", "all − random", "unstable − none", "all − none", "random − none"):
    one, other = pair.split(" − ")
    costs[f"{one}_minus_{other}"] = (by_choice.get(pair), choice.get(other, none))
costs["rollout_minus_grid"] = (by_setting.get("noise rollout, not grid"), method)
linear = by_setting.get("allocation linear, not uniform")
costs["allocation_linear_minus_uniform"] = (linear, method)
found = {}
for finding, (values_RN, compared) in costs.items():
    if values_RN is not None:
        found[finding] = with_share_of_damage(crossed_interval(values_RN), damage(compared))
found["dense_loss"] = crossed_interval(pivot(losses[losses.variant == "dense"]))
found["wanda_minus_dense"] = crossed_interval(pivot(scores[scores.variant == "base"]) - dense)
missing = dict.fromkeys(finding for finding in costs if finding not in found)
run.find(found | missing if sparsity == 0.5 else {})

# %% [markdown]
# The picture, a section for each family:

# %%
sections = {
    "from Wanda to the official recipe": on_path,
    f"factorial at {sparsity:.0%} sparsity": factors[sparsity],
    "left out of the statistics": by_choice,
    "settings (unstable sinks left out)": by_setting,
}
parts = [judge(values, margins[sparsity], label) for label, values in sections.items() if values]
tables = {"effects": pd.concat(parts, ignore_index=True)}
for share in other_sparsities:
    section = f"factorial at {share:.0%} sparsity"
    tables[f"effects_{100 * share:.0f}"] = judge(factors[share], margins[share], section)
SHOWN = [*on_path, *(switch.label for switch in SWITCHES)]
SHOWN += ["all − none", "unstable − none", "random − none"]  # settings are in the data
for file, table in tables.items():
    says = title(run, file, "What each change does to the pruned model")
    axis = "effect on the NELBO of the pruned model (nats per token)"
    drawn = forests.plot_effects(table[table.comparison.isin(SHOWN)], axis, says)
    caption = f"effects of steps, switches and choices of tokens. {says}"
    display(figures.save_figure(run, drawn, file, table, caption))

# %% [markdown]
# ## Why so little
#
# How much could any choice of so few tokens change? In the blocks of `reach_layers` a greedy search
# looks for the calibration tokens that change the most kept weights when they are left out. A
# first-order measure ranks the tokens: how many weights near their row's threshold move. What the
# chosen tokens change is then counted exactly. Beside them stand the sinks, as many random tokens,
# and other calibration text in place of all tokens, with and without a special first token.

# %%
from sinkprune import corpus
from sinkprune_companion.experiments.token_reach import reach_findings, token_reach
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core.calibration.text import Calibration

drawn_texts = [calibration_draw(dlm, reach_sequences, length, seed) for seed in (0, 1)]
with_token = [
    Calibration(corpus.with_first_token(text.ids_NT, dlm.tokenizer), text.seed)
    for text in drawn_texts
]


def reach(text: Calibration, other: Calibration) -> pd.DataFrame:
    return run.record(
        "reach",
        lambda: token_reach(dlm, none, text, other, reach_layers),
        recipe=none,
        calibration=[text.fingerprint, other.fingerprint],
        layers=reach_layers,
        fingerprint=fingerprint,
    )


# %% [markdown]
# The shares of the kept weights that change, by how many tokens are left out:

# %%
if first_seed == 0 or not run.is_cell:  # a sweep measures this on draw 0 alone
    reached = pd.concat(
        [
            reach(*drawn_texts).assign(text="no special first token"),
            reach(*with_token).assign(text="<|endoftext|> first"),
        ]
    )
    found |= reach_findings(reached[reached.text == "no special first token"])
    run.find(found | missing if sparsity == 0.5 else {})
    by = ["text", "choice", "tokens", "share"]
    means = reached.groupby(by, sort=False).changed.mean().reset_index()
    percentages = means.assign(share=100 * means.share, changed=100 * means.changed)
    axes = {"share": "tokens left out or replaced (%)"}
    axes["changed"] = "kept weights that change (%)"
    says = title(run, "reach", "Kept weights that change when calibration tokens are left out")
    how = {"logx": True, "logy": True, "title": says, "panel": "text"}
    some = percentages[percentages.changed > 0]
    drawn = figures.plot_curves(some, "share", "changed", "choice", axes, **how)
    display(figures.save_figure(run, drawn, "reach", reached, says))

# %% [markdown]
# ## The reading
#
# Then, folded, all findings and all effects.

# %% [markdown] tags=["reading"]
# * **Leaving sinks out makes no difference that matters**, so the claim has no support here. Its
#   main effect over clean and noised text and both propagations is 0.00057 nats per token
#   [−0.0017, 0.0028]; what stays within 0.015 would not matter. With noised text and dense
#   propagation, unstable sinks left out cost 0.0027 [0.00094, 0.0044], all sinks 0.0021
#   [−0.0013, 0.0056] and as many random tokens 0.00081 [−0.000097, 0.0017]; all sinks − random
#   tokens is 0.0013 [−0.0024, 0.0051], unstable − all 0.00054 [−0.0013, 0.0024]. [Notebook
#   03](03_leaving_sinks_out.ipynb) has ten calibration draws, 5 are here.
# * **What moves the loss are the official noise levels.** The official recipe − Wanda is 0.014
#   [0.0023, 0.025], undecided after correction here; Wanda itself costs 0.32. Its noise levels (ten
#   instead of eight, at other values, on fewer sequences) cost 0.025 [0.019, 0.031]. The sum of
#   norms is undecided, −0.0087 [−0.018, 0.00036]. Its sink weights, added last, take 0.0018
#   [−0.0026, 0.0061] back: less than matters. Nor do noised text (0.0030 [−0.0061, 0.012]) and
#   dense propagation (−0.0030 [−0.0068, 0.00074]) make a difference that matters at 50 %. On an
#   eighth of the text [notebook 07](07_best_recipe.ipynb) could not decide the step to the noise
#   levels at 50 %; at 75 %, where they cost more, it finds the last level, where every token is
#   masked, to be the reason.
# * Of two settings, zeros that grow linearly over the layers cost 0.051 [0.042, 0.061] more than as
#   many in each, and states of real denoising runs instead of noised text 0.0076 [−0.00013, 0.015].
# * **Why so little.** Few tokens are sinks (a table above), and so few moved little. In 21 linear
#   maps, on few calibration sequences, even the worst choice that a greedy search finds, and there
#   may be worse ones, changes 0.39 % of the kept weights. All sinks left out change 0.19 %, as many
#   random tokens 0.046 % (a difference of −0.073 % to 0.35 %); other calibration text changes
#   3.1 %. Notebook 03 has smaller shares, from all maps and more text.

# %%
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.pages.render import Folded, results_table

display(results_table(run))
table = pd.concat(tables.values(), ignore_index=True)
effect = table.set_index(["section", "comparison"])[["value", "low", "high", "verdict"]]
margins_of = [estimate.margin for estimate in found.values()]
display(Folded(listed(found, margin=margins_of)), Folded(effect, f"{len(table)} effects"))

# %% [markdown]
# ## Exercises
#
# 1. Set `other_sink_std` to `[0.0, 4.0]`. Expect more tokens to be left out at 0 than at 4. Does
#    the effect follow?
# 2. Set `reach_layers` to `[0, 14, 29]`. Do early layers depend on few tokens more than late ones?
#
# **What this does not show.** This is one small model; two other trainings of it are measured in
# [notebook 08](08_stable_sinks.ipynb); Wanda scores, zeros per row, likelihood only. States
# of real denoising runs (`rollout`) differ from noised text in more than their sinks: the model
# wrote three quarters of them itself. The official noise levels differ from the even grid in their
# number, their values and the last one, which this notebook does not part. Settings are changed one
# at a time, so joint effects are not seen. In draws 3 and 4 recipes that notebook 03 has, too, were
# pruned on another kind of processor than the others, whose rounding adds to the chance of a draw.
# The search is greedy and of first order: a better one could find tokens that change more.

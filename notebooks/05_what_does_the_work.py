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
# # 05 · What does the work?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sinkprune/sinkprune/blob/v0.1.0/notebooks/05_what_does_the_work.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/sinkprune/sinkprune/v0.1.0?urlpath=lab/tree/notebooks/05_what_does_the_work.ipynb)
#
# **Question.** The official comparison with Wanda changes calibration text, propagation and sink
# weights together. Which of them does the work, does it matter which tokens are left out, and do
# the method's settings?
#
# | profile | time on 2 cores | peak memory |
# |---|---|---|
# | quick | about a minute | 1.2 GB |
# | full | about 18 core-minutes | 1.5 GB a job |
#
# Every recipe is measured on the same held-out sequences under the same noise, and repeated over
# calibration draws. That nothing changes is a finding here, too, and needs its own test.

# %% [markdown]
# **Parameters.** The lists may be empty; what is in them is compared with the value above it.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model to prune
sparsity: float = 0.5  # share of zeros in the blocks' linear maps; verdicts are read at 0.5
other_sparsities: list[float] = []  # more sparsities for the factorial
margin: float = 0.02  # the smallest difference that would matter, nats per token
sequences: int = 32  # held-out sequences, half samples of the AR model, half documentation
draws: int = 2  # noise draws per sequence
calibration: int = 8  # calibration sequences
length: int = 128  # tokens per sequence
seeds: int = 3  # calibration draws
first_seed: int = 0  # number of the first calibration draw: one cell of a sweep takes one draw
left_out: list[str] = [
    "all",
    "soft",
    "official",
    "unstable",
    "stable",
    "random",
    "only",
]  # choices of tokens, or `soft`
alpha: float = 1.0  # steepness of the soft threshold, per even share
noise_levels: int = 8  # noise levels per calibration sequence
other_noise_levels: list[int] = [1, 4]  # compared with it
sink_std: float = 2.0  # a sink gets more than mean + this many standard deviations
other_sink_std: list[float] = [1.0, 3.0]  # compared with it
stability_threshold: float = 0.8  # a position that is a sink in this share of levels is stable
other_stability_thresholds: list[float] = [0.5, 1.0]  # compared with it
other_noise: list[str] = [
    "rollout",
    "stratified",
    "dream",
]  # rules of the states, compared with an even grid
other_allocations: list[str] = [
    "owl",
    "linear",
    "linear-reverse",
]  # sparsity over layers, compared with uniform
dtype: str = "bfloat16"  # of the weights

# %% [markdown]
# **Set-up.** Installs the package where it is missing (Colab), checks the parameters before any
# work, and says where results go.

# %% tags=["setup"]
import subprocess
import sys
from importlib.util import find_spec

if find_spec("sinkprune_core") is None:  # a place that has only this notebook, such as Colab
    source = "sinkprune @ git+https://github.com/sinkprune/sinkprune@v0.1.0"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", source])
from sinkprune_core.companion.parameters import start

run = start("05_what_does_the_work", globals())

# %% [markdown]
# ## The claim
#
# > we propose Sink-Aware Pruning, which automatically identifies and prunes unstable sinks in DLMs
# > (prior studies usually keep sinks for AR LLMs). Without retraining, our method achieves a
# > better quality-efficiency trade-off and outperforms strong prior pruning baselines under
# > matched compute. (abstract)
#
# **What would falsify it.** That the sink weights are what helps: their main effect, over both
# kinds of text and both propagations, has an interval that reaches zero. And if it lies within ±
# `margin`, they do nothing that matters.
#
# ## The design
#
# **1. A factorial.** Three switches, each on and off, in all eight combinations. A main effect is
# the mean difference that one switch makes over all settings of the others; an interaction is by
# how much one switch's effect grows when another is on. The corners are Wanda and, but for
# details, the official recipe.

# %%
from dataclasses import replace

from sinkprune_core.companion.contrasts import Switch, cells, name, path
from sinkprune_core.pruning.recipe import Recipe, preset

SWITCHES = [
    Switch("inputs", "clean", "noised", "noised text"),
    Switch("propagation", "sequential", "dense", "dense propagation"),
    Switch("exclude", "none", "all", "sinks left out"),
]
wanda = Recipe(
    sparsity=sparsity,
    noise_levels=noise_levels,
    sink_std=sink_std,
    stability_threshold=stability_threshold,
)
shares = list(dict.fromkeys([sparsity, *other_sparsities]))
factorial = {share: cells(replace(wanda, sparsity=share), SWITCHES) for share in shares}

# %% [markdown]
# **2. A path.** From Wanda to the official recipe one step at a time: noised text, dense
# propagation, the official noise levels (the last of which masks every token; as many levels as
# all recipes here, where the official code has ten), the official sum of norms, and its sink
# weights last. The steps add up to the whole.
#
# **3. Which tokens.** With noised text and dense propagation: none left out, or each of
# `left_out`.
#
# **4. Settings.** The method with unstable sinks left out, and one setting changed. (With one
# level nothing can be unstable.)

# %%
official = preset(
    "paper",
    sparsity=sparsity,
    noise_levels=noise_levels,
    sink_std=sink_std,
    stability_threshold=stability_threshold,
)
steps = path(wanda, official, ["inputs", "propagation", "noise", "norm_reduction", "exclude"])
none = replace(wanda, inputs="noised", propagation="dense")
choice = {
    each: replace(
        none, **({"exclude": "all", "alpha": alpha} if each == "soft" else {"exclude": each})
    )
    for each in left_out
}
method = replace(none, exclude="unstable")
SETTINGS = {
    "sink_std": other_sink_std,
    "noise_levels": other_noise_levels,
    "stability_threshold": other_stability_thresholds,
    "noise": other_noise,
    "allocation": other_allocations,
}
setting = {
    (field, value): replace(method, **{field: value})
    for field, values in SETTINGS.items()
    for value in values
}
recipes = list(
    dict.fromkeys(
        [
            *(recipe for each in factorial.values() for recipe in each.values()),
            *steps,
            none,
            *choice.values(),
            *([method] if setting else []),
            *setting.values(),
        ]
    )
)
print(f"{len(recipes)} recipes, {seeds} calibration draws")

# %% [markdown]
# ## The experiment
#
# Prune, measure, put the weights back. Recipes with dense propagation share their passes over the
# calibration text. Every result is a record: a run that was killed goes on where it was.

# %%
import pandas as pd
from sinkprune_core import corpus
from sinkprune_core.companion.texts import calibration_draw
from sinkprune_core.companion.variants import SharedStatistics, variant_scores
from sinkprune_core.models.loading import load
from tqdm.auto import tqdm

dlm = load(model, dtype)
fingerprint = dlm.fingerprint()
texts = corpus.texts(dlm.tokenizer, sequences, length, held_out=True)
parts = [variant_scores(run, dlm, fingerprint, None, None, texts, draws, variant="dense", seed=0)]
for seed in tqdm(range(first_seed, first_seed + seeds), desc="calibration draws"):
    text = calibration_draw(dlm, calibration, length, seed)
    shared = SharedStatistics(dlm, recipes, text)
    for recipe in tqdm(recipes, desc="prune and measure", unit="recipe", leave=False):
        parts.append(
            variant_scores(
                run,
                dlm,
                fingerprint,
                recipe,
                text,
                texts,
                draws,
                shared=shared,
                variant=name(recipe, wanda),
                seed=seed,
            )
        )
scores = pd.concat(parts, ignore_index=True)

# %% [markdown]
# What the eight combinations cost, above the dense model (nats per token), and the share of the
# calibration text that they leave out.

# %%
from sinkprune_core.evaluation.intervals import crossed_interval, pivot

dense = pivot(scores[scores.variant == "dense"])
rows = []
for share, by_cell in factorial.items():
    for recipe in by_cell.values():
        part = scores[scores.variant == name(recipe, wanda)]
        rows.append(
            {
                "sparsity": share,
                "text": recipe.inputs,
                "propagation": recipe.propagation,
                "sinks left out": recipe.exclude,
                "NELBO above dense": str(crossed_interval(pivot(part) - dense)),
                "left out": round(part.left_out_share.mean(), 4),
            }
        )
print(f"dense: {dense.mean():.4f} nats per token")
pd.DataFrame(rows).set_index(["sparsity", "text", "propagation", "sinks left out"]).unstack(
    sort=False
)

# %% [markdown]
# And the share that each choice of tokens, and each setting, takes out of the statistics.

# %%
named = {f"left out: {each}": recipe for each, recipe in choice.items()} | {
    f"{field} {value}": recipe for (field, value), recipe in setting.items()
}
pd.Series(
    {
        label: scores[scores.variant == name(recipe, wanda)].left_out_share.mean()
        for label, recipe in named.items()
    },
    name="share left out",
    dtype=float,
).round(4).to_frame()

# %% [markdown]
# ## Effects
#
# Left of zero helps. Each section is a family of questions that are read together, and its
# p-values are corrected for their number (Holm). *Helps* and *hurts* need an interval without zero
# and a corrected p-value below 0.05; *no difference* needs a corrected equivalence test (two
# one-sided t tests within ± `margin`); all else is *inconclusive*.

# %%
from sinkprune_core.companion.contrasts import differences_of, effects, judge


def against(pairs: dict[str, tuple[Recipe, Recipe]]) -> dict:
    return differences_of(
        scores,
        {label: (name(one, wanda), name(other, wanda)) for label, (one, other) in pairs.items()},
    )


by_factor = {
    share: effects(
        scores, {cell: name(recipe, wanda) for cell, recipe in by_cell.items()}, SWITCHES
    )
    for share, by_cell in factorial.items()
}
STEPS = [
    "+ noised text",
    "+ dense propagation",
    "+ official noise levels",
    "+ official sum of norms",
    "+ official sink weights",
]
on_path = against(
    {
        label: (later, earlier)
        for label, earlier, later in zip(STEPS, steps, steps[1:], strict=False)
    }
    | {"all of it": (official, wanda)}
)
pairs = {f"{each} − none": (recipe, none) for each, recipe in choice.items()}
pairs |= {
    f"{one} − {other}": (choice[one], choice[other])
    for one, other in (("unstable", "all"), ("unstable", "stable"), ("all", "random"))
    if {one, other} <= set(choice)
}
by_choice = against(pairs)
by_setting = against(
    {
        f"{field} {value}, not {getattr(method, field)}": (recipe, method)
        for (field, value), recipe in setting.items()
    }
)

# %% [markdown]
# The figure shows all of them.

# %%
from sinkprune_core.companion import figures, forests

sections = {f"factorial at {share:.0%} sparsity": values for share, values in by_factor.items()}
sections |= {
    "from Wanda to the official recipe": on_path,
    "left out of the statistics": by_choice,
    "settings (unstable sinks left out)": by_setting,
}
table = pd.concat(
    [judge(values, margin, section) for section, values in sections.items() if values],
    ignore_index=True,
)
drawn = forests.plot_effects(table, "effect on the NELBO of the pruned model (nats per token)")
figures.save_figure(
    run,
    drawn,
    "effects",
    table,
    "effects of switches, steps, choices of tokens and settings; bars: 95 % bootstrap interval "
    "over calibration draws and sequences",
)

# %% [markdown]
# ## Does a switch do the same everywhere?
#
# The twelve pairs of combinations that differ in exactly one switch: the main effects above are
# the means of four of them.

# %%
from sinkprune_core.companion.contrasts import neighbours

called = {switch.field: switch.label for switch in SWITCHES}
edges = {}
for later, earlier, field in neighbours(factorial[sparsity].values()):
    rest = ", ".join(str(getattr(earlier, other)) for other in called if other != field)
    edges[f"{called[field]} ({rest})"] = (later, earlier)
simple = pd.concat(
    [
        judge(values, margin, field)
        for field in called.values()
        if (
            values := {
                label: value for label, value in against(edges).items() if label.startswith(field)
            }
        )
    ]
)
drawn = forests.plot_effects(simple, f"simple effect at {sparsity:.0%} sparsity (nats per token)")
figures.save_figure(
    run,
    drawn,
    "simple_effects",
    simple,
    "one switch changed, the others as in brackets; bars: 95 % bootstrap interval over "
    "calibration draws and sequences",
)

# %% [markdown]
# ## The reading
#
# Computed from the table: what each section comes to, then its effects in words.

# %%
from IPython.display import Markdown, display
from sinkprune_core.companion.contrasts import reading

for section, part in table.groupby("section", sort=False):
    display(
        Markdown(
            f"**{section}**\n\n"
            + "\n".join(
                "- **" + line.replace(":", ":**", 1)
                for line in [*reading(part).splitlines(), *part.words]
            )
        )
    )

# %% [markdown]
# How sure can a run of this size be? The standard error of a typical effect by its source: other
# sequences, other calibration draws. And a test on few sequences cannot find anything, however
# large: the smallest p-value it can give must stay below 0.05 when it is multiplied by the size of
# its family.

# %%
smallest = 2.0 ** (1 - sequences) * table.section.value_counts().max()
print(f"smallest corrected p-value that {sequences} sequences can give: {smallest:.2g}")
table.groupby("section", sort=False)[["error_sequences", "error_draws"]].median().round(4)

# %% [markdown]
# ## The verdict
#
# Findings for the ledger. What the parameters of this run left out is None.

# %%
from sinkprune_core.companion import claims

values = {
    "main_noised": by_factor[sparsity]["noised text"],
    "main_dense": by_factor[sparsity]["dense propagation"],
    "main_sinks": by_factor[sparsity]["sinks left out"],
}
values |= {
    "official_without_weights": -on_path["+ official sink weights"],
    "official_minus_wanda": on_path["all of it"],
}
values |= {
    "unstable_minus_all": by_choice.get("unstable − all"),
    "rollout_minus_grid": by_setting.get("noise rollout, not grid"),
}
found = {
    finding: None if values_RN is None else crossed_interval(values_RN)
    for finding, values_RN in values.items()
}
run.find(found if sparsity == 0.5 else {})
claims.shown(claims.verdicts(claims.ledger(), claims.findings(run.folder), run.notebook))

# %% [markdown]
# **What this does not show.** One small model, Wanda scores, row-wise zeros, likelihood only.
# Recipes with clean text see one row per sequence, noised ones one per level, so *noised text*
# includes seeing more of it (notebook 04 matches the tokens). Rollouts differ from noised text in
# more than their sinks: the model wrote three quarters of them itself. Intervals resample few
# calibration draws, and are too narrow where draws differ much; the corrected p-values speak of
# these draws only. Settings are changed one at a time, so what two of them do together is not
# seen.

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
# # 02 · Are sinks essential?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sinkprune/sinkprune/blob/v0.1.0/notebooks/02_hiding_sinks.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/sinkprune/sinkprune/v0.1.0?urlpath=lab/tree/notebooks/02_hiding_sinks.ipynb)
#
# **Question.** Notebook 01 asks whether sinks move. That a sink moves does not say that a model
# can do without it. So take it away: hide the keys that receive most attention, or as many others,
# and see what that costs.
#
# | profile | time on 2 cores | peak memory |
# |---|---|---|
# | quick | about a minute | 1.2 GB |
# | full | about 5 core-minutes | 1.6 GB a job |

# %% [markdown]
# **Parameters.**

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on the same text
base: str = "smol-ar"  # what both were trained from, reported beside them
counts: list[int] = [1, 5, 10]  # numbers of keys to hide; verdicts are read at 5
sequences: int = 16  # held-out sequences to score, half samples of the AR model, half documentation
draws: int = 4  # noise draws per sequence
length: int = 128  # tokens per sequence
prompts: int = 8  # held-out prompts to continue
prompt_length: int = 32  # tokens of each prompt
written: int = 32  # tokens to write
steps: int = 16  # denoising steps
temperature: float = 1.0  # of both models' samples
seed: int = 0  # of the choice of prompts and of the samplers
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

run = start("02_hiding_sinks", globals())

# %% [markdown]
# ## The claim
#
# > indicating that sinks are often transient and less structurally essential than in AR models.
# > (abstract)
#
# **What would falsify it.** On the same text, hiding its sinks costs the DLM as much as the AR
# model (the interval of the difference reaches zero). And, read strictly: hiding the sinks of a
# DLM costs more than hiding as many other keys.
#
# ## The intervention
#
# A hidden key is seen by no query but its own, in all layers and heads; the weights of the others
# are renormalised, as softmax does. Which keys? A first forward over the same state tells how much
# attention each receives.
#
# * **strongest**: the keys that receive most. In the DLM, of each noised state; masks are keys
#   like others. In the AR model the later half of the queries decides, and only keys that all of
#   them see can be hidden, from every query behind them.
# * **random**: as many that are neither among those nor sinks, and as many masks among them.
#   Without that last condition a text would be compared with blanks.
# * **first token kept**: the strongest keys other than position 0, which is the one sink that
#   never moves.
# * **first token**: position 0 alone.

# %%
from sinkprune_core import corpus
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.models.loading import load
from sinkprune_core.sinks.hiding import Hiding

COUNT = 5  # where verdicts are read, as the ledger says
if max(counts) > length // 8:
    raise ValueError(
        f"counts={counts} must not exceed {length // 8}, an eighth of length={length}: as many "
        "random keys must be left"
    )
if min(sequences, prompts) < 2 or prompt_length < 4 * COUNT:
    raise ValueError(
        f"sequences={sequences} and prompts={prompts} must be at least 2, for intervals, and "
        f"prompt_length={prompt_length} at least {4 * COUNT}, so that keys are left"
    )
hidings = [Hiding("first", 1)] + [
    hiding
    for count in counts
    for hiding in (Hiding("top", count), Hiding("random", count), Hiding("top", count, first=False))
]
sampler = Sampler(written, steps, block=None, temperature=temperature)
dlm, ar = load(model, dtype), load(twin, dtype)
if not dlm.is_diffusion or ar.is_diffusion:
    raise ValueError(
        f"model={model} must be a diffusion model and twin={twin} an autoregressive one; they are "
        f"{dlm.kind} and {ar.kind}"
    )
prints = {lm.name: lm.fingerprint() for lm in (dlm, ar)}
texts = corpus.texts(dlm.tokenizer, sequences, length, held_out=True)

# %% [markdown]
# ## Scoring without sinks
#
# The DLM's NELBO under the same noise for every variant, the AR model's exact likelihood, on the
# same held-out text. The *excess* is what a hiding costs: nats per token above the model that sees
# all keys, paired by sequence and noise.

# %%
import pandas as pd
from sinkprune_core.companion.hiding_scores import hiding_scores

DESCRIBED = ["value", "excess", "attention", "first", "masks", "left", "second"]
scores = pd.concat(
    [hiding_scores(run, lm, prints[lm.name], hidings, texts, draws) for lm in (dlm, ar)],
    ignore_index=True,
)
scores.groupby(["model", "label", "count"], sort=False)[DESCRIBED].mean().round(3)

# %% [markdown]
# `attention` is the share of all attention that the hidden keys had received, `first` how often
# position 0 was among them, `masks` how many of them were masks. `left` is the share that the
# strongest key receives once they are hidden, and `second` how often that is position 1: a new
# sink may take over. Without position 0, the second token of a causal model sees itself alone, as
# the first one did.
#
# ## The figure: what hiding costs

# %%
from sinkprune_core.companion import figures, forests
from sinkprune_core.evaluation.intervals import interval

rows = []
for (name, kind, label, count), part in scores[scores["count"] > 0].groupby(
    ["model", "kind", "label", "count"], sort=False
):
    found = interval(part.excess)
    rows.append(
        {
            "model": name,
            "kind": kind,
            "label": label,
            "count": count,
            "value": found.value,
            "low": found.low,
            "high": found.high,
        }
    )
costs = pd.DataFrame(rows)
figures.save_figure(
    run,
    figures.plot_hiding(costs, "excess (nats per token)"),
    "costs",
    costs,
    "what hiding keys from attention costs; bars: 95 % bootstrap interval over sequences",
)

# %% [markdown]
# ## The two kinds of text
#
# Samples of the AR model are easy for it, documentation is not. The mean excess on each shows
# whether the answer hangs on one of them.

# %%
by_text = scores[scores["count"].isin([0, COUNT])].pivot_table(
    "excess", ["model", "text"], "label", sort=False
)
by_text.round(3)

# %% [markdown]
# ## Writing without sinks
#
# Both models continue the same prompts, and at every step the keys that are strongest *then* are
# hidden. The AR model, with nothing hidden from it, reads the result: nats per token, the same
# random numbers for every variant. It likes repetition, so the share of distinct neighbours stands
# beside it.

# %%
import torch
from sinkprune_core.companion.hiding_scores import hiding_texts

prompt_NT = torch.cat(
    list(corpus.texts(dlm.tokenizer, prompts, prompt_length, held_out=True, seed=seed).values())
)
variants = [Hiding("top", COUNT), Hiding("random", COUNT)]
texts_written = pd.concat(
    [hiding_texts(run, lm, ar, prints, variants, prompt_NT, sampler, seed) for lm in (dlm, ar)],
    ignore_index=True,
)
texts_written.groupby(["model", "label"], sort=False)[
    ["value", "excess", "changed", "distinct", "attention"]
].mean().round(3)

# %% [markdown]
# One prompt, as it came.

# %%
shown = texts_written[texts_written.sequence == 0]
print(f"prompt: {dlm.tokenizer.decode(prompt_NT[0])!r}")
for row in shown.itertuples():
    print(
        f"{row.model}, hidden: {row.label}: "
        f"{dlm.tokenizer.decode([int(token) for token in row.tokens.split()])!r}"
    )

# %% [markdown]
# ## The base
#
# What were sinks worth to the model that both were trained from? The same scoring of
# `base`, which the ledger reports beside the pair. The pair has served and leaves the memory.

# %%
for lm in (dlm, ar):
    lm.model.to("meta")  # names and tokenizers are all that is needed of them from here on
original = load(base, dtype)
base_scores = hiding_scores(run, original, original.fingerprint(), hidings, texts, draws)
base_scores.groupby(["model", "label", "count"], sort=False)[DESCRIBED].mean().round(3)

# %% [markdown]
# ## The reading
#
# Differences are paired by sequence, or by prompt; intervals are bootstrap intervals over them.


# %%
def excess(frame: pd.DataFrame, name: str, label: str, count: int = COUNT):
    """The excess of one model and hiding, by sequence; None where it was not measured."""
    part = frame[(frame.model == name) & (frame.label == label) & (frame["count"] == count)]
    return part.sort_values("sequence").excess.to_numpy() if len(part) else None


def difference(one, other):
    return None if one is None or other is None else interval(one - other)


def beyond(frame: pd.DataFrame, name: str):
    """What the strongest keys cost beyond as many random ones, by sequence."""
    top, random = excess(frame, name, "strongest"), excess(frame, name, "random")
    return None if top is None else top - random


# %% [markdown]
# Every finding is one line of the ledger.

# %%
from sinkprune_core.evaluation.intervals import listed

found = {
    "excess_difference": difference(
        excess(scores, dlm.name, "strongest"), excess(scores, ar.name, "strongest")
    ),
    "excess_difference_without_first": difference(
        excess(scores, dlm.name, "strongest, first token kept"),
        excess(scores, ar.name, "strongest, first token kept"),
    ),
    "top_minus_random_dlm": difference(
        excess(scores, dlm.name, "strongest"), excess(scores, dlm.name, "random")
    ),
    "top_minus_random_ar": difference(
        excess(scores, ar.name, "strongest"), excess(scores, ar.name, "random")
    ),
    "beyond_random_difference": difference(beyond(scores, dlm.name), beyond(scores, ar.name)),
    "excess_difference_base": difference(
        excess(scores, dlm.name, "strongest"), excess(base_scores, original.name, "strongest")
    ),
    "first_minus_other_dlm": difference(
        excess(scores, dlm.name, "first token", 1),
        excess(scores, dlm.name, "strongest, first token kept", 1),
    ),
    "written_difference": difference(
        excess(texts_written, dlm.name, "strongest"), excess(texts_written, ar.name, "strongest")
    ),
    "written_top_minus_random_dlm": difference(
        excess(texts_written, dlm.name, "strongest"), excess(texts_written, dlm.name, "random")
    ),
}
run.find(found)
listed(found)

# %% [markdown]
# Why would a causal model not miss its first token? Because it makes another one, where this says
# so.

# %%
for name, part in scores[scores.label == "first token"].groupby("model", sort=False):
    before = scores[
        (scores.model == name) & (scores.label == "strongest") & (scores["count"] == 1)
    ].attention.mean()
    print(
        f"{name}: the strongest key got {before:.0%} of attention; without the first token it "
        f"gets {part.left.mean():.0%}, and is the second token in {part.second.mean():.0%} of all "
        "states"
    )

# %% [markdown]
# The findings as a figure, the two kinds of test apart.

# %%
from sinkprune_core.evaluation.intervals import forest_table

NAMES = {
    "excess_difference": "strongest hidden: DLM − AR",
    "excess_difference_without_first": "the same, first token kept: DLM − AR",
    "beyond_random_difference": "strongest beyond random: DLM − AR",
    "excess_difference_base": "strongest hidden: DLM − its base",
    "top_minus_random_dlm": "strongest − random: DLM",
    "top_minus_random_ar": "strongest − random: AR",
    "first_minus_other_dlm": "first token − strongest other: DLM",
    "written_difference": "strongest hidden: DLM − AR, written",
    "written_top_minus_random_dlm": "strongest − random: DLM, written",
}
forest = {NAMES[finding]: estimate for finding, estimate in found.items() if estimate is not None}
groups = {NAMES[finding]: "writing" if "written" in finding else "scoring" for finding in found}
figures.save_figure(
    run,
    forests.plot_forest(
        forest, "difference of excess (nats per token)", groups, better="← costs less"
    ),
    "differences",
    forest_table(forest),
    "paired differences of what hiding costs",
)

# %% [markdown]
# ## The verdict

# %%
from sinkprune_core.companion import claims

claims.shown(claims.verdicts(claims.ledger(), claims.findings(run.folder), run.notebook))

# %% [markdown]
# **What this does not show.** One pair of small models; a nat of a DLM's bound and a nat of an AR
# model's likelihood are not the same loss, and the AR model has more to lose because it predicts
# better. A model that makes itself a new sink does not show that it needs none. Attention that
# cannot go to a hidden sink goes elsewhere, to a place it was not trained for: a model trained
# without sinks may need none. Keys are hidden in all layers at once, and chosen by their mean over
# layers and heads; in the AR model the choice has seen the whole text. The AR model's opinion of a
# text is not a reader's.

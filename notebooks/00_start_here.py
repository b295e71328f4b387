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
# # 00 · Start here
#
# **Question.** What is sink-aware pruning of a diffusion language model, and does it help?

# %% [markdown] tags=["answer"]
# **Answer.** Sink-aware pruning chooses which weights to remove without measuring at the few tokens
# that draw most attention, the sinks, and with Wanda's rule this makes no difference that matters
# to the small model here. Nothing was run at the 8 billion weights of the paper, and whether its
# recipe as a whole is better than Wanda is undecided.
#
# ![Part of one matrix: both choices keep the same weights but
# one](../figures/00_start_here/two_masks.png)
#
# - Every cell is a weight. Over all matrices leaving sinks out exchanges 0.17 % of the kept
#   weights, and another draw of the text 2.2 % ([notebook 04](04_why.ipynb)).
# - With half of the weights zero Wanda adds 0.31 nats per token to the loss, on text with masks and
#   the unpruned model's inputs. Leaving the *unstable* sinks out, those that come and go with the
#   masks, changes that by −0.00058 [−0.0041, 0.0029], where 0.014 would matter ([notebook
#   03](03_leaving_sinks_out.ipynb)).

# %% [markdown]
# A *diffusion language model* (DLM) writes by denoising: it starts from masks and fills them over
# many steps, each of which is a forward pass over the whole sequence. A few tokens, the *attention
# sinks*, draw far more attention than the rest. *Pruning* sets weights to zero; the share of zeros
# is the *sparsity*, and the model before pruning is called *dense*. Most methods choose these
# weights by how the model reads some *calibration text*, and one random choice of that text is a
# *calibration draw*. A *recipe* is one way to choose, with all its settings. [The
# paper](https://arxiv.org/abs/2602.17664), *Sink-Aware Pruning for Diffusion Language Models*,
# leaves sinks out of the statistics that choose the weights. Three methods share the name
# *sink-aware*: the paper's code gives all sinks a small weight, and we also test leaving out all of
# them, or only the unstable ones, which come and go with the noise. Where it makes a difference,
# pages say which of the three is meant.
#
# The *loss* says how badly a model predicts text, in nats per token (section *One number*): lower
# is better. What pruning adds to it is its *cost*. On LLaDA-8B, Wanda costs some accuracy, and the
# paper's method wins back 9.2 % of that. A difference in loss *matters* if it is at least half of
# this share, 4.6 %, of what the second recipe costs.
# Using an accuracy share for losses is our choice ([docs/results.md](../docs/results.md)), and the
# paper gives no interval for its share.
#
# The model here, `smol-dlm`, has 135 million weights. This notebook shows every step once: a sink,
# the choice for one matrix, what pruned models write, and what leaving the sinks out changes.
# Brackets behind a number are its 95 % interval. In code the capital letters behind a name are the
# dimensions of a tensor: N sequences, S noise levels, T tokens, O outputs and I inputs of a linear
# map, L layers, H heads, Q queries, K keys and V the vocabulary. The [glossary](../docs/glossary.md) defines every
# term, and [docs/performance.md](../docs/performance.md) says how long each notebook takes.

# %% [markdown]
# **Parameters**, as *Run all* takes them. These defaults take minutes. The pictures and numbers
# stored on this page are of a larger run, a [profile](../docs/glossary.md), whose values the set-up
# below lists.

# %% tags=["parameters"]
# the models, and what is pruned
model: str = "smol-dlm"  # the diffusion model
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on a part of its text
sparsity: float = 0.5  # share of zeros in the blocks' linear maps
calibration: int = 2  # calibration sequences, each read at several noise levels
# what it is scored on
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
length: int = 64  # tokens per sequence
draws: int = 1  # noise draws per sequence
# what pruned models write
written: int = 12  # tokens of each text
written_sparsities: list[float] = [0.5]  # shares of zeros of the models that write
# where it runs
profile: str = "manual"  # results go to runs/<profile>
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.experiments.parameters import start

run = start("00_start_here", globals())

# %% [markdown]
# ## See a sink
#
# In an attention head every token, as a *query*, shares its attention out among the tokens that it
# may look at, the *keys*. Here are three attention maps of the same head for one text. The first is
# from an autoregressive model (AR), which looks backwards only; keys that a query may not see are
# light grey. The other two are from a DLM with the same base weights, which reads the text once
# with few of its tokens masked and once with most of them masked. A bright column is a *sink*: a
# key that nearly all queries look at, of those that may see it.
#
# Marks above a map show which tokens are masked. The token that is the sink in the second map is
# masked in the third, where another token is the sink. We chose this head because its sink is
# strong in both maps of the DLM. So it is no typical head.

# %%
from sinkprune.models.loading import load
from sinkprune_companion.experiments import first_look
from sinkprune_companion.figures import maps
from sinkprune_companion.figures.titles import draw
from sinkprune_companion.run.texts import held_out_texts

SEED = 0  # of every draw of text and noise
dlm, ar = load(model, dtype, run.device), load(twin, dtype, run.device)
texts = held_out_texts(dlm.tokenizer, sequences, length)
text_T = texts["natural/crop"][0, :48]

panels = first_look.attention_panels(ar, dlm, text_T, (0.15, 0.85), SEED)
plain = "Attention of one head, query by key, in both models"
told = {"data": maps.maps_table(panels), "caption": "attention maps of one head, query by key"}
draw(run, "attention_maps", plain, maps.plot_attention_maps, panels, **told)

# %% [markdown]
# The *attention mass* of a key is the sum of its column. The library measures it while the model's
# fast attention runs, without ever forming the map. Both ways must give the same. The cell prints
# nothing, but stops if they do not:

# %%
import torch
from sinkprune_core.sinks import attention

ar.model.to("meta")  # its memory is needed: Binder has 2 GB
layer, head = panels[-1]["layer"], panels[-1]["head"]
with torch.inference_mode(), attention.track(dlm.model) as tracker:
    dlm.hidden(panels[-1]["ids_1T"])
    mass_LHK = tracker.take()[0, :, :, 0].cpu()
column_sums_K = torch.tensor(panels[-1]["map_QK"]).sum(0)
assert torch.allclose(mass_LHK[layer, head], column_sums_K, atol=0.02 * len(text_T))

# %% [markdown]
# **Sinks by the paper's rule.** Take the mass as a mean over layers and heads. A key is a sink
# where its mass exceeds the mean of all keys by more than two standard deviations. Sink-aware
# pruning looks for sinks on *noised* calibration text: a share of its tokens, the *noise level*, is
# masked. Here is one text at eight noise levels:

# %%
from sinkprune_core.calibration.sink_profiles import sink_profiles, tracked_rows
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.sinks.detection import sink_sets

LEVELS = 8  # shares of masked tokens, evenly spread
sample = Calibration(texts["natural/crop"][:1], SEED)
noised_ST = tracked_rows(dlm, sample, LEVELS, "grid")
mass_NST, visible_ST = sink_profiles(dlm, sample, LEVELS, "grid", progress=False)
mass_ST = mass_NST[0]
threshold_S1 = mass_ST.mean(1, keepdim=True) + 2 * mass_ST.std(1, correction=0, keepdim=True)
sinks_ST = mass_ST > threshold_S1
assert torch.equal(sinks_ST, sink_sets(mass_ST, visible_ST))

# %% [markdown]
# **Do sinks move?** This can mean two things. The upper panel shows the model while it *writes* a
# text after a prompt: each row is a step, each column a token, the colour is a token's mass, and
# rings mark sinks. The dark part at its upper right is masks, which draw little attention. The
# lower panel shows the calibration text of the last cell as pruning reads it, in eight passes. Each
# has fewer masks than the one before it, and the share that is masked stands beside its row.
#
# In both panels masks only disappear. But a model that writes begins with its whole prompt, and it
# chooses which masks it fills and with what. In pruning's passes the text is given, and the masks
# lie anywhere in it, on nearly all tokens at first. Jumping sinks in these passes are therefore no
# evidence about writing. [Notebook 01](01_do_sinks_move.ipynb) measures both.

# %%
from sinkprune.figures import trajectories
from sinkprune_companion.experiments.sink_conditions import Condition
from sinkprune_companion.experiments.sink_records import Continued

fingerprint = dlm.fingerprint()
how = {"prompt_length": 32, "steps": 8, "temperature": 1.0}
trace = Continued(run, dlm, fingerprint, Condition(tokens=64), 1, how, SEED).trace()
views = [
    trajectories.panel(dlm, trace, 0, "DLM, while it writes"),
    first_look.noise_panel(dlm, sample, noised_ST, mass_ST, visible_ST, sinks_ST),
]
while_writing, on_noise = (int(view["sinks_SK"].any(0).sum()) for view in views)
plain = f"Tokens that are ever a sink: {while_writing} while it writes, {on_noise} on noised text"
told = {"data": trajectories.positions_table(views)}
told["caption"] = "sinks while a text is written, and in passes over noised text"
draw(run, "a_sink", plain, trajectories.plot_sink_positions, views, **told)

# %% [markdown]
# ## Wanda on one layer
#
# *Wanda* multiplies the size of each weight by the norm of its input over the calibration tokens.
# In every row of the matrix the weights with the lowest products become zero, as many as `sparsity`
# says. The example is the query projection of the middle block, calibrated on the one text above at
# its eight noise levels. **To leave out the sinks**, one line changes: the norm then runs over all
# tokens that the rule above does not call sinks.

# %%
from sinkprune_core.calibration.input_statistics import RunningStatistics
from sinkprune_core.pruning import criteria

block = dlm.blocks[len(dlm.blocks) // 2]
linear = dlm.linears(block)["self_attn.q_proj"]
seen_STI = first_look.inputs_of(dlm, linear, noised_ST)

weight_OI, input_NI = linear.weight.detach().float(), seen_STI.flatten(0, 1).float()
score_OI = weight_OI.abs() * input_NI.norm(dim=0)
kept_OI = score_OI >= score_OI.quantile(sparsity, dim=1, keepdim=True)
without_OI = weight_OI.abs() * input_NI[~sinks_ST.flatten().to(input_NI.device)].norm(dim=0)
also_OI = without_OI >= without_OI.quantile(sparsity, dim=1, keepdim=True)

# %% [markdown]
# The library must give the same scores, with the sinks and without them:

# %%
for weight_ST, own_OI in ((None, score_OI), (1.0 - sinks_ST.float(), without_OI)):
    statistics = RunningStatistics(input_NI.shape[1])
    statistics.add(seen_STI, weight_ST)
    assert torch.allclose(criteria.wanda(weight_OI, statistics.finished()), own_OI, rtol=1e-3)

# %% [markdown]
# **Compare the two choices.** The picture shows the part of the matrix where they differ most;
# every cell is a weight. Both choices keep equally many weights in every row. So for every weight
# that comes in another one goes out. The legend names only what occurs in this part, and the weight
# that goes out may lie outside of it. This is one of many matrices: the title has the share over
# all of them, too, and the share that another sample of calibration text exchanges. Both are from
# [notebook 04](04_why.ipynb).

# %%
import pandas as pd
from sinkprune.evaluation.intervals import interval

differ_O = (1 - (kept_OI & also_OI).sum(1) / kept_OI.sum(1)).cpu()  # of every row, a share
differ = interval(differ_O)
kept, leave = int(kept_OI.sum()), int((kept_OI & ~also_OI).sum())
run.find({"layer_masks_differ": differ})
plain = f"Without the sinks {leave} of the {kept:,} kept weights of one matrix are different ones"
print(plain)
both = (kept_OI.cpu().numpy(), also_OI.cpu().numpy())
alone = ("kept only with the sinks counted", "kept only with the sinks left out")
told = {"data": pd.DataFrame({"row": range(len(differ_O)), "differ": differ_O})}
told |= {"alone": alone, "caption": "two masks of one linear map, drawn where they differ most"}
draw(run, "two_masks", plain, maps.plot_kept_weights, *both, **told)

# %% [markdown]
# ## Read what pruned models write
#
# Now all linear maps of all blocks are pruned. The dense model continues a prompt, and so do the
# models that four recipes make of it, with the same random numbers:
#
# * `wanda` reads clean text;
# * `paper`, the recipe of the official code, changes four things, of which two are that it reads
#   noised text and gives sinks little weight ([glossary](../docs/glossary.md), *official recipe*);
# * `sparsegpt` also changes the weights that it keeps;
# * `recommended`, the best recipe found here, is SparseGPT on text that it sees once clean and once
#   noised. From 75 % sparsity on it puts more zeros into some layers than into others ([OWL's
#   allocation](../docs/pruning.md)).
#
# All of them read about the same number of tokens, which is small.

# %%
import textwrap

from sinkprune_companion.experiments.variants import Variant
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.pruning.recipe import preset

# at how many noise levels recipes on noised text read every sequence
recipe_levels = preset("unstable").noise_levels
sampler = Sampler(length=written, steps=written, block=None, temperature=1.0)
prompt_BT = dlm.encode("The best way to learn a new language is")[None]
texts_written = []
for name, recipe, text in first_look.writers(dlm, written_sparsities, length, recipe_levels, SEED):
    with Variant(dlm, fingerprint, recipe, text) as variant:  # pruned until the block ends
        wrote = first_look.written_text(run, variant, prompt_BT, sampler, SEED)
    texts_written.append(textwrap.fill(f"{name:>16}: {wrote}", 78, subsequent_indent=" " * 18))
print("\n\n".join(texts_written))

# %% [markdown]
# ## One number
#
# How much worse is a pruned model? Mask a share of a text, let the DLM predict the masked tokens,
# and take their mean loss. The mean of this loss over all shares is the *NELBO* (negative evidence
# lower bound), in nats per token. It bounds the negative log-likelihood from above, so lower is
# better. Here it is for one text, and the library must give the same under the same masks.

# %%
import numpy as np
from sinkprune.evaluation.likelihood import nelbo
from sinkprune_core.diffusion.noise import corrupt, random_mask, stratified_counts
from sinkprune_core.seeds import generator

few_NT = texts["natural/crop"][:4]
first_T = few_NT[0]
rng = generator(SEED, "nelbo", 0)
losses = []
for count in stratified_counts(8, length - 1, rng).tolist():  # of masked tokens
    where_T = random_mask(torch.arange(length) > 0, count, rng)  # the first token is context
    with torch.inference_mode():
        logits_NV = dlm.logits_at(corrupt(first_T, where_T, dlm.mask_token_id)[None], where_T[None])
    loss = torch.nn.functional.cross_entropy(logits_NV.cpu(), first_T[where_T])
    losses.append(float(loss))
of_library = nelbo(dlm, few_NT[:1], draws=8, seed=SEED).value
assert np.allclose(sorted(losses), sorted(of_library), atol=0.05)
print(f"{sum(losses) / len(losses):.2f} nats per token, the library has {of_library.mean():.2f}")

# %% [markdown]
# The same loss against the share that is masked, now on four texts under 16 masks each. The line is
# the mean of the masks in each tenth of the axis. Texts differ, so the NELBO of these four is
# another number than that of the first alone. That of all held-out sequences, in the last table of
# this page, is a third:

# %%
from sinkprune_companion.figures import figures

key = {"fingerprint": fingerprint, "data": few_NT.tolist(), "seed": SEED}
by_mask = run.record("nelbo", lambda: nelbo(dlm, few_NT, draws=16, seed=SEED), **key)
many = by_mask.noise > 0.5
low, high = by_mask.value[~many].mean(), by_mask.value[many].mean()
plain = (
    f"The loss of a masked token is {low:.1f} nats if at most half of the text is masked, "
    f"and {high:.1f} if more of it is"
)
told = {"data": by_mask, "caption": f"loss of {dlm.name} against the share that is masked"}
draw(run, "nelbo", plain, figures.plot_nelbo, by_mask, **told)

# %% [markdown]
# ## One switch at a time
#
# Two steps lead from Wanda to a recipe that leaves sinks out. The first, `noised-dense`, changes
# how the text is read: at several noise levels, and with every block fed what the dense model feeds
# it. (In Wanda a block is fed by blocks that are already pruned.) The second, `unstable`, changes
# one thing more, and only that: it leaves out the *unstable sinks*. A sink is unstable if its token
# is a sink at fewer than 80 % of the noise levels. **The difference between `unstable` and
# `noised-dense` is what leaving the sinks out does.**
#
# Differences are judged against what Wanda itself costs, which the title says. Models are
# calibrated on samples of the AR base and on documentation, and scored on these two and on natural
# English. Both models of a difference are scored on the same sequences under the same masks.
#
# The folded table at the end has the loss of each model, and of one more: *magnitude* keeps the
# largest weights and reads no text at all.

# %%
from sinkprune_companion.run.texts import calibration_draw

noised = calibration_draw(dlm, calibration, length, SEED)  # read at several levels
clean = calibration_draw(
    dlm, calibration * recipe_levels, length, SEED
)  # as many tokens, read once
scores = {"dense": Variant(dlm, fingerprint).scores(run, texts, draws, variant="dense")}
for name in ("magnitude", "wanda", "noised-dense", "unstable"):
    recipe = preset(name, sparsity=sparsity)
    text = clean if name == "wanda" else noised
    with Variant(dlm, fingerprint, recipe, text) as variant:
        scores[name] = variant.scores(run, texts, draws, variant=name)

# %% [markdown]
# Left of zero the first model of a difference is the better one. The grey band marks differences that are too small to matter. One calibration draw is too few for a verdict, whatever
# an interval says; the open marks are a reminder of that.

# %%
from sinkprune.evaluation.intervals import crossed_interval
from sinkprune.evaluation.verdict_rule import verdicts_on_losses
from sinkprune_companion.figures import forests
from sinkprune_companion.margins import damage_margin


def difference(one: str, other: str):
    """Return the first model's loss less the second's; the margin is a share of what that one costs."""
    difference_1N = (scores[one].value - scores[other].value).to_numpy()[None]  # of one draw
    cost = interval(scores[other].value - scores["dense"].value)  # 0 for the dense model itself
    return crossed_interval(difference_1N).with_margin(damage_margin(cost))


forest = {
    "how text is read: noised-dense − Wanda": difference("noised-dense", "wanda"),
    "sinks left out: unstable − noised-dense": difference("unstable", "noised-dense"),
}
run.find(
    {
        "layer_masks_differ": differ,
        "wanda_minus_dense": difference("wanda", "dense"),
        "noised_dense_minus_wanda": forest["how text is read: noised-dense − Wanda"],
        "unstable_minus_noised_dense": forest["sinks left out: unstable − noised-dense"],
    }
)
margins = pd.Series([each.margin for each in forest.values()], dtype=float)
rows = forests.forest_table(forest).assign(section="", margin=margins)
rows = rows.assign(verdict=verdicts_on_losses(forest.values()))
plain = "Pruned models against each other and against the dense one, one calibration draw"
axis = "difference in NELBO (nats per token)"
told = {"data": rows, "caption": "paired differences, intervals over sequences"}
draw(run, "first_look", plain, forests.plot_effects, rows, axis, **told)

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# * **Which token is the sink depends on the masks.** In the first picture another token becomes the
#   DLM's sink when the one that was it is masked. In the second the sink stays while the model
#   writes, and jumps in the passes that pruning reads, each of which has other masks. Such jumps
#   say nothing about writing.
# * **Leaving sinks out changes few weights.** Wanda ranks the weights of a row, so only differences
#   between the columns count, and sinks hold much the same share of most columns. In the matrix
#   that is shown 0.0084 % of the kept weights are exchanged, and over all matrices 0.17 %; another
#   draw of the text exchanges 2.2 %. [Notebook 04](04_why.ipynb) says why, and when sinks would
#   count for more.
# * **So the loss hardly changes.** In the last picture it is higher without the unstable sinks, by
#   0.0064 [0.0013, 0.012], where 0.015 would matter and Wanda costs 0.32. That is one draw of the
#   text, which decides nothing. Over 10 draws of WikiText-2 the difference is −0.00058
#   [−0.0041, 0.0029], and does not matter ([notebook 03](03_leaving_sinks_out.ipynb)).
# * **How the text is read counts for more.** Text with masks and the unpruned model's inputs change
#   the loss by 0.0021 [−0.018, 0.022] in the last picture, and by −0.018 [−0.026, −0.0096] over
#   those 10 draws.
#
# **What this does not show.** The head was chosen because its sink is strong, and the text, the
# matrix and the written texts are single examples. The written texts do not say which recipe is
# better: with half of the weights zero all are still English, and with three quarters zero none is
# a sentence. [Controls](../docs/controls.md) has the rest.

# %%
from IPython.display import display
from sinkprune_companion.pages.render import Folded, results_table

display(results_table(run))
summary = {}
for name, frame in scores.items():
    row = {"NELBO (nats per token)": round(frame.value.mean(), 3), "zeros": frame.zeros.iloc[0]}
    summary[name] = row | {"calibration tokens": frame.calibration_tokens.iloc[0]}
Folded(pd.DataFrame.from_dict(summary, orient="index"), "The loss of each model")

# %% [markdown]
# ## Exercises
#
# 1. Set `sparsity` to 0.75 and run again. Expect every method to cost several times as much, and
#    magnitude most. Expect `noised-dense` to beat Wanda there. Do the sinks add anything to that?
# 2. Set `LEVELS` to 2 and look at the lower panel of the second picture, which then has two rows.
#    Are the sinks at the same places with many masks and with few?
#
# **What this does not show.** This is one small model with half of its weights zero, one
# calibration draw, and a loss instead of benchmarks. [Notebook 03](03_leaving_sinks_out.ipynb) has
# the draws that verdicts need.
#
# ## Where to go on
#
# * [01 · Do sinks move more in DLMs?](01_do_sinks_move.ipynb)
# * [02 · Does a model need its sinks?](02_are_sinks_needed.ipynb)
# * [03 · Does leaving them out give better pruned models?](03_leaving_sinks_out.ipynb)
# * [04 · Why does it change so little, and when would it matter?](04_why.ipynb)
# * [05 · Or rather fewer denoising steps?](05_matched_compute.ipynb)
# * [06 · What makes the gain at 75 %?](06_gain_at_75.ipynb)
# * [07 · The best recipe, and recovery](07_best_recipe.ipynb)
# * [08 · What do results depend on?](08_what_results_depend_on.ipynb)
# * [09 · From scratch](09_from_scratch.ipynb)
#
# How good the pair of models is: the card of [the
# DLM](../sinkprune/data/adapters/smol-dlm/README.md) and of [its
# twin](../sinkprune/data/adapters/smol-ar-adapted/README.md). The [README](../README.md) has the
# verdicts of all notebooks.

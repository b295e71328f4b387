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
# **Question.** What is sink-aware pruning of a diffusion language model, and does it help? A first
# look: see a sink, score weights with and without it, prune, compare.
#
# Time and memory of every profile: [docs/performance.md](../docs/performance.md).
#
# A *diffusion language model* (DLM) writes by denoising: it starts from masks and fills them over
# many steps, each a forward pass over the whole sequence. A few tokens, the *attention sinks*, draw
# far more attention than the rest. *Pruning* sets weights to zero; [the
# paper](https://arxiv.org/abs/2602.17664) scores weights without these tokens. The
# [glossary](../docs/glossary.md) defines every term.

# %% [markdown]
# **Parameters**, with the values of profile quick, which *Run all* takes.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on the same text
base: str = "smol-ar"  # what both were trained from, reported beside them
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
draws: int = 2  # noise draws per sequence
calibration: int = 2  # calibration sequences for the pruned model
length: int = 128  # tokens per sequence
items: int = 48  # items of the offline suite to answer, of 1,512
sparsity: float = 0.5  # share of zeros in the blocks' linear maps
seed: int = 0  # of the calibration draw and of the samples
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** Installs the package where it is missing (Colab), checks the parameters before any
# work, and says where results go and which values a larger profile put in place of the defaults.

# %% tags=["setup"]
import importlib.util
import subprocess
import sys

SOURCE = ""  # of the package, for a place that has only this notebook; `make address` writes it
if importlib.util.find_spec("sinkprune_core") is None:
    if not SOURCE:
        raise ModuleNotFoundError("sinkprune is not installed: run pip install . in a clone")
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", SOURCE])
    importlib.invalidate_caches()
from sinkprune_companion.run.parameters import start

run = start("00_start_here", globals())

# %% [markdown]
# ## See a sink
#
# One text in eight forward passes of the DLM, with fewer and fewer tokens masked, as in a denoising
# run. Each row is a pass, each column a token; bright means much attention. A *sink* is a token
# that receives more than the mean over all tokens plus two standard deviations. Rings mark sinks.

# %%
from sinkprune_companion.run.texts import held_out_texts
from sinkprune_core.calibration.sink_profiles import sink_profiles, tracked_rows
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.models.loading import load
from sinkprune_core.sinks.detection import sink_sets

LEVELS = 8  # shares of masked tokens, evenly spread
dlm = load(model, dtype, run.device)
texts = held_out_texts(dlm.tokenizer, sequences, length)
sample = Calibration(texts["natural/crop"][:1], seed)
noised_ST = tracked_rows(dlm, sample, LEVELS, "grid")
mass_NST, visible_ST = sink_profiles(dlm, sample, LEVELS, "grid", progress=False)
sinks_ST = sink_sets(mass_NST, visible_ST)[0]

# %% [markdown]
# The picture:

# %%
from sinkprune_companion.figures import figures, trajectories

share = float((mass_NST[0] * sinks_ST).sum() / mass_NST[0].sum())
says = (
    f"{sinks_ST.float().mean():.0%} of the tokens are sinks and draw {share:.0%} of all attention"
)
panel = {
    "title": dlm.name,
    "profile_SK": mass_NST[0].numpy(),
    "visible_SK": visible_ST.numpy(),
    "sinks_SK": sinks_ST.numpy(),
    "labels": trajectories.token_labels(dlm.tokenizer, sample.ids_NT[0]),
    "prompt_length": 0,
}
drawn = trajectories.plot_sink_positions([panel], says)
figures.save_figure(run, drawn, "a_sink", trajectories.positions_table([panel]), says)

# %% [markdown]
# ## Wanda in ten lines, on one layer
#
# Wanda multiplies the size of each weight by the norm of its input over the calibration tokens. In
# every row the lowest become zero, the share `sparsity`. The example is the query projection of the
# middle block.

# %%
import torch

block = dlm.blocks[len(dlm.blocks) // 2]
linear = next(iter(dlm.linears(block).values()))
seen = []
hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, 1)))
with torch.inference_mode():
    dlm.hidden(noised_ST)
hook.remove()
weight_OI, input_NI = linear.weight.detach().float(), seen[0].float()
score_OI = weight_OI.abs() * input_NI.norm(dim=0)
kept_OI = score_OI >= score_OI.quantile(sparsity, dim=1, keepdim=True)

# %% [markdown]
# **Leave the sinks out.** One line changes: the norm runs over all tokens but the sinks.

# %%
without_OI = weight_OI.abs() * input_NI[~sinks_ST.flatten().to(input_NI.device)].norm(dim=0)
also_OI = without_OI >= without_OI.quantile(sparsity, dim=1, keepdim=True)

# %% [markdown]
# **Compare the two masks.** The picture shows a corner of the matrix; every cell is a weight.

# %%
import pandas as pd
from sinkprune_companion.figures import mask_figures
from sinkprune_companion.numbers import percent
from sinkprune_core.evaluation.intervals import interval

differ_O = 1 - (kept_OI & also_OI).sum(1) / kept_OI.sum(1)  # of every row, a share
differ = interval(differ_O.cpu())
says = f"Without sinks {percent(differ.value)} of the kept weights change"
drawn = mask_figures.plot_kept_weights(kept_OI.cpu().numpy(), also_OI.cpu().numpy(), says)
table = pd.DataFrame({"row": range(len(differ_O)), "differ": differ_O.cpu()})
figures.save_figure(run, drawn, "two_masks", table, f"{says}, in one linear map")

# %% [markdown]
# ## Prune the model
#
# Now all linear maps of all blocks. The recipe `unstable` finds the sinks of the calibration text
# at every noise level. It leaves out the unstable ones, those that are sinks at less than 80 % of
# the levels, as the paper's abstract says; the official code leaves out all. Two baselines have the same sparsity: magnitude and Wanda.
# Wanda reads each sequence once, the other recipe at eight noise levels; so Wanda gets eight times
# the sequences, and both see as many tokens.

# %%
from sinkprune_companion.experiments.variants import SharedStatistics, Variant
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core.pruning.recipe import preset

prints = {dlm.name: dlm.fingerprint()}
dense = {dlm.name: Variant(dlm, prints[dlm.name]).scores(run, texts, draws, variant="dense")}
recipes = {name: preset(name, sparsity=sparsity) for name in ("magnitude", "wanda", "unstable")}
drawn_text = calibration_draw(dlm, calibration, length, seed)
levels = recipes["unstable"].noise_levels
used = dict.fromkeys(recipes, drawn_text)
used["wanda"] = calibration_draw(dlm, calibration * levels, length, seed)
shared = SharedStatistics(dlm, [recipes["unstable"]], drawn_text)  # taken once, when asked for
scores = {"dense": dense[dlm.name]}
for name, recipe in recipes.items():
    own = shared if name == "unstable" else None
    with Variant(dlm, prints[dlm.name], recipe, used[name], own) as variant:
        scores[name] = variant.scores(run, texts, draws, variant=name)

# %% [markdown]
# **Compare the text.** Both models continue the same prompt in 48 denoising steps, sampled at
# temperature 1.

# %%
from dataclasses import replace

from sinkprune_core.diffusion.samplers import LLADA_SAMPLER
from sinkprune_core.diffusion.sampling import decode, generate

sampler = replace(LLADA_SAMPLER, temperature=1.0)
prompt_BT = dlm.encode("The best way to learn a new language is")[None]


def written(lm, write, **key) -> str:
    tokens = run.record(
        "written",
        lambda: pd.DataFrame({"token": write()[0].tolist()}),
        fingerprint=prints[lm.name],
        prompt=prompt_BT[0].tolist(),
        sampler=sampler,
        seed=seed,
        **key,
    )
    return lm.tokenizer.decode(tokens.token.tolist())


# %% [markdown]
# Dense, then pruned:

# %%
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.pruning.engine import prune


def write_pruned() -> torch.Tensor:
    with weights_kept(dlm):
        prune(dlm, recipes["unstable"], drawn_text, statistics=shared.of(recipes["unstable"]))
        return generate(dlm, prompt_BT, sampler, seed)


text = written(dlm, write_pruned, recipe=recipes["unstable"], calibration=drawn_text.fingerprint)
print(f"dense: {written(dlm, lambda: generate(dlm, prompt_BT, sampler, seed))}\n")
print(f"pruned, {scores['unstable'].zeros.iloc[0]:.1%} zeros: {text}")

# %% [markdown]
# ## One number
#
# How much worse is a pruned model? Mask a share of a text, let the DLM predict the masked tokens,
# and take the mean loss per token. The mean over all shares is the *NELBO*, in nats per token. It
# bounds the negative log-likelihood from above: lower is better.

# %%
from sinkprune_core.evaluation.likelihood import nelbo

few_NT = texts["natural/crop"][:4]
by_mask = run.record(
    "nelbo",
    lambda: nelbo(dlm, few_NT, draws=16, seed=seed),
    fingerprint=prints[dlm.name],
    data=few_NT.tolist(),
    seed=seed,
)
many = by_mask.noise > 0.5
low, high = by_mask.value[~many].mean(), by_mask.value[many].mean()
says = f"A masked token costs {low:.1f} nats where few are masked, {high:.1f} where many are"
drawn = figures.plot_nelbo(by_mask, says)
caption = f"loss at masked tokens against the share that is masked, dense {dlm.name}. {says}"
figures.save_figure(run, drawn, "nelbo", by_mask, caption)

# %% [markdown]
# Both models of a difference read the same sequences under the same masks. Left of zero the first
# one is better.

# %%
import numpy as np
from sinkprune_companion.figures import forests
from sinkprune_companion.figures.forests import forest_table

pairs = [("magnitude", "wanda"), ("unstable", "wanda"), ("wanda", "dense"), ("unstable", "dense")]
forest = {
    f"{one} − {other}": interval(np.subtract(scores[one].value, scores[other].value))
    for one, other in pairs
}
says = "Pruned models against each other and against the dense one, one calibration draw"
drawn = forests.plot_forest(forest, "difference in NELBO (nats per token)", title=says)
caption = f"paired differences, intervals over sequences. {says}"
figures.save_figure(run, drawn, "first_look", forest_table(forest), caption)

# %% [markdown]
# ## The reading

# %%
from IPython.display import display
from sinkprune_companion.figures.forests import listed
from sinkprune_companion.run.shown import Folded, reading

ar = load(twin, dtype, run.device)
prints[ar.name] = ar.fingerprint()
dense[ar.name] = Variant(ar, prints[ar.name]).scores(run, texts, draws, variant="dense")
found = {
    "unstable_minus_wanda": forest["unstable − wanda"],
    "wanda_minus_dense": forest["wanda − dense"],
    "dlm_minus_ar": interval(dense[dlm.name].value - dense[ar.name].value),
    "layer_masks_differ": differ,
}
run.find(found)
reading(run)

# %% [markdown]
# All numbers, and what each recipe took:

# %%
summary = {}
for name, frame in scores.items():
    first = frame.iloc[0]
    row = {"NELBO (nats per token)": str(interval(frame.value)), "zeros in the blocks": first.zeros}
    row |= {"calibration tokens": first.calibration_tokens}
    summary[name] = row | {"seconds to prune": round(first.prune_seconds, 1)}
shown = pd.DataFrame.from_dict(summary, orient="index")
display(Folded(listed(found)), Folded(shown, "What each recipe took"))

# %% [markdown]
# ## The pair
#
# The DLM has a twin: a model with the same base weights, tokenizer and architecture. The base,
# `smol-ar`, is SmolLM2-135M-Instruct, a causal model. `smol-dlm` adds attention in both directions,
# a mask token, and a LoRA adapter that was trained here to fill masks. `smol-ar-adapted` stays
# causal; its adapter was trained by the same recipe, on text from the same sources, with the
# next-token loss. So the two differ in direction and objective, and not in the kind of text. They
# differ in how much of it they read, as the cell says. The first use fetches 93 MB; after that
# everything works offline.

# %%
from sinkprune_companion.experiments import compute
from sinkprune_companion.training.lora import tokens_seen
from sinkprune_core.models.embedded import ADAPTERS

for lm in (dlm, ar):
    if lm.name in ADAPTERS:
        print(f"{lm.name}: its adapter was trained on {tokens_seen(ADAPTERS[lm.name]):,} tokens")
pd.concat({lm.name: compute.parameters(lm).parameters for lm in (ar, dlm)}, axis=1)

# %% [markdown]
# **Is it really bidirectional?** Change the last token of a text and see which predictions change.
# In a causal model none before it can; in a DLM all may.

# %%
ids_T = texts["documentation/crop"][0]
changed_T = torch.cat([ids_T[:-1], ids_T[:1]])
rows = {}
with torch.inference_mode():
    for lm in (ar, dlm):
        moved_TD = (lm.hidden(ids_T[None]) - lm.hidden(changed_T[None]))[0].abs()
        change = moved_TD.amax(-1).float()
        before, last = float(change[:-1].max()), float(change[-1])
        rows[lm.name] = {"largest change before the last token": before, "at the last": last}
pd.DataFrame(rows).round(3)

# %% [markdown]
# ## How good is it?
#
# The AR model's negative log-likelihood is exact. The DLM's is bounded by the NELBO, estimated over
# noise levels. Both are in nats per token, with 95 % intervals over sequences. The text
# is held out: samples of the base, documentation, and natural English (WikiText-2, of which nothing
# was trained on). A *crop* begins in the middle of a text; a *beginning* is the separator
# `<|endoftext|>` and the first tokens of a document.

# %%
shown = {}
for name, frame in dense.items():
    by_kind = frame.groupby(["text", "start"], sort=False)
    shown[name] = {kind: str(interval(part.value)) for kind, part in by_kind}
pd.DataFrame(shown)

# %% [markdown]
# **Does it depend on a special first token?** A model that saw the same first token in every
# sequence can come to depend on it, and then experiments measure that dependence. Here the same
# natural English stands with and without `<|endoftext|>` before it, under the same masks; only
# tokens that both have are counted. Above zero, the text costs more without it.

# %%
from sinkprune_companion.corpus import with_first_token

crops_NT = texts["natural/crop"]
behind_NT = with_first_token(crops_NT, dlm.tokenizer)
rows = {}
for lm in (ar, dlm):
    variant = Variant(lm, prints[lm.name])
    without = variant.scores(run, {"natural": crops_NT}, draws, variant="without first token")
    behind = variant.scores(
        run, {"natural": behind_NT}, draws, first_scored=2, variant="with first token"
    )
    costs = interval(without.value - behind.value)
    means = {"without": without.value.mean(), "with": behind.value.mean()}
    rows[lm.name] = {**means, "difference": str(costs)}
pd.DataFrame(rows)

# %% [markdown]
# **How the adapter learned.** The curves show held-out NELBO along the training, one for each kind
# of text. Below them stands the AR model's likelihood on the same kinds.

# %%
from sinkprune_core.models.embedded import ADAPTER

log = pd.read_json(ADAPTER / "training_log.jsonl", lines=True)
columns = [column for column in log if column.startswith("nelbo_")]
curve = log.melt("tokens", columns, "text", "nelbo").dropna()
curve["text"] = curve.text.str.removeprefix("nelbo_").str.replace("_", ", ")
labels = {"tokens": "training tokens", "nelbo": "held-out nats per token"}
says = "Held-out NELBO of the adapter along its training"
drawn = figures.plot_curves(curve, "tokens", "nelbo", "text", labels, title=says)
display(figures.save_figure(run, drawn, "learning_curve", curve, f"{says}, by text"))
dense[ar.name].groupby("text", sort=False).value.mean().to_frame(f"{ar.name}, nats per token")

# %% [markdown]
# **Where it falls behind.** The NELBO averages over noise levels; here are three of them. The DLM
# fills all masked tokens at once, from both sides. The AR model predicts the same tokens one by one
# from the unmasked text before each, so its loss does not depend on the share of masks. The [model
# card](../sinkprune_core/data/adapters/smol-dlm/README.md) has the same on more text.

# %%
from sinkprune_companion.harness import quality

part_NT = torch.cat([ids_NT[: max(1, sequences // 12)] for ids_NT in texts.values()])
filled = run.record(
    "filling",
    lambda: quality.filling(dlm, ar, part_NT, progress=True),
    fingerprints=prints,
    data=part_NT.tolist(),
)
says = "Masked tokens that the DLM fills right, and the same tokens predicted by the AR model"
right = figures.intervals(filled, ["share", "kind"], "correct")
labels = {"share": "share of masked tokens", "value": "share filled right"}
drawn = figures.plot_curves(right, "share", "value", "kind", labels, ("low", "high"), title=says)
caption = f"filling masks, by share of masks. {says}"
figures.save_figure(run, drawn, "filling", filled, caption)

# %% [markdown]
# The same in numbers, with the paired difference in points:

# %%
wide = filled.pivot_table(index=["share", "sequence"], columns="model", values="correct")
for share, part in wide.groupby(level="share"):
    lead = interval(part[dlm.name] - part[ar.name])
    print(
        f"{share:.0%} masked: right {part[dlm.name].mean():.0%} (DLM), {part[ar.name].mean():.0%} (AR), "
        f"difference {100 * lead.value:+.0f} [{100 * lead.low:+.0f}, {100 * lead.high:+.0f}]"
    )

# %% [markdown]
# ## What can the two models do?
#
# The offline suite has [1,512 items](../sinkprune_companion/data/tasks/README.md) in six groups, with
# two endings each. A model answers with the ending that it finds more likely. Items come in pairs
# in which each ending is right once, so a model that ignores the context is right in half of them:
# chance is 50 %. A pair is *told apart* where the context moves the preference the right way;
# chance is 50 % again. The DLM's likelihoods are bounds, from as many noise draws as above.

# %%
from sinkprune_companion.experiments.variant_answers import suite_answers
from sinkprune_companion.harness import suite

answers = {lm.name: suite_answers(run, lm, prints[lm.name], items, draws) for lm in (ar, dlm)}
rows, told = [], {}
for lm in (ar, dlm):
    told[lm.name] = suite.by_group(suite.matched(answers[lm.name]))
    for group, e in suite.by_group(answers[lm.name]).items():
        row = {"model": lm.name, "kind": lm.kind, "group": group, "value": e.value}
        rows.append(row | {"low": e.low, "high": e.high})
accuracy = pd.DataFrame(rows)
says = "Right answers on the offline suite, by group of items; chance is 50 %"
panels = accuracy.assign(panel="share of right answers")
drawn = forests.plot_rows(panels, "panel", "group", "chance: 0.5", says, hue="kind")
caption = f"intervals over pairs of items. {says}"
figures.save_figure(run, drawn, "suite", accuracy, caption)

# %% [markdown]
# The same in percent. An interval without width says that all pairs of this sample came out alike.


# %%
def percent(row) -> str:
    return f"{row.value:.0%} [{row.low:.0%}, {row.high:.0%}]"


shown = {}
for name, part in accuracy.groupby("model", sort=False):
    shown["right answers", name] = {row.group: percent(row) for row in part.itertuples()}
for name, groups in told.items():
    shown["pairs told apart", name] = {group: percent(e) for group, e in groups.items()}
pd.DataFrame(shown)

# %% [markdown]
# ## What the AR model writes
#
# The same prompt, one token at a time:

# %%
size = (sampler.length, sampler.temperature)
print(f"{ar.name}: {written(ar, lambda: decode(ar, prompt_BT, *size, seed))}")

# %% [markdown]
# ## What training did to the AR model
#
# An adapter can also make a model worse. Here is the AR model beside the base, paired by sequence;
# below zero, training helped. The AR model leaves the memory for it.

# %%
ar.model.to("meta")  # its name and its numbers are still here
original = load(base, dtype, run.device)
of_base = Variant(original, original.fingerprint()).scores(run, texts, draws, variant="dense")
change = dense[ar.name].value - of_base.value
rows = {f"{original.name} (nats per token)": of_base.value, f"{ar.name} − {original.name}": change}
pd.DataFrame(
    {
        name: {
            kind: str(interval(part))
            for kind, part in values.groupby([of_base.text, of_base.start], sort=False)
        }
        for name, values in rows.items()
    }
)

# %% [markdown]
# ## Exercises
#
# 1. Set `sparsity` to 0.75 and run again. Expect every method to cost several times as much, and
#    magnitude most. Expect `unstable` to beat Wanda there. Is it the sinks? Add `noised-dense`, the
#    same recipe with its sinks in, to the recipes: their difference is what the sinks do.
# 2. Set `LEVELS` to 2 and look at the first picture. Are the sinks at the same places with many
#    masks and with few?

# %% [markdown]
# ## Where to go on
#
# * [01 · Do sinks move more in DLMs?](01_sink_variance.ipynb)
# * [02 · Does a model need its sinks?](02_hiding_sinks.ipynb)
# * [03 · Does leaving them out give better pruned models?](03_pruning_results.ipynb)
# * [04 · And at matched compute?](04_matched_compute.ipynb)
# * [05 · What does the work?](05_what_does_the_work.ipynb)
# * [06 · The paper's models](06_real_models.ipynb)
#
# The [README](../README.md) has the verdicts of all of them.

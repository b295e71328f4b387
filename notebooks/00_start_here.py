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
# look: see a sink, score weights with and without it, prune, read what pruned models write, compare.

# %% [markdown] tags=["answer"]
# **Answer.** Sink-aware pruning chooses the weights that it removes without reading the few tokens
# that draw most attention. On this small model that does not help: at 50 % sparsity, leaving the
# unstable sinks out changes the loss by 0.0017 nats per token [−0.0032, 0.0067], where pruning
# itself costs 0.30 and less than 0.014 would not matter. One matrix shows why: without the sinks
# only 0.0084 % of the weights that it keeps are others.
#
# The picture to look at is [two masks](../figures/00_start_here/two_masks.png).

# %% [markdown]
# Time and memory, of profiles quick and hour: [docs/performance.md](../docs/performance.md).
#
# A *diffusion language model* (DLM) writes by denoising: it starts from masks and fills them over
# many steps, each a forward pass over the whole sequence. A few tokens, the *attention sinks*, draw
# far more attention than the rest. *Pruning* sets weights to zero; [the
# paper](https://arxiv.org/abs/2602.17664) scores weights without these tokens. The
# [glossary](../docs/glossary.md) defines every term.

# %% [markdown]
# **Parameters**, with the values of profile quick, which *Run all* takes. Stored outputs may be of
# a larger [profile](../docs/glossary.md): the set-up says which values it had.

# %% tags=["parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model
twin: str = "smol-ar-adapted"  # its autoregressive counterpart, trained on a part of its text
sequences: int = 12  # held-out sequences, shared out among three kinds of text and two starts
draws: int = 1  # noise draws per sequence
calibration: int = 2  # calibration sequences for the pruned model
length: int = 64  # tokens per sequence
sparsity: float = 0.5  # share of zeros in the blocks' linear maps
written_sparsities: list[float] = [0.5]  # the same for models that write a text
written: int = 12  # tokens of each text
seed: int = 0  # of the calibration draw and of the samples
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.run.parameters import start

run = start("00_start_here", globals())

# %% [markdown]
# ## See a sink
#
# Every *query*, a token, shares its attention out among the *keys*, all tokens that it may look at.
# Here is the map of one head for one text, in an autoregressive model (AR) and in a DLM with the
# same base weights: the DLM with few tokens masked, and with most of them. A bright column is a key
# that nearly all queries look at: a *sink*.

# %%
import torch
from sinkprune.models.loading import load
from sinkprune_companion.run.texts import held_out_texts
from sinkprune_core.diffusion.noise import corrupt

dlm, ar = load(model, dtype, run.device), load(twin, dtype, run.device)
prints = {lm.name: lm.fingerprint() for lm in (dlm, ar)}
texts = held_out_texts(dlm.tokenizer, sequences, length)
text_T = texts["natural/crop"][0, :48]
order_T = torch.randperm(len(text_T), generator=torch.Generator().manual_seed(seed))

# %% [markdown]
# All maps of a forward, layer by head by query by key, of the text as it is in the AR model, and with
# 15 and 85 % of its tokens masked in the DLM:


# %%
def masked(share: float) -> torch.Tensor:
    """The text with a share of its tokens masked, (1, T)."""
    return corrupt(text_T, order_T < share * len(text_T), dlm.mask_token_id)[None]


def maps_of(lm, ids_1T: torch.Tensor) -> torch.Tensor:
    """All attention maps of a forward, layer by head by query by key."""
    before = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")  # which keeps the maps
    with torch.inference_mode():
        layers = lm.model(ids_1T.to(lm.device), output_attentions=True, use_cache=False).attentions
    lm.model.set_attn_implementation(before)
    return torch.cat(layers).float().cpu()


states = {ar.name: (ar, text_T[None])}
for share in (0.15, 0.85):
    states[f"{dlm.name}, {share:.0%} masked"] = (dlm, masked(share))
maps_LHQK = {name: maps_of(*state) for name, state in states.items()}

# %% [markdown]
# Shown is one head of the first third of the layers (later ones have heads that look at one key
# alone): the one whose sink is strong in both states of the DLM. The AR model's map is of the same
# head, not chosen for it. The *attention mass* of a key is the sum of its column. The
# library measures it while fast attention runs, without the map; both must agree.

# %%
from sinkprune.figures import trajectories
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.figures import figures, maps
from sinkprune_companion.pages.render import title
from sinkprune_core.sinks import attention

strongest_LH = torch.stack([maps_LHQK[name].sum(2).amax(-1) for name in list(states)[1:]]).amin(0)
early = max(1, len(strongest_LH) // 3)
layer, head = divmod(int(strongest_LH[:early].argmax()), strongest_LH.shape[1])
panels = []
for name, (lm, ids_1T) in states.items():
    labels = trajectories.token_labels(lm.tokenizer, ids_1T[0])
    panels.append({"title": name, "map_QK": maps_LHQK[name][layer, head].numpy(), "labels": labels})
    with torch.inference_mode(), attention.track(lm.model) as tracker:
        lm.hidden(ids_1T)
        mass_LHK = tracker.take()[0, :, :, 0].cpu()
    early_LHK = maps_LHQK[name][:early].sum(2)  # later layers add up what rounding does
    assert torch.allclose(mass_LHK[:early], early_LHK, atol=0.02 * len(text_T))
of_ar = Variant(ar, prints[ar.name]).scores(run, texts, draws, variant="dense")  # for the end
ar.model.to("meta")  # its memory is needed: Binder has 2 GB
says = title(run, "attention_maps", f"Attention of head {head} in layer {layer} (both from 0)")
drawn = maps.plot_attention_maps(panels, says)
caption = f"attention maps of head {head} in layer {layer}, query by key. {says}"
table = maps.maps_table(panels)
figures.save_figure(run, drawn, "attention_maps", table, caption)

# %% [markdown]
# **Sinks by the paper's rule.** Take the mass as a mean over layers and heads, in units of the mean
# over all keys. A key is a sink where it exceeds the mean plus two standard deviations. One text in
# eight forward passes of the DLM, with fewer and fewer tokens masked, as in a denoising run: each
# row is a pass, each column a token; rings mark sinks.

# %%
from sinkprune_core.calibration.sink_profiles import sink_profiles, tracked_rows
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.sinks.detection import sink_sets

LEVELS = 8  # shares of masked tokens, evenly spread
sample = Calibration(texts["natural/crop"][:1], seed)
noised_ST = tracked_rows(dlm, sample, LEVELS, "grid")
mass_NST, visible_ST = sink_profiles(dlm, sample, LEVELS, "grid", progress=False)
mass_ST = mass_NST[0]
threshold_S1 = mass_ST.mean(1, keepdim=True) + 2 * mass_ST.std(1, correction=0, keepdim=True)
sinks_ST = mass_ST > threshold_S1
assert torch.equal(sinks_ST, sink_sets(mass_ST, visible_ST))

share = float((mass_ST * sinks_ST).sum() / mass_ST.sum())
says = f"In a pass {sinks_ST.float().mean():.0%} of the tokens, its sinks, draw {share:.0%} "
count = int(sinks_ST.any(0).sum())
says += f"of all attention; {count} position{'s are' if count != 1 else ' is'} a sink in some pass"
panel = {
    "title": dlm.name,
    "rows": "pass (fewer masks downwards)",
    "profile_SK": mass_ST.numpy(),
    "visible_SK": visible_ST.numpy(),
    "sinks_SK": sinks_ST.numpy(),
    "labels": trajectories.token_labels(dlm.tokenizer, sample.ids_NT[0]),
    "prompt_length": 0,
}
drawn = trajectories.plot_sink_positions([panel], says)
figures.save_figure(run, drawn, "a_sink", trajectories.positions_table([panel]), says)

# %% [markdown]
# ## Wanda on one layer
#
# Wanda multiplies the size of each weight by the norm of its input over the calibration tokens. In
# every row the lowest become zero, the share `sparsity`. The example is the query projection of the
# middle block. **To leave the sinks out**, one line changes: the norm runs over all other tokens.

# %%
from sinkprune_core.calibration.input_statistics import RunningStatistics
from sinkprune_core.pruning import criteria

block = dlm.blocks[len(dlm.blocks) // 2]
linear = next(iter(dlm.linears(block).values()))
seen = []
hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
with torch.inference_mode():
    dlm.hidden(noised_ST)
hook.remove()
weight_OI, input_NI = linear.weight.detach().float(), seen[0].flatten(0, 1).float()
score_OI = weight_OI.abs() * input_NI.norm(dim=0)
kept_OI = score_OI >= score_OI.quantile(sparsity, dim=1, keepdim=True)
without_OI = weight_OI.abs() * input_NI[~sinks_ST.flatten().to(input_NI.device)].norm(dim=0)
also_OI = without_OI >= without_OI.quantile(sparsity, dim=1, keepdim=True)

for weight_ST, own_OI in ((None, score_OI), (1.0 - sinks_ST.float(), without_OI)):
    statistics = RunningStatistics(input_NI.shape[1])
    statistics.add(seen[0], weight_ST)
    assert torch.allclose(criteria.wanda(weight_OI, statistics.finished()), own_OI, rtol=1e-3)

# %% [markdown]
# **Compare the two masks.** The picture shows the part of the matrix where they differ most; every
# cell is a weight. Each row gains as many weights as it loses, some of them outside the part shown.

# %%
import pandas as pd
from sinkprune.evaluation.intervals import interval
from sinkprune.evaluation.numbers import percent

differ_O = 1 - (kept_OI & also_OI).sum(1) / kept_OI.sum(1)  # of every row, a share
differ = interval(differ_O.cpu())
says = f"Without sinks {percent(differ.value)} of this map's kept weights make room for others"
drawn = maps.plot_kept_weights(kept_OI.cpu().numpy(), also_OI.cpu().numpy(), says)
table = pd.DataFrame({"row": range(len(differ_O)), "differ": differ_O.cpu()})
figures.save_figure(run, drawn, "two_masks", table, f"{says}; drawn is where most do")

# %% [markdown]
# ## Prune the model
#
# Now all linear maps of all blocks. The recipe `unstable` finds the sinks of the calibration text
# at every noise level. It leaves out the unstable ones, those that are sinks at less than 80 % of
# the levels, as the paper's abstract says; `paper`, the recipe of the official code, leaves out
# all, softly: it gives them little weight. Three baselines have the same sparsity: magnitude, Wanda
# and SparseGPT, which also updates
# the weights that it keeps. The baselines read each sequence once, the other recipes at several
# noise levels. So the baselines get more sequences, and all see equally many tokens (`paper`, with
# its ten levels, a quarter more).
#
# **Read them.** The dense model and what Wanda, `paper`, SparseGPT and the preset `recommended`
# make of it continue the same prompt, sampled at temperature 1 with the same random numbers. The
# numbers at the end are of magnitude, which needs no text, and of Wanda and `unstable` on more text
# (`calibration`).

# %%
from sinkprune_companion.experiments.variants import SharedStatistics
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.pruning.recipe import preset

sampler = Sampler(length=written, steps=written, block=None, temperature=1.0)
prompt_BT = dlm.encode("The best way to learn a new language is")[None]


def text_of(variant: Variant) -> str:
    """What a variant writes behind the prompt."""

    def write() -> pd.DataFrame:
        variant.ready()  # prunes the model until the variant's block ends
        return pd.DataFrame({"token": generate(dlm, prompt_BT, sampler, seed)[0].tolist()})

    key = {"prompt": prompt_BT[0].tolist(), "sampler": sampler, "seed": seed}
    tokens = run.record("written", write, **variant.key, **key).token.tolist()
    return " ".join(dlm.tokenizer.decode(tokens[prompt_BT.shape[1] :]).split())


# %% [markdown]
# A variant is pruned inside its `with` block, and its weights come back at the end:

# %%
names = ("magnitude", "wanda", "unstable")
recipes = {name: preset(name, sparsity=sparsity) for name in names}
levels = recipes["unstable"].noise_levels
drawn_text = calibration_draw(dlm, calibration, length, seed)
more_text = calibration_draw(dlm, calibration * levels, length, seed)
scores = {"dense": Variant(dlm, prints[dlm.name]).scores(run, texts, draws, variant="dense")}
for name, recipe in recipes.items():
    text = more_text if name == "wanda" else drawn_text
    with Variant(dlm, prints[dlm.name], recipe, text) as variant:
        scores[name] = variant.scores(run, texts, draws, variant=name)

# %% [markdown]
# What writes is calibrated on little text, so that it takes a minute or two on any CPU.
# `recommended` is SparseGPT on text that it sees once clean and once noised, from 75 % on with
# more zeros in some layers than in others ([OWL's allocation](../docs/pruning.md)):

# %%
import textwrap

plan = {"dense": None}
for share in written_sparsities:
    for name in ("wanda", "paper", "sparsegpt", "recommended"):
        plan[f"{name}, {share:.0%}"] = preset(name, sparsity=share)
little_text = calibration_draw(dlm, 2, length, seed)  # for `paper`, at several noise levels
papers = [recipe for name, recipe in plan.items() if name.startswith("paper")]
shared = SharedStatistics(dlm, papers, little_text)  # taken once, when asked for
for name, recipe in plan.items():
    given = ()
    if recipe in papers:
        given = (little_text, shared)
    elif recipe:  # as many tokens: once each, or once clean and once noised
        reads = recipe.noise_levels if recipe.inputs == "noised" else 1
        given = (calibration_draw(dlm, 2 * levels // reads, length, seed), None)
    with Variant(dlm, prints[dlm.name], recipe, *given) as variant:
        line = f"{name:>16}: {text_of(variant)}\n"
        print(textwrap.fill(line, 78, subsequent_indent=" " * 18))

# %% [markdown]
# ## One number
#
# How much worse is a pruned model? Mask a share of a text, let the DLM predict these tokens,
# and take their mean loss. The mean over all shares is the *NELBO* (negative evidence lower
# bound), in nats per token. It bounds the negative log-likelihood from above: lower is better. Here
# it is for one text, and the library must give the same under the same masks.

# %%
import numpy as np
from sinkprune.evaluation.likelihood import nelbo
from sinkprune_core.diffusion.noise import random_mask, stratified_counts
from sinkprune_core.seeds import generator

few_NT = texts["natural/crop"][:4]
first_T = few_NT[0]
rng = generator(seed, "nelbo", 0)
losses = []
for count in stratified_counts(8, length - 1, rng).tolist():  # of masked tokens
    where_T = random_mask(torch.arange(length) > 0, count, rng)  # the first token is context
    with torch.inference_mode():
        logits_NV = dlm.logits_at(corrupt(first_T, where_T, dlm.mask_token_id)[None], where_T[None])
    loss = torch.nn.functional.cross_entropy(logits_NV.cpu(), first_T[where_T])
    losses.append(float(loss))
of_library = nelbo(dlm, few_NT[:1], draws=8, seed=seed).value
assert np.allclose(sorted(losses), sorted(of_library), atol=0.05)
print(f"{sum(losses) / len(losses):.2f} nats per token, the library has {of_library.mean():.2f}")

# %% [markdown]
# The loss against the share that is masked, on four texts under 16 masks each; the table at the end
# has another NELBO of the dense model, over all held-out texts:

# %%
by_mask = run.record(
    "nelbo",
    lambda: nelbo(dlm, few_NT, draws=16, seed=seed),
    fingerprint=prints[dlm.name],
    data=few_NT.tolist(),
    seed=seed,
)
many = by_mask.noise > 0.5
low, high = by_mask.value[~many].mean(), by_mask.value[many].mean()
says = f"A masked token costs {low:.1f} nats where at most half are masked, {high:.1f} above"
drawn = figures.plot_nelbo(by_mask, says)
caption = f"loss at masked tokens against the share that is masked, dense {dlm.name}. {says}"
figures.save_figure(run, drawn, "nelbo", by_mask, caption)

# %% [markdown]
# ## The reading
#
# Both models of a difference read the same sequences under the same masks. Left of zero the first
# one is better.

# %%
from sinkprune_companion.figures import forests
from sinkprune_companion.figures.forests import forest_table

pairs = [("unstable", "wanda"), ("wanda", "dense"), ("magnitude", "dense")]
forest = {
    f"{one} − {other}": interval(scores[one].value - scores[other].value) for one, other in pairs
}
found = {
    "unstable_minus_wanda": forest["unstable − wanda"],
    "wanda_minus_dense": forest["wanda − dense"],
    "dlm_minus_ar": interval(scores["dense"].value - of_ar.value),
    "layer_masks_differ": differ,
}
run.find(found)
plain = "Pruned models against each other and against the dense one, one calibration draw"
says = title(run, "first_look", plain)
drawn = forests.plot_forest(forest, "difference in NELBO (nats per token)", title=says)
caption = f"paired differences, intervals over sequences. {says}"
figures.save_figure(run, drawn, "first_look", forest_table(forest), caption)

# %% [markdown]
# What it says, and what each recipe took:

# %% [markdown] tags=["reading"]
# * **No verdict from a first look.** The model pruned without unstable sinks − Wanda's: 0.0076 nats
#   per token [−0.012, 0.027]. They differ in more than sinks: Wanda reads clean text, each block
#   fed by blocks already pruned; `unstable` reads noised text, each block fed by the dense model.
#   And one calibration draw decides nothing.
# * **The answer** is in [notebook 03](03_leaving_sinks_out.ipynb), which takes ten draws and
#   changes one thing at a time: leaving unstable sinks out adds 0.0019 [0.00060, 0.0032] to the
#   loss, nothing that matters. What is gained at 75 % comes from noised text and dense propagation
#   ([notebook 07](07_best_recipe.ipynb)).
# * At 75 % the models of Wanda, `paper` and SparseGPT write no English any more; that of
#   `recommended` still writes phrases (above). One sample of each, calibrated on little text.
# * The scale: Wanda costs 0.32 nats per token [0.25, 0.39] above the dense model.
# * On the one linear map shown, leaving the sinks out of its input norms changes 0.0084 % of the
#   kept weights. Notebook 03 counts all maps.
# * The DLM is a weak model: its bound lies 1.1 nats per token [0.91, 1.3] above the negative
#   log-likelihood of its AR twin (an upper bound beside an exact value, so the gap may be smaller).

# %%
from IPython.display import display
from sinkprune_companion.pages.render import Folded, results_table

display(results_table(run))
summary = {}
for name, frame in scores.items():
    row = {"NELBO (nats per token)": str(interval(frame.value)), "zeros": frame.zeros.iloc[0]}
    row["calibration tokens"] = frame.calibration_tokens.iloc[0]
    summary[name] = row | {"seconds to prune": round(frame.prune_seconds.iloc[0], 1)}
Folded(pd.DataFrame.from_dict(summary, orient="index"), "What each recipe took")

# %% [markdown]
# ## Exercises
#
# 1. Set `sparsity` to 0.75 and run again. Expect every method to cost several times as much, and
#    magnitude most. Expect `unstable` to beat Wanda there. Is it the sinks? Add `noised-dense`, the
#    same recipe with its sinks in, to `names`, and `("unstable", "noised-dense")` to `pairs`: that
#    difference is what leaving the sinks out does.
# 2. Set `LEVELS` to 2 and look at the second picture. Are the sinks at the same places with many
#    masks and with few?
#
# ## Where to go on
#
# * [01 · Do sinks move more in DLMs?](01_do_sinks_move.ipynb)
# * [02 · Does a model need its sinks?](02_are_sinks_needed.ipynb)
# * [03 · Does leaving them out give better pruned models?](03_leaving_sinks_out.ipynb)
# * [04 · Why does it do so little, and when would it do more?](04_why.ipynb)
# * [05 · And at matched compute?](05_matched_compute.ipynb)
# * [06 · What makes the gain at 75 %?](06_gain_at_75.ipynb)
# * [07 · The best recipe, and recovery](07_best_recipe.ipynb)
# * [08 · What do results depend on?](08_what_results_depend_on.ipynb)
# * [09 · From scratch](09_from_scratch.ipynb)
# * [10 · Prune LLaDA-8B: a plan](10_prune_llada.ipynb)
#
# How good the pair of models is: the card of [the
# DLM](../sinkprune/data/adapters/smol-dlm/README.md) and of [its
# twin](../sinkprune/data/adapters/smol-ar-adapted/README.md). The [README](../README.md) has
# the verdicts of all notebooks.

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
# # 04 · Why does leaving sinks out change so little, and when would it matter?
#
# **Question.** [Notebook 03](03_leaving_sinks_out.ipynb) finds that leaving attention sinks out of
# the calibration statistics changes next to nothing. A null result can have two reasons: there is
# no effect, or the pipeline could not have seen one. This notebook tells them apart. It says from
# one pass over a dense model how much leaving sinks out *can* change, checks that against the
# masks, and then plants an effect, to see how large it must be before the loss shows it.
#
# Leaving sinks out *exchanges* weights: some kept weights become pruned, and as many pruned weights
# become kept. What is counted is the share of the kept weights that become pruned. The
# [glossary](../docs/glossary.md) defines the other terms.

# %% [markdown] tags=["answer"]
# **Answer.** Wanda ranks weights within a row, so leaving sinks out can change its choice only
# where they hold much more of some channels than of others, and in most maps they hold little of
# any. The same pipeline does see a large effect that is planted in its statistics, but a small one
# stays undecided, and at 75 % leaving sinks out may harm.
#
# ![The more is planted, the further the loss falls without it.](../figures/04_why/doses_50.png)
#
# * **Few weights change places.** At 50 % leaving all sinks out exchanges 0.17 % of the kept
#   weights, and another draw of as much text 2.2 %.
# * **A planted effect is seen.** Where inputs at the sinks count as if 10 times as large, leaving
#   them out lowers Wanda's loss by 0.044 nats per token.
# * **At 75 %** leaving them out harms at 3 times and helps from 30 times on.

# %% [markdown]
# **Parameters**, with the values that *Run all* takes.

# %% tags=["main-parameters"]
profile: str = "manual"  # results go to runs/<profile>
model: str = "smol-dlm"  # the diffusion model that is explained
other_models: list[str] = ["smol-ar-adapted"]  # models that are diagnosed beside it
other_lengths: list[int] = []  # other lengths of calibration sequences, on as many tokens
seeds: int = 1  # calibration draws of the diagnosis
calibration: int = 2  # sequences of a calibration draw; as many more are what it is compared with
layers: list[int] = [11, 20]  # whose input channels are drawn
# the planted effect
planted_draws: int = 1  # calibration draws
doses: list[float] = [1.0, 30.0]  # how many times as large inputs at the sinks are made
sequences: int = 12  # scored sequences

# %% [markdown]
# **Seldom changed:**

# %% tags=["parameters"]
native_tokens: int = 0  # training tokens of a pair from scratch that is diagnosed, too; 0: none
# the planted effect
planted_sparsities: list[float] = [0.5]  # shares of zeros at which an effect is planted
sparsegpt_doses: list[float] = []  # doses that are planted for SparseGPT, too; none: skip it
# the machine
device: str = "auto"  # cpu or cuda; auto: a GPU where there is one
dtype: str = "auto"  # of the weights: float32, bfloat16, float16, or the device's best

# %% [markdown]
# **Set-up.** It checks the parameters, before any work, and says where results go and which values
# a larger profile put in place of the defaults.

# %% tags=["setup"]
# On another machine: clone the repository, and open this notebook in the clone with `make lab`.
from sinkprune_companion.experiments.parameters import start

run = start("04_why", globals())

# %% [markdown]
# ## Where the energy of sinks lies
#
# Wanda reads one number of every input channel: the norm of its values over all calibration tokens.
# So a sink can matter to Wanda only through its share of these squared norms, its *energy*. One
# pass over the paper's calibration text, WikiText-2, measures that share for every linear map.

# %%
from sinkprune.figures.energy import plot_energy
from sinkprune_companion.experiments import why
from sinkprune_companion.experiments.diffusion_models import diffusion_model
from sinkprune_companion.figures import figures
from sinkprune_companion.figures import why as pictures
from sinkprune_companion.figures.titles import title

dlm = diffusion_model(model, dtype, run.device)
fingerprint = dlm.fingerprint()
table = why.diagnosis_table(run, dlm, fingerprint, 2 * calibration, 128, seed=0)
says = title(run, "energy", "The share of every input's energy that sinks hold")
figure = plot_energy(table, says)
caption = f"share of the energy of every input that attention sinks hold, by layer. {says}"
figures.save_figure(run, figure, "energy", table, caption)

# %% [markdown]
# ## Why a large share can still change nothing
#
# Wanda ranks weights **within a row**. If sinks held the same share of every channel, leaving them
# out would multiply all scores of a row by one number, and the ranking would stay as it is. Only
# what differs from channel to channel counts. How many weights that exchanges follows in four
# steps, for weights that are normal within every column ($\Phi$ is the standard normal distribution
# function).
#
# 1. **The scale.** The scores $|W_{ij}|$ times the norm of channel $j$ are the sizes of normal
#    variables. Their scale $n_j$ is the norm times the root mean square of column $j$ of the weights.
# 2. **The threshold.** A weight is kept if its score is above the threshold $\tau$ of its row. In
#    channel $j$ a share $2\,(1 - \Phi(\tau / n_j))$ is kept: more where the scale is large. A share
#    $s$ of the row is pruned, so the mean of these shares over all channels is $1 - s$, and that
#    determines $\tau$.
# 3. **The change.** Let $p_j$ be the share of the channel's squared norm that sinks hold. Without
#    them the scale is $n'_j = n_j \sqrt{1 - p_j}$. The number of zeros in a row is fixed, so the new
#    scales determine a new threshold $\tau'$ in the same way.
# 4. **Who crosses.** All scores of a channel change by one factor. So a channel either loses weights
#    or wins some, and what it loses is the difference of its two shares.
#
# Together, the share of kept weights that is lost is
#
# $$\frac{\sum_j \max\left(0,\; 2\,[\Phi(\tau' / n'_j) - \Phi(\tau / n_j)]\right)}
# {\sum_j 2\,(1 - \Phi(\tau / n_j))}.$$
#
# In code, on random weights whose columns differ, where sinks fill a tenth of the channels by more
# than nine tenths. The library must give the same:

# %%
import torch
from sinkprune_core.pruning.diagnosis import predicted_change

normal = torch.distributions.Normal(0.0, 1.0)
rng = torch.Generator().manual_seed(0)
rms_I = torch.rand(1000, generator=rng) + 0.5  # of every column of weights
weight_OI = rms_I * torch.randn(2000, 1000, generator=rng)
share_I = 0.1 * torch.rand(1000, generator=rng)  # what sinks hold of every channel
share_I[::10] += 0.9
norm_I, without_I = torch.ones(1000), (1 - share_I).sqrt()


def kept_shares(scale_I: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return the share of every channel's weights that is kept; bisection finds the threshold."""
    low, high = 0.0, 10 * float(scale_I.max())
    for _ in range(50):
        threshold = (low + high) / 2
        kept_I = 2 * (1 - normal.cdf(threshold / scale_I))
        low, high = (threshold, high) if kept_I.mean() > 1 - sparsity else (low, threshold)
    return kept_I


def kept(score_OI: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return which weights stay: in every row those with the highest scores."""
    return score_OI > score_OI.quantile(sparsity, dim=1, keepdim=True)


for sparsity in (0.5, 0.75):
    before_I = kept_shares(norm_I * rms_I, sparsity)
    after_I = kept_shares(without_I * rms_I, sparsity)
    predicted = float((before_I - after_I).clamp_min(0).sum() / before_I.sum())
    assert abs(predicted_change(norm_I, without_I, rms_I, sparsity) - predicted) < 1e-4

    with_OI = kept(weight_OI.abs() * norm_I, sparsity)
    without_OI = kept(weight_OI.abs() * without_I, sparsity)
    exact = (with_OI & ~without_OI).sum() / with_OI.sum()
    print(f"{sparsity:.0%} zeros: predicted {predicted:.2%} of the kept weights, exact {exact:.2%}")

# %% [markdown]
# **What counts is what other tokens leave.** A channel far above the threshold keeps nearly all of
# its weights as long as other tokens fill it, too, so that it stays far above the threshold without
# the sinks. Where sinks hold nearly all of it ($p_j \to 1$), it loses its weights without them. For
# one channel of a hundred times the norm of 999 others, at 50 %:

# %%
loud_I = torch.ones(1000)
loud_I[0] = 100

before = kept_shares(loud_I, 0.5)[0]
for share in (0.9, 0.99, 0.9999, 0.999999):
    others_I = loud_I.clone()
    others_I[0] *= (1 - share) ** 0.5
    lost = 1 - kept_shares(others_I, 0.5)[0] / before
    print(f"sinks hold {share:.4%} of the channel: it loses {lost:.1%} of its kept weights")

# %% [markdown]
# **Where the formula ends.** It takes the weights of a column to be normal, and those of a trained
# model are so only roughly.
#
# The library's prediction and the exact change of the mask, for every linear map of the model:

# %%
says = title(run, "foreseen", "Predicted and exact change of every map's mask without sinks")
figure = pictures.plot_foreseen(table, says)
caption = f"share of kept weights that leaving sinks out exchanges, predicted and exact. {says}"
figures.save_figure(run, figure, "foreseen", table, caption)

# %% [markdown]
# ## A few channels carry what sinks hold
#
# In a few layers sinks carry massive activations: there they hold most of the energy that
# `down_proj` reads. But they do so in a few channels of 1,536. After a normalisation layer (q, k, v,
# gate, up) all tokens' inputs are of similar length. So in most layers the sinks' share of the
# energy there is near or below their share of the tokens, and it stays below a tenth everywhere.

# %%
channels = why.channel_table(run, dlm, fingerprint, 2 * calibration, 128, 0, layers)
places = [(layers[0], name) for name in ("mlp.down_proj", "self_attn.q_proj")]
places.append((layers[-1], "mlp.down_proj"))
says = title(run, "channels", "The sinks' share of every input channel")
figure = pictures.plot_channels(channels, places, says)
caption = f"norm of every input channel and the sinks' share of its energy, for three maps. {says}"
figures.save_figure(run, figure, "channels", channels, caption)

# %% [markdown]
# The two channels furthest right in the first of these panels hold nearly all that sinks carry. Even
# without the sinks they stay far above all others, so nearly all of their weights are kept either
# way. Many channels next to them are large only because of the sinks. Without these, weights there
# that were not far above the threshold are pruned, and weights anywhere that were just below it take
# their places.

# %%
hot = channels[(channels.layer == layers[0]) & (channels.linear == "mlp.down_proj")]
norm_I = torch.tensor(hot["norm"].to_numpy())
without_I = norm_I * (1 - torch.tensor(hot["share"].to_numpy())).sqrt()
weight_OI = dlm.linears(dlm.blocks[layers[0]])["mlp.down_proj"].weight.detach().float().cpu()
strongest = norm_I.argsort(descending=True)[:2]

for words, scale_I in {"with": norm_I, "without": without_I}.items():
    kept_OI = why.wanda_keeps(weight_OI, scale_I, 0.5)
    print(
        f"{words} the sinks: {kept_OI[:, strongest].float().mean():.1%} of their weights are kept"
    )

# %% [markdown]
# ## How much leaving sinks out changes, beside other text
#
# The same over several calibration draws, by kind of map. *Other text* is what another draw of
# calibration text changes, with all sinks kept. `mean_share` is the mean of $p_j$ over channels,
# and `hot_channels` the share of channels of which sinks hold more than half. Findings over all
# maps count every map by its weights; medians are over maps.

# %%
import pandas as pd

draws = [
    why.diagnosis_table(run, dlm, fingerprint, 2 * calibration, 128, seed) for seed in range(seeds)
]
found = why.diagnosis_findings(draws)
run.find(found)
by_kind = pd.concat(draws).groupby(["sparsity", "kind"], sort=False)
shares = ["energy", "mean_share", "hot_channels", "predicted", "exact", "other_text"]
(100 * by_kind[shares].mean()).round(2).add_suffix(" (%)")

# %% [markdown]
# The five layers in which leaving sinks out exchanges most, at 50 %. These are means over draws,
# with every map of a layer counted by its weights. Layers 10 and 11 come nearest to what other text
# changes. Around them the attention to the strongest key collapses ([notebook
# 01](01_do_sinks_move.ipynb), by layer), and the massive activations that the sinks carried leave
# the residual stream.

# %%
by_layer = 100 * why.by_layer(draws, 0.5)
by_layer.nlargest(5, "exact").round(2).add_suffix(" (%)")

# %% [markdown]
# ## Other lengths
#
# The same diagnosis on longer calibration sequences, of as many tokens in all, on one draw.

# %%
by_length = {128: draws[0]}
for tokens in other_lengths:
    count = max(2, 2 * calibration * 128 // tokens)
    by_length[tokens] = why.diagnosis_table(run, dlm, fingerprint, count, tokens, seed=0)
lengths = why.length_table(by_length)
figures.save_table(run, "lengths", lengths, "what one pass foresees, by length of a sequence")
lengths.round(4)

# %% [markdown]
# ## Other models
#
# The autoregressive twin, other trainings of the adapter, the same architecture with random weights,
# and a pair of small models from scratch, trained as in [notebook 09](09_from_scratch.ipynb), each
# on one draw. The last column is the verdict of `sinkprune diagnose`. It expects an
# effect where leaving sinks out exchanges more weights than another draw of text does, and more
# than 1 % of the kept weights.

# %%
from sinkprune import load
from sinkprune_companion.experiments import native_pair
from sinkprune_companion.experiments.random_null import with_random_weights
from sinkprune_core.pruning.diagnosis import Diagnosis

# of `why.diagnosis_table`, by model
tables = {model: why.diagnosis_table(run, dlm, fingerprint, 2 * calibration, 128, seed=0)}
dlm.model.to("meta")  # one model at a time, for machines with little memory

for name in other_models:
    if name == "random weights":
        lm = with_random_weights(dlm, 0, dtype, run.device)
    elif name.startswith("smol-ar"):
        lm = load(name, dtype, run.device)
    else:
        lm = diffusion_model(name, dtype, run.device)
    tables[name] = why.diagnosis_table(run, lm, lm.fingerprint(), 2 * calibration, 128, seed=0)
    lm.model.to("meta")

if native_tokens:
    for name in native_pair.NAMES:
        sizes = (native_tokens, 2 * calibration, 128)
        tables[name] = native_pair.native_diagnosis(run, name, *sizes, seed=0, dtype=dtype)

dlm = diffusion_model(model, dtype, run.device)

# %% [markdown]
# The table has the shares of all kept weights that leaving sinks out exchanges: as one pass
# predicts it, as it is, and what another draw of text exchanges.

# %%
foreseen = {
    name: Diagnosis(name, of_model, float(of_model.left_out.iloc[0]))
    for name, of_model in tables.items()
}

rows = []
for name, diagnosis in foreseen.items():
    for sparsity, row in diagnosis.overall().iterrows():
        expects = diagnosis.expect_an_effect(sparsity)
        rows.append([name, sparsity, diagnosis.left_out, *row, expects])

columns = ["model", "zeros", "sinks among tokens", "predicted", "exact", "other text"]
others = pd.DataFrame(rows, columns=[*columns, "expect an effect"])
figures.save_table(run, "other_models", others, "what one pass foresees, by model")
others.round(4)

# %% [markdown]
# How well the prediction fits every single map of these models. *Correlation* is that of the
# logarithms of predicted and exact changes over the maps. *Largest miss* is exact − predicted in
# the map where these are furthest apart, as a share of that map's kept weights. *Largest ratio* is
# how many times as large one of the two is as the other, at most.

# %%
fits = why.fit_table({name: diagnosis.table for name, diagnosis in foreseen.items()})
figures.save_table(
    run, "fits", fits, "how well one pass foresees the change of every map, by model"
)
fits.round(4)

# %% [markdown]
# ## An effect planted in the statistics
#
# Would the pipeline see an effect if there were one? Here the statistics alone are changed: inputs
# at the sinks count as if they were, for instance, 30 times as large. Only ranks within a row
# matter to Wanda, so it is the same to divide the inputs at all other tokens by 30, which a token
# weight of 1/30 does. To SparseGPT it is the same, too: its damping is a share of the mean square
# of the inputs, so a common factor cancels. The model itself stays as it is, so the statistics are
# false about it:

# %%
import inspect

from sinkprune_companion.experiments import planted

print(inspect.getsource(planted.Planted.__call__))

# %% [markdown]
# Each model is pruned with the planted tokens in the statistics (*kept*) and without (*left out*),
# on noised text. Wanda takes the dense model's inputs. SparseGPT also adjusts the weights that stay,
# and takes what the pruned blocks give, as its authors have it. As a control, as many random tokens
# are planted, and the official sink weights are tried instead of leaving sinks out.

# %%
from IPython.display import display
from sinkprune_companion.experiments.paired_differences import above_dense
from sinkprune_companion.figures.forests import listed

doses_of = {"Wanda": doses, "SparseGPT": sparsegpt_doses}
gains = {}  # by finding; below zero, leaving tokens out helps
for method, planted_doses in doses_of.items():
    if not planted_doses:
        continue

    of_draws = [
        planted.planted_losses(
            run,
            dlm,
            fingerprint,
            planted_sparsities,
            sequences,
            calibration,
            seed,
            planted_doses,
            method,
        )
        for seed in range(planted_draws)
    ]
    above = above_dense(pd.concat(of_draws, ignore_index=True))
    gains |= planted.planted_findings(above, planted_sparsities, planted_doses)

found |= gains
run.find(found)

# %% [markdown]
# The picture has what leaving planted tokens out changes. Below zero it helps.

# %%
for sparsity in planted_sparsities:
    ending = f"_{100 * sparsity:.0f}"
    panels = planted.by_method(gains, sparsity)
    says = title(
        run, f"doses{ending}", f"What leaving planted tokens out changes at {sparsity:.0%}"
    )
    figure = pictures.plot_doses(panels, says)
    caption = f"loss with planted tokens left out less with them kept, by dose. {says}"
    data = listed({name: gain for name, gain in gains.items() if name.endswith(ending)})
    display(figures.save_figure(run, figure, f"doses{ending}", data.reset_index(), caption))

# %% [markdown]
# What one pass foresees of every dose: the share of the kept weights that leaving the planted sinks
# out exchanges, beside what another draw of text does.

# %%
passes = [
    planted.foreseen_by_dose(run, dlm, fingerprint, calibration, seed, planted_sparsities, doses)
    for seed in range(planted_draws)
]
found |= planted.foreseen_findings(passes)
run.find(found)
by_dose = pd.concat(passes).groupby(["sparsity", "dose"])[["predicted", "exact", "other_text"]]
(100 * by_dose.mean()).round(2).add_suffix(" (%)")

# %% [markdown]
# ## Does the diagnosis foresee the effect?
#
# The table has every case in which both the diagnosis and the change of the loss are known, and the
# picture those at 50 %. These are the effects planted in the statistics, the model as it is, and
# other models whose sinks notebooks [08](08_what_results_depend_on.ipynb) and
# [09](09_from_scratch.ipynb) left out. `diagnose` expects an effect if leaving sinks out exchanges
# more than other text does, and more than 1 %. The diagnosis is *right* if it expected an effect and
# there is one, be it gain or harm, or if it expected none and the difference is negligible.
#
# For planted effects and the model as it is, masks and losses are of the same calibration text, and
# means over draws. For the other models they are of different text: the masks are of one draw of
# WikiText-2, in this notebook's number format, and the losses of notebooks 08 and 09 are of draws
# of model samples and documentation, in float32; notebook 09's are of other trainings, too. So for
# these models the number in brackets describes one mask and the interval the loss of another.

# %%
from pathlib import Path

from sinkprune_companion.ledger.results import results_for

cases = []
for sparsity in planted_sparsities:
    cases += why.planted_cases(passes, gains, model, sparsity)

measured = results_for(run).f
for name, finding in why.MEASURED.items():
    if name in foreseen and finding in measured:
        overall = foreseen[name].overall().loc[0.5]
        expects = foreseen[name].expect_an_effect(0.5)
        gain = measured[finding]
        exchanges = (overall.exact, overall.other_text)
        cases.append(why.Case(Path(name).name, why.ELSEWHERE, 0.5, *exchanges, expects, gain))
hits = why.foresight(cases, results_for(run).on_losses)
says = title(run, "when", "What leaving sinks out changes, and how much of the masks it exchanges")
figure = pictures.plot_when(hits, says)
caption = (
    f"loss, sinks left out less kept, by the weights exchanged; elsewhere: notebooks 08, 09. {says}"
)
display(figures.save_figure(run, figure, "when", hits, caption))
shown = ["case", "kind", "zeros", "exchanged", "other_text", "expects", "value", "measured"]
hits[[*shown, "foreseen"]].round(4)

# %% [markdown]
# ## The reading

# %% [markdown] tags=["reading"]
# **Sinks hold little of what Wanda reads, or share it.** They are 1.1 % of the tokens, and hold
# 0.56 % of the energy that q, k and v read and 13 % of what `down_proj` reads. At `down_proj` of
# layer 11 they hold 98 %, nearly all of it in two channels. Yet what other tokens leave there is
# still far above the other channels, so these two keep nearly all of their weights without the
# sinks.
#
# **So few weights change places.** Leaving all sinks out exchanges 0.17 % of the kept weights at
# 50 % and 0.36 % at 75 %; another draw of as much text exchanges 2.2 % and 4.5 %. One pass over the
# unpruned model foresees 0.16 % at 50 %.
#
# **A large effect would have been seen.** Larger inputs at the sinks make the statistics false, and
# leaving them out repairs that: at 50 % it lowers Wanda's loss from 10 times on. At 3 times it is
# undecided. With SparseGPT, random tokens show the effect as well, so it need not be one of sinks.
#
# **At 75 % the null says less.** There leaving the sinks out harms at 3 times, is undecided at 10
# and helps from 30 times on, with Wanda as with SparseGPT. Neither we nor `sinkprune diagnose`
# expected that harm to Wanda, and we know no reason for it.
#
# **What it does not show.** That leaving sinks out matters in any model as it is. That other tokens
# fill the same channels was seen in one map; for the rest it is inferred.
# [Controls](../docs/controls.md) has all planted effects.

# %%
from sinkprune_companion.pages.render import Folded, results_table

display(results_table(run))
Folded(listed(found))

# %% [markdown]
# ## Exercises
#
# 1. Set `calibration` to 16. Expect *other text* to change less, as more text averages more out.
# 2. Write a choice of tokens of your own and pass it to `diagnose(lm, text, sinks=…)`. How much
#    would leaving out the first token of every sequence change?
#
# **What this does not show.** What another draw of text exchanges gets smaller with more text, so
# it is a yardstick for one amount of text. `diagnose` never expects an effect where less than 1 %
# of the kept weights are exchanged, and does not tell help from harm. The formula is of Wanda's
# score, row by row. SparseGPT reads products of channels as well. What another draw of text
# exchanges is counted in weights: what it does to the loss was not measured, so it is no yardstick
# of harm. And every model here comes from one base of 135 million weights.

"""What each notebook found, in three to five sentences: the number that matters first.

Every function takes the findings of one notebook by name and returns its sentences. What was not measured is
left out, so a smaller run says less.
"""

from collections.abc import Mapping

from sinkprune_core.companion import answer
from sinkprune_core.companion.margins import share_that_matters
from sinkprune_core.companion.phrases import (
    NATS,
    amount,
    by_sign,
    capital,
    effect,
    first,
    is_small,
    joined,
    known,
    share,
)
from sinkprune_core.evaluation.intervals import Estimate

Found = Mapping[str, Estimate | None]  # by name, without the notebook


def start_here(found: Found) -> list[str]:
    """Return the reading of notebook 00."""
    sentences = []
    if known(found, "unstable_minus_wanda"):
        gap = found["unstable_minus_wanda"]
        says = by_sign(
            gap,
            "leaving unstable sinks out costs quality",
            "leaving unstable sinks out gives the better model",
            "the two pruned models are not told apart",
        )
        sentences.append(f"{first(amount(gap, NATS))} is the NELBO without unstable sinks − Wanda's: {says}.")
    if known(found, "layer_masks_differ"):
        sentences.append(
            "On the layer shown, leaving its sinks out changes "
            f"{share(found['layer_masks_differ'].value)} of the "
            "kept weights."
        )
    if known(found, "wanda_minus_dense"):
        sentences.append(f"Pruning by Wanda costs {amount(found['wanda_minus_dense'], NATS)}.")
    if known(found, "dlm_minus_ar"):
        sentences.append(
            f"The dense DLM's bound lies {amount(found['dlm_minus_ar'], NATS)} above its AR twin's "
            "likelihood."
        )
    sentences.append("One calibration draw decides nothing; notebook 03 takes several.")
    return sentences


def sink_variance(found: Found) -> list[str]:
    """Return the reading of notebook 01."""
    sentences = []
    if known(found, "temporal_variance_difference"):
        moves = found["temporal_variance_difference"]
        says = by_sign(
            moves,
            "the DLM's sinks move more than the AR model's",
            "the AR model's sinks move more than the DLM's",
            "whose sinks move more stays open",
        )
        sentences.append(
            f"{first(amount(moves, 'squared positions'))} is the temporal variance of the sink "
            "centroid, DLM − AR, "
            f"by the paper's sum over all queries: {says}."
        )
    by_notebook = {f"01_sink_variance/{name}": estimate for name, estimate in found.items()}
    sentences.append(answer.reading_sentence(by_notebook))
    if known(found, "stable_share_dlm", "stable_share_ar"):
        dlm, ar = found["stable_share_dlm"], found["stable_share_ar"]
        most = "Most sinks of the DLM are not transient"
        if dlm.high < 0.5:
            most = "Most sinks of the DLM are transient"
        elif dlm.low <= 0.5:
            most = "Whether most sinks of the DLM are transient stays open"
        sentences.append(
            f"{most}: {share(dlm.value)} of their occurrences, and {share(ar.value)} in the AR model, "
            "are at positions "
            "that are a sink in at least 80 % of all steps."
        )
    endings = ("first_token", "from_nothing", "samples", "documentation", "dream")
    names = [f"temporal_variance_difference_{ending}" for ending in endings]
    measured = [found[name] for name in names if found.get(name) is not None]
    if measured:
        more = sum(estimate.low > 0 for estimate in measured)
        less = sum(estimate.high < 0 for estimate in measured)
        sentences.append(
            f"In {len(measured)} other conditions of text, first token and sampler, the DLM's sinks "
            f"move more in {more}, "
            f"the AR model's in {less}."
        )
    if known(found, "spatial_variance_difference"):
        spread = found["spatial_variance_difference"]
        says = by_sign(spread, "less evenly", "more evenly", "about as evenly")
        sentences.append(
            f"Attention is spread {says} over positions in the DLM ({amount(spread, 'squared mass')})."
        )
    return sentences


def hiding_sinks(found: Found) -> list[str]:
    """Return the reading of notebook 02."""
    sentences = []
    if known(found, "top_minus_random_dlm"):
        beyond = found["top_minus_random_dlm"]
        says = by_sign(
            beyond,
            "its sinks are worth more to it than other tokens",
            "its sinks are worth less to it than other tokens",
            "this run does not tell its sinks from other tokens",
        )
        sentences.append(
            f"{first(amount(beyond, NATS))} is what hiding the DLM's five strongest keys costs beyond "
            "five random ones: "
            f"{says}."
        )
    if known(found, "excess_difference"):
        says = by_sign(
            found["excess_difference"],
            "costs the DLM more than the AR model",
            "costs the DLM less than the AR model",
            "costs both about the same, as far as this run can tell",
        )
        sentences.append(
            f"Hiding the five strongest keys {says}: DLM − AR {amount(found['excess_difference'], NATS)}."
        )
    if known(found, "top_minus_random_dlm_first_token", "first_token_loss_dlm"):
        behind, loss = found["top_minus_random_dlm_first_token"], found["first_token_loss_dlm"]
        says = by_sign(
            behind, "its sinks matter then", "its sinks matter less then", "its sinks are not told apart then"
        )
        sentences.append(
            f"Behind a special first token hiding them costs {amount(behind, NATS)} beyond random keys: "
            f"{says}. "
            f"{effect(loss, 'That token, put before the same text,')}."
        )
    if known(found, "top_minus_random_ar"):
        says = by_sign(
            found["top_minus_random_ar"],
            "The AR model does need its sinks",
            "The AR model does better without its sinks than without other tokens",
            "Nor is it clear that the AR model needs its sinks",
        )
        sentences.append(f"{says}: {amount(found['top_minus_random_ar'], NATS)} beyond random keys.")
    if known(found, "written_difference"):
        says = by_sign(
            found["written_difference"],
            "harms the DLM's text more than the AR model's",
            "harms the DLM's text less than the AR model's",
            "harms both texts about alike, as far as this run can tell",
        )
        sentences.append(
            f"Hiding sinks while writing {says}: {amount(found['written_difference'], NATS)}, read by "
            "the AR model."
        )
    return sentences


def pruning_results(found: Found) -> list[str]:
    """Return the reading of notebook 03."""
    sentences = []
    if known(found, "paper_minus_wanda"):
        whole = found["paper_minus_wanda"]
        says = by_sign(
            whole,
            "the official method is worse than Wanda",
            "the official method beats Wanda",
            "the official method and Wanda are not told apart",
        )
        of_damage = ""
        if whole.margin:
            of_damage = (
                f", {share(abs(whole.value) * share_that_matters() / whole.margin)} of what Wanda costs"
            )
        sentences.append(
            f"{first(amount(whole, NATS))} is the official method − Wanda at 50 %{of_damage}: {says}."
        )
    alone = {
        "paper_minus_paper_no_sinks": "switching the official sink weights on",
        "all_sinks_minus_none": "leaving all sinks out",
        "unstable_minus_none": "leaving unstable sinks out",
    }
    parts = [effect(found[name], words) for name, words in alone.items() if known(found, name)]
    if parts:
        sentences.append(f"With nothing else changed, {'; '.join(parts)}.")
    by_notebook = {f"03_pruning_results/{name}": estimate for name, estimate in found.items()}
    sentences.append(answer.hurts_sentence(by_notebook))
    if known(found, "gain_growth", "gain_growth_of_sinks"):
        grows = by_sign(found["gain_growth"], "shrinks", "grows", "does not clearly grow")
        because = by_sign(
            found["gain_growth_of_sinks"],
            "leaving sinks out makes it smaller",
            "leaving sinks out is part of it",
            "leaving sinks out has no clear part in it",
        )
        sentences.append(
            f"The gain over Wanda {grows} with sparsity ({amount(found['gain_growth'], NATS)}), and "
            f"{because} "
            f"({amount(found['gain_growth_of_sinks'], NATS)})."
        )
    accuracy = {name: each for name, each in found.items() if name.startswith("accuracy_") and each}
    method = {
        name: each
        for name, each in accuracy.items()
        if "_minus_wanda_" in name or "sparsegpt_minus_s" in name
    }
    if method:
        better = sum(each.low > 0 for each in method.values())
        worse = sum(each.high < 0 for each in method.values())
        sentences.append(
            f"In accuracy the method is clearly better in {better} and clearly worse in {worse} of "
            f"{len(method)} "
            "comparisons with its baselines."
        )
    return [sentence for sentence in sentences if sentence]


def matched_compute(found: Found) -> list[str]:
    """Return the reading of notebook 04."""
    sentences = []
    if known(found, "pruned_minus_dense_steps"):
        gap = found["pruned_minus_dense_steps"]
        says = by_sign(
            gap,
            "fewer denoising steps of the dense model beat pruning",
            "pruning beats fewer denoising steps of the dense model",
            "pruning and fewer denoising steps are not told apart",
        )
        sentences.append(
            f"{first(amount(gap, NATS))} is pruned − dense with fewer steps, at the same effective "
            f"FLOPs: {says}."
        )
    for name, words in (("structured_sink", "Structured pruning"), ("flap", "FLAP")):
        flops, time = f"{name}_minus_dense_steps", f"{name}_minus_dense_latency"
        if known(found, flops, time):
            says = by_sign(
                found[time], "loses to fewer steps", "beats fewer steps", "is not told apart from fewer steps"
            )
            sentences.append(
                f"{words} {says} in the same measured time: {amount(found[time], NATS)}; at the same "
                "effective FLOPs "
                f"{amount(found[flops], NATS)}."
            )
    names = {
        "unstable_minus_wanda": "Wanda",
        "unstable_minus_dwanda": "Wanda on noised text",
        "unstable_minus_noised_dense": "the same recipe with its sinks",
    }
    parts = []
    for name, words in names.items():
        if known(found, name):
            says = by_sign(found[name], "loses to", "beats", "is not told apart from")
            parts.append(f"{says} {words} ({amount(found[name], NATS)})")
    if parts:
        sentences.append(
            f"At equal sparsity and calibration tokens, leaving unstable sinks out {'; '.join(parts)}."
        )
    sentences.append(
        "Unstructured zeros save no time on dense kernels; fewer steps do, and need no calibration."
    )
    return sentences


def what_does_the_work(found: Found) -> list[str]:
    """Return the reading of notebook 05."""
    sentences = []
    if known(found, "main_sinks"):
        sinks = found["main_sinks"]
        sentences.append(
            f"{first(amount(sinks, NATS))} is the main effect of leaving all sinks out, over both texts "
            "and both "
            f"propagations: {_bare(sinks)}."
        )
    others = {"main_noised": "noised calibration text", "main_dense": "dense propagation"}
    parts = [effect(found[name], words) for name, words in others.items() if known(found, name)]
    if parts:
        sentences.append(f"Of the other switches, {joined(parts)}.")
    if known(found, "unstable_minus_all"):
        said = effect(found["unstable_minus_all"], "leaving out the unstable ones alone")
        sentences.append(f"{answer.PERSISTENCE}. {capital(said)}.")
    if known(found, "reach_sinks", "reach_other_text", "reach_random"):
        sinks, text, random = (found[f"reach_{name}"] for name in ("sinks", "other_text", "random"))
        sentences.append(
            f"Why so little: leaving all sinks out changes {share(sinks.value)} of the kept weights, as "
            "many random tokens "
            f"{share(random.value)}, other calibration text {share(text.value)}."
        )
    contrasts = [
        each for name, each in found.items() if name.startswith("main_sinks_") and "_minus_" in name and each
    ]
    if contrasts:
        clear = sum(not each.low <= 0 <= each.high for each in contrasts)
        sentences.append(
            f"The effect of sinks clearly differs between kinds of text in {clear} of {len(contrasts)} "
            "comparisons."
        )
    return sentences


def _bare(found: Estimate) -> str:
    """Return what an effect on a loss comes to, without its number."""
    small = " less than matters" if is_small(found) else ""
    return by_sign(found, f"it hurts{small}", f"it helps{small}", "no effect that stands out from chance")


def real_models(
    model: str, published: int, ran: int, logits_alike: int, saved: int, is_random: bool
) -> list[str]:
    """Return the reading of notebook 06 from what it counted."""
    sentences = [f"{first(f'{ran} of {published}')} published numbers for {model} were run here."]
    same = "the same" if logits_alike == saved else "OTHER"
    sentences.append(
        f"{logits_alike} of {saved} pruned models give {same} logits after saving, in stock transformers."
    )
    if is_random:
        sentences.append(
            "The weights were random, in the model's format: this checks the way from loading to text, "
            "and says "
            "nothing about the model."
        )
    else:
        sentences.append("The weights were the published ones.")
    return sentences

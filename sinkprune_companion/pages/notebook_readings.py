"""What each notebook but 02 found, in a few sentences: the number that matters first. 02: `hiding_reading`.

Every function takes the findings of one notebook by name and returns its sentences. What was not measured is
left out, so a smaller run says less.
"""

import re
from collections.abc import Mapping

from sinkprune_companion.experiments.pruning_findings import ACCURACY, OFFICIAL
from sinkprune_companion.ledger.margins import share_that_matters
from sinkprune_companion.pages import remembered
from sinkprune_companion.pages.phrases import (
    NATS,
    above_and_below,
    amount,
    by_sign,
    capital,
    effect,
    few_draws,
    first,
    is_small,
    joined,
    judged,
    known,
    non_empty,
    number,
    share,
)
from sinkprune_core.evaluation.intervals import Estimate

Found = Mapping[str, Estimate | None]  # by name, without the notebook
MISSES = 0.05  # share of 95 % intervals that leave the true value out


def start_here(found: Found) -> list[str]:
    """Return the reading of notebook 00."""
    layer = ""
    if known(found, "layer_masks_differ"):
        changed = share(found["layer_masks_differ"].value)
        layer = f"On the layer shown, leaving its sinks out changes {changed} of the kept weights."
    damage = ""
    if known(found, "wanda_minus_dense"):
        damage = f"Pruning by Wanda costs {amount(found['wanda_minus_dense'], NATS)}."
    bound = ""
    if known(found, "dlm_minus_ar"):
        above = amount(found["dlm_minus_ar"], NATS)
        bound = f"The dense DLM's bound lies {above} above its AR twin's likelihood."
    return non_empty(
        judged(
            found,
            "unstable_minus_wanda",
            "{first} is the NELBO without unstable sinks − Wanda's: {says}.",
            "leaving unstable sinks out costs quality",
            "leaving unstable sinks out gives the better model",
            "the two pruned models are not told apart",
        ),
        layer,
        damage,
        bound,
        "One calibration draw decides nothing; notebook 03 takes several.",
    )


def sink_variance(found: Found) -> list[str]:
    """Return the reading of notebook 01."""
    by_notebook = {f"01_sink_variance/{name}": estimate for name, estimate in found.items()}
    return non_empty(
        judged(
            found,
            "temporal_variance_difference",
            "{first} is the temporal variance of the sink centroid, DLM − AR, by the paper's sum over all "
            "queries: {says}.",
            "the DLM's sinks move more than the AR model's",
            "the AR model's sinks move more than the DLM's",
            "whose sinks move more stays open",
            unit="squared positions",
        ),
        remembered.reading_sentence(by_notebook),
        _transient(found),
        _other_conditions(found),
        judged(
            found,
            "spatial_variance_difference",
            "Attention is spread {says} over positions in the DLM ({amount}).",
            "less evenly",
            "more evenly",
            "about as evenly",
            unit="squared mass",
        ),
    )


def _transient(found: Found) -> str:
    """Return whether most sinks of the DLM are transient."""
    if not known(found, "stable_share_dlm", "stable_share_ar"):
        return ""
    dlm, ar = found["stable_share_dlm"], found["stable_share_ar"]
    most = "Most sinks of the DLM are not transient"
    if dlm.high < 0.5:
        most = "Most sinks of the DLM are transient"
    elif dlm.low <= 0.5:
        most = "Whether most sinks of the DLM are transient stays open"
    return (
        f"{most}: {share(dlm.value)} of their occurrences, and {share(ar.value)} in the AR model, are at "
        "stable positions, a sink in nearly every step."
    )


def _other_conditions(found: Found) -> str:
    """Return in how many conditions other than the main one whose sinks move more."""
    names = {
        f"temporal_variance_difference{name}": words for name, words in remembered.CONDITIONS.items() if name
    }
    measured = {words: found[name] for name, words in names.items() if known(found, name)}
    if not measured:
        return ""
    more, less = above_and_below(measured.values())
    where = joined(words for words, each in measured.items() if each.high < 0)
    return (
        f"In {len(measured)} other conditions of text, first token, length and sampler, the DLM's sinks move "
        f"more in {more}, the AR model's in {less}{f' ({where})' if where else ''}."
    )


def pruning_results(found: Found) -> list[str]:
    """Return the reading of notebook 03."""
    of_damage = ""
    if known(found, "paper_minus_wanda") and found["paper_minus_wanda"].margin:
        whole = found["paper_minus_wanda"]
        damage = whole.margin / share_that_matters()
        of_damage = f", {share(abs(whole.value) / damage)} of what Wanda costs"
    alone = {
        "paper_minus_paper_no_sinks": "switching the official sink weights on",
        "all_sinks_minus_none": "leaving all sinks out",
        "unstable_minus_none": "leaving unstable sinks out",
    }
    parts = [effect(found[name], words) for name, words in alone.items() if known(found, name)]
    by_notebook = {f"03_pruning_results/{name}": estimate for name, estimate in found.items()}
    return non_empty(
        judged(
            found,
            "paper_minus_wanda",
            f"{{first}} is the official method − Wanda at 50 %{of_damage}: {{says}}.",
            "the official method is worse than Wanda",
            "the official method beats Wanda",
            "the official method and Wanda are not told apart",
        ),
        parts and f"With nothing else changed, {'; '.join(parts)}.",
        remembered.sinks_alone_sentence(by_notebook),
        _growth(found),
        _accuracy(found),
    )


def _growth(found: Found) -> str:
    """Return whether the gain over Wanda grows with sparsity, and whether sinks are part of it."""
    if not known(found, "gain_growth", "gain_growth_of_sinks"):
        return ""
    whole, part = found["gain_growth"], found["gain_growth_of_sinks"]
    grows = by_sign(whole, "shrinks", "grows", "does not clearly grow")
    because = by_sign(
        part,
        "leaving sinks out makes it smaller",
        "leaving sinks out is part of it",
        "leaving sinks out has no clear part in it",
    )
    return (
        f"The gain over Wanda {grows} with sparsity ({amount(whole, NATS)}{few_draws(whole)}), and {because} "
        f"({amount(part, NATS)}{few_draws(part)})."
    )


def _accuracy(found: Found) -> str:
    """Return in how many comparisons with its baselines the method answers better or worse."""
    official = [name for name, each in ACCURACY.items() if each.group == OFFICIAL]
    method = [
        each
        for name, each in found.items()
        if each and re.fullmatch(rf"accuracy_[a-z]+_({'|'.join(official)})_\d+", name)
    ]
    if not method:
        return ""
    better, worse = above_and_below(method)
    by_chance = number(MISSES * len(method), 1)
    return (
        f"In accuracy the method is clearly better in {better} and clearly worse in {worse} of "
        f"{len(method)} comparisons with its baselines; chance alone would make about {by_chance} clear."
    )


def matched_compute(found: Found) -> list[str]:
    """Return the reading of notebook 04."""
    names = {
        "unstable_minus_wanda": "Wanda",
        "unstable_minus_dwanda": "Wanda on noised text",
        "unstable_minus_noised_dense": "the same recipe with its sinks",
    }
    verbs = ("loses to", "beats", "is not told apart from")
    parts = [judged(found, name, f"{{says}} {words} ({{amount}})", *verbs) for name, words in names.items()]
    parts = non_empty(*parts)
    return non_empty(
        judged(
            found,
            "pruned_minus_dense_steps",
            "{first} is pruned − dense with fewer steps, at the same effective FLOPs: {says}.",
            "fewer denoising steps of the dense model beat pruning",
            "pruning beats fewer denoising steps of the dense model",
            "pruning and fewer denoising steps are not told apart",
        ),
        _structured(found, "structured_sink", "Structured pruning"),
        _structured(found, "flap", "FLAP"),
        parts and f"At equal sparsity and calibration tokens, leaving unstable sinks out {'; '.join(parts)}.",
        "Unstructured zeros save no time on dense kernels; fewer steps do, and need no calibration.",
    )


def _structured(found: Found, name: str, words: str) -> str:
    """Return how a structured recipe compares with fewer steps of the dense model."""
    flops, time = f"{name}_minus_dense_steps", f"{name}_minus_dense_latency"
    if not known(found, flops, time):
        return ""
    says = by_sign(
        found[time], "loses to fewer steps", "beats fewer steps", "is not told apart from fewer steps"
    )
    return (
        f"{words} {says} in the same measured time: {amount(found[time], NATS)}; at the same effective FLOPs "
        f"{amount(found[flops], NATS)}."
    )


def what_does_the_work(found: Found) -> list[str]:
    """Return the reading of notebook 05."""
    whole = ""
    if known(found, "main_sinks"):
        sinks = found["main_sinks"]
        whole = (
            f"{first(amount(sinks, NATS))} is the main effect of leaving all sinks out, over both texts and "
            f"both propagations: {_bare(sinks)}."
        )
    others = {"main_noised": "noised calibration text", "main_dense": "dense propagation"}
    parts = [effect(found[name], words) for name, words in others.items() if known(found, name)]
    persistence = ""
    if known(found, "unstable_minus_all"):
        said = effect(found["unstable_minus_all"], "leaving out the unstable ones alone")
        persistence = f"{remembered.PERSISTENCE}. {capital(said)}."
    return non_empty(
        whole,
        parts and f"Of the other switches, {joined(parts)}.",
        persistence,
        _reach(found),
        _between_kinds(found),
    )


def _reach(found: Found) -> str:
    """Return how few kept weights depend on the sinks."""
    if not known(found, "reach_sinks", "reach_other_text", "reach_random"):
        return ""
    sinks, text, random = (found[f"reach_{name}"] for name in ("sinks", "other_text", "random"))
    return (
        f"Why so little: in the {sinks.units} linear maps searched, leaving all sinks out changes "
        f"{share(sinks.value)} of the kept weights, as many random tokens {share(random.value)}, other "
        f"calibration text {share(text.value)}."
    )


def _between_kinds(found: Found) -> str:
    """Return in how many comparisons between kinds of text the effect of sinks differs."""
    contrasts = [
        each for name, each in found.items() if name.startswith("main_sinks_") and "_minus_" in name and each
    ]
    if not contrasts:
        return ""
    clear = sum(not each.low <= 0 <= each.high for each in contrasts)
    return (
        f"The effect of sinks clearly differs between kinds of text in {clear} of {len(contrasts)} "
        "comparisons."
    )


def _bare(found: Estimate) -> str:
    """Return what an effect on a loss comes to, without its number."""
    if is_small(found):
        return by_sign(
            found, "it hurts less than matters", "it helps less than matters", "no difference that matters"
        )
    return by_sign(found, "it hurts", "it helps", "no effect that stands out from chance")


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
            "The weights were random, in the model's format: this checks the way from loading to text, and "
            "says nothing about the model."
        )
    else:
        sentences.append("The weights were the published ones.")
    return sentences

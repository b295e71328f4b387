"""Findings that deserve a sentence of their own, in README and in the readings of notebooks.

Every sentence is computed from the findings of a run.
"""

import re
from collections.abc import Mapping

from sinkprune_companion.experiments.pruning_findings import SINK_SWITCHES
from sinkprune_companion.pages.phrases import (
    NATS,
    above_and_below,
    amount,
    by_sign,
    capital,
    effect,
    few_draws,
    joined,
    known,
    number,
    share,
)
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.sinks.hiding import THIRDS
from sinkprune_core.sinks.readings import LITERAL, READINGS

Found = Mapping[str, Estimate | None]  # by notebook/name
TEMPORAL = "01_sink_variance/temporal_variance_difference"
LENGTHS = {"tokens_512": "over 512 tokens", "tokens_1024": "over 1,024 tokens"}
CONDITIONS = {  # that differ from the main one, as findings are named, in words
    "": "in the main one",
    "_first_token": "after `<|endoftext|>`",
    "_samples": "on samples of the AR model",
    "_documentation": "on documentation",
    "_from_nothing": "from nothing",
    **{f"_{name}": words for name, words in LENGTHS.items()},
    "_dream": "with Dream's sampler",
}
PERSISTENCE = "In the official code persistence plays no part: it leaves out all sinks, stable ones too"


def reading_sentence(found: Found) -> str:
    """Return how the answer to the first claim depends on the reading of attention mass."""
    names = [TEMPORAL if name == LITERAL else f"{TEMPORAL}_{name}" for name in (*READINGS, "layers")]
    measured = [found[name] for name in names if known(found, name)]
    if not measured:
        return "Whose sinks move more was not measured under any reading of attention mass."
    more, less = above_and_below(measured)
    count = len(measured)
    if count in (more, less):
        whose = "the DLM's" if more else "the AR model's"
        return f"In all {count} readings of attention mass {whose} sinks move more."
    open_ones = count - more - less
    unclear = f", in {open_ones} it is unclear" if open_ones else ""
    return (
        f"Whose sinks move more depends on how attention mass is read: in {more} of {count} readings the "
        f"DLM's, in {less} the AR model's{unclear}."
    )


def condition_sentence(found: Found) -> str:
    """Return where, by the literal reading, the sinks of the DLM move more and where less; empty if alike."""
    measured = {name: found[TEMPORAL + name] for name in CONDITIONS if known(found, TEMPORAL + name)}
    less = [CONDITIONS[name] for name, each in measured.items() if each.high < 0]
    more = sum(each.low > 0 for each in measured.values())
    if not less:
        return ""
    return (
        f"By the paper's reading the DLM's sinks move more in {more} of {len(measured)} conditions, and less "
        f"{joined(less)}."
    )


def third_sentence(found: Found, is_short: bool = False) -> str:
    """Return what hiding sinks costs each model in one third of the layers alone and in all of them, beyond
    random keys; empty if not measured. If short, without intervals.
    """
    parts = []
    for model, short in (("the DLM", "dlm"), ("the AR model", "ar")):
        name = f"02_hiding_sinks/top_minus_random_{short}"
        where = {f"{name}_{third}_layers": third for third in THIRDS} | {name: "all layers"}
        costs = []
        for finding, words in where.items():
            if known(found, finding):
                cost = number(found[finding].value) if is_short else amount(found[finding])
                costs.append(f"{cost} ({words})")
        if len(costs) > 1:
            parts.append(f"{model} {joined(costs)}")
    if not parts:
        return ""
    hidden = "Hidden in one third of the layers alone or in all, the five strongest keys cost"
    return f"{hidden} {joined(parts)} beyond random ones ({NATS})."


def longer_texts(found: Found) -> str:
    """Return what the DLM's sinks are worth in longer texts, five of them and as large a share as five are of
    short ones; empty where these were not measured.
    """
    name = "02_hiding_sinks/top_minus_random_dlm"
    longer = {f"{name}_{condition}": words for condition, words in LENGTHS.items()}
    measured = [each for each in longer if known(found, each)]
    if not measured or not known(found, name):
        return ""
    costs = [f"{amount(found[name], NATS)} in short texts ({found[name].units})"]
    costs += [f"{amount(found[each])} {longer[each]} ({found[each].units})" for each in measured]
    ending = "five are a smaller share of a longer text"
    shares = [f"{each}_same_share" for each in measured]
    if known(found, *shares):
        of_shares = joined(amount(found[each]) for each in shares)
        ending = f"with as large a share of the keys hidden there as in short texts, {of_shares}"
    return f"Beyond random keys the DLM's five strongest cost {joined(costs)}; {ending}."


def told(found: Found) -> list[str]:
    """Return the findings that deserve a sentence of their own, those that were measured."""
    sentences = [
        reading_sentence(found),
        condition_sentence(found),
        third_sentence(found, is_short=True),
        longer_texts(found),
        _kept_weights(found),
        sinks_alone_sentence(found, is_short=True),
        _fewer_steps(found),
        _persistence(found),
    ]
    return [sentence for sentence in sentences if sentence]


def _kept_weights(found: Found) -> str:
    """Return how few kept weights depend on the sinks."""
    masks = "03_pruning_results/masks"
    if not known(found, f"{masks}_all_sinks", f"{masks}_other_text"):
        return ""
    sinks, text = found[f"{masks}_all_sinks"], found[f"{masks}_other_text"]
    return (
        f"Leaving all sinks out changes {share(sinks.value)} of the kept weights at 50 %, other calibration "
        f"text {share(text.value)}."
    )


def sink_effects(found: Found) -> dict[str, Estimate]:
    """Return what leaving sinks out does where nothing else changes, by method and sparsity in words."""
    effects = {}
    for name, estimate in found.items():
        notebook, _, finding = name.partition("/")
        if notebook != "03_pruning_results" or estimate is None:
            continue
        for comparison, words in SINK_SWITCHES.items():
            place = re.fullmatch(rf"{comparison}(?:_(\d+)(?:_(\d+))?)?", finding)
            if place:
                share, group = place.groups()
                where = f"{share}:{group}" if group else f"{share or 50} %"
                effects[f"{words} at {where}"] = estimate
    return effects


def sinks_alone_sentence(found: Found, is_short: bool = False) -> str:
    """Return where leaving sinks out, and nothing else, gains or costs quality; empty if not measured.

    The three largest effects on either side are listed, if short the largest alone.
    """
    effects = sink_effects(found)
    if not effects:
        return ""
    by_value = sorted(effects.items(), key=lambda item: item[1].value)
    gains = [(label, each) for label, each in by_value if each.high < 0]
    losses = [(label, each) for label, each in reversed(by_value) if each.low > 0]
    return (
        f"Of {len(effects)} comparisons in which leaving sinks out is all that changes, {len(gains)} clearly "
        f"{'gains' if len(gains) == 1 else 'gain'}{_most(gains[:3], is_short)} and {len(losses)} clearly "
        f"{'loses' if len(losses) == 1 else 'lose'}{_most(losses[:3], is_short)}."
    )


def _most(effects: list[tuple[str, Estimate]], is_short: bool) -> str:
    """Return the strongest effects in brackets, without intervals if short; nothing where there is none."""
    if not effects:
        return ""
    if is_short:
        return f" ({effects[0][0]}: {number(effects[0][1].value)})"
    listed = [f"{label}, {amount(each, NATS)}{few_draws(each)}" for label, each in effects]
    return f" (most {'; '.join(listed)})"


def _fewer_steps(found: Found) -> str:
    """Return how pruning compares with fewer denoising steps of the dense model."""
    name = "04_matched_compute/pruned_minus_dense_steps"
    if not known(found, name):
        return ""
    says = by_sign(
        found[name],
        "the dense model with fewer denoising steps beats pruning",
        "pruning beats the dense model with fewer denoising steps",
        "pruning and fewer denoising steps of the dense model are not told apart",
    )
    return f"At the same effective FLOPs {says}: pruned − dense {amount(found[name], NATS)}."


def _persistence(found: Found) -> str:
    """Return that the official code ignores persistence, and what telling stable sinks apart does here."""
    sentence = f"{PERSISTENCE} ([docs/official.md](docs/official.md))."
    name = "05_what_does_the_work/unstable_minus_all"
    if not known(found, name):
        return sentence
    said = effect(found[name], "leaving out the unstable ones alone")
    return f"{sentence} {capital(said)}."

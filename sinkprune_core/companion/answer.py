"""What README says of the results: the answer in three sentences, the short table, what to remember.

Every sentence is computed from the ledger and the findings of a run.
"""

import re
from collections.abc import Iterable, Mapping

import pandas as pd

from sinkprune_core.companion import claims, claims_page, others, published
from sinkprune_core.companion.claims import Claim
from sinkprune_core.companion.phrases import (
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
    span,
)
from sinkprune_core.companion.pruning_findings import SINK_SWITCHES
from sinkprune_core.companion.verdict_rule import (
    CONTRADICTED,
    NO_DIFFERENCE,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
)
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.sinks.hiding import THIRDS
from sinkprune_core.sinks.readings import LITERAL, READINGS
from sinkprune_core.tables import markdown_table

Found = Mapping[str, Estimate | None]  # by notebook/name
PAIR = "smol-dlm"
PRUNING = "03_pruning_results"
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
HIDING = "02_hiding_sinks/excess_difference"
PERSISTENCE = "In the official code persistence plays no part: it leaves out all sinks, stable ones too"
MOVES = {
    REPRODUCED: "by the paper's measure sinks do move more in the DLM",
    CONTRADICTED: "by the paper's measure sinks move more in the AR model",
    NO_DIFFERENCE: "by the paper's measure sinks move alike in both",
    UNDECIDED: "by the paper's measure it stays open whose sinks move more",
    NOT_RUN: "how much sinks move was not measured",
}


def readme_answer(ledger: Iterable[Claim], found: Found) -> str:
    """Return three sentences: what the paper claims, what was found here, how far that carries."""
    ledger = list(ledger)
    table = claims.verdicts(ledger, dict(found))
    sentences = [_claimed(), _found_here(ledger, table, found), _how_far(ledger, table)]
    return "\n\n".join(sentences)


def _claimed() -> str:
    """Return what the paper claims, with its own number."""
    rows = {row.method: row for row in published.results() if row.table == "llada-50"}
    method, baseline = (rows[name].values["average"] for name in ("sink-aware Wanda", "Wanda"))
    return (
        "**The paper claims** that sinks move while a DLM writes and matter less there than in an AR model, "
        "and that weights scored without them prune better: on LLaDA-8B at 50 % sparsity it reports "
        f"{method:.2f} % average accuracy against {baseline:.2f} % for Wanda."
    )


def _found_here(ledger: list[Claim], table: pd.DataFrame, found: Found) -> str:
    """Return what was found on the embedded pair."""
    size = MODELS[PAIR].parameters / 1e6
    parts = [MOVES[table.verdict["sinks-move"]]]
    if claims.NOT_CORRECTED in table.note["sinks-move"]:
        parts[0] += f" ({claims.NOT_CORRECTED})"
    if known(found, "01_sink_variance/stable_share_dlm"):
        stable = share(found["01_sink_variance/stable_share_dlm"].value)
        says = {
            REPRODUCED: f"and most come and go ({stable} of occurrences)",
            CONTRADICTED: f"but most stay ({stable} of occurrences)",
        }
        parts[0] += ", " + says.get(table.verdict["sinks-transient"], "and whether most of them stay is open")
    if known(found, HIDING):
        parts.append(_hiding(found))
    if known(found, "05_what_does_the_work/main_sinks"):
        alone = "leaving sinks out of the scores at 50 % sparsity, by itself,"
        parts.append(effect(found["05_what_does_the_work/main_sinks"], alone))
    if known(found, "03_pruning_results/paper_minus_wanda"):
        whole = found["03_pruning_results/paper_minus_wanda"]
        compared = by_sign(whole, "does worse than Wanda", "beats Wanda", "is not told apart from Wanda")
        corrected = table.note["paper-beats-wanda"]
        also = f"; {claims.NOT_CORRECTED}" if claims.NOT_CORRECTED in corrected else ""
        parts.append(f"the official recipe {compared} ({amount(whole)}{also})")
    parts += _holds_for_pruning(ledger, table, found)
    said = ". ".join([parts[0], *map(capital, parts[1:])])
    return (
        f"**Found here**, on two models of {size:.0f} million weights (differences in loss, below "
        f"zero is better): {said}."
    )


def _hiding(found: Found) -> str:
    """Return whom hiding sinks costs more, and in which thirds of the layers it is the other model."""
    costs = "hiding them costs the DLM"
    said = by_sign(
        found[HIDING],
        f"{costs} more than the AR model",
        f"{costs} less than the AR model",
        f"{costs} about as much as the AR model",
    )
    thirds = [third for third in THIRDS if known(found, f"{HIDING}_{third}_layers")]
    signs = {third: _sign(found[f"{HIDING}_{third}_layers"]) for third in thirds}
    opposite = {"+": "-", "-": "+"}.get(_sign(found[HIDING]))
    turned = [third for third, sign in signs.items() if sign == opposite]
    if not turned:
        return said
    there = "less" if opposite == "-" else "more"
    return f"{said}, but in the {joined(turned, 'or')} third of the layers alone {there}"


def _sign(found: Estimate) -> str:
    """Return the sign of a whole interval, 0 where it holds zero."""
    return by_sign(found, "+", "-", "0")


def _holds_for_pruning(ledger: list[Claim], table: pd.DataFrame, found: Found) -> list[str]:
    """Return which claims on pruned models in README's table are reproduced, a sentence if any are."""
    held = []
    for claim in ledger:
        is_about_pruning = claim.kind == claims.CLAIM and claim.notebook == PRUNING and claim.short
        if is_about_pruning and table.verdict[claim.id] == REPRODUCED:
            estimate = found[claim.finding]
            said = f"{amount(estimate)}{few_draws(estimate).replace(' calibration', '')}"
            if claim.control and table.verdict[claim.control] == CONTRADICTED:
                said += "; its control contradicted"
            held.append(f"*{claim.short}* ({said})")
    return [f"reproduced: {joined(held)}"] if held else []


def _how_far(ledger: list[Claim], table: pd.DataFrame) -> str:
    """Return how many claims were decided, and what was not run here."""
    claimed = table[table.kind == claims.CLAIM]
    large = sum(claim.kind == claims.CLAIM and claim.finding is None for claim in ledger)
    by_others = table[table.kind == claims.OTHERS]
    counts = by_others.verdict.value_counts()
    verdicts = [f"{counts[verdict]} are {verdict}" for verdict in claims_page.MARKS if verdict in counts]
    if len(verdicts) == 1:
        verdicts = [f"all are {counts.index[0]}"]
    return (
        f"**How far that carries.** {claims_page.counted(claimed, 'claims')} "
        f"{large} of them need models of 8 billion weights, which did not run here; of {len(by_others)} "
        f"comparisons that others ran at 8B, {joined(verdicts)}."
    )


# the short table


def short_table(ledger: Iterable[Claim], found: Found) -> str:
    """Return the claims that have a short text in Markdown: claim, verdict, number, its control beneath.

    Three columns, so that a phone shows them all.
    """
    ledger = list(ledger)
    table = claims.verdicts(ledger, dict(found))
    by_id = {claim.id: claim for claim in ledger}
    controls = {claim.control for claim in ledger if claim.control}
    estimates = {**others.findings(), **found}
    lines = []
    for claim in ledger:
        if not claim.short or claim.id in controls:
            continue
        lines.append(_short_row(claim, table, estimates))
        if claim.control:
            lines.append(_short_row(by_id[claim.control], table, estimates, beneath=True))
    return markdown_table(["claim", "verdict", "number [95 % interval]"], lines)


def _short_row(claim: Claim, table: pd.DataFrame, estimates: Found, beneath: bool = False) -> list[str]:
    """Return one row of the short table."""
    says = claim.short
    if beneath:
        head = "by others" if claim.kind == claims.OTHERS else "control"
        says = f"↳ *{head}:* {claim.short}"
    elif claim.notebook:
        says = f"[{claim.short}](notebooks/{claim.notebook}.ipynb)"
    verdict = table.verdict[claim.id]
    shown_verdict = f"{claims_page.MARKS[verdict]} {verdict}"
    if claims.NOT_CORRECTED in table.note[claim.id]:
        shown_verdict += " before correction"  # for its family
    estimate = estimates.get(claim.finding or "")
    shown = "–"
    if estimate is not None:
        interval = span(estimate).replace("\N{NO-BREAK SPACE}", " ")  # it may break where a phone is narrow
        draws = few_draws(estimate).replace(" calibration", "")  # the table is narrow
        shown = f"{number(estimate.value)} {claim.unit} {interval}{draws}"
    elif claim.published:
        shown = f"published: {claim.published}"
    return [says, shown_verdict, shown]


# what to remember


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
    hidden = "Hidden in one third of the layers alone, the five strongest keys cost"
    return f"{hidden} {joined(parts)} beyond random ones ({NATS})."


def _longer_texts(found: Found) -> str:
    """Return what the DLM's sinks are worth in longer texts; empty where these were not measured."""
    name = "02_hiding_sinks/top_minus_random_dlm"
    longer = {f"{name}_{condition}": words for condition, words in LENGTHS.items()}
    measured = [each for each in longer if known(found, each)]
    if not measured or not known(found, name):
        return ""
    told = [f"{amount(found[name], NATS)} in short texts ({found[name].units})"]
    told += [f"{amount(found[each])} {longer[each]} ({found[each].units})" for each in measured]
    return (
        f"Beyond five random keys the DLM's five strongest cost {joined(told)}; five are a smaller share of "
        "a longer text."
    )


def remembered(found: Found) -> list[str]:
    """Return the findings that deserve a sentence of their own, those that were measured."""
    sentences = [
        reading_sentence(found),
        condition_sentence(found),
        third_sentence(found, is_short=True),
        _longer_texts(found),
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

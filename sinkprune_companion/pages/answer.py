"""What README says of the results first: the answer in three sentences and the short table.

Every sentence is computed from the ledger and the findings of a run.
"""

from collections.abc import Iterable, Mapping

import pandas as pd

from sinkprune_companion.ledger import claims, others, published
from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.ledger.tables import MARKS
from sinkprune_companion.pages import claims_page
from sinkprune_companion.pages.phrases import (
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
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.evaluation.verdict_rule import (
    CONTRADICTED,
    NO_DIFFERENCE,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
)
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.sinks.hiding import THIRDS
from sinkprune_core.tables import markdown_table

Found = Mapping[str, Estimate | None]  # by notebook/name
PAIR = "smol-dlm"
PRUNING = "03_pruning_results"
HIDING = "02_hiding_sinks/excess_difference"
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
    verdicts = [f"{counts[verdict]} are {verdict}" for verdict in MARKS if verdict in counts]
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
    shown_verdict = f"{MARKS[verdict]} {verdict}"
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

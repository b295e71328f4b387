"""What more calibration text and less chance change, in sentences for README, its page and its figures."""

from collections.abc import Sequence

from sinkprune_companion.experiments.headline_rows import NOTEBOOK
from sinkprune_companion.experiments.more_text import Amount, amounts
from sinkprune_companion.experiments.pruning_findings import COMPARISONS
from sinkprune_companion.ledger.claims import CLAIM, Claim, ledger
from sinkprune_companion.pages import phrases, side_by_side
from sinkprune_core.evaluation.intervals import Estimate

PAGE = "docs/more_text.md"


def rows_measured(measured: Sequence[Amount]) -> list[Claim]:
    """Return the rows of the ledger that every amount of text has a finding for."""
    return [claim for claim in ledger() if all(amount.found.get(claim.finding) for amount in measured)]


def compared(measured: Sequence[Amount]) -> list[str]:
    """Return the comparisons that every amount of text has a finding for, in order."""
    return [name for name in COMPARISONS if all(finding_of(amount, name) for amount in measured)]


def finding_of(amount: Amount, comparison: str) -> Estimate | None:
    """Return what was found of a comparison with an amount of text; None where it was not measured."""
    return amount.found.get(f"{NOTEBOOK}/{comparison}")


def effect_of(found: Estimate) -> str:
    """Return in a word what a difference in loss says, one of `phrases.EFFECTS`."""
    unclear = phrases.EQUIVALENT if phrases.is_small(found) else phrases.OPEN
    return phrases.by_sign(found, phrases.HURTS, phrases.HELPS, unclear)


def summary() -> str:
    """Return how many verdicts hang on the amount of calibration text and on the noise, as README says it."""
    measured = amounts()
    least, most = under_one_noise(measured)
    own = under_own_noise(measured)
    told = (
        f"{_turned(least, most)} verdicts at 50 and 75 % turn from {least.size['calibration']} to "
        f"{most.size['calibration']} calibration sequences"
    )
    if own is not None:
        told += (
            f", and {_turned(most, own)} where each calibration draw has noise of its own, as published "
            "here, instead of one for all"
        )
    return f"{told} ([more text]({PAGE}))."


def _turned(before: Amount, after: Amount) -> str:
    """Return how many verdicts turn from one amount to another."""
    rows = rows_measured((before, after))
    turned = sum(not side_by_side.has_one_verdict(claim, (before, after)) for claim in rows)
    return f"{turned} of {len(rows)}"


def under_one_noise(measured: Sequence[Amount]) -> tuple[Amount, Amount]:
    """Return the least and the most text that were measured under one noise for all draws."""
    alike = [amount for amount in measured if not amount.own_noise]
    return alike[0], alike[-1]


def under_own_noise(measured: Sequence[Amount]) -> Amount | None:
    """Return the amount of text that was measured under noise of its own for every draw, if any was."""
    return next((amount for amount in measured if amount.own_noise), None)


def says(measured: Sequence[Amount]) -> str:
    """Return in words what more text changes, and what noise of its own for every draw does."""
    own = under_own_noise(measured)
    _, most = under_one_noise(measured)
    return (
        more_text_says(measured) if own is None else f"{more_text_says(measured)} {_less_chance(most, own)}"
    )


def more_text_says(measured: Sequence[Amount]) -> str:
    """Return in words how many rows keep their verdict with most text, and what changes.

    That is every claim of the paper and every row of README's table that turns, and every comparison whose
    two intervals do not overlap.
    """
    least, most = under_one_noise(measured)
    rows = rows_measured((least, most))
    kept = [claim for claim in rows if side_by_side.has_one_verdict(claim, (least, most))]
    own = [claim for claim in rows if claim.kind == CLAIM]
    sentence = (
        f"Calibrated on {most.size['calibration']} sequences instead of {least.size['calibration']}, "
        f"in {most.size['seeds']} draws instead of {least.size['seeds']}, "
        f"{len(kept)} of {len(rows)} verdicts at 50 and 75 % stay"
    )
    if all(claim in kept for claim in own):
        sentence += f", those of all {len(own)} claims of the paper among them"
    sentence += _turns(rows, least, most)
    sentences = [sentence, *(_change(name, least, most) for name in apart(least, most))]
    return f"{'. '.join(sentences)}."


def _turns(rows: Sequence[Claim], before: Amount, after: Amount) -> str:
    """Return in words which claims of the paper and rows of README's table have another verdict after."""
    told = ""
    for claim in rows:
        is_told = claim.kind == CLAIM or claim.short is not None
        if is_told and not side_by_side.has_one_verdict(claim, (before, after)):
            told += f"; *{claim.says}* turns {side_by_side.in_words(claim, after.found[claim.finding])}"
    return told


def _less_chance(shared: Amount, own: Amount) -> str:
    """Return in words what noise of its own for every draw does to intervals and verdicts."""
    rows = rows_measured((shared, own))
    kept = sum(side_by_side.has_one_verdict(claim, (shared, own)) for claim in rows)
    names = compared((shared, own))
    wide = [name for name in names if not _is_within_margin(shared, name)]
    fall = []
    for name in wide:
        before, after = (phrases.number(finding_of(amount, name).half_width) for amount in (shared, own))
        fall.append(f"{COMPARISONS[name].label} {before} to {after}")
    below = sum(_is_within_margin(own, name) for name in names)
    return (
        f"With noise of its own for each of {own.size['seeds']} draws, instead of one for all "
        f"{shared.size['seeds']}, half-widths below the smallest difference that matters: {below} of "
        f"{len(names)} comparisons instead of {len(names) - len(wide)} ({phrases.joined(fall)}); {kept} of "
        f"{len(rows)} verdicts stay{_turns(rows, shared, own)}."
    )


def _is_within_margin(amount: Amount, comparison: str) -> bool:
    found = finding_of(amount, comparison)
    return found.half_width < found.margin


def apart(least: Amount, most: Amount) -> list[str]:
    """Return the comparisons on which the intervals of two amounts of text do not overlap."""
    names = []
    for name in compared((least, most)):
        one, other = finding_of(least, name), finding_of(most, name)
        if one.high < other.low or other.high < one.low:
            names.append(name)
    return names


def _change(comparison: str, least: Amount, most: Amount) -> str:
    """Return in words what a comparison says with the least and with the most text."""
    one, other = (phrases.amount(finding_of(amount, comparison)) for amount in (least, most))
    about = COMPARISONS[comparison]
    return (
        f"*{about.label}* ({about.group}) goes from {one} to {other} {phrases.NATS}: "
        "there the amount of text decides"
    )


def effects_in_words(measured: Sequence[Amount]) -> str:
    """Return how many comparisons say the same with the least and the most text, and which lie apart."""
    least, most = under_one_noise(measured)
    names = compared((least, most))
    same = sum(effect_of(finding_of(least, name)) == effect_of(finding_of(most, name)) for name in names)
    sentence = (
        f"{same} of {len(names)} comparisons say the same on {most.size['calibration']} sequences as on "
        f"{least.size['calibration']}"
    )
    changes = []
    for name in apart(least, most):
        one, other = (phrases.number(finding_of(amount, name).value) for amount in (least, most))
        changes.append(f"{COMPARISONS[name].label} goes from {one} to {other}")
    return "; ".join([sentence, *changes])


def damage_in_words(measured: Sequence[Amount]) -> str:
    """Return which recipe's damage falls most from the least text to the most, and which one's least."""
    least, most = (amount.damage.set_index("recipe").value for amount in under_one_noise(measured))
    change = most - least[most.index]
    told = [
        f"{name} {side} ({phrases.number(least[name], 3)} to {phrases.number(most[name], 3)} nats)"
        for name, side in ((change.idxmin(), "most"), (change.idxmax(), "least"))
    ]
    return f"more text helps {told[0]} and {told[1]}"

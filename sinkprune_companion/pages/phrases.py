"""Numbers and verdicts as words: the parts that computed sentences are made of.

A sentence that a page or a notebook shows is put together here and in `answer` and `notebook_readings`, from
findings alone, so that other findings give other sentences.
"""

import re
from collections.abc import Iterable, Mapping

from sinkprune_core.evaluation.intervals import Estimate

NATS = "nats per token"
MINUS = "−"

# what an effect in nats per token does
HELPS = "helps"
HURTS = "hurts"
EQUIVALENT = "no difference"
OPEN = "inconclusive"
EFFECTS = (HELPS, HURTS, EQUIVALENT, OPEN)


def number(value: float, digits: int = 2) -> str:
    """Return a number of so many significant digits, with a true minus sign and commas between thousands."""
    rounded = float(f"{value:.{digits}g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"
    return text.replace("-", MINUS)


def signed(value: float, decimals: int = 3) -> str:
    """Return a signed number of so many decimals with a true minus sign; what rounds to zero has no sign."""
    text = f"{value:+.{decimals}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", MINUS)


def signed_interval(value: float, low: float, high: float) -> str:
    """Return a signed number and its interval in three decimals, in four where it stays within ± 0.1."""
    decimals = 4 if max(abs(low), abs(high)) < 0.1 else 3
    return f"{signed(value, decimals)} [{signed(low, decimals)}, {signed(high, decimals)}]"


def share(value: float) -> str:
    """Return a share in percent: with one decimal below 10 %, with two below 1 %."""
    percent = 100 * abs(value)
    decimals = 0 if percent >= 10 else 1 if percent >= 1 else 2
    return f"{100 * value:.{decimals}f} %".replace("-", MINUS)


def span(found: Estimate) -> str:
    """Return an interval in brackets, which does not break over lines."""
    return f"[{number(found.low)},\N{NO-BREAK SPACE}{number(found.high)}]"


def amount(found: Estimate, unit: str = "") -> str:
    """Return a number with its unit and interval."""
    return " ".join(part for part in (number(found.value), unit, span(found)) if part)


def first(text: str) -> str:
    """Return the number that matters most, in bold."""
    return f"**{text}**"


def by_sign(found: Estimate, above: str, below: str, unclear: str) -> str:
    """Return what an interval says: that it lies above zero, below it, or neither."""
    if found.low > 0:
        return above
    if found.high < 0:
        return below
    return unclear


def above_and_below(found: Iterable[Estimate]) -> tuple[int, int]:
    """Return how many intervals lie above zero, and how many below it."""
    found = list(found)
    return sum(each.low > 0 for each in found), sum(each.high < 0 for each in found)


def few_draws(found: Estimate) -> str:
    """Return what must be said of an effect on one or two calibration draws, with a comma before; else
    nothing.
    """
    return {1: ", one calibration draw", 2: ", two calibration draws"}.get(found.draws, "")


def effect(found: Estimate, subject: str, unit: str = NATS) -> str:
    """Return what `subject` does to a loss: it saves, it costs, it makes no difference that matters or that
    this run could see.
    """
    size = f"{number(abs(found.value))} {unit} {span(found)}"
    if found.high < 0 or found.low > 0:
        verb = "saves" if found.high < 0 else "costs"
        small = ", less than matters" if is_small(found) else ""
        return f"{subject} {verb} {size}{small}"
    if is_small(found):
        return f"{subject} makes no difference that matters: {amount(found, unit)}"
    return f"{subject} makes no difference that this run could see: {amount(found, unit)}"


def is_small(found: Estimate) -> bool:
    """Return whether the whole interval lies within the finding's margin; False without one."""
    return found.margin is not None and -found.margin < found.low and found.high < found.margin


def unbroken(text: str) -> str:
    """Return a text in which no line ends between a number and its percent sign."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)


def joined(parts: Iterable[str], last: str = "and") -> str:
    """Return a list in words."""
    parts = list(parts)
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def known(found: Mapping[str, Estimate | None], *names: str) -> bool:
    """Return whether all of these were measured."""
    return all(found.get(name) is not None for name in names)


def capital(sentence: str) -> str:
    """Return a sentence that begins with a capital."""
    return sentence[:1].upper() + sentence[1:]


def judged(
    found: Mapping[str, Estimate | None], name: str, template: str, *says: str, unit: str = NATS
) -> str:
    """Return `template` with a finding's `amount`, in bold where it is `first`, and what its sign `says`.

    `says` holds the words for an interval above zero, below zero and around it. "" for what was not measured.
    """
    if not known(found, name):
        return ""
    shown = amount(found[name], unit)
    return template.format(first=first(shown), amount=shown, says=by_sign(found[name], *says))


def non_empty(*sentences: str) -> list[str]:
    """Return the sentences that say something."""
    return [sentence for sentence in sentences if sentence]

"""Numbers as readers see them: one format for pages, notebooks and figures."""

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal

from sinkprune.evaluation.intervals import Estimate

MINUS = "−"
SPACE = "\N{NO-BREAK SPACE}"  # no line breaks within a number


def number(value: float | None, digits: int = 2) -> str:
    """Return a number of so many significant digits, with a true minus sign and commas; a dash for none."""
    if value is None:
        return "–"
    rounded = Decimal(f"{value:.{digits - 1}e}")
    text = f"{rounded:,.0f}" if abs(float(rounded)) >= 10 ** (digits - 1) else f"{rounded:f}"
    return text.replace("-", MINUS)


def count(value: float) -> str:
    """Return a whole number with commas between thousands."""
    return f"{value:,.0f}".replace("-", MINUS)


def signed(value: float, decimals: int = 3) -> str:
    """Return a signed number of so many decimals with a true minus sign; what rounds to zero has no sign."""
    text = f"{value:+.{decimals}f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def signed_interval(value: float, low: float, high: float) -> str:
    """Return a signed number and its interval, in as many decimals as give its further end three digits."""
    furthest = max(abs(low), abs(high))
    decimals = min(6, max(1, 2 - math.floor(math.log10(furthest)))) if furthest else 3
    return f"{signed(value, decimals)} [{signed(low, decimals)}, {signed(high, decimals)}]"


def percent(value: float) -> str:
    """Return a share in percent: with two significant digits below 10 %."""
    hundredths = 100 * value
    text = f"{hundredths:.0f}" if abs(hundredths) >= 10 or value == 0 else number(hundredths)
    return f"{text}{SPACE}%".replace("-", MINUS)


def amount(estimate: Estimate, unit: str = "") -> str:
    """Return a number with its unit and its interval in brackets, which does not break over lines."""
    interval = f"[{number(estimate.low)},{SPACE}{number(estimate.high)}]"
    return " ".join(part for part in (number(estimate.value), unit, interval) if part)


def p_text(p: float | None) -> str:
    """Return a p-value; a dash for none."""
    if p is None or p != p:
        return "–"
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, without a line break at its end; a vertical bar in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    texts = [[str(cell).replace("|", "\\|") for cell in cells] for cells in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in texts)

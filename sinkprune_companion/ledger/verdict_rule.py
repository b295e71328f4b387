"""The rule by which a finding decides a claim: five verdicts, and what would decide an open one.

A claim says that a quantity lies on one side of `against`. The rule, in this order:

1. *not run at this scale*: there is no finding.
2. *reproduced*: the whole 95 % interval lies on the claimed side of `against`.
3. *contradicted*: the whole interval lies on the other side.
4. *no difference that matters*: the whole interval lies within `against` ± margin, an equivalence test.
5. *undecided*: all else.

An interval that touches a bound has not left it. One that lies on a side of `against` and within the margin
as well is reproduced or contradicted, with the note "smaller than what matters".
"""

from scipy import stats

from sinkprune_core.evaluation.intervals import CONFIDENCE, Estimate

REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
NO_DIFFERENCE = "no difference that matters"
UNDECIDED = "undecided"
NOT_RUN = "not run at this scale"
VERDICTS = (REPRODUCED, CONTRADICTED, NO_DIFFERENCE, UNDECIDED, NOT_RUN)
SIDES = ("above", "below")
POWER = 0.8  # of the smallest effect that a run could have seen
MOST_FACTOR = 1_000  # beyond it, a run that would decide is said to be out of reach


def verdict(found: Estimate | None, side: str, against: float, margin: float | None) -> str:
    """Return the verdict of a finding on the claim that it lies `side` of `against`.

    Without a margin (None) nothing can be too small to matter.
    """
    if found is None:
        return NOT_RUN
    if is_beyond(found, side, against):
        return REPRODUCED
    if is_beyond(found, _other(side), against):
        return CONTRADICTED
    if is_within(found, against, margin):
        return NO_DIFFERENCE
    return UNDECIDED


def is_beyond(found: Estimate, side: str, against: float) -> bool:
    """Return whether the whole interval lies `side` of `against`."""
    if side == "above":
        return found.low > against
    return found.high < against


def is_within(found: Estimate, against: float, margin: float | None) -> bool:
    """Return whether the whole interval lies within `against` ± `margin`."""
    if margin is None:
        return False
    return against - margin < found.low and found.high < against + margin


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]


def p_value(found: Estimate, against: float) -> float:
    """Return the two-sided p-value that the mean is `against`.

    The finding's own where it has one; else that of a normal mean with the standard error that its interval
    has, which is an approximation.
    """
    if found.p is not None:
        return found.p
    if found.standard_error == 0:
        return float(found.value == against)
    return float(2 * stats.norm.sf(abs(found.value - against) / found.standard_error))


def smallest_effect(found: Estimate) -> float:
    """Return the smallest effect that a run with this interval sees in 80 % of all cases, two-sided at 5 %.

    It is 1.96 + 0.84 = 2.80 standard errors, or 1.43 half-widths of the interval.
    """
    errors = stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER)
    return float(errors * found.standard_error)


def deciding_factor(found: Estimate, against: float, margin: float) -> float:
    """Return by how much a run must grow, in the units that limit it, for its interval to decide.

    (half-width / margin)², so that the half-width comes down to the margin. An interval that is narrow enough
    and yet undecided has its mean near the edge of the margin: there the half-width must come down to the
    larger of the two distances, to `against` or to that edge.
    """
    factor = (found.half_width / margin) ** 2
    if factor > 1:
        return factor
    distance = abs(found.value - against)
    needed = max(distance, margin - distance)
    return max(1.0, (found.half_width / needed) ** 2)


def limiting_units(found: Estimate, margin: float) -> list[str]:
    """Return which units limit an interval: `calibration draws`, `sequences` or both.

    The source with the larger standard error does, and the other one, too, if by itself it gives an interval
    that is wider than the margin. Without errors by source they are the units that the finding rests on.
    """
    errors = {"calibration draws": found.error_draws, "sequences": found.error_sequences}
    known = {name: error for name, error in errors.items() if error is not None}
    if len(known) < 2:
        return ["sequences" if known else "units"]
    largest = max(known, key=known.get)
    reach = stats.norm.ppf((1 + CONFIDENCE) / 2)
    return [name for name, error in known.items() if name == largest or reach * error > margin]


def deciding_run(found: Estimate, against: float, margin: float) -> str:
    """Return the size of run that would decide an open verdict, in words."""
    factor = deciding_factor(found, against, margin)
    if factor > MOST_FACTOR:
        return f"more than {MOST_FACTOR:,} times the {' and '.join(limiting_units(found, margin))}"
    sizes = []
    for name in limiting_units(found, margin):
        count = found.draws if name == "calibration draws" else found.units
        sizes.append(f"{_rounded_up(factor * count):,} {name} instead of {count:,}")
    return " and ".join(sizes)


def _rounded_up(count: float) -> int:
    """Return a whole number not below `count`, with two digits that are not zero."""
    step = 10 ** max(0, len(str(int(count))) - 2)
    return int(-(-count // step) * step)


def note(found: Estimate | None, side: str, against: float, margin: float | None) -> str:
    """Return what must be said beside a verdict; empty where it says it all."""
    given = verdict(found, side, against, margin)
    if given == NOT_RUN:
        return ""
    if given != UNDECIDED:
        is_small = given != NO_DIFFERENCE and is_within(found, against, margin)
        return "smaller than what matters" if is_small else ""
    said = f"half-width {found.half_width:.2g}; could have seen {smallest_effect(found):.2g}"
    if margin is None:
        return f"{said}; no margin was stored with the finding"
    return f"{said}; would decide: {deciding_run(found, against, margin)}"

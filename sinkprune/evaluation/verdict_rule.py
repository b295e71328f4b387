"""The rule by which an interval decides: the one for the ledger, for effects of switches and for two models.

A question is whether a quantity lies above or below `against`, and by how much it must differ to matter (the
margin). Every p counts the looks at a number and, after Holm, the rows of its family. The rule, in this
order:

1. *not run*: there is no estimate.
2. *too few draws*: it rests on calibration draws, and on fewer than five of them.
3. *no difference that matters*: the whole 95 % interval lies within `against` ± margin, and a difference as
   large as the margin, on whichever side, has p below .05. A margin that is a share of another mean carries
   the error of that mean in this p.
4. *above* or *below*: the whole interval lies there, and p is below .05. For a claim these are *reproduced*
   and *contradicted*, by the side that it names.
5. *undecided*: all else. An interval that touches a bound has not left it.

A claim whose decided answers turn with the condition under which it is asked *depends on the condition*
(`over_conditions`).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from sinkprune.evaluation.intervals import CONFIDENCE, Estimate, crossed_interval
from sinkprune.evaluation.numbers import number

ABOVE, BELOW = "above", "below"
REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
NO_DIFFERENCE = "no difference that matters"
UNDECIDED = "undecided"
TOO_FEW_DRAWS = "too few draws"
NOT_RUN = "not run"
DEPENDS = "depends on the condition"
NOT_DONE = "not what the code does"  # of a sentence on the method, which is read in the code and not measured
VERDICTS = (  # on a claim
    REPRODUCED,
    CONTRADICTED,
    NO_DIFFERENCE,
    DEPENDS,
    UNDECIDED,
    TOO_FEW_DRAWS,
    NOT_DONE,
    NOT_RUN,
)
HELPS, HURTS = "helps", "hurts"
ON_A_LOSS = {BELOW: HELPS, ABOVE: HURTS}  # where an effect lies -> what its switch does
LEAST_DRAWS = 5  # intervals over fewer cover less than they say, as a test simulates
POWER = 0.8  # of the smallest effect that a run could have seen
MOST_FACTOR = 1_000  # beyond it, a run that would decide is said to be out of reach


def verdict(
    estimate: Estimate | None,
    margin: float | None,
    against: float = 0.0,
    p: float | None = None,
    p_matters: float | None = None,
) -> str:
    """Return what an estimate says: ABOVE, BELOW, NO_DIFFERENCE, UNDECIDED, TOO_FEW_DRAWS or NOT_RUN.

    `p` of no difference and `p_matters` of one that matters are corrected for their family (None: the
    estimate's own); without a margin nothing is too small.
    """
    if estimate is None:
        return NOT_RUN
    if estimate.draws is not None and estimate.draws < LEAST_DRAWS:
        return TOO_FEW_DRAWS

    if p is None:
        p = estimate.p_value(against)
    if p_matters is None:
        p_matters = estimate.p_of_a_difference(margin, against)

    is_within = margin is not None and against - margin < estimate.low and estimate.high < against + margin
    if is_within and p_matters < 1 - CONFIDENCE:
        return NO_DIFFERENCE
    if p < 1 - CONFIDENCE:
        if estimate.low > against:
            return ABOVE
        if estimate.high < against:
            return BELOW

    return UNDECIDED


def over_conditions(verdicts: Sequence[str]) -> str:
    """Return the verdict on a claim, the first of `verdicts`, asked under other conditions in the rest.

    It depends on the condition where one answer is reproduced and another is not: contradicted, or without a
    difference that matters. Otherwise the first one stands.
    """
    decided = set(verdicts)
    if REPRODUCED in decided and decided & {CONTRADICTED, NO_DIFFERENCE}:
        return DEPENDS
    return verdicts[0]


def on_claim(outcome: str, side: str) -> str:
    """Return a `verdict` as one of VERDICTS, on the claim that the quantity lies on `side`."""
    if outcome == side:
        return REPRODUCED
    return CONTRADICTED if outcome in (ABOVE, BELOW) else outcome


def on_a_loss(on_claim: str, side: str) -> str:
    """Return a verdict on the claim that a difference of losses lies on `side` as what the switch does."""
    if on_claim == REPRODUCED:
        return ON_A_LOSS[side]
    if on_claim == CONTRADICTED:
        return ON_A_LOSS[ABOVE if side == BELOW else BELOW]
    return on_claim


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return the p-values of a family adjusted (Holm 1979): the chance of any false answer is bounded."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order, kind="stable")]


def judge(effects: Mapping[str, np.ndarray], margin: float | None, section: str = "") -> pd.DataFrame:
    """Return one row per effect {label: (R, N)}, with its `crossed_interval` and its verdict on losses.

    `p_holm` is corrected over these effects, `margin` NaN without one. Raises ValueError unless `margin` > 0.
    """
    estimates = {label: crossed_interval(effect).with_margin(margin) for label, effect in effects.items()}
    p = [estimate.p_value() for estimate in estimates.values()]

    return pd.DataFrame(
        {
            "comparison": estimates.keys(),
            **fields_of(estimates, "value", "low", "high"),
            "p": p,
            "p_holm": holm(p),
            **fields_of(estimates, "error_sequences", "error_draws"),
            "section": section,
            "margin": float("nan") if margin is None else margin,
            "verdict": verdicts_on_losses(estimates.values()),
        }
    )


def fields_of(estimates: Mapping[str, Estimate], *names: str) -> dict[str, list]:
    """Return columns of a table that has a row per estimate."""
    return {name: [getattr(estimate, name) for estimate in estimates.values()] for name in names}


def verdicts_on_losses(estimates: Collection[Estimate]) -> list[str]:
    """Return HELPS, HURTS or another verdict on each difference of losses, corrected over all (Holm)."""
    p = holm([estimate.p_value() for estimate in estimates])
    p_matters = holm([estimate.p_of_a_difference(estimate.margin) for estimate in estimates])

    outcomes = [
        verdict(one, one.margin, p=p_of_one, p_matters=p_matters_of_one)
        for one, p_of_one, p_matters_of_one in zip(estimates, p, p_matters, strict=True)
    ]
    return [ON_A_LOSS.get(outcome, outcome) for outcome in outcomes]


def smallest_effect(estimate: Estimate) -> float:
    """Return the smallest effect that such a run sees in 80 % of all cases, two-sided at 5 %."""
    errors = estimate.errors_at((1 + CONFIDENCE) / 2) + estimate.errors_at(POWER)
    return errors * estimate.standard_error


def deciding_factor(estimate: Estimate, against: float, margin: float) -> float:
    """Return by how much a run must grow, in the units that limit it, for its interval to decide."""
    distance = abs(estimate.value - against)
    needed = max(distance, margin - distance)  # half-width that leaves `against`, or fits the margin
    return max(1.0, (estimate.half_width / needed) ** 2)  # it falls with the root of the size


def deciding_run(estimate: Estimate, against: float, margin: float) -> str:
    """Return the size of run that would decide an open verdict, in words.

    What limits it is the source with the larger standard error, and the other one, too, if by itself it gives
    an interval that is wider than the margin; without errors by source, the estimate's units.
    """
    limiting = {"sequences" if estimate.draws else "units": estimate.units}
    if estimate.error_draws is not None and estimate.error_sequences is not None:
        counts = {"draws": estimate.draws, "sequences": estimate.units}
        errors = {"draws": estimate.error_draws, "sequences": estimate.error_sequences}
        largest = max(errors, key=lambda name: errors[name])
        reach = estimate.errors_at((1 + CONFIDENCE) / 2)
        limiting = {name: counts[name] for name in counts if name == largest or reach * errors[name] > margin}

    factor = deciding_factor(estimate, against, margin)
    if factor > MOST_FACTOR:
        return f"more than {MOST_FACTOR:,} times the {' and '.join(limiting)}"

    sizes = []
    for name, count in limiting.items():
        step = 10 ** max(0, len(str(int(factor * count))) - 2)  # of numbers with two digits that are not 0
        enough = int(-(-factor * count // step) * step)
        sizes.append(f"{enough:,} {name} instead of {count:,}")

    return " and ".join(sizes)


def note(estimate: Estimate, outcome: str, against: float, margin: float | None) -> str:
    """Return what must be said beside a verdict; empty where it says it all."""
    if outcome == TOO_FEW_DRAWS:
        return f"{estimate.draws} of at least {LEAST_DRAWS} calibration draws"
    if outcome != UNDECIDED:
        return ""
    if estimate.low > against or estimate.high < against:
        return f"the interval leaves {against:g} out, p after correction does not"

    effect = smallest_effect(estimate)
    seen = f"half-width {number(estimate.half_width)}; could have seen {number(effect)}"
    if margin is None:
        return f"{seen}; no margin was stored with the finding"

    return f"{seen}; would decide: {deciding_run(estimate, against, margin)}"

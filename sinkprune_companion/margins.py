"""The smallest difference that matters, fixed before a run: a number with a reason, or a rule on data.

On LLaDA-8B at 50 % Wanda costs 5.23 points of accuracy and sink-awareness gives 0.48 of them back. Half of
that share of the damage is what matters here, whatever the damage is measured in.
"""

from collections.abc import Collection, Mapping
from functools import cache

import numpy as np
import yaml

from sinkprune.evaluation.intervals import Estimate, within_share
from sinkprune_companion import DATA

IN_THE_BAR = "in the bar"  # of a row whose number has been held against its margin already
# what the ledger may name instead of a number
RULES = ("share of damage", "tenth of the AR model's value", IN_THE_BAR)


@cache
def published_numbers() -> dict:
    """Return what `data/published.yml` holds: numbers that others printed."""
    return yaml.safe_load((DATA / "published.yml").read_text(encoding="utf-8"))


@cache
def share_that_matters() -> float:
    """Return the smallest share of a baseline's damage that matters: half of what the paper gives back."""
    (table,) = [table for table in published_numbers()["tables"] if table["id"] == "llada-50"]
    place = table["tasks"].index("average")
    average = {row["method"]: row["values"][place] for row in table["rows"]}
    wanda = average["Wanda"]
    return (average["sink-aware Wanda"] - wanda) / (average["dense"] - wanda) / 2


def damage_margin(cost: Estimate) -> float | None:
    """Return the margin where a baseline costs the dense model so much; None if that is not told from 0."""
    return share_that_matters() * cost.value if cost.low > 0 else None


def beside_damage(values_RN: np.ndarray, cost_RN: np.ndarray) -> Estimate:
    """Return a difference of two recipes with the margin that what the second one costs gives, (R, N) each.

    The margin carries the error of that cost (`within_share`).
    """
    return within_share(values_RN, cost_RN, share_that_matters())


def damage(difference: Estimate) -> float | None:
    """Return what the second of two recipes costs, of which the margin is a share; None without a margin."""
    return None if difference.margin is None else difference.margin / share_that_matters()


def check_found(needed: Collection[str], estimates: Mapping[str, Estimate], what: str) -> None:
    """Raise KeyError, which names them, where findings are missing that `what` needs."""
    missing = sorted(set(needed) - estimates.keys())
    if missing:
        raise KeyError(f"{what} needs findings that are not published: {', '.join(missing)}")


def known_damage(finding: str, estimates: Mapping[str, Estimate]) -> float:
    """Return the `damage` of a finding; raise ValueError, which names it, where it has no margin."""
    cost = damage(estimates[finding])
    if cost is None:
        raise ValueError(
            f"{finding} has no margin, so it does not say what its second recipe costs: measure it on more "
            "text or on more calibration draws"
        )
    return cost

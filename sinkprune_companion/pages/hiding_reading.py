"""What the findings of notebook 02 say, in sentences: what hiding sinks costs, and where."""

from collections.abc import Mapping

from sinkprune_companion.pages import remembered
from sinkprune_companion.pages.phrases import (
    above_and_below,
    amount,
    effect,
    joined,
    judged,
    known,
    non_empty,
)
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.sinks.hiding import THIRDS

Found = Mapping[str, Estimate | None]  # by name, without the notebook
SAME_SHARE = "_same_share"  # ends names of what was hidden in as large a share of a longer text


def hiding_sinks(found: Found) -> list[str]:
    """Return the reading of notebook 02."""
    behind = judged(
        found,
        "top_minus_random_dlm_first_token",
        "Behind a special first token hiding them costs {amount} beyond random keys: {says}.",
        "its sinks matter then",
        "its sinks matter less then",
        "its sinks are not told apart then",
    )
    if behind and known(found, "first_token_loss_dlm"):
        behind += f" {effect(found['first_token_loss_dlm'], 'That token, put before the same text,')}."
    return non_empty(
        judged(
            found,
            "top_minus_random_dlm",
            "{first} is what hiding the DLM's five strongest keys costs beyond five random ones: {says}.",
            "its sinks are worth more to it than other tokens",
            "its sinks are worth less to it than other tokens",
            "this run does not tell its sinks from other tokens",
        ),
        judged(
            found,
            "excess_difference",
            "Hiding the five strongest keys {says}: DLM − AR {amount}.",
            "costs the DLM more than the AR model",
            "costs the DLM less than the AR model",
            "costs both about the same, as far as this run can tell",
        ),
        behind,
        _by_condition(found),
        remembered.longer_texts(_by_notebook(found)),
        judged(
            found,
            "top_minus_random_ar",
            "{says}: {amount} beyond random keys.",
            "The AR model does need its sinks",
            "The AR model does better without its sinks than without other tokens",
            "It is not clear that the AR model needs its sinks",
        ),
        _by_third(found),
        judged(
            found,
            "written_difference",
            "Hiding sinks while writing {says}: {amount}, read by the AR model.",
            "harms the DLM's text more than the AR model's",
            "harms the DLM's text less than the AR model's",
            "harms both texts about alike, as far as this run can tell",
        ),
    )


def _by_condition(found: Found) -> str:
    """Return in how many conditions the DLM's strongest keys cost more than random ones."""
    start = "top_minus_random_dlm"
    measured = [
        found[name]
        for name in found
        if name.startswith(start) and not name.endswith(("_layers", SAME_SHARE)) and known(found, name)
    ]
    if len(measured) < 2:
        return ""
    more, less = above_and_below(measured)
    return (
        f"In {more} of {len(measured)} conditions they cost the DLM clearly more than random keys, clearly "
        f"less in {less}."
    )


def _by_third(found: Found) -> str:
    """Return what hiding sinks costs each model in one third of the layers alone, and how they compare."""
    names = {third: f"excess_difference_{third}_layers" for third in THIRDS}
    costs = [f"{amount(found[name])} ({third})" for third, name in names.items() if known(found, name)]
    difference = f" DLM − AR, random keys left aside: {joined(costs)}." if costs else ""
    return remembered.third_sentence(_by_notebook(found)) + difference


def _by_notebook(found: Found) -> dict[str, Estimate | None]:
    """Return findings under the names by which README knows them."""
    return {f"02_hiding_sinks/{name}": estimate for name, estimate in found.items()}

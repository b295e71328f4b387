"""What notebooks 03 and 08 compare: a finding, its two variants, and what figures and tables call it.

`wanda-unmatched` is Wanda on fewer tokens.
"""

from typing import NamedTuple


class Compared(NamedTuple):
    """Two variants that are compared."""

    variant: str
    other: str  # whose damage sets the margin
    label: str  # what figures and tables call it
    group: str  # why


# groups of comparisons, by the reason why
OFFICIAL = "the official recipe"
OURS = "ours, for whole units"
LEFT_OUT = "masked text, unpruned inputs, sinks left out"
FEWER_TOKENS = "fewer tokens for Wanda"
BASELINES = "baselines, on as many tokens"
ONE_SWITCH = "one switch at a time"
CONTROLS = "controls"
COST = "what pruning costs"
TWIN = "the AR twin"

COMPARISONS = {
    "paper_minus_wanda": Compared("paper", "wanda", "official recipe − Wanda", OFFICIAL),
    "paper_sinks_kept_minus_wanda": Compared(
        "paper-sinks-kept", "wanda", "official recipe, sinks kept − Wanda", OFFICIAL
    ),
    "paper_sparsegpt_minus_sparsegpt": Compared(
        "paper-sparsegpt", "sparsegpt", "SparseGPT, official sink weights − none", OFFICIAL
    ),
    "structured_sink_minus_structured": Compared(
        "structured-sink", "structured", "whole units, sink-aware − plain", OURS
    ),
    "all_sinks_minus_wanda": Compared("all-sinks", "wanda", "all sinks left out − Wanda", LEFT_OUT),
    "unstable_minus_wanda": Compared("unstable", "wanda", "unstable sinks left out − Wanda", LEFT_OUT),
    "paper_minus_wanda_unmatched": Compared(
        "paper", "wanda-unmatched", "official recipe − Wanda on fewer tokens", FEWER_TOKENS
    ),
    "wanda_minus_wanda_unmatched": Compared(
        "wanda", "wanda-unmatched", "Wanda − Wanda on fewer tokens", FEWER_TOKENS
    ),
    "sparsegpt_minus_wanda": Compared(
        "sparsegpt", "wanda-unmatched", "SparseGPT − Wanda on as many tokens", BASELINES
    ),
    "flap_minus_structured": Compared("flap", "structured", "whole units, FLAP − plain", BASELINES),
    "dwanda_minus_wanda": Compared("dwanda", "wanda", "masked text − text without masks", ONE_SWITCH),
    "dense_minus_sequential": Compared(
        "noised-dense", "dwanda", "unpruned model's inputs − pruned model's", ONE_SWITCH
    ),
    "paper_minus_paper_sinks_kept": Compared(
        "paper", "paper-sinks-kept", "official sink weights − none", ONE_SWITCH
    ),
    "all_sinks_minus_none": Compared("all-sinks", "noised-dense", "all sinks left out − kept", ONE_SWITCH),
    "unstable_minus_none": Compared("unstable", "noised-dense", "unstable sinks left out − kept", ONE_SWITCH),
    "stable_minus_none": Compared("stable", "noised-dense", "stable sinks left out − kept", ONE_SWITCH),
    "unstable_minus_sparsegpt": Compared(
        "sparsegpt-unstable", "sparsegpt", "SparseGPT, unstable sinks left out − kept", ONE_SWITCH
    ),
    "structured_sink_minus_sinks_kept": Compared(
        "structured-sink", "structured-sinks-kept", "whole units, official sink weights − none", ONE_SWITCH
    ),
    "only_sinks_minus_none": Compared("only-sinks", "noised-dense", "sinks alone − all tokens", CONTROLS),
    "all_sinks_minus_random": Compared("all-sinks", "random", "all sinks left out − random tokens", CONTROLS),
    "random_minus_none": Compared("random", "noised-dense", "random tokens left out − kept", CONTROLS),
}
# two-choice items: these besides all of the above
ACCURACY = COMPARISONS | {
    "noised_dense_minus_wanda": Compared(
        "noised-dense", "wanda", "masked text, unpruned inputs − Wanda", ONE_SWITCH
    ),
    "wanda_minus_dense": Compared("wanda", "dense", "Wanda − unpruned model", COST),
    "sparsegpt_minus_dense": Compared("sparsegpt", "dense", "SparseGPT − unpruned model", COST),
}
TWIN_COMPARISONS = {
    "ar_all_minus_none": Compared("wanda, all", "wanda, none", "all sinks left out − kept", TWIN),
    "ar_random_minus_none": Compared("wanda, random", "wanda, none", "random tokens left out − kept", TWIN),
}

# of which the margins between two answers are compared, too
ANSWER_MARGINS = {
    name: COMPARISONS[name]
    for name in ("paper_minus_wanda", "paper_sparsegpt_minus_sparsegpt", "unstable_minus_none")
}

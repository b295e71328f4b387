"""A diffusion model trained from scratch on more text: can it tell whether leaving sinks out matters?

Its weights are kept in `figures/trainings`, with what a bigram model of its training text makes of the
articles that are scored. Three things were written down before it was trained (`data/claims.yml`): its loss
is below the bigram model's, pruning costs it something, and one pass over it expects an effect of leaving
sinks out.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sinkprune.evaluation.intervals import Estimate, crossed_interval
from sinkprune_companion.experiments import paper_protocol, why
from sinkprune_companion.experiments.paired_differences import above_dense, pivot
from sinkprune_companion.run.records import Run
from sinkprune_core import LanguageModel

# beside the weights: nats per token of every scored sequence, which tools/ngrams_of_training.py writes
NGRAMS = "ngrams.csv"
BASELINE = ("wanda",)  # what is pruned before the three answers are known
ENDING = "trained"  # of findings


def losses(
    run: Run, lm: LanguageModel, draws_at: Mapping[float, int], tokens: int, sequences: int, full: bool
) -> pd.DataFrame:
    """Return the NELBO of the dense model and of pruned ones under the paper's protocol, by draw.

    Wanda is measured at every sparsity of `draws_at` in so many draws, with `full` all recipes are.
    """
    chosen = None if full else BASELINE
    return paper_protocol.protocol_losses(
        run, lm, lm.fingerprint(), draws_at, {}, tokens, sequences, chosen=chosen
    )


def minus_bigram(losses: pd.DataFrame, folder: Path) -> Estimate:
    """Return the dense model's NELBO less the bigram model's loss, in nats per token, by scored sequence.

    Raises ValueError where `folder` has the levels of other sequences.
    """
    dense_RN = pivot(losses[losses.variant == "dense"])
    bigram_N = pd.read_csv(folder / NGRAMS).bigram.to_numpy()
    if len(bigram_N) != dense_RN.shape[1]:
        raise ValueError(
            f"{folder / NGRAMS} has {len(bigram_N)} sequences and {dense_RN.shape[1]} are scored: "
            "score as many, or write it anew"
        )
    return crossed_interval(dense_RN - bigram_N[None])


def diagnosis(run: Run, lm: LanguageModel, sequences: int, seed: int = 0) -> pd.DataFrame:
    """Return what one pass says of leaving sinks out, by sparsity: shares of kept weights in [0, 1]."""
    table = why.diagnosis_table(run, lm, lm.fingerprint(), sequences, paper_protocol.LENGTH, seed)
    return pd.DataFrame(
        table.groupby("sparsity")[["predicted", "exact", "other_text", "weights"]].apply(why.weighted_mean)
    )


def findings(losses: pd.DataFrame, folder: Path, diagnosed: pd.DataFrame) -> dict[str, Estimate]:
    """Return the three answers, and every difference of recipes that was measured, as findings."""
    above = above_dense(losses)
    found = {f"minus_bigram_{ENDING}": minus_bigram(losses, folder)}

    for sparsity, row in diagnosed.iterrows():
        for name in ("exact", "other_text"):
            share = float(row[name])
            finding = f"{name}_{ENDING}_{100 * float(str(sparsity)):.0f}"
            found[finding] = Estimate(
                share, share, share, units=1, method="share of all kept weights, one pass"
            )

    for (variant, sparsity), cost in paper_protocol.costs(above).items():
        if variant in BASELINE:
            found[f"{variant}_minus_dense_{ENDING}_{100 * sparsity:.0f}"] = cost

    for name, estimate in paper_protocol.protocol_findings(above).items():
        if name.startswith(tuple(paper_protocol.COMPARISONS)):
            found[_named(name)] = estimate

    return found


def _named(name: str) -> str:
    """Return what a difference under the paper's protocol is called here: it ends in its sparsity."""
    comparison, _, percent = name.partition(f"_{paper_protocol.ENDING}")
    return f"{comparison}_{ENDING}_{percent.removeprefix('_') or '50'}"


def can_tell(found: Mapping[str, Estimate]) -> dict[str, bool]:
    """Return the three answers: whether the model can tell anything, as was written down before."""
    cost = found[f"wanda_minus_dense_{ENDING}_50"]
    expects = []
    for percent in (50, 75):
        shares = {name: found[f"{name}_{ENDING}_{percent}"].value for name in ("exact", "other_text")}
        expects.append(why.expects_an_effect(pd.Series(shares)))

    return {
        "its loss is below a bigram model's": found[f"minus_bigram_{ENDING}"].high < 0,
        "pruning by Wanda at 50 % costs it something": cost.low > 0,
        "one pass expects an effect of leaving sinks out": any(expects),
    }

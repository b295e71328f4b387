"""Why stable sinks matter: what is left out of the statistics, and the weights that this decides."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from sinkprune_companion.experiments import critical_weights
from sinkprune_companion.experiments.scoring import fingerprint_of, score_texts
from sinkprune_companion.experiments.variants import SharedStatistics, Variant
from sinkprune_companion.run.records import Run
from sinkprune_companion.training.settings import SETTINGS, settings_of
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.calibration.token_weights import SinkContext, rows_for
from sinkprune_core.diffusion.noise import random_mask
from sinkprune_core.models import adapters
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.models.devices import choose_dtype
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.loading import load, with_adapter
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.seeds import generator

CRITICAL_REVISION = 1  # of `critical`
RESTORED_REVISION = 1  # of `restored_scores`
ADAPTED = "smol-dlm"  # whose base an adapter is merged into


def diffusion_model(name: str, dtype: str = "auto", device: str = "cpu") -> LanguageModel:
    """Return a diffusion model by its name, from a saved folder, or from a folder with an exported adapter.

    Raises ValueError for a model of another kind and what `load` refuses.
    """
    folder = Path(name)
    kind = settings_of(folder / SETTINGS)["kind"] if (folder / SETTINGS).exists() else "diffusion"
    if (folder / adapters.CONFIG).exists() and kind == "diffusion":
        lm = with_adapter(MODELS[ADAPTED], folder, choose_dtype(dtype, device))
        lm.model.requires_grad_(False).to(device)
        return replace(lm, name=folder.name)
    lm = load(name, dtype, device)
    if not lm.is_diffusion:
        raise ValueError(f"{name!r} is {lm.kind}: stable and unstable sinks are those of a diffusion model")
    return lm


def random_stable(context: SinkContext) -> torch.Tensor:
    """Return as many visible tokens in every step as there are stable sinks, drawn at random, (N, S, T)."""
    stable_NST, _ = context.split_sinks()
    drawn = []
    for sequence, stable_ST in enumerate(stable_NST, start=context.first_sequence):
        for step, stable_T in enumerate(stable_ST):
            rng = generator(context.seed, "as many random tokens as stable sinks", sequence, step)
            drawn.append(random_mask(context.visible_ST[step], int(stable_T.sum()), rng))
    return torch.stack(drawn).view_as(stable_NST)


# what leaves the statistics, by its name in tables
LEFT_OUT = {name: name for name in ("none", "unstable", "stable", "all", "random")}
LEFT_OUT["random, as many as stable"] = random_stable


def recipes(sparsity: float, noise_levels: int, **settings: object) -> dict[str, Recipe]:
    """Return Wanda on noised text with dense propagation for every choice of LEFT_OUT."""
    common = {"inputs": "noised", "propagation": "dense", "noise_levels": noise_levels, **settings}
    return {name: Recipe(sparsity=sparsity, exclude=choice, **common) for name, choice in LEFT_OUT.items()}


def critical(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    kept_by: Recipe,
    without: Recipe,
    text: Calibration,
    shared: SharedStatistics,
    sequences: int,
    count: int,
    **labels: object,
) -> pd.DataFrame:
    """Return the record of the `count` first weights that `kept_by` keeps and `without` does not.

    Columns are those of `critical_weights.lost_weights`. They come by |w| x the largest input at a token that
    `without` leaves out, among the first `sequences` of the text. The model must be dense.
    """

    def compute() -> pd.DataFrame:
        few = replace(text, ids_NT=text.ids_NT[:sequences])
        rows = rows_for(lm, few, without.statistics_key, progress=False)
        largest = critical_weights.largest_inputs(lm, rows)
        statistics = (shared.of(kept_by), shared.of(without))
        return critical_weights.lost_weights(lm, without, *statistics, largest, count)

    key = {"model": lm.name, "fingerprint": fingerprint, "kept_by": kept_by, "without": without}
    key |= {"calibration": text.fingerprint, "sequences": sequences, "count": count}
    return run.record("critical", compute, CRITICAL_REVISION, labels, **key)


def restored_scores(
    run: Run,
    variant: Variant,
    lost: pd.DataFrame,
    counts: Sequence[int],
    texts: dict[str, torch.Tensor],
    draws: int,
    noise: int,
    **labels: object,
) -> pd.DataFrame:
    """Return the records of a variant's nats per token with the first of its `lost` weights put back.

    A record per number of `counts`, which is its column `restored`; `lost` is a record of `critical`. Other
    columns are those of `score_texts` and `labels`.
    """
    places = lost[["rank", "layer", "linear", "output", "input", "replaced_by"]].to_csv(index=False)
    key = {**variant.key, "weights": hashlib.sha256(places.encode()).hexdigest()[:16]}
    scored_on = {"data": fingerprint_of(texts), "draws": draws, "evaluation_seed": noise}
    frames = []
    for restored in counts:

        def compute(first: pd.DataFrame = lost[lost["rank"] <= restored]) -> pd.DataFrame:
            variant.ready()
            with critical_weights.restored(variant.lm, first):
                return score_texts(variant.lm, texts, draws, seed=noise)

        key_of_count = {**key, "restored": restored, **scored_on}
        frames.append(run.record("restored", compute, RESTORED_REVISION, labels, **key_of_count))
    return pd.concat(frames, ignore_index=True)

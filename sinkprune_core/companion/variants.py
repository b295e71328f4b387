"""Prune, measure, undo: what the notebooks repeat for every recipe, calibration draw and number of steps.

Dimensions: N sequences, T tokens per sequence, O output features, I input features.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune_core import corpus
from sinkprune_core.companion.records import Run, source_fingerprint
from sinkprune_core.diffusion.sampling import Sampler, decode, generate
from sinkprune_core.evaluation import suite
from sinkprune_core.evaluation.likelihood import exact_log_likelihood, nelbo, nll
from sinkprune_core.memory import release_freed_memory
from sinkprune_core.models.language_model import LanguageModel, weight_OI
from sinkprune_core.pruning.calibration import Calibration, StatisticsKey
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.engine import DenseStatistics, Recipe, dense_statistics, prune, weights_kept
from sinkprune_core.pruning.structured import shrink
from sinkprune_core.sinks.hiding import Hiding, HidingModel, hiding_model

LETTERS = 10  # no vocabulary puts more letters of English into a token on average
EVALUATION_SEED = 0  # the same noise for every variant of a model: differences are paired


def calibration_draw(lm: LanguageModel, sequences: int, length: int, seed: int) -> Calibration:
    """Return calibration text from the training split: half samples of smol-ar, half documentation, drawn by `seed`."""
    ids_NT = torch.cat(
        list(corpus.texts(lm.tokenizer, sequences, length, held_out=False, seed=seed).values())
    )
    return Calibration(ids_NT, seed)


class SharedStatistics:
    """The statistics of all recipes with dense propagation on one calibration draw, taken once, when first asked for."""

    def __init__(self, lm: LanguageModel, recipes: Iterable[Recipe], calibration: Calibration):
        self.lm, self.calibration = lm, calibration
        self.recipes = [recipe for recipe in recipes if self.shared(recipe)]
        self._found: dict[StatisticsKey, DenseStatistics] | None = None

    @staticmethod
    def shared(recipe: Recipe) -> bool:
        """Return whether a recipe's statistics are norms of the dense model's inputs, which others can share."""
        return recipe.propagation == "dense" and CRITERIA[recipe.criterion].needs in ("norms", "moments")

    def of(self, recipe: Recipe) -> DenseStatistics | None:
        """Return the statistics of one recipe, None where they are its own or it was not announced. The model must be dense at this moment."""
        if not self.shared(recipe) or recipe.statistics_key not in {
            each.statistics_key for each in self.recipes
        }:
            return None
        if self._found is None:
            self._found = dense_statistics(self.lm, self.recipes, self.calibration)
        return self._found[recipe.statistics_key]


def _statistics(
    lm: LanguageModel, recipe: Recipe | None, calibration: Calibration | None, shared: SharedStatistics | None
) -> DenseStatistics | None:
    """Return the dense statistics of a recipe that has such: to be asked for before the weights are copied, as taking them needs more memory than the copy."""
    found = recipe and (shared or SharedStatistics(lm, [recipe], calibration)).of(recipe)
    release_freed_memory()  # or the copy would come on top of what taking them needed
    return found


def score_texts(
    lm: LanguageModel,
    texts: dict[str, torch.Tensor],
    draws: int,
    steps: Sequence[int | None] = (None,),
    batch: int = 32,
) -> pd.DataFrame:
    """Return nats per token of every sequence: columns `sequence` (numbered through), `text` (its source), `steps`, `value`.

    A diffusion model's value is its NELBO, or the bound for generation in so many `steps`; an autoregressive model's is
    exact and knows no steps. `steps` is 0 where it is None.
    """
    ids_NT = torch.cat(list(texts.values()))
    source = [name for name, ids in texts.items() for _ in range(len(ids))]
    parts = []
    for count in steps if lm.is_diffusion else (None,):
        if lm.is_diffusion:
            frame = (
                nelbo(lm, ids_NT, draws, EVALUATION_SEED, batch, steps=count, progress=True)
                .groupby("sequence", as_index=False)
                .value.mean()
            )
        else:
            frame = nll(lm, ids_NT, batch, progress=True)
        parts.append(frame.assign(text=source, steps=count or 0))
    return pd.concat(parts, ignore_index=True)


def variant_scores(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    recipe: Recipe | None,
    calibration: Calibration | None,
    texts: dict[str, torch.Tensor],
    draws: int,
    steps: Sequence[int | None] = (None,),
    shared: SharedStatistics | None = None,
    **labels: object,
) -> pd.DataFrame:
    """Return the record of one variant of `lm`, pruned by `recipe` or dense (None); its weights come back afterwards.

    Columns are those of `score_texts` and `labels`, and what pruning reported: `zeros`, their share in the block linears,
    `calibration_tokens`, `left_out_share`, `prune_seconds`. `fingerprint` is that of the dense model; `shared` holds statistics of `calibration` for several recipes.
    """
    data = _digest(texts)
    drawn = calibration and calibration.fingerprint

    def compute() -> pd.DataFrame:
        statistics = _statistics(lm, recipe, calibration, shared)
        with weights_kept(lm) if recipe else nullcontext():
            report = prune(lm, recipe, calibration, statistics=statistics) if recipe else None
            scores = score_texts(lm, texts, draws, steps)
        cost = (
            {
                "calibration_tokens": report.calibration_tokens,
                "left_out_share": report.left_out_share,
                "prune_seconds": report.seconds,
            }
            if report
            else {"calibration_tokens": 0, "left_out_share": 0.0, "prune_seconds": 0.0}
        )
        return scores.assign(zeros=report.sparsity if report else 0.0, **cost)

    return run.record(
        "scores",
        compute,
        **labels,
        model=lm.name,
        fingerprint=fingerprint,
        recipe=recipe,
        calibration=drawn,
        data=data,
        draws=draws,
        steps_measured=list(steps),
        evaluation_seed=EVALUATION_SEED,
    )


UNTOUCHED = Hiding(count=0)


def hiding_scores(
    run: Run,
    lm: LanguageModel,
    fingerprint: str,
    hidings: Sequence[Hiding],
    texts: dict[str, torch.Tensor],
    draws: int,
) -> pd.DataFrame:
    """Return the records of one model that scores text without the keys of each of `hidings`, and untouched.

    Columns are those of `score_texts`; `excess`, the value less that of the untouched model on the same sequence and
    noise; `label`, `keys` and `count` of the hiding (0: untouched); and the means of a `HidingModel`'s log.
    """
    data, seen = _digest(texts), {}

    def one(hiding: Hiding) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            blind = hiding_model(lm, hiding, seen=seen)
            return _described(score_texts(blind, texts, draws), blind)

        return run.record(
            "hiding",
            compute,
            model=lm.name,
            kind=lm.kind,
            fingerprint=fingerprint,
            hiding=hiding,
            data=data,
            draws=draws,
            evaluation_seed=EVALUATION_SEED,
        )

    frame = pd.concat(
        [one(hiding) for hiding in tqdm([UNTOUCHED, *hidings], desc=f"{lm.name} scores")], ignore_index=True
    )
    return frame.assign(
        excess=frame.value - frame.sequence.map(frame[frame["count"] == 0].set_index("sequence").value)
    )


def hiding_texts(
    run: Run,
    lm: LanguageModel,
    judge: LanguageModel,
    fingerprints: dict[str, str],
    hidings: Sequence[Hiding],
    prompt_NT: torch.Tensor,
    sampler: Sampler,
    seed: int,
    batch: int = 16,
) -> pd.DataFrame:
    """Return the records of one model that continues every prompt without the keys of each of `hidings`, and untouched.

    Columns: `sequence`; `value`, nats per token of the continuation under `judge`, an untouched autoregressive model;
    `excess`, the same less that of what the untouched model wrote with the same random numbers, and `changed`, the share
    of tokens that differ from it; `distinct`, the share of distinct pairs of neighbours, low where text repeats itself;
    `tokens`, the ids; and what `hiding_scores` says of a hiding.
    """

    def one(hiding: Hiding) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            blind, parts = hiding_model(lm, hiding), []
            for start in range(0, len(prompt_NT), batch):
                part_BT = prompt_NT[start : start + batch]
                parts.append(
                    generate(blind, part_BT, sampler, seed, first=start)
                    if lm.is_diffusion
                    else decode(blind, part_BT, sampler.length, sampler.temperature, seed, first=start)
                )
            written_NL = torch.cat(parts)[:, prompt_NT.shape[1] :]
            scored = exact_log_likelihood(judge, list(zip(prompt_NT, written_NL, strict=True)), batch)
            rows = written_NL.tolist()
            distinct = [len(set(zip(row, row[1:], strict=False))) / max(1, len(row) - 1) for row in rows]
            return _described(
                pd.DataFrame(
                    {
                        "sequence": scored.sequence,
                        "value": -scored.value / scored.tokens,
                        "distinct": distinct,
                        "tokens": [" ".join(map(str, row)) for row in rows],
                    }
                ),
                blind,
            )

        return run.record(
            "written",
            compute,
            model=lm.name,
            kind=lm.kind,
            fingerprint=fingerprints[lm.name],
            judge=fingerprints[judge.name],
            hiding=hiding,
            prompts=prompt_NT.tolist(),
            sampler=sampler,
            seed=seed,
        )

    frame = pd.concat(
        [one(hiding) for hiding in tqdm([UNTOUCHED, *hidings], desc=f"{lm.name} writes")], ignore_index=True
    )
    plain = frame[frame["count"] == 0].set_index("sequence")
    changed = [
        sum(a != b for a, b in zip(tokens.split(), plain.tokens[sequence].split(), strict=True))
        / sampler.length
        for sequence, tokens in zip(frame.sequence, frame.tokens, strict=True)
    ]
    return frame.assign(excess=frame.value - frame.sequence.map(plain.value), changed=changed)


def _described(frame: pd.DataFrame, blind: HidingModel) -> pd.DataFrame:
    """Return `frame` with what was hidden, means over all rows of all forwards, 0 where nothing was."""
    hidden = (
        pd.DataFrame(blind.log, columns=["attention", "first", "masks", "left", "second"]).mean().fillna(0.0)
    )
    return frame.assign(label=blind.hiding.label, keys=blind.hiding.keys, count=blind.hiding.count, **hidden)


def _digest(texts: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(
        b"".join(name.encode() + ids.numpy().tobytes() for name, ids in texts.items())
    ).hexdigest()[:16]


def suite_answers(run: Run, lm: LanguageModel, fingerprint: str, items: int, draws: int) -> pd.DataFrame:
    """Return the record of one model's answers to about `items` items of the offline suite; columns as in `suite.accuracy`.

    Noise of a diffusion model depends on the item alone, so that models and variants are compared in pairs.
    """
    compute = lambda: suite.accuracy(lm, suite.sample(items), draws, EVALUATION_SEED, progress=True)
    return run.record(
        "suite",
        compute,
        model=lm.name,
        kind=lm.kind,
        fingerprint=fingerprint,
        items=items,
        draws=draws,
        evaluation_seed=EVALUATION_SEED,
    )


# where methods prune differently


def kept_masks(
    lm: LanguageModel, recipe: Recipe, calibration: Calibration | None, shared: SharedStatistics | None = None
) -> dict[tuple[int, str], np.ndarray]:
    """Return which weights are not zero after pruning by `recipe`, packed bits of (O, I) by layer and linear; weights come back."""
    statistics = _statistics(lm, recipe, calibration, shared)
    with weights_kept(lm):
        prune(lm, recipe, calibration, progress=False, statistics=statistics)
        return {
            (layer, name): np.packbits((weight_OI(linear) != 0).cpu().numpy())
            for layer, block in enumerate(lm.blocks)
            for name, linear in lm.linears(block).items()
        }


def mask_differences(
    lm: LanguageModel,
    variants: dict[str, tuple[Recipe, Calibration | None, SharedStatistics | None]],
    pairs: Sequence[tuple[str, str]],
) -> pd.DataFrame:
    """Return the share of kept weights that differ between two masks, for every pair, layer and linear.

    Columns `one`, `other`, `layer`, `linear`, `differ` = 1 - (kept by both) / (mean number kept): 0 for equal masks, 1 for
    masks that keep nothing in common; two random masks of sparsity s have s. `variants` maps names to a recipe, its
    calibration text and the statistics it shares with others. Raises ValueError for a pair that names no variant.
    """
    if unknown := {name for pair in pairs for name in pair} - set(variants):
        raise ValueError(
            f"pairs name {sorted(unknown)}, which are no variants: give them, or pairs of {', '.join(variants)}"
        )
    masks = {
        name: kept_masks(lm, *variants[name])
        for name in dict.fromkeys(name for pair in pairs for name in pair)
    }
    rows = []
    for one, other in pairs:
        for (layer, name), bits in masks[one].items():
            both, *kept = (
                int(np.bitwise_count(each).sum())
                for each in (bits & masks[other][layer, name], bits, masks[other][layer, name])
            )
            rows.append(
                {
                    "one": one,
                    "other": other,
                    "layer": layer,
                    "linear": name,
                    "differ": 1 - 2 * both / sum(kept),
                }
            )
    return pd.DataFrame(rows)


def any_text(
    lm: LanguageModel, sequences: int, length: int, held_out: bool, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return standard-library documentation in a model's own vocabulary, int64 (N, T): text for models that no shipped sample is written for.

    Raises ValueError when there are fewer sequences than asked for.
    """
    texts = [text for text in corpus.documentation("stdlib") if corpus.is_held_out(text) == held_out]
    enough, chosen = LETTERS * sequences * length, []
    for index in torch.randperm(
        len(texts), generator=corpus.generator(seed, "texts", "documentation", held_out)
    ).tolist():
        chosen.append(texts[index])
        if (enough := enough - len(texts[index])) < 0:
            break
    ids_NT = corpus.pack(chosen, lm.tokenizer, length)[:sequences]
    if len(ids_NT) < sequences:
        raise ValueError(
            f"sequences={sequences}: the documentation has {len(ids_NT)} of {length} tokens in this split: ask for fewer or shorter ones"
        )
    return {"documentation": ids_NT}


def saved_variant(
    run: Run, lm: LanguageModel, fingerprint: str, recipe: Recipe, calibration: Calibration | None
) -> Path:
    """Return the folder of `lm` pruned by `recipe`, in `runs/<profile>/models`, pruning and saving it at most once; `lm` stays dense.

    `fingerprint` is that of the dense model. A structured recipe is saved smaller.
    """
    key = f"{fingerprint} {recipe} {calibration and calibration.fingerprint} {source_fingerprint()}"
    folder = (
        run.folder
        / "models"
        / f"{lm.name.replace('/', '--')}-{recipe.sparsity:g}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    )
    if not folder.exists():
        with weights_kept(lm):
            report = prune(lm, recipe, calibration)
            (shrink(lm, report.kept_units) if report.kept_units else lm).save(folder, **report.card())
    return folder

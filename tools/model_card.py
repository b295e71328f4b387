"""Measures a diffusion adapter beside smol-ar, on held-out text and two-choice tasks, and writes its card.

Run it as `python tools/model_card.py`; `--render` writes the card anew from the files beside the adapter.
Everything is paired: both models see the same tokens, and a difference is taken sequence by sequence.
Intervals are 95 % intervals over sequences, for tasks over pairs of items. `dlm` and `ar` are the
diffusion model and smol-ar; what is written about them is in `pages/card.md.j2`.

Dimensions: N sequences, T sequence position.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune import corpus
from sinkprune.evaluation import suite, two_choice
from sinkprune.evaluation.intervals import Estimate, interval
from sinkprune.evaluation.likelihood import nelbo, nll
from sinkprune.evaluation.local_data import embedded_blimp, embedded_wikitext
from sinkprune.evaluation.token_losses import token_losses
from sinkprune.files import write_json
from sinkprune.models.catalog import MODELS
from sinkprune.models.embedded import ADAPTER
from sinkprune.models.loading import load, with_adapter
from sinkprune_companion.run.records import environment
from sinkprune_companion.training.base import EMBEDDED_BASE
from sinkprune_companion.training.crops import HELD_OUT_LENGTH, held_out_sequences
from sinkprune_companion.training.export import MEASURED, adapter_digest, write_card
from sinkprune_companion.training.settings import SETTINGS, settings_of
from sinkprune_core.diffusion.noise import corrupt, random_mask
from sinkprune_core.diffusion.samplers import LLADA_SAMPLER
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.seeds import generator

BATCH = 16  # sequences at once
SHARES = (0.15, 0.5, 0.85)  # of the tokens that are masked, for the accuracy of filling
TITLES = {"samples": "samples of the AR model"}  # of the texts on the card, where it says more
STEPS = (16, 32, 64)  # denoising steps of the samples
SAMPLE_TOKENS = 64
PROMPTS = (" The best way to learn a new language is", " Returns the number of")


def merged(folder: Path, dtype: torch.dtype = torch.bfloat16) -> LanguageModel:
    """Return the embedded base with the diffusion adapter of `folder` merged into it.

    Raises FileNotFoundError where the folder is no exported adapter, and ValueError for one of another kind.
    """
    if not (folder / SETTINGS).is_file():
        raise FileNotFoundError(
            f"{folder} has no {SETTINGS}: give a folder that `sinkprune train --export` wrote"
        )

    settings = settings_of(folder / SETTINGS)
    origin = "scratch" if settings["from_scratch"] else settings["base"]

    if (origin, settings["kind"]) != (EMBEDDED_BASE, "diffusion"):
        raise ValueError(
            f"the model in {folder} is {settings['kind']}, made from {origin}: a card's measures compare a "
            f"diffusion adapter of {EMBEDDED_BASE} with that; for others use `sinkprune evaluate`"
        )

    lm = with_adapter(MODELS["smol-dlm"], folder, dtype)
    lm.model.requires_grad_(False)
    return lm


def write_measures(
    folder: Path, sequences: int = 64, draws: int = 4, items: int = 504, seed: int = 0
) -> Path:
    """Measure the adapter in `folder` beside smol-ar, write `measures.json` and the card; return the card.

    There are `sequences` of WikiText-2 and as many of the two held-out sources together, and about `items` of
    the offline suite and of BLiMP. Noise and items depend on `seed`. Raises what `merged` raises.
    """
    dlm = merged(folder)
    ar = load(EMBEDDED_BASE, dlm.model.dtype)

    length = min(HELD_OUT_LENGTH, max(settings_of(folder / SETTINGS)["lengths"]))
    texts = held_out_texts(dlm.tokenizer, sequences, length, seed)
    per_paradigm = max(2, items // len(embedded_blimp()))
    blimp = {paradigm: pairs[:per_paradigm] for paradigm, pairs in embedded_blimp().items()}

    tasks = {
        "offline suite": suite.sample(items),
        "BLiMP": suite.minimal_pairs(dlm.tokenizer, blimp),
    }

    made_with = environment()
    measures = {
        "adapter": adapter_digest(folder),
        "settings": {
            "sequences": sequences,
            "draws": draws,
            "items": items,
            "length": length,
            "seed": seed,
            "dtype": str(dlm.model.dtype).removeprefix("torch."),
        },
        "environment": {name: made_with[name] for name in ("versions", "platform")},
        "likelihood": {text: likelihood(dlm, ar, ids_NT, draws, seed) for text, ids_NT in texts.items()},
        "filling": {text: filling(dlm, ar, ids_NT, seed) for text, ids_NT in texts.items()},
        "tasks": {name: answers(dlm, ar, asked, draws, seed) for name, asked in tasks.items()},
        "samples": samples(dlm, seed),
    }

    write_json(folder / MEASURED, measures)
    return write_card(folder)


def held_out_texts(tokenizer, sequences: int, length: int, seed: int) -> dict[str, torch.Tensor]:
    """Return held-out crops, int64 (N, T), by the name of their text; natural English is evenly spread."""
    drawn = corpus.texts(tokenizer, sequences, length, held_out=True, seed=seed)
    texts = {TITLES.get(source, source): ids_NT for source, ids_NT in drawn.items()}
    natural_T = corpus.stream(embedded_wikitext(), tokenizer)
    natural = held_out_sequences(natural_T, corpus.separator(tokenizer), length)
    return texts | {"WikiText-2 validation, as written": natural["crops"][:sequences]}


def likelihood(dlm: LanguageModel, ar: LanguageModel, ids_NT: torch.Tensor, draws: int, seed: int) -> dict:
    """Return nats per token, a NELBO for `dlm` and exact for `ar`, and their `difference`."""
    scores = nelbo(dlm, ids_NT, draws, seed, BATCH, progress=True)
    bound_N = scores.groupby("sequence").value.mean().to_numpy()
    exact_N = nll(ar, ids_NT, BATCH, progress=True).value.to_numpy()
    values = {"ar": exact_N, "dlm": bound_N, "difference": bound_N - exact_N}
    return {name: _row(interval(value_N)) for name, value_N in values.items()}


def filling(dlm: LanguageModel, ar: LanguageModel, ids_NT: torch.Tensor, seed: int) -> list[dict]:
    """Return, by the share of tokens that are `masked`, which share both fill right, and nats per token."""
    levels = []
    for share, of_share in filled(dlm, ar, ids_NT, seed).groupby("share"):
        level = {"masked": share}
        for name, lm in (("dlm", dlm), ("ar", ar)):
            part = of_share[of_share.model == lm.name]
            level[name] = {"correct": _row(interval(part.correct)), "nats": _row(interval(part.value))}
        levels.append(level)
    return levels


@torch.inference_mode()
def filled(
    dlm: LanguageModel,
    ar: LanguageModel,
    ids_NT: torch.Tensor,
    seed: int,
    shares: Sequence[float] = SHARES,
    batch: int = 4,
) -> pd.DataFrame:
    """Let `dlm` fill masks, and `ar` predict the same tokens from those before them.

    One row per sequence, share and model. Columns: `sequence`, `share` (of the maskable tokens that are
    masked), `masks`, `model`, `kind`, `correct` (share of the masked tokens that are the most probable one)
    and `value` (mean cross entropy at them, nats per token). Position 0 is context. Masks depend on (seed,
    sequence) alone and grow with the share, so that shares are compared on common random numbers.
    """
    count, length = ids_NT.shape
    maskable_T = torch.arange(length) > 0
    parts = []

    for share in shares:
        masks = max(1, round(share * (length - 1)))
        rngs = [generator(seed, "filling", sequence) for sequence in range(count)]
        where_NT = torch.stack([random_mask(maskable_T, masks, rng) for rng in rngs])

        for lm in (ar, dlm):
            input_NT = corrupt(ids_NT, where_NT, lm.mask_token_id) if lm.is_diffusion else ids_NT
            losses, hits = [], []
            starts = range(0, count, batch)

            for start in tqdm(starts, desc=f"fill {lm.name}", leave=False):
                rows = slice(start, start + batch)
                targets = ids_NT[rows][where_NT[rows]]
                loss, hit = token_losses(lm, input_NT[rows], where_NT[rows], targets)
                losses.append(loss.view(-1, masks))
                hits.append(hit.view(-1, masks))

            columns = {"sequence": range(count), "share": share, "masks": masks, "model": lm.name}
            columns |= {"kind": lm.kind, "correct": torch.cat(hits).double().mean(1)}
            parts.append(pd.DataFrame({**columns, "value": torch.cat(losses).mean(1)}))

    return pd.concat(parts, ignore_index=True)


def answers(
    dlm: LanguageModel, ar: LanguageModel, items: list[dict], draws: int, seed: int
) -> dict[str, dict]:
    """Return the shares of right `answers` by group, and of right `pairs` where all items come in twos."""
    groups: dict[str, dict] = {}
    for name, lm in (("dlm", dlm), ("ar", ar)):
        frame = two_choice.accuracy(lm, items, draws, seed, progress=True)
        tables = {"answers": frame}
        if (frame.groupby(["group", "pair"]).size() == 2).all():
            tables["pairs"] = matched(frame)
        for measure, table in tables.items():
            for group, estimate in by_group(table).items():
                groups.setdefault(group, {}).setdefault(measure, {})[name] = _row(estimate)
    return groups


def matched(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair: does the context decide? Columns as in `two_choice.accuracy`.

    `margin` sums those of the two items, in which each ending is right once: whatever an ending is worth by
    itself cancels, and `correct` says that right and wrong are told apart by their contexts. Chance is one
    half, as for items.
    """
    pairs = frame.groupby(["group", "pair"], sort=False, as_index=False)
    table = pairs.agg({"template": "first", "margin": "sum", "margin_mean": "sum"})
    return table.assign(correct=table.margin > 0, correct_mean=table.margin_mean > 0)


def by_group(frame: pd.DataFrame) -> dict[str, Estimate]:
    """Return the share of right answers of every group and of `all`, with 95 % t intervals over pairs.

    Takes the table of `two_choice.accuracy` or of `matched`.
    """
    by_pair = frame.correct.astype(float).groupby([frame.group, frame.pair], sort=False).mean()
    groups = by_pair.groupby(level=0, sort=False)
    return {**{group: interval(of_group) for group, of_group in groups}, "all": interval(by_pair)}


def samples(dlm: LanguageModel, seed: int) -> list[dict]:
    """Return what `dlm` writes after PROMPTS: `prompt`, `steps` (denoising), `text`. Temperature 1."""
    start = torch.tensor([corpus.separator(dlm.tokenizer)])
    texts = []
    for prompt in PROMPTS:
        prompt_BT = torch.cat([start, dlm.encode(prompt)])[None]
        for count in STEPS:
            sampler = replace(LLADA_SAMPLER, length=SAMPLE_TOKENS, steps=count, temperature=1.0)
            [ids_T] = generate(dlm, prompt_BT, sampler, seed)
            text = dlm.tokenizer.decode(ids_T[prompt_BT.shape[1] :])
            texts.append({"prompt": prompt, "steps": count, "text": text})
    return texts


def _row(estimate: Estimate) -> dict:
    return {name: getattr(estimate, name) for name in ("value", "low", "high", "units")}


def main() -> None:
    """Measure an adapter, or only render its card, and print where the card is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])

    parser.add_argument("--folder", type=Path, default=ADAPTER, help="an exported adapter")
    parser.add_argument("--sequences", type=int, default=64, help="of WikiText-2, and of the other sources")
    parser.add_argument("--draws", type=int, default=4, help="noise draws per sequence and two-choice item")
    parser.add_argument("--items", type=int, default=504, help="of the offline suite, and of BLiMP")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--render", action="store_true", help="measure nothing")

    given = parser.parse_args()
    if given.render:
        print(write_card(given.folder))
    else:
        print(write_measures(given.folder, given.sequences, given.draws, given.items, given.seed))


if __name__ == "__main__":
    main()

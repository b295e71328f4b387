"""Measures a diffusion adapter beside smol-ar, on held-out text and two-choice tasks, and writes its card.

Run it as `python tools/model_card.py`; `--render` writes the card anew from the files beside the adapter.
Everything is paired: both models see the same tokens, and a difference is taken sequence by sequence.
Intervals are 95 % intervals over sequences, for tasks over pairs of items. `dlm` and `ar` are the
diffusion model and smol-ar; what is written about them is in `pages/card.md.j2`.

Dimensions: N sequences, T sequence position.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from sinkprune_companion import corpus
from sinkprune_companion.harness import quality, suite
from sinkprune_companion.harness.public_data import embedded_blimp, embedded_wikitext
from sinkprune_companion.run.provenance import environment
from sinkprune_companion.training.base import EMBEDDED_BASE
from sinkprune_companion.training.card import MEASURED, adapter_digest, write_card
from sinkprune_companion.training.crops import HELD_OUT_LENGTH, held_out_sequences
from sinkprune_companion.training.settings import SETTINGS, settings_of
from sinkprune_core.diffusion.samplers import LLADA_SAMPLER
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.evaluation import two_choice
from sinkprune_core.evaluation.intervals import Estimate, interval
from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.files import write_json
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.models.embedded import ADAPTER
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.loading import load, with_adapter

BATCH = 16  # sequences at once
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
        "BLiMP": quality.minimal_pairs(dlm.tokenizer, blimp),
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
    filled = quality.filling(dlm, ar, ids_NT, seed=seed, progress=True)
    levels = []
    for share, of_share in filled.groupby("share"):
        level = {"masked": share}
        for name, lm in (("dlm", dlm), ("ar", ar)):
            part = of_share[of_share.model == lm.name]
            level[name] = {"correct": _row(interval(part.correct)), "nats": _row(interval(part.value))}
        levels.append(level)
    return levels


def answers(
    dlm: LanguageModel, ar: LanguageModel, items: list[dict], draws: int, seed: int
) -> dict[str, dict]:
    """Return the shares of right `answers` by group, and of right `pairs` where all items come in twos."""
    groups: dict[str, dict] = {}
    for name, lm in (("dlm", dlm), ("ar", ar)):
        frame = two_choice.accuracy(lm, items, draws, seed, progress=True)
        tables = {"answers": frame}
        if (frame.groupby(["group", "pair"]).size() == 2).all():
            tables["pairs"] = suite.matched(frame)
        for measure, table in tables.items():
            for group, estimate in suite.by_group(table).items():
                groups.setdefault(group, {}).setdefault(measure, {})[name] = _row(estimate)
    return groups


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

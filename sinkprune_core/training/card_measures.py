"""Measuring an adapter for its model card: the embedded pair on held-out text and two-choice tasks, into `measures.json` beside it.

What is measured is in `quality`, what is written about it in `card`.
"""

import hashlib
from pathlib import Path

import torch

from sinkprune_core import corpus
from sinkprune_core.companion import published
from sinkprune_core.companion.records import environment
from sinkprune_core.evaluation import local_data, quality
from sinkprune_core.files import write_json
from sinkprune_core.models.language_model import MODELS, LanguageModel, load, with_adapter
from sinkprune_core.seeds import generator
from sinkprune_core.training.base import EMBEDDED_BASE
from sinkprune_core.training.card import (
    BLIMP,
    GOAL_NATS,
    MEASURED,
    REFITS,
    SOURCES,
    SUITE,
    WIKITEXT,
    adapter_digest,
    log_of,
    write_card,
)
from sinkprune_core.training.learning_curve import extrapolate, tokens_per_hour
from sinkprune_core.training.lora import settings_of

AHEAD = (10e6, 100e6)  # training tokens for which the learning curve is extrapolated, besides a GPU hour's


def merged(folder: Path, dtype: torch.dtype = torch.bfloat16) -> LanguageModel:
    """Return the embedded base with the diffusion adapter of `folder` merged into it.

    Raises FileNotFoundError where the folder is no exported adapter, and ValueError for one of another kind.
    """
    if not (folder / "training.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no training.json: give a folder that `sinkprune train --export` wrote"
        )
    settings = settings_of(folder / "training.json")
    kind, base = settings["kind"], settings["base"]
    if base != EMBEDDED_BASE:
        raise ValueError(
            f"the model in {folder} was made from {base}: a card's measures compare the embedded pair, for another use `sinkprune evaluate`"
        )
    if kind != "diffusion":
        raise ValueError(
            f"the adapter in {folder} is {kind}: a card's measures compare a diffusion model with smol-ar, give a diffusion adapter"
        )
    lm = with_adapter(MODELS["smol-dlm"], folder, dtype)
    lm.model.requires_grad_(False)
    return lm


def write_measures(
    folder: Path,
    sequences: int = 64,
    draws: int = 4,
    items: int = 504,
    seed: int = 0,
    data: Path | None = None,
) -> Path:
    """Measure the adapter in `folder` beside smol-ar, write `measures.json` and the card there, and return the card.

    `sequences` are halved between the two held-out sources. `data` is a folder with WikiText-2 and BLiMP, either or both: as
    many sequences of the one and about as many items of the other are measured besides. Noise and items depend on `seed`.
    Raises what `merged` and `public_data` raise.
    """
    lm = merged(folder)
    length, ar = settings_of(folder / "training.json")["length"], load("smol-ar", lm.model.dtype)
    texts = corpus.texts(lm.tokenizer, sequences, length, held_out=True, seed=seed)
    tasks = {SUITE: quality.offline_suite(items, draws, seed, progress=True)}
    if data is not None:
        more_texts, more_tasks = public_data(data, lm, sequences, length, items, draws, seed)
        texts, tasks = texts | more_texts, tasks | more_tasks
    rows = quality.measure(lm, ar, texts, tasks, draws, seed, progress=True)
    log, tokens = log_of(folder), tokens_per_hour(lm, length)
    gaps = {
        row["on"]: row["value"]
        for row in rows
        if row["measure"] == "likelihood" and row["model"] == "difference"
    }
    write_json(
        folder / MEASURED,
        {
            "adapter": adapter_digest(folder),
            "settings": {
                "sequences": sequences,
                "draws": draws,
                "items": items,
                "length": length,
                "seed": seed,
                "dtype": str(lm.model.dtype).removeprefix("torch."),
            },
            "fingerprints": {each.name: each.fingerprint() for each in (lm, ar)}
            | {
                name: hashlib.sha256(ids_NT.numpy().tobytes()).hexdigest()[:16]
                for name, ids_NT in texts.items()
            },
            "environment": {name: value for name, value in environment().items() if name != "git_commit"}
            | {"quality_source": quality.source()},
            "rows": rows,
            "samples": quality.samples(lm, seed=seed),
            "learning_curve": {
                name: extrapolate(log, f"nelbo_{name}", [*AHEAD, tokens], gaps[name] - GOAL_NATS, REFITS)
                for name in SOURCES
            },
            "gpu_hour": {
                "hardware": published.HARDWARE,
                "flops_per_second": published.SPEED,
                "flops_per_token": published.SPEED * 3600 / tokens,
                "tokens": tokens,
            },
        },
    )
    return write_card(folder)


def public_data(
    folder: Path, lm: LanguageModel, sequences: int, length: int, items: int, draws: int, seed: int
) -> tuple[dict[str, torch.Tensor], dict[str, quality.Task]]:
    """Return text of WikiText-2's validation split, ids (N, T), and the task of BLiMP, from what of the two `folder` holds.

    About `items` items are divided among the paradigms; items and sequences are drawn by `seed`. Raises ValueError for a
    folder with neither, and OSError for one that is none.
    """
    texts, tasks = {}, {}
    if "validation" in local_data.wikitext_files(folder):
        ids_NT = corpus.pack(local_data.wikitext(folder, "validation"), lm.tokenizer, length)
        texts[WIKITEXT] = ids_NT[
            torch.randperm(len(ids_NT), generator=generator(seed, "card", WIKITEXT))[:sequences]
        ]
    if found := local_data.blimp_files(folder):
        per, paradigms = (
            max(2, items // len(found)),
            {name: local_data.pairs(files) for name, files in found.items()},
        )
        drawn = {
            name: [
                rows[index]
                for index in torch.randperm(len(rows), generator=generator(seed, "card", name))[:per].tolist()
            ]
            for name, rows in paradigms.items()
        }
        name = (
            BLIMP
            if len(found) == local_data.PARADIGMS
            else f"{BLIMP}, {len(found)} of {local_data.PARADIGMS} paradigms"
        )
        tasks[name] = quality.minimal_pairs(drawn, draws, seed, progress=True)
    if not texts and not tasks:
        raise ValueError(
            f"{folder} holds neither WikiText-2's validation split nor BLiMP: {local_data.EXPECTED['wikitext']}; {local_data.EXPECTED['blimp']}"
        )
    return texts, tasks

"""Measuring an adapter for its model card: the embedded pair on held-out text and two-choice tasks.

What is measured is in `evaluation.quality`, what is written about it in `card`.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sinkprune_companion.harness import data_files, local_data, quality
from sinkprune_companion.harness.public_data import embedded_wikitext
from sinkprune_companion.training.base import EMBEDDED_BASE
from sinkprune_companion.training.card import MEASURED, REFITS, adapter_digest, log_of, write_card
from sinkprune_companion.training.card_tables import BLIMP, GOAL_NATS, SOURCES, SUITE, WIKITEXT
from sinkprune_companion.training.crops import HELD_OUT_LENGTH, held_out_sequences
from sinkprune_companion.training.first_token import first_token_rows
from sinkprune_companion.training.learning_curve import MIN_ROWS, extrapolate, flat_rows, tokens_per_hour
from sinkprune_companion.training.settings import SETTINGS, settings_of
from sinkprune_core import corpus
from sinkprune_core.costs import compute
from sinkprune_core.files import write_json
from sinkprune_core.models.catalog import MODELS
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.loading import load, with_adapter
from sinkprune_core.provenance import environment
from sinkprune_core.seeds import generator

AHEAD = (10e6, 100e6)  # training tokens for which the learning curve is extrapolated, besides a GPU hour's

Texts = dict[str, torch.Tensor]  # token ids, int64 (N, T), by the name of the text
Tasks = dict[str, quality.Task]


@dataclass(frozen=True)
class Extent:
    """How much is measured, on what draw of it."""

    sequences: int  # held-out sequences, half of each source
    draws: int  # noise levels per sequence and per two-choice item
    items: int  # of the offline suite
    length: int  # tokens per sequence
    seed: int  # of the choice of sequences and items, of noise and of the samples


def merged(folder: Path, dtype: torch.dtype = torch.bfloat16) -> LanguageModel:
    """Return the embedded base with the diffusion adapter of `folder` merged into it.

    Raises FileNotFoundError where the folder is no exported adapter, and ValueError for one of another kind.
    """
    if not (folder / SETTINGS).is_file():
        raise FileNotFoundError(
            f"{folder} has no {SETTINGS}: give a folder that `sinkprune train --export` wrote"
        )
    settings = settings_of(folder / SETTINGS)
    if settings["base"] != EMBEDDED_BASE:
        raise ValueError(
            f"the model in {folder} was made from {settings['base']}: a card's measures compare the "
            "embedded pair, for another use `sinkprune evaluate`"
        )
    if settings["kind"] != "diffusion":
        raise ValueError(
            f"the adapter in {folder} is {settings['kind']}: a card's measures compare a diffusion model "
            "with smol-ar, give a diffusion adapter"
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
    """Measure the adapter in `folder` beside smol-ar, write `measures.json` and the card there; return the
    card.

    `sequences` are halved between the two held-out sources. `data` is a folder with WikiText-2 and BLiMP,
    either or both: as many sequences of the one and about as many items of the other are measured besides.
    Noise and items depend on `seed`. Raises what `merged` and `measured_besides` raise.
    """
    lm = merged(folder)
    ar = load("smol-ar", lm.model.dtype)
    lengths = crop_lengths(settings_of(folder / SETTINGS))
    extent = Extent(sequences, draws, items, min(HELD_OUT_LENGTH, max(lengths)), seed)
    texts = corpus.texts(lm.tokenizer, sequences, extent.length, held_out=True, seed=seed)
    tasks = {SUITE: quality.offline_suite(items, draws, seed, progress=True)}
    if data is not None:
        more_texts, more_tasks = measured_besides(data, lm, extent)
        texts |= more_texts
        tasks |= more_tasks
    rows = quality.measure(lm, ar, texts, tasks, draws, seed, progress=True)
    natural_NT = natural_crops(lm.tokenizer, extent.length)[:sequences]
    for model in (lm, ar):
        rows += first_token_rows(model, natural_NT, draws, seed)
    dtype = str(lm.model.dtype).removeprefix("torch.")
    tokens = tokens_per_hour(lm, lengths)
    measures = {
        "adapter": adapter_digest(folder),
        "settings": {**asdict(extent), "dtype": dtype},
        "fingerprints": _fingerprints([lm, ar], texts),
        "environment": _environment(),
        "rows": rows,
        "samples": quality.samples(lm, seed=seed),
        "learning_curve": _learning_curve(log_of(folder), rows, tokens),
        "gpu_hour": {
            "hardware": compute.HARDWARE,
            "flops_per_second": compute.SPEED,
            "flops_per_token": compute.SPEED * 3600 / tokens,
            "tokens": tokens,
        },
    }
    write_json(folder / MEASURED, measures)
    return write_card(folder)


def natural_crops(tokenizer, length: int) -> torch.Tensor:
    """Return held-out natural English that begins anywhere, int64 (N, T), evenly spread over its source."""
    stream_T = corpus.stream(embedded_wikitext(), tokenizer)
    return held_out_sequences(stream_T, corpus.separator(tokenizer), length)["crops"]


def crop_lengths(settings: dict) -> list[int]:
    """Return the tokens per training sequence; an adapter from before crops has one length."""
    return settings.get("lengths") or [settings["length"]]


def _fingerprints(models: list[LanguageModel], texts: Texts) -> dict[str, str]:
    found = {lm.name: lm.fingerprint() for lm in models}
    for name, ids_NT in texts.items():
        found[name] = hashlib.sha256(ids_NT.numpy().tobytes()).hexdigest()[:16]
    return found


def _environment() -> dict:
    """Return what the measures were made with; the git commit would change with the file itself."""
    return {name: value for name, value in environment().items() if name != "git_commit"}


def _learning_curve(log: list[dict], rows: list[dict], tokens_of_an_hour: float) -> dict[str, dict]:
    """Return, by source, how far more training brings the DLM from the measured gap towards the goal.

    Nothing where the log has too few rows at its flat learning rate for a curve.
    """
    if len(flat_rows(log)) < MIN_ROWS:
        return {}
    gaps = {}
    for row in rows:
        if row["measure"] == "likelihood" and row["model"] == "difference":
            gaps[row["on"]] = row["value"]
    ahead = [*AHEAD, tokens_of_an_hour]
    found = {}
    for source in SOURCES:
        column = f"nelbo_{source}"
        if column not in log[-1]:
            column += "_beginnings"  # as the sequences on which the gap was measured
        found[source] = extrapolate(log, column, ahead, gaps[source] - GOAL_NATS, REFITS)
    return found


def measured_besides(folder: Path, lm: LanguageModel, extent: Extent) -> tuple[Texts, Tasks]:
    """Return text of WikiText-2's validation split and the task of BLiMP, if `folder` holds them.

    About `extent.items` items are divided among the paradigms; items and sequences are drawn by the seed.
    Raises ValueError for a folder with neither, and OSError for one that is none.
    """
    texts = {}
    tasks = {}
    if "validation" in data_files.wikitext_files(folder):
        ids_NT = corpus.pack(local_data.wikitext(folder, "validation"), lm.tokenizer, extent.length)
        texts[WIKITEXT] = ids_NT[_drawn(len(ids_NT), WIKITEXT, extent.seed)[: extent.sequences]]
    files = data_files.blimp_files(folder)
    if files:
        known = len(data_files.blimp_paradigms())
        name = BLIMP
        if len(files) < known:
            name = f"{BLIMP}, {len(files)} of {known} paradigms"
        pairs = _drawn_pairs(files, extent)
        tasks[name] = quality.minimal_pairs(pairs, extent.draws, extent.seed, progress=True)
    if not texts and not tasks:
        raise ValueError(
            f"{folder} holds neither WikiText-2's validation split nor BLiMP: "
            f"{data_files.EXPECTED['wikitext']}; {data_files.EXPECTED['blimp']}"
        )
    return texts, tasks


def _drawn_pairs(files: dict[str, list[Path]], extent: Extent) -> dict[str, list[dict]]:
    """Return pairs of sentences by paradigm: about as many as asked for in all, at least 2 of each."""
    count = max(2, extent.items // len(files))
    drawn = {}
    for name, files_of_paradigm in files.items():
        pairs = local_data.pairs(files_of_paradigm)
        chosen = _drawn(len(pairs), name, extent.seed)[:count]
        drawn[name] = [pairs[index] for index in chosen.tolist()]
    return drawn


def _drawn(count: int, name: str, seed: int) -> torch.Tensor:
    """Return the numbers below `count` in an order that depends on the seed and a name, int64 (count,)."""
    return torch.randperm(count, generator=generator(seed, "card", name))

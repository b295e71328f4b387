"""From a pruned folder to a recovered one: `recover`, which no kill, full disk or bad input breaks."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import InstanceOf

from sinkprune.documents import FORMS, Document, document_of, documents_in, written
from sinkprune.evaluation.local_data import wikitext_documents
from sinkprune.files import check_new_folder, held, resolved
from sinkprune.models.card import read_card
from sinkprune.models.catalog import EMBEDDED
from sinkprune.models.devices import choose_device, choose_dtype
from sinkprune.models.embedded import FetchError
from sinkprune.models.hub import adapter_base, folder_of, parse
from sinkprune.models.loading import load, open_checkpoint, without_weights
from sinkprune.models.meta_model import shapes_of
from sinkprune.models.saving import OWN, check_beside
from sinkprune.models.streaming import stream
from sinkprune.models.weight_files import DTYPES, read_json
from sinkprune.named_texts import WIKITEXT, is_wikitext
from sinkprune.recovery import PLANNED
from sinkprune.recovery.checkpoint import check_work, remove_work
from sinkprune.recovery.model_card import card_of, folder_here, provenance, save_model
from sinkprune.recovery.objectives import LOGITS_BYTES
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import TrainingText, training_text
from sinkprune.recovery.training import Recovered, check_teacher, recover_model
from sinkprune.runs.memory_and_disk import Needs, lacks, training_needs
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.model_checks import positions_of
from sinkprune_core.values import (
    Count,
    Flag,
    Number,
    Place,
    PositiveShare,
    Share,
    Text,
    checked_arguments,
    in_short,
)

AUTO = "auto"  # the teacher that the card of a pruned model names
WAYS_OUT = "a smaller batch, a shorter length, gradient checkpointing, method lora"  # of too little memory


@checked_arguments
def recover(
    pruned: Place,
    *,
    out: Place | None = None,
    tokens: Count | None = None,
    steps: Count | None = None,
    text: str | os.PathLike | Sequence[Document] | None = None,
    text_name: Text | None = None,
    data: Place | None = None,
    teacher: Place | None = AUTO,
    distillation: Share | None = None,
    method: Text = "full",
    rank: Count = 16,
    learning_rate: PositiveShare | None = None,
    batch: Count = 8,
    length: Count = 128,
    seed: Number = 0,
    work: Place | None = None,
    dtype: Text | InstanceOf[torch.dtype] = "auto",
    device: Text = "auto",
    gradient_checkpointing: Flag = False,
    save_every: Count = 20,
    dry_run: Flag = False,
    progress: Flag = True,
    tell: Callable[[str], None] | None = None,
) -> Recovered | Needs:
    """Train a pruned model with its zeros held, and save it to a new folder `out`; return what came of it.

    `pruned` is what `load` takes, unstructured, N:M or structured (a dense model is trained as the control).
    A diffusion model learns to fill masks, such that the loss estimates the bound that `nelbo` measures; an
    autoregressive one learns next tokens. `text` is a file of paragraphs, which blank lines part, or of JSON
    lines, `"wikitext-2"` (the train split, from the folder `data` or the hub), or a list of documents, texts
    or chats (None: what comes with the package), and `text_name` what the card calls it; one document in
    eight is held out, and the loss on it stands in the progress bar. How long: `tokens`, or `steps` of
    `batch` sequences of `length` tokens.

    With a `teacher`, the dense model, a share `distillation` of the loss is the divergence from its
    predictions at the same positions (None: all of it). "auto" is the model that the card of `pruned` names
    as dense, where that is here and has the weights that were pruned; None learns from the text alone.
    `method` trains the weights of the blocks (`full`), or LoRA of a `rank` that is merged where the weights
    are not zero (`lora`). Whatever is trained is float32 and the products have `dtype`, float32 or bfloat16
    (auto: bfloat16 where the device is faster in it). The recovered model has the dtype of the pruned one's
    files, and the losses that are stated are those of weights in it.

    The folder `work` (None: OUT.work) keeps the state every `save_every` steps. What a recovery writes there
    is removed at the end, and the folder where nothing else is in it. The same call goes on from there, with
    the same versions on the same device, and its result is the same to the bit. `dry_run` returns what a run
    would take, its `Needs` from shapes alone, and reads no weights and writes nothing; `tell` is told that
    before a run, too.

    Raises ValueError for what does not fit together: both or none of tokens and steps, a teacher of another
    vocabulary (before any weight is read), a dense model that has changed since, a text that is too short, a
    work folder of another run or one that holds something else, and one that lies in `out` or around it;
    FileExistsError for an `out` that is there, RuntimeError for a machine that lacks memory or disk, and
    OSError where the disk is full: what was kept in `work` stays.
    """
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")

    out, work = _places(out, work, dry_run)
    is_of_card = teacher == AUTO
    if is_of_card:
        teacher = None if distillation == 0 else teacher_of(pruned)

    device = choose_device(device)
    settings = _settings(
        tokens,
        steps,
        batch=batch,
        length=length,
        method=method,
        rank=rank,
        learning_rate=learning_rate,
        distillation=_share(teacher, distillation),
        seed=seed,
        dtype=_dtype_of_products(dtype, device),
        gradient_checkpointing=gradient_checkpointing,
    )

    known = _known(pruned, dry_run)
    _check_length(known.lm, length)
    documents = _documents(text, data, dry_run)
    teacher_lm = None if teacher is None else _teacher_without_weights(teacher, dry_run)
    check_teacher(known.lm, teacher_lm, settings.distillation)

    needed = needs_of(known.lm, settings, known.stored, teacher_lm)
    missing = lacks(needed, device, out, work, WAYS_OUT)
    if tell is not None:
        source = "text alone" if teacher is None else f"teacher {os.fspath(teacher)}"
        what = f"{known.lm.name} ({known.lm.kind}), {method}, {source}, {settings.dtype} on {device}"
        tell(f"{what}: {settings.tokens:,} tokens in {settings.steps:,} steps; {needed}")

        for lack in missing if dry_run else ():
            tell(lack)

    if dry_run:
        return needed
    if missing:
        raise RuntimeError("; ".join(missing))

    card, tables = _beside(pruned)
    learned = _text_learned(known.lm, documents, length)
    if teacher is not None and is_of_card:
        _check_dense(teacher, pruned, card, device)

    with held(out), held(work):
        lm = load(pruned, known.stored, device)
        taught_by = None if teacher is None else load(teacher, settings.dtype, device)

        done = recover_model(lm, settings, learned, taught_by, work, save_every, progress, card)

        named = lm.named(out.name)  # two models are told apart by their names
        recovery = done.card() | {"text_name": text_name or _name_of(text)}
        save_model(named, out, tables, **card, recovery=recovery)
        remove_work(work)

    return done


@dataclass(frozen=True)
class _Known:
    """What is known of a model before a weight of it is read."""

    lm: LanguageModel  # without weights
    stored: torch.dtype  # of most of its weights


def _places(out: Place | None, work: Place | None, dry_run: bool) -> tuple[Path, Path]:
    """Return the folders of the recovered model and of its work.

    Raises ValueError for an `out` that is missing, for a work folder that is not one of a recovery's, and for
    two of which one lies in the other; FileExistsError for an `out` that is there.
    """
    if out is None and not dry_run:
        raise ValueError("out is missing: name the folder that the recovered model goes to")

    out = Path(out or PLANNED)
    check_new_folder(out)

    work = out.with_name(f"{out.name}.work") if work is None else Path(work)
    _check_apart(work, out)
    if not dry_run:
        check_work(work)
    return out, work


def _check_apart(work: Path, out: Path) -> None:
    """Raise ValueError for a work folder and an output of which one lies in the other."""
    of_work, of_out = resolved(work), resolved(out)
    if of_work == of_out:
        raise ValueError(f"work={work} and out={out} are one folder: give two, work is for unfinished work")
    if of_work in of_out.parents or of_out in of_work.parents:
        raise ValueError(f"work={work} and out={out} lie in one another: choose places beside one another")


def _settings(tokens: int | None, steps: int | None, **settings: Any) -> Recovery:
    """Return the settings of a run of so many tokens, or steps; raise ValueError for what cannot work."""
    if (tokens is None) == (steps is None):
        raise ValueError(f"tokens={tokens} and steps={steps}: give one of them, which says how long to train")

    made = Recovery(steps=1 if steps is None else steps, **settings)
    if tokens is None:
        return made
    return replace(made, steps=math.ceil(tokens / made.batch_tokens))


def _dtype_of_products(dtype: str, device: str) -> str:
    """Return the dtype of the products, with what `auto` is on a device."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if choose_dtype(dtype, device) == torch.bfloat16 else "float32"


def needs_of(
    lm: LanguageModel,
    settings: Recovery,
    stored: torch.dtype = torch.float32,
    teacher: LanguageModel | None = None,
) -> Needs:
    """Return what a run takes of memory and disk; of models the shapes are enough."""
    predicted = settings.batch_tokens // (2 if lm.is_diffusion else 1)  # half are masks
    return training_needs(
        lm,
        settings.batch,
        settings.length,
        logits=min(LOGITS_BYTES, predicted * lm.vocabulary * torch.float32.itemsize),
        rank=settings.rank if settings.method == "lora" else None,
        recomputed=settings.gradient_checkpointing,
        dtype=choose_dtype(settings.dtype),
        stored=stored,
        teacher=teacher,
    )


def _check_length(lm: LanguageModel, length: int) -> None:
    """Raise ValueError for sequences with more tokens than a model has positions."""
    positions = positions_of(lm.model)
    if positions is not None and length > positions:
        raise ValueError(
            f"length={length} exceeds the {positions} positions of {lm.name}: give at most so many"
        )


def _text_learned(lm: LanguageModel, documents: list[Document] | None, length: int) -> TrainingText:
    """Return the text that is learned; raise ValueError for a short one, and for chats without a template."""
    texts = None if documents is None else written(documents, lm.text_tokenizer)
    return training_text(lm.text_tokenizer, texts, length, lm.mask_token_id)


def _known(name: str | os.PathLike, dry_run: bool) -> _Known:
    """Return what is known of a model; raise what `open_checkpoint` raises.

    A dry run downloads no weights, and needs none in a folder. An adapter has the shape of its base.
    """
    base = adapter_base(name)
    if base is not None:
        known = _known(base, dry_run)
        return replace(known, lm=known.lm.named(Path(name).name))

    if os.fspath(name) in EMBEDDED:
        lm = shapes_of(name, torch.float32) if dry_run else without_weights(name)[0]
        return _Known(lm, torch.float32)
    if dry_run:
        return _Known(shapes_of(name, torch.float32), _stated_dtype(name))

    lm, checkpoint = without_weights(name)
    sizes = Counter()
    for key, kind in checkpoint.files.dtypes.items():
        sizes[kind] += checkpoint.files.size(key)
    [(stored, _)] = sizes.most_common(1)
    return _Known(lm, torch.float32 if stored == torch.float64 else stored)  # no training is wider


def _stated_dtype(name: str | os.PathLike) -> torch.dtype:
    """Return the dtype of the published files, as the table of models or config.json states it."""
    row = parse(name).row
    if row is not None:
        return DTYPES[row.stored]

    raw = read_json(folder_of(name, weights=False) / "config.json")
    stated = str(raw.get("dtype") or raw.get("torch_dtype")).removeprefix("torch.")
    return DTYPES.get(stated, torch.float32)


def _teacher_without_weights(teacher: str | os.PathLike, dry_run: bool) -> LanguageModel:
    """Return what is known of a teacher; raise ValueError for one that is not here."""
    try:
        return _known(teacher, dry_run).lm
    except (ValueError, FetchError) as error:
        raise ValueError(f"the teacher {os.fspath(teacher)} cannot be had: {error}") from None


def teacher_of(pruned: str | os.PathLike) -> str | None:
    """Return the dense model that the card of a pruned one says it was made from; None where it is not here.

    Here is a folder, an embedded model, and a hub id that the hub's cache holds. A pruned model that is a hub
    id itself is fetched, without its weights. A model of the table was published dense, and has none.
    """
    row = parse(pruned).row  # raises for what is no name
    if row is not None:
        return None
    folder = folder_of(pruned, weights=False)
    given = (read_card(folder).get("made_from") or {}).get("given")
    if given is None or given in EMBEDDED:
        return given
    folder = folder_here(given)
    return given if folder is not None and (folder / "config.json").is_file() else None


def _check_dense(
    teacher: str | os.PathLike, pruned: str | os.PathLike, card: Mapping[str, Any], device: str
) -> None:
    """Raise ValueError where the name of the dense model on a card leads to other weights by now.

    A card says that of the model from which `sinkprune prune` made its own; an embedded model is always what
    it was.
    """
    made_from = card.get("made_from") or {}
    expected, stated = made_from.get("model"), made_from.get("dtype")
    if teacher in EMBEDDED or expected is None or stated is None:
        return

    dtype = DTYPES[stated]
    if made_from.get("streamed"):
        dense = stream(open_checkpoint(teacher), os.fspath(teacher), dtype)
    else:
        dense = load(teacher, dtype, device)

    if dense.fingerprint() != expected:
        raise ValueError(
            f"the teacher {os.fspath(teacher)} is not the model any more that {os.fspath(pruned)} was pruned "
            "from, as its weights differ: put the former weights back, or name the teacher that you mean "
            "(--teacher MODEL, or none)"
        )


def _share(teacher: str | os.PathLike | None, distillation: float | None) -> float:
    """Return the share of the loss that is the divergence from a teacher."""
    if distillation is None:
        return 0.0 if teacher is None else 1.0
    if teacher is not None and distillation == 0:
        raise ValueError("distillation=0 does not look at the teacher: leave the teacher out")
    return distillation


def _documents(
    text: str | os.PathLike | Sequence[Document] | None, data: Place | None, dry_run: bool
) -> list[Document] | None:
    """Return the documents of a file, a list or WikiText-2, which a dry run does not fetch (None).

    Raises FileNotFoundError or TypeError for none of them, and ValueError for the folder of WikiText-2 beside
    another text.
    """
    is_named = isinstance(text, (str, os.PathLike)) and is_wikitext(text)
    if data is not None and not is_named:
        raise ValueError(f"data={in_short(data)} is for text={WIKITEXT!r}: leave it out, or name that text")
    if text is None:
        return None
    if isinstance(text, (str, os.PathLike)):
        if is_named:
            return None if dry_run else wikitext_documents(data, "train")

        file = Path(text)
        if not file.is_file():
            raise FileNotFoundError(f"text {file}: there is no such file; check the name, or leave it out")
        return documents_in(file)

    is_list = isinstance(text, Iterable) and not isinstance(text, (torch.Tensor, Mapping, bytes))
    if not is_list:
        raise TypeError(f"text={in_short(text)} must be a file or a list of documents, or None")

    documents = []
    for number, value in enumerate(text, start=1):
        document = document_of(value)
        if document is None:
            raise ValueError(f"document {number} of text is {in_short(value)}: each must be {FORMS}")
        documents.append(document)

    if not documents:
        raise ValueError("text is an empty list: give documents, or leave it out")

    return documents


def _name_of(text: str | os.PathLike | Sequence[Document] | None) -> str:
    """Return what a text is called on the card of the model that learned it."""
    if text is None:
        return "what comes with sinkprune"
    return Path(text).name if isinstance(text, (str, os.PathLike)) else "documents given from Python"


def _beside(pruned: str | os.PathLike) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the card of a recovered model takes from that of the pruned one, and the tables beside it.

    Earlier recoveries stay, the first one first, a model without a card is what this one was made from, and
    zeros still fit the tables. Raises ValueError, before anything is trained, for a card that could not be
    saved again.
    """
    card = {name: value for name, value in card_of(pruned).items() if name not in OWN}
    if "recovery" in card:
        card["recoveries_before"] = [*card.get("recoveries_before", ()), card.pop("recovery")]
    card.setdefault("made_from", provenance(pruned))

    folder = folder_here(pruned)
    files = [] if folder is None else sorted(folder.glob("sinkprune-*.csv"))
    tables = {file.name: file.read_text(encoding="utf-8") for file in files}

    check_beside(tables, card)
    return card, tables

"""From a pruned folder to a recovered one: `recover`, which no kill, full disk or bad input breaks."""

import math
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch

from sinkprune.documents import Document, document_of, documents_in, written
from sinkprune.files import held, make_folder
from sinkprune.models.catalog import EMBEDDED
from sinkprune.models.devices import choose_device, choose_dtype
from sinkprune.models.loading import language_model, load, open_checkpoint
from sinkprune.models.reader import CARD
from sinkprune.models.weight_files import read_json
from sinkprune.recovery.cost import RecoveryCost, recovery_cost
from sinkprune.recovery.model_card import OWN_FIELDS, save_model
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import training_text
from sinkprune.recovery.training import Recovered, check_teacher, recover_model
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.values import (
    A_FUNCTION,
    AboveZero,
    Count,
    Flag,
    Number,
    Place,
    Share,
    Text,
    checked_arguments,
    in_short,
)

AUTO = "auto"  # the teacher that the card of a pruned model names
PLANNED = Path("recovered")  # where a run that is only planned would write, if no place is named


@checked_arguments
def recover(
    pruned: Place,
    *,
    out: Place | None = None,
    tokens: Count | None = None,
    steps: Count | None = None,
    text: str | os.PathLike | Sequence[Document] | None = None,
    teacher: Place | None = AUTO,
    distillation: Share | None = None,
    method: Text = "full",
    rank: Count = 16,
    learning_rate: AboveZero | None = None,
    batch: Count = 8,
    length: Count = 128,
    seed: Number = 0,
    work: Place | None = None,
    dtype: Text = "auto",
    device: Text = "auto",
    gradient_checkpointing: Flag = False,
    save_every: Count = 20,
    dry_run: Flag = False,
    progress: Flag = True,
    tell: Annotated[Callable[[str], None], A_FUNCTION] | None = None,
) -> Recovered | RecoveryCost:
    """Train a pruned model with its zeros held, and save it to a new folder `out`; return what came of it.

    `pruned` is what `load` takes, unstructured, N:M or structured (a dense model is trained as the control).
    A diffusion model learns to fill masks, such that the loss estimates the bound that `nelbo` measures; an
    autoregressive one learns next tokens. `text` is a file of paragraphs, which blank lines part, or of JSON
    lines, or a list of documents, texts or chats (None: what comes with the package); one document in eight
    is held out, and the loss on it stands in the progress bar. How long: `tokens`, or `steps` of `batch`
    sequences of `length` tokens.

    With a `teacher`, the dense model, a share `distillation` of the loss is the divergence from its
    predictions at the same positions (None: all of it). "auto" is the model that the card of `pruned` names
    as dense, where that is here; None learns from the text alone. `method` trains the weights of the blocks
    (`full`), or LoRA of a `rank` that is merged where the weights are not zero (`lora`). Whatever is trained
    is float32 and the products have `dtype` (auto: bfloat16 where the device is faster in it).

    The folder `work` (None: OUT.work) keeps the state every `save_every` steps and is removed at the end: the
    same call goes on from there, and its result is the same to the bit. `dry_run` returns what a run would
    take, a `RecoveryCost`, and writes nothing; `tell` is told that before a run, too.

    Raises ValueError for what does not fit together: both or none of tokens and steps, a teacher of another
    vocabulary, a text that is too short, a work folder of another run; FileExistsError for an `out` that is
    there, RuntimeError for a machine that lacks memory or disk, and OSError where the disk is full: what was
    kept in `work` stays.
    """
    if teacher == AUTO:
        teacher = None if distillation == 0 else teacher_of(pruned)

    plan = _plan(
        pruned,
        device,
        dtype,
        tokens=tokens,
        steps=steps,
        batch=batch,
        length=length,
        method=method,
        rank=rank,
        learning_rate=learning_rate,
        distillation=_share(teacher, distillation),
        seed=seed,
        gradient_checkpointing=gradient_checkpointing,
    )
    if out is None and not dry_run:
        raise ValueError("out is missing: name the folder that the recovered model goes to")

    out = Path(out or PLANNED)
    work = Path(work) if work is not None else out.with_name(f"{out.name}.work")
    if out.exists():
        raise FileExistsError(f"output folder {out} exists: choose another name or remove it first")

    documents = _documents(text)

    cost = recovery_cost(plan.shapes, plan.settings, out, work, plan.stored, teacher is not None, plan.device)
    if tell is not None:
        learned = "text alone" if teacher is None else f"teacher {os.fspath(teacher)}"
        how = f"{plan.settings.method}, {learned}, {plan.settings.dtype} on {plan.device}"
        tell(f"{plan.shapes.name}, {how}: {cost}")

    if dry_run:
        return cost
    if cost.missing:
        raise RuntimeError(f"this machine lacks {'; '.join(cost.missing)}")

    with ExitStack() as stack:
        stack.enter_context(held(out))
        stack.enter_context(held(work))
        lm = load(pruned, plan.stored, plan.device)
        taught_by = None
        if teacher is not None:
            taught_by = load(teacher, getattr(torch, plan.settings.dtype), plan.device)
            check_teacher(lm, taught_by, plan.settings.distillation)

        texts = None if documents is None else written(documents, lm.tokenizer)
        words = training_text(lm.tokenizer, texts, length, lm.mask_token_id)
        make_folder(work)
        done = recover_model(
            lm, plan.settings, words, taught_by, work, save_every=save_every, progress=progress
        )
        former = read_json(Path(pruned) / CARD) if Path(pruned).is_dir() else {}
        card = {name: value for name, value in former.items() if name not in OWN_FIELDS}
        if "recovery" in card:
            card["recovery_before"] = card.pop("recovery")

        named = replace(lm, name=out.name)  # two models are told apart by their names
        save_model(named, out, _tables(Path(pruned)), **card, recovery=done.card())
        shutil.rmtree(work, ignore_errors=True)

    return done


@dataclass(frozen=True)
class _Plan:
    """What is known before any weight is read."""

    settings: Recovery
    shapes: LanguageModel  # without weights
    stored: torch.dtype  # of the result
    device: str


def _plan(
    pruned: str | os.PathLike,
    device: str,
    dtype: str,
    tokens: int | None,
    steps: int | None,
    **settings: Any,
) -> _Plan:
    """Return the settings of a run and the shapes of its model; raise ValueError for what cannot work."""
    if (tokens is None) == (steps is None):
        raise ValueError(f"tokens={tokens} and steps={steps}: give one of them, which says how long to train")

    device = choose_device(device)
    if dtype == "auto":
        dtype = "bfloat16" if choose_dtype(dtype, device) == torch.bfloat16 else "float32"

    settings["dtype"] = dtype
    made = Recovery(steps=1 if steps is None else steps, **settings)
    if tokens is not None:
        made = Recovery(steps=math.ceil(tokens / made.batch_tokens), **settings)

    is_embedded = os.fspath(pruned) in EMBEDDED
    checkpoint = open_checkpoint("smol-ar" if is_embedded else pruned)  # all of them have its shape
    shapes = language_model(checkpoint, checkpoint.skeleton())
    stored = torch.float32

    if not is_embedded:
        sizes = {}
        for key, kind in checkpoint.files.dtypes.items():
            sizes[kind] = sizes.get(kind, 0) + checkpoint.files.size(key)
        stored = max(sizes, key=lambda dtype: sizes[dtype])

    return _Plan(made, shapes, stored, device)


def teacher_of(pruned: str | os.PathLike) -> str | None:
    """Return the dense model that the card of a folder says it was pruned from; None where it is not here."""
    if not Path(pruned).is_dir():
        return None
    given = (read_json(Path(pruned) / CARD).get("made_from") or {}).get("given")
    is_here = given in EMBEDDED or (given is not None and (Path(given) / "config.json").is_file())
    return given if is_here else None


def _share(teacher: str | os.PathLike | None, distillation: float | None) -> float:
    """Return the share of the loss that is the divergence from a teacher."""
    if distillation is None:
        return 0.0 if teacher is None else 1.0
    if teacher is not None and distillation == 0:
        raise ValueError("distillation=0 does not look at the teacher: leave the teacher out")
    return distillation


def _documents(text: str | os.PathLike | Sequence[Document] | None) -> list[Document] | None:
    """Return the documents of a file or a list; raise FileNotFoundError or TypeError for neither."""
    if text is None:
        return None
    if isinstance(text, (str, os.PathLike)):
        file = Path(text)
        if not file.is_file():
            raise FileNotFoundError(f"text {file}: there is no such file; check the name, or leave it out")
        return documents_in(file)

    documents = list(text) if isinstance(text, (list, tuple)) else []
    if not documents or any(document_of(document) is None for document in documents):
        raise TypeError(
            f"text={in_short(text)} must be a file or a list of documents, texts or chats, or None"
        )

    return documents


def _tables(pruned: Path) -> dict[str, str]:
    """Return the tables beside a pruned model, which its zeros still fit."""
    if not pruned.is_dir():
        return {}
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(pruned.glob("sinkprune-*.csv"))}

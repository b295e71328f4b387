"""What the shell commands `prune`, `trace` and `evaluate` do: the same engine as in Python, with a plan before and a table after."""

import dataclasses
import json
import os
import shutil
import sys
import types
import typing
from argparse import Namespace
from pathlib import Path

import pandas as pd
import torch

from sinkprune_core import corpus
from sinkprune_core.companion.variants import score_texts
from sinkprune_core.evaluation import local_data
from sinkprune_core.evaluation.intervals import interval
from sinkprune_core.evaluation.likelihood import perplexity
from sinkprune_core.evaluation.protocols import PROTOCOLS
from sinkprune_core.files import atomic
from sinkprune_core.models.catalog import EMBEDDED
from sinkprune_core.models.embedded import ADAPTERS
from sinkprune_core.models.hub import available_memory, choose_dtype, parse, requirements
from sinkprune_core.models.language_model import LanguageModel, load, open_checkpoint
from sinkprune_core.models.placement import DeviceMap
from sinkprune_core.models.streaming import stream
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.cost import meta_model, pruning_cost
from sinkprune_core.pruning.engine import Recipe, check, preset, prune
from sinkprune_core.pruning.structured import shrink
from sinkprune_core.sinks.detection import variability
from sinkprune_core.sinks.trace import trace

ROOM = 0.6  # a model larger than this share of the free memory is streamed from disk


def recipe_of(options: Namespace) -> Recipe:
    """Return the recipe a command line asks for: a preset, its common flags, and any field by `--set name=value`.

    Raises ValueError for a field that does not exist or a value of another type.
    """
    changes: dict[str, object] = {
        name: getattr(options, name) for name in ("sparsity", "pattern") if getattr(options, name) is not None
    }
    hints = typing.get_type_hints(Recipe)
    for item in options.set:
        name, _, text = item.partition("=")
        if name not in hints:
            raise ValueError(f"--set {item}: a recipe has no {name!r}; it has {', '.join(hints)}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text  # a word needs no quotes
        changes[name] = value
        kinds = tuple(
            float | int if kind is float else kind
            for kind in (hints[name].__args__ if isinstance(hints[name], types.UnionType) else (hints[name],))
        )
        if not any(isinstance(value, kind) for kind in kinds):
            raise ValueError(f"--set {item}: {name} takes {hints[name]}, not {value!r}")
    return preset(options.preset, **changes)


def device_map_of(text: str) -> DeviceMap:
    """Return the device map of a command line: a word, or a JSON object. Raises ValueError for broken JSON."""
    if not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(
            f'--device-map {text}: {error}; give auto, a device, or a JSON object such as \'{{"": "cuda:1"}}\''
        ) from None


def open_model(options: Namespace, stream_it: bool | None = False) -> LanguageModel:
    """Load a model, or stream it from disk where asked to (None: where it would not fit well into memory)."""
    row, _ = parse(options.model)
    dtype = choose_dtype(options.dtype, options.device)
    if options.device_map is not None:
        if stream_it:
            raise ValueError(
                "--stream and --device-map exclude each other: a model comes from disk block by block, or lies on its devices"
            )
        return load(options.model, options.dtype, device_map=device_map_of(options.device_map))
    if row is not None and row.id in ADAPTERS:
        if stream_it:
            raise ValueError(
                f"{row.id} is merged from a base and an adapter when it is loaded: it cannot be streamed, and needs not be"
            )
        return load(options.model, dtype, options.device)
    if stream_it is None and (row is None or row.id not in EMBEDDED):
        stream_it = open_checkpoint(options.model).parameters * dtype.itemsize > ROOM * available_memory(
            options.device
        )
    if stream_it:
        return stream(open_checkpoint(options.model), Path(options.model).name, dtype, options.device)
    return load(options.model, dtype, options.device)


def documents_of(options: Namespace, held_out: bool) -> list[str] | None:
    """Return the documents of `--text`: paragraphs of a file, or articles of WikiText-2; None where it is not given.

    Raises ValueError for flags that say where to find a WikiText-2 that is not asked for, and OSError for a file that is not there.
    """
    named = (
        options.text is not None and str(options.text) == local_data.WIKITEXT and not options.text.is_file()
    )
    for flag in ("data", "split"):
        if getattr(options, flag) is not None and not named:
            raise ValueError(
                f"--{flag} {getattr(options, flag)} is for --text {local_data.WIKITEXT}, and in evaluate for --tasks blimp and wikitext: give one of them or leave it out"
            )
    if named:
        found = local_data.wikitext(options.data, options.split or ("test" if held_out else "train"))
        return [local_data.running_text([page]) for page in found]
    return None if options.text is None else options.text.read_text(encoding="utf-8").split("\n\n")


def texts_of(
    lm: LanguageModel, options: Namespace, held_out: bool, documents: list[str] | None
) -> dict[str, torch.Tensor]:
    """Return token sequences by source, int64 (N, T): of the documents of `--text`, or of what comes with every installation.

    Raises ValueError when a source has fewer sequences than asked for.
    """
    length = options.length or min(512 if options.text else 128, lm.model.config.max_position_embeddings)
    if options.text is None and lm.tokenizer.get_vocab() == corpus_vocabulary() and length <= 128:
        return corpus.texts(lm.tokenizer, options.sequences, length, held_out, options.seed)
    if options.text is None:
        name, ids_NT = (
            "documentation",
            corpus.documentation_sequences(lm.tokenizer, length, held_out, scope="everything"),
        )
    else:
        name, ids_NT = options.text.name, corpus.pack(documents, lm.tokenizer, length)
    if len(ids_NT) < options.sequences:
        raise ValueError(
            f"--sequences {options.sequences}: {name} has {len(ids_NT)} sequences of {length} tokens: ask for fewer or shorter ones, or give more text"
        )
    order = torch.randperm(len(ids_NT), generator=corpus.generator(options.seed, "texts", name, held_out))
    return {name: ids_NT[order[: options.sequences].sort().values]}


def corpus_vocabulary() -> dict[str, int]:
    """Return the vocabulary in which the shipped samples are written."""
    return open_checkpoint("smol-ar").tokenizer().get_vocab()


def plan_unfetched(options: Namespace, recipe: Recipe) -> bool:
    """Print what a model that this machine lacks would take, download included; return False where there is nothing to download."""
    row, _ = parse(options.model)
    need = requirements(options.model, options.dtype, options.device)
    if row is None or row.id in EMBEDDED or not need.download:
        return False
    dtype, streamed = (
        choose_dtype(options.dtype, options.device),
        options.stream or need.memory > ROOM * available_memory(options.device),
    )
    length = options.length or min(512 if options.text else 128, row.context or 2048)
    lm, calibration = (
        meta_model(row, dtype, streamed),
        Calibration(torch.zeros(options.sequences, length, dtype=torch.long), options.seed, options.batch),
    )
    check(lm, recipe, calibration)
    cost = pruning_cost(
        lm,
        recipe,
        calibration,
        options.out or Path(),
        options.work or (Path() if streamed else None),
        device=options.device,
    )
    print(
        f"{row.id} is not on this machine: {need.download / 1e9:.1f} GB to download; then{' streamed from disk,' if streamed else ''} {recipe.name}, sparsity {recipe.sparsity}: {cost}",
        file=sys.stderr,
    )
    for lacks in (*(lack for lack in need.missing if not streamed or "disk" in lack), *cost.missing):
        print(f"this machine lacks {lacks}", file=sys.stderr)
    return True


def run_prune(options: Namespace) -> int:
    """`sinkprune prune`: say what it takes, prune, save, and only then remove the work folder."""
    recipe, out = recipe_of(options), options.out
    if out is None and not options.dry_run:
        raise ValueError("--out is missing: name the folder the pruned model goes to (or use --dry-run)")
    if out is not None and out.exists():
        raise FileExistsError(f"output folder {out} exists: choose another name or remove it first")
    if options.dry_run and plan_unfetched(options, recipe):
        return 0
    documents = documents_of(options, held_out=False)
    lm = open_model(options, options.stream or None)
    calibration = Calibration(
        torch.cat(list(texts_of(lm, options, False, documents).values())), options.seed, options.batch
    )
    check(lm, recipe, calibration)
    work = options.work or (out and out.with_name(out.name + ".work"))
    cost = pruning_cost(lm, recipe, calibration, out, work)
    print(
        f"{lm.name}{' streamed from disk' if lm.is_streamed else ''}, {recipe.name}, sparsity {recipe.sparsity}: {cost}",
        file=sys.stderr,
    )
    if cost.missing:
        raise RuntimeError(f"this machine lacks {'; '.join(cost.missing)}")
    if options.dry_run:
        return 0
    report = prune(lm, recipe, calibration, work=work)
    if report.kept_units and not options.masked:
        lm = shrink(lm, report.kept_units)
    lm.save(out, **report.card())
    with atomic(out / "sinkprune-linears.csv") as partial:
        report.linears.to_csv(partial, index=False)
    shutil.rmtree(report.job if options.work else work)
    print(
        f"{out}: {report.sparsity:.4f} of {int(report.linears.weights.sum()):,} weights in the blocks' linears are zero{' and gone' if report.kept_units and not options.masked else ''}; {report.unpruned_parameters:,} other parameters untouched"
    )
    return 0


def run_trace(options: Namespace) -> int:
    """`sinkprune trace`: generate from prompts, record attention at every step, print how much sinks move."""
    from sinkprune_core.diffusion.sampling import Sampler

    documents = documents_of(options, held_out=True)
    lm = open_model(options)
    prompts = Namespace(**{**vars(options), "length": options.prompt})
    prompt_BT = torch.cat(list(texts_of(lm, prompts, True, documents).values()))
    sampler = Sampler(
        length=options.tokens, steps=options.steps, block=options.block, temperature=options.temperature
    )
    found = trace(lm, prompt_BT, sampler, options.seed, options.batch)
    frame = variability(found.profile_BSK, found.visible_SK)
    if options.out is not None:
        found.save(options.out)
    _print(
        pd.DataFrame({name: _estimate(frame[name]) for name in frame.columns if name != "prompt"}).T, options
    )
    return 0


def run_evaluate(options: Namespace) -> int:
    """`sinkprune evaluate`: likelihood on held-out text, or tasks of the evaluation harness; what is missing is told before the model is loaded."""
    if options.protocol is not None and (options.tasks or options.text is None):
        raise ValueError(f"--protocol {options.protocol} scores a running text: give --text and no --tasks")
    if options.tasks:
        frame = _tasks(options)
    elif options.protocol is not None:
        frame = _perplexity(options)
    else:
        documents = documents_of(options, held_out=True)
        lm = open_model(options)
        scores = score_texts(lm, texts_of(lm, options, True, documents), options.draws)
        frame = pd.DataFrame(
            {
                text: {"measure": _measure(lm), **_estimate(group.value)}
                for text, group in scores.groupby("text")
            }
        ).T
    _print(frame, options)
    return 0


def _tasks(options: Namespace) -> pd.DataFrame:
    """Return the results of `--tasks`, the data of BLiMP and WikiText-2 from `--data` where that is given."""
    names = [name for part in options.tasks for name in part.split(",") if name]
    if options.data is None and options.split is not None:
        raise ValueError(
            f"--split {options.split} chooses among local files of WikiText-2: give --data FOLDER, or leave it out (the harness takes test)"
        )
    from sinkprune_core.evaluation.benchmarks import evaluate, evaluate_named

    if options.data is None:
        lm = open_model(options)
        try:
            return evaluate_named(lm, names, options.limit, options.family)
        except OSError as error:
            if any(name.startswith(("blimp", "wikitext")) for name in names):
                raise OSError(
                    f"{error}; or give a local folder of BLiMP and WikiText-2: --data FOLDER"
                ) from error
            raise
    with local_data.local_tasks(options.data, names, options.split or "test") as (tasks, include):
        return evaluate(
            open_model(options), tasks, limit=options.limit, family=options.family, include=include
        )


def _perplexity(options: Namespace) -> pd.DataFrame:
    """Return nats per token of the whole of `--text`, or its first `--limit` windows, by a published protocol."""
    running = {name: how for name, how in PROTOCOLS.items() if how.chunk is not None}
    if options.protocol not in running:
        raise ValueError(
            f"--protocol {options.protocol} is not one for a running text; choose one of {', '.join(running)}"
        )
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit {options.limit} must be at least 1, a number of windows")
    how, documents = running[options.protocol], documents_of(options, held_out=True)
    lm = open_model(options)
    ids_T = lm.encode(local_data.running_text(documents))
    if options.limit is not None:
        ids_T = ids_T[: how.chunk * (options.limit + 1) + 1]
    found = perplexity(lm, ids_T, how, options.seed, options.batch, progress=True)
    return pd.DataFrame(
        {
            options.text.name: {
                "measure": f"{_measure(lm)}, {options.protocol}",
                **dataclasses.asdict(found),
                "perplexity": found.perplexity,
            }
        }
    ).T


def _measure(lm: LanguageModel) -> str:
    return f"{'NELBO' if lm.is_diffusion else 'negative log-likelihood'}, nats per token"


def _estimate(values: pd.Series) -> dict[str, object]:
    found = interval(values.dropna()) if values.notna().sum() > 1 else None
    return dataclasses.asdict(found) if found else {"value": float("nan")}


def _print(frame: pd.DataFrame, options: Namespace) -> None:
    print(frame.to_string(float_format=lambda value: f"{value:.4g}"))
    if options.json is not None:
        with atomic(options.json) as partial:
            partial.write_text(
                frame.reset_index().to_json(orient="records", indent=1) + os.linesep, encoding="utf-8"
            )

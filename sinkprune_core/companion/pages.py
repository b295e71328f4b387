"""The pages that are written from tables: docs/results.md, docs/models.md, docs/performance.md and README's table of the paper's results.

`python -m sinkprune_core.companion.pages` writes them; a test checks that they are in step with what they are written from.
"""

import json

import pandas as pd

from sinkprune_core.companion import published
from sinkprune_core.files import atomic, project_root, write_json
from sinkprune_core.models.catalog import EMBEDDED, MODELS, REFUSED
from sinkprune_core.models.hub import WANTED
from sinkprune_core.pruning.calibration import BY_ROW, EXCLUDE
from sinkprune_core.pruning.engine import WAITING_BYTES, WAITING_SHARE

BEGIN, END = (
    "<!-- published: written by `python -m sinkprune_core.companion.pages` -->",
    "<!-- end of published -->",
)
TASKS = {
    "average": "average of 8",
    "mmlu": "MMLU",
    "arc_challenge": "ARC-C",
    "arc_easy": "ARC-E",
    "piqa": "PIQA",
    "winogrande": "WinoGrande",
    "gsm8k": "GSM8K",
    "hellaswag": "HellaSwag",
}
LARGE = "large"  # the entry of docs/performance.json that prune_large.py writes
WIKITEXT = f"""python -c "from datasets import load_dataset as load; open('{published.TEXT}', 'w').write('\\n\\n'.join(load('Salesforce/wikitext', 'wikitext-2-raw-v1', split='train')['text']))\""""


def _table(columns: list[str], rows: list[list[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)


def _printed(result: published.Result) -> list[str]:
    """Return the values of a row with as many digits as were printed."""
    return [f"{value:.{2 if 'percent' in result.unit else 4}f}" for value in result.values.values()]


def _hours(result: published.Result) -> str:
    cost = result.pruning()
    pruning = "–" if cost is None else f"{cost.flops / published.SPEED / 3600:.2f}"
    return f"{pruning} + {result.evaluation_flops() / published.SPEED / 3600:.0f}"


def results_page() -> str:
    """Return docs/results.md: every published row with the commands that measure it, and what they take."""
    every = published.results()
    parts = [
        f"""# The paper's results, and how to measure them here

Written by `python -m sinkprune_core.companion.pages` from [published.yml](../sinkprune_core/data/published.yml).

**None of these rows was run by this project.** They need a model of 8 billion parameters on a GPU. What was measured here,
on a small pair of models, stands in the claims table of the [README](../README.md). Every published number below has the
commands that measure it with this package; the recipes are explained in [official.md](official.md), with all differences
from the official code.

Hardware: {published.HARDWARE}. Hours: pruning + evaluation, FLOPs counted from the published shape of the model divided by an
assumed {published.SPEED / 1e12:.0f} TFLOP/s, so a lower bound; the lengths of the benchmarks' requests behind them are guesses, good to a factor
of two, and generation (GSM8K in 1,024 steps) is most of it. `--limit 100` on the second command takes 100 items of every task.
Add `--dry-run` to a pruning command to see what it takes on your machine before anything is downloaded or computed.

Calibration text, once (the official code joins lines with spaces and cuts at random places; `sinkprune` packs whole
paragraphs with a separator):

```bash
{WIKITEXT}
```"""
    ]
    for table in dict.fromkeys(result.table for result in every):
        rows = [result for result in every if result.table == table]
        first = rows[0]
        parts.append(
            f"## {first.title}\n\n{first.unit[0].upper()}{first.unit[1:]}; source: {first.source}. {first.note} That the published LLaDA-8B is the base model, not the instruct one, is inferred from its scores.\n\n{_numbers(rows)}\n\n{_commands(rows)}"
        )
    lines = [
        "\n".join([f"# {row.model}, {row.sparsity:.0%}, about {_hours(row)} hours", *row.commands()])
        for row in published.unprinted()
    ]
    parts.append(
        "## Settings the paper reports on whose numbers we do not have\n\nThe paper also evaluates 25 % and 75 % sparsity, Dream, LLaDA-1.5 and MMaDA. Those tables were not at hand, so no number is given; the commands are the same, "
        "and baselines come from another `--preset` (`wanda`, `sparsegpt`).\n\n```bash\n"
        + "\n\n".join(lines)
        + "\n```"
    )
    return "\n\n".join(parts) + "\n"


def readme_table() -> str:
    """Return README's tables of the paper's results, one below the name of each, and the commands that measure every row."""
    every, parts = published.results(), []
    for table in dict.fromkeys(result.table for result in every):
        rows = [result for result in every if result.table == table]
        parts.append(f"**{rows[0].title}**\n\n{_numbers(rows)}")
    return "\n\n".join(
        [
            *parts,
            f"Hours of pruning + evaluation on {published.HARDWARE}, estimated from FLOPs: a lower bound.",
            _folded("The command of every row", _commands(every)),
        ]
    )


def _numbers(rows: list[published.Result]) -> str:
    """Return the table of one set of published rows."""
    return _table(
        ["method", *(TASKS[task] for task in rows[0].values), "hours", "here"],
        [[row.method, *_printed(row), _hours(row), published.NOT_RUN] for row in rows],
    )


def _commands(results: list[published.Result]) -> str:
    """Return one shell block with the commands of every row below the row's name."""
    return (
        "```bash\n"
        + "\n\n".join("\n".join([f"# {row.title}, {row.method}", *row.commands()]) for row in results)
        + "\n```"
    )


def _folded(summary: str, text: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def models_page() -> str:
    """Return docs/models.md: the table of models, those that are refused with the reason, and what precision costs."""
    shapes, sources = [], []
    for row in MODELS.values():
        mask = (
            "–"
            if row.kind == "autoregressive"
            else f"{row.mask_token_id if row.mask_token_id is not None else 'from its tokenizer'}{f' `{row.mask_token}`' if row.mask_token else ''}"
        )
        name = row.id if row.id in EMBEDDED else f"[{row.id}](https://huggingface.co/{row.repository})"
        note = "; ".join(filter(None, [row.relation and f"counterpart: {row.relation}", row.note]))
        shapes.append(
            [
                name,
                f"{row.parameters / 1e9:.3g}\N{NO-BREAK SPACE}B, {row.bytes / 1e9:.3g}\N{NO-BREAK SPACE}GB",
                f"`{row.native}`",
                "both" if row.kind == "diffusion" else "causal",
                mask,
                "yes" if row.logits_shifted else "no",
                row.context or "not published",
            ]
        )
        sources.append([name, row.twin or "–", row.licence, row.certainty, note])
    shape = ["model", "size", "transformers class", "attention", "mask token", "logits shifted", "context"]
    source = ["model", "autoregressive counterpart", "licence", "source of these facts", "note"]
    return f"""# Models

Written by `python -m sinkprune_core.companion.pages` from [table.py](../sinkprune_core/models/catalog.py).

Every name below works wherever a model is asked for: `load("…")`, `sinkprune prune …`, the `model` parameter of a notebook;
`name@revision` takes another revision, and so does a folder with the same files. Models become native `transformers` classes
by renaming weights: no remote code runs, pickled weights are not read, and what is saved loads with plain `from_pretrained`.
Downloads take {", ".join(f"`{pattern}`" for pattern in WANTED)} and nothing else.

No model of these tables except the embedded pair was run by this project. Facts are leads: loading compares them with the
files, and a contradiction is an error that names both sides. The formats are checked on tiny random checkpoints against the
papers' formulas ([test_families.py](../tests/test_families.py)).

{_table(shape, shapes)}

## What is known of them, and how surely

{_table(source, sources)}

## Where a model lies

One device by default. `load(name, dtype, device_map="auto")`, or `--device-map auto`, spreads whole blocks over all GPUs of a
machine, reading every weight straight to its place; a mapping such as `{{"": 0, "model.layers.20": 1}}` says it by hand. A model that
fits neither memory nor GPUs is streamed from disk, a block at a time (`sinkprune prune --stream`, chosen by itself where memory
is short). Several GPUs were not at hand: hooks were tested on one device, and maps for machines with two.

## Not covered

{_table(["model", "why"], [[name, why] for name, why in REFUSED.items()])}
{precision()}"""


def precision() -> str:
    """Return the section on dtypes, from docs/precision.csv; empty where that was not measured."""
    file = project_root() / "docs" / "precision.csv"
    if not file.is_file():
        return ""
    frame = pd.read_csv(file)
    rows = [
        [
            row.model,
            f"`{row.dtype}`",
            f"{row.logit_error:.3g}",
            f"{row.agreement:.1%}",
            f"{row.kl:.2g}",
            f"{row.shift:+.2g} [{row.low:+.2g}, {row.high:+.2g}]",
        ]
        for row in frame.itertuples()
    ]
    return f"""
## What precision costs

Measured on the embedded pair against `float32`, on {frame.sequences.iloc[0]} sequences of {frame.length.iloc[0]} held-out tokens
({frame.positions.iloc[0]} positions), on a CPU, by `python tests/benchmarks/precision.py`. `auto` takes `bfloat16` on a GPU that has it, `float16` on
another and `float32` on a CPU. Rotary frequencies stay in float32 whatever the dtype: a finished model that is cast as a whole rounds
them and loses more. A change of dtype can shift a likelihood by as much as two recipes differ, so only variants of one dtype are compared.

{_table(["model", "dtype", "logits, root mean square error", "same first choice", "KL divergence (nats)", "change of the (bound on the) negative log-likelihood (nats per token, 95 % interval)"], rows)}
"""


def performance() -> dict[str, dict]:
    """Return what was measured by what was measured, from docs/performance.json: the checkpoint of `LARGE`, and every benchmark."""
    return json.loads((project_root() / "docs" / "performance.json").read_text(encoding="utf-8"))


def note_performance(what: str, entry: dict) -> None:
    """Put one measurement into docs/performance.json, in the place of an older one of the same name."""
    write_json(project_root() / "docs" / "performance.json", {**performance(), what: entry})


def performance_page() -> str:
    """Return docs/performance.md: what a checkpoint of LLaDA-8B's size takes, and every benchmark, from docs/performance.json."""
    measured = performance()
    found = measured.pop(LARGE)
    rows = [
        ["from command to saved model", f"{found['seconds'] / 60:.1f} minutes", "90 minutes"],
        ["peak resident memory", f"{found['peak_bytes'] / 2**30:.2f} GiB", "6 GiB"],
    ]
    return f"""# How fast, and in how much memory

Written by `python -m sinkprune_core.companion.pages` from [performance.json](performance.json).

## A model that does not fit

A random checkpoint in LLaDA-8B's public format and size ({found["bytes"] / 1e9:.2f} GB, bfloat16, {found["blocks"]} blocks), streamed from disk on
{found["threads"]} cores without a GPU, {found["memory_bytes"] / 2**30:.0f} GiB of memory ({found["platform"]}, torch {found["versions"]["torch"]}):

```bash
python tests/benchmarks/prune_large.py FOLDER
```

It writes the checkpoint and calls `sinkprune prune --preset {found["preset"]} --stream` with {found["sequences"]} sequences of {found["length"]} tokens at {found["levels"]} noise levels.

{_table(["", "measured", "goal"], rows)}

The weights are random: nothing is said about a model's quality.
{_ratios(measured)}"""


def _ratios(measured: dict[str, dict]) -> str:
    """Return the section on benchmarks; empty where none was recorded."""
    if not measured:
        return ""
    rows = []
    for what, found in measured.items():
        before, after = (
            f"{name} {amount:.3g} {found['unit']}" if amount is not None else "–"
            for name, amount in zip(found["names"], (found["before"], found["after"]), strict=True)
        )
        rows.append(
            [
                what,
                before,
                after,
                f"{found['value']:.2f}",
                found["goal"],
                "yes" if found["reached"] else "**no**",
            ]
        )
    hosts = sorted(
        {
            f"{found['threads']} {'thread' if found['threads'] == 1 else 'threads'} ({found['platform']}, torch {found['versions']['torch']})"
            for found in measured.values()
        }
    )
    return f"""
## Against other ways to do the same

`make benchmark` measures every row in turns in one run, so the ratio is what counts and not the seconds, and writes this table.
Measured on {", ".join(hosts)}. What *straightforward* code does, after published code, is written out in
[test_pruning_cost.py](../tests/benchmarks/test_pruning_cost.py); masks agree with its masks but for rounding.

{_table(["what", "compared with", "here", "ratio", "goal", "reached"], rows)}

Why calibration stays there: for identical masks both sides run the linears in the same precision, once here and twice there with
the output head. What attention and statistics cost more there, tracking and the rest of a forward take back here. Once is enough
as long as {WAITING_BYTES >> 30} GiB, or {WAITING_SHARE:.0%} of a GPU's memory, hold the inputs of one state, or of all states of a sequence where choices of
tokens need all of them ({", ".join(f"`{tokens}`" for tokens in EXCLUDE if tokens not in BY_ROW)}); beyond that it is twice here too.
"""


def pages() -> dict[str, str]:
    """Return the text of every written page by its path in the repository."""
    readme = (project_root() / "README.md").read_text(encoding="utf-8")
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md must hold the markers {BEGIN} and {END} once each")
    head, rest = readme.split(BEGIN)
    return {
        "docs/results.md": results_page(),
        "docs/models.md": models_page(),
        "docs/performance.md": performance_page(),
        "README.md": f"{head}{BEGIN}\n{readme_table()}\n{END}{rest.split(END)[1]}",
    }


def main() -> None:
    for name, text in pages().items():
        with atomic(project_root() / name) as partial:
            partial.write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()

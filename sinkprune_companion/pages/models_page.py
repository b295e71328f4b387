"""docs/models.md: the table of models, those that are refused with the reason, and what precision costs."""

import pandas as pd

from sinkprune_core.files import project_root
from sinkprune_core.models.catalog import EMBEDDED, MODELS, REFUSED, KnownModel
from sinkprune_core.models.hub import WANTED
from sinkprune_core.tables import markdown_table

HEAD = f"""# Models

Written by `python -m sinkprune_companion.pages.pages` from [models.yml](../sinkprune_core/data/models.yml).

Every name below works wherever a model is asked for: `load("…")`, `sinkprune prune …`, the `model` parameter
of a notebook; `name@revision` takes another revision, and so does a folder with the same files. Models become
native `transformers` classes by renaming weights: no remote code runs, pickled weights are not read, and what
is saved loads with plain `from_pretrained`. Downloads take
{", ".join(f"`{pattern}`" for pattern in WANTED)} and nothing else.

No model of these tables except the embedded pair was run by this project. Facts are leads: loading compares
them with the files, and a contradiction is an error that names both sides. The formats are checked on tiny
random checkpoints against the papers' formulas ([test_formats.py](../tests/models/test_formats.py))."""
PLACEMENT = """## Where a model lies

One device by default. `load(name, dtype, device_map="auto")`, or `--device-map auto`, spreads whole blocks
over all GPUs of a machine, reading every weight straight to its place; a mapping such as
`{"": 0, "model.layers.20": 1}` says it by hand. A model that fits neither memory nor GPUs is streamed from
disk, a block at a time (`sinkprune prune --stream`, chosen by itself where memory is short). Several GPUs
were not at hand: hooks were tested on one device, and maps for machines with two."""
SHAPE_COLUMNS = [
    "model",
    "size",
    "transformers class",
    "attention",
    "mask token",
    "logits shifted",
    "context",
]
SOURCE_COLUMNS = ["model", "autoregressive counterpart", "licence", "source of these facts", "note"]
PRECISION_COLUMNS = [
    "model",
    "dtype",
    "logits, root mean square error",
    "same first choice",
    "KL divergence (nats)",
    "change of the (bound on the) negative log-likelihood (nats per token, 95 % interval)",
]
SPACE = "\N{NO-BREAK SPACE}"


def models_page() -> str:
    """Return docs/models.md."""
    rows = MODELS.values()
    parts = [
        HEAD,
        markdown_table(SHAPE_COLUMNS, [_shape(row) for row in rows]),
        "## What is known of them, and how surely",
        markdown_table(SOURCE_COLUMNS, [_source(row) for row in rows]),
        PLACEMENT,
        "## Not covered",
        markdown_table(["model", "why"], list(REFUSED.items())),
    ]
    return "\n\n".join(parts) + "\n" + precision()


def _name(row: KnownModel) -> str:
    """Return a model's name, with a link where it is on the hub."""
    if row.id in EMBEDDED:
        return row.id
    return f"[{row.id}](https://huggingface.co/{row.repository})"


def _mask(row: KnownModel) -> str:
    """Return a model's mask token: its id, and its spelling where it has one."""
    if row.kind == "autoregressive":
        return "–"
    number = "from its tokenizer" if row.mask_token_id is None else str(row.mask_token_id)
    if row.mask_token:
        return f"{number} `{row.mask_token}`"
    return number


def _shape(row: KnownModel) -> list[object]:
    """Return a row of the first table."""
    return [
        _name(row),
        f"{row.parameters / 1e9:.3g}{SPACE}B, {row.bytes / 1e9:.3g}{SPACE}GB",
        f"`{row.native}`",
        "both" if row.kind == "diffusion" else "causal",
        _mask(row),
        "yes" if row.logits_shifted else "no",
        row.context or "not published",
    ]


def _source(row: KnownModel) -> list[object]:
    """Return a row of the second table."""
    notes = []
    if row.relation:
        notes.append(f"counterpart: {row.relation}")
    if row.note:
        notes.append(row.note)
    return [_name(row), row.twin or "–", row.licence, row.certainty, "; ".join(notes)]


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
    first = frame.iloc[0]
    return f"""
## What precision costs

Measured on the embedded pair against `float32`, on {first.sequences} sequences of {first.length} held-out
tokens ({first.positions} positions), on a CPU, by `python tests/benchmarks/precision.py`. `auto` takes
`bfloat16` where a CPU or GPU has units for it, else `float32` on a CPU and `float16` on a GPU. Rotary
frequencies stay in float32 whatever the dtype: a finished model that is cast as a whole rounds them and loses
more. A change of dtype can shift a likelihood by as much as two recipes differ, so only variants of one dtype
are compared.

{markdown_table(PRECISION_COLUMNS, rows)}
"""

"""The model card of an adapter: what it was trained on, how well it went, and how good it is beside its twin, all from files.

`measures.json` beside the adapter holds what was measured; the card is a function of it, of the training settings and of
the log, so that neither can be edited without the other.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sinkprune_core import corpus
from sinkprune_core.companion.pages import _table
from sinkprune_core.evaluation import quality
from sinkprune_core.files import atomic
from sinkprune_core.models import embedded
from sinkprune_core.models.language_model import CARD
from sinkprune_core.training.base import EMBEDDED_BASE
from sinkprune_core.training.lora import MEASURES, settings_of

MEASURED = "measures.json"
GOAL_NATS, GOAL_PAIRS = (
    0.6,
    0.75,
)  # NELBO above the twin's likelihood at most, right answers on two-choice items at least
REFITS = 500  # of the learning curve's power law, to residuals drawn with replacement
WIKITEXT, BLIMP, SUITE = "WikiText-2 validation", "BLiMP", "offline suite"
SOURCES = {"samples": "samples of the AR model", "documentation": "documentation"}
COLUMNS = {"samples": "samples of the base", "documentation": "documentation", "text": "held-out text"}


def write_card(folder: Path) -> Path:
    """Write README.md in `folder` from training.json, training_log.jsonl and, where it is there, measures.json; return it.

    Raises ValueError where the measures belong to another adapter.
    """
    file = folder / MEASURED
    measures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    if measures is not None and measures["adapter"] != adapter_digest(folder):
        raise ValueError(
            f"{file} was measured on another adapter than the one beside it: run `sinkprune card --folder {folder}`"
        )
    with atomic(folder / "README.md") as partial:
        partial.write_text(
            render(settings_of(folder / "training.json"), log_of(folder), measures), encoding="utf-8"
        )
    return folder / "README.md"


def log_of(folder: Path) -> list[dict]:
    """Return the rows of an exported training log."""
    return [
        json.loads(line) for line in (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def adapter_digest(folder: Path) -> str:
    """Return the SHA-256 of an exported adapter."""
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def render(settings: dict, log: Sequence[dict], measures: dict | None) -> str:
    """Return the model card: data and training from `settings` and `log`, quality from `measures` (None: not measured yet)."""
    kind, last, embeds = settings["kind"], log[-1], settings["base"] == EMBEDDED_BASE
    measure = MEASURES[kind]
    name = {"nelbo": "NELBO", "nll": "negative log-likelihood"}[measure]
    loss = {
        "diffusion": "masked cross-entropy weighted to the NELBO in nats per token, a uniform number of masks, stratified in\neach batch",
        "autoregressive": "cross-entropy of the next token",
    }[kind]
    shown = log[:: max(1, len(log) // 15)]
    shown = shown if shown[-1] is last else [*shown, last]
    columns = {f"train_{measure}": "training"} | {
        f"{measure}_{source}": title for source, title in COLUMNS.items() if f"{measure}_{source}" in last
    }
    curve = _table(
        ["tokens", "learning rate", *columns.values()],
        [
            [
                f"{row['tokens']:,}",
                f"{row['learning_rate']:.2g}",
                *(f"{row[column]:.3f}" for column in columns),
            ]
            for row in shown
        ],
    )
    fields = _table(
        ["setting", "value"],
        [
            [f"`{field}`", f"{value:,}" if isinstance(value, int) else value]
            for field, value in settings.items()
            if value is not None
        ],
    )
    appendix = "; notebook 01 draws them in\nits appendix" if embeds else ""
    return f"""{(_embedded_head if embeds else _other_head)(settings, last)}
{_quality(measures, kind) if embeds else ""}
## Data

{_data(settings, log)}

## Training

`sinkprune train`: {loss}; AdamW (0.9, 0.95), no weight decay, gradients clipped at 1; linear warm-up, flat, linear decay
at the end; bfloat16 autocast{" on a CPU" if embeds else ""}.

**Never chosen by the outcome.** Settings and stopping were chosen by held-out loss alone, never by what sinks do or by how
pruning comes out. `training_log.jsonl` has sink statistics along the run, which decide nothing{appendix}.

{fields}

Trained tokens: {last["tokens"]:,} in {last["step"]:,} steps.

## Learning curve

Held-out {name} while training, nats per token, on a few sequences that are the same in every row{"; the tables above measure more" if measures else ""}.

{curve}
{_outlook(measures)}"""


def _embedded_head(settings: dict, last: dict) -> str:
    title, how = {
        "diffusion": (
            "smol-dlm: SmolLM2-135M-Instruct as a masked diffusion language model",
            f"""`sinkprune_core.load("smol-dlm")` fetches the base, makes
attention bidirectional and merges the adapter. The mask token is the reserved entry `{embedded.MASK_TOKEN}` (id
{embedded.MASK_TOKEN_ID}); logits are shifted, position i-1 predicts token i.""",
        ),
        "autoregressive": (
            "smol-ar-adapted: the autoregressive twin of smol-dlm",
            """`sinkprune_core.load("smol-ar-adapted")` fetches the base and
merges the adapter. Recipe and data are those of smol-dlm, the loss is that of the next token: what then differs between
the two models is objective and direction, not domain.""",
        ),
    }[settings["kind"]]
    return f"""# {title}

A LoRA adapter (peft, bfloat16, safetensors) for the base in the PyPI wheel `{embedded.BASE.package}` {embedded.BASE.version}
(SHA-256 of its GGUF `{embedded.BASE.member_sha256}`, Apache-2.0). {how} Licence of the adapter: Apache-2.0.

## What it is for

Experiments on attention sinks and pruning that need a diffusion model and its autoregressive twin on a small machine. It is
no assistant: it has seen {last["tokens"]:,} tokens of this training.
"""


def _other_head(settings: dict, last: dict) -> str:
    base, mask = (
        Path(settings["base"]).name,
        ""
        if settings["kind"] != "diffusion"
        else f" The number of\nits mask token is in `{CARD}`; logits are shifted, position i-1 predicts token i.",
    )
    what = "a masked diffusion language model" if mask else "an autoregressive language model, trained on"
    return f"""# {base} as {what}

A LoRA adapter was trained on {base} and merged into it (bfloat16, safetensors); `sinkprune_core.load` reads this folder.{mask}
The licence is that of the base. It has seen {last["tokens"]:,} tokens of this training.
"""


def _data(settings: dict, log: Sequence[dict]) -> str:
    own = (
        "English paragraphs from docstrings of the standard\nlibrary and of installed packages (deduplicated"
        if not any(name.endswith("_text") for name in log[-1])
        else "paragraphs of a text of the user's own (as they stand"
    )
    samples = f"""Half samples of the base model itself (temperature 1, top-{corpus.TOP_K}, {settings["length"]} tokens, an assistant's turn; seed
{settings["seed"]}; the first {corpus.HELD_OUT_SAMPLES} are held out), half """
    return f"""{samples if settings["base"] == EMBEDDED_BASE else ""}{own}; a paragraph is held out by a hash of its words, one in
{corpus.HELD_OUT_SHARE}). No held-out text was ever trained on."""


def _estimate(row: dict, percent: bool = False) -> str:
    return ("{:.0%} [{:.0%}, {:.0%}]" if percent else "{:.2f} [{:.2f}, {:.2f}]").format(
        row["value"], row["low"], row["high"]
    )


def _verdict(row: dict, goal: float, above: bool) -> str:
    """Return whether a goal is met: the interval must say so, else it is open."""
    low, high = (row["low"], row["high"]) if above else (-row["high"], -row["low"])
    goal = goal if above else -goal
    return "met" if low >= goal else "missed" if high < goal else "open: the interval holds both"


def _goals(rows: dict) -> list[list[str]]:
    """Return the rows of the table of goals: goal, measured, verdict."""
    found = [
        [
            f"NELBO on {text} at most {GOAL_NATS} nats per token above the AR model",
            rows["likelihood", source, None, "difference"],
            GOAL_NATS,
            False,
        ]
        for source, text in SOURCES.items()
    ]
    found.append(
        [
            f"right answers on two-choice items at least {GOAL_PAIRS:.0%}",
            rows["items", SUITE, "all", "smol-dlm"],
            GOAL_PAIRS,
            True,
        ]
    )
    return [[goal, _estimate(row, above), _verdict(row, limit, above)] for goal, row, limit, above in found]


def _quality(measures: dict | None, kind: str) -> str:
    """Return the section on quality, "" for a kind of adapter that is not measured."""
    if measures is None:
        return (
            "" if kind != "diffusion" else "## How good it is\n\nNot measured yet: `sinkprune card` does.\n"
        )
    rows = {
        (
            row["measure"],
            row["on"],
            tuple(row["level"]) if isinstance(row["level"], list) else row["level"],
            row["model"],
        ): row
        for row in measures["rows"]
    }
    pick = lambda measure: {
        key[1:3]: row for key, row in rows.items() if key[0] == measure and key[3] == "smol-dlm"
    }
    settings, versions = measures["settings"], measures["environment"]["versions"]
    likelihood = [
        [
            SOURCES.get(text, text),
            *(
                _estimate(rows["likelihood", text, None, model])
                for model in ("smol-ar", "smol-dlm", "difference")
            ),
            row["units"],
        ]
        for (text, _), row in pick("likelihood").items()
    ]
    likelihood += [[WIKITEXT, *["not measured"] * 3, "–"]] * (
        WIKITEXT not in {text for text, _ in pick("likelihood")}
    )
    levels = sorted({level for _, level in pick("level")})
    by_level = [
        [
            SOURCES.get(text, text),
            *(
                _estimate(rows["level", text, level, "smol-dlm"])
                if ("level", text, level, "smol-dlm") in rows
                else "–"
                for level in levels
            ),
        ]
        for text in dict.fromkeys(text for text, _ in pick("level"))
    ]
    filled = [
        [
            SOURCES.get(text, text),
            f"{share:.0%}",
            *(
                _estimate(rows[measure, text, share, model], measure == "correct")
                for measure in ("correct", "nats")
                for model in ("smol-dlm", "smol-ar")
            ),
        ]
        for text, share in pick("correct")
    ]
    answers = [
        [
            task,
            group,
            *(
                _estimate(rows[measure, task, group, model], True)
                if (measure, task, group, model) in rows
                else "–"
                for measure in ("items", "pairs")
                for model in ("smol-dlm", "smol-ar")
            ),
        ]
        for task, group in pick("items")
    ]
    answers += [[BLIMP, "all", *["not measured"] * 2, "–", "–"]] * (
        not any(task.startswith(BLIMP) for task, _ in pick("items"))
    )
    written = "\n\n".join(
        f"`{prompt}` …\n\n"
        + "\n\n".join(
            f"~~~~text\n[{each['steps']} steps]{each['text']}\n~~~~"
            for each in measures["samples"]
            if each["prompt"] == prompt
        )
        for prompt in dict.fromkeys(each["prompt"] for each in measures["samples"])
    )
    return f"""## How good it is

Measured by `sinkprune card` and written to `{MEASURED}`: {settings["sequences"]} held-out sequences of {settings["length"]} tokens, half of each source, each at {settings["draws"]} noise levels,
in {settings["dtype"]}, seed {settings["seed"]} (torch {versions["torch"]}, transformers {versions["transformers"]}, {measures["environment"]["platform"]}). Brackets are 95 % bootstrap intervals over sequences, for tasks over
pairs of items. The AR model is `smol-ar`, the base as it is.

{_table(["goal", "measured", ""], _goals(rows))}

### Likelihood (nats per token)

The AR model's is exact, the DLM's is bounded by its NELBO, on the same tokens. The adapter was trained on documentation of this
kind and the AR model was not, so that there the difference is one of domain as well; its own samples are the AR model's home ground.

{_table(["held-out text", "AR model", "DLM, NELBO", "difference, paired", "sequences"], likelihood)}

### By noise level (nats per token)

The same NELBO by the share of tokens that are masked; its mean over all shares is the NELBO.

{_table(["held-out text", *(f"{low:.0%} – {high:.0%} masked" for low, high in levels)], by_level)}

### Filling masks

The DLM fills masked tokens from both sides at once; the AR model predicts the same tokens from everything before them.

{_table(["held-out text", "masked", "DLM, right", "AR model, right", "DLM, nats per token", "AR model, nats per token"], filled)}

### Two-choice tasks

Right answers, and pairs of items that are told apart by their contexts (chance is one half for both); likelihoods of the
DLM are bounds from {settings["draws"]} maskings.

{_table(["task", "group", "DLM", "AR model", "DLM, pairs told apart", "AR model, pairs told apart"], answers)}

### Samples

Temperature 1, {quality.SAMPLE_TOKENS} tokens, seed {settings["seed"]}, as they came.

{written}
"""


def _millions(tokens: float | None) -> str:
    return (
        "never"
        if tokens is None
        else f"{tokens / 1e6:,.3g} million"
        if tokens < 1e9
        else f"{tokens / 1e9:,.3g} billion"
        if tokens < 1e13
        else "over 10,000 billion"
    )


def _outlook(measures: dict | None) -> str:
    """Return what more training would bring by the learning curve, "" where nothing was measured."""
    if measures is None:
        return ""
    curves, hour = measures["learning_curve"], measures["gpu_hour"]
    fits = [
        [
            SOURCES[name],
            curve["points"],
            *(_estimate(curve[each]) for each in ("floor", "scale", "exponent")),
            f"{curve['residual']:.3f}",
        ]
        for name, curve in curves.items()
    ]
    rows = []
    for place, tokens in enumerate(gain["tokens"] for gain in next(iter(curves.values()))["gains"]):
        left = []
        for curve in curves.values():
            gain, gap = curve["gains"][place], curve["needed"] + GOAL_NATS
            left.append(
                _estimate(
                    {"value": gap - gain["value"], "low": gap - gain["high"], "high": gap - gain["low"]}
                )
            )
        rows.append([_millions(tokens) + (" (one GPU hour)" if tokens == hour["tokens"] else ""), *left])
    now = next(iter(curves.values()))["now"]
    today = [
        f"{_millions(now)} (this adapter)",
        *(f"{curve['needed'] + GOAL_NATS:.2f}" for curve in curves.values()),
    ]
    spans = {
        name: [_millions(curve["tokens"][each]) for each in ("value", "low", "high")]
        for name, curve in curves.items()
    }
    reach = [
        f"needed for {GOAL_NATS}, by this curve",
        *(
            "met already"
            if curve["needed"] <= 0
            else "never: above it at any number"
            if set(spans[name]) == {"never"}
            else "{} [{}, {}]".format(*spans[name])
            for name, curve in curves.items()
        ),
    ]
    return f"""
### What more training would bring

A power law, floor + scale · (tokens / million)^-exponent, fitted to the rows at the flat learning rate (the rate's decay
at the end of a run brings a little more, once). Brackets: 95 %, from {REFITS} refits to resampled residuals; they take the power
law for granted and residuals as independent, so they are too narrow.

{_table(["", "rows", "floor (nats)", "scale (nats)", "exponent", "residual (nats)"], fits)}

The distance to the AR model measured above, less the fall of this curve from {_millions(now)} tokens on:

{_table(["training tokens", *(f"NELBO above the AR model, {SOURCES[name]}" for name in curves)], [today, *rows, reach])}

A GPU hour is an **estimate, not measured**: {hour["hardware"]} at an assumed {hour["flops_per_second"] / 1e12:.0f} TFLOP/s and {hour["flops_per_token"] / 1e9:.2f} GFLOP per
token (forward, and twice as much backward) would train on {hour["tokens"] / 1e6:,.0f} million tokens; a model as small as this one keeps no GPU that busy.
An extrapolation to {hour["tokens"] / now:,.0f} times the tokens seen assumes fresh data, a rank of the adapter that stays sufficient and a power
law that goes on: read it as a direction.
"""

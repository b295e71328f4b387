"""docs/results.md: every claim with its controls, the paper's published rows with the commands that measure
them, and what others measured.
"""

from collections.abc import Iterable, Mapping

from sinkprune_companion.ledger import claims, published
from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.ledger.published import Result
from sinkprune_companion.pages import claims_page, others_page
from sinkprune_core.costs.compute import HARDWARE, SPEED
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.tables import markdown_table

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
WIKITEXT = (
    'python -c "from datasets import load_dataset as load; '
    f"open('{published.TEXT}', 'w').write('\\n\\n'.join("
    "load('Salesforce/wikitext', 'wikitext-2-raw-v1', split='train')['text']))\""
)
HEAD = """# Results

Written by `python -m sinkprune_companion.pages.pages` from the
[ledger](../sinkprune_companion/data/claims.yml),
the [published findings](../figures/findings) and
[published.yml](../sinkprune_companion/data/published.yml):
[every claim with its controls](#every-claim-with-its-controls), [the paper's results](#the-papers-results)
with the commands that measure them, and [what others measured at 8B](#at-8b-by-others).

## Every claim with its controls

One rule decides every row: *reproduced* when the whole 95 % interval lies on the claimed side, *contradicted*
when it lies on the other side, *no difference that matters* when it lies within a margin that was fixed
before the run, *undecided* otherwise. [figures/claims.md](../figures/claims.md) says what changed in the
ledger after results had been seen."""
PAPER = f"""## The paper's results

**None of these rows was run by this project.** They need a model of 8 billion parameters on a GPU. Every
published number below has the commands that measure it with this package; the recipes are explained in
[official.md](official.md), with all differences from the official code.

Hardware: {HARDWARE}. Hours: pruning + evaluation, FLOPs counted from the published shape of the model
divided by an assumed {SPEED / 1e12:.0f} TFLOP/s, so a lower bound; the lengths of the benchmarks' requests
behind them are guesses, good to a factor of two, and generation (GSM8K in 1,024 steps) is most of it.
`--limit 100` on the second command takes 100 items of every task. Add `--dry-run` to a pruning command to see
what it takes on your machine before anything is downloaded or computed.

Calibration text, once (the official code joins lines with spaces and cuts at random places; `sinkprune` packs
whole paragraphs with a separator):

```bash
{WIKITEXT}
```"""
INFERRED = "That the published LLaDA-8B is the base model, not the instruct one, is inferred from its scores."
UNPRINTED = """### Settings the paper reports on whose numbers we do not have

The paper also evaluates 25 % and 75 % sparsity, Dream, LLaDA-1.5 and MMaDA. Those tables were not at hand, so
no number is given; the commands are the same, and baselines come from another `--preset` (`wanda`,
`sparsegpt`).
"""


def results_page(ledger: Iterable[Claim], found: Mapping[str, Estimate | None]) -> str:
    """Return docs/results.md from the ledger and the findings of a run."""
    table = claims.verdicts(ledger, dict(found))
    parts = [HEAD, claims_page.by_kind(table), PAPER, *map(_section, _tables())]
    blocks = []
    for row in published.unprinted():
        title = f"# {row.model}, {row.sparsity:.0%}, about {_hours(row)} hours"
        blocks.append("\n".join([title, *row.commands()]))
    parts.append(f"{UNPRINTED}\n{_shell(blocks)}")
    parts.append(others_page.others_section())
    return "\n\n".join(parts) + "\n"


def _tables() -> list[list[Result]]:
    """Return the rows of every published table."""
    tables: dict[str, list[Result]] = {}
    for row in published.results():
        tables.setdefault(row.table, []).append(row)
    return list(tables.values())


def _section(rows: list[Result]) -> str:
    """Return the section of one published table."""
    first = rows[0]
    unit = first.unit[0].upper() + first.unit[1:]
    about = f"{unit}; source: {first.source}. {first.note} {INFERRED}"
    return f"### {first.title}\n\n{about}\n\n{_numbers(rows)}\n\n{_commands(rows)}"


def _numbers(rows: list[Result]) -> str:
    """Return one published table with the hours that its rows take."""
    columns = ["method", *(TASKS[task] for task in rows[0].values), "hours", "here"]
    lines = []
    for row in rows:
        digits = 2 if "percent" in row.unit else 4  # as many as were printed
        values = [f"{value:.{digits}f}" for value in row.values.values()]
        lines.append([row.method, *values, _hours(row), published.NOT_RUN])
    return markdown_table(columns, lines)


def _hours(row: Result) -> str:
    """Return the hours of pruning and of evaluation."""
    pruning = f"{row.pruning_hours():.2f}" if row.preset else "–"
    return f"{pruning} + {row.evaluation_hours():.0f}"


def _commands(rows: list[Result]) -> str:
    """Return one shell block with the commands of every row below the row's name."""
    return _shell(["\n".join([f"# {row.title}, {row.method}", *row.commands()]) for row in rows])


def _shell(blocks: list[str]) -> str:
    """Return blocks of shell commands as one block of a page."""
    commands = "\n\n".join(blocks)
    return f"```bash\n{commands}\n```"

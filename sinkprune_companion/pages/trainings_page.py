"""docs/trainings.md and its figure: which rows of the ledger other trainings of the embedded pair confirm.

`python -m sinkprune_companion.pages.trainings_page` draws the figure; `companion.pages` writes the page.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from sinkprune_companion.experiments.trainings import (
    ADAPTERS,
    DRAWS,
    PAIR,
    PRUNING,
    PUBLISHED,
    SINKS,
    Pair,
    kept_folder,
    pairs,
    published_folders,
)
from sinkprune_companion.figures import figures
from sinkprune_companion.ledger.claims import CLAIM, Claim, ledger
from sinkprune_companion.ledger.claims_table import records_behind
from sinkprune_companion.pages import phrases, side_by_side
from sinkprune_companion.pages.side_by_side import agreement, claims_table, disagree
from sinkprune_companion.run.records import Run
from sinkprune_core.files import project_root
from sinkprune_core.tables import markdown_table

FIGURE = "trainings"
BEGUN_WITH = "f82d306"  # the commit whose adapters all pairs go on from
ALL_SINKS = f"{PRUNING}/all_sinks_minus_none"  # all sinks left out, nothing else changed
HELD_OUT = {"natural_crops": "WikiText-2, crops", "natural_beginnings": "WikiText-2, beginnings"}
PAIRS = "pairs"


def rows_measured(claims: Iterable[Claim], measured: Sequence[Pair]) -> list[Claim]:
    """Return the claims of a ledger that every pair has a finding for."""
    return [
        claim
        for claim in claims
        if claim.notebook in (SINKS, PRUNING) and all(pair.found.get(claim.finding) for pair in measured)
    ]


def caveat() -> str:
    """Return what README must add where leaving all sinks out matters on another pair; else nothing."""
    measured = pairs()
    (claim,) = [each for each in ledger() if each.finding == ALL_SINKS]
    if not disagree(claim, measured):
        return ""
    values = [phrases.amount(pair.found[ALL_SINKS]) for pair in measured[1:]]
    return (
        f"It hangs on the training, too: on {len(measured) - 1} [other pairs](docs/trainings.md) leaving all "
        f"sinks out changes the loss by {phrases.joined(values)}."
    )


def summary() -> str:
    """Return one sentence for README: how many claims of the paper the other pairs agree on."""
    measured = pairs()
    says = agreement(
        _of_the_paper(measured), measured, "claims of the paper measured on more trainings", PAIRS
    )
    return f"{says} [Details](docs/trainings.md)."


def _of_the_paper(measured: Sequence[Pair]) -> list[Claim]:
    return [claim for claim in rows_measured(ledger(), measured) if claim.kind == CLAIM]


def draw() -> list[Path]:
    """Draw the figure of the paper's claims into `figures/trainings`; return its files."""
    measured = pairs()
    claims = _of_the_paper(measured)
    says = agreement(claims, measured, "claims of the paper", PAIRS).rstrip(".")
    run = Run(FIGURE, FIGURE, {"pairs": [pair.name for pair in measured]})
    run.records_read.update(_records_behind())
    caption = f"claims of the paper on {len(measured)} trained pairs, with 95 % intervals. {says}"
    drawn = side_by_side.plot_side_by_side(claims, measured, says)
    figures.save_figure(run, drawn, FIGURE, side_by_side.as_table(claims, measured, "pair"), caption)
    files = sorted((run.folder / "figures" / FIGURE).iterdir())
    return [Path(shutil.copyfile(file, kept_folder() / file.name)) for file in files]


def _records_behind() -> dict[str, dict]:
    """Return where the records behind all findings come from, by pair, notebook and name of the record."""
    sinks, pruning = published_folders()
    others = [file.parent for file in sorted(kept_folder().glob(f"*/{PAIR}"))]
    sources = [(PUBLISHED, sinks, SINKS), (PUBLISHED, pruning, PRUNING)]
    sources += [(folder.name, folder, (SINKS, PRUNING)) for folder in others]
    behind = {}
    for name, folder, notebooks in sources:
        for record, origin in records_behind(folder).items():
            if record.startswith(notebooks):
                behind[f"{name}/{record}"] = origin
    return behind


def trainings_page() -> str:
    """Return docs/trainings.md."""
    measured = pairs()
    claims = rows_measured(ledger(), measured)
    own = _of_the_paper(measured)
    controls = [claim for claim in claims if claim.kind != CLAIM]
    apart = [claim for claim in [*own, *controls] if disagree(claim, measured)]
    others = phrases.joined(pair.name for pair in measured if pair.name != PUBLISHED)
    return f"""# Other trainings

Written by `python -m sinkprune_companion.pages.pages` from [figures/trainings](../figures/trainings).

Every verdict of this project rests on one diffusion model and one twin. A pair of another seed could say
something else. So claim 1 and the headline rows of pruning were measured again, in the sizes of profile hour
but with {DRAWS} calibration draws, on {len(measured) - 1} more pairs: {others}. *Published* is the pair
that ships, in the sizes of profile hour as well: on less text, and under one noise for all calibration draws,
as [more text](more_text.md) compares with the published run.

**{agreement(own, measured, "claims of the paper", PAIRS)}**
{agreement(controls, measured, "controls", PAIRS)}
Pairs disagree so on:

{side_by_side.bullets(apart, measured)}

![{len(measured)} trained pairs](../figures/trainings/{FIGURE}.png)

## What differs, and what does not

{_trainings_table(measured)}

Held-out losses are nats per token on the few sequences of the training's log, NELBO for diffusion models.
**All pairs begin with the same weights**: adapters that had seen {_earlier(measured)} tokens under earlier
settings, of seed 0. From there on the seed decides the crops, their order and the noise. The other pairs saw
half as many tokens from there on: where a pair disagrees with the published one, seed and tokens both differ,
and either may be why. So this shows how much the last part of a training matters; it does not
show what a training from the beginning with another seed would give.

## Claims of the paper

{claims_table(own, measured)}

## Controls

{claims_table(controls, measured)}

An interval is over prompts, or over calibration draws and sequences; no interval holds the chance of a
training. The margin is each pair's own where it is a share of its damage.

## To repeat it

The first command brings back the adapters that all pairs began with. Then, for each pair: the diffusion model
is trained, its twin is trained, and the pair is measured. On one core with units for bfloat16
{_hours(measured)}.

{_commands(measured)}
"""


def _trainings_table(measured: Iterable[Pair]) -> str:
    rows = []
    for pair in measured:
        row = [pair.name, pair.settings["diffusion"]["seed"]]
        for kind, loss in (("diffusion", "nelbo"), ("autoregressive", "nll")):
            row.append(f"{pair.settings[kind]['tokens']:,}")
            row += [f"{pair.logs[kind][f'{loss}_{text}']:.3f}" for text in HELD_OUT]
        rows.append(row)
    heads = ["pair", "seed"]
    for model in ("DLM", "twin"):
        heads.append(f"{model}: tokens from there on")
        heads += [f"{model}: {text}" for text in HELD_OUT.values()]
    return markdown_table(heads, rows)


def _earlier(measured: Sequence[Pair]) -> str:
    settings = measured[0].settings
    return phrases.joined(f"{one['earlier_tokens']:,} ({kind})" for kind, one in settings.items())


def _hours(measured: Sequence[Pair]) -> str:
    """Return how long the trainings of the last pair took, as its logs say."""
    pair = measured[-1]
    minutes = []
    for kind in pair.settings:
        seconds = pair.settings[kind]["tokens"] / pair.logs[kind]["tokens_per_second"]
        minutes.append(f"{seconds / 60:.0f} minutes ({kind})")
    return f"the trainings of {pair.name} took {phrases.joined(minutes)}"


def _commands(measured: Sequence[Pair]) -> str:
    lines = [f"git worktree add old {BEGUN_WITH}"]
    for pair in measured[1:]:
        folders = []
        for kind, one in pair.settings.items():
            folder = f"{pair.name}-{kind}"
            old = f"old/sinkprune_core/data/adapters/{ADAPTERS[kind]}"
            lines.append(
                f"sinkprune train --kind {kind} --begin-with {old} --tokens {one['tokens']} "
                f"--decay-share {one['decay_share']} --seed {one['seed']} "
                f"--folder runs/{folder} --export {folder}"
            )
            folders.append(folder)
        lines.append(f"python -m sinkprune_companion.experiments.trainings {pair.name} {' '.join(folders)}")
    return "```bash\n" + "\n".join(lines) + "\n```"


if __name__ == "__main__":
    for drawn in draw():
        print(drawn.relative_to(project_root()))

"""docs/more_text.md and its figures: what changes with more calibration text, and with less chance.

`python -m sinkprune_companion.pages.more_text_page` draws the figures; `companion.pages` writes the page.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sinkprune_companion.experiments.headline_rows import LENGTH
from sinkprune_companion.experiments.more_text import Amount, amounts, kept_folder
from sinkprune_companion.experiments.pruning_findings import COMPARISONS
from sinkprune_companion.figures import figures, forests
from sinkprune_companion.ledger.claims import CLAIM
from sinkprune_companion.ledger.claims_table import records_behind
from sinkprune_companion.pages import phrases, side_by_side
from sinkprune_companion.pages.more_text_words import (
    compared,
    damage_in_words,
    effect_of,
    effects_in_words,
    finding_of,
    rows_measured,
    says,
    under_one_noise,
    under_own_noise,
)
from sinkprune_companion.run.records import Run
from sinkprune_core.files import project_root
from sinkprune_core.tables import markdown_table

DIFFERENCES = "more_text"
DAMAGE = "damage"
AMOUNTS = "amounts"


def effects(measured: Sequence[Amount]) -> pd.DataFrame:
    """Return a row per comparison and amount of text, as `forests.plot_effects` draws them."""
    rows = []
    for name in compared(measured):
        for amount in measured:
            found = finding_of(amount, name)
            row = {
                "section": COMPARISONS[name].label,
                "comparison": amount.name,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "margin": found.margin,
                "verdict": effect_of(found),
                "error_draws": found.error_draws,
                "error_sequences": found.error_sequences,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def draw() -> list[Path]:
    """Draw both figures into `figures/more_text`; return their files."""
    measured = amounts()
    run = Run(DIFFERENCES, DIFFERENCES, {AMOUNTS: [amount.name for amount in measured]})
    run.records_read.update(_records_behind(measured))
    title = effects_in_words(measured)
    table = effects(measured)
    drawn = forests.plot_effects(table, "difference in NELBO, 50 % (nats per token)", title)
    caption = f"differences at 50 % by amount of calibration text, with 95 % intervals. {title}"
    figures.save_figure(run, drawn, DIFFERENCES, table, caption)
    costs = damage(measured)
    title = phrases.capital(damage_in_words(measured))
    cost = "NELBO above the dense model's (nats per token)"
    drawn = forests.plot_methods(costs, "amount", "recipe", cost, title)
    caption = f"what pruning costs at 50 % by amount of calibration text, with 95 % intervals. {title}"
    figures.save_figure(run, drawn, DAMAGE, costs, caption)
    files = sorted((run.folder / "figures" / DIFFERENCES).iterdir())
    return [Path(shutil.copyfile(file, kept_folder() / file.name)) for file in files]


def damage(measured: Sequence[Amount]) -> pd.DataFrame:
    """Return what every recipe costs by amount of text: `amount`, `recipe`, `value`, `low`, `high`.

    That is under one noise for all draws, the same for all amounts.
    """
    alike = under_one_noise(measured)
    return pd.concat([amount.damage.assign(amount=amount.name) for amount in alike], ignore_index=True)


def _records_behind(measured: Sequence[Amount]) -> dict[str, dict]:
    """Return where the records behind all findings come from, by profile and name of the record."""
    behind = {}
    for amount in measured:
        for record, origin in records_behind(kept_folder() / amount.way).items():
            behind[f"{amount.way}/{record}"] = origin
    return behind


def more_text_page() -> str:
    """Return docs/more_text.md."""
    measured = amounts()
    least, most = shared = under_one_noise(measured)
    rows = rows_measured(shared)
    own = [claim for claim in rows if claim.kind == CLAIM]
    controls = [claim for claim in rows if claim.kind != CLAIM]
    last = measured[-1]
    turned = [claim for claim in rows if not side_by_side.has_one_verdict(claim, shared)]
    return f"""# More calibration text

Written by `python -m sinkprune_companion.pages.pages` from [figures/more_text](../figures/more_text).

Profile {least.way} calibrates on {least.size["calibration"]} sequences of {LENGTH} tokens, in
{least.size["seeds"]} draws; Wanda and SparseGPT were published with 128, of 2,048 tokens. Here the rows at
50 and 75 % that claims are read from were measured on the {most.size["calibration"]} sequences and
{most.size["seeds"]} draws of profile full as well (at 75 % in fewer draws), all else equal: the
same {most.size["sequences"]} held-out sequences under the same noise, and clean baselines with as many
tokens as noised recipes ({_tokens(most):,} instead of {_tokens(least):,}).
{_about_own_noise(measured)}
**{says(measured)}**
As for what a recipe costs, {damage_in_words(measured)}.

![differences by amount of calibration text](../figures/more_text/{DIFFERENCES}.png)

## What changed

{side_by_side.bullets(turned, shared) or "No verdict changed."}

## Claims of the paper

{side_by_side.claims_table(own, shared)}

## Controls

{side_by_side.claims_table(controls, shared)}
{_own_noise_table(measured)}

## What is left to chance

Half-widths beside the smallest difference that matters (±), and the standard errors that the choice of
calibration draws and that of held-out sequences add, in thousandths of a nat per token. What one noise
for all draws adds counts as chance of the sequences. {_by_sequences(measured)}

{_chance_table(measured)}

## What pruning costs

![what pruning costs by amount of calibration text](../figures/more_text/{DAMAGE}.png)

## To repeat it

Calibration takes as many times longer as its text is longer. The records lie in
`figures/records-{last.way}.tar.xz`, so the command reads them; without that file it
measures. `--seeds 0 1 2` measures some draws, so that several processes can share them.

```bash
python -m sinkprune_companion.experiments.more_text {last.way}
```
"""


def _tokens(amount: Amount) -> int:
    return amount.size["calibration"] * amount.size["noise_levels"] * LENGTH


def _about_own_noise(measured: Sequence[Amount]) -> str:
    """Return what the third way is and why, a paragraph of its own; nothing where it was not measured."""
    if under_own_noise(measured) is None:
        return ""
    return """
All of these are evaluated under one noise, the same masked positions for every variant and every calibration
draw, so that the chance of this one masking stays, however many draws there are. Notebook 00 averages four
maskings of every sequence, and its differences spread less. So the draws were measured once more, each under
noise of its own (its seed is the draw's number). Variants of one draw still share it, and draws average it.
Verdicts rest on that run. The only reason was the width of intervals. By then the results under one noise
were known, and those of six draws under noise of their own.
"""


def _own_noise_table(measured: Sequence[Amount]) -> str:
    """Return the rows under noise of its own beside those under one noise, a section; empty without them."""
    own = under_own_noise(measured)
    if own is None:
        return ""
    both = (under_one_noise(measured)[1], own)
    return f"""
## Under noise of its own for every draw

{side_by_side.claims_table(rows_measured(both), both)}
"""


def _by_sequences(measured: Sequence[Amount]) -> str:
    """Return in words to how many comparisons sequences add more chance than draws do, by amount of text."""
    names = compared(measured)
    told = []
    for amount in measured:
        found = [finding_of(amount, name) for name in names]
        count = sum(each.error_sequences > each.error_draws for each in found)
        told.append(f"{count} with {amount.name}")
    return (
        f"Of {len(names)} comparisons, sequences add more than draws to {'; '.join(told)}: "
        "in these, more held-out text or more noise would narrow the interval most, in the others more draws."
    )


def _chance_table(measured: Sequence[Amount]) -> str:
    heads = ["comparison"]
    for amount in measured:
        heads += [f"{amount.name}: half-width", "±", "draws", "held-out sequences"]
    rows = []
    for name in compared(measured):
        row = [COMPARISONS[name].label]
        for amount in measured:
            found = finding_of(amount, name)
            values = (found.half_width, found.margin, found.error_draws, found.error_sequences)
            row += [f"{1000 * value:.1f}" for value in values]
        rows.append(row)
    return markdown_table(heads, rows)


if __name__ == "__main__":
    for drawn in draw():
        print(drawn.relative_to(project_root()))

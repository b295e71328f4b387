"""docs/more_text.md and its figures: what changes with more calibration text, and with less chance.

`python -m sinkprune_core.companion.more_text_page` draws the figures; `companion.pages` writes the page.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sinkprune_core.companion import figures, forests, phrases, side_by_side
from sinkprune_core.companion.claims import CLAIM, Claim, ledger
from sinkprune_core.companion.claims_table import records_behind
from sinkprune_core.companion.headline_rows import LENGTH, NOTEBOOK
from sinkprune_core.companion.more_text import Amount, amounts, kept_folder
from sinkprune_core.companion.pruning_findings import COMPARISONS
from sinkprune_core.companion.records import Run
from sinkprune_core.evaluation.intervals import Estimate
from sinkprune_core.files import project_root
from sinkprune_core.tables import markdown_table

DIFFERENCES = "more_text"
DAMAGE = "damage"
AMOUNTS = "amounts"
PAGE = "docs/more_text.md"


def rows_measured(measured: Sequence[Amount]) -> list[Claim]:
    """Return the rows of the ledger that every amount of text has a finding for."""
    return [claim for claim in ledger() if all(amount.found.get(claim.finding) for amount in measured)]


def compared(measured: Sequence[Amount]) -> list[str]:
    """Return the comparisons that every amount of text has a finding for, in order."""
    return [name for name in COMPARISONS if all(_finding(amount, name) for amount in measured)]


def _finding(amount: Amount, comparison: str) -> Estimate | None:
    return amount.found.get(f"{NOTEBOOK}/{comparison}")


def effect_of(found: Estimate) -> str:
    """Return in a word what a difference in loss says, one of `phrases.EFFECTS`."""
    unclear = phrases.EQUIVALENT if phrases.is_small(found) else phrases.OPEN
    return phrases.by_sign(found, phrases.HURTS, phrases.HELPS, unclear)


def effects(measured: Sequence[Amount]) -> pd.DataFrame:
    """Return a row per comparison and amount of text, as `forests.plot_effects` draws them."""
    rows = []
    for name in compared(measured):
        for amount in measured:
            found = _finding(amount, name)
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


def summary() -> str:
    """Return what README says of more calibration text, without the numbers."""
    measured = amounts()
    least, most = under_one_noise(measured)
    rows = rows_measured((least, most))
    turned = [claim for claim in rows if not side_by_side.has_one_verdict(claim, (least, most))]
    sentence = (
        f"On {most.size['calibration']} calibration sequences instead of {least.size['calibration']}, "
        f"{len(turned)} of {len(rows)} verdicts turn"
    )
    for claim in turned:
        sentence += f"; *{claim.says}*: now {claim.verdict(most.found[claim.finding])}"
    own = under_own_noise(measured)
    less_chance = ""
    if own is not None:
        turns = _turns(rows_measured((most, own)), most, own).removeprefix("; ")
        if turns:
            less_chance = f" With noise of its own for every draw, {turns}."
    return f"{sentence} ([more text]({PAGE})).{less_chance}"


def under_one_noise(measured: Sequence[Amount]) -> tuple[Amount, Amount]:
    """Return the least and the most text that were measured under one noise for all draws."""
    alike = [amount for amount in measured if not amount.own_noise]
    return alike[0], alike[-1]


def under_own_noise(measured: Sequence[Amount]) -> Amount | None:
    """Return the amount of text that was measured under noise of its own for every draw, if any was."""
    return next((amount for amount in measured if amount.own_noise), None)


def says(measured: Sequence[Amount]) -> str:
    """Return in words what more text changes, and what noise of its own for every draw does."""
    own = under_own_noise(measured)
    _, most = under_one_noise(measured)
    return (
        more_text_says(measured) if own is None else f"{more_text_says(measured)} {_less_chance(most, own)}"
    )


def more_text_says(measured: Sequence[Amount]) -> str:
    """Return in words how many rows keep their verdict with most text, and what changes.

    That is every claim of the paper and every row of README's table that turns, and every comparison whose
    two intervals do not overlap.
    """
    least, most = under_one_noise(measured)
    rows = rows_measured((least, most))
    kept = [claim for claim in rows if side_by_side.has_one_verdict(claim, (least, most))]
    own = [claim for claim in rows if claim.kind == CLAIM]
    sentence = (
        f"Calibrated on {most.size['calibration']} sequences instead of {least.size['calibration']}, "
        f"in {most.size['seeds']} draws instead of {least.size['seeds']}, "
        f"{len(kept)} of {len(rows)} verdicts at 50 and 75 % stay"
    )
    if all(claim in kept for claim in own):
        sentence += f", those of all {len(own)} claims of the paper among them"
    sentence += _turns(rows, least, most)
    sentences = [sentence, *(_change(name, least, most) for name in apart(least, most))]
    return f"{'. '.join(sentences)}."


def _turns(rows: Sequence[Claim], before: Amount, after: Amount) -> str:
    """Return in words which claims of the paper and rows of README's table have another verdict after."""
    told = ""
    for claim in rows:
        is_told = claim.kind == CLAIM or claim.short is not None
        if is_told and not side_by_side.has_one_verdict(claim, (before, after)):
            told += f"; *{claim.says}* turns {side_by_side.in_words(claim, after.found[claim.finding])}"
    return told


def _less_chance(shared: Amount, own: Amount) -> str:
    """Return in words what noise of its own for every draw does to intervals and verdicts."""
    rows = rows_measured((shared, own))
    kept = sum(side_by_side.has_one_verdict(claim, (shared, own)) for claim in rows)
    names = compared((shared, own))
    wide = [name for name in names if not _is_within_margin(shared, name)]
    fall = []
    for name in wide:
        before, after = (phrases.number(_finding(amount, name).half_width) for amount in (shared, own))
        fall.append(f"{COMPARISONS[name].label} {before} to {after}")
    below = sum(_is_within_margin(own, name) for name in names)
    return (
        f"With noise of its own for each of {own.size['seeds']} draws, instead of one for all "
        f"{shared.size['seeds']}, half-widths below the smallest difference that matters: {below} of "
        f"{len(names)} comparisons instead of {len(names) - len(wide)} ({phrases.joined(fall)}); {kept} of "
        f"{len(rows)} verdicts stay{_turns(rows, shared, own)}."
    )


def _is_within_margin(amount: Amount, comparison: str) -> bool:
    found = _finding(amount, comparison)
    return found.half_width < found.margin


def apart(least: Amount, most: Amount) -> list[str]:
    """Return the comparisons on which the intervals of two amounts of text do not overlap."""
    names = []
    for name in compared((least, most)):
        one, other = _finding(least, name), _finding(most, name)
        if one.high < other.low or other.high < one.low:
            names.append(name)
    return names


def _change(comparison: str, least: Amount, most: Amount) -> str:
    """Return in words what a comparison says with the least and with the most text."""
    one, other = (phrases.amount(_finding(amount, comparison)) for amount in (least, most))
    about = COMPARISONS[comparison]
    return (
        f"*{about.label}* ({about.group}) goes from {one} to {other} {phrases.NATS}: "
        "there the amount of text decides"
    )


def effects_in_words(measured: Sequence[Amount]) -> str:
    """Return how many comparisons say the same with the least and the most text, and which lie apart."""
    least, most = under_one_noise(measured)
    names = compared((least, most))
    same = sum(effect_of(_finding(least, name)) == effect_of(_finding(most, name)) for name in names)
    sentence = (
        f"{same} of {len(names)} comparisons say the same on {most.size['calibration']} sequences as on "
        f"{least.size['calibration']}"
    )
    changes = []
    for name in apart(least, most):
        one, other = (phrases.number(_finding(amount, name).value) for amount in (least, most))
        changes.append(f"{COMPARISONS[name].label} goes from {one} to {other}")
    return "; ".join([sentence, *changes])


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


def damage_in_words(measured: Sequence[Amount]) -> str:
    """Return which recipe's damage falls most from the least text to the most, and which one's least."""
    least, most = (amount.damage.set_index("recipe").value for amount in under_one_noise(measured))
    change = most - least[most.index]
    told = [
        f"{name} {side} ({phrases.number(least[name], 3)} to {phrases.number(most[name], 3)} nats)"
        for name, side in ((change.idxmin(), "most"), (change.idxmax(), "least"))
    ]
    return f"more text helps {told[0]} and {told[1]}"


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

Written by `python -m sinkprune_core.companion.pages` from [figures/more_text](../figures/more_text).

Profile {least.way} calibrates on {least.size["calibration"]} sequences of {LENGTH} tokens, in
{least.size["seeds"]} draws; Wanda and SparseGPT were published with 128, of 2,048 tokens. Here the rows at
50 and 75 % that claims are read from were measured again on the {most.size["calibration"]} sequences and
{most.size["seeds"]} draws of profile {most.way} (at 75 % in fewer draws, one and two), all else equal: the
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
python -m sinkprune_core.companion.more_text {last.way}
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
maskings of every sequence, and its differences spread less: so the run was repeated with noise of its own for
every draw (its seed is the draw's number). Variants of one draw still share it, and draws average it. How
wide intervals are was the only reason, and what the first run had found was known by then.
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
        found = [_finding(amount, name) for name in names]
        count = sum(each.error_sequences > each.error_draws for each in found)
        told.append(f"{count} with {amount.name}")
    return (
        f"Of {len(names)} comparisons, sequences add more than draws to {'; '.join(told)}: "
        "there more held-out text would decide, or more noise, not more calibration text."
    )


def _chance_table(measured: Sequence[Amount]) -> str:
    heads = ["comparison"]
    for amount in measured:
        heads += [f"{amount.name}: half-width", "±", "draws", "held-out sequences"]
    rows = []
    for name in compared(measured):
        row = [COMPARISONS[name].label]
        for amount in measured:
            found = _finding(amount, name)
            values = (found.half_width, found.margin, found.error_draws, found.error_sequences)
            row += [f"{1000 * value:.1f}" for value in values]
        rows.append(row)
    return markdown_table(heads, rows)


if __name__ == "__main__":
    for drawn in draw():
        print(drawn.relative_to(project_root()))

"""docs/claims_to_figures.md: from every claim to the command that decides it, how long that takes, and the
figure that shows it.
"""

import re
from collections.abc import Iterable

from sinkprune_companion.ledger.claims import Claim
from sinkprune_companion.run.run_costs import by_profile, time_text
from sinkprune_core.files import project_root
from sinkprune_core.tables import markdown_table

HEAD = """# From a claim to its figure

Written by `python -m sinkprune_companion.pages.pages` from the
[ledger](../sinkprune_companion/data/claims.yml) and
[run_costs.json](run_costs.json). Each notebook below decides the claims beneath it. Its command runs it
in the sizes of profile quick; `make reproduce PROFILE=full` runs all of them with more text. Core-minutes
are those of profile quick. A figure has its data (CSV) and its origin (JSON) beside it. The verdicts
stand in [results.md](results.md)."""
# The file and function to read for each notebook, beside its reading in notebook_readings.
MEASURED_BY = {
    "01_sink_variance": ("sinks/detection.py", "variability"),
    "02_hiding_sinks": ("companion/hiding_scores.py", "hiding_scores"),
    "03_pruning_results": ("companion/pruning_findings.py", "likelihood_findings"),
    "04_matched_compute": ("evaluation/likelihood.py", "nelbo"),
    "05_what_does_the_work": ("companion/contrasts.py", "effects"),
}
# The first pattern that a finding matches names its figure.
FIGURES = {
    "01_sink_variance": [
        (r".*_(above_others|newest|newest_shares|so_far_shares)$", "readings"),
        (r".*_layers$", "layers"),
        (r".*_(first_token|from_nothing|samples|documentation|tokens_\d+|dream)$", "conditions"),
        (r".*", "variability"),
    ],
    "02_hiding_sinks": [
        (r".*_layers$", "layers"),
        (r".*_(samples|documentation|tokens_\d+|same_share)$", "differences_conditions"),
        (r"first_minus_.*|first_token_loss_.*", "positions"),
        (r".*", "differences"),
    ],
    "03_pruning_results": [
        (r"accuracy_.*", "accuracy"),
        (r"ar_.*", "differences_ar"),
        (r"gain_growth.*", "quality"),
        (r".*_\d+_\d+$", "differences_patterns"),
        (r"(structured|flap)_.*", "differences_structured"),
        (r".*_(?P<percent>\d+)$", "differences_{percent}"),
        (r".*", "differences_50"),
    ],
    "04_matched_compute": [(r".*", "differences")],
    "05_what_does_the_work": [
        (r"(main_sinks|official_minus_wanda)_[a-z].*", "kinds_of_text"),
        (r"main_.*_(?P<percent>\d+)$", "effects_{percent}"),
        (r".*", "effects"),
    ],
}


def figure_of(finding: str) -> str:
    """Return the figure that shows a finding, as notebook/name."""
    notebook, name = finding.split("/")
    for pattern, figure in FIGURES[notebook]:
        matched = re.fullmatch(pattern, name)
        if matched:
            return f"{notebook}/{figure.format(**matched.groupdict())}"
    raise ValueError(f"finding {finding!r} matches no pattern: add one to FIGURES")


def figures_page(ledger: Iterable[Claim]) -> str:
    """Return docs/claims_to_figures.md."""
    by_notebook: dict[str, list[Claim]] = {}
    for claim in ledger:
        if claim.notebook:
            by_notebook.setdefault(claim.notebook, []).append(claim)
    parts = [HEAD]
    for notebook, members in sorted(by_notebook.items()):
        parts.append(_section(notebook, members))
    return "\n\n".join(parts) + "\n"


def _section(notebook: str, members: list[Claim]) -> str:
    """Return the section of one notebook."""
    quick = by_profile()["quick"]["costs"][notebook]
    place, function = MEASURED_BY[notebook]
    rows = [[claim.says, _figure(claim.finding), f"`{claim.finding.split('/')[1]}`"] for claim in members]
    return f"""## [{notebook[:2]} · {notebook[3:].replace("_", " ")}](../notebooks/{notebook}.ipynb)

{time_text(quick).capitalize()}; measured by [`{function}`](../sinkprune_core/{place}):

```bash
papermill notebooks/{notebook}.ipynb out.ipynb -k python3 -p profile mine
```

{markdown_table(["claim", "figure", "finding"], rows)}"""


def _figure(finding: str) -> str:
    """Return a link to the figure of a finding; its name alone where the published run has none."""
    name = figure_of(finding)
    short = name.split("/")[1]
    if (project_root() / "figures" / f"{name}.png").exists():
        return f"[{short}](../figures/{name}.png)"
    return short

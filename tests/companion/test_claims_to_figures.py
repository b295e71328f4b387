"""From a claim to the figure that shows its finding."""

import pytest

from sinkprune_companion.ledger import claims
from sinkprune_companion.pages import figures_page
from sinkprune_core.files import project_root


@pytest.mark.parametrize(
    ("finding", "figure"),
    [
        ("01_sink_variance/temporal_variance_difference", "variability"),
        ("01_sink_variance/overlap_difference_newest_shares", "readings"),
        ("01_sink_variance/overlap_difference_tokens_512", "conditions"),
        ("02_hiding_sinks/excess_difference_middle_layers", "layers"),
        ("02_hiding_sinks/first_minus_random_ar_tokens_512", "differences_conditions"),
        ("02_hiding_sinks/top_minus_random_ar_tokens_512_same_share", "differences_conditions"),
        ("02_hiding_sinks/first_minus_random_ar_first_token", "positions"),
        ("02_hiding_sinks/written_difference_dream", "differences"),
        ("03_pruning_results/paper_minus_wanda", "differences_50"),
        ("03_pruning_results/paper_minus_wanda_75", "differences_75"),
        ("03_pruning_results/paper_minus_wanda_2_4", "differences_patterns"),
        ("03_pruning_results/structured_sink_minus_structured_30", "differences_structured"),
        ("03_pruning_results/accuracy_suite_paper_minus_wanda_50", "accuracy"),
        ("05_what_does_the_work/main_sinks_75", "effects_75"),
        ("05_what_does_the_work/main_sinks_natural", "kinds_of_text"),
    ],
)
def test_a_finding_leads_to_the_figure_that_shows_it(finding, figure):
    assert figures_page.figure_of(finding) == f"{finding.split('/')[0]}/{figure}"


def test_every_claim_with_a_notebook_leads_to_a_figure_that_the_notebook_saves():
    page = figures_page.figures_page(claims.ledger())
    for claim in claims.ledger():
        if not claim.notebook:
            continue
        assert f"| {claim.says} |" in page
        name = figures_page.figure_of(claim.finding).split("/")[1]
        source = (project_root() / "notebooks" / f"{claim.notebook}.py").read_text(encoding="utf-8")
        family = name.split("_")[0]
        assert f'"{name}"' in source or f'"{family}"' in source or f'f"{family}_{{' in source, name

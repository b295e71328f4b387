"""Pages are in step with what they are written from, and no sentence outlives the verdict it presumes."""

import json
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from jinja2 import DictLoader, UndefinedError
from matplotlib.figure import Figure

from sinkprune.evaluation.intervals import Estimate
from sinkprune.evaluation.verdict_rule import NO_DIFFERENCE
from sinkprune_companion import project_root
from sinkprune_companion.figures import claims_strip, headline, titles
from sinkprune_companion.ledger import claims
from sinkprune_companion.ledger.results import Results, results_for, results_of
from sinkprune_companion.pages import notebook_cells, pages, render, sources
from sinkprune_companion.run import templates as templating
from sinkprune_companion.run.profiles import PUBLISHED
from sinkprune_companion.run.records import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """All pages as they are written now."""
    return pages.pages(project_root() / "figures")


@pytest.fixture
def templates(monkeypatch):
    """Templates by name, in the place of those of the package."""
    by_name: dict[str, str] = {}
    before = templating.environment

    def environment():
        made = before()
        made.loader = DictLoader(by_name)
        return made

    monkeypatch.setattr(templating, "environment", environment)
    return by_name


# templates


def test_the_pages_are_in_step_with_what_they_are_written_from(written):
    for name, text in written.items():
        file = project_root() / name
        assert file.read_text(encoding="utf-8") == text, f"{name}: run python -m sinkprune_companion.pages"


def test_a_sentence_stops_where_its_verdict_has_changed_and_says_where_it_stands(tmp_path):
    """The whole way: published findings of which one has moved to the other side of zero."""
    shutil.copytree(project_root() / "figures" / "findings", tmp_path / "findings")
    file = tmp_path / "findings" / "03_leaving_sinks_out.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    estimate = kept["findings"]["paper_minus_wanda"]
    estimate |= {"value": -estimate["value"], "low": -estimate["high"], "high": -estimate["low"]}
    file.write_text(json.dumps(kept))

    with pytest.raises(templating.PresumedVerdictError) as stopped:
        pages.pages(tmp_path)

    found = re.match(r"pages/(\S+):(\d+): 'paper-beats-wanda-former' is presumed", str(stopped.value))
    assert found, str(stopped.value)
    lines = (templating.FOLDER / found[1]).read_text(encoding="utf-8").splitlines()
    assert 'holds("paper-beats-wanda-former",' in lines[int(found[2]) - 1]


def results(**verdicts: str) -> Results:
    """Results of no run, with these verdicts."""
    made = Results([], {"03_leaving_sinks_out/x": Estimate(0.0197, 0.0102, 0.0310, 9, "")})
    made.__dict__["verdict"] = {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}
    made.__dict__["alone"] = made.verdict
    return made


def test_recipes_of_the_protocol_take_equally_many_tokens_in_fewer_sequences_at_more_levels():
    sizes = sources.protocol_sizes()
    assert (sizes.levels["wanda"], sizes.levels["unstable"], sizes.levels["paper"]) == (1, 8, 10)
    assert sizes.sequences["wanda"] * sizes.length == sizes.tokens
    for name, sequences in sizes.sequences.items():
        taken = sequences * sizes.levels[name] * sizes.length
        assert 0.9 * sizes.tokens < taken <= sizes.tokens, name


def test_rows_are_counted_whose_sequences_were_seen_to_add_nothing():
    known = {"id": "a", "kind": "question", "says": "s", "metric": "m", "family": "f", "margin": 0.1}
    ledger = [claims.Claim(**{**known, "id": name, "finding": f"nb/{name}"}) for name in "abc"]
    found = {"error_draws": 0.1, "draws": 5, "units": 9, "method": ""}
    nothing = Estimate(0.0, -1.0, 1.0, error_sequences=0.0, **found)
    something = Estimate(0.0, -1.0, 1.0, error_sequences=0.1, **found)
    made = Results(ledger, {"nb/a": something, "nb/b": nothing})  # and c was not run
    assert [row.id for row in made.unseen_sequences] == ["b"]
    assert made.p_corrected("a") == 1.0, "a difference of zero, however many rows it is corrected for"


def test_a_sentence_holds_under_each_verdict_that_it_names(templates):
    templates["page.md"] = 'It works.{{ holds("a-claim", "reproduced", "undecided") }}'
    for verdict in ("reproduced", "undecided"):
        assert render.render_results("page.md", results(a_claim=verdict)) == "It works."
    presumed = "is presumed to be reproduced or undecided and is now no difference"
    with pytest.raises(ValueError, match=presumed):
        results(a_claim=NO_DIFFERENCE).holds("a-claim", "reproduced", "undecided")
    with pytest.raises(ValueError, match="now no claim of the ledger"):
        results().holds("a-claim", "reproduced")


def test_numbers_have_one_format_and_an_unknown_name_is_an_error(templates):
    numbers = '{{ f["03/x"] | amount("nats") }}, {{ share | percent }}, {{ big | count }}'
    templates["page.md"] = numbers + ", {{ bar | cell }}"
    page = render.render_results("page.md", results(), share=0.0014, big=-12345, bar="a|b\nc")
    assert page.replace("\N{NO-BREAK SPACE}", " ") == "0.020 nats [0.010, 0.031], 0.14 %, −12,345, a\\|b c"
    with pytest.raises(UndefinedError, match="share"):
        render.render_results("page.md", results())


@pytest.mark.usefixtures("run")  # its results go to a folder of their own
def test_sentences_of_one_notebook_take_its_own_findings_and_published_ones_of_the_others_alone():
    """Whatever else the run has: what a notebook says must not depend on which notebook ran first."""
    own = Estimate(0.5, 0.4, 0.6, 9, "")
    for profile, has_others in ((PUBLISHED[0], True), ("quick", False)):
        Run("03_leaving_sinks_out", profile, {}).find({"paper_minus_wanda": own, "only_here": own})
        run = Run("08_what_results_depend_on", profile, {})
        assert not [name for name in results_for(run).f if name.startswith("08/")]
        run.find({"stable_minus_none": own})

        known = results_for(run).f
        assert known["08/stable_minus_none"] == own
        assert ("07/sink_weights_75" in known) is has_others
        assert ("03/paper_minus_wanda" in known) is has_others
        assert "03/only_here" not in known
        assert known.get("03/paper_minus_wanda") != own


@pytest.mark.usefixtures("run")  # its results go to a folder of their own
def test_a_notebook_without_rows_of_the_ledger_shows_its_numbers():
    for profile in ("quick", PUBLISHED[0]):  # the second has not what its written reading speaks of
        run = Run("00_start_here", profile, {})
        run.find({"a_number": Estimate(0.5, 0.4, 0.6, 9, "")})
        assert "| `a_number` | 0.50 [0.40," in render.results_table(run).data


@pytest.mark.usefixtures("run")
def test_a_run_shows_its_numbers_and_verdicts_and_no_written_sentence():
    published_estimates = claims.findings(project_root() / "figures")
    prefix = "05_matched_compute/"
    own = {name.removeprefix(prefix): one for name, one in published_estimates.items() if prefix in name}

    shown_by = {}
    for profile in ("quick", PUBLISHED[0]):
        run = Run("05_matched_compute", profile, {})
        run.find(own)
        shown_by[profile] = render.results_table(run).data

    table = shown_by["quick"]
    assert "| our question | verdict |" in table and "0.20 [0.16," in table
    words = table.rpartition("\n\n")[2]
    assert "| our question | verdict |" in shown_by[PUBLISHED[0]] and "Holm" in words
    assert "count as not run" in words and "count as not run" not in shown_by[PUBLISHED[0]]

    run = Run("07_best_recipe", "evidence", {})
    run.find({name.removeprefix("07_best_recipe/"): one for name, one in published_estimates.items()})
    row = "| The preset recommended beats Wanda: 75 %, before recovery | yes |"
    assert row in render.results_table(run).data, "a question of our own reproduces nothing"

    run = Run("06_gain_at_75", "evidence", {})  # a family with rows of another notebook
    run.find({name.removeprefix("06_gain_at_75/"): one for name, one in published_estimates.items()})
    verdict = results_of(project_root() / "figures").verdict["structured-50-former"]

    assert f"of whole units: on the former pool | {verdict} |" in render.results_table(run).data


def test_a_figure_is_drawn_below_its_title_and_kept_with_its_data(run):
    """`run` is of no published profile, so the title is the plain one, whatever is written."""
    data = pd.DataFrame({"x": [1.0, 2.0]})
    asked = []

    def plot(frame, scale, title, grid):
        assert frame is data and (scale, grid) == (3, False)
        asked.append(title)
        return Figure()

    shown = titles.draw(run, "one", "plain", plot, data, 3, data=data, caption="about it", grid=False)
    assert asked == ["plain"] and isinstance(shown, Figure)
    folder = run.folder / "figures" / run.notebook
    assert json.loads((folder / "one.json").read_text())["caption"] == "about it. plain"
    assert pd.read_csv(folder / "one.csv").x.tolist() == [1.0, 2.0]


def notebook_with(*tags: str) -> nbformat.NotebookNode:
    """A notebook of a code cell, and of a Markdown cell with each of these tags."""
    texts = [nbformat.v4.new_markdown_cell("old", metadata={"tags": [tag]}) for tag in tags]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1"), *texts])


def test_sentences_stand_in_the_cell_of_their_tag_and_nowhere_else():
    said = {"answer": "**Answer.** No.", "reading": "* It does not."}
    shown = notebook_cells.with_sentences(notebook_with("answer", "setup", "reading"), said, "one.py")
    assert [cell.source for cell in shown.cells] == ["1 + 1", "**Answer.** No.", "old", "* It does not."]

    for tags, count in (((), 0), (("answer", "answer"), 2)):
        with pytest.raises(ValueError, match=f"one.py has {count} cells tagged 'answer'"):
            notebook_cells.with_sentences(notebook_with(*tags), {"answer": "No."}, "one.py")


def test_lines_of_a_source_are_short_and_mean_what_the_template_means():
    item = "* An item with [a link](../docs/glossary.md) " + "and words " * 30 + "0.10\N{NO-BREAK SPACE}%"
    table = "| " + " | ".join(["cell"] * 40) + " |"
    lines = notebook_cells.wrapped(f"{item}\n\n{table}").splitlines()
    *of_item, empty, last = lines
    assert last == table and not empty
    assert len(of_item) > 2 and all(len(line) <= notebook_cells.WIDTH for line in of_item)
    assert all(line.startswith("  ") for line in of_item[1:]), "they belong to the item"
    assert "\n".join(of_item).replace("\n  ", " ") == item.strip()


def test_the_data_of_the_figure_that_a_claim_leads_to_hold_its_number(written):
    results = results_of(project_root() / "figures")
    named = sources.figures_by_finding()
    page = written["docs/results.md"] + written["docs/controls.md"]

    checked = 0
    for claim in results.ledger:
        file = named.get(claim.finding)
        if claim.kind in ("condition", "others") or file is None or claim.id not in results.estimate:
            continue

        assert f"](../{file})" in page and file.startswith(f"figures/{claim.notebook}/")

        data = pd.read_csv((project_root() / file).with_suffix(".csv"))
        if "value" in data:
            checked += 1
            shown_here = np.isclose(data.value, results.estimate[claim.id].value, rtol=1e-5)
            assert shown_here.any(), claim.id

    assert checked > 10


def test_readme_and_results_answer_every_claim_of_the_paper_once(written):
    ledger = results_of(project_root() / "figures").ledger
    claimed = {claim.id: claim for claim in ledger if claim.kind == "claim"}
    words = {name: says for group in claims_strip.GROUPS.values() for name, says in group.items()}
    assert words.keys() == claimed.keys()

    rows = [line for line in written["README.md"].splitlines() if line.count(" | ") == 2]
    for name, says in words.items():
        assert sum(re.split(r"[\]|°]", row.lstrip("| ["))[0].strip() == says for row in rows) == 1, says
        assert written["docs/results.md"].count(f"**“{claimed[name].quote}”**") >= 1


def test_the_headline_shows_published_findings_with_what_matters(written):
    estimates = results_of(project_root() / "figures").f
    data = pd.read_csv(project_root() / "figures" / "headline" / "headline.csv")
    for row in data[data.finding.notna()].itertuples():
        estimate = estimates[row.finding]
        assert np.allclose([row.value, row.low, row.high], [estimate.value, estimate.low, estimate.high])

    of_loss = data[data.section == headline.LOSS]
    assert len(of_loss) <= 6 and of_loss.margin.notna().all() and of_loss.verdict.notna().all()
    assert set(of_loss.comparison[of_loss.comparison.str.contains("sinks")]) == headline.ABOUT_SINKS
    assert "figures/headline/headline.png" in written["README.md"]


def test_no_line_of_a_notebook_s_text_is_a_comment_to_the_site():
    """MyST leaves out a line that begins with `%`."""
    broken = notebook_cells.wrapped("* " + "a word " * 13 + "at 50 % of it. " * 20)
    assert not any(line.lstrip().startswith("%") for line in broken.splitlines())
    assert notebook_cells.NOT_BROKEN not in broken

    for file in (project_root() / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "markdown":
                lines = cell.source.splitlines()
                assert not any(line.lstrip().startswith("%") for line in lines), (file.name, cell.id)

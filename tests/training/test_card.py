"""The model card is its files' and no more: every number is in it, and verdicts follow the intervals."""

import copy
import json
import shutil

import pandas as pd
import pytest
from peft import LoraConfig, get_peft_model

from sinkprune_companion.cli.main import main
from sinkprune_companion.harness import quality
from sinkprune_companion.training import card, card_measures, card_tables
from sinkprune_companion.training.settings import settings_of
from sinkprune_core.models.embedded import ADAPTER, ADAPTERS
from sinkprune_core.provenance import closure_modules

COMMITTED = ADAPTER / card.MEASURED


@pytest.fixture
def measures() -> dict:
    """What was measured of the committed adapter."""
    return json.loads(COMMITTED.read_text(encoding="utf-8"))


def rendered(measures: dict | None) -> str:
    """The card of the committed adapter, had these been its measures."""
    return card.render(settings_of(ADAPTER / "training.json"), card.log_of(ADAPTER), measures)


@pytest.fixture
def adapter(tmp_path, measures):
    """A copy of the committed adapter's folder with other, small weights, to which its measures belong."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("training.json", "training_log.jsonl", "README.md"):
        shutil.copy(ADAPTER / name, folder)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    measures["adapter"] = card.adapter_digest(folder)
    (folder / card.MEASURED).write_text(json.dumps(measures))
    return folder


def test_no_record_of_a_measurement_depends_on_training():
    modules = closure_modules(["sinkprune_core.pruning.engine", "sinkprune_companion.harness.quality"])
    assert not [name for name in modules if name.startswith("sinkprune_companion.training")]


# the committed cards


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_committed_card_is_in_step_with_its_measures_its_log_and_its_adapter(name):
    folder = ADAPTERS[name]
    found = None
    if (folder / card.MEASURED).exists():
        found = json.loads((folder / card.MEASURED).read_text(encoding="utf-8"))
        assert found["adapter"] == card.adapter_digest(folder), "run `sinkprune card`"
    text = card.render(settings_of(folder / "training.json"), card.log_of(folder), found)
    assert (folder / "README.md").read_text(encoding="utf-8") == text, "run `sinkprune card --render`"


def test_the_card_has_every_number_and_says_what_was_not_measured(measures):
    text = rendered(measures)
    for row in measures["rows"]:
        assert card_tables.estimate(row, row["measure"] in ("correct", "items", "pairs")) in text, row
    for sample in measures["samples"]:
        assert sample["text"] in text
    for name in (card_tables.WIKITEXT, card_tables.BLIMP):
        line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
        is_measured = any(row["on"].startswith(name) for row in measures["rows"])
        assert ("not measured" in line) is not is_measured


def test_what_was_not_measured_is_named(measures):
    public = (card_tables.WIKITEXT, card_tables.BLIMP)
    measures["rows"] = [row for row in measures["rows"] if not row["on"].startswith(public)]
    text = rendered(measures)
    assert "| WikiText-2 validation | not measured | not measured | not measured | – |" in text
    assert "| BLiMP | all | not measured | not measured | – | – |" in text


def with_bounds(measures: dict, difference: tuple[float, float], right: tuple[float, float]) -> dict:
    changed = copy.deepcopy(measures)
    for row in changed["rows"]:
        if row["model"] == "difference":
            row["low"], row["high"] = difference
        elif (row["measure"], row["level"], row["model"]) == ("items", "all", "smol-dlm"):
            row["low"], row["high"] = right
    return changed


@pytest.mark.parametrize(
    ("difference", "right", "verdict"),
    [
        ((0.3, 0.6), (0.75, 0.8), "met"),
        ((0.7, 0.9), (0.6, 0.74), "missed"),
        ((0.5, 0.7), (0.7, 0.8), "open: the interval holds both"),
    ],
)
def test_goals_follow_the_intervals(measures, difference, right, verdict):
    lines = rendered(with_bounds(measures, difference, right)).splitlines()
    goals = [line for line in lines if line.startswith(("| NELBO on", "| right answers"))]
    assert [line.split(" | ")[-1].strip(" |") for line in goals] == [verdict] * 3


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (None, "never"),
        (8_001_536, "8 million"),
        (999e6, "999 million"),
        (1.92e9, "1.92 billion"),
        (2e13, "over 10,000 billion"),
    ],
)
def test_numbers_of_tokens_in_words(tokens, said):
    assert card_tables.token_count(tokens) == said


# by the command line


def test_rendering_from_the_command_line_gives_the_same_card_again(adapter, capsys):
    before = (adapter / "README.md").read_text(encoding="utf-8")
    (adapter / "README.md").unlink()
    assert main(["card", "--folder", str(adapter), "--render"]) == 0
    assert (adapter / "README.md").read_text(encoding="utf-8") == before


def test_measures_of_another_adapter_are_refused_and_none_are_said_to_be_missing(adapter, capsys):
    (adapter / "adapter_model.safetensors").write_bytes(b"other weights")
    assert main(["card", "--folder", str(adapter), "--render"]) == 1
    error = capsys.readouterr().err
    assert "was measured on another adapter than the one beside it: run `sinkprune card" in error
    (adapter / card.MEASURED).unlink()
    text = card.write_card(adapter).read_text(encoding="utf-8")
    assert "Not measured yet" in text and "What more training would bring" not in text


# an adapter that was trained on crops


def crops_row(measure: str, tokens: int, loss: float, rate: float = 1.0) -> dict:
    row = {"step": tokens, "tokens": tokens, f"train_{measure}": loss, "learning_rate": rate}
    for place, source in enumerate(("samples", "documentation", "natural")):
        row[f"{measure}_{source}_crops"] = loss + place + 0.1
        row[f"{measure}_{source}_beginnings"] = loss + place
    return row


@pytest.mark.parametrize(("kind", "measure"), [("diffusion", "nelbo"), ("autoregressive", "nll")])
def test_the_card_of_crops_says_where_they_begin_and_shows_every_kind(kind, measure):
    settings = {"kind": kind, "base": "smol-ar", "data_seed": 7, "lengths": [64, 128, 512], "seed": 3}
    log = [crops_row(measure, 100 * step, 9.0 / step) for step in range(1, 41)]
    text = card.render(settings, log, None)
    assert "64, 128 or 512 tokens. They may begin anywhere in a source" in text
    assert ("masked as often as any other" in text) is (kind == "diffusion")
    assert "128 tokens, an assistant's turn;\nseed 7;" in text
    assert "| `lengths` | 64, 128, 512 |" in text
    assert "| samples of the base, crops | samples of the base, beginnings |" in text
    assert "| WikiText-2, crops | WikiText-2, beginnings |" in text
    first, last = (
        f"| {row['tokens']:,} | 1 | {loss:.3f} | {loss + 0.1:.3f} | {loss:.3f} | {loss + 1.1:.3f} | "
        f"{loss + 1:.3f} | {loss + 2.1:.3f} | {loss + 2:.3f} |"
        for row, loss in ((log[0], 9.0), (log[-1], 9.0 / 40))
    )
    assert first in text and last in text


def test_the_card_of_another_base_with_its_own_text_names_that_text():
    settings = {"kind": "diffusion", "base": "folder/tiny", "data_seed": 0, "lengths": [16]}
    row = {"step": 1, "tokens": 16, "train_nelbo": 2.0, "learning_rate": 1.0, "nelbo_text_crops": 3.0}
    text = card.render(settings, [row], None)
    assert text.startswith("# tiny as a masked diffusion language model\n")
    assert "Paragraphs of a text of the user's own" in text
    assert "crops of one length: 16 tokens." in text
    assert "| 16 | 1 | 2.000 | 3.000 |" in text
    assert "WikiText" not in text and "docstrings" not in text


# measuring


def test_only_exported_diffusion_adapters_are_measured(adapter):
    with pytest.raises(FileNotFoundError, match=r"has no training\.json: give a folder that"):
        card_measures.merged(adapter / "nothing")
    settings = settings_of(adapter / "training.json")
    (adapter / "training.json").write_text(json.dumps({**settings, "kind": "autoregressive"}))
    with pytest.raises(ValueError, match="is autoregressive: a card's measures compare a diffusion model"):
        card_measures.merged(adapter)
    (adapter / "training.json").write_text(json.dumps({**settings, "base": "another"}))
    with pytest.raises(ValueError, match="was made from another: a card's measures compare the embedded"):
        card_measures.merged(adapter)


@pytest.fixture
def small_measurement(make_ids, monkeypatch):
    """Held-out text, tasks and samples that are measured in no time."""
    texts = {"samples": make_ids(3, 9, 1), "documentation": make_ids(3, 9, 2)}
    answers = pd.DataFrame(
        {
            "group": "g",
            "pair": [0, 0, 1, 1],
            "template": 0,
            "margin": 1.0,
            "margin_mean": 1.0,
            "correct": True,
        }
    )
    samples = quality.samples
    monkeypatch.setattr(card_measures.corpus, "texts", lambda *_, **__: dict(texts))
    monkeypatch.setattr(card_measures, "REFITS", 3)
    monkeypatch.setattr(quality, "SAMPLE_TOKENS", 32)
    monkeypatch.setattr(quality, "samples", lambda lm, seed: samples(lm, ["the list of"], (2, 4), seed))
    monkeypatch.setattr(quality, "offline_suite", lambda *_, **__: lambda lm: answers)


@pytest.fixture
def public_data(tmp_path):
    """A folder with WikiText-2's validation split and two paradigms of BLiMP, all of them small."""
    folder = tmp_path / "data"
    folder.mkdir()
    page = " = A title = \n \n" + " some words of a page of which there are many \n" * 20
    (folder / "wiki.valid.raw").write_text(page, encoding="utf-8")
    pairs = [
        {"sentence_good": f"the list of {number}", "sentence_bad": f"list the of {number}"}
        for number in range(5)
    ]
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    for name in ("wh_island", "passive_1"):
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def old_row(row: dict) -> dict:
    """A row of a log from before crops."""
    return {**row, "nelbo_samples": row["nelbo"], "nelbo_documentation": row["nelbo"] + 1}


def new_row(row: dict) -> dict:
    return {**row, **crops_row("nelbo", row["tokens"], row["nelbo"], row["learning_rate"])}


@pytest.mark.parametrize(
    ("settings", "row_of"), [({"length": 9}, old_row), ({"lengths": [9, 16]}, new_row)], ids=["old", "crops"]
)
def test_a_whole_measurement_of_a_tiny_adapter_ends_in_a_card(
    tiny_base, tiny_ar, small_measurement, public_data, curve_log, tmp_path, settings, row_of
):
    folder = tmp_path / "adapter"
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(tiny_ar.model.float(), config).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"kind": "diffusion", "seed": 0, **settings}))
    rows = [row_of(row) for row in curve_log(2.0, 0.5, 0.4, 0.01)]
    log = [{"step": row["tokens"], "train_nelbo": 5.0, **row} for row in rows]
    (folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))

    file = card_measures.write_measures(folder, sequences=3, draws=2, items=6, data=public_data)
    text = file.read_text(encoding="utf-8")
    assert "not measured |" not in text and "| offline suite | g | 100%" in text
    measured = json.loads((folder / card.MEASURED).read_text())
    on_wikitext = [
        row["units"]
        for row in measured["rows"]
        if row["on"] == card_tables.WIKITEXT and row["measure"] == "likelihood"
    ]
    assert on_wikitext == [3] * 3
    for group in ("wh_island", "passive_1", "all"):
        assert f"| BLiMP, 2 of 67 paradigms | {group} |" in text
    floors = [curve["floor"]["value"] for curve in measured["learning_curve"].values()]
    assert floors == pytest.approx([2.0, 3.0], abs=0.3)
    assert card.write_card(folder).read_text(encoding="utf-8") == text


def test_a_folder_without_public_data_is_refused(tiny_ar, tmp_path):
    extent = card_measures.Extent(sequences=3, draws=2, items=6, length=9, seed=0)
    with pytest.raises(ValueError, match="holds neither WikiText-2's validation split nor BLiMP"):
        card_measures.measured_besides(tmp_path, tiny_ar, extent)
    with pytest.raises(OSError, match="does not exist"):
        card_measures.measured_besides(tmp_path / "nothing", tiny_ar, extent)

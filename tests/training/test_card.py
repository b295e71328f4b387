"""The model card is its files' and no more: every number is in it, and verdicts follow the intervals."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from sinkprune_companion.cli.main import main
from sinkprune_companion.harness import quality
from sinkprune_companion.training import card, card_measures
from sinkprune_companion.training.settings import settings_of
from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.models.embedded import ADAPTER, ADAPTERS


@pytest.fixture
def measures() -> dict:
    """What was measured of the committed adapter."""
    return json.loads((ADAPTER / card.MEASURED).read_text(encoding="utf-8"))


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


# the committed cards


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_committed_card_is_in_step_with_its_measures_its_log_and_its_adapter(name):
    folder = ADAPTERS[name]
    measures = None
    if (folder / card.MEASURED).exists():
        measures = json.loads((folder / card.MEASURED).read_text(encoding="utf-8"))
        assert measures["adapter"] == card.adapter_digest(folder), "run `sinkprune card`"
    text = card.card_text(folder, measures)
    assert (folder / "README.md").read_text(encoding="utf-8") == text, "run `sinkprune card --render`"


def estimates(measured: object) -> list[dict]:
    """Every estimate in nested measures."""
    if isinstance(measured, dict) and {"value", "low", "high"} <= set(measured):
        return [measured]
    parts = (
        measured.values() if isinstance(measured, dict) else measured if isinstance(measured, list) else []
    )
    return [estimate for part in parts for estimate in estimates(part)]


def test_every_number_and_sample_is_on_the_card(measures):
    text = card.card_text(ADAPTER, measures)
    for estimate in estimates([measures["likelihood"], measures["filling"]]):
        bounds = (estimate["value"], estimate["low"], estimate["high"])
        as_share = "{:.0%} [{:.0%}, {:.0%}]".format(*bounds)
        assert "{:.2f} [{:.2f}, {:.2f}]".format(*bounds) in text or as_share in text, estimate
    for task, groups in measures["tasks"].items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| {task} | all |")]
        assert f"{groups['all']['answers']['dlm']['value']:.0%}" in row
    for sample in measures["samples"]:
        assert sample["text"] in text


@pytest.mark.parametrize(
    ("difference", "right", "verdict"),
    [
        ((0.3, 0.6), (0.75, 0.8), "met"),
        ((0.7, 0.9), (0.6, 0.74), "missed"),
        ((0.5, 0.7), (0.7, 0.8), "open: the interval holds both"),
    ],
)
def test_goals_follow_the_intervals(measures, difference, right, verdict):
    changed = copy.deepcopy(measures)
    for text in changed["likelihood"].values():
        text["difference"]["low"], text["difference"]["high"] = difference
    of_dlm = changed["tasks"]["offline suite"]["all"]["answers"]["dlm"]
    of_dlm["low"], of_dlm["high"] = right
    lines = card.card_text(ADAPTER, changed).splitlines()
    goals = [line for line in lines if line.startswith(("| NELBO on", "| right answers"))]
    assert [line.split(" | ")[-1].strip(" |") for line in goals] == [verdict] * 3


# other adapters and models


def log_row(measure: str, tokens: int, loss: float, sources=("samples", "documentation", "natural")) -> dict:
    row = {"step": tokens, "tokens": tokens, f"train_{measure}": loss, "learning_rate": 1.0}
    for place, source in enumerate(sources):
        row[f"{measure}_{source}_crops"] = loss + place + 0.1
        row[f"{measure}_{source}_beginnings"] = loss + place
    return row


@pytest.fixture
def card_of(tmp_path):
    """A function that returns the card of a folder with settings and a log."""

    def render(log: list[dict], **settings: object) -> str:
        (tmp_path / "training.json").write_text(json.dumps(settings))
        (tmp_path / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
        return card.card_text(tmp_path, None)

    return render


@pytest.mark.parametrize(("kind", "measure"), [("diffusion", "nelbo"), ("autoregressive", "nll")])
def test_the_log_is_cut_to_some_rows_with_every_kind_of_held_out_text(kind, measure, card_of):
    log = [log_row(measure, 100 * step, 9.0 / step) for step in range(1, 41)]
    lines = card_of(log, kind=kind, lengths=[64, 128, 512]).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| tokens |"))
    assert 10 < len(lines) - start - 2 <= 21
    for line, row in ((lines[start + 2], log[0]), (lines[-1], log[-1])):
        losses = [f"{value:.3f}" for name, value in row.items() if measure in name]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == [f"{row['tokens']:,}", "1"] and sorted(cells[2:]) == sorted(losses)
    assert "| `lengths` | 64, 128, 512 |" in lines


def test_a_card_names_what_was_trained_and_on_what(card_of):
    own = card_of([log_row("nelbo", 16, 2.0, ["text"])], base="folder/tiny", lengths=[16])
    assert own.startswith("# tiny as a masked diffusion language model\n")
    assert "Paragraphs of a text of the user's own" in own
    assert "WikiText" not in own and "docstrings" not in own
    scratch = card_of([log_row("nll", 16, 2.0)], kind="autoregressive", from_scratch=True, lengths=[16])
    assert scratch.startswith("# A small autoregressive language model, trained from scratch\n")
    assert "adapter" not in scratch and "`rank`" not in scratch and "WikiText-2" in scratch


# by the command line


def test_rendering_from_the_command_line_gives_the_same_card_again(adapter):
    before = (adapter / "README.md").read_text(encoding="utf-8")
    (adapter / "README.md").unlink()
    assert main(["card", "--folder", str(adapter), "--render"]) == 0
    assert (adapter / "README.md").read_text(encoding="utf-8") == before


def test_measures_of_another_adapter_are_refused_and_none_are_said_to_be_missing(adapter, capsys):
    (adapter / "adapter_model.safetensors").write_bytes(b"other weights")
    assert main(["card", "--folder", str(adapter), "--render"]) == 1
    assert "was measured on another adapter than the one beside it" in capsys.readouterr().err
    (adapter / card.MEASURED).unlink()
    assert "Not measured yet" in card.write_card(adapter).read_text(encoding="utf-8")


# measuring


def test_only_exported_diffusion_adapters_of_the_embedded_base_are_measured(adapter):
    with pytest.raises(FileNotFoundError, match=r"has no training\.json: give a folder that"):
        card_measures.merged(adapter / "nothing")
    settings = settings_of(adapter / "training.json")
    for change in ({"kind": "autoregressive"}, {"base": "another"}, {"from_scratch": True}):
        (adapter / "training.json").write_text(json.dumps(settings | change))
        with pytest.raises(ValueError, match="a card's measures compare"):
            card_measures.merged(adapter)


def test_measures_are_paired_and_equal_direct_ones(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(4, 9)
    nats = card_measures.likelihood(tiny_dlm, tiny_ar, ids_NT, draws=4, seed=3)
    bound = nelbo(tiny_dlm, ids_NT, 4, 3).value.mean()
    exact = nll(tiny_ar, ids_NT).value.mean()
    assert nats["dlm"]["value"] == pytest.approx(bound) and nats["ar"]["value"] == pytest.approx(exact)
    assert nats["difference"]["value"] == pytest.approx(bound - exact)
    filled = quality.filling(tiny_dlm, tiny_ar, ids_NT, seed=3)
    for level in card_measures.filling(tiny_dlm, tiny_ar, ids_NT, seed=3):
        for name, lm in (("dlm", tiny_dlm), ("ar", tiny_ar)):
            part = filled[(filled.model == lm.name) & (filled.share == level["masked"])]
            assert level[name]["correct"]["value"] == pytest.approx(np.mean(part.correct))


def test_a_whole_measurement_of_a_tiny_adapter_ends_in_a_card(
    tiny_base, tiny_ar, make_ids, tmp_path, monkeypatch
):
    folder = tmp_path / "adapter"
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(tiny_ar.model.float(), config).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"lengths": [9, 16]}))
    (folder / "training_log.jsonl").write_text(json.dumps(log_row("nelbo", 9, 5.0)) + "\n")
    texts = {
        name: make_ids(3, 9, seed) for seed, name in enumerate(("samples of the AR model", "documentation"))
    }
    monkeypatch.setattr(card_measures, "held_out_texts", lambda *_: texts)
    monkeypatch.setattr(card_measures, "SAMPLE_TOKENS", 32)
    monkeypatch.setattr(card_measures, "STEPS", (2,))

    text = card_measures.write_measures(folder, sequences=3, draws=1, items=24).read_text(encoding="utf-8")
    measured = json.loads((folder / card.MEASURED).read_text())
    assert len(measured["tasks"]["BLiMP"]) == 68 and len(measured["tasks"]["offline suite"]) == 7
    assert len(measured["samples"]) == len(card_measures.PROMPTS)
    assert text.count("| offline suite |") == 7 and text.count("| BLiMP |") == 1
    assert card.write_card(folder).read_text(encoding="utf-8") == text


def test_natural_text_is_part_of_what_is_measured(tiny_dlm, make_ids, monkeypatch):
    monkeypatch.setattr(card_measures.corpus, "texts", lambda *_, **__: {"samples": make_ids(3, 9)})
    texts = card_measures.held_out_texts(tiny_dlm.tokenizer, 3, 9, seed=0)
    assert set(texts) == {"samples of the AR model", "WikiText-2 validation, as written"}
    assert all(ids_NT.shape == (3, 9) and ids_NT.dtype == torch.int64 for ids_NT in texts.values())

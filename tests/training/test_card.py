"""The committed cards are in step with what was measured, and measuring ends in a card."""

import json

import model_card
import pytest
from peft import LoraConfig, get_peft_model

from sinkprune.models.embedded import ADAPTERS
from sinkprune_companion.training import export as card


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_committed_card_is_in_step_with_its_measures_its_log_and_its_adapter(name):
    folder = ADAPTERS[name]
    measures = None
    if (folder / card.MEASURED).exists():
        measures = json.loads((folder / card.MEASURED).read_text(encoding="utf-8"))
        assert measures["adapter"] == card.adapter_digest(folder), "run tools/model_card.py"
    text = card.card_text(folder, measures)
    assert (folder / "README.md").read_text(encoding="utf-8") == text, "run tools/model_card.py --render"


def test_a_whole_measurement_of_a_tiny_adapter_ends_in_a_card(
    tiny_base, tiny_ar, make_ids, tmp_path, monkeypatch
):
    folder = tmp_path / "adapter"
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(tiny_ar.model.float(), config).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"lengths": [9, 16]}))
    row = {"step": 9, "tokens": 9, "train_nelbo": 5.0, "learning_rate": 1.0}
    for source in ("samples", "documentation", "natural"):
        row |= {f"nelbo_{source}_crops": 5.5, f"nelbo_{source}_beginnings": 5.0}
    (folder / "training_log.jsonl").write_text(json.dumps(row) + "\n")
    texts = {
        name: make_ids(3, 9, seed) for seed, name in enumerate(("samples of the AR model", "documentation"))
    }
    monkeypatch.setattr(model_card, "held_out_texts", lambda *_: texts)
    monkeypatch.setattr(model_card, "SAMPLE_TOKENS", 32)
    monkeypatch.setattr(model_card, "STEPS", (2,))

    text = model_card.write_measures(folder, sequences=3, draws=1, items=24).read_text(encoding="utf-8")
    measured = json.loads((folder / card.MEASURED).read_text())
    assert len(measured["tasks"]["BLiMP"]) == 68 and len(measured["tasks"]["offline suite"]) == 7
    assert len(measured["samples"]) == len(model_card.PROMPTS)
    assert text.count("| offline suite |") == 7 and text.count("| BLiMP |") == 1
    assert card.write_card(folder).read_text(encoding="utf-8") == text

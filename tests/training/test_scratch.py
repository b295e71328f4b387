"""From scratch: the loss falls, and the model loads as any other."""

import pytest
import torch
from safetensors.torch import load_file

from sinkprune_companion.training import base, losses
from sinkprune_companion.training.export import export
from sinkprune_companion.training.lora import train
from sinkprune_core.evaluation.likelihood import score
from sinkprune_core.models.loading import load

KINDS = ("diffusion", "autoregressive")
TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 48,
    "tie_word_embeddings": True,
}


@pytest.fixture
def scratch(short, monkeypatch):
    """A function that returns the settings of a short run from scratch, of a tiny shape."""
    monkeypatch.setattr(base, "SHAPE", TINY)
    return lambda **changes: short(from_scratch=True, dtype="float32", **changes)


def weights_of(checkpoint) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_loss_falls_and_the_whole_model_loads(prepared, scratch, rows_of, kind, tmp_path):
    config = scratch(kind=kind, tokens=60 * 32, batch_tokens=32, learning_rate=1e-2)
    checkpoint = train(config, prepared, check_every=20)
    first, *_, last = rows_of(prepared / "log.jsonl")
    columns = [name for name in last if name.startswith(losses.MEASURES[kind])]
    assert len(columns) == 4
    assert all(last[name] < first[name] - 0.2 for name in columns)

    lm = load(export(checkpoint, tmp_path / "made"))
    is_diffusion = kind == "diffusion"
    assert (lm.kind, lm.is_diffusion, lm.logits_shifted) == (kind, is_diffusion, not is_diffusion)
    assert lm.name == ("scratch-dlm" if is_diffusion else "scratch-ar")
    for name, weight in weights_of(checkpoint).items():
        assert torch.equal(lm.model.get_parameter(name), weight.bfloat16().float()), name
    held_out_NT = load_file(prepared / "data.safetensors")["held_out_samples_crops"].long()
    column = f"{losses.MEASURES[kind]}_samples_crops"
    assert score(lm, held_out_NT, 2, 0).value.mean() == pytest.approx(last[column], abs=0.05)
    assert "trained from scratch" in (tmp_path / "made" / "README.md").read_text()

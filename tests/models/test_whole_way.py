"""A tiny model of every public format goes the whole way: pruned, saved, loaded again, with equal logits."""

import pytest
import torch
from families import some_ids
from random_models.cases import CASES
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sinkprune import load, nelbo, nll
from sinkprune.evaluation.harness.benchmarks import evaluate_named
from sinkprune.models.saving import save
from sinkprune_core import Calibration, Sampler, generate, prune, trace
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.pruning.recipe import compared_preset

pytestmark = pytest.mark.slow

SAMPLER = Sampler(length=8, steps=4, block=4)


@pytest.mark.parametrize("name", CASES)
def test_every_family_goes_the_whole_way(name, written, tmp_path):
    """Load, trace, prune, save, reload, score, answer, generate; and stock transformers reads the saved."""
    case, lm = CASES[name], load(written(name)[0])
    method = "wanda" if case.causal else "unstable"
    texts_NT = torch.randint(21, 66, (6, 16), generator=torch.Generator().manual_seed(1))
    steps = trace(lm, texts_NT[:2, :4], SAMPLER, progress=False)
    assert steps.layers_BSLK.shape == (2, 4, 3, 12) and bool(torch.isfinite(steps.layers_BSLK).all())
    report = prune(
        lm,
        compared_preset(method, noise_levels=3, sink_std=1.0),
        Calibration(texts_NT, batch=3),
        progress=False,
    )
    assert 0.48 < report.sparsity <= 0.5  # 45 columns have no half
    saved = save(lm, tmp_path / "pruned", report=report.card())
    again = load(saved)
    ids_BT = some_ids(case, rows=2)
    stock = AutoModelForCausalLM.from_pretrained(saved)
    assert torch.equal(again.model(ids_BT, use_cache=False).logits, lm.model(ids_BT, use_cache=False).logits)
    assert torch.equal(stock(ids_BT, use_cache=False).logits, lm.model(ids_BT, use_cache=False).logits)
    assert set(load_file(saved / "model.safetensors")) == {key for key, _ in lm.model.named_parameters()}
    for field in ("mask_token_id", "logits_shifted", "kind", "name"):
        assert getattr(again, field) == getattr(lm, field)

    def measure(model):
        return nll(model, texts_NT) if case.causal else nelbo(model, texts_NT, draws=2)

    def write_on(model):
        prompts_BT = texts_NT[:2, :4]
        return decode(model, prompts_BT, 8) if case.causal else generate(model, prompts_BT, SAMPLER)

    assert measure(again).equals(measure(lm))
    answers = evaluate_named(again, ["sinkprune_suite_facts"], limit=1)
    assert set(answers.task) == {"sinkprune_suite_facts"} and answers.value.between(0, 1).all()
    assert torch.equal(write_on(again), write_on(lm)) and write_on(again).shape == (2, 12)

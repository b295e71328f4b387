"""Every family goes the whole way, and a tiny random model stands in for every row of the table of models."""

import pytest
import torch
from families import some_ids
from random_models.cases import CASES
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sinkprune import load, nelbo, nll
from sinkprune.evaluation.harness.benchmarks import evaluate_named
from sinkprune.models.catalog import EMBEDDED, MODELS
from sinkprune.models.saving import save
from sinkprune_companion.experiments.stand_ins import stand_in
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


ONE_OF_A_KIND = {
    (row.family, row.native, row.kind): name for name, row in MODELS.items() if name not in EMBEDDED
}


@pytest.mark.parametrize("name", ONE_OF_A_KIND.values())
def test_every_row_of_the_table_has_a_stand_in_that_spells_any_text(name, tmp_path):
    row, folder = MODELS[name], stand_in(name, tmp_path)
    lm = load(folder)
    assert (type(lm.model).__name__, lm.kind, lm.logits_shifted) == (row.native, row.kind, row.logits_shifted)

    text = "The cat sat on <a> mat: 1 + 1 = 2.\n"
    ids_T = lm.encode(text)
    assert lm.tokenizer.decode(ids_T) == text
    assert lm.mask_token_id not in ids_T.tolist()
    assert lm.tokenizer.eos_token_id is not None and lm.model.config.max_position_embeddings == 1024

    assert stand_in(name, tmp_path) == folder and load(folder).fingerprint() == lm.fingerprint()
    assert load(stand_in(name, tmp_path, seed=1)).fingerprint() != lm.fingerprint()


def test_the_stand_ins_of_notebook_10_keep_their_weights(tmp_path):
    """Its figures and records show them."""
    for name, fingerprint in (
        ("GSAI-ML/LLaDA-8B-Base", "9dca0c9f4236fc7c"),
        ("meta-llama/Llama-3.1-8B", "a3ab8ce1b08671fe"),
    ):
        assert load(stand_in(name, tmp_path)).fingerprint() == fingerprint


def test_random_weights_stand_in_for_no_folder(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"with real=False: random weights .* set real=True"):
        stand_in(str(checkpoint), tmp_path)

"""Zeros stay through every loop that people train with, and nothing is left behind."""

import warnings

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch.ao.nn.quantized.dynamic import Linear as QuantisedLinear
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.prune import l1_unstructured
from torch.optim import optimizer as of_torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from sinkprune import load, save, save_model
from sinkprune.recovery.objectives import training_loss
from sinkprune.recovery.zeros import zeros_held
from sinkprune_core import preset, prune


def loss_of(model, ids_BT):
    return model(ids_BT, labels=ids_BT).loss


def some_steps(model, optimizer, ids_BT, count=3):
    for _ in range(count):
        loss_of(model, ids_BT).backward()
        optimizer.step()
        optimizer.zero_grad()


def same(before, after) -> bool:
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture
def pruned(make_pruned):
    lm = make_pruned("autoregressive")
    lm.model.requires_grad_(True)
    return lm


OPTIMIZERS = {
    "AdamW with decay": lambda parameters: torch.optim.AdamW(parameters, 1e-2, weight_decay=0.1),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, 1e-2, momentum=0.9, nesterov=True),
    "Adafactor": lambda parameters: torch.optim.Adafactor(parameters, 1e-2),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_zeros_stay_and_the_rest_is_trained(pruned, zeros, make_ids, make_optimizer):
    before = zeros(pruned)
    weights = {name: value.detach().clone() for name, value in pruned.model.named_parameters()}
    with zeros_held(pruned) as held:
        some_steps(pruned.model, make_optimizer(pruned.model.parameters()), make_ids(3, 12))
    assert same(before, zeros(pruned))
    for name, where in held.items():
        moved = weights[name] != pruned.model.get_parameter(name)
        assert bool(moved[~where].float().mean() > 0.9) and not bool(moved[where].any()), name


def test_without_it_zeros_are_lost(pruned, zeros, make_ids):
    """The control for the test above."""
    before = zeros(pruned)
    some_steps(pruned.model, torch.optim.AdamW(pruned.model.parameters(), 1e-2), make_ids(3, 12))
    assert not same(before, zeros(pruned))


def test_momentum_from_before_moves_no_zero(pruned, zeros, make_ids):
    before = zeros(pruned)
    weights = {name: value.detach().clone() for name, value in pruned.model.named_parameters()}
    optimizer = torch.optim.SGD(pruned.model.parameters(), 1e-2, momentum=0.9)
    some_steps(pruned.model, optimizer, make_ids(3, 12))
    pruned.model.load_state_dict(weights, strict=False)
    with zeros_held(pruned):
        some_steps(pruned.model, optimizer, make_ids(3, 12))
        assert same(before, zeros(pruned))


def test_the_step_is_that_of_a_masked_gradient(pruned, make_pruned, make_ids):
    """Against gradient descent written out: w - rate * keep * gradient, what is left of it clipped."""
    ids_BT = make_ids(3, 12)
    with zeros_held(pruned) as held:
        optimizer = torch.optim.SGD(pruned.model.parameters(), 0.1)
        loss_of(pruned.model, ids_BT).backward()
        norm = torch.nn.utils.clip_grad_norm_(pruned.model.parameters(), 0.01)
        optimizer.step()

    naive = make_pruned("autoregressive").model.requires_grad_(True)
    loss_of(naive, ids_BT).backward()
    gradients = {name: value.grad for name, value in naive.named_parameters()}
    for name, where in held.items():
        gradients[name] = gradients[name] * ~where
    expected = torch.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    torch.testing.assert_close(norm, expected)
    for name, value in naive.named_parameters():
        step = 0.1 * gradients[name] * 0.01 / expected
        torch.testing.assert_close(pruned.model.get_parameter(name), value - step, atol=1e-6, rtol=1e-5)


def test_an_exception_leaves_no_hook(pruned, zeros, make_ids):
    before = zeros(pruned)
    hooks = len(of_torch._global_optimizer_post_hooks)

    def die(*_):
        pruned.blocks[0].mlp.down_proj.weight.data.add_(1.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), zeros_held(pruned):
        die()
    assert same(before, zeros(pruned))
    assert len(of_torch._global_optimizer_post_hooks) == hooks
    some_steps(pruned.model, torch.optim.AdamW(pruned.model.parameters(), 1e-2), make_ids(3, 12))
    assert not same(before, zeros(pruned))


def test_the_optimizer_of_another_model_is_left_alone(pruned, make_pruned, zeros, make_ids):
    other = make_pruned("autoregressive")
    other.model.requires_grad_(True)
    before = zeros(other)
    with zeros_held(pruned):
        some_steps(other.model, torch.optim.AdamW(other.model.parameters(), 1e-2), make_ids(3, 12))
    assert not same(before, zeros(other))


def test_parameters_that_were_replaced_are_an_error(pruned):
    """Nobody held their zeros."""
    weights = {name: value.clone() for name, value in pruned.model.state_dict().items()}
    with (
        pytest.raises(RuntimeError, match=r"21 parameters, .*q_proj.weight among them, were replaced inside"),
        zeros_held(pruned),
    ):
        pruned.model.load_state_dict(weights, assign=True)


def test_rows_of_unused_tokens_are_no_zeros_of_a_linear(pruned, make_ids):
    embedding_VD = pruned.model.get_input_embeddings().weight
    embedding_VD.data[70] = 0
    with zeros_held(pruned) as held:
        some_steps(pruned.model, torch.optim.AdamW(pruned.model.parameters(), 1e-2), make_ids(3, 12))
    assert not any("lm_head" in name or "embed" in name for name in held)
    assert bool((embedding_VD[70] != 0).any())


def few_steps(folder, steps: int, **options) -> TrainingArguments:
    """Return how a Trainer takes a few steps on the CPU, and writes nothing."""
    quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True}
    return TrainingArguments(folder, max_steps=steps, learning_rate=1e-2, use_cpu=True, **quiet, **options)


def test_a_trainer_keeps_zeros(pruned, zeros, make_ids, tmp_path):
    """With gradient accumulation, clipping and weight decay, as its defaults and options have it."""
    before = zeros(pruned)
    rows = [{"input_ids": ids_T, "labels": ids_T} for ids_T in make_ids(8, 12)]

    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "weight_decay": 0.1}
    arguments = few_steps(tmp_path, 3, **options)

    weights = pruned.blocks[0].mlp.down_proj.weight.detach().clone()
    with zeros_held(pruned.model):
        Trainer(pruned.model, arguments, train_dataset=rows).train()

    assert same(before, zeros(pruned))
    assert not torch.equal(weights, pruned.blocks[0].mlp.down_proj.weight)


def test_a_trainer_fills_masks_with_the_loss_of_recovery(make_pruned, zeros, make_ids, tmp_path):
    """The stock loss would let a diffusion model see what it predicts."""
    lm = make_pruned("diffusion")
    lm.model.requires_grad_(True)
    before = zeros(lm)
    rows = [{"input_ids": ids_T} for ids_T in make_ids(8, 12)]
    ids_BT = torch.stack([row["input_ids"] for row in rows])
    untrained = training_loss(lm, ids_BT, seed=1).item()

    class MaskFillingTrainer(Trainer):
        def compute_loss(self, model, inputs, **_):
            return training_loss(lm, inputs["input_ids"], step=self.state.global_step)

    arguments = few_steps(tmp_path, 12, per_device_train_batch_size=4)
    with zeros_held(lm.model):
        MaskFillingTrainer(lm.model, arguments, train_dataset=rows).train()

    lm.model.eval()
    assert same(before, zeros(lm))
    assert training_loss(lm, ids_BT, seed=1).item() < untrained


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_a_trainer_trains_a_model_with_dropout(make_family, zeros, make_ids, tmp_path, kind):
    """A Trainer puts the model into training mode, where its dropout is on."""
    lm = make_family("gpt2", kind=kind)
    prune(lm, preset("magnitude", sparsity=0.5))
    lm.model.requires_grad_(True)
    assert lm.model.config.resid_pdrop > 0

    before = zeros(lm)
    rows = [{"input_ids": ids_T} for ids_T in make_ids(8, 12)]
    ids_BT = torch.stack([row["input_ids"] for row in rows])
    untrained = training_loss(lm, ids_BT, seed=1).item()
    dropped = []

    class MaskFillingTrainer(Trainer):
        def compute_loss(self, model, inputs, **_):
            dropped.append(model.training)
            return training_loss(lm, inputs["input_ids"], step=self.state.global_step)

    arguments = few_steps(tmp_path, 12, per_device_train_batch_size=4)
    with zeros_held(lm.model):
        MaskFillingTrainer(lm.model, arguments, train_dataset=rows).train()

    assert all(dropped) and same(before, zeros(lm))
    with pytest.raises(ValueError, match="training mode"):
        lm.hidden(ids_BT)

    lm.model.eval()
    assert training_loss(lm, ids_BT, seed=1).item() < untrained


def test_the_loss_for_a_loop_of_one_s_own_depends_on_seed_and_step_alone(make_pruned, make_ids):
    lm = make_pruned("diffusion")
    ids_BT = make_ids(4, 12)
    losses = [training_loss(lm, ids_BT, seed, step).item() for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_accelerate_keeps_zeros(pruned, zeros, make_ids):
    before = zeros(pruned)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)

    optimizer = torch.optim.AdamW(pruned.model.parameters(), 1e-2, weight_decay=0.1)
    loader = DataLoader(make_ids(8, 12), batch_size=2)
    model, optimizer, loader = accelerator.prepare(pruned.model, optimizer, loader)

    weights = pruned.blocks[0].mlp.down_proj.weight.detach().clone()

    with zeros_held(model):
        for ids_BT in loader:
            with accelerator.accumulate(model):
                accelerator.backward(loss_of(model, ids_BT))
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

    assert same(before, zeros(pruned))
    assert not torch.equal(weights, pruned.blocks[0].mlp.down_proj.weight)


def with_lora(model, **changes):
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    return get_peft_model(model, LoraConfig(**settings | changes))


def test_lora_is_merged_under_the_mask_and_computes_what_it_merges_to(pruned, zeros, make_ids):
    before = zeros(pruned)
    ids_BT = make_ids(3, 12)
    adapted = with_lora(pruned.model)

    with zeros_held(adapted):
        trained = [value for value in adapted.parameters() if value.requires_grad]
        some_steps(adapted, torch.optim.AdamW(trained, 1e-1), ids_BT)
        with torch.no_grad():
            logits = adapted(ids_BT).logits
        merged = adapted.merge_and_unload()

    assert same(before, zeros(pruned))
    with torch.no_grad():
        torch.testing.assert_close(merged(ids_BT).logits, logits, atol=1e-4, rtol=1e-4)


def test_lora_with_a_bias_computes_what_it_merges_to_and_all_of_it_is_trained(pruned, make_ids):
    ids_BT = make_ids(3, 12)
    for block in pruned.blocks:
        linear = block.mlp.down_proj
        linear.bias = torch.nn.Parameter(torch.zeros(linear.out_features))

    adapted = with_lora(pruned.model, target_modules=["down_proj"], lora_bias=True)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)

    with zeros_held(adapted):
        loss_of(adapted, ids_BT).backward()
        trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
        assert any(name.endswith("lora_B.default.bias") for name in trained)
        assert all(bool(value.grad.any()) for value in trained.values())

        with torch.no_grad():
            logits = adapted(ids_BT).logits
            merged = adapted.merge_and_unload()

    with torch.no_grad():
        torch.testing.assert_close(merged(ids_BT).logits, logits, atol=1e-3, rtol=1e-3)


def test_lora_alone_makes_a_pruned_model_dense(pruned, zeros, make_ids):
    """The control for the test above."""
    before = zeros(pruned)
    adapted = with_lora(pruned.model)
    trained = [value for value in adapted.parameters() if value.requires_grad]
    some_steps(adapted, torch.optim.AdamW(trained, 1e-1), make_ids(3, 12))
    adapted.merge_and_unload()
    assert not same(before, zeros(pruned))


def test_after_the_block_lora_is_peft_s_own_again(pruned, make_ids):
    ids_BT = make_ids(3, 12)
    adapted = with_lora(pruned.model)

    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)

    with torch.no_grad():
        logits = adapted(ids_BT).logits
        with zeros_held(adapted):
            assert not torch.allclose(adapted(ids_BT).logits, logits)
        assert torch.equal(adapted(ids_BT).logits, logits)


def test_what_is_unfrozen_meanwhile_gets_no_gradient_at_a_zero(pruned, make_ids):
    pruned.model.requires_grad_(False)
    with zeros_held(pruned) as held:
        assert not any(parameter.requires_grad for parameter in pruned.model.parameters())
        pruned.model.requires_grad_(True)
        loss_of(pruned.model, make_ids(3, 12)).backward()

        assert held
        for name, where in held.items():
            gradient = pruned.model.get_parameter(name).grad
            assert not bool(gradient[where].any()) and bool(gradient[~where].any()), name


def test_a_block_within_a_block_leaves_lora_under_the_mask(pruned, make_ids):
    ids_BT = make_ids(3, 12)
    adapted = with_lora(pruned.model, init_lora_weights=False)
    with torch.no_grad():
        plain = adapted(ids_BT).logits
        with zeros_held(adapted):
            masked = adapted(ids_BT).logits
            with zeros_held(adapted):
                assert torch.equal(adapted(ids_BT).logits, masked)
            assert torch.equal(adapted(ids_BT).logits, masked)
            assert not torch.allclose(masked, plain)
        assert torch.equal(adapted(ids_BT).logits, plain)


def test_without_its_adapter_a_merged_model_computes_as_its_base(pruned, make_ids):
    ids_BT = make_ids(3, 12)
    with torch.no_grad():
        expected = pruned.model(ids_BT).logits
        adapted = with_lora(pruned.model, init_lora_weights=False)
        with zeros_held(adapted):
            adapted.merge_adapter()
            merged = adapted(ids_BT).logits
            with adapted.disable_adapter():
                torch.testing.assert_close(adapted(ids_BT).logits, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(merged, expected, atol=1e-2)


WRAPPED = {
    "saved whole": lambda model: with_lora(model, modules_to_save=["lm_head"]),
    "with LoRA": lambda model: with_lora(model, target_modules=["q_proj", "lm_head"]),
    "in parallel": torch.nn.DataParallel,
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_zeros_of_the_output_head_are_never_held(make_pruned, wrap):
    lm = make_pruned("autoregressive")
    head = lm.output_head
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # not the embedding
    head.weight.data[70] = 0
    linears = len(lm.all_linears())
    with zeros_held(wrap(lm.model)) as held:
        assert len(held) == linears > 0
        assert not any("lm_head" in name for name in held)


def test_another_kind_of_adapter_is_refused(pruned):
    with (
        pytest.raises(ValueError, match="plain LoRA only"),
        zeros_held(with_lora(pruned.model, use_dora=True)),
    ):
        pass


def test_weights_are_chosen_by_gradients_in_a_loop_of_one_s_own(make_lm, make_ids, tmp_path):
    """As docs/python.md shows: the lowest |W * dL/dW| of every row become zero."""
    save(make_lm("diffusion", "gqa-24"), tmp_path / "dense")
    lm = load(tmp_path / "dense", trainable=True)
    for step, ids_BT in enumerate(make_ids(4, 12).split(2)):
        training_loss(lm, ids_BT, step=step).backward()

    linear = lm.blocks[1].mlp.up_proj
    score_OI = (linear.weight * linear.weight.grad).abs().detach()
    with torch.no_grad():
        for each in lm.all_linears().values():
            order_OI = (each.weight * each.weight.grad).abs().argsort(1)
            each.weight.scatter_(1, order_OI[:, : order_OI.shape[1] // 2], 0)

    again = load(save_model(lm, tmp_path / "pruned"))
    weight_OI = again.blocks[1].mlp.up_proj.weight
    kept_OI = score_OI > score_OI.median(1, keepdim=True).values
    assert torch.equal(weight_OI != 0, kept_OI) and float(score_OI.count_nonzero() / score_OI.numel()) > 0.3


def test_the_zeros_of_a_linear_by_itself_are_held():
    linear = torch.nn.Linear(8, 8)
    with torch.no_grad():
        linear.weight[:, ::2] = 0
    optimizer = torch.optim.AdamW(linear.parameters(), lr=0.1)

    with zeros_held(linear) as held:
        linear(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()

    assert list(held) == ["weight"]
    assert (linear.weight == 0).sum() == 32
    assert (linear.weight[:, ::2] == 0).all()


def test_the_zeros_of_a_weight_that_two_linears_share_are_held():
    one, other = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    other.weight = one.weight
    with torch.no_grad():
        one.weight[:, ::2] = 0

    model = torch.nn.Sequential(one, other)
    with zeros_held(model) as held:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()

    assert list(held) == ["0.weight", "1.weight"]
    assert (one.weight[:, ::2] == 0).all() and other.weight is one.weight


def _sparse(linear):
    linear.weight = torch.nn.Parameter(linear.weight.detach().to_sparse())


REFUSED = {
    "pruned by torch": (lambda linear: l1_unstructured(linear, "weight", amount=0.5), "prune.remove"),
    "parametrised": (lambda linear: spectral_norm(linear), "remove_parametrizations"),
    "sparse": (_sparse, "to_dense"),
}


@pytest.mark.parametrize(("change", "way_out"), REFUSED.values(), ids=REFUSED)
def test_a_linear_whose_zeros_cannot_be_held_is_named_with_a_way_out(change, way_out):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    change(model[0])
    with pytest.raises(ValueError, match=rf"^0 .*{way_out}"), zeros_held(model):
        pass


def test_a_linear_without_a_weight_yet_is_refused():
    with pytest.raises(ValueError, match="one batch"), zeros_held(torch.nn.LazyLinear(8)):
        pass


class Experts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Parameter(torch.randn(3, 8, 8))
        self.down = torch.nn.Parameter(torch.randn(3, 8, 8))


def _fused():
    attention = torch.nn.MultiheadAttention(8, 2)
    attention.in_proj_weight.data[:, ::2] = 0
    return attention


def _experts():
    experts = Experts()
    for weight in experts.parameters():
        weight.data[..., ::2] = 0
    return experts


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (_fused, "in_proj_weight"),
        (_experts, "up .* 50 % .* and 1 more"),
        (lambda: torch.nn.Sequential(QuantisedLinear(8, 8)), "0 is quantised"),
    ],
)
def test_zeros_that_are_not_held_are_warned_of_once(make, named):
    model = make()
    with pytest.warns(UserWarning, match=named) as caught, zeros_held(model):
        pass
    assert len(caught) == 1


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_that_changes_the_base_is_warned_of(pruned, start):
    adapted = with_lora(pruned.model, init_lora_weights=start)
    with pytest.warns(UserWarning, match=start), zeros_held(adapted):
        pass


def test_an_adapter_that_was_merged_before_is_warned_of(pruned):
    adapted = with_lora(pruned.model, init_lora_weights=False)
    adapted.merge_adapter()
    with pytest.warns(UserWarning, match="merged into .*q_proj"), zeros_held(adapted):
        pass


def test_a_pruned_model_is_held_without_a_warning(pruned):
    adapted = with_lora(pruned.model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with zeros_held(adapted):
            pass


def test_2_4_zeros_stay(make_pruned, zeros, make_ids):
    lm = make_pruned("autoregressive", pattern="2:4")
    lm.model.requires_grad_(True)
    before = zeros(lm)
    with zeros_held(lm):
        some_steps(lm.model, torch.optim.AdamW(lm.model.parameters(), 1e-2), make_ids(3, 12))
    assert same(before, zeros(lm))
    for linear in lm.linears(lm.blocks[0]).values():
        assert bool(((linear.weight == 0).unflatten(1, (-1, 4)).sum(-1) >= 2).all())

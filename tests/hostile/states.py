"""Models in odd states: each is handled, or refused in words.

What a state must not spoil is known without the code at test: a linear shows its weight by what it does to
unit vectors, likelihoods follow from the model's own logits, attention is shared out among positions, what is
written holds no mask, and a saved model answers as before.
"""

import copy
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path

import torch
from conftest import ANY_FAMILY, tiny_of_family, word_tokenizer
from hostile.fuzz import Case
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    JambaConfig,
    MixtralConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
)

from sinkprune.evaluation.likelihood import nll
from sinkprune.models.embedded import MASK_TOKEN_ID
from sinkprune.models.loading import load
from sinkprune.models.saving import save
from sinkprune_core.blocks import weights_kept
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.language_model import LanguageModel, wrap
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import preset
from sinkprune_core.sinks.trace import trace

IDS_NT = torch.randint(21, 66, (4, 12), generator=torch.Generator().manual_seed(0))
SAMPLER = Sampler(length=6, steps=4, block=3)
torch._logging.set_logs(dynamo=50, recompiles=False)  # of compiled states, of which nothing is to be said
GOOD = ""  # what a check returns where nothing is wrong
NAMED = ("Llama", "Qwen3", "GPT2", "block", "weight", "model", "token id", "attention")
ROUGH = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}

Change = Callable[[PreTrainedModel], PreTrainedModel | nn.Module]


def linear_of(model: nn.Module, layer: int = -1) -> nn.Module:
    """Return a linear of a block, the last but one of its block."""
    blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    return [module for module in blocks[layer].modules() if isinstance(module, nn.Linear)][-2]


def _blocks(model: nn.Module) -> nn.ModuleList:
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList))


# states


def _with_parts(change: Callable[[nn.Module], object]) -> Change:
    """Return what changes one linear of a model in place."""

    def changed(model: PreTrainedModel) -> PreTrainedModel:
        change(linear_of(model))
        return model

    return changed


def _with_model(change: Callable[[PreTrainedModel], object]) -> Change:
    """Return what changes a whole model in place."""

    def changed(model: PreTrainedModel) -> PreTrainedModel:
        change(model)
        return model

    return changed


def _of_config(**fields: object) -> Change:
    """Return what sets fields of a model's configuration."""

    def changed(model: PreTrainedModel) -> PreTrainedModel:
        for name, value in fields.items():
            setattr(model.config, name, value)
        return model

    return changed


class Doubled(nn.Module):
    """A parametrisation that gives twice what it keeps."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the double."""
        return 2 * weight


class Wrapped(nn.Module):
    """A linear in a module of somebody's own."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return what the linear does."""
        return self.inner(states)


class OwnLinear(nn.Linear):
    """A linear of somebody's own that scales what it gives."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return three times what the linear does."""
        return 3 * super().forward(states)


def _in_place_of_linear(make: Callable[[nn.Module], nn.Module]) -> Change:
    """Return what puts another module in the place of a linear."""

    def changed(model: PreTrainedModel) -> PreTrainedModel:
        linear = linear_of(model)
        for parent in model.modules():
            for name, child in parent.named_children():
                if child is linear:
                    setattr(parent, name, make(linear))
                    return model
        raise AssertionError("the linear is nowhere")

    return changed


def _own_linear(linear: nn.Module) -> nn.Module:
    own = OwnLinear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    own.weight = nn.Parameter(linear.weight.detach().clone())
    return own


def _with_weight(make: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Return what gives a linear another weight."""

    def change(linear: nn.Module) -> None:
        linear.weight = nn.Parameter(make(linear.weight.detach()), requires_grad=False)

    return _with_parts(change)


def _share_weight(model: PreTrainedModel) -> None:
    """Let two blocks have one weight."""
    linear_of(model, 1).weight = linear_of(model, 0).weight


def _share_block(model: PreTrainedModel) -> None:
    """Let one block come twice."""
    blocks = _blocks(model)
    blocks[1] = blocks[0]


def _share_linear(model: PreTrainedModel) -> None:
    """Let a linear of the second block be that of the first."""
    first = linear_of(model, 0)
    _in_place_of_linear(lambda _: first)(model)


def _inference(model: PreTrainedModel) -> PreTrainedModel:
    with torch.inference_mode():
        return copy.deepcopy(model)


def _quantised(model: PreTrainedModel) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)


def _with_adapter_inside(model: PreTrainedModel) -> PreTrainedModel:
    name = "c_attn" if isinstance(model.config, GPT2Config) else "q_proj"
    return inject_adapter_in_model(LoraConfig(target_modules=[name], r=2), model)


def _with_adapter(model: PreTrainedModel) -> nn.Module:
    name = "c_attn" if isinstance(model.config, GPT2Config) else "q_proj"
    return get_peft_model(model, LoraConfig(target_modules=[name], r=2))


def _merged(model: PreTrainedModel) -> nn.Module:
    return _with_adapter(model).merge_and_unload()


def _dropout(model: PreTrainedModel) -> None:
    """Let attention, or every dropout that there is, drop a third; the model trains."""
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.3
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    model.config.attention_dropout = 0.3
    model.train()


def _dropout_in_one_part(model: PreTrainedModel) -> None:
    """Let only one block train, with dropout, while the whole says that it does not."""
    _dropout(model)
    model.eval()
    _blocks(model)[1].train()


def _move_to_meta(model: PreTrainedModel) -> None:
    model.to("meta")


def _one_linear_to_meta(linear: nn.Module) -> None:
    linear.weight = nn.Parameter(linear.weight.detach().to("meta"), requires_grad=False)


def _with_hook(model: PreTrainedModel) -> None:
    """Let a user's hook, which changes nothing, stand on every block."""
    for block in _blocks(model):
        block.register_forward_hook(lambda *_: None)


def _compile_blocks(model: PreTrainedModel) -> None:
    """Compile every block where it stands."""
    for block in _blocks(model):
        block.compile(backend="eager")


def _wrap_blocks_compiled(model: PreTrainedModel) -> None:
    """Put a compiled block in the place of every block."""
    blocks = _blocks(model)
    for layer, block in enumerate(blocks):
        blocks[layer] = torch.compile(block, backend="eager")


def _with_gradients(model: PreTrainedModel) -> None:
    """Let every parameter have a gradient."""
    model.requires_grad_(True)
    model(IDS_NT).logits.sum().backward()


def _nan(linear: nn.Module) -> None:
    with torch.no_grad():
        linear.weight.view(-1)[3] = torch.nan


def _let_it_return_attention(model: PreTrainedModel) -> None:
    model.set_attn_implementation("eager")
    model.config.output_attentions = True


def _drop_last_block(model: PreTrainedModel) -> None:
    blocks = _blocks(model)
    del blocks[len(blocks) - 1]


STATES: dict[str, Change] = {
    "plain": lambda model: model,
    "train mode without dropout": _with_model(nn.Module.train),
    "train mode with dropout": _with_model(_dropout),
    "one block in train mode with dropout": _with_model(_dropout_in_one_part),
    "parametrised by the identity": _with_parts(
        lambda linear: parametrize.register_parametrization(linear, "weight", nn.Identity())
    ),
    "parametrised by the double": _with_parts(
        lambda linear: parametrize.register_parametrization(linear, "weight", Doubled())
    ),
    "weight norm": _with_parts(parametrizations.weight_norm),
    "weight norm of old": _with_parts(nn.utils.weight_norm),
    "spectral norm": _with_parts(parametrizations.spectral_norm),
    "orthogonal": _with_parts(parametrizations.orthogonal),
    "masked by torch": _with_parts(lambda one: torch_prune.random_unstructured(one, "weight", 0.5)),
    "masked by torch, made permanent": _with_parts(
        lambda one: (torch_prune.random_unstructured(one, "weight", 0.5), torch_prune.remove(one, "weight"))
    ),
    "an adapter around": _with_adapter,
    "an adapter inside": _with_adapter_inside,
    "an adapter merged": _merged,
    "compiled": partial(torch.compile, backend="eager"),
    "compiled in place": _with_model(lambda model: model.compile(backend="eager")),
    "blocks compiled in place": _with_model(_compile_blocks),
    "compiled blocks": _with_model(_wrap_blocks_compiled),
    "on several devices": nn.DataParallel,
    "quantised by torch": _quantised,
    "quantised by its configuration": _of_config(quantization_config={"quant_method": "gptq"}),
    "whole numbers": _with_weight(lambda weight: (100 * weight).to(torch.int8)),
    "float8": _with_weight(lambda weight: weight.to(torch.float8_e4m3fn)),
    "complex numbers": _with_weight(lambda weight: weight.to(torch.complex64)),
    "a sparse weight": _with_weight(torch.Tensor.to_sparse),
    "a weight in sparse rows": _with_weight(torch.Tensor.to_sparse_csr),
    "a weight in another order": _with_weight(lambda weight: weight.T.contiguous().T),
    "a weight with one row for all": _with_weight(lambda weight: weight[:1].expand_as(weight)),
    "a weight within a larger one": _with_weight(
        lambda weight: torch.cat([weight, weight], 1)[:, : weight.shape[1]]
    ),
    "an empty weight": _with_weight(lambda weight: weight[:0]),
    "one bfloat16 linear": _with_parts(lambda linear: linear.to(torch.bfloat16)),
    "one float64 linear": _with_parts(lambda linear: linear.to(torch.float64)),
    "all in bfloat16": _with_model(nn.Module.bfloat16),
    "all in float16": _with_model(nn.Module.half),
    "all in float64": _with_model(nn.Module.double),
    "without numbers": _with_model(_move_to_meta),
    "a linear without numbers": _with_parts(_one_linear_to_meta),
    "tensors of inference mode": _inference,
    "gradients": _with_model(_with_gradients),
    "checkpoints of gradients": _with_model(lambda model: model.gradient_checkpointing_enable()),
    "a hook on every block": _with_model(_with_hook),
    "NaN in a weight": _with_parts(_nan),
    "no blocks": _with_model(lambda model: _blocks(model).__init__()),
    "a block less than configured": _with_model(_drop_last_block),
    "an identity for a block": _with_model(lambda model: _blocks(model).__setitem__(0, nn.Identity())),
    "an identity for a linear": _in_place_of_linear(lambda _: nn.Identity()),
    "a linear in a module": _in_place_of_linear(Wrapped),
    "a linear of one's own": _in_place_of_linear(_own_linear),
    "a weight in two blocks": _with_model(_share_weight),
    "a linear in two blocks": _with_model(_share_linear),
    "a block twice": _with_model(_share_block),
    "return_dict false": _of_config(return_dict=False),
    "output_attentions": _with_model(_let_it_return_attention),
    "output_hidden_states": _of_config(output_hidden_states=True),
    "no cache": _of_config(use_cache=False),
    "eager attention": _with_model(lambda model: model.set_attn_implementation("eager")),
    "a configuration of more layers": _of_config(num_hidden_layers=9),
    "a configuration of another vocabulary": _of_config(vocab_size=50),
    "nothing": lambda _: None,
    "a name": lambda _: "smol-dlm",
    "a folder": lambda _: Path("/"),
    "its base alone": lambda model: model.base_model,
    "its configuration": lambda model: model.config,
    "a dictionary of weights": lambda model: model.state_dict(),
    "its class": type,
}

AT_ONCE = (
    "an adapter around",
    "compiled",
    "on several devices",
    "quantised by torch",
    "tensors of inference mode",
    "an identity for a block",
    "an identity for a linear",
    "nothing",
    "a name",
    "a folder",
    "its base alone",
    "its configuration",
    "a dictionary of weights",
    "its class",
)
"""States that are another object than the model, or that nothing but a forward shows."""

ARCHITECTURES = {
    "experts": (MixtralConfig, {"num_local_experts": 4}),
    "one expert": (MixtralConfig, {"num_local_experts": 1, "num_experts_per_tok": 1}),
    "experts of Qwen3": (Qwen3MoeConfig, {"num_experts": 4, "moe_intermediate_size": 16}),
    "learned sinks": (
        GptOssConfig,
        {"num_local_experts": 1, "num_experts_per_tok": 1, "attn_implementation": "eager"},
    ),
    "two kinds of attention": (
        Gemma3TextConfig,
        {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    "states instead of attention": (JambaConfig, {"use_mamba_kernels": False, "num_experts": 1}),
    "cross-attention": (
        GPT2Config,
        {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64, "add_cross_attention": True},
    ),
}


def _of_architecture(name: str) -> PreTrainedModel:
    config, more = ARCHITECTURES[name]
    fields = {} if config is GPT2Config else ANY_FAMILY
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(**{**fields, **more, "vocab_size": 72})).eval()


# what is done with a model, and what has to come out


def effective_weight(linear: nn.Module, inputs: int) -> torch.Tensor:
    """Return the weight that a linear computes with, (output, input), by what it does to unit vectors."""
    dtype = next((each.dtype for each in linear.parameters() if each.is_floating_point()), torch.float32)
    unit = torch.eye(inputs, dtype=dtype)
    with torch.no_grad():
        return (linear(unit) - linear(torch.zeros_like(unit))).T


def _pruned(lm: LanguageModel, name: str, **changes: object) -> str:
    """Prune, and compare the report with the zeros that linears compute with."""
    linears = list(lm.all_linears().values())
    inputs = [one.in_features for one in linears]
    before = _zero_share(linears, inputs)
    report = prune(lm, preset(name, **changes), Calibration(IDS_NT, batch=2), progress=False)

    after = _zero_share(linears, inputs)
    if not report.sparsity - 1e-6 <= after <= report.sparsity + before + 1e-6:
        return f"the report says {report.sparsity:.4f}, and {after:.4f} are zero, {before:.4f} before"
    if abs(report.sparsity - 0.5) > 0.02:
        return f"half was asked for, and {report.sparsity:.4f} are zero"
    return GOOD


def _zero_share(linears: list[nn.Module], inputs: list[int]) -> float:
    """Return the share of weights that linears compute with and that are zero."""
    try:
        weights = [effective_weight(one, size) for one, size in zip(linears, inputs, strict=True)]
    except Exception:  # of a state in which a linear cannot be computed
        return 0.0
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / (sum(weight.numel() for weight in weights) or 1)


def _scored(lm: LanguageModel) -> str:
    """Compare likelihoods with those of the model's own logits."""
    if lm.is_diffusion:
        found_NV = lm.logits_at(IDS_NT, torch.ones_like(IDS_NT, dtype=torch.bool))
        own_NV = _own_logits(lm).flatten(0, 1)
        differs = (found_NV - own_NV).abs().max() / own_NV.abs().max()
    else:
        found_N = torch.tensor(nll(lm, IDS_NT).value.to_numpy())
        own_NVT = _own_logits(lm)[:, :-1].transpose(1, 2)
        own_N = nn.functional.cross_entropy(own_NVT, IDS_NT[:, 1:], reduction="none").mean(1)
        differs = ((found_N - own_N) / own_N).abs().max()
    return GOOD if differs <= ROUGH[lm.dtype] else f"off by {float(differs):.3g} of the model's own"


@torch.no_grad()
def _own_logits(lm: LanguageModel) -> torch.Tensor:
    """Return the logits that a model itself gives, float32."""
    return lm.model.eval()(IDS_NT, use_cache=False, return_dict=True).logits.float()


def _traced(lm: LanguageModel) -> str:
    """Every query shares out all of its attention."""
    found = trace(lm, IDS_NT[:2, :4], SAMPLER, progress=False)
    mean = found.mass_BSLK.double().sum(-1).mean(0)  # over keys
    queries = mean if found.causal else torch.full_like(mean, 10.0)
    differs = (mean - queries).abs().max()
    is_finite = bool(torch.isfinite(found.layers_BSLK).all())
    return GOOD if is_finite and differs <= 10 * ROUGH[lm.dtype] else f"off by {float(differs):.3g}"


def _written(lm: LanguageModel) -> str:
    """What is written twice is the same, and holds no mask and nothing outside the vocabulary."""
    one, other = (_write(lm) for _ in range(2))
    if not torch.equal(one, other):
        return "two texts of one seed differ"
    if one.shape != (2, 10) or int(one.min()) < 0 or int(one.max()) >= lm.vocabulary:
        return "no text of the vocabulary"
    return "a mask was left" if lm.is_diffusion and bool((one == lm.mask_token_id).any()) else GOOD


def _write(lm: LanguageModel) -> torch.Tensor:
    from sinkprune_core.diffusion.sampling import decode

    if lm.is_diffusion:
        return generate(lm, IDS_NT[:2, :4], SAMPLER, seed=1)
    return decode(lm, IDS_NT[:2, :4], 6, 0.7, seed=1)


_numbers = count()


def _saved(lm: LanguageModel, place: Path) -> str:
    """What is saved and loaded answers as before."""
    folder = place / f"saved-{next(_numbers)}"
    try:
        save(lm, folder)
        dtype = str(lm.dtype).removeprefix("torch.")
        again = load(folder, "float32" if dtype == "float64" else dtype)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    before = _own_logits(lm)
    after = _own_logits(again)
    differs = (before - after).abs().max() / before.abs().max()
    return GOOD if differs <= ROUGH[again.dtype] else f"off by {float(differs):.3g} once saved"


def _undone(lm: LanguageModel) -> str:
    """What is pruned for a while comes back to the last bit."""
    before = lm.fingerprint()
    with weights_kept(lm):
        prune(lm, preset("wanda"), Calibration(IDS_NT, batch=2), progress=False)
        if lm.fingerprint() == before:
            return "nothing was pruned"
    return GOOD if lm.fingerprint() == before else "the weights are others"


def uses(place: Path) -> dict[str, Callable[[LanguageModel], str]]:
    """Return what is done with a model, by name; each returns what is wrong with what came out."""
    return {
        "magnitude": partial(_pruned, name="magnitude"),
        "wanda": partial(_pruned, name="wanda"),
        "sparsegpt": partial(_pruned, name="sparsegpt", block_size=16),
        "owl": partial(_pruned, name="wanda", allocation="owl"),
        "global": partial(_pruned, name="wanda", propagation="dense", pattern="global"),
        "scored": _scored,
        "traced": _traced,
        "written": _written,
        "saved": partial(_saved, place=place),
        "undone": _undone,
    }


MADE = {
    "autoregressive": {},
    "diffusion": {"mask_token_id": MASK_TOKEN_ID, "logits_shifted": False},
}


def states(root: Path, family: str, each: int) -> Iterator[Case]:
    """Every state of a model of a family, before it is wrapped and after, each with some uses in turn.

    Kinds of models take turns, too.
    """
    every = uses(root)
    turns = cycle(every)
    for number, state in enumerate(STATES):
        kind = list(MADE)[number % 2]
        for moment in ("before", "after") if state not in AT_ONCE else ("before",):
            for use in islice(turns, each):
                yield _case(family, kind, state, moment, use, every[use])


def states_of_both_kinds(root: Path, family: str) -> Iterator[Case]:
    """Every state of both kinds of models of a family with every use.

    Of an autoregressive model half of the uses come where the state was there before it was wrapped, and the
    others where it came after; of a diffusion model the other way round.
    """
    every = uses(root)
    names = list(every)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    orders = {"autoregressive": ("before", "after"), "diffusion": ("after", "before")}
    for state in STATES:
        for kind, moments in orders.items():
            parts = zip(moments, halves, strict=True) if state not in AT_ONCE else [("before", names)]
            for moment, chosen in parts:
                for use in chosen:
                    yield _case(family, kind, state, moment, use, every[use])


def _case(family: str, kind: str, state: str, moment: str, use: str, check: Callable) -> Case:
    run = partial(_run, family, kind, STATES[state], moment, check)
    return Case(f"{family}, {kind}: {state}, {moment}, {use}", run, GOOD, NAMED)


def architectures(root: Path) -> Iterator[Case]:
    """Every use of models of other architectures."""
    for name in ARCHITECTURES:
        for use, check in uses(root).items():
            run = partial(_run_of_architecture, name, check)
            yield Case(f"{name}, {use}", run, GOOD, (*NAMED, "Mixtral", "GptOss", "Gemma3", "Jamba"))


def _run(family: str, kind: str, change: Change, moment: str, check: Callable) -> str:
    model = tiny_of_family(family, 0)
    if moment == "before":
        return check(wrap(change(model), word_tokenizer(), **MADE[kind]))

    lm = wrap(model, word_tokenizer(), **MADE[kind])
    change(model)
    return check(lm)


def _run_of_architecture(name: str, check: Callable) -> str:
    return check(wrap(_of_architecture(name), word_tokenizer()))


GROUPS = {
    "odd states of a Llama": partial(states_of_both_kinds, family="llama-gqa"),
    "odd states of a Qwen3": partial(states, family="qwen3", each=3),
    "odd states of a GPT-2": partial(states, family="gpt2", each=3),
    "models of other architectures": architectures,
}  # by the name that the table has

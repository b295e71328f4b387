"""Structured width pruning: whole key-value groups and MLP channels leave, and a smaller native model remains.

A unit is a key-value head with all its query heads, or one MLP channel. Unit u of U owns the u-th of U equal stretches of
the rows of the linears that feed it and of the columns of the linear that reads it. `plan` says how many units of each
kind every block loses, `scores` and `choose` which, `mask` zeroes them in place, `shrink` builds the smaller model.

Dimensions: U units of a kind, K columns of a unit, X weights in a unit's rows, O output features, I input features.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from sinkprune_core.models.language_model import LanguageModel, set_direction, weight_OI


class RunningStatistics(Protocol):
    """What a criterion reads about a linear's input, float32 (I,): norm over all weighted tokens, weighted mean and variance."""

    norm_I: torch.Tensor
    mean_I: torch.Tensor
    variance_I: torch.Tensor


@dataclass(frozen=True)
class Units:
    """Where one kind of unit lies in a block: `rows` feed it, `columns` reads it, the config field `size` counts it.

    `bias` is the config field that gives all these linears a bias, None where the class has none to switch on.
    """

    rows: tuple[str, ...]
    columns: str
    size: str
    bias: str | None = None

    def count(self, config: PreTrainedConfig) -> int:
        """Return U, the number of units in every block."""
        return (
            getattr(config, self.size) or 4 * config.hidden_size
        )  # GPT-2's n_inner=None means four times the width


QKV, GATE_UP = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")


def _gated(attention_bias: str | None, mlp_bias: str | None) -> dict[str, Units]:
    return {
        "attention": Units(QKV, "self_attn.o_proj", "num_key_value_heads", attention_bias),
        "mlp": Units(GATE_UP, "mlp.down_proj", "intermediate_size", mlp_bias),
    }


FAMILIES: dict[str, dict[str, Units]] = {  # by config.model_type
    "llama": _gated("attention_bias", "mlp_bias"),
    "qwen2": _gated(None, None),
    "qwen3": _gated("attention_bias", None),
    "gpt2": {
        "mlp": Units(("mlp.c_fc",), "mlp.c_proj", "n_inner")
    },  # a head's width is n_embd / n_head: heads cannot leave
}


def removable(lm: LanguageModel) -> dict[str, Units]:
    """Return the kinds of unit that can leave this model, by name; raises ValueError for a family that is not in the table."""
    family = lm.model.config.model_type
    if family not in FAMILIES:
        raise ValueError(
            f"{lm.name} is a {family!r} model, whose units are not known; structured pruning knows {', '.join(FAMILIES)}"
        )
    return FAMILIES[family]


# scores


def magnitude(
    rows_UX: Sequence[torch.Tensor], columns_OUK: torch.Tensor, seen: RunningStatistics | None
) -> torch.Tensor:
    """Return the L2 norm of all weights a unit owns, float32 (U,) (Li et al. 2017 for filters, with L2 for L1)."""
    return (columns_OUK.square().sum((0, 2)) + sum(each.square().sum(1) for each in rows_UX)).sqrt()


def wanda(
    rows_UX: Sequence[torch.Tensor], columns_OUK: torch.Tensor, seen: RunningStatistics
) -> torch.Tensor:
    """Return sum_ij |W_ij| * ||x_j||_2 over the unit's columns j, float32 (U,) (Wanda-sp, An et al. 2024)."""
    return (columns_OUK.abs().sum(0) * _per_unit(seen.norm_I, columns_OUK)).sum(1)


def flap(rows_UX: Sequence[torch.Tensor], columns_OUK: torch.Tensor, seen: RunningStatistics) -> torch.Tensor:
    """Return sum_j Var(x_j) * ||W_:j||_2^2 over the unit's columns j, float32 (U,) (FLAP's WIFV, An et al. 2024, arXiv 2312.11983).

    FLAP standardises scores within a layer and kind to compare them across layers and kinds. Here `plan` fixes the
    numbers per layer and kind, and an increasing map of the scores changes no choice. FLAP's code also squares the column
    scores of attention before it sums them over a head; here they are summed as the formula gives them.
    """
    return (columns_OUK.square().sum(0) * _per_unit(seen.variance_I, columns_OUK)).sum(1)


def _per_unit(value_I: torch.Tensor, columns_OUK: torch.Tensor) -> torch.Tensor:
    return value_I.to(columns_OUK.device).view(columns_OUK.shape[1:])


@dataclass(frozen=True)
class UnitCriterion:
    """A score per unit, the higher the more it is kept, and whether it needs calibration statistics."""

    score: Callable[[Sequence[torch.Tensor], torch.Tensor, RunningStatistics | None], torch.Tensor]
    calibrated: bool


UNIT_CRITERIA: dict[str, UnitCriterion] = {
    "magnitude": UnitCriterion(magnitude, calibrated=False),
    "wanda": UnitCriterion(wanda, calibrated=True),
    "flap": UnitCriterion(flap, calibrated=True),
}


def scores(
    lm: LanguageModel,
    block: nn.Module,
    criterion: str,
    statistics: dict[str, RunningStatistics] | None = None,
) -> dict[str, torch.Tensor]:
    """Return the scores of a block's units by kind, float32 (U,) on the weights' device.

    `statistics` holds the inputs of the block's linears by name. Raises ValueError for an unknown criterion and for a
    calibrated one without statistics.
    """
    if criterion not in UNIT_CRITERIA:
        raise ValueError(
            f"criterion={criterion!r} is unknown for units; choose one of {', '.join(UNIT_CRITERIA)}"
        )
    if UNIT_CRITERIA[criterion].calibrated and statistics is None:
        raise ValueError(
            f"criterion={criterion!r} needs calibration statistics: pass those of the block's linears"
        )
    linears, found = lm.linears(block), {}
    for kind, units in removable(lm).items():
        count = units.count(lm.model.config)
        rows_UX = [weight_OI(linears[name]).detach().float().reshape(count, -1) for name in units.rows]
        columns_OI = weight_OI(linears[units.columns]).detach().float()
        found[kind] = UNIT_CRITERIA[criterion].score(
            rows_UX,
            columns_OI.unflatten(1, (count, -1)),
            None if statistics is None else statistics[units.columns],
        )
    return found


def choose(score_U: torch.Tensor, removed: int) -> torch.Tensor:
    """Return the units that stay, int64, ascending: the lowest scores leave, ties by lowest index.

    Raises ValueError for scores that are not finite.
    """
    if not bool(torch.isfinite(score_U).all()):
        raise ValueError("scores of units are not finite: look for weights or activations that are not")
    return score_U.sort(stable=True).indices[removed:].sort().values


# how many


@dataclass(frozen=True)
class Plan:
    """What every block loses: the share of its linears' weights that was asked for, units by kind, and what that makes."""

    ratio: float
    removed: dict[str, int]  # units per block
    weights: int  # in the linears of a block
    weights_removed: int

    @property
    def reached(self) -> float:
        """The share of the linears' weights that leaves, exactly."""
        return self.weights_removed / self.weights


def resized(config: PreTrainedConfig, kept: dict[str, int]) -> PreTrainedConfig:
    """Return a copy of `config` whose blocks have `kept` units by kind; raises ValueError where the class refuses that."""
    smaller = copy.deepcopy(config)
    if "attention" in kept:
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        smaller.update(
            {
                "num_key_value_heads": kept["attention"],
                "num_attention_heads": kept["attention"] * heads // groups,
                "head_dim": width,
            }
        )
    smaller.update({FAMILIES[config.model_type]["mlp"].size: kept["mlp"]})
    smaller.validate_architecture()
    return smaller


def group_counts(config: PreTrainedConfig) -> list[int]:
    """Return how many key-value groups may leave: all numbers that leave one and that the config class accepts.

    LlamaConfig wants a hidden size that is a multiple of the query heads, whatever the width of a head.
    """
    kinds = FAMILIES[config.model_type]
    if "attention" not in kinds:
        return [0]
    accepted, groups = [], kinds["attention"].count(config)
    for removed in range(groups):
        try:
            resized(config, {"attention": groups - removed, "mlp": kinds["mlp"].count(config)})
        except ValueError:
            continue
        accepted.append(removed)
    return accepted


def plan(lm: LanguageModel, ratio: float) -> Plan:
    """Return how many units every block loses so that `ratio` of the weights of its linears leave; biases do not count.

    Attention loses the number of groups nearest to `ratio` of it (the smaller of two equally near) of those that
    `group_counts` allows and the MLP can make up for, the MLP as many channels as bring the total nearest. One group and
    one channel stay. Raises ValueError for a ratio outside [0, 1), beyond what can leave, or above 0 but too small for
    any unit.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio < 1:
        raise ValueError(
            f"ratio={ratio!r} must be a number in [0, 1): it is the share of the blocks' weights that leaves"
        )
    kinds, config = removable(lm), lm.model.config
    sizes = {name: linear.weight.numel() for name, linear in lm.linears(lm.blocks[0]).items()}
    total = sum(sizes.values())
    of_kind = {
        kind: sum(sizes[name] for name in (*units.rows, units.columns)) for kind, units in kinds.items()
    }
    each = {kind: of_kind[kind] // units.count(config) for kind, units in kinds.items()}
    attention, group, channel = of_kind.get("attention", 0), each.get("attention", 0), each["mlp"]
    most_channels, options = kinds["mlp"].count(config) - 1, []
    for groups in group_counts(config):
        wanted = round((ratio * total - groups * group) / channel)
        channels = min(max(wanted, 0), most_channels)
        options.append((abs(wanted - channels), abs(groups * group - ratio * attention), groups, channels))
    missing, _, groups, channels = min(options)
    if missing:
        raise ValueError(
            f"ratio={ratio} cannot be reached: at most {(groups * group + channels * channel) / total:.4f} of a block's weights can leave {lm.name}, whose blocks keep a unit of each kind"
        )
    removed = {kind: {"attention": groups, "mlp": channels}[kind] for kind in kinds}
    if ratio > 0 and not any(removed.values()):
        raise ValueError(
            f"ratio={ratio} leaves nothing to remove: one MLP channel of {lm.name} is {channel / total:.4f} of a block's weights; give 0 or at least that"
        )
    return Plan(ratio, removed, total, groups * group + channels * channel)


def zeros(lm: LanguageModel, plan: Plan) -> dict[str, int]:
    """Return how many weights of each linear of a block leave under a plan, by name."""
    linears, config = lm.linears(lm.blocks[0]), lm.model.config
    return {
        name: linears[name].weight.numel() // units.count(config) * plan.removed[kind]
        for kind, units in removable(lm).items()
        for name in (*units.rows, units.columns)
    }


# what remains


Kept = dict[str, Sequence[int] | torch.Tensor]  # by kind, the units of a block that stay, ascending


@torch.no_grad()
def mask(
    lm: LanguageModel, block: nn.Module, kept: Kept, compensate: dict[str, RunningStatistics] | None = None
) -> None:
    """Zero, in place, all rows and columns of the units that are not `kept`; biases of rows stay, since nothing reads them.

    With `compensate`, the statistics of the block's linears, what the removed columns contributed on average becomes a
    bias of the output, W_:j mean(x_j) summed over them (FLAP, An et al. 2024). Raises ValueError where the model's class
    has no such bias.
    """
    if compensate is not None:
        check_compensation(lm)
    linears = lm.linears(block)
    for kind, units in removable(lm).items():
        gone_U = torch.ones(units.count(lm.model.config), dtype=torch.bool)
        gone_U[torch.as_tensor(kept[kind]).cpu()] = False
        reader = linears[units.columns]
        gone_I = _stretches(gone_U, weight_OI(reader).shape[1]).to(reader.weight.device)
        if compensate is not None:
            mean_I = compensate[units.columns].mean_I.to(reader.weight.device)
            bias_O = weight_OI(reader)[:, gone_I].float() @ mean_I[gone_I]
            former = 0 if reader.bias is None else reader.bias
            reader.bias = nn.Parameter((former + bias_O).to(reader.weight.dtype), requires_grad=False)
        weight_OI(reader)[:, gone_I] = 0
        for name in units.rows:
            weight = weight_OI(linears[name])
            weight[_stretches(gone_U, len(weight)).to(weight.device)] = 0


def check_compensation(lm: LanguageModel) -> None:
    """Raise ValueError unless the model's class can give a bias to every linear that reads units."""
    linears = lm.linears(lm.blocks[0])
    for units in removable(lm).values():
        if linears[units.columns].bias is None and units.bias is None:
            raise ValueError(
                f"{type(lm.model).__name__} has no bias for {units.columns}: the mean of what is removed can be compensated in Llama and GPT-2 models only"
            )


@torch.no_grad()
def shrink(lm: LanguageModel, kept: Sequence[Kept]) -> LanguageModel:
    """Return a smaller native model of the `kept` units, one entry per block, equal to the masked model in all outputs.

    It shares no memory with `lm`, and `save` writes what stock transformers reads. A bias that `mask` added switches the
    class's own biases on, with zeros wherever there were none. Raises ValueError unless every block keeps the same
    number of units, at least one of each kind, in ascending order.
    """
    kinds, config = removable(lm), lm.model.config
    _check_kept(lm, kept)
    smaller = resized(config, {kind: len(kept[0][kind]) for kind in kinds})
    added = {
        kind
        for kind, units in kinds.items()
        if units.bias
        and not getattr(config, units.bias)
        and any(lm.linears(block)[units.columns].bias is not None for block in lm.blocks)
    }
    smaller.update({kinds[kind].bias: True for kind in added})
    prefixes = {module: name for name, module in lm.model.named_modules()}
    cut: dict[str, torch.Tensor] = {}
    for block, stays in zip(lm.blocks, kept, strict=True):
        linears = lm.linears(block)
        for kind, units in kinds.items():
            stays_U = torch.zeros(units.count(config), dtype=torch.bool)
            stays_U[torch.as_tensor(stays[kind]).cpu()] = True
            for name in (*units.rows, units.columns):
                linear, reads = linears[name], name == units.columns
                rows, columns = weight_OI(linear).shape
                index = (
                    _stretches(stays_U, columns if reads else rows)
                    .nonzero()
                    .flatten()
                    .to(linear.weight.device)
                )
                cut[f"{prefixes[block]}.{name}.weight"] = linear.weight.index_select(
                    int(reads) ^ isinstance(linear, Conv1D), index
                )
                bias_O = (
                    linear.weight.new_zeros(rows) if linear.bias is None and kind in added else linear.bias
                )
                if bias_O is not None:
                    cut[f"{prefixes[block]}.{name}.bias"] = bias_O.clone() if reads else bias_O[index]
    state = {
        **{name: tensor.clone() for name, tensor in lm.model.state_dict().items() if name not in cut},
        **cut,
    }
    model = type(lm.model).from_pretrained(None, config=smaller, state_dict=state, dtype=lm.model.dtype)
    model.generation_config = copy.deepcopy(lm.model.generation_config)
    set_direction(model, causal=not lm.is_diffusion).requires_grad_(False).to(lm.device)
    return dataclasses.replace(lm, model=model)


def _check_kept(lm: LanguageModel, kept: Sequence[Kept]) -> None:
    kinds = removable(lm)
    if len(kept) != len(lm.blocks):
        raise ValueError(
            f"kept has {len(kept)} entries for the {len(lm.blocks)} blocks of {lm.name}: give one per block"
        )
    for layer, stays in enumerate(kept):
        if set(stays) != set(kinds):
            raise ValueError(
                f"kept[{layer}] names {sorted(stays)}; {lm.name} has units of kind {', '.join(kinds)}: name each of them"
            )
        for kind, units in kinds.items():
            places, count = torch.as_tensor(stays[kind]).tolist(), units.count(lm.model.config)
            if not places or places != sorted(set(places)) or not 0 <= places[0] <= places[-1] < count:
                raise ValueError(
                    f"kept[{layer}][{kind!r}] must be at least one unit of 0 … {count - 1}, each once, ascending"
                )
            if len(places) != len(kept[0][kind]):
                raise ValueError(
                    f"kept[{layer}][{kind!r}] holds {len(places)} units, block 0 keeps {len(kept[0][kind])}: a config has one number for all blocks"
                )


def _stretches(chosen_U: torch.Tensor, features: int) -> torch.Tensor:
    """Return which of so many rows or columns belong to the chosen units, bool."""
    return chosen_U.repeat_interleave(features // len(chosen_U))

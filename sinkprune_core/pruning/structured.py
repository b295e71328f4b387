"""Structured width pruning: choose whole key-value groups and MLP channels, and zero them in place.

A unit is a key-value head with all its query heads (a group), or one MLP channel. Unit u of U owns the u-th
of U equal ranges of the rows of the linears that feed it and of the columns of the linear that reads it.
`unit_counts` says how many units of each kind every block loses, `scores` and `choose` which, and `mask`
zeroes them.

Dimensions: O outputs, I inputs, U units of a kind, K columns and X weights in rows that a unit owns.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig

from sinkprune_core.calibration.input_statistics import InputStatistics
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.pruning.criteria import UnitScore

WIDTHS_OF_GPT2 = 4  # what GPT-2 means by n_inner=None: channels of its MLP per feature
ROUNDED_FROM = 8  # times `round_to`, the channels from which the MLP's width is rounded

# where units lie


@dataclass(frozen=True)
class Units:
    """Where one kind of unit lies in a block."""

    rows: tuple[str, ...]  # the linears that feed a unit: it owns rows of their weights
    columns: str  # the linear that reads a unit: it owns columns of its weight
    size: str  # the config field that counts the units
    bias: str | None = None  # the config field that gives all these linears a bias, if the class has one

    @property
    def linears(self) -> tuple[str, ...]:
        """The names of all linears that hold weights of these units."""
        return (*self.rows, self.columns)

    def count(self, config: PreTrainedConfig) -> int:
        """Return U, the number of units in every block."""
        default = WIDTHS_OF_GPT2 * config.hidden_size
        return getattr(config, self.size) or default


def _gated_family(attention_bias: str | None, mlp_bias: str | None) -> dict[str, Units]:
    """Return the units of a family with grouped queries and a gated MLP."""
    projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    gates = ("mlp.gate_proj", "mlp.up_proj")
    return {
        "attention": Units(projections, "self_attn.o_proj", "num_key_value_heads", attention_bias),
        "mlp": Units(gates, "mlp.down_proj", "intermediate_size", mlp_bias),
    }


UNITS: dict[str, dict[str, Units]] = {  # config.model_type -> kind of unit
    "llama": _gated_family("attention_bias", "mlp_bias"),
    "qwen2": _gated_family(None, None),
    "qwen3": _gated_family("attention_bias", None),
    "mistral": _gated_family(None, None),
    "gemma": _gated_family("attention_bias", None),
    "smollm3": _gated_family("attention_bias", "mlp_bias"),
    "granite": _gated_family("attention_bias", "mlp_bias"),
    # The width of a GPT-2 head is n_embd / n_head, so its heads cannot leave.
    "gpt2": {"mlp": Units(("mlp.c_fc",), "mlp.c_proj", "n_inner")},
}


def removable(lm: LanguageModel) -> dict[str, Units]:
    """Return the kinds of unit that can leave this model, by name.

    Raises ValueError for a family that is not in the table.
    """
    family = lm.model.config.model_type
    if family not in UNITS:
        raise ValueError(
            f"{lm.name} is a {family!r} model, whose units are not known; "
            f"structured pruning knows {', '.join(UNITS)}"
        )

    return UNITS[family]


def owned_by(units: Sequence[int] | torch.Tensor, count: int, features: int) -> torch.Tensor:
    """Return which of `features` rows or columns belong to some of `count` units, bool (features,)."""
    marked_U = torch.zeros(count, dtype=torch.bool)
    marked_U[torch.as_tensor(units).cpu()] = True
    return marked_U.repeat_interleave(features // count)


# which units leave


def scores(
    lm: LanguageModel,
    block: nn.Module,
    unit_score: UnitScore,
    statistics: dict[str, InputStatistics] | None = None,
) -> dict[str, torch.Tensor]:
    """Return the scores of a block's units by kind, float32 (U,) on the weights' device.

    `unit_score` is that of a criterion. `statistics` holds the inputs of the block's linears by name, for one
    that is calibrated.
    """
    linears = lm.linears(block)
    scores_of_kind = {}
    for kind, units in removable(lm).items():
        count = units.count(lm.model.config)
        rows_UX = [linears[name].weight.detach().float().reshape(count, -1) for name in units.rows]
        columns_OI = linears[units.columns].weight.detach().float()
        columns_OUK = columns_OI.unflatten(1, (count, -1))
        inputs = None if statistics is None else statistics[units.columns]
        scores_of_kind[kind] = unit_score(rows_UX, columns_OUK, inputs)

    return scores_of_kind


def choose(score_U: torch.Tensor, removed: int) -> torch.Tensor:
    """Return the units that stay, int64, ascending: the lowest scores leave, ties by lowest index."""
    return score_U.sort(stable=True).indices[removed:].sort().values


# how many units leave


@dataclass(frozen=True)
class UnitCounts:
    """How much every block loses."""

    removed: dict[str, int]  # units that leave, by kind
    zeros: dict[str, int]  # weights that leave, by linear
    weights: int  # in the linears of a block

    @property
    def weights_removed(self) -> int:
        """How many weights of a block leave."""
        return sum(self.zeros.values())

    @property
    def reached(self) -> float:
        """The share of the linears' weights that leaves, exactly."""
        return self.weights_removed / self.weights


def unit_counts(lm: LanguageModel, ratio: float, round_to: int = 1) -> UnitCounts:
    """Return how many units every block loses so that `ratio` of the weights of its linears leave.

    Biases do not count. Attention loses the number of groups nearest to `ratio` of it (the smaller of two
    equally near) of those that `group_counts` allows and the MLP can make up for, the MLP as many channels as
    bring the total nearest; it keeps a multiple of `round_to` of them (see `rounded`). One group and one
    channel stay. `ratio` lies in [0, 1). Raises ValueError for one beyond what can leave, or above 0 but too
    small for any unit.
    """
    kinds = removable(lm)
    _check_alike(lm)
    linears = lm.linears(lm.blocks[0])
    nearest = _nearest(lm, ratio, round_to)
    removed = {"attention": nearest.groups, "mlp": nearest.channels}
    zeros = dict.fromkeys(linears, 0)

    for kind, units in kinds.items():
        for name in units.linears:
            zeros[name] = linears[name].weight.numel() // units.count(lm.model.config) * removed[kind]

    counts = UnitCounts({kind: removed[kind] for kind in kinds}, zeros, _block_weights(lm))

    if nearest.missing_channels > 0:
        raise ValueError(
            f"ratio={ratio} cannot be reached: at most {counts.reached:.4f} of a block's weights can leave "
            f"{lm.name}, whose blocks keep a unit of each kind"
        )

    if ratio > 0 and counts.weights_removed == 0:
        channel_share = _unit_weights(lm, "mlp") / counts.weights
        rounding = f", and round_to={round_to} keeps multiples of that" if round_to > 1 else ""
        raise ValueError(
            f"ratio={ratio} leaves nothing to remove: one MLP channel of {lm.name} is {channel_share:.4f} of "
            f"a block's weights{rounding}; give 0 or more"
        )

    return counts


def _check_alike(lm: LanguageModel) -> None:
    """Raise ValueError unless all blocks have linears of the same shapes, so that each loses as much."""
    first, *others = [
        {name: linear.weight.shape for name, linear in lm.linears(block).items()} for block in lm.blocks
    ]
    if any(shapes != first for shapes in others):
        raise ValueError(
            f"blocks of {lm.name} differ in their shapes, and pattern='structured' takes as many units from "
            "each of them"
        )


def is_rounded(channels: int, round_to: int) -> bool:
    """Return whether a number of MLP channels is brought to a multiple of `round_to`.

    A model with fewer than ROUNDED_FROM times as many channels is not: it would miss its ratio by far.
    """
    return channels >= ROUNDED_FROM * round_to


def rounded(channels: int, removed: int, round_to: int) -> int:
    """Return how many of some MLP channels leave, so that a multiple of `round_to` stays where it is rounded.

    Kernels are fast on such widths.
    """
    if removed == 0 or not is_rounded(channels, round_to):
        return removed
    kept = (channels - removed + round_to // 2) // round_to * round_to
    return channels - min(max(kept, round_to), channels)


@dataclass(frozen=True)
class _Candidate:
    """A number of key-value groups that may leave, and what follows from it."""

    groups: int
    channels: int  # of the MLP that leave with them
    missing_channels: int  # that would have to leave beside these, or to stay
    distance: float  # weights by which attention loses more, or less, than its share

    @property
    def preference(self) -> tuple[int, float, int]:
        """What orders candidates: the lowest reaches the ratio best, and takes attention's share best."""
        return self.missing_channels, self.distance, self.groups


def _nearest(lm: LanguageModel, ratio: float, round_to: int) -> _Candidate:
    """Return the units whose weights come nearest to `ratio`."""
    config = lm.model.config
    weights = _block_weights(lm)
    group = _unit_weights(lm, "attention")
    attention = group * config.num_key_value_heads if group else 0
    channel = _unit_weights(lm, "mlp")
    all_channels = UNITS[config.model_type]["mlp"].count(config)

    candidates = []
    for groups in group_counts(config):
        wanted_channels = round((ratio * weights - groups * group) / channel)
        channels = min(max(wanted_channels, 0), all_channels - 1)
        candidate = _Candidate(
            groups=groups,
            channels=rounded(all_channels, channels, round_to),
            missing_channels=abs(wanted_channels - channels),
            distance=abs(groups * group - ratio * attention),
        )
        candidates.append(candidate)

    return min(candidates, key=lambda candidate: candidate.preference)


def _block_weights(lm: LanguageModel) -> int:
    """Return how many weights the linears of a block hold."""
    return sum(linear.weight.numel() for linear in lm.linears(lm.blocks[0]).values())


def _unit_weights(lm: LanguageModel, kind: str) -> int:
    """Return how many weights of a block belong to one unit, 0 for a kind that cannot leave."""
    units = removable(lm).get(kind)
    if units is None:
        return 0
    linears = lm.linears(lm.blocks[0])
    return sum(linears[name].weight.numel() for name in units.linears) // units.count(lm.model.config)


def group_counts(config: PreTrainedConfig) -> list[int]:
    """Return how many key-value groups may leave: one must stay, and the config class must accept the rest.

    LlamaConfig wants a hidden size that is a multiple of the query heads, whatever the width of a head.
    """
    kinds = UNITS[config.model_type]
    if "attention" not in kinds:
        return [0]

    groups = kinds["attention"].count(config)
    channels = kinds["mlp"].count(config)

    accepted = []
    for removed in range(groups):
        try:
            resized(config, {"attention": groups - removed, "mlp": channels})
        except ValueError:
            continue
        accepted.append(removed)

    return accepted


def resized(config: PreTrainedConfig, kept: dict[str, int]) -> PreTrainedConfig:
    """Return a copy of `config` whose blocks have `kept` units by kind.

    Raises ValueError where the config class refuses these numbers.
    """
    smaller = copy.deepcopy(config)
    if "attention" in kept:
        queries_per_group = config.num_attention_heads // config.num_key_value_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attention = {
            "num_key_value_heads": kept["attention"],
            "num_attention_heads": kept["attention"] * queries_per_group,
            "head_dim": width,
        }
        smaller.update(attention)

    smaller.update({UNITS[config.model_type]["mlp"].size: kept["mlp"]})
    smaller.validate_architecture()
    return smaller


# zeroing them


Kept = Mapping[str, Sequence[int] | torch.Tensor]  # by kind, the units of a block that stay, ascending


@torch.no_grad()
def mask(
    lm: LanguageModel, block: nn.Module, kept: Kept, compensate: dict[str, InputStatistics] | None = None
) -> None:
    """Zero, in place, all rows and columns of the units that are not `kept`.

    Biases of rows stay, since nothing reads them. With `compensate`, the statistics of the block's linears,
    what the removed columns contributed on average becomes a bias of the output, W_:j mean(x_j) summed over
    them (FLAP, An et al. 2024). Raises ValueError where the model's class has no such bias.
    """
    if compensate is not None:
        check_compensation(lm)

    linears = lm.linears(block)
    for kind, units in removable(lm).items():
        count = units.count(lm.model.config)
        reader = linears[units.columns]
        stays_I = owned_by(kept[kind], count, reader.weight.shape[1])
        gone_I = ~stays_I.to(reader.weight.device)
        if compensate is not None:
            _add_mean_of_removed(reader, gone_I, compensate[units.columns].mean_I)

        reader.weight[:, gone_I] = 0
        for name in units.rows:
            weight = linears[name].weight
            stays_O = owned_by(kept[kind], count, len(weight))
            weight[~stays_O.to(weight.device)] = 0


def _add_mean_of_removed(reader: nn.Linear, gone_I: torch.Tensor, mean_I: torch.Tensor) -> None:
    """Add to a linear's bias what the inputs that leave contribute to its output on average."""
    mean_I = mean_I.to(reader.weight.device)
    mean_O = reader.weight[:, gone_I].float() @ mean_I[gone_I]

    if reader.bias is None:
        reader.bias = nn.Parameter(mean_O.to(reader.weight.dtype), requires_grad=False)
    else:
        reader.bias.copy_(reader.bias + mean_O)


def check_compensation(lm: LanguageModel) -> None:
    """Raise ValueError unless the model's class can give a bias to every linear that reads units."""
    for units in removable(lm).values():
        has_bias = all(lm.linears(block)[units.columns].bias is not None for block in lm.blocks)
        if not has_bias and units.bias is None:
            raise ValueError(
                f"{type(lm.model).__name__} has no bias for {units.columns}: the mean of what is removed "
                "can be compensated in Llama and GPT-2 models only"
            )

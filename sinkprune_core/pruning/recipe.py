"""How to prune, as data: a recipe is a criterion and a few switches, and the presets name those of the literature."""

from dataclasses import dataclass

from sinkprune_core.pruning.calibration import EXCLUDE, INPUTS, NOISE, SOFT, StatisticsKey
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.patterns import ALLOCATIONS, PATTERNS, n_and_m
from sinkprune_core.sinks.detection import STABILITY_THRESHOLD

PROPAGATION = ("sequential", "dense")
NORM_REDUCTIONS = ("root", "sum")


@dataclass(frozen=True)
class Recipe:
    """How to prune. `sparsity` is the share of zeros in the linears of the blocks, nothing else.

    `inputs`: clean or noised calibration text. `propagation`: later blocks are calibrated on the output of pruned
    (`sequential`) or dense blocks. `tokens`: which calibration tokens are left out of the statistics: none, all sinks
    (`official`: softly, in the official code's units), unstable or stable ones, as many random tokens, or everything but
    the sinks (`only`). `pattern`: where zeros are counted: per `row` of a linear, per `layer` (linear), `global` over
    the model, `N:M` (N zeros in every M consecutive inputs), or `structured` (whole key-value groups and MLP channels;
    `sparsity` is then the ratio of block parameters). `allocation`: one sparsity for all layers, or more for some.

    `levels`: states per sequence (noise levels; steps of a causal model). `noise`: the rule of these states.
    `norm`: the root of summed squares over all tokens, or the `sum` of one norm per sequence (official code).
    `sink_std`: the sink threshold above the mean, in standard deviations. `alpha`: steepness of a soft threshold, per
    even share (`all`) or official unit (`official`). `stability_threshold`: the persistence from which a sink is stable.
    `owl_lambda`: how far a layer's sparsity may lie from the mean. `outlier`: OWL's multiple of the mean score. `damping`,
    `block_size`: SparseGPT's share of the mean diagonal and the columns it updates together. `compensate`: give what removed
    units contributed on average back as a bias (FLAP), where the model's class has one.
    """

    criterion: str = "wanda"
    sparsity: float = 0.5
    inputs: str = "clean"
    propagation: str = "sequential"
    exclude: str = "none"
    pattern: str = "row"
    allocation: str = "uniform"
    noise_levels: int = 8
    noise: str = "grid"
    norm_reduction: str = "root"
    sink_std: float = 2.0
    alpha: float | None = None
    stability_threshold: float = STABILITY_THRESHOLD
    owl_lambda: float = 0.08
    owl_m: float = 5.0
    damping: float = 0.01
    block_size: int = 128
    compensate: bool = False

    def __post_init__(self):
        choices = {
            "criterion": CRITERIA,
            "inputs": INPUTS,
            "propagation": PROPAGATION,
            "exclude": EXCLUDE,
            "allocation": ALLOCATIONS,
            "noise": NOISE,
            "norm_reduction": NORM_REDUCTIONS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(allowed)}"
                )
        if (
            isinstance(self.sparsity, bool)
            or not isinstance(self.sparsity, (int, float))
            or not 0 <= self.sparsity < 1
        ):
            raise ValueError(
                f"sparsity={self.sparsity!r} must be a number in [0, 1): it is the share of weights set to zero"
            )
        for name in ("noise_levels", "block_size"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be a whole number of at least 1")
        if not 0 <= self.stability_threshold <= 1:
            raise ValueError(
                f"stability_threshold={self.stability_threshold} must lie in [0, 1]: it is a share of steps"
            )
        for name in ("sink_std", "owl_lambda", "damping"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be a number of at least 0")
        for name in ("owl_m", "alpha"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be a number above 0")
        self._check_pattern()
        self._check_contradictions()

    def _check_pattern(self) -> None:
        ratio = n_and_m(self.pattern)
        if ratio is None and self.pattern not in PATTERNS:
            raise ValueError(
                f"pattern={self.pattern!r} is unknown; choose one of {', '.join(PATTERNS)}, or N:M such as 2:4"
            )
        if ratio is not None and self.sparsity != ratio[0] / ratio[1]:
            raise ValueError(
                f"pattern={self.pattern!r} means sparsity={ratio[0] / ratio[1]:g}, not sparsity={self.sparsity}: give that sparsity or another pattern"
            )
        if self.pattern != "row" and self.pattern != "layer" and self.allocation != "uniform":
            raise ValueError(
                f"allocation={self.allocation!r} does not go with pattern={self.pattern!r}: only row and layer patterns let layers differ by choice"
            )

    def _check_contradictions(self) -> None:
        criterion = CRITERIA[self.criterion]
        if not criterion.calibrated and (self.exclude != "none" or self.inputs != "clean"):
            raise ValueError(
                f"criterion={self.criterion!r} looks at no calibration token: it takes inputs='clean' and exclude='none' only"
            )
        if criterion.needs == "moments" and self.pattern != "structured":
            raise ValueError(
                f"criterion={self.criterion!r} scores whole channels: it needs pattern='structured'"
            )
        if criterion.needs == "gram" and self.pattern in ("structured", "global"):
            raise ValueError(
                f"criterion={self.criterion!r} chooses while it updates weights: it takes no pattern={self.pattern!r}"
            )
        if self.pattern == "global" and criterion.calibrated and self.propagation != "dense":
            raise ValueError(
                "pattern='global' compares scores of all layers before anything is pruned: it needs propagation='dense'"
            )
        if self.allocation == "owl" and not criterion.calibrated:
            raise ValueError(
                f"allocation='owl' needs calibrated scores: criterion={self.criterion!r} has none"
            )
        if self.compensate and (self.pattern != "structured" or not criterion.calibrated):
            raise ValueError(
                "compensate=True gives back the mean of removed units: it needs pattern='structured' and a calibrated criterion"
            )
        if self.alpha is not None and self.exclude not in SOFT:
            raise ValueError(
                f"alpha={self.alpha} softens the threshold of exclude={' or '.join(map(repr, SOFT))} only, not of exclude={self.exclude!r}"
            )

    @property
    def name(self) -> str:
        """A short label, e.g. `wanda noised dense unstable`; what is not the default is named."""
        parts = [self.criterion]
        if CRITERIA[self.criterion].calibrated:
            parts += (
                [self.inputs, self.propagation]
                + [self.exclude] * (self.exclude != "none")
                + [self.noise] * (self.noise != "grid")
                + [self.norm_reduction] * (self.norm_reduction != "root")
            )
        return " ".join(
            parts
            + [self.pattern] * (self.pattern != "row")
            + [self.allocation] * (self.allocation != "uniform")
        )

    @property
    def statistics_key(self) -> StatisticsKey:
        """What decides the statistics of a dense model: recipes with equal values here share them."""
        return StatisticsKey(
            self.inputs,
            self.noise,
            self.noise_levels,
            self.exclude,
            self.sink_std,
            self.alpha,
            self.stability_threshold,
        )


_NOISED_DENSE = {"inputs": "noised", "propagation": "dense"}
PRESETS: dict[str, dict] = {
    "magnitude": {"criterion": "magnitude"},
    "wanda": {},
    "dwanda": {"inputs": "noised"},
    "sparsegpt": {"criterion": "sparsegpt", "pattern": "layer"},
    "noised-dense": _NOISED_DENSE,
    "all-sinks": {**_NOISED_DENSE, "exclude": "all"},
    "unstable": {**_NOISED_DENSE, "exclude": "unstable"},
    "stable": {**_NOISED_DENSE, "exclude": "stable"},
    "random": {**_NOISED_DENSE, "exclude": "random"},
    "only-sinks": {**_NOISED_DENSE, "exclude": "only"},
    "paper": {
        **_NOISED_DENSE,
        "exclude": "official",
        "noise": "official",
        "norm_reduction": "sum",
        "noise_levels": 10,
    },
    "paper-no-sinks": {**_NOISED_DENSE, "noise": "official", "norm_reduction": "sum", "noise_levels": 10},
    "paper-dream": {
        **_NOISED_DENSE,
        "exclude": "official",
        "noise": "dream",
        "norm_reduction": "sum",
        "noise_levels": 10,
    },
    "paper-sparsegpt": {
        "criterion": "sparsegpt",
        "exclude": "official",
        "noise": "official",
        "noise_levels": 10,
        "pattern": "layer",
    },
    "sparsegpt-unstable": {"criterion": "sparsegpt", "exclude": "unstable", "pattern": "layer"},
    "structured-magnitude": {"criterion": "magnitude", "pattern": "structured"},
    "structured": {"criterion": "wanda", "pattern": "structured"},
    "structured-sink": {
        "criterion": "wanda",
        "pattern": "structured",
        **_NOISED_DENSE,
        "exclude": "official",
        "noise": "official",
        "norm_reduction": "sum",
        "noise_levels": 10,
    },
    "structured-no-sinks": {
        "criterion": "wanda",
        "pattern": "structured",
        **_NOISED_DENSE,
        "noise": "official",
        "norm_reduction": "sum",
        "noise_levels": 10,
    },
    "flap": {"criterion": "flap", "pattern": "structured", "compensate": True},
}


def preset(name: str, **changes) -> Recipe:
    """Return the recipe of a name from the literature, with fields changed; raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return Recipe(**{**PRESETS[name], **changes})

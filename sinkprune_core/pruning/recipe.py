"""How to prune, as data: a criterion and a few switches. Presets are the recipes of the literature."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from fnmatch import fnmatchcase
from types import FunctionType
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from sinkprune_core.calibration.token_weights import EXCLUDE, StatisticsKey, choice_name
from sinkprune_core.pruning.criteria import Criterion, CriterionName, criterion_of
from sinkprune_core.pruning.patterns import PATTERNS, n_and_m
from sinkprune_core.pruning.presets import PRESETS, PRESETS_FROM_SPARSITY
from sinkprune_core.sinks.detection import SINK_STD, STABILITY_THRESHOLD
from sinkprune_core.values import (
    AboveZero,
    AtLeastZero,
    Count,
    Flag,
    Share,
    Sparsity,
    check_choice,
    check_fields,
    checked,
    in_short,
)

ROUND_TO = 64  # channels of which a structured recipe keeps a multiple
ROUNDING = 1e-6  # how far a sparsity may lie from what a pattern N:M or a list of sparsities means
HALF = 0.5  # the sparsity where nothing says another one
NOT_GIVEN = cast(float, None)  # until `Recipe` fills it in, before anyone can read it

Inputs = Literal["clean", "noised"]
Propagation = Literal["sequential", "dense"]
Allocation = Literal["uniform", "owl"]
NormReduction = Literal["root", "sum"]
NoiseName = Literal[
    "grid",
    "stratified",
    "official",
    "official-below-1",
    "half-clean",
    "half-clean-high",
    "half-clean-low",
    "dream",
]
ExcludeName = Literal["none", "all", "official", "unstable", "stable", "random", "non-sinks"]


def _known_pattern(pattern: str) -> str:
    if pattern not in PATTERNS and n_and_m(pattern) is None:
        raise ValueError(f"must be one of {', '.join(PATTERNS)}, or N:M such as 2:4")
    return pattern


def _known_by_name(function: Any) -> Any:
    """Return what tells itself from others: a function by its name, a frozen dataclass by what it prints."""
    is_frozen = is_dataclass(function) and not isinstance(function, type) and type(function).__hash__
    if not is_frozen and not isinstance(function, FunctionType):
        raise ValueError("must be a function (def or lambda) or an instance of a @dataclass(frozen=True)")
    return function


Pattern = Annotated[str, AfterValidator(_known_pattern)]
UserFunction = Annotated[Callable, BeforeValidator(_known_by_name)]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    Field(strict=False),
]
Sparsities = Annotated[tuple[Sparsity, ...], Field(strict=False)]


@dataclass(frozen=True)
class Recipe:
    """How to prune the linears of the blocks; raises ValueError for fields that contradict each other."""

    criterion: CriterionName | UserFunction = "wanda"
    """Which weights matter: a name of CRITERIA, or a function; see `criteria.criterion_of`."""
    sparsity: Sparsity = NOT_GIVEN
    """Share of zeros in the linears, in [0, 1); with pattern="structured" of their weights that leave. Where
    none is given, it is N / M of a pattern, the mean of `sparsities`, or else 0.5."""
    inputs: Inputs = "clean"
    """Calibration text as it is ("clean", Wanda and SparseGPT) or in the states of a trajectory
    ("noised")."""
    propagation: Propagation = "sequential"
    """Whether later blocks receive what pruned ("sequential", Wanda and SparseGPT) or "dense" blocks make."""
    exclude: ExcludeName | UserFunction = "none"
    """Calibration tokens left out of the statistics. A name of EXCLUDE: "none", "all" sinks, "official"
    (softly, in the official code's units), "unstable" or "stable" sinks, as many "random" tokens, all
    "non-sinks". Or a function from a SinkContext to the share left out of every token at every step,
    (1, S, T), in [0, 1]; it is called for one sequence at a time."""
    pattern: Pattern = "row"
    """Where zeros are counted: per "row" of a linear (Wanda), per "layer" (a linear), "global" over the
    model, "N:M" (N zeros in every M consecutive inputs), or "structured" (whole key-value groups and MLP
    channels)."""
    allocation: Allocation = "uniform"
    """One sparsity for all layers, or more where there are fewer outliers, "owl"; see `patterns.allocate`."""
    noise_levels: Count = 8
    """States per sequence, at least 1: noise levels, denoising steps, or query windows of a causal model."""
    noise: NoiseName = "grid"
    """The rule of these states: a name of NOISE."""
    norm_reduction: NormReduction = "root"
    """Over tokens: "root" of the summed squares (Wanda), or "sum" of one norm per sequence (the official
    code)."""
    sink_std: AtLeastZero = SINK_STD
    """A sink's distance above the mean mass in standard deviations, at least 0; 2 as in the official code."""
    alpha: AboveZero | None = None
    """Steepness of a soft sink threshold, above 0: per even share with exclude="all" (None: a hard
    threshold), per unit of summed mass with exclude="official" (None: that code's 5)."""
    stability_threshold: Share = STABILITY_THRESHOLD
    """Share of steps, in [0, 1], from which a sink counts as stable."""
    owl_lambda: AtLeastZero = 0.08
    """How far a layer's sparsity may lie from the mean, at least 0; 0.08 as in OWL."""
    owl_m: AboveZero = 5.0
    """Multiple of a layer's mean score, above 0, from which OWL counts an outlier; 5 as in OWL."""
    damping: AtLeastZero = 0.01
    """Share of the mean diagonal that SparseGPT adds to a Gram matrix, at least 0; 0.01 as in its code."""
    block_size: Count = 128
    """Columns that SparseGPT updates together, at least 1; 128 as in its code."""
    compensate: Flag = False
    """Give what removed units contributed on average back as a bias (FLAP), if the model's class has one."""
    round_to: Count | None = None
    """With pattern="structured" the MLP keeps a multiple of as many channels, at least 1, if it has eight
    times as many; None: 64, on which kernels are fast."""
    targets: Names = ()
    """The linears that are pruned, as patterns of their names: "mlp.*" in all blocks, "0.self_attn.q_proj" or
    "0.*" in the first. None given: all of them."""
    ignore: Names = ()
    """Patterns of linears that are not pruned, whatever `targets` says."""
    sparsities: Sparsities = ()
    """A sparsity for every layer, instead of an allocation; `sparsity` is their mean."""

    def __post_init__(self):
        given = self.sparsity
        if given is NOT_GIVEN:
            object.__setattr__(self, "sparsity", HALF)
        if self.round_to is None and self.pattern == "structured":
            object.__setattr__(self, "round_to", ROUND_TO)

        check_fields(self)
        self._check_sparsity(is_given=given is not NOT_GIVEN)

        for is_so, sentence in CONTRADICTIONS:
            if is_so(self):
                raise ValueError(sentence.format(**vars(self) | {"criterion": choice_name(self.criterion)}))

        self._check_read(field.name for field in fields(self) if field.name not in SHARED_IN_COMPARISONS)

    def _check_sparsity(self, is_given: bool) -> None:
        """Let the sparsity be exactly what sparsities or pattern mean; ValueError where it is another one."""
        meant = _meant_sparsity(self.pattern, self.sparsities)
        if meant is None:
            return

        if is_given and abs(self.sparsity - meant) > ROUNDING:
            field = "sparsities" if self.sparsities else "pattern"
            raise ValueError(
                f"sparsity={self.sparsity} does not fit {field}={getattr(self, field)!r}, which means "
                f"{meant}: leave sparsity out"
            )
        object.__setattr__(self, "sparsity", meant)

    def _check_read(self, names: Iterable[str]) -> None:
        """Raise ValueError for the first of some fields that is not its default, and that nothing reads."""
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            value = getattr(self, name)
            is_read, reader = READ_BY.get(name, (None, ""))
            if value != defaults[name] and is_read is not None and not is_read(self):
                raise ValueError(
                    f"{name}={in_short(value)} has no effect on this recipe: only {reader} reads it; "
                    f"leave {name} out"
                )

    @property
    def name(self) -> str:
        """A short label, e.g. `wanda noised dense unstable`: what is not the default is named."""
        parts = [_short(choice_name(self.criterion))]
        optional = [(self.pattern, "row"), (self.allocation, "uniform")]

        if self.rule.calibrated:
            parts += [self.inputs, self.propagation]
            calibration = [
                (_short(choice_name(self.exclude)), "none"),
                (self.noise, "grid"),
                (self.norm_reduction, "root"),
            ]
            optional = calibration + optional

        return " ".join(parts + [value for value, default in optional if value != default])

    @property
    def rule(self) -> Criterion:
        """The criterion, with all that is known of it."""
        return criterion_of(self.criterion)

    def prunes(self, layer: int, name: str) -> bool:
        """Return whether a linear is one that this recipe prunes."""
        spellings = (name, f"{layer}.{name}")
        if _fits(spellings, self.ignore):
            return False
        return not self.targets or _fits(spellings, self.targets)

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

    def card(self) -> dict:
        """Return the fields as plain JSON values; a function is named by its module and qualified name."""
        names = {"criterion": choice_name(self.criterion), "exclude": choice_name(self.exclude)}
        width = {"round_to": self.round_to} if self.pattern == "structured" else {}
        return as_settings(self) | names | width


def _fits(spellings: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(spelling, pattern) for spelling in spellings for pattern in patterns)


NOT_IN_KEYS: dict[str, tuple] = {
    "targets": ((),),
    "ignore": ((),),
    "sparsities": ((),),
    "round_to": (None, 1),
}
"""Fields that recipes have got since records of them are kept, and the values, those of all recipes before,
with which they stand in no key."""


def as_settings(settings: Any) -> dict:
    """Return the fields of a dataclass for a key, without those that stand in no key."""
    return asdict(settings, dict_factory=_in_keys)


def _in_keys(pairs: list[tuple[str, Any]]) -> dict:
    return {name: value for name, value in pairs if value not in NOT_IN_KEYS.get(name, ())}


# which fields go together

Condition = Callable[[Recipe], bool]

_CALIBRATED = (lambda recipe: recipe.rule.calibrated, "a criterion that looks at calibration tokens")
_STATES = (
    lambda recipe: recipe.inputs == "noised" or recipe.exclude != "none",
    "inputs='noised', or a choice of tokens to exclude,",
)
_OWL = (lambda recipe: recipe.allocation == "owl", "allocation='owl'")
_UPDATES = (lambda recipe: recipe.rule.solve is not None, "criterion='sparsegpt'")
_SINGLE_WEIGHTS = (lambda recipe: recipe.pattern != "structured", "a pattern of single weights")

READ_BY: dict[str, tuple[Condition, str]] = {
    "inputs": _CALIBRATED,
    "exclude": _CALIBRATED,
    "propagation": _CALIBRATED,
    "noise_levels": _STATES,
    "noise": _STATES,
    "sink_std": (lambda recipe: recipe.exclude != "none", "a choice of tokens to exclude"),
    "stability_threshold": (
        lambda recipe: recipe.exclude in ("unstable", "stable") or callable(recipe.exclude),
        "exclude='unstable' or 'stable'",
    ),
    "alpha": (
        lambda recipe: callable(recipe.exclude) or EXCLUDE[recipe.exclude].soft,
        "exclude='all' or 'official'",
    ),
    "norm_reduction": (
        lambda recipe: recipe.rule.needs == "norms" or recipe.allocation == "owl",
        "a criterion that reads norms, or allocation='owl',",
    ),
    "owl_lambda": _OWL,
    "owl_m": _OWL,
    "damping": _UPDATES,
    "block_size": _UPDATES,
    "compensate": (
        lambda recipe: recipe.pattern == "structured" and recipe.rule.calibrated,
        "pattern='structured' with a calibrated criterion",
    ),
    "round_to": (lambda recipe: recipe.pattern == "structured", "pattern='structured'"),
    "targets": _SINGLE_WEIGHTS,
    "ignore": _SINGLE_WEIGHTS,
}
"""When a field is read that not every recipe reads, and by what, in words."""

SHARED_IN_COMPARISONS = ("propagation", "noise_levels", "noise", "sink_std", "stability_threshold")
"""Fields that a comparison gives to all its recipes; `preset` alone refuses one that is stated in vain."""

BY_LAYER = ("row", "layer")  # patterns that let layers differ by choice

CONTRADICTIONS: tuple[tuple[Condition, str], ...] = (
    (
        lambda recipe: recipe.allocation == "owl" and recipe.pattern not in BY_LAYER,
        "allocation='owl' does not go with pattern={pattern!r}: it needs pattern='row' or 'layer'",
    ),
    (
        lambda recipe: recipe.allocation == "owl" and not recipe.rule.calibrated,
        "allocation='owl' needs calibrated scores: criterion={criterion!r} has none",
    ),
    (
        lambda recipe: (
            recipe.sparsities != () and (recipe.pattern not in BY_LAYER or recipe.allocation == "owl")
        ),
        "sparsities={sparsities} need pattern='row' or 'layer' and allocation='uniform', not "
        "pattern={pattern!r} and allocation={allocation!r}",
    ),
    (
        lambda recipe: recipe.pattern == "structured" and recipe.rule.unit_score is None,
        "criterion={criterion!r} chooses single weights: it takes no pattern='structured'",
    ),
    (
        lambda recipe: recipe.pattern != "structured" and recipe.rule.chooses_units_alone,
        "criterion={criterion!r} scores whole channels: it needs pattern='structured'",
    ),
    (
        lambda recipe: recipe.pattern == "global" and recipe.rule.needs == "gram",
        "criterion={criterion!r} reads Gram matrices, one by one: it takes no pattern='global'",
    ),
    (
        lambda recipe: (
            recipe.pattern == "global" and recipe.rule.calibrated and recipe.propagation != "dense"
        ),
        "pattern='global' compares scores of all layers before anything is pruned: it needs "
        "propagation='dense'",
    ),
)
"""When fields of a recipe do not go together, and what is said then."""


# presets


def preset(name: str, **changes: object) -> Recipe:
    """Return a preset, with fields changed.

    What a preset has from a sparsity on was measured for single weights: a pattern N:M goes without it. How
    it shares zeros out over layers gives way to `sparsities`, which say that themselves.
    Raises ValueError for an unknown name, and for a change that has no effect on this preset.
    """
    recipe = compared_preset(name, **changes)
    recipe._check_read(changes)
    return recipe


def compared_preset(name: str, **changes: object) -> Recipe:
    """Return a preset as `preset` does, with settings of a comparison that it need not read."""
    check_choice("preset", name, PRESETS)

    settings = {**PRESETS[name], **changes}
    pattern = settings.get("pattern", "row")
    sparsities = settings.get("sparsities", ())
    sparsity = settings.get("sparsity")
    if sparsity is None:
        sparsity = _meant_sparsity(pattern, sparsities) or HALF

    for least, more in PRESETS_FROM_SPARSITY.get(name, {}).items():
        if checked("sparsity", sparsity, Sparsity) >= least and _ratio(pattern) is None:
            settings = {**PRESETS[name], **more, **changes}

    if sparsities and "allocation" not in changes:
        settings.pop("allocation", None)
    return Recipe(**settings)


def _meant_sparsity(pattern: object, sparsities: object) -> float | None:
    """Return the sparsity that sparsities of layers or a pattern N:M mean; None where neither says one."""
    of_layers = checked("sparsities", sparsities, Sparsities)
    if of_layers:
        return sum(of_layers) / len(of_layers)

    ratio = _ratio(pattern)
    return None if ratio is None else ratio[0] / ratio[1]


def _ratio(pattern: object) -> tuple[int, int] | None:
    return n_and_m(pattern) if isinstance(pattern, str) else None


def _short(name: str) -> str:
    """Return a name without its module: of `own.Late(share=0.5)` the part `Late(share=0.5)`."""
    head, bracket, arguments = name.partition("(")
    return head.rpartition(".")[2] + bracket + arguments

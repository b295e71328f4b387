"""How to prune, as data: a criterion and a few switches. Presets are the recipes of the literature."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from fnmatch import fnmatchcase
from types import FunctionType
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from sinkprune_core.calibration.token_weights import EXCLUDE, StatisticsKey, choice_name
from sinkprune_core.pruning.criteria import (
    CRITERIA,
    Criterion,
    CriterionName,
    Score,
    criterion_of,
    needs_of,
)
from sinkprune_core.pruning.patterns import PATTERNS, n_and_m
from sinkprune_core.pruning.presets import FROM, PRESETS
from sinkprune_core.sinks.detection import SINK_STD, STABILITY_THRESHOLD
from sinkprune_core.values import (
    AboveZero,
    AtLeastZero,
    Count,
    Flag,
    Share,
    Sparsity,
    Text,
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
Allocation = Literal["uniform", "owl", "linear"]
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
    "rollout",
]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    Field(strict=False, description="a list of names of linears, such as 'mlp.*'"),
]
Sparsities = Annotated[
    tuple[Sparsity, ...], Field(strict=False, description="a list of numbers in [0, 1), one per layer")
]
ExcludeName = Literal["none", "all", "official", "unstable", "stable", "random", "only"]


@dataclass(frozen=True)
class Recipe:
    """How to prune the linears of the blocks; raises ValueError for fields that contradict each other."""

    criterion: CriterionName | Score = "wanda"
    """Which weights matter: a name of CRITERIA, or a function; see `criteria.criterion_of`."""
    sparsity: Sparsity = NOT_GIVEN
    """Share of zeros in the linears, in [0, 1); with pattern="structured" of their weights that leave. Where
    none is given, it is N / M of a pattern, the mean of `sparsities`, or else 0.5."""
    inputs: Inputs = "clean"
    """Calibration text as it is ("clean", Wanda and SparseGPT) or in the states of a trajectory
    ("noised")."""
    propagation: Propagation = "sequential"
    """Whether later blocks receive what pruned ("sequential", Wanda and SparseGPT) or "dense" blocks make."""
    exclude: ExcludeName | Callable = "none"
    """Calibration tokens left out of the statistics. A name of EXCLUDE: "none", "all" sinks, "official"
    (softly, in the official code's units), "unstable" or "stable" sinks, as many "random" tokens, "only" (all
    but the sinks). Or a function from a SinkContext to the share left out of every token at every step, (1,
    S, T), in [0, 1]; it is called for one sequence at a time."""
    pattern: Text = "row"
    """Where zeros are counted: per "row" of a linear (Wanda), per "layer" (a linear), "global" over the
    model, "N:M" (N zeros in every M consecutive inputs), or "structured" (whole key-value groups and MLP
    channels)."""
    allocation: Allocation = "uniform"
    """One sparsity for all layers, or more for some: "owl", "linear"; see `patterns.allocate`."""
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
    keep_zeros: Flag = False
    """Let weights that are zero already stay zero, and count them: an earlier mask is kept."""

    def __post_init__(self):
        self._take_sparsity()
        check_fields(self)
        if self.round_to is None and self.pattern == "structured":
            object.__setattr__(self, "round_to", ROUND_TO)

        self._check_pattern()
        self._check_choice("criterion", CRITERIA)
        self._check_choice("exclude", EXCLUDE)
        needs_of(self.criterion)

        for is_so, sentence in CONTRADICTIONS:
            if is_so(self):
                raise ValueError(sentence.format(**vars(self) | {"criterion": choice_name(self.criterion)}))

        self._check_effects([name for name, reader in READERS.items() if not reader.of_comparisons])

    def _take_sparsity(self) -> None:
        """Let the sparsity be exactly what sparsities or pattern mean; a half where nothing says one.

        Raises ValueError for one that is not what they mean, rounded.
        """
        meant = _meant_sparsity(self.pattern, self.sparsities)
        if self.sparsity is None:
            object.__setattr__(self, "sparsity", HALF if meant is None else meant)
            return

        given = checked("sparsity", self.sparsity, Sparsity)
        if meant is None:
            return

        if abs(given - meant) > ROUNDING:
            field = "sparsities" if self.sparsities else "pattern"
            raise ValueError(
                f"sparsity={given} does not fit {field}={getattr(self, field)!r}, which means {meant}: leave "
                "sparsity out"
            )
        object.__setattr__(self, "sparsity", meant)

    def _check_pattern(self) -> None:
        """Raise ValueError for an unknown pattern."""
        if self.pattern not in PATTERNS and n_and_m(self.pattern) is None:
            raise ValueError(
                f"pattern={in_short(self.pattern)} is unknown; "
                f"choose one of {', '.join(PATTERNS)}, or N:M such as 2:4"
            )

    def _check_choice(self, field: str, names: Iterable[str]) -> None:
        """Raise ValueError for what is neither one of some names nor a function with a name of its own."""
        given = getattr(self, field)
        if isinstance(given, type):
            raise ValueError(
                f"{field}={given.__name__} is a class: give an instance of it, {given.__name__}(…), of a "
                "@dataclass(frozen=True)"
            )

        if is_dataclass(given) and type(given).__hash__ is None:
            raise ValueError(
                f"{field}={in_short(given)} is of a dataclass that can be changed, so that no statistics can "
                "be known by it: declare it with @dataclass(frozen=True)"
            )

        is_known = isinstance(given, str) and given in names
        if not is_known and not _is_function(given):
            raise ValueError(
                f"{field}={in_short(given)} is unknown; choose one of {', '.join(names)}, "
                "or give a function (def or lambda) or a dataclass that can be called"
            )

    def _check_effects(self, names: Iterable[str]) -> None:
        """Raise ValueError for the first of some fields that is set, and that nothing reads."""
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            value = getattr(self, name)
            reader = READERS[name]
            if value != defaults[name] and not reader.reads(self):
                raise ValueError(
                    f"{name}={in_short(value)} has no effect on this recipe: only {reader.who} reads it; "
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


def _is_function(given: object) -> bool:
    """Return whether something can be called and has a name that tells it from others.

    A dataclass prints its fields, so that its name does, as a function's does.
    """
    return isinstance(given, FunctionType) or (is_dataclass(given) and callable(given))


def _fits(spellings: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(spelling, pattern) for spelling in spellings for pattern in patterns)


LATER: dict[str, tuple] = {
    "targets": ((),),
    "ignore": ((),),
    "sparsities": ((),),
    "keep_zeros": (False,),
    "round_to": (None, 1),
}
"""Fields that recipes have got since records of them are kept, and the values, those of all recipes before,
with which they stand in no key."""


def as_settings(settings: Any) -> dict:
    """Return the fields of a dataclass for a key: those of LATER only where they are set."""
    return asdict(settings, dict_factory=_without_unset)


def _without_unset(pairs: list[tuple[str, Any]]) -> dict:
    return {name: value for name, value in pairs if value not in LATER.get(name, ())}


@dataclass(frozen=True)
class Reader:
    """What reads a field of a recipe."""

    who: str
    reads: Callable[[Recipe], bool]
    of_comparisons: bool = False
    """Whether comparisons give the field to all their recipes; `preset` alone refuses one stated in vain."""


_TEXT = Reader("a criterion that looks at calibration tokens", lambda recipe: recipe.rule.calibrated)
_STATES = Reader(
    "inputs='noised', or a choice of tokens to exclude,",
    lambda recipe: recipe.inputs == "noised" or recipe.exclude != "none",
    of_comparisons=True,
)
_CHOICE = Reader(
    "a choice of tokens to exclude", lambda recipe: recipe.exclude != "none", of_comparisons=True
)
_SPLIT = Reader(
    "exclude='unstable' or 'stable'",
    lambda recipe: recipe.exclude in ("unstable", "stable") or callable(recipe.exclude),
    of_comparisons=True,
)
_SOFT = Reader(
    "exclude='all' or 'official'",
    lambda recipe: callable(recipe.exclude) or EXCLUDE[recipe.exclude].soft,
)
_NORMS = Reader(
    "a criterion that reads norms, or allocation='owl',",
    lambda recipe: recipe.rule.needs == "norms" or recipe.allocation == "owl",
)
_SOLVER = Reader(
    "a criterion that updates weights, criterion='sparsegpt',",
    lambda recipe: recipe.rule.solve is not None,
)
_WEIGHTS = Reader("a pattern of single weights", lambda recipe: recipe.pattern != "structured")
_UNITS = Reader("pattern='structured'", lambda recipe: recipe.pattern == "structured")
_MEANS = Reader(
    "pattern='structured' with a calibrated criterion",
    lambda recipe: recipe.pattern == "structured" and recipe.rule.calibrated,
)

READERS: dict[str, Reader] = {
    "inputs": _TEXT,
    "exclude": _TEXT,
    "propagation": replace(_TEXT, of_comparisons=True),
    "noise_levels": _STATES,
    "noise": _STATES,
    "norm_reduction": _NORMS,
    "sink_std": _CHOICE,
    "alpha": _SOFT,
    "stability_threshold": _SPLIT,
    "owl_lambda": Reader("an allocation that is not uniform", lambda recipe: recipe.allocation != "uniform"),
    "owl_m": Reader("allocation='owl'", lambda recipe: recipe.allocation == "owl"),
    "damping": _SOLVER,
    "block_size": _SOLVER,
    "compensate": _MEANS,
    "round_to": _UNITS,
    "targets": _WEIGHTS,
    "ignore": _WEIGHTS,
}
"""Who reads a field that not every recipe reads."""

BY_LAYER = ("row", "layer")  # patterns that let layers differ by choice

CONTRADICTIONS: tuple[tuple[Callable[[Recipe], bool], str], ...] = (
    (
        lambda recipe: recipe.allocation != "uniform" and recipe.pattern not in BY_LAYER,
        "allocation={allocation!r} does not go with pattern={pattern!r}: it needs pattern='row' or 'layer'",
    ),
    (
        lambda recipe: recipe.allocation == "owl" and not recipe.rule.calibrated,
        "allocation='owl' needs calibrated scores: criterion={criterion!r} has none",
    ),
    (
        lambda recipe: (
            recipe.sparsities != () and (recipe.pattern not in BY_LAYER or recipe.allocation != "uniform")
        ),
        "sparsities={sparsities} need pattern='row' or 'layer' and allocation='uniform', not "
        "pattern={pattern!r} and allocation={allocation!r}",
    ),
    (
        lambda recipe: recipe.rule.solve is not None and recipe.pattern in ("structured", "global"),
        "criterion={criterion!r} chooses while it updates weights: it takes no pattern={pattern!r}",
    ),
    (
        lambda recipe: recipe.rule.unit_score is None and recipe.pattern == "structured",
        "criterion={criterion!r} scores single weights: it takes no pattern='structured'",
    ),
    (
        lambda recipe: (
            recipe.rule.score is None and recipe.rule.solve is None and recipe.pattern != "structured"
        ),
        "criterion={criterion!r} scores whole channels: it needs pattern='structured'",
    ),
    (
        lambda recipe: (
            recipe.pattern == "global" and recipe.rule.calibrated and recipe.propagation != "dense"
        ),
        "pattern='global' compares scores of all layers before anything is pruned: it needs "
        "propagation='dense'",
    ),
    (
        lambda recipe: recipe.pattern == "global" and recipe.rule.needs == "gram",
        "criterion={criterion!r} reads Gram matrices, one by one: it takes no pattern='global'",
    ),
    (
        lambda recipe: (
            recipe.keep_zeros and (recipe.rule.score is None or recipe.pattern in ("structured", "global"))
        ),
        "keep_zeros=True needs a criterion that scores single weights and updates none, and pattern='row', "
        "'layer' or N:M; not criterion={criterion!r} with pattern={pattern!r}",
    ),
)
"""When fields of a recipe do not go together, and what is said then."""


def preset(name: str, **changes: object) -> Recipe:
    """Return a preset, with fields changed.

    What a preset has from a sparsity on was measured for single weights: a pattern N:M goes without it. How
    it shares zeros out over layers gives way to `sparsities`, which say that themselves.
    Raises ValueError for an unknown name, and for a change that has no effect on this preset.
    """
    recipe = compared_preset(name, **changes)
    recipe._check_effects([field for field in READERS if field in changes])
    return recipe


def compared_preset(name: str, **changes: object) -> Recipe:
    """Return a preset as `preset` does, with settings of a comparison that it need not read."""
    check_choice("preset", name, PRESETS)

    removes_units = PRESETS[name].get("pattern") == "structured"
    if removes_units and changes.get("pattern", "structured") != "structured":
        raise ValueError(f"preset {name!r} removes whole units: leave out pattern={changes['pattern']!r}")

    settings = {**PRESETS[name], **changes}
    pattern = settings.get("pattern", "row")
    sparsities = settings.get("sparsities", ())
    sparsity = settings.get("sparsity")
    if sparsity is None:
        sparsity = _meant_sparsity(pattern, sparsities) or HALF

    for least, more in FROM.get(name, {}).items():
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

"""How to prune, as data: a criterion and a few switches. Presets are the recipes of the literature."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from fnmatch import fnmatchcase
from types import FunctionType
from typing import Any, Literal, cast

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
    pattern: str = "row"
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
    targets: tuple[str, ...] = ()
    """The linears that are pruned, as patterns of their names: "mlp.*" in all blocks, "0.self_attn.q_proj" or
    "0.*" in the first. None given: all of them."""
    ignore: tuple[str, ...] = ()
    """Patterns of linears that are not pruned, whatever `targets` says."""
    sparsities: tuple[float, ...] = ()
    """A sparsity for every layer, instead of an allocation; `sparsity` is their mean."""
    keep_zeros: Flag = False
    """Let weights that are zero already stay zero, and count them: an earlier mask is kept."""

    def __post_init__(self):
        self._take_sparsities()
        self._take_sparsity()
        check_fields(self)
        self._check_mean()
        self._take_names("targets")
        self._take_names("ignore")
        self._check_functions()
        self._check_pattern()
        self._check_choice_of_layers()
        self._check_sparsity_of_pattern()
        if self.round_to is None and self.pattern == "structured":
            object.__setattr__(self, "round_to", ROUND_TO)
        self._check_text_of_criterion()
        self._check_pattern_of_criterion()
        self._check_options()
        self._check_alpha()
        self._check_effects(OWN)

    def _take_names(self, field: str) -> None:
        """Let a field be a tuple of patterns; raise ValueError where it holds anything else."""
        given = getattr(self, field)
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{field}={in_short(given)} must be a list of names of linears, such as 'mlp.*'")
        object.__setattr__(self, field, tuple(names))

    def _take_sparsities(self) -> None:
        """Let sparsities be a tuple of shares."""
        given = self.sparsities
        if not isinstance(given, (list, tuple)):
            raise ValueError(f"sparsities={in_short(given)} must be a list of numbers, one per layer")

        shares = tuple(checked("sparsities", share, Sparsity) for share in given)
        object.__setattr__(self, "sparsities", shares)

    def _take_sparsity(self) -> None:
        """Let a sparsity that is not given be what the pattern or the sparsities mean, else a half."""
        if self.sparsity is not None:
            return

        ratio = n_and_m(self.pattern) if isinstance(self.pattern, str) else None
        meant = HALF
        if self.sparsities:
            meant = self._mean
        elif ratio is not None:
            meant = ratio[0] / ratio[1]

        object.__setattr__(self, "sparsity", meant)

    @property
    def _mean(self) -> float:
        """The mean of the sparsities."""
        return sum(self.sparsities) / len(self.sparsities)

    def _check_mean(self) -> None:
        """Let the sparsity be the mean of the sparsities; raise ValueError for one that is not, rounded."""
        if not self.sparsities:
            return

        if abs(self.sparsity - self._mean) > ROUNDING:
            raise ValueError(
                f"sparsities={list(self.sparsities)} have a mean of {self._mean:g}, not "
                f"sparsity={self.sparsity}: leave sparsity out, or give that mean"
            )

        object.__setattr__(self, "sparsity", self._mean)

    def _check_functions(self) -> None:
        """Raise ValueError where what may be a name or a function is neither."""
        self._check_hashable("criterion")
        self._check_hashable("exclude")

        if _is_function(self.criterion):
            needs_of(self.criterion)
        else:
            check_choice("criterion", self.criterion, CRITERIA)

        is_known = isinstance(self.exclude, str) and self.exclude in EXCLUDE
        if not is_known and not _is_function(self.exclude):
            raise ValueError(
                f"exclude={in_short(self.exclude)} is unknown; choose one of {', '.join(EXCLUDE)}, "
                "or give a function (def or lambda) or a dataclass that can be called"
            )

    def _check_hashable(self, field: str) -> None:
        """Raise ValueError for a dataclass itself, and for a dataclass whose fields may change."""
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

    def _check_pattern(self) -> None:
        """Raise ValueError for an unknown pattern."""
        is_text = isinstance(self.pattern, str)
        ratio = n_and_m(self.pattern) if is_text else None

        if ratio is None and not (is_text and self.pattern in PATTERNS):
            raise ValueError(
                f"pattern={in_short(self.pattern)} is unknown; "
                f"choose one of {', '.join(PATTERNS)}, or N:M such as 2:4"
            )

    def _check_choice_of_layers(self) -> None:
        """Raise ValueError where layers, or linears, are told apart that the pattern takes together."""
        if self.pattern not in ("row", "layer") and self.allocation != "uniform":
            raise ValueError(
                f"allocation={self.allocation!r} does not go with pattern={self.pattern!r}: "
                "only row and layer patterns let layers differ by choice"
            )

        if self.sparsities and (self.pattern not in ("row", "layer") or self.allocation != "uniform"):
            raise ValueError(
                f"sparsities={list(self.sparsities)} need pattern='row' or 'layer' and allocation='uniform', "
                f"not pattern={self.pattern!r} and allocation={self.allocation!r}"
            )

        if (self.targets or self.ignore) and self.pattern == "structured":
            raise ValueError(
                "targets and ignore choose single linears: a unit of pattern='structured' lies in several"
            )

    def _check_sparsity_of_pattern(self) -> None:
        """Let the sparsity be N / M of a pattern; raise ValueError for one that is not that, rounded."""
        ratio = n_and_m(self.pattern)
        if ratio is None:
            return

        of_pattern = ratio[0] / ratio[1]
        if abs(self.sparsity - of_pattern) > ROUNDING:
            raise ValueError(
                f"pattern={self.pattern!r} means sparsity={of_pattern}, "
                f"not sparsity={self.sparsity}: give that sparsity or another pattern"
            )

        object.__setattr__(self, "sparsity", of_pattern)

    def _check_effects(self, names: Iterable[str]) -> None:
        """Raise ValueError for the first of some fields that is set, and that nothing reads."""
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            value = getattr(self, name)
            reader = READERS[name]
            if value != defaults[name] and not reader.reads(self):
                raise ValueError(
                    f"{name}={value!r} has no effect on this recipe: only {reader.who} reads it; "
                    f"leave {name} out"
                )

    @property
    def _stated_criterion(self) -> str:
        """The criterion as an error names it."""
        return f"criterion={choice_name(self.criterion)!r}"

    def _check_text_of_criterion(self) -> None:
        """Raise ValueError for a choice of tokens that the criterion does not look at."""
        if not self.rule.calibrated and (self.exclude != "none" or self.inputs != "clean"):
            raise ValueError(
                f"{self._stated_criterion} looks at no calibration token: "
                "it takes inputs='clean' and exclude='none' only"
            )

    def _check_pattern_of_criterion(self) -> None:
        """Raise ValueError for a pattern that the criterion's functions cannot serve."""
        criterion = self.rule
        prefix = self._stated_criterion

        if criterion.solve is not None and self.pattern in ("structured", "global"):
            raise ValueError(
                f"{prefix} chooses while it updates weights: it takes no pattern={self.pattern!r}"
            )

        if criterion.unit_score is None and self.pattern == "structured":
            raise ValueError(f"{prefix} scores single weights: it takes no pattern='structured'")
        if criterion.score is None and criterion.solve is None and self.pattern != "structured":
            raise ValueError(f"{prefix} scores whole channels: it needs pattern='structured'")

        if self.pattern == "global" and criterion.calibrated and self.propagation != "dense":
            raise ValueError(
                "pattern='global' compares scores of all layers before anything is pruned: "
                "it needs propagation='dense'"
            )

        if self.pattern == "global" and criterion.needs == "gram":
            raise ValueError(f"{prefix} reads Gram matrices, one by one: it takes no pattern='global'")

    def _check_options(self) -> None:
        """Raise ValueError for an option that needs another criterion, or another pattern."""
        criterion = self.rule
        prefix = self._stated_criterion

        if self.keep_zeros and (criterion.score is None or self.pattern in ("structured", "global")):
            raise ValueError(
                "keep_zeros=True needs a criterion that scores single weights and leaves the others as they "
                f"are, and pattern='row', 'layer' or N:M; not {prefix} with pattern={self.pattern!r}"
            )

        if self.allocation == "owl" and not criterion.calibrated:
            raise ValueError(f"allocation='owl' needs calibrated scores: {prefix} has none")

        if self.compensate and (self.pattern != "structured" or not criterion.calibrated):
            raise ValueError(
                "compensate=True gives back the mean of removed units: "
                "it needs pattern='structured' and a calibrated criterion"
            )

        if self.norm_reduction != "root" and criterion.needs != "norms" and self.allocation != "owl":
            raise ValueError(f"{prefix} reads no norms: it takes norm_reduction='root' only")

    def _check_alpha(self) -> None:
        """Raise ValueError for an `alpha` beside a choice of tokens without a soft threshold."""
        soft = [name for name, choice in EXCLUDE.items() if choice.soft]

        if self.alpha is not None and self.exclude not in soft and not callable(self.exclude):
            raise ValueError(
                f"alpha={self.alpha} softens the threshold of exclude={' or '.join(map(repr, soft))} only, "
                f"not of exclude={self.exclude!r}"
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


def _sees_states(recipe: Recipe) -> bool:
    return recipe.inputs == "noised" or recipe.exclude != "none"


def _leaves_out(recipe: Recipe) -> bool:
    return recipe.exclude != "none"


def _splits_sinks(recipe: Recipe) -> bool:
    return recipe.exclude in ("unstable", "stable") or not isinstance(recipe.exclude, str)


def _solves(recipe: Recipe) -> bool:
    return recipe.rule.solve is not None


_STATES = Reader("inputs='noised', or a choice of tokens to exclude,", _sees_states)
_SOLVER = Reader("a criterion that updates weights, criterion='sparsegpt',", _solves)

READERS: dict[str, Reader] = {
    "noise_levels": _STATES,
    "noise": _STATES,
    "propagation": Reader("a criterion that reads calibration text", lambda recipe: recipe.rule.calibrated),
    "sink_std": Reader("a choice of tokens to exclude", _leaves_out),
    "stability_threshold": Reader("exclude='unstable' or 'stable'", _splits_sinks),
    "owl_lambda": Reader("an allocation that is not uniform", lambda recipe: recipe.allocation != "uniform"),
    "owl_m": Reader("allocation='owl'", lambda recipe: recipe.allocation == "owl"),
    "damping": _SOLVER,
    "block_size": _SOLVER,
    "round_to": Reader("pattern='structured'", lambda recipe: recipe.pattern == "structured"),
}
"""Who reads a field that not every recipe reads."""

OWN = ("owl_lambda", "owl_m", "damping", "block_size", "round_to")
"""Fields that a recipe refuses where nothing reads them. The others of READERS are settings that comparisons
give to all their recipes; `preset` refuses them where a user states one in vain."""


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

    recipe = Recipe(**{**PRESETS[name], **changes})
    for sparsity, more in FROM.get(name, {}).items():
        if recipe.sparsity >= sparsity and not n_and_m(recipe.pattern):
            settings = {**PRESETS[name], **more, **changes}
            if recipe.sparsities and "allocation" not in changes:
                settings.pop("allocation", None)
            recipe = Recipe(**settings)

    return recipe


def _short(name: str) -> str:
    """Return a name without its module: of `own.Late(share=0.5)` the part `Late(share=0.5)`."""
    head, bracket, arguments = name.partition("(")
    return head.rpartition(".")[2] + bracket + arguments

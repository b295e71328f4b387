"""How to prune, as data: a criterion and a few switches. Presets are the recipes of the literature."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from types import FunctionType

from sinkprune_core.calibration.sink_profiles import windows_of
from sinkprune_core.calibration.text import INPUTS, NOISE, Calibration, rollout_prompt
from sinkprune_core.calibration.token_weights import EXCLUDE, StatisticsKey, choice_name
from sinkprune_core.forwards import check_ids
from sinkprune_core.language_model import LanguageModel, weight_OI
from sinkprune_core.pruning import structured
from sinkprune_core.pruning.criteria import CRITERIA
from sinkprune_core.pruning.patterns import ALLOCATIONS, PATTERNS, allocate, n_and_m
from sinkprune_core.pruning.presets import FROM, PRESETS
from sinkprune_core.sinks.detection import STABILITY_THRESHOLD
from sinkprune_core.values import (
    AboveZero,
    AtLeastZero,
    Count,
    Flag,
    Share,
    Sparsity,
    check_choice,
    check_fields,
    in_short,
)

PROPAGATION = ("sequential", "dense")
NORM_REDUCTIONS = ("root", "sum")


@dataclass(frozen=True)
class Recipe:
    """How to prune the linears of the blocks; raises ValueError for fields that contradict each other."""

    criterion: str = "wanda"
    """Which weights matter: a name of CRITERIA."""
    sparsity: Sparsity = 0.5
    """Share of zeros in the linears, in [0, 1); with pattern="structured" of their weights that leave."""
    inputs: str = "clean"
    """Calibration text as it is ("clean", Wanda and SparseGPT) or in the states of a trajectory
    ("noised")."""
    propagation: str = "sequential"
    """Whether later blocks receive what pruned ("sequential", Wanda and SparseGPT) or "dense" blocks make."""
    exclude: str | Callable = "none"
    """Calibration tokens left out of the statistics. A name of EXCLUDE: "none", "all" sinks, "official"
    (softly, in the official code's units), "unstable" or "stable" sinks, as many "random" tokens, "only" (all
    but the sinks). Or a function from a SinkContext to the share left out of every token at every step, (1,
    S, T), in [0, 1]; it is called for one sequence at a time."""
    pattern: str = "row"
    """Where zeros are counted: per "row" of a linear (Wanda), per "layer" (a linear), "global" over the
    model, "N:M" (N zeros in every M consecutive inputs), or "structured" (whole key-value groups and MLP
    channels)."""
    allocation: str = "uniform"
    """One sparsity for all layers, or more for some: "owl", "linear", "linear-reverse"; see
    `patterns.allocate`."""
    noise_levels: Count = 8
    """States per sequence, at least 1: noise levels, denoising steps, or query windows of a causal model."""
    noise: str = "grid"
    """The rule of these states: a name of NOISE."""
    norm_reduction: str = "root"
    """Over tokens: "root" of the summed squares (Wanda), or "sum" of one norm per sequence (the official
    code)."""
    sink_std: AtLeastZero = 2.0
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

    def __post_init__(self):
        check_fields(self)
        self._check_choices()
        self._check_pattern()
        self._check_contradictions()

    def _check_choices(self) -> None:
        choices = {
            "criterion": CRITERIA,
            "inputs": INPUTS,
            "propagation": PROPAGATION,
            "allocation": ALLOCATIONS,
            "noise": NOISE,
            "norm_reduction": NORM_REDUCTIONS,
        }
        for name, allowed in choices.items():
            check_choice(name, getattr(self, name), allowed)
        known = isinstance(self.exclude, str) and self.exclude in EXCLUDE
        # a dataclass prints its fields, so its name tells it from others, as a function's does
        is_function = isinstance(self.exclude, FunctionType)
        is_named_object = is_dataclass(self.exclude) and callable(self.exclude)
        if not (known or is_function or is_named_object):
            raise ValueError(
                f"exclude={in_short(self.exclude)} is unknown; choose one of {', '.join(EXCLUDE)}, "
                "or give a function (def or lambda) or a dataclass that can be called"
            )

    def _check_pattern(self) -> None:
        is_text = isinstance(self.pattern, str)
        ratio = n_and_m(self.pattern) if is_text else None
        if ratio is None and not (is_text and self.pattern in PATTERNS):
            raise ValueError(
                f"pattern={in_short(self.pattern)} is unknown; "
                f"choose one of {', '.join(PATTERNS)}, or N:M such as 2:4"
            )
        if ratio is not None and self.sparsity != ratio[0] / ratio[1]:
            raise ValueError(
                f"pattern={self.pattern!r} means sparsity={ratio[0] / ratio[1]:g}, "
                f"not sparsity={self.sparsity}: give that sparsity or another pattern"
            )
        if self.pattern not in ("row", "layer") and self.allocation != "uniform":
            raise ValueError(
                f"allocation={self.allocation!r} does not go with pattern={self.pattern!r}: "
                "only row and layer patterns let layers differ by choice"
            )

    def _check_contradictions(self) -> None:
        """Raise ValueError for fields that do not go together, the criterion's functions included."""
        criterion = CRITERIA[self.criterion]
        prefix = f"criterion={self.criterion!r}"
        if not criterion.calibrated and (self.exclude != "none" or self.inputs != "clean"):
            raise ValueError(
                f"{prefix} looks at no calibration token: it takes inputs='clean' and exclude='none' only"
            )
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
        if self.allocation == "owl" and not criterion.calibrated:
            raise ValueError(f"allocation='owl' needs calibrated scores: {prefix} has none")
        if self.compensate and (self.pattern != "structured" or not criterion.calibrated):
            raise ValueError(
                "compensate=True gives back the mean of removed units: "
                "it needs pattern='structured' and a calibrated criterion"
            )
        if self.norm_reduction != "root" and criterion.needs != "norms" and self.allocation != "owl":
            raise ValueError(f"{prefix} reads no norms: it takes norm_reduction='root' only")
        soft = [name for name, choice in EXCLUDE.items() if choice.soft]
        if self.alpha is not None and self.exclude not in soft and not callable(self.exclude):
            raise ValueError(
                f"alpha={self.alpha} softens the threshold of exclude={' or '.join(map(repr, soft))} only, "
                f"not of exclude={self.exclude!r}"
            )

    @property
    def name(self) -> str:
        """A short label, e.g. `wanda noised dense unstable`: what is not the default is named."""
        parts = [self.criterion]
        optional = [(self.pattern, "row"), (self.allocation, "uniform")]
        if CRITERIA[self.criterion].calibrated:
            parts += [self.inputs, self.propagation]
            exclude = choice_name(self.exclude).rpartition(".")[2]
            calibration = [(exclude, "none"), (self.noise, "grid"), (self.norm_reduction, "root")]
            optional = calibration + optional
        return " ".join(parts + [value for value, default in optional if value != default])

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
        return asdict(self) | {"exclude": choice_name(self.exclude)}


def preset(name: str, **changes: object) -> Recipe:
    """Return a preset, with fields changed; raises ValueError for an unknown name.

    What a preset has from a sparsity on was measured for single weights: a pattern N:M goes without it.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    if PRESETS[name].get("pattern") == "structured" != changes.get("pattern", "structured"):
        raise ValueError(f"preset {name!r} removes whole units: leave out pattern={changes['pattern']!r}")
    recipe = Recipe(**{**PRESETS[name], **changes})
    for sparsity, fields in FROM.get(name, {}).items():
        if recipe.sparsity >= sparsity and not n_and_m(recipe.pattern):
            recipe = Recipe(**{**PRESETS[name], **fields, **changes})
    return recipe


def check(lm: LanguageModel, recipe: Recipe, calibration: Calibration | None) -> None:
    """Raise ValueError when a recipe does not fit the model or its calibration text."""
    if recipe.inputs == "noised" and not lm.is_diffusion:
        raise ValueError(
            f"inputs='noised' needs a diffusion model with a mask token; {lm.name} is {lm.kind}: "
            "use inputs='clean'"
        )
    if CRITERIA[recipe.criterion].calibrated:
        if calibration is None:
            raise ValueError(f"criterion={recipe.criterion!r} needs calibration text: pass a Calibration")
        check_ids(lm, calibration.ids_NT)
        length = calibration.ids_NT.shape[1]
        written = length - rollout_prompt(length)
        if recipe.noise == "rollout" and recipe.noise_levels > written:
            raise ValueError(
                f"noise_levels={recipe.noise_levels} exceed the {written} tokens a rollout writes: "
                "use fewer levels or longer sequences"
            )
        if recipe.exclude != "none":
            windows_of(lm, length, recipe.noise_levels)
    _check_groups(lm, recipe)
    if recipe.pattern == "structured":
        structured.plan(lm, recipe.sparsity)
        if recipe.compensate:
            structured.check_compensation(lm)
    if lm.is_streamed and (recipe.pattern == "structured" or recipe.noise == "rollout"):
        raise ValueError(
            f"{lm.name} is streamed from disk: pattern='structured' and noise='rollout' need the whole model "
            "in memory"
        )
    if recipe.allocation != "owl":  # which depends on outliers: `allocate` checks it when these are known
        allocate(recipe.allocation, recipe.sparsity, len(lm.blocks), recipe.owl_lambda)


def _check_groups(lm: LanguageModel, recipe: Recipe) -> None:
    ratio = n_and_m(recipe.pattern)
    if ratio is None:
        return
    for name, linear in lm.linears(lm.blocks[0]).items():
        inputs = weight_OI(linear).shape[1]
        if inputs % ratio[1]:
            raise ValueError(
                f"pattern={recipe.pattern!r} needs inputs in groups of {ratio[1]}; {name} has {inputs}: "
                "use another M"
            )
